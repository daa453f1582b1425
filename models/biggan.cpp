#include "models/biggan.h"

#include <bit>

#include "engine/error.h"

namespace kiln::biggan {

int Config::blocks() const { return std::countr_zero(unsigned(size)) - 2; }

std::vector<BlockPlan> generator_plan(int size) {
  std::vector<int> widths;
  switch (size) {
    case 32: widths = {4, 4, 4, 4}; break;
    case 64: widths = {16, 16, 8, 4, 2}; break;
    case 128: widths = {16, 16, 8, 4, 2, 1}; break;
    default:  // 256 and beyond: more blocks of the base width
      widths = {16, 16, 8, 8, 4, 2, 1};
      for (int s = 512; s <= size; s *= 2) widths.push_back(1);
  }
  std::vector<BlockPlan> plan;
  for (size_t i = 1; i < widths.size(); i++) plan.push_back({widths[i - 1], widths[i], true, 4 << i});
  return plan;
}

std::vector<BlockPlan> discriminator_plan(int size) {
  if (size == 32) return {{0, 4, true, 16}, {4, 4, true, 8}, {4, 4, false, 8}, {4, 4, false, 8}};
  std::vector<int> widths;
  switch (size) {
    case 64: widths = {1, 2, 4, 8, 16}; break;
    case 128: widths = {1, 2, 4, 8, 16, 16}; break;
    default:
      for (int s = 512; s <= size; s *= 2) widths.push_back(1);
      for (int w : {1, 2, 4, 8, 8, 16, 16}) widths.push_back(w);
  }
  std::vector<BlockPlan> plan;
  int side = size, in = 0;
  for (size_t i = 0; i < widths.size(); i++) {
    const bool pool = i + 1 < widths.size();
    if (pool) side /= 2;
    plan.push_back({in, widths[i], pool, side});
    in = widths[i];
  }
  return plan;
}

namespace {

/// D-deep's stages: the table without its first row, which the stem replaces; every stage pools, but for the last two at 32.
std::vector<BlockPlan> deep_discriminator_plan(int size) {
  std::vector<BlockPlan> plan = discriminator_plan(size), stages;
  int side = size;
  for (size_t i = 1; i < plan.size(); i++) {
    const bool pool = size == 32 ? i <= 2 : true;
    if (pool) side /= 2;
    stages.push_back({plan[i].in, plan[i].out, pool, side});
  }
  return stages;
}

/// Index of the last block of the first stage whose maps have that side; -1 if there is none.
int attention_place(const std::vector<BlockPlan>& plan, int side) {
  for (size_t i = 0; i < plan.size(); i++)
    if (plan[i].side == side) return int(i);
  return -1;
}

void check_attention(const char* flag, int side, int width, const std::vector<BlockPlan>& plan) {
  if (side == 0) return;
  const int i = attention_place(plan, side);
  if (i < 0) {
    std::string sides;
    for (const BlockPlan& p : plan)
      if (!sides.ends_with(std::to_string(p.side))) sides += (sides.empty() ? "" : ", ") + std::to_string(p.side);
    fail("{} {}: no block has maps of that side; use one of {}, or 0 for no attention", flag, side, sides);
  }
  const int c = plan[size_t(i)].out * width;
  if (c % 8) fail("{} {}: attention there would see {} channels, and needs a multiple of 8; choose a wider network or 0", flag, side, c);
}

}  // namespace

void check(const Config& c) {
  if (c.size < 32 || c.size > 1024 || !std::has_single_bit(unsigned(c.size)))
    fail("--size {}: the size must be 32, 64, 128, 256, 512 or 1024", c.size);
  const auto width = [&](const char* flag, int value) {
    const int step = c.deep ? 4 : 1;
    if (value < 4 || value > 512 || value % step) fail("{} {}: the width must be from 4 to 512{}", flag, value, c.deep ? ", a multiple of 4" : "");
  };
  width("--g-width", c.g_width);
  width("--d-width", c.d_width);
  if (c.classes < 0 || c.classes > 100000) fail("{} classes: at most 100000", c.classes);
  if (c.z < 1 || c.z > 65536) fail("--z {}: the latent size must be from 1 to 65536", c.z);
  if (c.hierarchical && !c.deep && c.z < c.slots())
    fail("--z {}: too short to give each of {} blocks and the first layer a piece; use {} or more, or --no-hier", c.z, c.blocks(), c.slots());
  if (c.shared_dim < 1 || c.shared_dim > 65536) fail("--shared-dim {}: must be from 1 to 65536", c.shared_dim);
  if (c.conditional() && c.hierarchical && !c.shared) fail("--no-shared: needs --no-hier too: pieces of z go to the norms beside the shared embedding");
  if (c.deep && (!c.hierarchical || (c.conditional() && !c.shared)))
    fail("--deep: conditions its norms on the shared embedding and z; leave --no-shared and --no-hier out");
  if (!(c.bn_eps > 0.f && c.bn_eps < 1.f)) fail("--bn-eps {}: must be between 0 and 1", c.bn_eps);
  check_attention("--g-attention", c.g_attention, c.g_width, generator_plan(c.size));
  check_attention("--d-attention", c.d_attention, c.d_width, c.deep ? deep_discriminator_plan(c.size) : discriminator_plan(c.size));
}

// ---- generator ------------------------------------------------------------------------------------------------------

UpBlock::UpBlock(int64_t in, int64_t out, const Config& c, int64_t condition)
    : conv1(in, out, 3, c.init), conv2(out, out, 3, c.init), skip(in, out, 1, c.init),
      bn1(in, condition, c.classes, c.bn_eps, c.init), bn2(out, condition, c.classes, c.bn_eps, c.init) {}

Var UpBlock::operator()(const Var& x, const Condition& y, bool fold) {
  const Var h = bn2(conv1.conv.upsampled(bn1(x, y), fold), y, &conv1.bias);
  if (fold) return residual_sum(conv2(h), skip(x), true, &conv2.bias, &skip.bias);  // conv1x1(up(x)) = up(conv1x1(x))
  return residual_sum(conv2(h), skip(upsample2x(x)), false, &conv2.bias, &skip.bias);
}

DeepUpBlock::DeepUpBlock(int64_t in, int64_t out_channels, bool upsample, const Config& c, int64_t condition)
    : conv1(in, in / 4, 1, c.init), conv2(in / 4, in / 4, 3, c.init), conv3(in / 4, in / 4, 3, c.init),
      conv4(in / 4, out_channels, 1, c.init), bn1(in, condition, c.classes, c.bn_eps, c.init),
      bn2(in / 4, condition, c.classes, c.bn_eps, c.init), bn3(in / 4, condition, c.classes, c.bn_eps, c.init),
      bn4(in / 4, condition, c.classes, c.bn_eps, c.init), out(out_channels), up(upsample) {}

Var DeepUpBlock::operator()(const Var& x, const Condition& y, bool fold) {
  Var h = bn2(conv1(bn1(x, y)), y, &conv1.bias);
  h = bn3(up ? conv2.conv.upsampled(h, fold) : conv2(h), y, &conv2.bias);
  h = bn4(conv3(h), y, &conv3.bias);
  const Var kept = x.value.channels() == out ? x : take_channels(x, 0, out);
  return residual_sum(conv4(h), kept, up, &conv4.bias, nullptr);
}

Generator::Generator(const Config& c) : config_(c) {
  check(c);
  const std::vector<BlockPlan> plan = generator_plan(c.size);
  const int64_t embedded = c.conditional() && c.shared ? c.shared_dim : 0;
  const int64_t condition = c.deep ? embedded + c.z : embedded + (c.hierarchical ? c.chunk() : 0);
  const int64_t ch = c.g_width, start = plan[0].in * ch;
  shared_.shape = Shape{c.classes > 0 ? c.classes : 1, c.shared_dim};
  shared_.init = weight_init(c.init, shared_.shape[0], c.shared_dim);
  linear_ = Linear(c.deep ? condition : c.hierarchical ? c.chunk() : c.z, start * 16, c.init);
  for (const BlockPlan& b : plan) {
    if (c.deep) {
      deep_.emplace_back(b.in * ch, b.in * ch, false, c, condition);
      deep_.emplace_back(b.in * ch, b.out * ch, true, c, condition);
    } else {
      blocks_.emplace_back(b.in * ch, b.out * ch, c, condition);
    }
  }
  if (c.g_attention) {
    const int place = attention_place(plan, c.g_attention);
    attention_after_ = size_t(c.deep ? 2 * place + 1 : place);
    attention_ = SelfAttention(plan[size_t(place)].out * ch, c.init);
  }
  output_norm_ = BatchNorm(plan.back().out * ch, 0.f);
  output_conv_ = Conv(plan.back().out * ch, 3, 3, c.init);
}

Var Generator::operator()(const Tensor& z, const Labels& labels) {
  const Config& c = config_;
  const int64_t n = z.shape()[0];
  KILN_ASSERT(z.shape() == (Shape{n, c.latent()}) && (!c.conditional() || labels.a.count() == n));
  Condition y;
  y.n = n;
  if (c.conditional()) y.labels = &labels;
  const Var embedded = c.conditional() && c.shared ? labels.look_up(parameter(shared_)) : Var();
  /// [embedding, piece of z], in this order.
  const auto condition = [&](const Tensor& piece) { return embedded ? concat_channels(embedded, Var(piece)) : Var(piece); };
  const auto piece = [&](int64_t i) { return take_channels(Var(z), i * c.chunk(), c.chunk()).value; };
  Var start(z);
  if (c.deep)
    start = y.vector = condition(z);
  else if (c.hierarchical)
    start = Var(piece(0));
  else
    y.vector = embedded;
  const int64_t width = int64_t(generator_plan(c.size)[0].in) * c.g_width;
  Var x = to_picture(linear_(start), 4, 4, width);
  for (size_t i = 0; i < blocks_.size() + deep_.size(); i++) {
    if (c.hierarchical && !c.deep) y.vector = condition(piece(int64_t(i) + 1));
    x = c.deep ? deep_[i](x, y, c.fold) : blocks_[i](x, y, c.fold);
    if (c.g_attention && i == attention_after_) x = attention_(x);
  }
  x = output_conv_(norm_act(x, output_norm_, Activation::relu));
  return kiln::tanh(bias_act(std::move(x), output_conv_.bias, Activation::none));
}

// ---- discriminator --------------------------------------------------------------------------------------------------

namespace {

/// relu(conv(x) + bias)
Var conv_relu(const Var& x, Conv& conv) { return bias_act(conv(x), conv.bias, Activation::relu); }

}  // namespace

DownBlock::DownBlock(int64_t in, int64_t out, bool is_first, bool downsample, const Config& c)
    : conv1(in, out, 3, c.init), conv2(out, out, 3, c.init), first(is_first), pool(downsample), has_skip(in != out || downsample) {
  if (has_skip) skip = Conv(in, out, 1, c.init);
}

Var DownBlock::operator()(const Var& x, bool fold) {
  const Var h = conv_relu(first ? x : activation(x, Activation::relu), conv1);
  Var main = !pool ? conv2(h) : fold ? conv3x3_pool(h, conv2.conv.w.normalised) : average_pool2x2(conv2(h));
  // Pooling and a 1x1 convolution commute; the first block is published in the cheap order, and fold takes it for all.
  const Var kept = !has_skip ? x : !pool ? skip(x) : fold || first ? skip(average_pool2x2(x)) : average_pool2x2(skip(x));
  return residual_sum(std::move(main), kept, false, &conv2.bias, has_skip ? &skip.bias : nullptr);
}

DeepDownBlock::DeepDownBlock(int64_t in, int64_t out, bool downsample, const Config& c)
    : conv1(in, out / 4, 1, c.init), conv2(out / 4, out / 4, 3, c.init), conv3(out / 4, out / 4, 3, c.init), conv4(out / 4, out, 1, c.init),
      pool(downsample), has_skip(in != out) {
  if (has_skip) skip = Conv(in, out - in, 1, c.init);
}

Var DeepDownBlock::operator()(const Var& x, bool) {
  Var h = conv_relu(conv_relu(conv_relu(activation(x, Activation::relu), conv1), conv2), conv3);
  Var kept = x;
  if (pool) {
    h = average_pool2x2(h);
    kept = average_pool2x2(x);
  }
  if (has_skip) kept = concat_channels(kept, bias_act(skip(kept), skip.bias, Activation::none));
  return residual_sum(conv4(h), kept, false, &conv4.bias, nullptr);
}

Discriminator::Discriminator(const Config& c) : config_(c) {
  check(c);
  const std::vector<BlockPlan> plan = c.deep ? deep_discriminator_plan(c.size) : discriminator_plan(c.size);
  const int64_t ch = c.d_width;
  if (c.deep) {
    stem_ = Conv(3, plan[0].in * ch, 3, c.init);
    for (const BlockPlan& b : plan) {
      deep_.emplace_back(b.in * ch, b.out * ch, b.resize, c);
      deep_.emplace_back(b.out * ch, b.out * ch, false, c);
    }
  } else {
    for (const BlockPlan& b : plan) blocks_.emplace_back(b.in ? b.in * ch : 3, b.out * ch, b.in == 0, b.resize, c);
  }
  if (c.d_attention) {
    const int place = attention_place(plan, c.d_attention);
    attention_after_ = size_t(c.deep ? 2 * place + 1 : place);
    attention_ = SelfAttention(plan[size_t(place)].out * ch, c.init);
  }
  const int64_t features = plan.back().out * ch;
  linear_ = Linear(features, 1, c.init);
  embed_ = SpectralWeight(c.conditional() ? c.classes : 1, 1, 1, features);
  embed_.weight.init = weight_init(c.init, embed_.weight.shape[0], features);
}

Var Discriminator::operator()(const Var& picture, const Tensor& labels) {
  Var x = config_.deep ? bias_act(stem_(picture), stem_.bias, Activation::none) : picture;
  for (size_t i = 0; i < blocks_.size() + deep_.size(); i++) {
    x = config_.deep ? deep_[i](x, config_.fold) : blocks_[i](x, config_.fold);
    if (config_.d_attention && i == attention_after_) x = attention_(x);
  }
  return projection_logits(relu_sum_pool(x), linear_.w.normalised, linear_.bias, config_.conditional() ? embed_.normalised : Var(), labels);
}

}  // namespace kiln::biggan
