// SSW-GAN's generators: the first stage's, of recurrent and residual layers as DVD-GAN's, and the later ones', which enlarge a clip.
#pragma once
#include <string>
#include <vector>

#include "models/sswgan.h"

namespace kiln::sswgan {

/// What every norm of a generator is told: [n, z + embedding], a row a clip.
using biggan::Condition;

/// Residual block of pictures, n * t of them: norm, relu, (2x up,) 3x3, norm, relu, 3x3; skip 1x1. Norms take their statistics over all
/// frames of all clips, and their gains and biases from a clip's condition.
struct FrameBlock {
  biggan::Conv conv1, conv2, skip;
  biggan::CondBatchNorm bn1, bn2;
  bool up = false, has_skip = false;
  FrameBlock() = default;
  FrameBlock(int64_t in, int64_t out, bool upsample, const Config& c, int64_t condition);
  /// x [n * t, h, w, in] -> [n * t, h or 2 h, .., out]; y.n clips.
  Var operator()(const Var& x, const Condition& y);
  template <class F>
  void visit(F&& f) {
    f("conv1", conv1);
    f("conv2", conv2);
    if (has_skip) f("conv_sc", skip);
    f("bn1", bn1);
    f("bn2", bn2);
  }
};

/// A recurrence over frames and the two blocks behind it, of which the second doubles the sides.
struct RecurrentGroup {
  ConvGru gru;
  FrameBlock keep, grow;
  template <class F>
  void visit(F&& f) {
    f("gru", gru);
    f("keep", keep);
    f("grow", grow);
  }
};

/// Stage 1: [z; class] -> 4x4 maps, the same at every step of the first recurrence; groups until the side is reached.
class FirstGenerator {
 public:
  FirstGenerator() = default;
  explicit FirstGenerator(const Config& c);
  Var operator()(const Condition& y, int64_t frames);
  template <class F>
  void visit(F&& f) {
    f("linear", linear_);
    for (size_t i = 0; i < groups_.size(); i++) f("groups." + std::to_string(i), groups_[i]);
    f("output.bn", output_norm_);
    f("output.conv", output_conv_);
  }

 private:
  int64_t start_ = 0;
  biggan::Linear linear_;
  std::vector<RecurrentGroup> groups_;
  BatchNorm output_norm_;
  biggan::Conv output_conv_;
};

/// A 3-D convolution whose bias is for others to add.
struct ClipConv {
  SpectralConv3d conv;
  Param bias;
  ClipConv() = default;
  ClipConv(int64_t in, int64_t out, int kt, int k, TimePadding time, InitKind init);
  Var operator()(const Var& x) const { return conv(x); }
  template <class F>
  void visit(F&& f) {
    f("", conv);
    f("bias", bias);
  }
};

/// Residual block of clips: norm, relu, (resize,) 3x3x3, norm, relu, 1x3x3; skip 1x1x1 before the resize. Only the first convolution looks at
/// neighbours in time, with the end frames repeated, so that a chunk of a long clip needs few frames of its surroundings.
struct ClipBlock {
  ClipConv conv1;
  biggan::Conv conv2, skip;
  biggan::CondBatchNorm bn1, bn2;
  bool has_skip = false;
  int rho = 1, scale = 1;
  ClipBlock() = default;
  ClipBlock(int64_t in, int64_t out, int temporal, int spatial, const Config& c, int64_t condition);
  Var operator()(const Var& x, const Condition& y);
  template <class F>
  void visit(F&& f) {
    f("conv1", conv1);
    f("conv2", conv2);
    if (has_skip) f("conv_sc", skip);
    f("bn1", bn1);
    f("bn2", bn2);
  }
};

/// Stages 2 and on.
class UpsamplingGenerator {
 public:
  UpsamplingGenerator() = default;
  UpsamplingGenerator(const Config& c, int stage);
  /// condition [n, w, s, s, 3] -> [n, rho w, scale s, scale s, 3].
  Var operator()(const Condition& y, const Tensor& condition);
  /// Frames of the condition, before and behind, that a frame of the result depends on: of an interval of conditions, those at least so
  /// far inside give what the whole clip would. From the layers that look at neighbours in time, each at its rate.
  int radius() const;
  template <class F>
  void visit(F&& f) {
    f("stem", stem_);
    for (size_t i = 0; i < blocks_.size(); i++) f("blocks." + std::to_string(i), blocks_[i]);
    f("output.bn", output_norm_);
    f("output.conv", output_conv_);
  }

 private:
  int rho_ = 1, scale_ = 1;
  bool residual_ = true;
  ClipConv stem_;
  std::vector<ClipBlock> blocks_;
  BatchNorm output_norm_;
  ClipConv output_conv_;
};

/// The condition of a later stage at another rate and size: linearly in time with a condition's frame i at frame rho i, where view() looks for
/// it; bilinearly in space. [n, t, h, w, 3] -> [n, rho t, scale h, scale w, 3]. A constant.
Tensor enlarge(const Tensor& condition, int rho, int scale);

/// The generator of any stage.
class Generator {
 public:
  Generator(const Config& c, int stage);
  /// z [n, z] f32; labels i32 [n], not read where there are no classes; condition: [n, w, s, s, 3] from the stage before, nothing in stage 1,
  /// which makes `frames` frames (0: as many as it is trained on). -> clips [n, t, S, S, 3] on (-1, 1). The weights must have been prepared.
  Var operator()(const Tensor& z, const Labels& labels, const Tensor& condition, int64_t frames = 0);
  int radius() const { return stage_ == 1 ? 0 : up_.radius(); }
  template <class F>
  void visit(F&& f) {
    if (config_.conditional()) f("shared", shared_);
    if (stage_ == 1)
      first_.visit(f);
    else
      up_.visit(f);
  }

 private:
  Config config_;
  int stage_;
  Param shared_;  // [classes, shared_dim], not normalised
  FirstGenerator first_;
  UpsamplingGenerator up_;
};

}  // namespace kiln::sswgan
