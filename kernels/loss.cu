#include "kernels/loss.h"

#include "kernels/exec/primitives.h"

namespace kiln::KILN_EXEC {
namespace {

/// A few hundred logits: one thread adds them in order, in double. On a GPU this is a few microseconds.
template <class T>
struct Hinge {
  int64_t n;
  float sign, low;
  const T* logits;
  const float* u;
  float *value, *mean_logit, *gradient;
  KILN_HD void operator()(int64_t) const {
    double loss = 0, mean = 0;
    for (int64_t i = 0; i < n; i++) {
      const float x = to_float(logits[i]);
      const float margin = u ? low + (1.0f - low) * u[i] : 1.0f;
      const float d = margin - sign * x;
      loss += d > 0.f ? double(d) : 0.0;
      mean += double(x);
      gradient[i] = d > 0.f ? -sign / float(n) : 0.f;
    }
    *value = float(loss / double(n));
    *mean_logit = float(mean / double(n));
  }
};

/// As few logits, and one thread.
template <class T>
struct Relativistic {
  int64_t n;
  float sign;
  const T* logits;
  const float* mean;
  float *value, *gradient, *d_mean;
  KILN_HD void operator()(int64_t) const {
    double loss = 0, sum = 0;
    for (int64_t i = 0; i < n; i++) {
      const double z = double(sign) * (double(to_float(logits[i])) - double(*mean));
      const double small = ::exp(z > 0 ? -z : z);  // at most 1
      loss += ::log1p(small) + (z > 0 ? 0.0 : -z);
      const double g = -double(sign) * (z > 0 ? small : 1.0) / (1.0 + small) / double(n);  // -sign sigmoid(-z) / n
      gradient[i] = float(g);
      sum += g;
    }
    *value = float(loss / double(n));
    *d_mean = float(-sum);
  }
};

template <class T>
struct Mean {
  int64_t n;
  float factor;
  const T* x;
  float* value;
  KILN_HD void operator()(int64_t) const {
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += double(to_float(x[i]));
    *value = float(double(factor) * s / double(n));
  }
};

template <int P>
KILN_HD Pack<P> magnitude(const Pack<P>& x) {
  return select_positive(x, x, 0.0f - x);
}

template <class T, int Power>
struct Difference {
  const T *x, *y;
  float weight;
  template <int P>
  KILN_HD void operator()(int64_t, int64_t i, Sums<1, P>& acc) const {
    const Pack<P> d = load<P>(x + i) - load<P>(y + i);
    acc.s[0] += weight * (Power == 2 ? d * d : magnitude(d));
  }
};

struct Square {
  const float* x;
  template <int P>
  KILN_HD void operator()(int64_t, int64_t i, Sums<1, P>& acc) const {
    const Pack<P> v = load<P>(x + i);
    acc.s[0] += v * v;
  }
};

template <class T, int Power>
struct DifferenceBackward {
  const T *x, *y;
  const float* seed;
  float weight;
  T* dx;
  template <int P>
  KILN_HD void operator()(int64_t i) const {
    const Pack<P> d = load<P>(x + i) - load<P>(y + i);
    const float w = weight * *seed;
    if constexpr (Power == 2) {
      store<P>(dx + i, 2.0f * w * d);
    } else {
      const Pack<P> zero(0.f);
      store<P>(dx + i, w * (select_positive(d, Pack<P>(1.f), zero) - select_positive(0.0f - d, Pack<P>(1.f), zero)));
    }
  }
};

template <class T>
struct ScaleBy {
  const float *seed, *x;
  T* y;
  template <int P>
  KILN_HD void operator()(int64_t i) const {
    store<P>(y + i, *seed * load<P>(x + i));
  }
};

template <class T>
struct Broadcast {
  float factor;
  const float* seed;
  T* y;
  template <int P>
  KILN_HD void operator()(int64_t i) const {
    store<P>(y + i, Pack<P>(factor * *seed));
  }
};

}  // namespace

void hinge_loss(Stream stream, DType t, int64_t n, float sign, float margin_low, const void* logits, const float* u,
                float* value, float* mean_logit, float* gradient) {
  with_dtype(t, [&]<class T>() {
    map_each(stream, 1, Hinge<T>{n, sign, margin_low, (const T*)logits, u, value, mean_logit, gradient});
  });
}

void relativistic_loss(Stream stream, DType t, int64_t n, float sign, const void* logits, const float* mean, float* value,
                       float* gradient, float* d_mean) {
  with_dtype(t, [&]<class T>() { map_each(stream, 1, Relativistic<T>{n, sign, (const T*)logits, mean, value, gradient, d_mean}); });
}

void mean_value(Stream stream, DType t, int64_t n, float factor, const void* x, float* value) {
  with_dtype(t, [&]<class T>() { map_each(stream, 1, Mean<T>{n, factor, (const T*)x, value}); });
}

void difference_loss(Stream stream, DType t, int64_t n, int64_t per_picture, int power, const void* x, const void* y,
                     float* value, float* scratch) {
  const float w = 1.0f / float(per_picture);
  with_dtype(t, [&]<class T>() {
    if (power == 2)
      segment_sums<T, 1>(stream, 1, n * per_picture, Difference<T, 2>{(const T*)x, (const T*)y, w}, value, scratch);
    else
      segment_sums<T, 1>(stream, 1, n * per_picture, Difference<T, 1>{(const T*)x, (const T*)y, w}, value, scratch);
  });
}

void square_sum(Stream stream, int64_t n, const float* x, float* value, float* scratch) {
  segment_sums<float, 1>(stream, 1, n, Square{x}, value, scratch);
}

void difference_backward(Stream stream, DType t, int64_t n, int64_t per_picture, int power, const void* x, const void* y,
                         const float* seed, void* dx) {
  const float w = 1.0f / float(per_picture);
  with_dtype(t, [&]<class T>() {
    if (power == 2)
      map<T>(stream, n * per_picture, DifferenceBackward<T, 2>{(const T*)x, (const T*)y, seed, w, (T*)dx});
    else
      map<T>(stream, n * per_picture, DifferenceBackward<T, 1>{(const T*)x, (const T*)y, seed, w, (T*)dx});
  });
}

void scale_by(Stream stream, DType t, int64_t n, const float* seed, const float* x, void* y) {
  // f32 in, t out: the pack of the wider of the two.
  with_dtype(t, [&]<class T>() { map<float>(stream, n, ScaleBy<T>{seed, x, (T*)y}); });
}

void broadcast(Stream stream, DType t, int64_t n, float factor, const float* seed, void* y) {
  with_dtype(t, [&]<class T>() { map<T>(stream, n, Broadcast<T>{factor, seed, (T*)y}); });
}

}  // namespace kiln::KILN_EXEC
