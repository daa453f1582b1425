#include "engine/error.h"
#include "engine/ops.h"
#include "kernels/loss.h"
#include "kernels/pointwise.h"

namespace kiln {

HingeLoss hinge_loss(const Var& logits, float sign, float margin_low, const Tensor* uniforms) {
  const int64_t n = logits.value.count();
  KILN_ASSERT(!uniforms || uniforms->count() == n);
  const bool record = recording({&logits});
  const DType t = logits.value.dtype();
  HingeLoss loss{Var(Tensor(Shape{1}), record), Tensor(Shape{1})};
  const Tensor gradient(Shape{n});
  KILN_RUN(Work::reduction, hinge_loss(stream, t, n, sign, margin_low, logits.value.data(), uniforms ? uniforms->f32() : nullptr,
                                       loss.value.value.f32(), loss.mean_logit.f32(), gradient.f32()));
  if (record)
    context().tape->push([=, shape = logits.shape(), xn = logits.node, yn = loss.value.node] {
      const Tensor seed = yn->take();
      if (!seed) return;
      const Tensor dx(shape, t);
      KILN_RUN(Work::pointwise, scale_by(stream, t, n, seed.f32(), gradient.f32(), dx.data()));
      xn->add(dx);
    });
  return loss;
}

Var generator_loss(const Var& logits) {
  const int64_t n = logits.value.count();
  const bool record = recording({&logits});
  const DType t = logits.value.dtype();
  Var loss(Tensor(Shape{1}), record);
  KILN_RUN(Work::reduction, mean_value(stream, t, n, -1.f, logits.value.data(), loss.value.f32()));
  if (record)
    context().tape->push([=, shape = logits.shape(), xn = logits.node, yn = loss.node] {
      const Tensor seed = yn->take();
      if (!seed) return;
      const Tensor dx(shape, t);
      KILN_RUN(Work::pointwise, broadcast(stream, t, n, -1.f / float(n), seed.f32(), dx.data()));
      xn->add(dx);
    });
  return loss;
}

Var difference_loss(const Var& x, const Tensor& target, int power) {
  KILN_ASSERT(x.shape() == target.shape() && (power == 1 || power == 2) && x.value.dtype() == target.dtype());
  const int64_t n = x.shape()[0], per = x.value.count() / n;
  const bool record = recording({&x});
  const DType t = x.value.dtype();
  Var loss(Tensor(Shape{1}), record);
  const Tensor scratch(Shape{64});
  KILN_RUN(Work::reduction, difference_loss(stream, t, n, per, power, x.value.data(), target.data(), loss.value.f32(), scratch.f32()));
  if (record)
    context().tape->push([=, xv = x.value, xn = x.node, yn = loss.node] {
      const Tensor seed = yn->take();
      if (!seed) return;
      const Tensor dx(xv.shape(), t);
      KILN_RUN(Work::pointwise, difference_backward(stream, t, n, per, power, xv.data(), target.data(), seed.f32(), dx.data()));
      xn->add(dx);
    });
  return loss;
}

void add_scaled(Tensor& sum, const Tensor& x, float factor) {
  if (!sum) sum = zeros(x.shape());
  KILN_RUN(Work::pointwise, accumulate(stream, DType::f32, x.count(), factor, x.data(), sum.f32()));
}

void copy(const Tensor& from, const Tensor& to) {
  KILN_ASSERT(from.shape() == to.shape());
  KILN_RUN(Work::pointwise, scale(stream, DType::f32, from.count(), 1.f, from.f32(), to.f32()));
}

Tensor copy_of(const Tensor& x) {
  const Tensor y(x.shape());
  copy(x, y);
  return y;
}

}  // namespace kiln
