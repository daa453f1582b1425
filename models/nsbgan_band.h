// What NSB-GAN's two networks hand each other: a picture's low band, and how its numbers are laid on [-1, 1] (Han et al. 2020,
// section 3). The sampler makes such bands, the decoders make pictures of them; both keep the Band in their checkpoints.
#pragma once
#include <cstdint>
#include <string>

#include "engine/dataset.h"
#include "engine/wavelet.h"

namespace kiln::nsbgan {

/// wavelet: the low band of that many levels; pixels: the picture made smaller by averaging, the paper's control ("NSB-GAN-P").
enum class Domain : uint8_t { wavelet, pixels };
const char* name_of(Domain d);                     // "wavelet", "pixels"
Domain domain_from_name(const std::string& name);  // throws kiln::Error for any other word

struct Band {
  Domain domain = Domain::wavelet;
  Wavelet wavelet = Wavelet::bior22;  // of the domain wavelet only
  int levels = 2;
  int picture_size = 128;  // pixels, R; the band has R / 2^levels
  /// x on the band's own scale, of pictures on [0, 1], is normalised to 2 (x + shift) / scale - 1. Pixels have 0 and 1.
  double shift = 0, scale = 1;

  int size() const { return picture_size >> levels; }
  bool operator==(const Band&) const = default;
  /// "bior2.2, 2 levels of 128 px: 32 px, 2 (x + 3) / 10 - 1"
  std::string text() const;
};

/// Throws kiln::Error naming the flag if a value is out of range: levels from 1 to 6, a size that they halve to 4 pixels or more.
void check(const Band& b);
/// Why a sampler's band is not what a decoder takes, with the remedy, for people; empty where it is.
std::string mismatch(const Band& sampler, const Band& decoder);

// ---- ops, in the type of what they are given ------------------------------------------------------------------------------

/// a x + b. Has a gradient.
Var affine(const Var& x, double a, double b);
/// Pictures [n, R, R, 3] on [-1, 1] -> their bands [n, r, r, 3] on the band's own scale. Has a gradient.
Var raw_band(const Var& pictures, const Band& b);
/// The same normalised: what the sampler learns.
Var band_of(const Var& pictures, const Band& b);
inline Var normalise(const Var& raw, const Band& b) { return affine(raw, 2 / b.scale, 2 * b.shift / b.scale - 1); }
inline Var denormalise(const Var& band, const Band& b) { return affine(band, b.scale / 2, b.scale / 2 - b.shift); }
/// Normalised bands [n, r, r, 3] -> pictures [n, R, R, 3] on [-1, 1] with what is known of them: the other bands zero; pixels are resized
/// bilinearly (without a gradient).
Var picture_of_band(const Var& band, const Band& b);

/// `b` with the shift and scale of a set of pictures, those mirrored included: shift = ceil(-smallest) where that is below 0, scale = shift +
/// ceil(largest), the public code's rule. Pixels have theirs already. Needs a current context, whose device it computes on.
/// Throws kiln::Error where the set's file cannot be read.
Band measure(const Dataset& data, Band b);

}  // namespace kiln::nsbgan
