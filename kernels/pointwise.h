// Sums and products of tensors. n elements of storage type t; any layout. Outputs may be one of the inputs.
#pragma once
#include "kernels/exec/api.h"

KILN_KERNEL_API(
    /// y = value.
    void fill(Stream stream, DType t, int64_t n, float value, void* y);
    /// z = a * x + b * y.
    void linear_combination(Stream stream, DType t, int64_t n, float a, const void* x, float b, const void* y, void* z);
    /// y = a * x.
    void scale(Stream stream, DType t, int64_t n, float a, const void* x, void* y);
    /// y += a * x, in f32 whatever x is.
    void accumulate(Stream stream, DType t, int64_t n, float a, const void* x, float* y);
    /// y = (type ty) x.
    void cast(Stream stream, DType tx, DType ty, int64_t n, const void* x, void* y);
    /// y = all of a, then all of b. Element by element: y's second part need not be aligned to a pack.
    void concatenate(Stream stream, DType t, int64_t na, const void* a, int64_t nb, const void* b, void* y);
    /// The adjoint: a and b from y. Either may be null.
    void split(Stream stream, DType t, int64_t na, void* a, int64_t nb, void* b, const void* y);
    /// Noise injection: y[r, c] = x[r, c] + w * noise[r], rows = N*H*W; w is one number in device memory.
    void noise_forward(Stream stream, DType t, int64_t rows, int c, const void* x, const float* noise, const float* w, void* y);
    /// dw += sum over r, c of dy[r, c] * noise[r]. scratch: (c + 64 c) floats.
    void noise_backward_weight(Stream stream, DType t, int64_t rows, int c, const void* dy, const float* noise, float* dw,
                               float* scratch);
    /// y [n, b, a] = x [n, a, b] with the two inner dimensions exchanged.
    void transpose(Stream stream, DType t, int64_t n, int a, int b, const void* x, void* y);)
