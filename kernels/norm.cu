#include "kernels/norm.h"

#include "kernels/activation_math.h"
#include "kernels/exec/primitives.h"
#include "kernels/pointwise.h"

namespace kiln::KILN_EXEC {
namespace {

/// x (+ w * noise) as the normalisation sees it.
template <class T, bool Noisy>
struct Input {
  int c;
  const T* x;
  const float *noise, *weight;
  template <int P>
  KILN_HD Pack<P> at(int64_t r, int j) const {
    Pack<P> v = load<P>(x + r * c + j);
    if constexpr (Noisy) v += Pack<P>(*weight * noise[r]);
    return v;
  }
};

/// Sums of (x - s) and (x - s)^2 with s = the first row: a shift near the mean keeps the difference of squares exact enough.
template <class T, bool Noisy>
struct Statistics {
  Input<T, Noisy> in;
  template <int P>
  KILN_HD void operator()(int64_t r, int j, Sums<2, P>& acc) const {
    const Pack<P> d = in.template at<P>(r, j) - in.template at<P>(0, j);
    acc.s[0] += d;
    acc.s[1] += d * d;
  }
};

/// The running statistics of one channel after a batch.
KILN_HD inline void follow(const NormChannels& ch, int64_t i, int64_t rows, float momentum, double mean, double var) {
  const double unbiased = rows > 1 ? var * double(rows) / double(rows - 1) : var;
  ch.running_mean[i] = float((1.0 - double(momentum)) * double(ch.running_mean[i]) + double(momentum) * mean);
  ch.running_var[i] = float((1.0 - double(momentum)) * double(ch.running_var[i]) + double(momentum) * unbiased);
}

/// What the passes over the rows need of one channel.
KILN_HD inline void settle(const NormChannels& ch, int64_t i, float eps, double mean, double var) {
  const double inv = 1.0 / ::sqrt(var + double(eps));
  ch.mean[i] = float(mean);
  ch.inv_std[i] = float(inv);
  if (!ch.gamma) return;
  ch.a[i] = float(double(ch.gamma[i]) * inv);
  ch.b[i] = float(double(ch.beta[i]) - mean * double(ch.gamma[i]) * inv);
}

/// Statistics -> mean, inv_std, running statistics, scale and shift, for one channel.
template <class T, bool Noisy>
struct Finish {
  Input<T, Noisy> in;
  NormChannels ch;
  int c;
  int64_t rows;
  float eps, momentum;
  bool training;
  const float* sums;  // [2][c]
  KILN_HD void operator()(int64_t i) const {
    double mean, var;
    if (training) {
      const double d = double(sums[i]) / double(rows);
      mean = double(in.template at<1>(0, int(i))[0]) + d;
      var = double(sums[c + i]) / double(rows) - d * d;
      if (var < 0) var = 0;
      follow(ch, i, rows, momentum, mean, var);
    } else {
      mean = double(ch.running_mean[i]);
      var = double(ch.running_var[i]);
    }
    settle(ch, i, eps, mean, var);
  }
};

/// This rank's part of the statistics. In double: a mean of squares and the square of a mean may then be subtracted.
template <class T, bool Noisy>
struct Moments {
  Input<T, Noisy> in;
  int c;
  int64_t rows;
  const float* sums;  // [2][c]
  double* moments;    // [2][c]
  KILN_HD void operator()(int64_t i) const {
    const double s = double(in.template at<1>(0, int(i))[0]), d = double(sums[i]) / double(rows);
    moments[i] = s + d;
    moments[c + i] = double(sums[c + i]) / double(rows) + 2 * s * d + s * s;
  }
};

struct FinishMoments {
  NormChannels ch;
  int c, ranks;
  int64_t rows;
  float eps, momentum;
  const double* moments;
  KILN_HD void operator()(int64_t i) const {
    const double mean = moments[i] / ranks;
    double var = moments[c + i] / ranks - mean * mean;
    if (var < 0) var = 0;
    follow(ch, i, rows * ranks, momentum, mean, var);
    settle(ch, i, eps, mean, var);
  }
};

template <class T, bool Noisy, Activation A>
struct Forward {
  Input<T, Noisy> in;
  const float *a, *b;
  T* y;
  template <int P>
  KILN_HD void operator()(int64_t r, int j) const {
    const Pack<P> z = in.template at<P>(r, j) * load<P>(a + j) + load<P>(b + j);
    store<P>(y + r * in.c + j, activate<A>(z));
  }
};

template <class T, bool Noisy>
struct ForwardGlu {
  Input<T, Noisy> in;
  const float *a, *b;
  T* y;
  template <int P>
  KILN_HD void operator()(int64_t r, int j) const {
    const int h = in.c / 2;
    const Pack<P> u = in.template at<P>(r, j) * load<P>(a + j) + load<P>(b + j);
    const Pack<P> g = in.template at<P>(r, h + j) * load<P>(a + h + j) + load<P>(b + h + j);
    store<P>(y + r * h + j, u * sigmoid(g));
  }
};

/// dL/dz for one pack, and the normalised input it belongs to.
template <class T, bool Noisy, Activation A>
struct Local {
  Input<T, Noisy> in;
  const float *a, *b, *mean, *inv_std;
  const T* dy;
  template <int P>
  KILN_HD void at(int64_t r, int j, Pack<P>& dz, Pack<P>& xhat) const {
    const Pack<P> x = in.template at<P>(r, j);
    const Pack<P> z = x * load<P>(a + j) + load<P>(b + j);
    Pack<P> s = z;
    if constexpr (A == Activation::sigmoid || A == Activation::tanh) s = activate<A>(z);
    dz = load<P>(dy + r * in.c + j) * slope<A>(s);
    xhat = (x - load<P>(mean + j)) * load<P>(inv_std + j);
  }
};

/// The same for GLU: the packs at j and at h + j together, since they share the sigmoid.
template <class T, bool Noisy>
struct LocalGlu {
  Input<T, Noisy> in;
  const float *a, *b, *mean, *inv_std;
  const T* dy;
  template <int P>
  KILN_HD void at(int64_t r, int j, Pack<P>& du, Pack<P>& dg, Pack<P>& xu, Pack<P>& xg) const {
    const int h = in.c / 2;
    xu = in.template at<P>(r, j);
    xg = in.template at<P>(r, h + j);
    const Pack<P> u = xu * load<P>(a + j) + load<P>(b + j);
    const Pack<P> s = sigmoid(xg * load<P>(a + h + j) + load<P>(b + h + j));
    const Pack<P> g = load<P>(dy + r * h + j);
    du = g * s;
    dg = g * u * s * (1.0f - s);
    xu = (xu - load<P>(mean + j)) * load<P>(inv_std + j);
    xg = (xg - load<P>(mean + h + j)) * load<P>(inv_std + h + j);
  }
};

// The sums of the backward pass, per channel: dz, dz * xhat and, with noise, noise * dz and noise * xhat. The last two give
// the noise weight's gradient without another pass over dx: see BackwardFinish.
template <class L, bool Noisy>
struct BackwardSums {
  L local;
  template <int P>
  KILN_HD void operator()(int64_t r, int j, Sums<Noisy ? 4 : 2, P>& acc) const {
    Pack<P> dz, xhat;
    local.template at<P>(r, j, dz, xhat);
    acc.s[0] += dz;
    acc.s[1] += dz * xhat;
    if constexpr (Noisy) {
      const float n = local.in.noise[r];
      acc.s[2] += dz * n;
      acc.s[3] += xhat * n;
    }
  }
};

// For GLU the column loop runs over the h pairs; quantity k of the gate half follows quantity k of the value half.
template <class L, bool Noisy>
struct BackwardSumsGlu {
  L local;
  template <int P>
  KILN_HD void operator()(int64_t r, int j, Sums<Noisy ? 8 : 4, P>& acc) const {
    Pack<P> du, dg, xu, xg;
    local.template at<P>(r, j, du, dg, xu, xg);
    acc.s[0] += du;
    acc.s[1] += dg;
    acc.s[2] += du * xu;
    acc.s[3] += dg * xg;
    if constexpr (Noisy) {
      const float n = local.in.noise[r];
      acc.s[4] += du * n;
      acc.s[5] += dg * n;
      acc.s[6] += xu * n;
      acc.s[7] += xg * n;
    }
  }
};

/// sums [k][C] -> gradients of gamma and beta. With [k][2][h] for GLU, the flat index k * C + c is the same.
struct BackwardChannels {
  int c;
  const float* sums;
  float *dgamma, *dbeta;
  KILN_HD void operator()(int64_t i) const {
    if (dbeta) dbeta[i] += sums[i];
    if (dgamma) dgamma[i] += sums[c + i];
  }
};

/// d(noise weight) = sum over r, c of noise[r] * dx[r, c], dx being the gradient at the normalisation's input:
/// sum over c of gamma inv_std (sum_r n dz - m1 sum_r n - m2 sum_r n xhat). One thread.
struct BackwardNoise {
  int c;
  int64_t all_rows;  // 0 in evaluation
  const float *sums, *gamma, *inv_std, *noise_sum;
  float* dweight;
  KILN_HD void operator()(int64_t) const {
    double total = 0;
    const double ns = double(*noise_sum), n = double(all_rows);
    for (int i = 0; i < c; i++) {
      double s = double(sums[2 * c + i]);
      if (all_rows > 0) s -= double(sums[i]) / n * ns + double(sums[c + i]) / n * double(sums[3 * c + i]);
      total += double(gamma[i]) * double(inv_std[i]) * s;
    }
    *dweight += float(total);
  }
};

struct NoiseSum {
  const float* noise;
  template <int P>
  KILN_HD void operator()(int64_t, int64_t i, Sums<1, P>& acc) const {
    acc.s[0] += load<P>(noise + i);
  }
};

/// dx = a (dz - mean(dz) - xhat mean(dz xhat)); in evaluation the two means are not there.
template <class T, class L>
struct BackwardInput {
  L local;
  const float* sums;
  float inv_rows;  // 1 / rows, or 0 in evaluation
  T* dx;
  template <int P>
  KILN_HD void operator()(int64_t r, int j) const {
    const int c = local.in.c;
    Pack<P> dz, xhat;
    local.template at<P>(r, j, dz, xhat);
    const Pack<P> m1 = load<P>(sums + j) * inv_rows, m2 = load<P>(sums + c + j) * inv_rows;
    store<P>(dx + r * c + j, load<P>(local.a + j) * (dz - m1 - xhat * m2));
  }
};

template <class T, class L>
struct BackwardInputGlu {
  L local;
  const float* sums;
  float inv_rows;
  T* dx;
  template <int P>
  KILN_HD void operator()(int64_t r, int j) const {
    const int c = local.in.c, h = c / 2;
    Pack<P> du, dg, xu, xg;
    local.template at<P>(r, j, du, dg, xu, xg);
    const Pack<P> u1 = load<P>(sums + j) * inv_rows, u2 = load<P>(sums + c + j) * inv_rows;
    const Pack<P> g1 = load<P>(sums + h + j) * inv_rows, g2 = load<P>(sums + c + h + j) * inv_rows;
    store<P>(dx + r * c + j, load<P>(local.a + j) * (du - u1 - xu * u2));
    store<P>(dx + r * c + h + j, load<P>(local.a + h + j) * (dg - g1 - xg * g2));
  }
};

template <class Body>
void with_noise(const float* noise, Body body) {
  if (noise)
    body.template operator()<true>();
  else
    body.template operator()<false>();
}

template <class Body>
void with_norm_activation(Activation a, Body body) {
  switch (a) {
    case Activation::none: return body.template operator()<Activation::none>();
    case Activation::relu: return body.template operator()<Activation::relu>();
    default: return body.template operator()<Activation::leaky_relu>();
  }
}

}  // namespace

void norm_prepare(Stream stream, DType t, int64_t rows, int c, const void* x, const NormFusion& fusion,
                  const NormChannels& ch, float eps, float momentum, bool training, float* scratch) {
  with_dtype(t, [&]<class T>() {
    with_noise(fusion.noise, [&]<bool Noisy>() {
      const Input<T, Noisy> in{c, (const T*)x, fusion.noise, fusion.noise_weight};
      if (training) column_sums<T, 2>(stream, 1, rows, c, Statistics<T, Noisy>{in}, scratch, scratch + 2 * c);
      map_each(stream, c, Finish<T, Noisy>{in, ch, c, rows, eps, momentum, training, scratch}, 8);
    });
  });
}

void norm_forward(Stream stream, DType t, int64_t rows, int c, const void* x, const NormFusion& fusion,
                  const NormChannels& ch, void* y) {
  with_dtype(t, [&]<class T>() {
    with_noise(fusion.noise, [&]<bool Noisy>() {
      const Input<T, Noisy> in{c, (const T*)x, fusion.noise, fusion.noise_weight};
      if (fusion.glu) return map_rows<T>(stream, rows, c / 2, ForwardGlu<T, Noisy>{in, ch.a, ch.b, (T*)y});
      with_norm_activation(fusion.act, [&]<Activation A>() {
        map_rows<T>(stream, rows, c, Forward<T, Noisy, A>{in, ch.a, ch.b, (T*)y});
      });
    });
  });
}

void norm_moments(Stream stream, DType t, int64_t rows, int c, const void* x, const NormFusion& fusion, double* moments,
                  float* scratch) {
  with_dtype(t, [&]<class T>() {
    with_noise(fusion.noise, [&]<bool Noisy>() {
      const Input<T, Noisy> in{c, (const T*)x, fusion.noise, fusion.noise_weight};
      column_sums<T, 2>(stream, 1, rows, c, Statistics<T, Noisy>{in}, scratch, scratch + 2 * c);
      map_each(stream, c, Moments<T, Noisy>{in, c, rows, scratch, moments}, 8);
    });
  });
}

void norm_finish(Stream stream, int64_t rows, int ranks, int c, const double* moments, const NormChannels& ch, float eps,
                 float momentum) {
  map_each(stream, c, FinishMoments{ch, c, ranks, rows, eps, momentum, moments}, 8);
}

void norm_backward_sums(Stream stream, DType t, int64_t rows, int c, const void* x, const void* dy, const NormFusion& fusion,
                        const NormChannels& ch, float* dgamma, float* dbeta, float* scratch) {
  with_dtype(t, [&]<class T>() {
    with_noise(fusion.noise, [&]<bool Noisy>() {
      const Input<T, Noisy> in{c, (const T*)x, fusion.noise, fusion.noise_weight};
      if (fusion.glu) {
        const LocalGlu<T, Noisy> local{in, ch.a, ch.b, ch.mean, ch.inv_std, (const T*)dy};
        column_sums<T, Noisy ? 8 : 4>(stream, 1, rows, c / 2, BackwardSumsGlu<LocalGlu<T, Noisy>, Noisy>{local}, scratch,
                                      scratch + 4 * c);
      } else {
        with_norm_activation(fusion.act, [&]<Activation A>() {
          using L = Local<T, Noisy, A>;
          const L local{in, ch.a, ch.b, ch.mean, ch.inv_std, (const T*)dy};
          column_sums<T, Noisy ? 4 : 2>(stream, 1, rows, c, BackwardSums<L, Noisy>{local}, scratch, scratch + 4 * c);
        });
      }
    });
  });
  if (dgamma || dbeta) map_each(stream, c, BackwardChannels{c, scratch, dgamma, dbeta});
}

void norm_backward_input(Stream stream, DType t, int64_t rows, int64_t all_rows, int c, const void* x, const void* dy,
                         const NormFusion& fusion, const NormChannels& ch, void* dx, float* dnoise_weight, float* scratch) {
  const float inv_rows = all_rows > 0 ? 1.0f / float(all_rows) : 0.0f;
  with_dtype(t, [&]<class T>() {
    with_noise(fusion.noise, [&]<bool Noisy>() {
      const Input<T, Noisy> in{c, (const T*)x, fusion.noise, fusion.noise_weight};
      if (fusion.glu) {
        const LocalGlu<T, Noisy> local{in, ch.a, ch.b, ch.mean, ch.inv_std, (const T*)dy};
        map_rows<T>(stream, rows, c / 2, BackwardInputGlu<T, LocalGlu<T, Noisy>>{local, scratch, inv_rows, (T*)dx});
      } else {
        with_norm_activation(fusion.act, [&]<Activation A>() {
          using L = Local<T, Noisy, A>;
          const L local{in, ch.a, ch.b, ch.mean, ch.inv_std, (const T*)dy};
          map_rows<T>(stream, rows, c, BackwardInput<T, L>{local, scratch, inv_rows, (T*)dx});
        });
      }
    });
  });
  if (fusion.noise && dnoise_weight) {
    float* noise_sum = scratch + 4 * c;  // the partial sums are done with
    segment_sums<float, 1>(stream, 1, rows, NoiseSum{fusion.noise}, noise_sum, noise_sum + 1);
    map_each(stream, 1, BackwardNoise{c, all_rows, scratch, ch.gamma, ch.inv_std, noise_sum, dnoise_weight});
  }
}

void norm_backward(Stream stream, DType t, int64_t rows, int c, const void* x, const void* dy, const NormFusion& fusion,
                   const NormChannels& ch, bool training, void* dx, float* dgamma, float* dbeta, float* dnoise_weight,
                   float* scratch) {
  // The sums are needed for dx in training, and for the parameters' gradients; in evaluation with neither they are not.
  if (training || dgamma || dbeta || dnoise_weight)
    norm_backward_sums(stream, t, rows, c, x, dy, fusion, ch, dgamma, dbeta, scratch);
  else
    fill(stream, DType::f32, 2 * c, 0.f, scratch);  // read all the same, times zero: not a NaN
  norm_backward_input(stream, t, rows, training ? rows : 0, c, x, dy, fusion, ch, dx, dnoise_weight, scratch);
}

}  // namespace kiln::KILN_EXEC
