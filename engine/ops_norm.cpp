#include "engine/error.h"
#include "engine/layer_table.h"
#include "engine/ops.h"
#include "engine/ranks.h"
#include "kernels/norm.h"
#include "kernels/pointwise.h"

namespace kiln {

BatchNorm::BatchNorm(int64_t channels, float init_std) {
  weight.shape = bias.shape = running_mean.shape = running_var.shape = Shape{channels};
  weight.init = {1, init_std, false};
  running_var.init = {1, 0, false};
}

namespace {

/// One normalisation with whatever is fused around it.
Var normalise(const Var& x, BatchNorm& norm, NormFusion fusion, NoiseInjection* injection, const Tensor* noise) {
  const int c = int(x.value.channels());
  const int64_t rows = x.value.rows();
  KILN_ASSERT(norm.weight.shape[0] == c && (!fusion.glu || c % 2 == 0));
  if (noise) {
    KILN_ASSERT(injection && noise->count() == rows);
    fusion.noise = noise->f32();
    fusion.noise_weight = injection->weight.value.f32();
  }
  const bool training = context().training, frozen = context().weights_frozen;
  // Own record if the input, or one of the layer's own parameters, wants a gradient.
  const bool record = context().tape && (x.node || !frozen);
  const DType t = x.value.dtype();
  Var y(Tensor(fusion.glu ? x.shape().with(-1, c / 2) : x.shape(), t), record);
  if (noise) note_layer(injection->weight.value, x.shape());
  note_layer(norm.weight.value, y.shape());
  const Tensor channels(Shape{4, c});  // mean, inv_std, a, b
  float* k = channels.f32();
  const NormChannels ch{norm.weight.value.f32(), norm.bias.value.f32(), norm.running_mean.value.f32(),
                        norm.running_var.value.f32(), k, k + c, k + 2 * c, k + 3 * c};
  Ranks* const ranks = training && context().sync_norm ? context().ranks : nullptr;
  {
    const Tensor scratch(Shape{norm_scratch_floats(c)});
    if (ranks) {
      const Tensor moments(Shape{4 * c});  // 2 c numbers in f64
      KILN_RUN(Work::reduction, norm_moments(stream, t, rows, c, x.value.data(), fusion, moments.as<double>(), scratch.f32()));
      ranks->sum_doubles(moments.data(), 2 * c);
      KILN_RUN(Work::reduction, norm_finish(stream, rows, ranks->size(), c, moments.as<double>(), ch, BatchNorm::eps, context().norm_momentum));
    } else {
      KILN_RUN(Work::reduction, norm_prepare(stream, t, rows, c, x.value.data(), fusion, ch, BatchNorm::eps, context().norm_momentum,
                                             training, scratch.f32()));
    }
  }
  KILN_RUN(Work::pointwise, norm_forward(stream, t, rows, c, x.value.data(), fusion, ch, y.value.data()));
  if (record)
    context().tape->push([=, xv = x.value, xn = x.node, yn = y.node, noise_kept = noise ? *noise : Tensor(), channels_kept = channels,
                          dgamma = frozen ? Tensor() : norm.weight.grad, dbeta = frozen ? Tensor() : norm.bias.grad,
                          dw = frozen || !noise ? Tensor() : injection->weight.grad] {
      const Tensor dy = yn->take();
      if (!dy) return;
      const Tensor dx(xv.shape(), t), scratch(Shape{norm_scratch_floats(c)});
      float* const to_gamma = dgamma ? dgamma.f32() : nullptr;
      float* const to_beta = dbeta ? dbeta.f32() : nullptr;
      float* const to_weight = dw ? dw.f32() : nullptr;
      if (ranks) {
        KILN_RUN(Work::reduction, norm_backward_sums(stream, t, rows, c, xv.data(), dy.data(), fusion, ch, to_gamma, to_beta, scratch.f32()));
        ranks->sum(scratch.slice(0, Shape{norm_shared_floats(c)}));
        KILN_RUN(Work::pointwise, norm_backward_input(stream, t, rows, rows * ranks->size(), c, xv.data(), dy.data(), fusion, ch, dx.data(),
                                                      to_weight, scratch.f32()));
      } else {
        KILN_RUN(Work::reduction, norm_backward(stream, t, rows, c, xv.data(), dy.data(), fusion, ch, training, dx.data(), to_gamma, to_beta,
                                                to_weight, scratch.f32()));
      }
      if (xn) xn->add(dx);
    });
  return y;
}

}  // namespace

Var batch_norm(const Var& x, BatchNorm& norm) { return normalise(x, norm, {}, nullptr, nullptr); }

Var norm_act(const Var& x, BatchNorm& norm, Activation act) {
  KILN_ASSERT(act == Activation::none || act == Activation::relu || act == Activation::leaky_relu);
  NormFusion f;
  f.act = act;
  return normalise(x, norm, f, nullptr, nullptr);
}

Var norm_glu(const Var& x, BatchNorm& norm, NoiseInjection* injection, const Tensor* noise) {
  NormFusion f;
  f.glu = true;
  return normalise(x, norm, f, injection, noise);
}

Var inject_noise(const Var& x, NoiseInjection& injection, const Tensor& noise) {
  const int c = int(x.value.channels());
  const int64_t rows = x.value.rows();
  KILN_ASSERT(noise.count() == rows);
  const bool frozen = context().weights_frozen, record = context().tape && (x.node || !frozen);
  const DType t = x.value.dtype();
  Var y(Tensor(x.shape(), t), record);
  note_layer(injection.weight.value, y.shape());
  KILN_RUN(Work::pointwise, noise_forward(stream, t, rows, c, x.value.data(), noise.f32(), injection.weight.value.f32(), y.value.data()));
  if (record)
    context().tape->push([=, xn = x.node, yn = y.node, dw = frozen ? Tensor() : injection.weight.grad] {
      const Tensor dy = yn->take();
      if (!dy) return;
      if (dw) {
        const Tensor scratch(Shape{int64_t(c) * 65});
        KILN_RUN(Work::reduction, noise_backward_weight(stream, t, rows, c, dy.data(), noise.f32(), dw.f32(), scratch.f32()));
      }
      if (xn) xn->add(dy);
    });
  return y;
}

}  // namespace kiln
