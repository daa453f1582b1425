// Convolutions and matrix products: each goes to the library of its tensors' device.
#include "engine/convolution.h"

#include "engine/backend/cublas.h"
#include "engine/backend/cudnn.h"
#include "engine/backend/onednn.h"
#include "engine/context.h"
#include "engine/error.h"
#include "engine/matrix.h"

namespace kiln {
namespace {

void note(ConvDirection d, const ConvShape& s, const Tensor& x) {
  if (context().conv_calls) context().conv_calls->push_back({d, s, x.dtype()});
}

}  // namespace

const char* name_of(ConvDirection d) {
  return d == ConvDirection::forward ? "forward" : d == ConvDirection::data ? "input gradient" : "weight gradient";
}

bool cpu_has_bf16() { return onednn::has_bf16(); }

void conv_forward(const ConvShape& s, const Tensor& x, const Tensor& w, const Tensor& y) {
  note(ConvDirection::forward, s, x);
  x.device() == Device::gpu ? cudnn::conv_forward(s, x, w, y) : onednn::conv_forward(s, x, w, y);
}

void conv_backward_data(const ConvShape& s, const Tensor& dy, const Tensor& w, const Tensor& dx) {
  note(ConvDirection::data, s, dy);
  dy.device() == Device::gpu ? cudnn::conv_backward_data(s, dy, w, dx) : onednn::conv_backward_data(s, dy, w, dx);
}

void conv_backward_weights(const ConvShape& s, const Tensor& x, const Tensor& dy, const Tensor& dw) {
  note(ConvDirection::weights, s, x);
  x.device() == Device::gpu ? cudnn::conv_backward_weights(s, x, dy, dw) : onednn::conv_backward_weights(s, x, dy, dw);
}

void matrix_product(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const Tensor& a, const Tensor& b, const Tensor& c) {
  KILN_ASSERT(a.count() == m * k && b.count() == k * n && c.count() == m * n);
  KILN_ASSERT(b.dtype() == a.dtype() && (c.dtype() == a.dtype() || c.dtype() == DType::f32));
  a.device() == Device::gpu ? cublas::matrix_product(ta, tb, m, n, k, a, b, c) : onednn::matrix_product(ta, tb, m, n, k, a, b, c);
}

}  // namespace kiln
