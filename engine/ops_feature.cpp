#include "engine/ops_feature.h"

#include "engine/error.h"
#include "kernels/feature.h"
#include "kernels/loss.h"
#include "kernels/perceptual.h"
#include "kernels/pointwise.h"

namespace kiln {

Var affine_activation(Var x, const Tensor& scale, const Tensor& bias, float slope) {
  const Shape xs = x.shape();
  const int c = int(xs[-1]);
  KILN_ASSERT(bias.count() == c && (!scale || scale.count() == c));
  const bool record = recording({&x});
  const DType t = x.value.dtype();
  const int64_t rows = x.value.rows();
  const float* a = scale ? scale.f32() : nullptr;
  Var y(!record && x.value.unique() ? x.value : Tensor(xs, t), record);
  KILN_RUN(Work::pointwise, affine_activation(stream, t, rows, c, x.value.data(), a, bias.f32(), slope, y.value.data()));
  if (record)
    context().tape->push([=, saved = slope == 1.f ? Tensor() : y.value, xn = x.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      const Tensor dx(xs, t);
      KILN_RUN(Work::pointwise, affine_activation_backward(stream, t, rows, c, saved ? saved.data() : nullptr, scale ? scale.f32() : nullptr,
                                                           slope, dy.data(), dx.data()));
      xn->add(dx);
    });
  return y;
}

Var max_pool(const Var& x, int k, int stride, int pad, bool ceil) {
  const Shape xs = x.shape();
  KILN_ASSERT(xs.rank() == 4 && pad < k);
  const auto out = [&](int64_t in) {
    int64_t o = (in + 2 * pad - k + (ceil ? stride - 1 : 0)) / stride + 1;
    if (ceil && (o - 1) * stride >= in + pad) o--;  // it must begin inside
    return int(o);
  };
  const PoolShape s{xs[0], int(xs[1]), int(xs[2]), out(xs[1]), out(xs[2]), int(xs[3]), k, stride, pad};
  const bool record = recording({&x});
  const DType t = x.value.dtype();
  Var y(Tensor(Shape{s.n, s.out_h, s.out_w, s.c}, t), record);
  KILN_RUN(Work::pointwise, max_pool_forward(stream, t, s, x.value.data(), y.value.data()));
  if (record)
    context().tape->push([=, xv = x.value, xn = x.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      const Tensor dx(xs, t);
      KILN_RUN(Work::pointwise, max_pool_backward(stream, t, s, xv.data(), dy.data(), dx.data()));
      xn->add(dx);
    });
  return y;
}

Var average_pool_same(const Var& x, int k) {
  const Shape xs = x.shape();
  KILN_ASSERT(!recording({&x}) && k % 2 == 1);
  const int h = int(xs[1]), w = int(xs[2]);
  Var y(Tensor(xs, x.value.dtype()));
  KILN_RUN(Work::pointwise, average_pool(stream, x.value.dtype(), PoolShape{xs[0], h, w, h, w, int(xs[3]), k, 1, k / 2}, x.value.data(), y.value.data()));
  return y;
}

Var pad_picture(const Var& x, int top, int bottom, int left, int right) {
  const Shape xs = x.shape();
  KILN_ASSERT(!recording({&x}));
  const PlaceShape s{xs[0], int(xs[1]), int(xs[2]), int(xs[1]) + top + bottom, int(xs[2]) + left + right, int(xs[3]), top, left};
  Var y(Tensor(Shape{s.n, s.out_h, s.out_w, s.c}, x.value.dtype()));
  KILN_RUN(Work::pointwise, place(stream, x.value.dtype(), s, x.value.data(), y.value.data()));
  return y;
}

Var concat_channels(const std::vector<Var>& parts) {
  int64_t channels = 0;
  for (const Var& p : parts) {
    KILN_ASSERT(!recording({&p}) && p.value.rows() == parts[0].value.rows());
    channels += p.value.channels();
  }
  const DType t = parts[0].value.dtype();
  Var y(Tensor(parts[0].shape().with(-1, channels), t));
  int first = 0;
  for (const Var& p : parts) {
    KILN_RUN(Work::pointwise, copy_channels(stream, t, p.value.rows(), int(p.value.channels()), int(channels), first, p.value.data(), y.value.data()));
    first += int(p.value.channels());
  }
  return y;
}

Var bilinear_resize(const Var& x, int64_t h, int64_t w) {
  const Shape xs = x.shape();
  KILN_ASSERT(!recording({&x}));
  Var y(Tensor(Shape{xs[0], h, w, xs[3]}, x.value.dtype()));
  KILN_RUN(Work::pointwise, bilinear(stream, x.value.dtype(), PlaceShape{xs[0], int(xs[1]), int(xs[2]), int(h), int(w), int(xs[3]), 0, 0}, x.value.data(), y.value.data()));
  return y;
}

Var perceptual_distance(const Var& f, const Tensor& g, const Tensor& head) {
  const Shape fs = f.shape();
  KILN_ASSERT(fs.rank() == 4 && g.shape() == fs && head.count() == fs[3] && g.dtype() == f.value.dtype());
  const int64_t n = fs[0], pixels = fs[1] * fs[2];
  const bool record = recording({&f});
  const DType t = f.value.dtype();
  Var value(Tensor(Shape{n}), record);
  const Tensor scratch(Shape{perceptual_scratch_floats(n, pixels)});
  KILN_RUN(Work::reduction, perceptual_forward(stream, t, n, pixels, int(fs[3]), f.value.data(), g.data(), head.f32(), value.value.f32(), scratch.f32()));
  if (record)
    context().tape->push([=, fv = f.value, fn = f.node, vn = value.node] {
      const Tensor seed = vn->take();
      if (!seed) return;
      const Tensor df(fs, t);
      KILN_RUN(Work::pointwise, perceptual_backward(stream, t, n, pixels, int(fs[3]), fv.data(), g.data(), head.f32(), seed.f32(), df.data()));
      fn->add(df);
    });
  return value;
}

Tensor converted(const Tensor& x, DType t) {
  if (x.dtype() == t) return x;
  const Tensor y(x.shape(), t);
  KILN_RUN(Work::pointwise, cast(stream, x.dtype(), t, x.count(), x.data(), y.data()));
  return y;
}

Var sum_all(const Var& x) {
  const Shape xs = x.shape();
  const int64_t n = xs.count();
  KILN_ASSERT(x.value.dtype() == DType::f32);
  const bool record = recording({&x});
  Var y(Tensor(Shape{1}), record);
  KILN_RUN(Work::reduction, mean_value(stream, DType::f32, n, float(n), x.value.data(), y.value.f32()));
  if (record)
    context().tape->push([=, xn = x.node, yn = y.node] {
      const Tensor seed = yn->take();
      if (!seed) return;
      const Tensor dx(xs);
      KILN_RUN(Work::pointwise, broadcast(stream, DType::f32, n, 1.f, seed.f32(), dx.data()));
      xn->add(dx);
    });
  return y;
}

}  // namespace kiln
