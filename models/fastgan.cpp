#include "models/fastgan.h"

#include <bit>

#include "engine/error.h"

namespace kiln::fastgan {
namespace {

int64_t scaled(double factor, int base) {
  const int64_t c = int64_t(factor * base);
  return c > 0 ? c : 1;
}

/// Index of a power of two from 4 up: 4 -> 0, 8 -> 1, ...
int level(int resolution) { return std::countr_zero(unsigned(resolution)) - 2; }

}  // namespace

int64_t generator_channels(int resolution, int ngf) {
  static constexpr double factor[] = {16, 8, 4, 2, 2, 1, 0.5, 0.25, 0.125};  // 4 .. 1024
  return scaled(factor[level(resolution)], ngf);
}

int64_t discriminator_channels(int resolution, int ndf) {
  // The public code names its table by twice the resolution that the channels live at; here it is the resolution: 2 .. 512.
  static constexpr double factor[] = {16, 16, 8, 4, 2, 1, 0.5, 0.25, 0.125};
  return scaled(factor[level(resolution * 2)], ndf);
}

int64_t decoder_channels(int resolution, int base) {
  static constexpr double factor[] = {16, 8, 4, 2, 2, 1};  // 4 .. 128
  return scaled(factor[level(resolution)], base);
}

void check(const Config& c) {
  if (c.size < 32 || c.size > 1024 || !std::has_single_bit(unsigned(c.size)))
    fail("--size {}: the size must be 32, 64, 128, 256, 512 or 1024", c.size);
  const auto width = [](const char* flag, int value) {
    if (value < 2 || value > 1024 || value % 2) fail("{} {}: the width must be an even number from 2 to 1024", flag, value);
  };
  width("--ngf", c.ngf);
  width("--ndf", c.ndf);
  if (c.nz < 1 || c.nz > 65536) fail("--nz {}: the latent size must be from 1 to 65536", c.nz);
}

SkipExcitation::SkipExcitation(int64_t in, int64_t out, bool leaky_relu)
    : conv1(in, out, 4, 1, 0), conv2(out, out, 1, 1, 0), leaky(leaky_relu) {}

Var SkipExcitation::operator()(const Var& x) const {
  const Var h = conv1(area_resize(x, 4, 4));
  return sigmoid(conv2(activation(h, leaky ? Activation::leaky_relu : Activation::swish)));
}

UpBlock::UpBlock(int64_t in, int64_t out, bool second, bool noise)
    : two(second), noisy(second && noise), conv1(in, 2 * out, 3, 1, 1), bn1(2 * out) {
  if (!two) return;
  conv2 = SpectralConv(out, 2 * out, 3, 1, 1);
  bn2 = BatchNorm(2 * out);
}

Var UpBlock::operator()(const Var& x, bool fold, int* noise_site) {
  const auto tail = [&](const Var& h, BatchNorm& bn, NoiseInjection& injection) {
    if (!noisy) return norm_glu(h, bn);
    const Shape& s = h.shape();
    const Tensor noise = context().random->normal("noise." + std::to_string((*noise_site)++), Shape{s[0], s[1], s[2], 1});
    return norm_glu(h, bn, &injection, &noise);
  };
  const Var h = tail(conv1.upsampled(x, fold), bn1, noise1);
  return two ? tail(conv2(h), bn2, noise2) : h;
}

Generator::Generator(const Config& c) : config_(c) {
  check(c);
  const auto ch = [&](int r) { return generator_channels(r, c.ngf); };
  init_conv_ = SpectralWeight(2 * ch(4), 4, 4, c.nz);
  init_bn_ = BatchNorm(2 * ch(4));
  for (int r = 8; r <= c.size; r *= 2) {
    const bool two = r == 8 || r == 32 || r == 128 || r == 512;
    stages_.emplace_back(ch(r / 2), ch(r), two, c.noise);
  }
  for (int to = c.sle_64 ? 64 : 128; to <= c.size && to <= 512; to *= 2)
    gates_.push_back({to / 16, to, SkipExcitation(ch(to / 16), ch(to), c.sle_leaky)});
  to_small_ = SpectralConv(ch(c.small()), 3, 1, 1, 0);
  to_big_ = SpectralConv(ch(c.size), 3, 3, 1, 1);
}

Pictures Generator::operator()(const Var& z) {
  std::vector<Var> maps;  // by level: 4, 8, ... ; only those that a gate or the second head reads are kept
  int site = 0;
  Var x = norm_glu(project(z, init_conv_.normalised), init_bn_);
  const auto wanted = [&](int r) {
    if (r == config_.small()) return true;
    for (const Gate& g : gates_)
      if (g.from == r) return true;
    return false;
  };
  maps.push_back(wanted(4) ? x : Var());
  for (size_t i = 0; i < stages_.size(); i++) {
    const int r = resolution(i);
    x = stages_[i](x, config_.fold_upsample, &site);
    for (const Gate& g : gates_)
      if (g.to == r) x = gate(x, g.se(maps[size_t(level(g.from))]));
    maps.push_back(wanted(r) ? x : Var());
  }
  Pictures out{to_big_(x), to_small_(maps[size_t(level(config_.small()))])};
  if (config_.tanh || config_.size == 1024) return {kiln::tanh(out.big), kiln::tanh(out.small)};
  return out;
}

DownBlock::DownBlock(int64_t in, int64_t out)
    : conv1(in, out, 4, 2, 1), conv2(out, out, 3, 1, 1), conv3(in, out, 1, 1, 0), bn1(out), bn2(out), bn3(out) {}

Var DownBlock::operator()(const Var& x) {
  const Var main = norm_act(conv2(norm_act(conv1(x), bn1, Activation::leaky_relu)), bn2, Activation::leaky_relu);
  const Var direct = norm_act(conv3(average_pool2x2(x)), bn3, Activation::leaky_relu);
  return combine(0.5f, main, 0.5f, direct);
}

Decoder::Decoder(int64_t in, int base, int side) {
  int64_t from = in;
  for (int r = 16; r <= side; r *= 2) {
    ups.emplace_back(from, decoder_channels(r, base), false, false);
    from = decoder_channels(r, base);
  }
  conv = SpectralConv(from, 3, 3, 1, 1);
}

Var Decoder::operator()(const Var& x, bool fold) {
  Var h = area_resize(x, 8, 8);
  for (UpBlock& up : ups) h = up(h, fold, nullptr);
  return kiln::tanh(conv(h));
}

Discriminator::Discriminator(const Config& c) : config_(c) {
  check(c);
  const auto ch = [&](int r) { return discriminator_channels(r, c.ndf); };  // channels of the map of side r
  stem_resolution_ = c.size < 256 ? c.size : 256;
  if (c.size <= 256) {
    stem1_ = SpectralConv(3, ch(stem_resolution_), 3, 1, 1);
  } else {
    stem1_ = SpectralConv(3, ch(c.size / 2), 4, 2, 1);
    two_stems_ = c.size == 1024;
    if (two_stems_) {
      stem2_ = SpectralConv(ch(512), ch(256), 4, 2, 1);
      stem_bn2_ = BatchNorm(ch(256));
    }
  }
  for (int r = stem_resolution_ / 2; r >= 8; r /= 2) downs_.push_back({r, DownBlock(ch(2 * r), ch(r))});
  if (c.d_gates)
    for (int to : {32, 16, 8})
      if (to * 8 <= stem_resolution_) gates_.push_back({to * 8, to, SkipExcitation(ch(to * 8), ch(to), c.sle_leaky)});
  rf_big1_ = SpectralConv(ch(8), discriminator_channels(4, c.ndf), 1, 1, 0);
  rf_big_bn1_ = BatchNorm(discriminator_channels(4, c.ndf));
  rf_big2_ = SpectralConv(discriminator_channels(4, c.ndf), 1, 4, 1, 0);
  // The small path has half the channels of the big one at each side.
  small1_ = SpectralConv(3, ch(c.small()), 4, 2, 1);
  for (int r = c.small() / 4; r >= 8; r /= 2) small_steps_.push_back({SpectralConv(ch(4 * r), ch(2 * r), 4, 2, 1), BatchNorm(ch(2 * r))});
  rf_small_ = SpectralConv(ch(16), 1, 4, 1, 0);
  decoder_big_ = Decoder(ch(8), c.ndf / 2, c.small());
  decoder_part_ = Decoder(ch(16), c.ndf / 2, c.small());
  decoder_small_ = Decoder(ch(16), c.ndf / 2, c.small());
}

Features Discriminator::operator()(const Pictures& p) {
  Features f;
  Var x = leaky_relu(stem1_(p.big));
  if (two_stems_) x = norm_act(stem2_(x), stem_bn2_, Activation::leaky_relu);
  std::vector<std::pair<int, Var>> maps;  // by side; those that a gate reads
  const auto keep = [&](int r) {
    for (const Gate& g : gates_)
      if (g.from == r) maps.emplace_back(r, x);
  };
  keep(stem_resolution_);
  for (Down& d : downs_) {
    x = d.block(x);
    for (const Gate& g : gates_) {
      if (g.to != d.resolution) continue;
      for (const auto& [r, map] : maps)
        if (r == g.from) x = gate(x, g.se(map));
    }
    keep(d.resolution);
    if (d.resolution == 16) f.mid = x;
  }
  f.last = x;
  const Var big = rf_big2_(norm_act(rf_big1_(x), rf_big_bn1_, Activation::leaky_relu));

  Var s = leaky_relu(small1_(p.small));
  for (DownStep& d : small_steps_) s = norm_act(d.conv1(s), d.bn1, Activation::leaky_relu);
  f.small = s;
  f.logits = concat_flat(big, rf_small_(s));
  return f;
}

Reconstructions Discriminator::reconstruct(const Features& f, const Tensor& corner) {
  const bool fold = config_.fold_upsample;
  return {decoder_big_(f.last, fold), decoder_small_(f.small, fold), decoder_part_(corner_crop(f.mid, 8, 8, corner), fold)};
}

}  // namespace kiln::fastgan
