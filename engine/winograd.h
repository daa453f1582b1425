// Winograd's minimal filtering for 3x3 convolutions of stride 1 and padding 1 (Winograd 1980; Lavin & Gray 2016, F(2x2, 3x3)): four
// outputs take 16 products of an input with a weight, not 36. What conv2d does on a CPU where it is the faster way.
//
// Along one axis two outputs of three taps come of four inputs d and four products:
//   (d0 - d2) g0,  (d1 + d2) (g0 + g1 + g2) / 2,  (d2 - d1) (g0 - g1 + g2) / 2,  (d1 - d3) g2
//   y0 = first + second + third,  y1 = second - third - fourth
// Along both axes a picture falls into tiles of 2x2 outputs, and product k of all tiles and channels is one matrix product.
#pragma once
#include "engine/tensor.h"

namespace kiln {

struct GluTail;

/// x [n, h, w, c] -> y [n, h, w, oc]. f32, CPU.
struct WinogradShape {
  int64_t n, h, w, c, oc;
  int64_t tiles() const { return n * ((h + 1) / 2) * ((w + 1) / 2); }
  int64_t products_count() const { return 16 * oc * c; }  // numbers in the transformed weight
  double flops() const { return 2.0 * 16 * double(tiles()) * double(c) * double(oc); }  // of the products
  /// True where this way beats oneDNN's direct one.
  bool wins() const;
};

// u [16, oc, c] is the weight as kernels/fold.h's winograd_weights makes it, du its gradient. Sums are added in an order that does
// not depend on the number of threads. With a tail (engine/inference.h), u is made of a weight in glu_order and y is
// [n, h, w, oc / 2].
void winograd_forward(const WinogradShape& s, const Tensor& x, const Tensor& u, const Tensor& y, const GluTail* tail = nullptr);
void winograd_backward_data(const WinogradShape& s, const Tensor& dy, const Tensor& u, const Tensor& dx);
void winograd_backward_weights(const WinogradShape& s, const Tensor& x, const Tensor& dy, const Tensor& du);

}  // namespace kiln
