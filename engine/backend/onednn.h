// engine/convolution.h's and engine/matrix.h's functions for tensors on the CPU, by oneDNN.
#pragma once
#include "engine/convolution.h"

namespace kiln::onednn {

void conv_forward(const ConvShape& s, const Tensor& x, const Tensor& w, const Tensor& y);
void conv_backward_data(const ConvShape& s, const Tensor& dy, const Tensor& w, const Tensor& dx);
void conv_backward_weights(const ConvShape& s, const Tensor& x, const Tensor& dy, const Tensor& dw);
void matrix_product(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, const Tensor& a, const Tensor& b,
                    const Tensor& c);
bool has_bf16();  // see cpu_has_bf16()
size_t convolution_plans();  // see kiln::convolution_plans()

}  // namespace kiln::onednn
