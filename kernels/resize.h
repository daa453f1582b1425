// Changes of size of channels-last pictures [n, h, w, c]: nearest, average, area, crop, and their adjoints. Every adjoint
// gathers: each input pixel adds the output pixels that read it, in a fixed order, so none needs an atomic.
#pragma once
#include "kernels/exec/api.h"

namespace kiln {
constexpr int kLargestSide = 32768;  // of an input or an output: products of two sides fit in 32 bits

/// Sizes of an input and an output picture; fewer than 2^31 pixels in all.
struct ResizeShape {
  int64_t n;
  int h, w, out_h, out_w, c;
};
}  // namespace kiln

KILN_KERNEL_API(
    /// Nearest: out[i, j] = in[floor(i h / out_h), floor(j w / out_w)].
    void nearest_forward(Stream stream, DType t, const ResizeShape& s, const void* x, void* y);
    void nearest_backward(Stream stream, DType t, const ResizeShape& s, const void* dy, void* dx);
    /// Average over the window floor(i h / out_h) .. ceil((i + 1) h / out_h) - 1 per axis: adaptive average pooling, which
    /// is also area resizing; with h = 2 out_h it is 2x2 average pooling.
    void area_forward(Stream stream, DType t, const ResizeShape& s, const void* x, void* y);
    void area_backward(Stream stream, DType t, const ResizeShape& s, const void* dy, void* dx);
    /// Bilinear with the corners' centres in place (PyTorch's interpolate with align_corners = True): output i reads i (h - 1) /
    /// (out_h - 1), the first where out_h is 1. Outputs at least as large as inputs.
    void corner_bilinear_forward(Stream stream, DType t, const ResizeShape& s, const void* x, void* y);
    void corner_bilinear_backward(Stream stream, DType t, const ResizeShape& s, const void* dy, void* dx);
    /// The out_h x out_w window whose corner is ((q / 2) * (h - out_h), (q % 2) * (w - out_w)) for q = corner[0] in 0..3:
    /// top left, top right, bottom left, bottom right. The backward writes zeros outside of the window.
    void corner_crop_forward(Stream stream, DType t, const ResizeShape& s, const int32_t* corner, const void* x, void* y);
    void corner_crop_backward(Stream stream, DType t, const ResizeShape& s, const int32_t* corner, const void* dy, void* dx);
    /// corner[0] = min(3, floor(4 u[0])).
    void corner_from_uniform(Stream stream, const float* u, int32_t* corner);)
