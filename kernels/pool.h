// 2x2 max pooling of channels-last pictures.
#pragma once
#include "kernels/exec/api.h"

KILN_KERNEL_API(
    /// y [n, h/2, w/2, c] = the largest of each 2x2 window of x [n, h, w, c]; h and w even, fewer than 2^31 pixels in all.
    void max_pool_forward(Stream stream, DType t, int64_t n, int h, int w, int c, const void* x, void* y);
    /// dx = dy at the first largest pixel of each window, in reading order, and zero elsewhere.
    void max_pool_backward(Stream stream, DType t, int64_t n, int h, int w, int c, const void* x, const void* dy, void* dx);)
