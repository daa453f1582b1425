// NSB-GAN's first decoder: U-Nets that predict a level's three high quadrants from its low band, tile by tile, and their control, U-Nets
// that predict what bilinear upsampling leaves out.
#pragma once
#include <string>
#include <vector>

#include "models/nsbgan_layers.h"

namespace kiln::nsbgan {

/// A U-Net on a picture of tiles with a head for every tile it predicts. All layers are `width` channels wide: two convolutions, three
/// halvings by maximum and three doublings (bilinear between fixed corners) that take in what had their size before, each with two
/// convolutions; each head is two convolutions of its own, width / 2 channels between them.
class TailUNet {
 public:
  TailUNet() = default;
  /// in: channels; tails: predicted tiles of 3 channels; width even.
  TailUNet(int64_t in, int64_t tails, int64_t width);
  /// x [n, t, t, in], t a multiple of 8 -> [n, t, t, 3 tails], tile by tile.
  Var operator()(const Var& x);
  template <class F>
  void visit(F&& f) {
    f("inc", inc_);
    for (size_t i = 0; i < 3; i++) f("down" + std::to_string(i + 1), down_[i]);
    for (size_t i = 0; i < 3; i++) f("up" + std::to_string(i + 1), up_[i]);
    f("tails.0", tail_);
    f("tails.1", last_);
  }

 private:
  int64_t tails_ = 0;
  DoubleConv inc_, down_[3], up_[3];
  ConvNorm tail_;  // the heads' first convolutions, side by side
  Conv last_;      // their second ones: weight [3 tails, 3, 3, width / 2], a group each
};

/// The control in pixels: widths w, 2w, 4w, 8w, 8w, four halvings, a 1x1 convolution at the end; what to add to a picture that was
/// made twice as large by bilinear interpolation.
class ResidualUNet {
 public:
  ResidualUNet() = default;
  explicit ResidualUNet(int64_t width);
  /// x [n, h, w, 3], sides multiples of 16 -> [n, h, w, 3].
  Var operator()(const Var& x);
  template <class F>
  void visit(F&& f) {
    f("inc", inc_);
    for (size_t i = 0; i < 4; i++) f("down" + std::to_string(i + 1), down_[i]);
    for (size_t i = 0; i < 4; i++) f("up" + std::to_string(i + 1), up_[i]);
    f("outc", last_);
  }

 private:
  DoubleConv inc_, down_[4], up_[4];
  Conv last_;
};

}  // namespace kiln::nsbgan
