#include "engine/ops_conditional.h"

#include "engine/convolution.h"
#include "engine/error.h"
#include "engine/layer_table.h"
#include "engine/ranks.h"
#include "engine/upsample_conv.h"
#include "kernels/bias.h"
#include "kernels/cond_norm.h"
#include "kernels/fold.h"
#include "kernels/norm.h"
#include "kernels/pointwise.h"
#include "kernels/resize.h"

namespace kiln {

ConditionalNorm::ConditionalNorm(int64_t channels, float epsilon) : eps(epsilon) {
  running_mean.shape = running_var.shape = Shape{channels};
  running_var.init = {1, 0};
}

Var conditional_norm(const Var& x, ConditionalNorm& norm, const Var& gain, const Var& bias, Activation act, Param* input_bias) {
  const int c = int(x.value.channels());
  const CondNormShape s{x.shape()[0], x.value.rows() / x.shape()[0], c};
  KILN_ASSERT(norm.running_mean.shape[0] == c && gain.value.count() == s.n * c && bias.value.count() == s.n * c);
  KILN_ASSERT(act == Activation::none || act == Activation::relu);
  const bool training = context().training, record = recording({&x, &gain, &bias});
  KILN_ASSERT(!record || training || !input_bias || context().weights_frozen);
  const DType t = x.value.dtype();
  const Tensor channels(Shape{2, c}), scale(Shape{s.n, c}), shift(Shape{s.n, c});
  float *mean = channels.f32(), *inv_std = mean + c;
  const NormChannels ch{nullptr, nullptr, norm.running_mean.value.f32(), norm.running_var.value.f32(), mean, inv_std, nullptr, nullptr};
  const float momentum = context().norm_momentum;
  Ranks* const ranks = training && context().sync_norm ? context().ranks : nullptr;
  {
    const Tensor scratch(Shape{norm_scratch_floats(c)});
    const int64_t rows = s.n * s.pixels;
    if (ranks) {
      const Tensor moments(Shape{4 * c});  // 2 c numbers in f64
      KILN_RUN(Work::reduction, norm_moments(stream, t, rows, c, x.value.data(), NormFusion{}, moments.as<double>(), scratch.f32()));
      ranks->sum_doubles(moments.data(), 2 * c);
      KILN_RUN(Work::reduction, norm_finish(stream, rows, ranks->size(), c, moments.as<double>(), ch, norm.eps, momentum));
    } else {
      KILN_RUN(Work::reduction, norm_prepare(stream, t, rows, c, x.value.data(), NormFusion{}, ch, norm.eps, momentum, training, scratch.f32()));
    }
  }
  // x is without its bias here: so is the mean that it is compared with, and the running mean is the one with it.
  if (input_bias && training)
    KILN_RUN(Work::pointwise, accumulate(stream, DType::f32, c, momentum, input_bias->value.data(), norm.running_mean.value.f32()));
  if (input_bias && !training)
    KILN_RUN(Work::pointwise, accumulate(stream, DType::f32, c, -1.f, input_bias->value.data(), mean));
  KILN_RUN(Work::pointwise, cond_norm_scale(stream, s.n, c, gain.value.f32(), bias.value.f32(), mean, inv_std, scale.f32(), shift.f32()));
  Var y(Tensor(x.shape(), t), record);
  KILN_RUN(Work::pointwise, cond_norm_forward(stream, t, s, x.value.data(), scale.f32(), shift.f32(), act, y.value.data()));
  if (record)
    context().tape->push([=, xv = x.value, gv = gain.value, channels = channels, xn = x.node, gn = gain.node, bn = bias.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      const Tensor dx(xv.shape(), t), dgain(gv.shape()), dbias(gv.shape()), scratch(Shape{cond_norm_scratch_floats(s)});
      const float *mean = channels.f32(), *inv_std = mean + c;
      if (ranks) {
        KILN_RUN(Work::reduction, cond_norm_backward_sums(stream, t, s, s.n * s.pixels * ranks->size(), xv.data(), dy.data(), gv.f32(), mean,
                                                          inv_std, scale.f32(), shift.f32(), act, dgain.f32(), dbias.f32(), scratch.f32()));
        ranks->sum(scratch.slice(cond_norm_means(s), Shape{2 * c}));
        KILN_RUN(Work::pointwise, cond_norm_backward_input(stream, t, s, xv.data(), dy.data(), mean, inv_std, scale.f32(), shift.f32(), act,
                                                           dx.data(), scratch.f32()));
      } else {
        KILN_RUN(Work::reduction, cond_norm_backward(stream, t, s, xv.data(), dy.data(), gv.f32(), mean, inv_std, scale.f32(), shift.f32(), act,
                                                     training, dx.data(), dgain.f32(), dbias.f32(), scratch.f32()));
      }
      if (xn) xn->add(dx);
      if (gn) gn->add(dgain);
      if (bn) bn->add(dbias);
    });
  return y;
}

Var bias_act(Var x, Param& bias, Activation act) {
  const int c = int(x.value.channels());
  const int64_t rows = x.value.rows();
  KILN_ASSERT(bias.shape.count() == c && (act == Activation::none || act == Activation::relu));
  const bool frozen = context().weights_frozen, record = context().tape && (x.node || !frozen);
  const DType t = x.value.dtype();
  Var y(x.value.unique() ? x.value : Tensor(x.shape(), t), record);
  KILN_RUN(Work::pointwise, bias_forward(stream, t, rows, c, x.value.data(), bias.value.f32(), act, y.value.data()));
  if (record)
    context().tape->push([=, yv = act == Activation::relu ? y.value : Tensor(), xn = x.node, yn = y.node,
                          db = frozen ? Tensor() : bias.grad] {
      const Tensor dy = yn->take();
      if (!dy) return;
      // Without an activation the gradient passes as it is.
      const Tensor dx = xn && act == Activation::relu ? Tensor(dy.shape(), t) : Tensor(), scratch(Shape{bias_scratch_floats(c)});
      KILN_RUN(Work::reduction, bias_backward(stream, t, rows, c, yv.data(), dy.data(), act, dx ? dx.data() : nullptr,
                                              db ? db.f32() : nullptr, scratch.f32()));
      if (xn) xn->add(dx ? dx : dy);
    });
  return y;
}

Var residual_sum(Var x, const Var& skip, bool upsample, Param* bias1, Param* bias2) {
  const Shape xs = x.shape(), ss = skip.shape();
  const int c = int(xs[-1]), h = int(xs[-3]), w = int(xs[-2]);
  const int64_t pictures = xs.count() / (int64_t(h) * w * c);
  KILN_ASSERT(ss == (upsample ? xs.with(-3, h / 2).with(-2, w / 2) : xs) && (!upsample || (h % 2 == 0 && w % 2 == 0)));
  const bool frozen = context().weights_frozen, with_bias = bias1 || bias2;
  const bool record = context().tape && (x.node || skip.node || (with_bias && !frozen));
  const DType t = x.value.dtype();
  Var y(x.value.unique() ? x.value : Tensor(xs, t), record);
  KILN_RUN(Work::pointwise, residual_forward(stream, t, pictures, h, w, c, x.value.data(), skip.value.data(), upsample,
                                             bias1 ? bias1->value.f32() : nullptr, bias2 ? bias2->value.f32() : nullptr, y.value.data()));
  if (record)
    context().tape->push([=, xn = x.node, sn = skip.node, yn = y.node, d1 = bias1 && !frozen ? bias1->grad : Tensor(),
                          d2 = bias2 && !frozen ? bias2->grad : Tensor()] {
      const Tensor dy = yn->take();
      if (!dy) return;
      if (d1 || d2) {
        const Tensor scratch(Shape{bias_scratch_floats(c)}), sums = zeros(Shape{c});
        KILN_RUN(Work::reduction, bias_backward(stream, t, dy.rows(), c, nullptr, dy.data(), Activation::none, nullptr, sums.f32(), scratch.f32()));
        for (const Tensor& d : {d1, d2})
          if (d) KILN_RUN(Work::pointwise, accumulate(stream, DType::f32, c, 1.f, sums.data(), d.f32()));
      }
      if (sn && upsample) {
        const Tensor ds(ss, t);
        KILN_RUN(Work::pointwise, nearest_backward(stream, t, ResizeShape{pictures, h / 2, w / 2, h, w, c}, dy.data(), ds.data()));
        sn->add(ds);
      } else if (sn) {
        sn->add(dy);
      }
      if (xn) xn->add(dy);
    });
  return y;
}

namespace {

/// conv3x3_pool as the adjoint of an upsampling convolution with the adjoint weight: its forward is that one's backward.
Var pool_in_products(const Var& x, const Var& weight) {
  const Shape &xs = x.shape(), ws = weight.shape();
  const int oc = int(ws[0]), ic = int(ws[3]);
  const UpsampleShape s{xs[0], xs[1] / 2, xs[2] / 2, oc, ic};
  const bool record = recording({&x, &weight});
  const Tensor u(Shape{9, ic, oc});
  {
    const Tensor adjoint(Shape{ic, 3, 3, oc});
    KILN_RUN(Work::convolution, adjoint_weights(stream, oc, ic, 0.25f, weight.value.f32(), adjoint.f32()));
    KILN_RUN(Work::convolution, upsample_products(stream, ic, oc, adjoint.f32(), u.f32()));
  }
  Var y(Tensor(Shape{xs[0], s.h, s.w, oc}), record);
  note_layer(weight.value, y.shape());
  upsample_conv_backward(s, x.value, u, Tensor(), y.value, Tensor());
  if (record)
    context().tape->push([=, xv = weight.node ? x.value : Tensor(), u = x.node ? u : Tensor(), xn = x.node, wn = weight.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      if (wn) {
        const Tensor du(Shape{9, ic, oc}), adjoint(Shape{ic, 3, 3, oc}), dw = wn->target(ws, DType::f32);
        upsample_conv_backward(s, xv, Tensor(), dy, Tensor(), du);
        KILN_RUN(Work::convolution, upsample_products_backward(stream, ic, oc, du.f32(), adjoint.f32()));
        KILN_RUN(Work::convolution, adjoint_weights(stream, ic, oc, 0.25f, adjoint.f32(), dw.f32()));
        wn->add(dw);
      }
      if (xn) {
        const Tensor dx = xn->target(Shape{s.n, 2 * s.h, 2 * s.w, s.oc}, DType::f32);
        upsample_conv_forward(s, dy, u, dx);
        xn->add(dx);
      }
    });
  return y;
}

}  // namespace

Var conv3x3_pool(const Var& x, const Var& weight) {
  const Shape ws = weight.shape();
  KILN_ASSERT(ws[1] == 3 && ws[2] == 3 && ws[3] == x.shape()[3] && x.shape()[1] % 2 == 0 && x.shape()[2] % 2 == 0);
  if (context().device == Device::cpu && context().cpu_products && x.value.dtype() == DType::f32) return pool_in_products(x, weight);
  const bool record = recording({&weight});
  const DType t = weight.value.dtype();
  Var folded(Tensor(Shape{ws[0], 4, 4, ws[3]}, t), record);
  note_derived(folded.value, weight.value);
  KILN_RUN(Work::pointwise, pool_fold(stream, t, int(ws[0]), int(ws[3]), weight.value.data(), folded.value.data()));
  if (record)
    context().tape->push([ws, wn = weight.node, fn = folded.node] {
      const Tensor dk = fn->take();
      if (!dk) return;
      const Tensor dw = wn->target(ws, DType::f32);
      KILN_RUN(Work::pointwise, pool_fold_backward(stream, int(ws[0]), int(ws[3]), dk.f32(), dw.f32()));
      wn->add(dw);
    });
  return conv2d(x, folded, 2, 1);
}

}  // namespace kiln
