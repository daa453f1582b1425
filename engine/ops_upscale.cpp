#include "engine/ops_upscale.h"

#include "engine/convolution.h"
#include "engine/error.h"
#include "engine/layer_table.h"
#include "engine/ops_feature.h"
#include "engine/ranks.h"
#include "kernels/bias.h"
#include "kernels/embedding.h"
#include "kernels/feature.h"
#include "kernels/loss.h"
#include "kernels/pointwise.h"
#include "kernels/resize.h"

namespace kiln {

Var stored_parameter(Param& p) {
  const bool record = context().tape && !context().weights_frozen && p.grad;
  Var v(converted(p.value, context().storage), record);
  note_derived(v.value, p.value);
  if (record)
    context().tape->push([grad = p.grad, node = v.node] {
      const Tensor g = node->take();
      if (g) KILN_RUN(Work::pointwise, accumulate(stream, DType::f32, g.count(), 1.f, g.data(), grad.f32()));
    });
  return v;
}

Var cast_to(const Var& x, DType t) {
  const DType from = x.value.dtype();
  if (from == t) return x;
  const bool record = recording({&x});
  Var y(converted(x.value, t), record);
  if (record)
    context().tape->push([from, xn = x.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (dy) xn->add(converted(dy, from));
    });
  return y;
}

Var bias_slope(Var x, Param& bias, float slope) {
  const int c = int(x.value.channels());
  const int64_t rows = x.value.rows();
  KILN_ASSERT(bias.shape.count() == c && slope >= 0);
  const bool frozen = context().weights_frozen, record = context().tape && (x.node || !frozen);
  const DType t = x.value.dtype();
  Var y(x.value.unique() ? x.value : Tensor(x.shape(), t), record);
  KILN_RUN(Work::pointwise, affine_activation(stream, t, rows, c, x.value.data(), nullptr, bias.value.f32(), slope, y.value.data()));
  if (record)
    context().tape->push([=, yv = slope == 1.f ? Tensor() : y.value, xn = x.node, yn = y.node, db = frozen ? Tensor() : bias.grad] {
      Tensor dy = yn->take();
      if (!dy) return;
      if (yv) {
        const Tensor dx = dy.unique() ? dy : Tensor(dy.shape(), t);
        KILN_RUN(Work::pointwise, affine_activation_backward(stream, t, rows, c, yv.data(), nullptr, slope, dy.data(), dx.data()));
        dy = dx;
      }
      if (db) {
        const Tensor scratch(Shape{bias_scratch_floats(c)});
        KILN_RUN(Work::reduction, bias_backward(stream, t, rows, c, nullptr, dy.data(), Activation::none, nullptr, db.f32(), scratch.f32()));
      }
      if (xn) xn->add(dy);
    });
  return y;
}

Var upsample_bilinear2x(const Var& x) {
  const Shape xs = x.shape();
  KILN_ASSERT(xs.rank() == 4 && xs[1] * 2 <= kLargestSide && xs[2] * 2 <= kLargestSide);
  const ResizeShape s{xs[0], int(xs[1]), int(xs[2]), int(2 * xs[1]), int(2 * xs[2]), int(xs[3])};
  const bool record = recording({&x});
  const DType t = x.value.dtype();
  Var y(Tensor(Shape{xs[0], 2 * xs[1], 2 * xs[2], xs[3]}, t), record);
  KILN_RUN(Work::pointwise, corner_bilinear_forward(stream, t, s, x.value.data(), y.value.data()));
  if (record)
    context().tape->push([=, xn = x.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      const Tensor dx(xs, t);
      KILN_RUN(Work::pointwise, corner_bilinear_backward(stream, t, s, dy.data(), dx.data()));
      xn->add(dx);
    });
  return y;
}

namespace {

/// Channels [first, first + count) as a tensor of their own.
Tensor channels_of(const Tensor& x, int64_t first, int64_t count) {
  const Tensor y(x.shape().with(-1, count), x.dtype());
  KILN_RUN(Work::pointwise, take_columns(stream, x.dtype(), x.rows(), int(x.channels()), int(first), int(count), x.data(), y.data()));
  return y;
}

void put_channels(const Tensor& x, const Tensor& y, int64_t first) {
  KILN_RUN(Work::pointwise, copy_channels(stream, x.dtype(), x.rows(), int(x.channels()), int(y.channels()), int(first), x.data(), y.data()));
}

}  // namespace

Var grouped_conv2d(const Var& x, const Var& weight, int groups, int stride, int pad) {
  const Shape xs = x.shape(), ws = weight.shape();
  const int64_t c = ws[3], oc = ws[0] / groups;
  KILN_ASSERT(xs.rank() == 4 && xs[3] == c * groups && ws[0] == oc * groups);
  const ConvShape s{xs[0], xs[1], xs[2], c, (xs[1] + 2 * pad - ws[1]) / stride + 1, (xs[2] + 2 * pad - ws[2]) / stride + 1, oc,
                    int(ws[1]), int(ws[2]), stride, pad};
  const DType t = x.value.dtype();
  const Shape group_shape{s.n, s.oh, s.ow, oc}, part{oc, ws[1], ws[2], c};
  const auto of_group = [=](const Tensor& w, int g) { return w.slice(g * part.count(), part); };
  const bool record = recording({&x, &weight});
  Var y(Tensor(group_shape.with(-1, ws[0]), t), record);
  note_layer(weight.value, y.shape());
  for (int g = 0; g < groups; g++) {
    const Tensor own(group_shape, t);
    conv_forward(s, channels_of(x.value, g * c, c), of_group(weight.value, g), own);
    put_channels(own, y.value, g * oc);
  }
  if (record)
    context().tape->push([=, xv = weight.node ? x.value : Tensor(), wv = x.node ? weight.value : Tensor(), xn = x.node, wn = weight.node,
                          yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      const Tensor dw = wn ? wn->target(ws, DType::f32) : Tensor(), dx = xn ? Tensor(xs, t) : Tensor();
      for (int g = 0; g < groups; g++) {
        const Tensor own = channels_of(dy, g * oc, oc);
        if (wn) conv_backward_weights(s, channels_of(xv, g * c, c), own, of_group(dw, g));
        if (!xn) continue;
        const Tensor input(xs.with(-1, c), t);
        conv_backward_data(s, own, of_group(wv, g), input);
        put_channels(input, dx, g * c);
      }
      if (wn) wn->add(dw);
      if (xn) xn->add(dx);
    });
  return y;
}

Var mean_logit(const Var& logits) {
  const int64_t n = logits.value.count();
  const DType t = logits.value.dtype();
  Ranks* const ranks = context().ranks;
  const float share = 1.f / float(ranks ? ranks->size() : 1);
  const bool record = recording({&logits});
  Var mean(Tensor(Shape{1}), record);
  KILN_RUN(Work::reduction, mean_value(stream, t, n, share, logits.value.data(), mean.value.f32()));
  if (ranks) ranks->sum(mean.value);
  if (record)
    context().tape->push([=, shape = logits.shape(), xn = logits.node, mn = mean.node] {
      Tensor seed = mn->take();
      if (ranks) {  // every rank's loss may depend on it
        if (!seed) seed = zeros(Shape{1});
        ranks->sum(seed);
      }
      if (!seed) return;
      const Tensor dx(shape, t);
      KILN_RUN(Work::pointwise, broadcast(stream, t, n, share / float(n), seed.f32(), dx.data()));
      xn->add(dx);
    });
  return mean;
}

Var relativistic_loss(const Var& logits, const Var& mean, float sign) {
  const int64_t n = logits.value.count();
  const DType t = logits.value.dtype();
  KILN_ASSERT(mean.value.count() == 1 && mean.value.dtype() == DType::f32);
  const bool record = recording({&logits, &mean});
  Var loss(Tensor(Shape{1}), record);
  const Tensor gradient(Shape{n}), d_mean(Shape{1});
  KILN_RUN(Work::reduction, relativistic_loss(stream, t, n, sign, logits.value.data(), mean.value.f32(), loss.value.f32(), gradient.f32(),
                                              d_mean.f32()));
  if (record)
    context().tape->push([=, shape = logits.shape(), xn = logits.node, mn = mean.node, yn = loss.node] {
      const Tensor seed = yn->take();
      if (!seed) return;
      if (xn) {
        const Tensor dx(shape, t);
        KILN_RUN(Work::pointwise, scale_by(stream, t, n, seed.f32(), gradient.f32(), dx.data()));
        xn->add(dx);
      }
      if (mn) {
        const Tensor dm(Shape{1});
        KILN_RUN(Work::pointwise, scale_by(stream, DType::f32, 1, seed.f32(), d_mean.f32(), dm.data()));
        mn->add(dm);
      }
    });
  return loss;
}

}  // namespace kiln
