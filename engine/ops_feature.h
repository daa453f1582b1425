// The ops that trained feature networks add to those of engine/ops.h. Their weights are constants: gradients go to the input
// only, and only where it says so; the others serve networks that are only looked through (no recording).
#pragma once
#include <vector>

#include "engine/ops.h"

namespace kiln {

/// a[c] x + b[c], times slope where that is negative: slope 0 is ReLU, 1 linear. scale (a) may be empty. Has a gradient.
/// Where nothing records, x's memory is reused for the result if nobody else holds it.
Var affine_activation(Var x, const Tensor& scale, const Tensor& bias, float slope);
/// The largest value of k x k windows. `ceil`: a last window that begins inside counts, though it reaches out. Has a gradient.
Var max_pool(const Var& x, int k, int stride, int pad = 0, bool ceil = false);
/// The mean of k x k windows of stride 1 with padding k/2, over their pixels inside of the picture. No gradient.
Var average_pool_same(const Var& x, int k);
/// Zeros around a picture. No gradient.
Var pad_picture(const Var& x, int top, int bottom, int left, int right);
/// The channels of all, one after the other. No gradient.
Var concat_channels(const std::vector<Var>& parts);
/// Bilinear resizing without a filter (kernels/feature.h). No gradient.
Var bilinear_resize(const Var& x, int64_t h, int64_t w);
/// LPIPS's distance of one layer (kernels/perceptual.h): f [n, h, w, c], g a constant of that shape, head [c] -> [n]. Has a
/// gradient, to f.
Var perceptual_distance(const Var& f, const Tensor& g, const Tensor& head);
/// x in another floating type; itself where it has that type. No gradient.
Tensor converted(const Tensor& x, DType t);
/// The sum of all elements of an f32 tensor, a single number. Has a gradient.
Var sum_all(const Var& x);

}  // namespace kiln
