// What trained feature networks need beside convolutions: bias and rectifier, pooling, padding, joining of channels, bilinear
// resizing. Pictures are channels last, [n, h, w, c].
#pragma once
#include "kernels/exec/api.h"

namespace kiln {
/// A window of k x k that moves by `stride` over a picture with `pad` pixels around it: window (i, j) begins at
/// (i stride - pad, j stride - pad). What lies outside of the picture does not count. Fewer than 2^31 pixels in all.
struct PoolShape {
  int64_t n;
  int h, w, out_h, out_w, c, k, stride, pad;
};
/// A picture of h x w inside one of out_h x out_w, its corner at (top, left); or resized to out_h x out_w.
struct PlaceShape {
  int64_t n;
  int h, w, out_h, out_w, c, top, left;
};
}  // namespace kiln

KILN_KERNEL_API(
    /// y[r, c] = a[c] x[r, c] + b[c], times slope where that is negative: slope 0 is ReLU, 1 is linear. a may be null (1).
    /// y may be x.
    void affine_activation(Stream stream, DType t, int64_t rows, int c, const void* x, const float* a, const float* b, float slope,
                           void* y);
    /// dx = dy a[c], times slope where y is not positive. y may be null if slope is 1. dx may be dy.
    void affine_activation_backward(Stream stream, DType t, int64_t rows, int c, const void* y, const float* a, float slope,
                                    const void* dy, void* dx);
    /// The largest value in each window.
    void max_pool_forward(Stream stream, DType t, const PoolShape& s, const void* x, void* y);
    /// dx = the sum of dy over the windows whose first largest value, row by row, it is.
    void max_pool_backward(Stream stream, DType t, const PoolShape& s, const void* x, const void* dy, void* dx);
    /// The mean over the part of each window that lies inside the picture.
    void average_pool(Stream stream, DType t, const PoolShape& s, const void* x, void* y);
    /// y = x at (top, left), 0 around it.
    void place(Stream stream, DType t, const PlaceShape& s, const void* x, void* y);
    /// y[r, first + c] = x[r, c] for c in [0, cx); y has cy channels.
    void copy_channels(Stream stream, DType t, int64_t rows, int cx, int cy, int first, const void* x, void* y);
    /// Bilinear, pixel centres at halves, no filter when it shrinks (PyTorch's interpolate with align_corners = False):
    /// source (i + 0.5) h / out_h - 0.5, at least 0; its two neighbours, clamped.
    void bilinear(Stream stream, DType t, const PlaceShape& s, const void* x, void* y);)
