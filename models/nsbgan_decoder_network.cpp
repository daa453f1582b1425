#include "models/nsbgan_decoder_network.h"

#include "engine/error.h"
#include "engine/ops_feature.h"
#include "engine/training_options.h"

namespace kiln::nsbgan {

const char* name_of(DecoderKind k) { return k == DecoderKind::unet ? "unet" : "srresnet"; }

DecoderKind decoder_kind(const std::string& name) {
  if (name == "unet") return DecoderKind::unet;
  if (name == "srresnet") return DecoderKind::srresnet;
  fail("--kind {}: not known; use unet or srresnet", name);
}

int band_multiple(const DecoderConfig& c) {
  if (c.kind == DecoderKind::srresnet) return 1;
  return c.band.domain == Domain::wavelet ? 16 : 8;  // tiles of half a band, halved three times; twice the band, halved four times
}

void check(const DecoderConfig& c) {
  const Band& b = c.band;
  check(b);
  check_range("--width", c.width, 4, 4096);
  if (c.width % 4) fail("--width {}: must be a multiple of 4", c.width);
  check_range("--blocks", c.blocks, 0, 128);
  const int low = b.size(), multiple = band_multiple(c);
  if (low % multiple)
    fail("--size {}: with {} levels the band is {} pixels wide, and {} decoders take multiples of {}; change --size or --levels", b.picture_size, b.levels, low,
         name_of(c.kind), multiple);
  if (c.published_base && (c.kind != DecoderKind::srresnet || b.domain != Domain::wavelet))
    fail("--published-base: is of the srresnet decoder of the wavelet domain; leave it out");
}

namespace {
/// A band on its own scale, on [0, 1].
Var on_unit(const Var& raw, const Band& b) { return affine(raw, 1 / b.scale, b.shift / b.scale); }
}  // namespace

DecoderNetwork::DecoderNetwork(const DecoderConfig& c) : config_(c) {
  if (c.kind == DecoderKind::srresnet) {
    net_ = SrResNet(c.width, c.blocks, c.band.levels);
    return;
  }
  for (int level = 1; level <= c.band.levels; level++) {
    const int64_t channels = 3 * (int64_t(1) << (2 * level));  // of the packet that it starts from
    if (c.band.domain == Domain::wavelet)
      tiles_.emplace_back(channels, channels, c.width);  // three times as many are predicted: as many tiles as there were channels
    else
      residuals_.emplace_back(c.width);
  }
}

Var DecoderNetwork::base(const Tensor& band) const {
  const Band& b = config_.band;
  const DType t = context().storage;
  if (b.domain == Domain::pixels) {
    const int64_t h = band.shape()[1] << b.levels, w = band.shape()[2] << b.levels;
    return bilinear_resize(Var(converted(band, t)), h, w);
  }
  const Var low = config_.published_base ? on_unit(Var(band), b) : Var(band);
  return Var(converted(from_low_band(low, b.wavelet, b.levels).value, t));
}

Var DecoderNetwork::operator()(const Tensor& band) {
  const Band& b = config_.band;
  const DType t = context().storage;
  if (config_.kind == DecoderKind::srresnet) {
    const Var normalised(converted(on_unit(Var(band), b).value, t));
    return combine(1.f, net_(normalised), 1.f, base(band));
  }
  const NoGrad none;
  if (b.domain == Domain::pixels) {
    Var x(converted(band, t));
    for (ResidualUNet& net : residuals_) {
      const Var up = bilinear_resize(x, 2 * x.shape()[1], 2 * x.shape()[2]);
      x = combine(1.f, up, 1.f, net(up));
    }
    return x;
  }
  Var packet(converted(wavelet_split(Var(band), b.wavelet, 3).value, t));
  for (TailUNet& net : tiles_) packet = concat_channels(packet, net(packet));
  return wavelet_unpacket(packet, b.wavelet, b.levels + 1);
}

DecoderNetwork::Lesson DecoderNetwork::lesson(const Tensor& pictures, int level) const {
  const NoGrad none;
  const Band& b = config_.band;
  const DType t = context().storage;
  const int above = b.levels - level;  // of it
  if (b.domain == Domain::pixels) {
    const int64_t side = pictures.shape()[1] >> above;
    const Var x = area_resize(Var(pictures), side, side), up = bilinear_resize(average_pool2x2(x), side, side);
    return {converted(up.value, t), converted(combine(1.f, x, -1.f, up).value, t), float(side * side * 3)};
  }
  const Var packet = wavelet_packet(low_band(Var(pictures), b.wavelet, above), b.wavelet, level + 1);
  const int64_t known = packet.shape()[3] / 4;
  return {converted(take_channels(packet, 0, known).value, t), converted(take_channels(packet, known, 3 * known).value, t), float(known)};
}

Var DecoderNetwork::predict(int level, const Var& input) {
  return config_.band.domain == Domain::wavelet ? tiles_[size_t(level - 1)](input) : residuals_[size_t(level - 1)](input);
}

}  // namespace kiln::nsbgan
