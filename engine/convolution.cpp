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

void note(ConvDirection d, const ConvShape& s, const Tensor& activations) {
  const DType t = activations.dtype();
  if (context().conv_calls) context().conv_calls->push_back({d, s, t});
  const int64_t x = s.n * s.d * s.h * s.w * s.c, y = s.n * s.od * s.oh * s.ow * s.oc, w = s.oc * s.kd * s.kh * s.kw * s.c;
  Moved m{"conv_forward", 1, size_of(t), {x + y + w, 0}, {x + y + w, 0}, s.flops()};
  if (d == ConvDirection::data) m.name = "conv_backward_data";
  if (d == ConvDirection::weights) {
    m.name = "conv_backward_weights";
    m.least = m.passes = {x + y, 4 * w};
    if (t != DType::f32) m.launches = 2, m.passes.elements += 2 * w;  // a GPU's library gives 16 bits, which are widened
  }
  count_call(m);
}

/// A GPU's call in a plan that is made on the CPU: besides the results it needs what the library gives in 16 bits, and
/// is widened.
bool planned_for_gpu(const Tensor* dw, DType t) {
  if (!context().planning || context().cpu_products || context().device != Device::cpu) return false;
  if (dw && dw->dtype() != t) Tensor(dw->shape(), t);
  return true;
}

/// What a library's own steps launch besides is not counted again.
using Uncounted = Scoped<std::vector<Moved>*>;

}  // namespace

const char* name_of(ConvDirection d) {
  return d == ConvDirection::forward ? "forward" : d == ConvDirection::data ? "input gradient" : "weight gradient";
}

std::string ConvShape::text() const {
  const auto third = [this](int64_t size) { return is_3d() ? std::to_string(size) + "x" : std::string(); };
  return fmt::format("{}x{}{}x{}x{} -> {} channels, kernel {}{}x{}, stride {}", n, third(d), h, w, c, oc, third(kd), kh, kw, stride);
}

bool cpu_has_bf16() { return onednn::has_bf16(); }

size_t convolution_plans() { return onednn::convolution_plans(); }

void conv_forward(const ConvShape& s, const Tensor& x, const Tensor& w, const Tensor& y) {
  note(ConvDirection::forward, s, x);
  if (planned_for_gpu(nullptr, x.dtype())) return;
  const Uncounted uncounted(&Context::counts, nullptr);
  x.device() == Device::gpu ? cudnn::conv_forward(s, x, w, y) : onednn::conv_forward(s, x, w, y);
}

void conv_backward_data(const ConvShape& s, const Tensor& dy, const Tensor& w, const Tensor& dx) {
  note(ConvDirection::data, s, dy);
  if (planned_for_gpu(nullptr, dy.dtype())) return;
  const Uncounted uncounted(&Context::counts, nullptr);
  dy.device() == Device::gpu ? cudnn::conv_backward_data(s, dy, w, dx) : onednn::conv_backward_data(s, dy, w, dx);
}

void conv_backward_weights(const ConvShape& s, const Tensor& x, const Tensor& dy, const Tensor& dw) {
  note(ConvDirection::weights, s, x);
  if (planned_for_gpu(&dw, x.dtype())) return;
  const Uncounted uncounted(&Context::counts, nullptr);
  x.device() == Device::gpu ? cudnn::conv_backward_weights(s, x, dy, dw) : onednn::conv_backward_weights(s, x, dy, dw);
}

void matrix_product(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const Tensor& a, const Tensor& b, const Tensor& c) {
  KILN_ASSERT(a.count() == m * k && b.count() == k * n && c.count() == m * n);
  KILN_ASSERT(b.dtype() == a.dtype() && (c.dtype() == a.dtype() || c.dtype() == DType::f32));
  const bool same = c.dtype() == a.dtype();
  const Bytes all{m * k + k * n + (same ? m * n : 0), same ? 0 : 4 * m * n};
  count_call({"matrix_product", 1, size_of(a.dtype()), all, all, 2.0 * double(m) * double(n) * double(k)});
  if (planned_for_gpu(nullptr, a.dtype())) return;
  const Uncounted uncounted(&Context::counts, nullptr);
  a.device() == Device::gpu ? cublas::matrix_product(ta, tb, m, n, k, a, b, c) : onednn::matrix_product(ta, tb, m, n, k, a, b, c);
}

}  // namespace kiln
