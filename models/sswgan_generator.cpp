#include "models/sswgan_generator.h"

#include <algorithm>

#include "engine/error.h"

namespace kiln::sswgan {
namespace {

using biggan::weight_init;

int doublings(int scale) { return scale == 4 ? 2 : 1; }

void init_conv(Param& weight, InitKind init) {
  const int64_t out = weight.shape[0], in = weight.shape.count() / out;
  weight.init = weight_init(init, out, in);
}

/// relu(conditional norm) of all frames of y.n clips, given as pictures.
Var norm_frames(biggan::CondBatchNorm& norm, const Var& frames, const Condition& y, Param* input_bias = nullptr) {
  return frames_of(norm(clip_of(frames, frames.shape()[0] / y.n), y, input_bias));
}

}  // namespace

// ---- stage 1 --------------------------------------------------------------------------------------------------------

FrameBlock::FrameBlock(int64_t in, int64_t out, bool upsample, const Config& c, int64_t condition)
    : conv1(in, out, 3, c.init), conv2(out, out, 3, c.init), bn1(in, condition, 0, c.bn_eps, c.init), bn2(out, condition, 0, c.bn_eps, c.init),
      up(upsample), has_skip(upsample || in != out) {
  if (has_skip) skip = biggan::Conv(in, out, 1, c.init);
}

Var FrameBlock::operator()(const Var& x, const Condition& y) {
  Var h = norm_frames(bn1, x, y);
  h = norm_frames(bn2, up ? conv1.conv.upsampled(h, true) : conv1(h), y, &conv1.bias);
  return residual_sum(conv2(h), has_skip ? skip(x) : x, up, &conv2.bias, has_skip ? &skip.bias : nullptr);
}

FirstGenerator::FirstGenerator(const Config& c) {
  const StageConfig& s = c.stage(1);
  const int64_t condition = c.z + (c.conditional() ? c.shared_dim : 0), ch = s.g_width;
  start_ = 8 * ch;
  linear_ = biggan::Linear(condition, start_ * 16, c.init);
  int groups = 0;
  for (int side = 4; side < s.size; side *= 2) groups++;
  int64_t in = start_;
  for (int i = 0; i < groups; i++) {
    const int64_t out = ch * std::min<int64_t>(8, int64_t(2) << (groups - 1 - i));  // 8 8 4 2 at 64 pixels
    RecurrentGroup g;
    g.gru = ConvGru(in, in, 3, c.gru_tanh ? Activation::tanh : Activation::relu);
    g.gru.truncate = c.gru_truncate;
    for (SpectralWeight* w : {&g.gru.input, &g.gru.gates, &g.gru.candidate}) init_conv(w->weight, c.init);
    g.keep = FrameBlock(in, in, false, c, condition);
    g.grow = FrameBlock(in, out, true, c, condition);
    groups_.push_back(std::move(g));
    in = out;
  }
  output_norm_ = BatchNorm(in, 0.f);
  output_conv_ = biggan::Conv(in, 3, 3, c.init);
}

Var FirstGenerator::operator()(const Condition& y, int64_t frames) {
  const Var start = to_picture(linear_(y.vector), 4, 4, start_);
  Var x;
  for (RecurrentGroup& g : groups_) {
    const Var states = conv_gru(x ? clip_of(x, frames) : start, frames, g.gru);
    x = g.grow(g.keep(frames_of(states), y), y);
  }
  x = output_conv_(norm_act(x, output_norm_, Activation::relu));
  return clip_of(kiln::tanh(bias_act(std::move(x), output_conv_.bias, Activation::none)), frames);
}

// ---- later stages ---------------------------------------------------------------------------------------------------

ClipConv::ClipConv(int64_t in, int64_t out, int kt, int k, TimePadding time, InitKind init) : conv(in, out, kt, k, time) {
  init_conv(conv.w.weight, init);
  bias.shape = Shape{out};
  bias.init = biggan::Conv(in, out, k, init).bias.init;
}

ClipBlock::ClipBlock(int64_t in, int64_t out, int temporal, int spatial, const Config& c, int64_t condition)
    : conv1(in, out, 3, 3, TimePadding::replicate, c.init), conv2(out, out, 3, c.init), bn1(in, condition, 0, c.bn_eps, c.init),
      bn2(out, condition, 0, c.bn_eps, c.init), has_skip(in != out || temporal * spatial > 1), rho(temporal), scale(spatial) {
  if (has_skip) skip = biggan::Conv(in, out, 1, c.init);
}

Var ClipBlock::operator()(const Var& x, const Condition& y) {
  Var h = bn1(x, y);
  if (rho * scale > 1) h = clip_repeat(h, rho, scale);
  h = frames_of(bn2(conv1(h), y, &conv1.bias));
  const int64_t t = x.shape()[1] * rho;
  Var kept = x;
  if (has_skip) {
    kept = clip_of(skip(frames_of(x)), x.shape()[1]);  // a 1x1x1 convolution and a repetition commute
    if (rho > 1) kept = time_repeat(kept, rho);
  }
  return clip_of(residual_sum(conv2(h), frames_of(kept), scale == 2, &conv2.bias, has_skip ? &skip.bias : nullptr), t);
}

UpsamplingGenerator::UpsamplingGenerator(const Config& c, int stage) : rho_(c.rho(stage)), scale_(c.scale(stage)), residual_(c.residual) {
  const int64_t condition = c.z + (c.conditional() ? c.shared_dim : 0), ch = c.stage(stage).g_width;
  const int steps = doublings(scale_);
  int64_t in = ch * (int64_t(2) << steps);  // 4 2 where sides are doubled, 8 4 2 where quadrupled
  stem_ = ClipConv(3, in, 3, 3, TimePadding::replicate, c.init);
  for (int i = 0; i < steps; i++) {
    const int64_t width = ch * (int64_t(2) << (steps - i)), out = width / 2;
    blocks_.emplace_back(in, width, 1, 1, c, condition);
    blocks_.emplace_back(width, out, i == 0 ? rho_ : 1, 2, c, condition);
    in = out + 3;  // the condition is told again after each resize
  }
  output_norm_ = BatchNorm(in, 0.f);
  output_conv_ = ClipConv(in, 3, 3, 3, TimePadding::replicate, c.init);
}

int UpsamplingGenerator::radius() const {
  const auto reach = [](const ClipConv& conv) { return int(conv.conv.w.weight.shape[1]) / 2; };
  int rate = 1, frames = reach(stem_) * rho_;  // in frames of the result
  for (const ClipBlock& b : blocks_) {
    rate *= b.rho;
    frames += reach(b.conv1) * rho_ / rate;
  }
  frames += reach(output_conv_) * rho_ / rate;
  return std::max((frames + rho_ - 1) / rho_, 1);  // 1: enlarge()
}

Tensor enlarge(const Tensor& condition, int rho, int scale) {
  const int64_t t = condition.shape()[1] * rho;
  Var x(condition);
  if (rho > 1) {
    // The mean of `rho` neighbours of the repeated frames is the straight line between the given ones, which stay where they are.
    const Var repeated = pad_time(time_repeat(x, rho), 0, rho - 1);
    for (int i = 0; i < rho; i++) {
      const Var part = take_frames(repeated, i, 1, t);
      x = i == 0 ? combine(1.f / float(rho), part, 0.f, part) : combine(1.f, x, 1.f / float(rho), part);
    }
  }
  if (scale == 1) return x.value;
  return resize_clip(x, t, x.shape()[2] * scale, x.shape()[3] * scale, TimeScaling::nearest).value;
}

Var UpsamplingGenerator::operator()(const Condition& y, const Tensor& condition) {
  Var x = stem_(Var(condition));
  x = bias_act(std::move(x), stem_.bias, Activation::none);
  int scale = 1;
  Tensor enlarged;
  for (size_t i = 0; i < blocks_.size(); i += 2) {
    x = blocks_[i + 1](blocks_[i](x, y), y);
    scale *= 2;
    enlarged = enlarge(condition, rho_, scale);
    x = concat_channels(x, Var(enlarged));
  }
  x = output_conv_(norm_act(x, output_norm_, Activation::relu));
  x = kiln::tanh(bias_act(std::move(x), output_conv_.bias, Activation::none));
  return residual_ ? combine(1.f, x, 1.f, Var(enlarged)) : x;
}

// ---- any stage ------------------------------------------------------------------------------------------------------

Generator::Generator(const Config& c, int stage) : config_(c), stage_(stage) {
  check(c);
  KILN_ASSERT(stage >= 1 && stage <= c.count());
  shared_.shape = Shape{std::max(c.classes, 1), c.shared_dim};
  shared_.init = weight_init(c.init, shared_.shape[0], c.shared_dim);
  if (stage == 1)
    first_ = FirstGenerator(c);
  else
    up_ = UpsamplingGenerator(c, stage);
}

Var Generator::operator()(const Tensor& z, const Labels& labels, const Tensor& condition, int64_t frames) {
  const int64_t n = z.shape()[0];
  KILN_ASSERT(z.shape() == (Shape{n, config_.z}) && (!config_.conditional() || labels.a.count() == n));
  Condition y;
  y.n = n;
  y.vector = config_.conditional() ? concat_channels(Var(z), labels.look_up(parameter(shared_))) : Var(z);
  if (stage_ == 1) return first_(y, frames ? frames : config_.stage(1).frames);
  const int64_t side = config_.stage(stage_ - 1).size;
  KILN_ASSERT(condition.shape() == (Shape{n, condition.shape()[1], side, side, 3}));
  return up_(y, condition);
}

}  // namespace kiln::sswgan
