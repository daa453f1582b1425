#include "engine/inference.h"

#include <algorithm>
#include <vector>

#include "engine/context.h"
#include "engine/convolution.h"
#include "engine/error.h"
#include "engine/upsample_conv.h"
#include "engine/winograd.h"
#include "kernels/fold.h"
#include "kernels/inference.h"

namespace kiln {

FixedConvolution::FixedConvolution(Tensor weight, int stride, int pad, bool transposed)
    : shape_(weight.shape()), stride_(stride), pad_(pad), transposed_(transposed) {
  KILN_ASSERT(shape_.rank() == 4);
  if (weight.device() == Device::cpu)
    plans_ = make_plans(weight);
  else
    weight_ = std::move(weight);
}

Tensor FixedConvolution::operator()(const Tensor& x) const {
  const Shape& s = x.shape();
  KILN_ASSERT(s.rank() == 4 && s[3] == shape_[3]);
  const int kh = int(shape_[1]), kw = int(shape_[2]);
  if (transposed_) {
    const Tensor y(Shape{s[0], (s[1] - 1) * stride_ - 2 * pad_ + kh, (s[2] - 1) * stride_ - 2 * pad_ + kw, shape_[0]});
    if (plans_) return run_on_cpu(x, y);
    const Shape& o = y.shape();
    conv_backward_data({s[0], o[1], o[2], o[3], s[1], s[2], s[3], kh, kw, stride_, pad_, true}, x, weight_, y);
    return y;
  }
  const Tensor y(Shape{s[0], (s[1] + 2 * pad_ - kh) / stride_ + 1, (s[2] + 2 * pad_ - kw) / stride_ + 1, shape_[0]});
  if (plans_) return run_on_cpu(x, y);
  const Shape& o = y.shape();
  conv_forward({s[0], s[1], s[2], s[3], o[1], o[2], o[3], kh, kw, stride_, pad_, false}, x, weight_, y);
  return y;
}

Tensor biased_glu(const Tensor& x, const GluTail& t) {
  const int64_t rows = x.rows();
  const int h = int(x.channels() / 2);
  KILN_ASSERT(t.bias.count() == 2 * h && bool(t.noise) == bool(t.strength));
  KILN_ASSERT(!t.noise || (t.noise.count() == rows && t.strength.count() == 2 * h));
  KILN_ASSERT(!t.gate || t.gate.count() == x.shape()[0] * h);
  const Tensor y(x.shape().with(-1, h), x.dtype());
  const auto floats = [](const Tensor& v) { return v ? v.f32() : nullptr; };
  KILN_RUN(Work::pointwise, biased_glu(stream, x.dtype(), rows, h, x.data(), t.bias.f32(), floats(t.noise), floats(t.strength),
                                       rows / x.shape()[0], floats(t.gate), y.data()));
  return y;
}

namespace {

/// The weight of the 4x4 transposed convolution of stride 2 and padding 1 that is nearest 2x upsampling and then this 3x3
/// convolution [oc, 3, 3, c] (upsample_conv3x3 in engine/ops.h).
Tensor folded_upsampling(const Tensor& weight) {
  const Shape& s = weight.shape();
  const Tensor folded(Shape{s[0], 4, 4, s[3]});
  KILN_RUN(Work::pointwise, upsample_fold(stream, DType::f32, int(s[0]), int(s[3]), weight.data(), folded.data()));
  return folded;
}

}  // namespace

FixedGlu::FixedGlu(const Tensor& weight, Tensor bias, Tensor strength, bool upsampling)
    : bias_(std::move(bias)), strength_(std::move(strength)), upsampling_(upsampling), shape_(weight.shape()) {
  KILN_ASSERT(shape_.rank() == 4 && shape_[1] == 3 && shape_[2] == 3 && shape_[0] % 2 == 0);
  const int oc = int(shape_[0]), c = int(shape_[3]);
  // Measured with FastGAN's layers of width 64, GLU included: 1.2 to 1.9 times as fast as the library from these widths on, slower
  // below. In training, where the weight is transformed in every step and nothing follows in the cache, the limits are others.
  if (weight.device() == Device::cpu) {
    if (upsampling && c >= 32) way_ = Way::nine_products;
    if (!upsampling && std::min(c, oc) >= 64) way_ = Way::winograd;
  }
  if (way_ == Way::nine_products) {
    products_ = Tensor(Shape{9, oc, c});
    KILN_RUN(Work::convolution, upsample_products(stream, oc, c, glu_order(weight).f32(), products_.f32()));
  } else if (way_ == Way::winograd) {
    products_ = Tensor(Shape{16, oc, c});
    KILN_RUN(Work::convolution, winograd_weights(stream, oc, c, glu_order(weight).f32(), products_.f32()));
  } else {
    library_ = upsampling ? FixedConvolution(folded_upsampling(weight), 2, 1, true) : FixedConvolution(weight, 1, 1);
  }
}

Tensor FixedGlu::operator()(const Tensor& x, const Tensor& noise, const Tensor& gate) const {
  const GluTail tail{bias_, strength_, noise, gate};
  if (way_ == Way::library) return biased_glu(library_(x), tail);
  const Shape& s = x.shape();
  KILN_ASSERT(s.rank() == 4 && s[3] == shape_[3]);
  const int64_t scale = upsampling_ ? 2 : 1;
  const Tensor y(Shape{s[0], scale * s[1], scale * s[2], shape_[0] / 2});
  if (upsampling_)
    upsample_conv_forward({s[0], s[1], s[2], s[3], shape_[0]}, x, products_, y, &tail);
  else
    winograd_forward({s[0], s[1], s[2], s[3], shape_[0]}, x, products_, y, &tail);
  return y;
}

int64_t glu_pack(int64_t c) { return std::min<int64_t>(16, c & -c); }

Tensor glu_order(const Tensor& weight) {
  const int64_t oc = weight.shape()[0], h = oc / 2, pack = glu_pack(h), row = weight.count() / oc;
  const std::vector<float> from = weight.to_vector();
  std::vector<float> to(from.size());
  for (int64_t c = 0; c < oc; c++) {
    const int64_t at = c < h ? c / pack * 2 * pack + c % pack : (c - h) / pack * 2 * pack + pack + (c - h) % pack;
    std::copy_n(from.begin() + c * row, row, to.begin() + at * row);
  }
  return from_vector(weight.shape(), to);
}

}  // namespace kiln
