// NSB-GAN's second decoder: an SRResNet without batch norm that adds what is missing to an upsampled picture, and the discriminator of
// its adversarial training.
#pragma once
#include <string>
#include <vector>

#include "models/nsbgan_layers.h"

namespace kiln::nsbgan {

/// Convolutions throughout: one, `blocks` residual blocks of two (no long skip around them), one for every doubling with sub-pixel
/// shuffling, and two at the end. Leaky ReLUs of slope 0.1. All start at a tenth of He's deviation, so that the result is small at first.
class SrResNet {
 public:
  SrResNet() = default;
  SrResNet(int64_t width, int blocks, int doublings);
  /// x [n, h, w, 3] -> what to add to the upsampled picture, [n, h 2^doublings, w 2^doublings, 3].
  Var operator()(const Var& x);
  /// Pixels of x on either side that a result can depend on.
  int reach() const;
  template <class F>
  void visit(F&& f) {
    f("conv_first", first_);
    for (size_t i = 0; i < blocks_.size(); i++) f("body." + std::to_string(i), blocks_[i]);
    for (size_t i = 0; i < up_.size(); i++) f("upconv" + std::to_string(i + 1), up_[i]);
    f("conv_hr", hr_);
    f("conv_last", last_);
  }

 private:
  struct Block {
    Conv conv1, conv2;
    template <class F>
    void visit(F&& f) {
      f("conv1", conv1);
      f("conv2", conv2);
    }
  };
  Conv first_, hr_, last_;
  std::vector<Block> blocks_;
  std::vector<Conv> up_;
};

/// A VGG-like network down to 4x4: a 3x3 convolution and a 4x4 one of stride 2 for every halving, widths w, 2w, 4w, 8w, 8w, ..., batch norm
/// behind all but the first, leaky ReLUs of slope 0.2; then 100 numbers, then one.
class Discriminator {
 public:
  Discriminator() = default;
  /// size: side of the pictures, a power of two from 16.
  Discriminator(int size, int64_t width);
  /// Pictures [n, R, R, 3] on [0, 1] -> logits [n] f32.
  Var operator()(const Var& x);
  template <class F>
  void visit(F&& f) {
    f("conv0_0", first_);
    for (size_t i = 0; i < convs_.size(); i++) {
      const std::string name = std::to_string((i + 1) / 2) + "_" + std::to_string((i + 1) % 2);
      f("conv" + name, convs_[i]);
      f("bn" + name, norms_[i]);
    }
    f("linear1", linear1_);
    f("linear2", linear2_);
  }

 private:
  Conv first_;
  std::vector<Conv> convs_;
  std::vector<BatchNorm> norms_;
  Linear linear1_, linear2_;
};

}  // namespace kiln::nsbgan
