// engine/matrix.h's function for tensors on a GPU, by cuBLASLt.
#pragma once
#include "engine/tensor.h"

namespace kiln::cublas {

/// a and b of one type, f32, f16 or bf16, c of that type or f32; sums in f32, and f32 products exact unless TF32 is allowed.
void matrix_product(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, const Tensor& a, const Tensor& b,
                    const Tensor& c);

}  // namespace kiln::cublas
