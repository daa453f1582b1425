// A trained decoder of NSB-GAN: pictures from bands, and larger pictures from small ones.
//
//   kiln::Context context;
//   kiln::UseContext use(context);
//   kiln::nsbgan::Decoder decoder("runs/monet-decoder");
//   kiln::write_png("large.png", decoder.upscale(kiln::read_picture("small.jpg")));
#pragma once
#include <filesystem>
#include <functional>
#include <memory>

#include "engine/parameters.h"
#include "engine/picture.h"
#include "engine/psnr_ssim.h"
#include "models/nsbgan_decoder_network.h"

namespace kiln::nsbgan {

/// What interpolation makes of a band: bands [n, h, w, 3] as they are, f32 -> pictures [n, 2^levels h, 2^levels w, 3] on [-1, 1].
Tensor plain_upscaling(const Tensor& band, const Band& of, Interpolation kind);

/// Bands on their own scale, [n, h / 2^levels, w / 2^levels, 3], of pictures [n, h, w, 3] on [-1, 1] of any size that halves so often.
Tensor low_part(const Tensor& pictures, const Band& of);

class Decoder {
 public:
  /// A checkpoint of nsbgan_train's `decoder`, or its run directory: the newest one there. Needs a current context, which must live as
  /// long. Throws kiln::Error: no such file, damaged, not a decoder, no memory.
  explicit Decoder(const std::filesystem::path& checkpoint_or_run);

  const Band& band() const { return network_->config().band; }
  const DecoderConfig& config() const { return network_->config(); }
  int factor() const { return 1 << band().levels; }
  int64_t step() const { return step_; }
  const std::filesystem::path& path() const { return path_; }

  /// Bands [n, h, w, 3] as they are (not normalised), f32, sides multiples of band_multiple() -> pictures [n, factor h, factor w, 3] on
  /// [-1, 1], f32, not clamped; evaluation mode.
  Tensor decode(const Tensor& band);
  /// A small picture of any size as the low part of a large one, factor times as wide and high. The SRResNet works through tiles of
  /// `tile` pixels and as much around them as their results depend on, so that the result does not depend on it (to rounding); a U-Net, which
  /// sees everything at once, takes the whole, repeated at its borders to the multiple that it needs. after(done, of): tiles. Throws
  /// kiln::Error: shorter than 4 pixels, or a result beyond kMostPixels.
  Picture upscale(const Picture& small, int tile = 128, const std::function<void(int done, int of)>& after = {});
  static constexpr int64_t kMostPixels = 100'000'000;

 private:
  std::unique_ptr<DecoderNetwork> network_;
  ParameterSet parameters_;
  std::filesystem::path path_;
  int64_t step_ = 0;
};

}  // namespace kiln::nsbgan
