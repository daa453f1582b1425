// How near a picture is to the one that it should be, and what plain interpolation gets to: the usual measures and baselines of
// super-resolution.
#pragma once
#include "engine/picture.h"
#include "engine/tensor.h"

namespace kiln {

/// Peak signal-to-noise ratio in dB of 8-bit pictures of one size, over all pixels and channels: 10 log10(255^2 / mean square error);
/// 100 where they are equal.
double psnr(const Picture& a, const Picture& b);
constexpr int kSsimWindow = 11;  // pixels a side
/// Structural similarity (Wang et al. 2004): windows weighted by a Gaussian of 11 x 11 pixels and deviation 1.5, K 0.01 and 0.03, range
/// 255, biased variances; the mean over all windows that lie inside the picture, and over the three channels. scikit-image's with
/// gaussian_weights and use_sample_covariance = False. Throws kiln::Error if a side is shorter than 11 pixels.
double ssim(const Picture& a, const Picture& b);

enum class Interpolation : uint8_t { bilinear, bicubic };  // bicubic: Catmull-Rom (Keys' with a = -1/2), Pillow's and MATLAB's
/// Which pixel of the large picture a pixel of the small one lies on.
enum class Sites : uint8_t {
  areas,    // it is the mean of a factor x factor block: the middle of the block
  corners,  // the block's first one, as bior2.2's low bands have it
};
/// x [n, h, w, c] f32 -> [n, factor h, factor w, c], by plain loops on the host. Beyond its borders a picture goes on as it ends.
Tensor interpolate(const Tensor& x, int factor, Interpolation kind, Sites sites);

}  // namespace kiln
