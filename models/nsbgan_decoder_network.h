// NSB-GAN's decoders (Han et al. 2020) as one network each: from a band to the picture that it is the low part of.
//
//   unet      for every level a network of its own, which is trained on real bands and predicts, one behind the other, a level's three
//             high quadrants (wavelet domain) or what bilinear upsampling leaves out (pixel domain)
//   srresnet  one network for all levels, which adds what is missing to the band's upsampled picture
#pragma once
#include <string>
#include <vector>

#include "models/nsbgan_band.h"
#include "models/nsbgan_srresnet.h"
#include "models/nsbgan_unet.h"

namespace kiln::nsbgan {

enum class DecoderKind : uint8_t { unet, srresnet };
const char* name_of(DecoderKind k);  // "unet", "srresnet"
DecoderKind decoder_kind(const std::string& name);  // throws kiln::Error for any other word

struct DecoderConfig {
  DecoderKind kind = DecoderKind::srresnet;
  Band band;
  int width = 64;   // of the U-Nets' layers (in pixels: of the first), of the SRResNet's
  int blocks = 16;  // of the SRResNet
  /// The SRResNet's base as published: made of the normalised band, so that it is a faint grey picture of it and the network has to supply
  /// the rest. Otherwise it is the picture that the band alone makes.
  bool published_base = false;
  bool operator==(const DecoderConfig&) const = default;
};

/// Throws kiln::Error, naming the flag, if a value is out of range or two do not fit together.
void check(const DecoderConfig& c);
/// Sides of a band that a decoder can take are multiples of this.
int band_multiple(const DecoderConfig& c);

class DecoderNetwork {
 public:
  explicit DecoderNetwork(const DecoderConfig& c);

  /// Bands [n, h, w, 3] as they are (not normalised), f32 -> pictures [n, 2^levels h, 2^levels w, 3] on [0, 1], not clamped, in the
  /// context's storage type. Records for the SRResNet; U-Nets are trained one by one.
  Var operator()(const Tensor& band);
  /// The SRResNet's part alone, and its base.
  Var base(const Tensor& band) const;

  /// What the U-Net of a level (1: the smallest) learns from pictures [n, R, R, 3] on [0, 1].
  struct Lesson {
    Tensor input, target;
    float scale = 1;  // the published loss is this times the mean square error: its number of tiles, or of a picture's numbers
  };
  Lesson lesson(const Tensor& pictures, int level) const;
  Var predict(int level, const Var& input);

  const DecoderConfig& config() const { return config_; }
  int reach() const { return net_.reach(); }  // of the SRResNet, in pixels of the band
  template <class F>
  void visit(F&& f) {
    if (config_.kind == DecoderKind::srresnet) f("net", net_);
    for (size_t i = 0; i < tiles_.size(); i++) f("level" + std::to_string(i + 1), tiles_[i]);
    for (size_t i = 0; i < residuals_.size(); i++) f("level" + std::to_string(i + 1), residuals_[i]);
  }

 private:
  DecoderConfig config_;
  SrResNet net_;
  std::vector<TailUNet> tiles_;
  std::vector<ResidualUNet> residuals_;
};

}  // namespace kiln::nsbgan
