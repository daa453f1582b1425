// SSW-GAN's discriminators: of frames, of a clip in motion (both as DVD-GAN's), and of how a stage's clip matches its condition.
#pragma once
#include <string>
#include <vector>

#include "models/biggan.h"
#include "models/sswgan_generator.h"

namespace kiln::sswgan {

/// Channels behind each block as multiples of the base width, and whether it halves the sides, for pictures of `side` pixels: 1 2 4 8 16 16 ...
/// until 4 pixels, and a last block that keeps them.
struct CriticBlock {
  int in, out;  // in = 0: the pictures themselves
  bool pool;
};
std::vector<CriticBlock> critic_plan(int side);

/// D_S: BigGAN's residual blocks on single frames; a clip's score is the sum of its frames'.
class SpatialCritic {
 public:
  SpatialCritic() = default;
  SpatialCritic(const Config& c, int stage);
  /// frames [n, k, S, S, 3], labels i32 [n] (not read where there are no classes) -> [n].
  Var operator()(const Var& frames, const Tensor& labels);
  template <class F>
  void visit(F&& f) {
    for (size_t i = 0; i < blocks_.size(); i++) f("blocks." + std::to_string(i), blocks_[i]);
    f("linear", linear_);
    if (conditional_) f("embed", embed_);
  }

 private:
  bool conditional_ = false;
  std::vector<biggan::DownBlock> blocks_;
  biggan::Linear linear_;
  SpectralWeight embed_;
};

/// The discriminator's residual block of clips: (relu,) 3x3x3, relu, 3x3x3, (pool); skip: (pool,) 1x1x1. It halves the frames too where
/// they are an even number.
struct ClipDownBlock {
  ClipConv conv1, conv2;
  biggan::Conv skip;
  bool first = false, pool = false, has_skip = false;
  ClipDownBlock() = default;
  ClipDownBlock(int64_t in, int64_t out, bool is_first, bool downsample, InitKind init);
  Var operator()(const Var& x);
  template <class F>
  void visit(F&& f) {
    f("conv1", conv1);
    f("conv2", conv2);
    if (has_skip) f("conv_sc", skip);
  }
};

/// Two blocks of clips, then blocks of the frames that are left, summed over time and space: D_T and D_M.
class ClipCritic {
 public:
  ClipCritic() = default;
  /// side: of the clips that come in; channels: theirs.
  ClipCritic(const Config& c, int side, int channels, int width, bool conditional);
  /// clip [n, t, side, side, channels] -> [n].
  Var operator()(const Var& clip, const Tensor& labels);
  template <class F>
  void visit(F&& f) {
    for (size_t i = 0; i < front_.size(); i++) f("clips." + std::to_string(i), front_[i]);
    for (size_t i = 0; i < blocks_.size(); i++) f("blocks." + std::to_string(i), blocks_[i]);
    f("linear", linear_);
    if (conditional_) f("embed", embed_);
  }

 private:
  bool conditional_ = false;
  std::vector<ClipDownBlock> front_;
  std::vector<biggan::DownBlock> blocks_;
  biggan::Linear linear_;
  SpectralWeight embed_;
};

/// All discriminators of a stage. They share nothing: that their parameters lie in one set only makes their updates one launch.
class Critics {
 public:
  Critics(const Config& c, int stage);
  SpatialCritic spatial;    // D_S, of k frames of a clip
  ClipCritic temporal;      // D_T, of clips pooled 2x2
  ClipCritic matching;      // D_M, of [condition, view of the clip], 6 channels at the condition's size
  bool has_matching() const { return has_matching_; }
  template <class F>
  void visit(F&& f) {
    f("spatial", spatial);
    f("temporal", temporal);
    if (has_matching_) f("matching", matching);
  }

 private:
  bool has_matching_ = false;
};

}  // namespace kiln::sswgan
