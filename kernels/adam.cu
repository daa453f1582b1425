#include "kernels/adam.h"

#include "kernels/exec/primitives.h"

namespace kiln::KILN_EXEC {
namespace {

/// What depends on the step only, computed once, on the device: a captured graph replays it.
struct Prepare {
  AdamOptions o;
  EmaOptions e;
  const float* loss_scale;
  OptimiserState* s;
  KILN_HD void operator()(int64_t) const {
    s->unscale = !loss_scale ? 1.0f : s->check == 0.f ? 1.0f / *loss_scale : 0.f;
    if (s->unscale == 0.f) {
      s->overflowed = 1;
      return;
    }
    const int64_t t = ++s->updates;
    s->rate = float(double(o.lr) / (1.0 - ::pow(double(o.beta1), double(t))));
    s->correction = float(1.0 / ::sqrt(1.0 - ::pow(double(o.beta2), double(t))));
    const double warm = double(1 + t) / double(10 + t);
    s->decay = t < e.start ? 0.f : e.warm_up && warm < double(e.decay) ? float(warm) : e.decay;
  }
};

/// d * old + (1 - d) * x; with d = 0 exactly x, whatever was there.
template <int P>
KILN_HD Pack<P> averaged(float d, const float* old, const Pack<P>& x) {
  if (d == 0.f) return x;
  const Pack<P> o = load<P>(old);
  return o + (1.0f - d) * (x - o);
}

template <bool Ema>
struct Update {
  float beta1, beta2, eps;
  const OptimiserState* s;
  float* value;
  const float* grad;
  float *m, *v, *ema;
  template <int P>
  KILN_HD void operator()(int64_t i) const {
    const float unscale = s->unscale;
    if (unscale == 0.f) return;
    const Pack<P> g = unscale * load<P>(grad + i);
    const Pack<P> m1 = beta1 * load<P>(m + i) + (1.0f - beta1) * g;
    const Pack<P> v1 = beta2 * load<P>(v + i) + (1.0f - beta2) * g * g;
    const Pack<P> x = load<P>(value + i) - s->rate * m1 / (sqrt(v1) * s->correction + eps);
    store<P>(m + i, m1);
    store<P>(v + i, v1);
    store<P>(value + i, x);
    if constexpr (Ema) {
      store<P>(ema + i, averaged<P>(s->decay, ema + i, x));
    }
  }
};

struct Average {
  const OptimiserState* s;
  const float* value;
  float* average;
  template <int P>
  KILN_HD void operator()(int64_t i) const {
    if (s->unscale == 0.f) return;
    store<P>(average + i, averaged<P>(s->decay, average + i, load<P>(value + i)));
  }
};

}  // namespace

void adam_update(Stream stream, int64_t n, const AdamOptions& o, const EmaOptions& e, const float* loss_scale,
                 OptimiserState* state, float* value, const float* grad, float* m, float* v, float* ema) {
  map_each(stream, 1, Prepare{o, e, loss_scale, state});
  if (ema)
    map<float>(stream, n, Update<true>{o.beta1, o.beta2, o.eps, state, value, grad, m, v, ema});
  else
    map<float>(stream, n, Update<false>{o.beta1, o.beta2, o.eps, state, value, grad, m, v, nullptr});
}

void ema_update(Stream stream, int64_t n, const OptimiserState* state, const float* value, float* average) {
  map<float>(stream, n, Average{state, value, average});
}

}  // namespace kiln::KILN_EXEC
