#include "models/sswgan_discriminators.h"

#include <algorithm>

namespace kiln::sswgan {
namespace {

/// What biggan's blocks read of their model's configuration.
biggan::Config block_config(InitKind init) {
  biggan::Config c;
  c.init = init;
  return c;
}

Var conv_relu(const Var& x, ClipConv& conv) { return bias_act(conv(x), conv.bias, Activation::relu); }

SpectralWeight class_weights(const Config& c, int64_t features) {
  SpectralWeight w(c.conditional() ? c.classes : 1, 1, 1, features);
  w.weight.init = biggan::weight_init(c.init, w.weight.shape[0], features);
  return w;
}

}  // namespace

std::vector<CriticBlock> critic_plan(int side) {
  std::vector<CriticBlock> plan;
  int in = 0, width = 1;
  for (; side > 4; side /= 2) {
    plan.push_back({in, width, true});
    in = width;
    width = std::min(width * 2, 16);
  }
  plan.push_back({in, width, false});
  return plan;
}

SpatialCritic::SpatialCritic(const Config& c, int stage) : conditional_(c.conditional()) {
  const StageConfig& s = c.stage(stage);
  const int64_t ch = s.d_width;
  for (const CriticBlock& b : critic_plan(s.size)) blocks_.emplace_back(b.in ? b.in * ch : 3, b.out * ch, b.in == 0, b.pool, block_config(c.init));
  const int64_t features = critic_plan(s.size).back().out * ch;
  linear_ = biggan::Linear(features, 1, c.init);
  embed_ = class_weights(c, features);
}

Var SpatialCritic::operator()(const Var& frames, const Tensor& labels) {
  const int64_t k = frames.shape()[1];
  Var x = frames_of(frames);
  for (biggan::DownBlock& b : blocks_) x = b(x, true);
  // The sum of the frames' scores is the score of the summed features, but for the bias, which is one a clip.
  return projection_logits(sum_frames(relu_sum_pool(x), k), linear_.w.normalised, linear_.bias, conditional_ ? embed_.normalised : Var(), labels);
}

ClipDownBlock::ClipDownBlock(int64_t in, int64_t out, bool is_first, bool downsample, InitKind init)
    : conv1(in, out, 3, 3, TimePadding::zero, init), conv2(out, out, 3, 3, TimePadding::zero, init), first(is_first), pool(downsample),
      has_skip(in != out || downsample) {
  if (has_skip) skip = biggan::Conv(in, out, 1, init);
}

Var ClipDownBlock::operator()(const Var& x) {
  const int64_t t = x.shape()[1], factor = pool && t % 2 == 0 ? 2 : 1;
  const Var h = conv_relu(first ? x : activation(x, Activation::relu), conv1);
  Var main = conv2(h), kept = x;
  if (pool) {
    main = clip_pool(main, factor, 2);
    kept = clip_pool(kept, factor, 2);
  }
  if (has_skip) kept = clip_of(skip(frames_of(kept)), t / factor);
  return clip_of(residual_sum(frames_of(main), frames_of(kept), false, &conv2.bias, has_skip ? &skip.bias : nullptr), t / factor);
}

ClipCritic::ClipCritic(const Config& c, int side, int channels, int width, bool conditional) : conditional_(conditional) {
  const std::vector<CriticBlock> plan = critic_plan(side);
  const int64_t ch = width;
  for (size_t i = 0; i < plan.size(); i++) {
    const CriticBlock& b = plan[i];
    const int64_t in = b.in ? b.in * ch : channels, out = b.out * ch;
    if (i < 2) front_.emplace_back(in, out, b.in == 0, b.pool, c.init);
    else blocks_.emplace_back(in, out, false, b.pool, block_config(c.init));
  }
  const int64_t features = plan.back().out * ch;
  linear_ = biggan::Linear(features, 1, c.init);
  embed_ = class_weights(c, features);
}

Var ClipCritic::operator()(const Var& clip, const Tensor& labels) {
  Var x = clip;
  for (ClipDownBlock& b : front_) x = b(x);
  const int64_t t = x.shape()[1];
  x = frames_of(x);
  for (biggan::DownBlock& b : blocks_) x = b(x, true);
  return projection_logits(sum_frames(relu_sum_pool(x), t), linear_.w.normalised, linear_.bias, conditional_ ? embed_.normalised : Var(), labels);
}

Critics::Critics(const Config& c, int stage)
    : spatial(c, stage), temporal(c, c.stage(stage).size / 2, 3, c.stage(stage).d_width, c.conditional()), has_matching_(stage > 1 && c.matching) {
  if (has_matching_) matching = ClipCritic(c, c.stage(stage - 1).size, 6, c.stage(stage).d_width, false);
}

}  // namespace kiln::sswgan
