// What a library does for matrix products.
#pragma once
#include "engine/tensor.h"

namespace kiln {

/// c [m, n] = op(a) op(b), row-major, op = transpose where the flag says: a is [m, k] or [k, m], b is [k, n] or [n, k]. a and b
/// in one floating type, f32, bf16 or f16; c in that type or in f32. Products are added up in f32, by the library of the
/// tensors' device.
void matrix_product(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, const Tensor& a, const Tensor& b,
                    const Tensor& c);

}  // namespace kiln
