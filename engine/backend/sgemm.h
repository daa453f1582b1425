// One thread's matrix product, for convolutions that are made of many small ones.
#pragma once
#include <cstdint>
#include <dnnl.hpp>

#include "engine/error.h"

namespace kiln {

/// c [m, n] = op(a) op(b) + beta c, row-major f32 with the given row strides, on the calling thread alone: for use inside of a
/// parallel region. op is 'N' (as it is) or 'T' (transposed).
inline void thread_sgemm(char ta, char tb, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb,
                         float beta, float* c, int64_t ldc) {
  const dnnl::status status = dnnl::sgemm(ta, tb, m, n, k, 1.f, a, lda, b, ldb, beta, c, ldc);
  KILN_ASSERT(status == dnnl::status::success);
}

}  // namespace kiln
