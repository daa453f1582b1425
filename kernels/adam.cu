#include "kernels/adam.h"

#include "kernels/exec/primitives.h"

namespace kiln::KILN_EXEC {
namespace {

/// What depends on the step only, computed once, on the device: a captured graph replays it.
struct Prepare {
  AdamOptions o;
  EmaOptions e;
  int64_t* steps;
  float* k;  // lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t), ema decay
  KILN_HD void operator()(int64_t) const {
    const int64_t t = ++*steps;
    k[0] = float(double(o.lr) / (1.0 - ::pow(double(o.beta1), double(t))));
    k[1] = float(1.0 / ::sqrt(1.0 - ::pow(double(o.beta2), double(t))));
    const double warm = double(1 + t) / double(10 + t);
    k[2] = e.warm_up && warm < double(e.decay) ? float(warm) : e.decay;
  }
};

template <bool Ema>
struct Update {
  float beta1, beta2, eps;
  const float* k;
  float* value;
  const float* grad;
  float *m, *v, *ema;
  template <int P>
  KILN_HD void operator()(int64_t i) const {
    const Pack<P> g = load<P>(grad + i);
    const Pack<P> m1 = beta1 * load<P>(m + i) + (1.0f - beta1) * g;
    const Pack<P> v1 = beta2 * load<P>(v + i) + (1.0f - beta2) * g * g;
    const Pack<P> x = load<P>(value + i) - k[0] * m1 / (sqrt(v1) * k[1] + eps);
    store<P>(m + i, m1);
    store<P>(v + i, v1);
    store<P>(value + i, x);
    if constexpr (Ema) {
      const Pack<P> old = load<P>(ema + i);
      store<P>(ema + i, old + (1.0f - k[2]) * (x - old));
    }
  }
};

struct Average {
  const float *k, *value;
  float* average;
  template <int P>
  KILN_HD void operator()(int64_t i) const {
    const Pack<P> old = load<P>(average + i);
    store<P>(average + i, old + (1.0f - k[2]) * (load<P>(value + i) - old));
  }
};

}  // namespace

void adam_update(Stream stream, int64_t n, const AdamOptions& o, const EmaOptions& e, int64_t* steps, float* value,
                 const float* grad, float* m, float* v, float* ema, float* coefficients) {
  map_each(stream, 1, Prepare{o, e, steps, coefficients});
  if (ema)
    map<float>(stream, n, Update<true>{o.beta1, o.beta2, o.eps, coefficients, value, grad, m, v, ema});
  else
    map<float>(stream, n, Update<false>{o.beta1, o.beta2, o.eps, coefficients, value, grad, m, v, nullptr});
}

void ema_update(Stream stream, int64_t n, const float* coefficients, const float* value, float* average) {
  map<float>(stream, n, Average{coefficients, value, average});
}

}  // namespace kiln::KILN_EXEC
