// Clips, channels last: frames that are chosen, repeated or added, boxes of pixels, resizing in space and time. A clip is
// [n, t, h, w, c]; where frames move as a whole, their w and c are one `width`. Every adjoint gathers: each number adds what
// reads it, in a fixed order, so none needs an atomic. Fewer than 2^31 pixels in all.
#pragma once
#include "kernels/exec/api.h"

namespace kiln {

/// Clips of t and of out_t frames of `rows` x `width` numbers.
struct FrameShape {
  int64_t n;
  int t, out_t, rows, width;
};
/// Which frame the o-th of a result is: (first + step o) / divide, rounded down, and the nearest of 0..t-1 where that is outside.
/// first at least -t, step and divide at least 1; first is negative only with divide 1.
struct FrameMap {
  int first = 0, step = 1, divide = 1;
};
/// A clip of boxes of ft frames and fs x fs pixels: large [n, t, h, w, c], small [n, t / ft, h / fs, w / fs, c].
struct BoxShape {
  int64_t n;
  int t, h, w, c, ft, fs;
};
struct ClipResize {
  int64_t n;
  int t, h, w, out_t, out_h, out_w, c;
  bool linear_time;  // else a frame is the one before: floor(o t / out_t)
};

}  // namespace kiln

KILN_KERNEL_API(
    /// y[n, o] = x[n, map(o)].
    void frames_forward(Stream stream, DType t, const FrameShape& s, const FrameMap& map, const void* x, void* y);
    /// dx[n, i] = the sum of dy[n, o] over all o with map(o) = i.
    void frames_backward(Stream stream, DType t, const FrameShape& s, const FrameMap& map, const void* dy, void* dx);
    /// y[n, o] = x[n, index[n, o]]; index in 0..t-1.
    void gather_frames_forward(Stream stream, DType t, const FrameShape& s, const int32_t* index, const void* x, void* y);
    void gather_frames_backward(Stream stream, DType t, const FrameShape& s, const int32_t* index, const void* dy, void* dx);
    /// index[n, 0..k-1]: k different numbers below t, rising, from u [n, t] (selection sampling, Knuth volume 2, 3.4.2, algorithm S).
    void draw_frames(Stream stream, int64_t n, int t, int k, const float* u, int32_t* index);
    /// small = scale * the sum of a box of large.
    void box_sum(Stream stream, DType t, const BoxShape& s, float scale, const void* large, void* small);
    /// large = scale * small, everywhere in the box.
    void box_fill(Stream stream, DType t, const BoxShape& s, float scale, const void* small, void* large);
    /// Linear along an axis, pixel centres at halves: source (o + 0.5) size / out_size - 0.5, at least 0; its two neighbours,
    /// clamped. Time as the shape says.
    void clip_resize_forward(Stream stream, DType t, const ClipResize& s, const void* x, void* y);
    void clip_resize_backward(Stream stream, DType t, const ClipResize& s, const void* dy, void* dx);)
