// Nearest 2x upsampling followed by a 3x3 convolution, in nine products a pixel: what upsample_conv3x3 does on a CPU.
//
// Computed as written that pair costs 36 products of an input pixel with a weight; as one 4x4 transposed convolution with
// box-summed weights, 16. Nine are enough. Along one axis, with taps w0 w1 w2, S = w0 + w1 + w2 and the differences
// d(i) = x(i) - x(i - 1) (zero outside of the picture), the two outputs of an input pixel are
//
//   y(2i) = S x(i) - w0 d(i)        y(2i + 1) = S x(i) + w2 d(i + 1)
//
// three products for two outputs, and along both axes nine for four. It is exact but for rounding, its constants are ones,
// and each product is a plain matrix product over channels.
#pragma once
#include "engine/tensor.h"

namespace kiln {

struct GluTail;

/// x [n, h, w, c] -> y [n, 2h, 2w, oc]. f32, CPU.
struct UpsampleShape {
  int64_t n, h, w, c, oc;
  int64_t products_count() const { return 9 * oc * c; }  // numbers in the transformed weight
  double flops() const { return 2.0 * 9 * double(n * h * w) * double(c) * double(oc); }  // that are computed
};

/// u [9, oc, c] is the weight as kernels/fold.h's upsample_products makes it. With a tail (engine/inference.h), u is made of a
/// weight in glu_order and y is [n, 2h, 2w, oc / 2].
void upsample_conv_forward(const UpsampleShape& s, const Tensor& x, const Tensor& u, const Tensor& y, const GluTail* tail = nullptr);
/// dx [n, h, w, c] from u, and du [9, oc, c] from x: either may be empty, and then so may what it is made from. Both share one
/// pass over dy. Sums are added in an order that does not depend on the number of threads.
void upsample_conv_backward(const UpsampleShape& s, const Tensor& dy, const Tensor& u, const Tensor& x, const Tensor& dx,
                            const Tensor& du);

}  // namespace kiln
