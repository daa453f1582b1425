#include "engine/inference.h"

#include "engine/context.h"
#include "engine/convolution.h"
#include "engine/error.h"
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

Tensor biased_glu(const Tensor& x, const Tensor& bias, const Tensor& noise, const Tensor& strength) {
  const int64_t rows = x.rows();
  const int h = int(x.channels() / 2);
  KILN_ASSERT(bias.count() == 2 * h && bool(noise) == bool(strength));
  KILN_ASSERT(!noise || (noise.count() == rows && strength.count() == 2 * h));
  const Tensor y(x.shape().with(-1, h), x.dtype());
  const float* n = noise ? noise.f32() : nullptr;
  const float* k = noise ? strength.f32() : nullptr;
  KILN_RUN(Work::pointwise, biased_glu(stream, x.dtype(), rows, h, x.data(), bias.f32(), n, k, y.data()));
  return y;
}

Tensor folded_upsampling(const Tensor& weight) {
  const Shape& s = weight.shape();
  KILN_ASSERT(s.rank() == 4 && s[1] == 3 && s[2] == 3);
  const Tensor folded(Shape{s[0], 4, 4, s[3]});
  KILN_RUN(Work::pointwise, upsample_fold(stream, DType::f32, int(s[0]), int(s[3]), weight.data(), folded.data()));
  return folded;
}

}  // namespace kiln
