#include "kernels/fold.h"

#include "kernels/exec/primitives.h"

namespace kiln::KILN_EXEC {
namespace {

// Which of the three taps each of the four adds: tap t of w goes to positions 3 - t and 2 - t, bounds permitting, but the
// outer taps once only: K = (w2, w1 + w2, w0 + w1, w0) = rows {2}, {1, 2}, {0, 1}, {0}.
KILN_HD inline int first_tap(int k) { return k == 0 ? 2 : k == 1 ? 1 : 0; }
KILN_HD inline int last_tap(int k) { return k <= 1 ? 2 : k == 2 ? 1 : 0; }

template <class T>
struct Fold {
  int channels;
  const T* w;
  T* k;
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {  // r = (o, ky, kx)
    const int64_t o = r / 16;
    const int ky = int(r / 4 % 4), kx = int(r % 4);
    Pack<P> acc(0.f);
    for (int y = first_tap(ky); y <= last_tap(ky); y++)
      for (int x = first_tap(kx); x <= last_tap(kx); x++) acc += load<P>(w + ((o * 3 + y) * 3 + x) * channels + c);
    store<P>(k + r * channels + c, acc);
  }
};

struct Unfold {
  int channels;
  const float* dk;
  float* dw;
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {  // r = (o, y, x)
    const int64_t o = r / 9;
    const int y = int(r / 3 % 3), x = int(r % 3);
    Pack<P> acc(0.f);
    for (int ky = 0; ky < 4; ky++) {
      if (y < first_tap(ky) || y > last_tap(ky)) continue;
      for (int kx = 0; kx < 4; kx++)
        if (x >= first_tap(kx) && x <= last_tap(kx)) acc += load<P>(dk + ((o * 4 + ky) * 4 + kx) * channels + c);
    }
    store<P>(dw + r * channels + c, acc);
  }
};

// What tap t counts for in the combination k of an axis: 0 the sum of the taps, 1 minus tap 0, 2 tap 2.
KILN_HD inline float product_sign(int k, int t) { return k == 0 ? 1.f : k == 1 ? (t == 0 ? -1.f : 0.f) : (t == 2 ? 1.f : 0.f); }

// A 3x3 convolution (padding 1) and 2x2 average pooling after it: along an axis output 2i + d reads x[2i + d + t - 1] with tap t,
// so that position p = d + t of the 4x4 kernel has the mean over d of taps p and p - 1.
template <class T>
struct PoolFold {
  int channels;
  const T* w;
  T* k;
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {  // r = (o, ky, kx)
    const int64_t o = r / 16;
    const int ky = int(r / 4 % 4), kx = int(r % 4);
    Pack<P> acc(0.f);
    for (int y = ky > 0 ? ky - 1 : 0; y <= ky && y < 3; y++)
      for (int x = kx > 0 ? kx - 1 : 0; x <= kx && x < 3; x++) acc += load<P>(w + ((o * 3 + y) * 3 + x) * channels + c);
    store<P>(k + r * channels + c, acc * 0.25f);
  }
};

struct PoolUnfold {
  int channels;
  const float* dk;
  float* dw;
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {  // r = (o, y, x)
    const int64_t o = r / 9;
    const int y = int(r / 3 % 3), x = int(r % 3);
    Pack<P> acc(0.f);
    for (int ky = y; ky <= y + 1; ky++)
      for (int kx = x; kx <= x + 1; kx++) acc += load<P>(dk + ((o * 4 + ky) * 4 + kx) * channels + c);
    store<P>(dw + r * channels + c, acc * 0.25f);
  }
};

/// a [i, 3, 3, o] = factor * w [o, 3, 3, i], mirrored along both axes of the kernel.
struct Adjoint {
  int outputs, channels;
  float factor;
  const float* w;
  float* a;
  KILN_HD void operator()(int64_t r) const {
    const int o = int(r % outputs), x = int(r / outputs % 3), y = int(r / outputs / 3 % 3);
    const int64_t i = r / outputs / 9;
    a[r] = factor * w[((int64_t(o) * 3 + 2 - y) * 3 + 2 - x) * channels + i];
  }
};

struct Products {
  int64_t outputs;
  int channels;
  const float* w;
  float* u;
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {  // r = (product, o)
    const int v = int(r / outputs) / 3, h = int(r / outputs) % 3;
    const float* from = w + r % outputs * 9 * channels + c;
    Pack<P> acc(0.f);
    for (int y = 0; y < 3; y++)
      for (int x = 0; x < 3; x++) {
        const float sign = product_sign(v, y) * product_sign(h, x);
        if (sign != 0.f) acc += load<P>(from + (y * 3 + x) * channels) * sign;
      }
    store<P>(u + r * channels + c, acc);
  }
};

struct ProductsBackward {
  int64_t outputs;
  int channels;
  const float* du;
  float* dw;
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {  // r = (o, y, x)
    const int y = int(r / 3 % 3), x = int(r % 3);
    Pack<P> acc(0.f);
    for (int k = 0; k < 9; k++) {
      const float sign = product_sign(k / 3, y) * product_sign(k % 3, x);
      if (sign != 0.f) acc += load<P>(du + (k * outputs + r / 9) * channels + c) * sign;
    }
    store<P>(dw + r * channels + c, acc);
  }
};

/// Row v of Winograd's G at tap t.
KILN_HD inline float winograd_factor(int v, int t) {
  if (v == 0) return t == 0 ? 1.f : 0.f;
  if (v == 3) return t == 2 ? 1.f : 0.f;
  return v == 2 && t == 1 ? -0.5f : 0.5f;
}

struct WinogradWeights {
  int64_t outputs;
  int channels;
  const float* w;
  float* u;
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {  // r = (product, o)
    const int v = int(r / outputs) / 4, h = int(r / outputs) % 4;
    const float* from = w + r % outputs * 9 * channels + c;
    Pack<P> acc(0.f);
    for (int y = 0; y < 3; y++)
      for (int x = 0; x < 3; x++) {
        const float factor = winograd_factor(v, y) * winograd_factor(h, x);
        if (factor != 0.f) acc += load<P>(from + (y * 3 + x) * channels) * factor;
      }
    store<P>(u + r * channels + c, acc);
  }
};

struct WinogradWeightsBackward {
  int64_t outputs;
  int channels;
  const float* du;
  float* dw;
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {  // r = (o, y, x)
    const int y = int(r / 3 % 3), x = int(r % 3);
    Pack<P> acc(0.f);
    for (int k = 0; k < 16; k++) {
      const float factor = winograd_factor(k / 4, y) * winograd_factor(k % 4, x);
      if (factor != 0.f) acc += load<P>(du + (k * outputs + r / 9) * channels + c) * factor;
    }
    store<P>(dw + r * channels + c, acc);
  }
};

}  // namespace

void upsample_fold(Stream stream, DType t, int o, int i, const void* w, void* k) {
  with_dtype(t, [&]<class T>() { map_rows<T>(stream, int64_t(o) * 16, i, Fold<T>{i, (const T*)w, (T*)k}); });
}
void upsample_fold_backward(Stream stream, int o, int i, const float* dk, float* dw) {
  map_rows<float>(stream, int64_t(o) * 9, i, Unfold{i, dk, dw});
}

void pool_fold(Stream stream, DType t, int o, int i, const void* w, void* k) {
  with_dtype(t, [&]<class T>() { map_rows<T>(stream, int64_t(o) * 16, i, PoolFold<T>{i, (const T*)w, (T*)k}); });
}
void pool_fold_backward(Stream stream, int o, int i, const float* dk, float* dw) {
  map_rows<float>(stream, int64_t(o) * 9, i, PoolUnfold{i, dk, dw});
}
void adjoint_weights(Stream stream, int o, int i, float factor, const float* w, float* a) {
  map_each(stream, int64_t(o) * 9 * i, Adjoint{o, i, factor, w, a});
}

void upsample_products(Stream stream, int o, int i, const float* w, float* u) {
  map_rows<float>(stream, int64_t(o) * 9, i, Products{o, i, w, u});
}
void upsample_products_backward(Stream stream, int o, int i, const float* du, float* dw) {
  map_rows<float>(stream, int64_t(o) * 9, i, ProductsBackward{o, i, du, dw});
}

void winograd_weights(Stream stream, int o, int i, const float* w, float* u) {
  map_rows<float>(stream, int64_t(o) * 16, i, WinogradWeights{o, i, w, u});
}
void winograd_weights_backward(Stream stream, int o, int i, const float* du, float* dw) {
  map_rows<float>(stream, int64_t(o) * 9, i, WinogradWeightsBackward{o, i, du, dw});
}

}  // namespace kiln::KILN_EXEC
