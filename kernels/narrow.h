// 3x3 convolutions of stride 1 and padding 1 with few channels on one side: the end of a network, where pictures of 3 channels come out.
// Libraries block both sides of a convolution by 16 channels or more, and this one has not as many.
#pragma once
#include "kernels/exec/api.h"

namespace kiln {

constexpr int kMostFew = 4;

/// One side [n, h, w, few], 1 <= few <= kMostFew, the other [n, h, w, wide]; n h w < 2^31.
struct NarrowShape {
  int64_t n;
  int h, w, few, wide;
};

/// Of narrow_weights.
constexpr int64_t narrow_scratch_floats(const NarrowShape& s) { return int64_t(64) * 9 * kMostFew * s.wide; }

}  // namespace kiln

KILN_KERNEL_API(
    /// y [n, h, w, few] = the convolution of x [n, h, w, wide]; weight [few, 3, 3, wide] of type t.
    void narrow_forward(Stream stream, DType t, const NarrowShape& s, const void* x, const void* weight, void* y);
    /// The gradient of narrow_forward's weight: dw [few, 3, 3, wide] f32, from x [n, h, w, wide] and dy [n, h, w, few].
    void narrow_weights(Stream stream, DType t, const NarrowShape& s, const void* x, const void* dy, float* dw, float* scratch);
    /// to [few, 3, 3, wide] from [wide, 3, 3, few], its taps in reverse order: with it narrow_forward is the adjoint of a convolution of
    /// few channels to wide ones.
    void narrow_turn(Stream stream, DType t, int few, int wide, const void* from, void* to);)
