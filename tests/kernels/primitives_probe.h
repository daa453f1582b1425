// Launchers that show kernels/exec/primitives.h and pack.h at work, one thing at a time, for
// tests/kernel_primitives_test.cpp.
#pragma once
#include "kernels/exec/api.h"

namespace kiln {
enum class PackFunction : uint8_t { exp, sigmoid, sqrt, leaky_relu, select_positive };
constexpr int kProbeSums = 3;      // x, x^2 and 1: the sums of probe_column_sums and probe_segment_sums
constexpr int kProbeManySums = 8;  // the most that a kernel asks of column_sums: x, 2 x, ..., 8 x
}  // namespace kiln

KILN_KERNEL_API(
    /// Makes cooperative kernels run in their GPU shape on the host executor; no effect on a GPU.
    void probe_force_wide(bool wide);
    /// y = f(x) for n elements in packs of `pack` (1, 2, 4, 8 or 16, a divisor of n). leaky_relu has slope 0.2;
    /// select_positive is x > 0 ? 1 : x.
    void probe_pack(Stream stream, PackFunction f, int pack, int64_t n, const float* x, float* y);
    /// y[i] = the sum of pack i of x.
    void probe_pack_sum(Stream stream, int pack, int64_t n, const float* x, float* y);
    /// y = x, of type t, through packs.
    void probe_copy(Stream stream, DType t, int pack, int64_t n, const void* x, void* y);
    /// visits[i] += 1 and packs[i] = P for every element that a call of P covers.
    void probe_map(Stream stream, DType t, int64_t n, int32_t* visits, int32_t* packs);
    void probe_map_each(Stream stream, int64_t n, int32_t* visits);
    void probe_map_rows(Stream stream, DType t, int64_t rows, int channels, int32_t* visits, int32_t* packs);
    /// out[g][k][c] of x [groups * rows, channels].
    void probe_column_sums(Stream stream, DType t, int64_t groups, int64_t rows, int channels, const void* x,
                           float* out, float* scratch);
    void probe_many_column_sums(Stream stream, int64_t rows, int channels, const float* x, float* out, float* scratch);
    /// out[s][k] of x [segments, n].
    void probe_segment_sums(Stream stream, DType t, int64_t segments, int64_t n, const void* x, float* out,
                            float* scratch);
    /// The scratch memory that the two of them say they need, in floats.
    int64_t probe_column_scratch(int k, int channels, int64_t groups);
    int64_t probe_segment_scratch(int k, int64_t segments);)
