// Class labels and what is looked up by them. Labels are i32 [n] in [0, classes); vectors are f32.
#pragma once
#include "kernels/exec/api.h"

KILN_KERNEL_API(
    /// labels[i] = min(classes - 1, floor(classes * u[i])): uniform over the classes.
    void labels_from_uniform(Stream stream, int64_t n, int classes, const float* u, int32_t* labels);
    /// y [n + m] = a [n], then b [m].
    void concat_labels(Stream stream, int64_t n, int64_t m, const int32_t* a, const int32_t* b, int32_t* y);
    /// y [n, c] = table[labels[n], :].
    void embedding_forward(Stream stream, int64_t n, int c, const float* table, const int32_t* labels, float* y);
    /// dtable [classes, c] += the rows of dy, each at its label, added in order of n.
    void embedding_backward(Stream stream, int64_t n, int classes, int c, const float* dy, const int32_t* labels, float* dtable);
    /// y [rows, a + b] of type t: x's columns [rows, a], then z's [rows, b]; z may be null for zeros.
    void concat_columns(Stream stream, DType t, int64_t rows, int a, int b, const void* x, const void* z, void* y);
    /// y [rows, count] = columns [first, first + count) of x [rows, c].
    void take_columns(Stream stream, DType t, int64_t rows, int c, int first, int count, const void* x, void* y);)
