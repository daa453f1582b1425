#include "kernels/cond_norm.h"

#include "kernels/activation_math.h"
#include "kernels/exec/primitives.h"

namespace kiln::KILN_EXEC {
namespace {

struct Scale {
  int c;
  const float *gain, *bias, *mean, *inv_std;
  float *scale, *shift;
  template <int P>
  KILN_HD void operator()(int64_t r, int j) const {
    const Pack<P> a = (1.0f + load<P>(gain + r * c + j)) * load<P>(inv_std + j);
    store<P>(scale + r * c + j, a);
    store<P>(shift + r * c + j, load<P>(bias + r * c + j) - load<P>(mean + j) * a);
  }
};

template <class T, Activation A>
struct Forward {
  CondNormShape s;
  const T* x;
  const float *scale, *shift;
  T* y;
  template <int P>
  KILN_HD void operator()(int64_t r, int j) const {
    const int64_t k = r / s.pixels * s.c + j;
    store<P>(y + r * s.c + j, activate<A>(load<P>(x + r * s.c + j) * load<P>(scale + k) + load<P>(shift + k)));
  }
};

/// dL/dz, z the activation's input, and the normalised input.
template <class T, Activation A>
struct Local {
  CondNormShape s;
  const T *x, *dy;
  const float *scale, *shift, *mean, *inv_std;
  template <int P>
  KILN_HD void at(int64_t r, int j, Pack<P>& dz, Pack<P>& xhat) const {
    const int64_t k = r / s.pixels * s.c + j;
    const Pack<P> v = load<P>(x + r * s.c + j);
    dz = load<P>(dy + r * s.c + j) * slope<A>(v * load<P>(scale + k) + load<P>(shift + k));
    xhat = (v - load<P>(mean + j)) * load<P>(inv_std + j);
  }
};

template <class L>
struct BackwardSums {
  L local;
  template <int P>
  KILN_HD void operator()(int64_t r, int j, Sums<2, P>& acc) const {
    Pack<P> dz, xhat;
    local.template at<P>(r, j, dz, xhat);
    acc.s[0] += dz;
    acc.s[1] += dz * xhat;
  }
};

/// The sums per picture are the gradients of bias and gain; weighted with 1 + gain they add up to the two means of the batch.
struct BackwardChannels {
  CondNormShape s;
  int64_t all_rows;  // 0 in evaluation
  const float *sums, *gain;  // sums [n][2][c]
  float *dgain, *dbias, *means;  // means [2][c]
  KILN_HD void operator()(int64_t j) const {
    double m0 = 0, m1 = 0;
    for (int64_t k = 0; k < s.n; k++) {
      const float s0 = sums[k * 2 * s.c + j], s1 = sums[(k * 2 + 1) * s.c + j], g = 1.0f + gain[k * s.c + j];
      dbias[k * s.c + j] = s0;
      dgain[k * s.c + j] = s1;
      m0 += double(g) * double(s0);
      m1 += double(g) * double(s1);
    }
    means[j] = all_rows > 0 ? float(m0 / double(all_rows)) : 0.f;
    means[s.c + j] = all_rows > 0 ? float(m1 / double(all_rows)) : 0.f;
  }
};

/// dx = inv_std ((1 + gain) dz - mean((1 + gain) dz) - xhat mean((1 + gain) dz xhat)).
template <class T, class L>
struct BackwardInput {
  L local;
  const float* means;
  T* dx;
  template <int P>
  KILN_HD void operator()(int64_t r, int j) const {
    const CondNormShape& s = local.s;
    Pack<P> dz, xhat;
    local.template at<P>(r, j, dz, xhat);
    const Pack<P> a = load<P>(local.scale + r / s.pixels * s.c + j), inv = load<P>(local.inv_std + j);
    store<P>(dx + r * s.c + j, a * dz - inv * (load<P>(means + j) + xhat * load<P>(means + s.c + j)));
  }
};

template <class Body>
void with_relu(Activation a, Body body) {
  if (a == Activation::relu)
    body.template operator()<Activation::relu>();
  else
    body.template operator()<Activation::none>();
}

}  // namespace

void cond_norm_scale(Stream stream, int64_t n, int c, const float* gain, const float* bias, const float* mean,
                     const float* inv_std, float* scale, float* shift) {
  map_rows<float>(stream, n, c, Scale{c, gain, bias, mean, inv_std, scale, shift});
}

void cond_norm_forward(Stream stream, DType t, const CondNormShape& s, const void* x, const float* scale, const float* shift,
                       Activation act, void* y) {
  with_dtype(t, [&]<class T>() {
    with_relu(act, [&]<Activation A>() {
      map_rows<T>(stream, s.n * s.pixels, s.c, Forward<T, A>{s, (const T*)x, scale, shift, (T*)y});
    });
  });
}

void cond_norm_backward_sums(Stream stream, DType t, const CondNormShape& s, int64_t all_rows, const void* x, const void* dy,
                             const float* gain, const float* mean, const float* inv_std, const float* scale, const float* shift,
                             Activation act, float* dgain, float* dbias, float* scratch) {
  float *sums = scratch, *means = scratch + cond_norm_means(s), *partial = means + 2 * s.c;
  with_dtype(t, [&]<class T>() {
    with_relu(act, [&]<Activation A>() {
      const Local<T, A> local{s, (const T*)x, (const T*)dy, scale, shift, mean, inv_std};
      column_sums<T, 2>(stream, s.n, s.pixels, s.c, BackwardSums<Local<T, A>>{local}, sums, partial);
    });
  });
  map_each(stream, s.c, BackwardChannels{s, all_rows, sums, gain, dgain, dbias, means}, 4 * s.n);
}

void cond_norm_backward_input(Stream stream, DType t, const CondNormShape& s, const void* x, const void* dy, const float* mean,
                              const float* inv_std, const float* scale, const float* shift, Activation act, void* dx,
                              const float* scratch) {
  with_dtype(t, [&]<class T>() {
    with_relu(act, [&]<Activation A>() {
      const Local<T, A> local{s, (const T*)x, (const T*)dy, scale, shift, mean, inv_std};
      map_rows<T>(stream, s.n * s.pixels, s.c, BackwardInput<T, Local<T, A>>{local, scratch + cond_norm_means(s), (T*)dx});
    });
  });
}

void cond_norm_backward(Stream stream, DType t, const CondNormShape& s, const void* x, const void* dy, const float* gain,
                        const float* mean, const float* inv_std, const float* scale, const float* shift, Activation act,
                        bool training, void* dx, float* dgain, float* dbias, float* scratch) {
  cond_norm_backward_sums(stream, t, s, training ? s.n * s.pixels : 0, x, dy, gain, mean, inv_std, scale, shift, act, dgain, dbias, scratch);
  cond_norm_backward_input(stream, t, s, x, dy, mean, inv_std, scale, shift, act, dx, scratch);
}

}  // namespace kiln::KILN_EXEC
