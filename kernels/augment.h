// DiffAugment (Zhao et al. 2020) in one pass: brightness, saturation, contrast, translation, cutout, and for pictures that
// still are bytes also the gather from the data set, the horizontal flip and the scaling to [-1, 1]. Differentiable in x.
//
// For one picture with the raw uniforms U[0..6] of its row (u_b, u_s, u_c, shift y, shift x, cut y, cut x):
//   t = x + (u_b - 0.5);  t = (t - mean_c) * 2 u_s + mean_c, mean over a pixel's channels;
//   t = (t - m) * (u_c + 0.5) + m, m the mean over the picture, which saturation leaves as it was
//   y[i, j] = t[i + a, j + b], zero outside; a = floor(U (2 s + 1)) - s, s = int(size / 8 + 0.5), per axis
//   cutout: zero where q - floor(c/2) <= i < q - floor(c/2) + c, c = int(size / 2 + 0.5), q = floor(U (size + (c even)))
#pragma once
#include "kernels/exec/api.h"

namespace kiln {

constexpr int kAugmentUniforms = 7;

struct AugmentPolicy {
  bool color = true, translation = true, cutout = false;
};

struct AugmentShape {
  int64_t n;
  int h, w;
};

}  // namespace kiln

KILN_KERNEL_API(
    /// means[n] = mean over picture n of x [n, h, w, 3]. scratch: 32 n floats.
    void picture_means(Stream stream, DType t, const AugmentShape& s, const void* x, float* means, float* scratch);
    /// y from x [n, h, w, 3] of type t. u [n, 7]; means [n] of x, read if the policy has color.
    void augment_forward(Stream stream, DType t, const AugmentShape& s, const AugmentPolicy& p, const float* u,
                         const float* means, const void* x, void* y);
    /// dx from dy. gsum: scratch, n + 32 n floats.
    void augment_backward(Stream stream, DType t, const AugmentShape& s, const AugmentPolicy& p, const float* u,
                          const void* dy, void* dx, float* gsum);
    /// plain[k] = picture index[k] of the byte set [?, h, w, 3], scaled to [-1, 1], mirrored where flip_u[k] < flip_below.
    void gather_pictures(Stream stream, DType t, const AugmentShape& s, const uint8_t* set, const int32_t* index,
                         const float* flip_u, float flip_below, void* plain);
    /// The same of clips: s.n frames, `frames` of them a clip; clip k is mirrored as a whole where flip_u[k] < flip_below.
    void gather_clips(Stream stream, DType t, const AugmentShape& s, int frames, const uint8_t* set, const int32_t* index,
                      const float* flip_u, float flip_below, void* plain);
    /// gather_pictures followed by augment_forward, in one pass; byte_means [set size] = mean of each picture on the scale [-1, 1].
    void gather_augmented(Stream stream, DType t, const AugmentShape& s, const AugmentPolicy& p, const uint8_t* set,
                          const float* byte_means, const int32_t* index, const float* flip_u, float flip_below,
                          const float* u, void* y);)
