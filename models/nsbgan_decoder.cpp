#include "models/nsbgan_decoder.h"

#include <algorithm>

#include "engine/checkpoint.h"
#include "engine/error.h"
#include "engine/ops_feature.h"
#include "engine/picture_tensor.h"
#include "engine/run_directory.h"
#include "models/nsbgan_decoder_run.h"

namespace kiln::nsbgan {

namespace {

std::filesystem::path newest_checkpoint(const std::filesystem::path& path) {
  if (!std::filesystem::is_directory(path)) return path;
  const RunDirectory run = RunDirectory::open(path);
  const std::vector<int64_t> steps = run.checkpoints();
  if (steps.empty()) fail("{}: this run has no checkpoint yet", path.string());
  return run.checkpoint(steps.back());
}

}  // namespace

Tensor plain_upscaling(const Tensor& band, const Band& of, Interpolation kind) {
  const bool wavelet = of.domain == Domain::wavelet;
  // As a picture: a low band is twice as bright for every level.
  const Tensor small = wavelet ? affine(Var(band), 1.f / float(1 << of.levels), 0.f).value : band;
  const Sites sites = wavelet && of.wavelet != Wavelet::haar ? Sites::corners : Sites::areas;
  return affine(Var(interpolate(small, 1 << of.levels, kind, sites)), 2.f, -1.f).value;
}

Tensor low_part(const Tensor& pictures, const Band& of) {
  KILN_ASSERT(pictures.shape()[1] % (1 << of.levels) == 0 && pictures.shape()[2] % (1 << of.levels) == 0);
  const NoGrad none;
  const Var x = affine(Var(pictures), 0.5, 0.5);
  return of.domain == Domain::wavelet ? low_band(x, of.wavelet, of.levels).value
                                      : area_resize(x, x.shape()[1] >> of.levels, x.shape()[2] >> of.levels).value;
}

Decoder::Decoder(const std::filesystem::path& checkpoint_or_run) : path_(newest_checkpoint(checkpoint_or_run)) {
  const SafetensorsFile file(path_);
  const auto it = file.metadata().find("config");
  if (it == file.metadata().end()) fail("{}: not a checkpoint of kiln (it has no configuration)", path_.string());
  const decoding::RunOptions run = decoding::from_json(it->second, path_.string());
  check(run.network);
  step_ = metadata_integer(file, "step");
  network_ = std::make_unique<DecoderNetwork>(run.network);
  parameters_ = ParameterSet(*network_, false);
  load_parameters(file, "G.", parameters_);
}

Tensor Decoder::decode(const Tensor& band) {
  const NoGrad none;
  const Evaluation evaluation;
  return affine(Var(converted((*network_)(band).value, DType::f32)), 2.f, -1.f).value;
}

namespace {

/// Pixels [top, top + h) x [left, left + w) of a picture as a band; where they lie outside, the nearest inside.
Tensor part_of(const Picture& p, int top, int left, int h, int w, float scale) {
  std::vector<float> v;
  v.reserve(size_t(h) * size_t(w) * 3);
  for (int i = top; i < top + h; i++)
    for (int j = left; j < left + w; j++) {
      const size_t at = (size_t(std::clamp(i, 0, p.height - 1)) * size_t(p.width) + size_t(std::clamp(j, 0, p.width - 1))) * 3;
      for (size_t c = 0; c < 3; c++) v.push_back(scale * float(p.rgb[at + c]) / 255.f);
    }
  return from_vector(Shape{1, h, w, 3}, v);
}

}  // namespace

Picture Decoder::upscale(const Picture& small, int tile, const std::function<void(int, int)>& after) {
  const int f = factor(), w = small.width, h = small.height;
  if (w < 4 || h < 4) fail("a picture of {} x {} pixels is too small to enlarge; it takes at least 4 x 4", w, h);
  if (int64_t(w) * f * h * f > kMostPixels)
    fail("a picture of {} x {} pixels would become {} x {}, more than {} million pixels; cut it into pieces", w, h, int64_t(w) * f, int64_t(h) * f, kMostPixels / 1'000'000);
  const float scale = band().domain == Domain::wavelet ? float(f) : 1.f;
  Picture large{w * f, h * f, std::vector<uint8_t>(size_t(w) * size_t(f) * size_t(h) * size_t(f) * 3)};
  // Decodes pixels [t, t + ph) x [l, l + pw) and keeps [top, bottom) x [left, right) of them.
  const auto decode_part = [&](int t, int l, int ph, int pw, int top, int left, int bottom, int right) {
    const Picture done = to_pictures(decode(part_of(small, t, l, ph, pw, scale)))[0];
    for (int i = top * f; i < bottom * f; i++) {
      const uint8_t* from = done.rgb.data() + (size_t(i - t * f) * size_t(done.width) + size_t((left - l) * f)) * 3;
      std::copy(from, from + size_t(right - left) * size_t(f) * 3, large.rgb.data() + (size_t(i) * size_t(large.width) + size_t(left) * size_t(f)) * 3);
    }
  };
  if (config().kind == DecoderKind::unet) {
    const int m = band_multiple(config());
    decode_part(0, 0, (h + m - 1) / m * m, (w + m - 1) / m * m, 0, 0, h, w);
    if (after) after(1, 1);
    return large;
  }
  // Its training bands of bior2.2 end in zeros' borders, which a user's picture does not have: there it sees beyond, as what it repeats.
  const int beyond = band().domain == Domain::wavelet && band().wavelet == Wavelet::bior22 ? network_->reach() + 1 : 0;
  const int around = network_->reach() + 1, rows = (h + tile - 1) / tile, columns = (w + tile - 1) / tile;
  for (int k = 0; k < rows * columns; k++) {
    const int top = k / columns * tile, left = k % columns * tile, bottom = std::min(h, top + tile), right = std::min(w, left + tile);
    const int t = std::max(-beyond, top - around), l = std::max(-beyond, left - around), b = std::min(h + beyond, bottom + around), r = std::min(w + beyond, right + around);
    decode_part(t, l, b - t, r - l, top, left, bottom, right);
    if (after) after(k + 1, rows * columns);
  }
  return large;
}

}  // namespace kiln::nsbgan
