#include "kernels/feature.h"

#include "kernels/exec/pixel.h"
#include "kernels/exec/primitives.h"

namespace kiln::KILN_EXEC {
namespace {

template <class T>
struct AffineActivation {
  int c;
  const T* x;
  const float *a, *b;
  float slope;
  T* y;
  template <int P>
  KILN_HD void operator()(int64_t r, int ch) const {
    Pack<P> v = load<P>(x + r * c + ch);
    if (a) v = v * load<P>(a + ch);
    v = v + load<P>(b + ch);
    store<P>(y + r * c + ch, select_positive(v, v, v * slope));
  }
};

template <class T>
struct AffineBackward {
  int c;
  const T* y;
  const float* a;
  float slope;
  const T* dy;
  T* dx;
  template <int P>
  KILN_HD void operator()(int64_t r, int ch) const {
    Pack<P> d = load<P>(dy + r * c + ch);
    if (a) d = d * load<P>(a + ch);
    // Selected, not multiplied by a mask: a slope of 0 is 0 whatever d is.
    const Pack<P> below = slope == 0.f ? Pack<P>(0.f) : d * slope;
    if (y) d = select_positive(load<P>(y + r * c + ch), d, below);
    store<P>(dx + r * c + ch, d);
  }
};

/// The part of a window's axis inside the picture: [begin, end).
KILN_HD int window_begin(int o, int stride, int pad) { return o * stride - pad > 0 ? o * stride - pad : 0; }
KILN_HD int window_end(int o, int stride, int pad, int k, int in) { return o * stride - pad + k < in ? o * stride - pad + k : in; }

template <class T>
struct MaxPool {
  PoolShape s;
  const T* x;
  T* y;
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {
    const Pixel o = pixel_of(r, s.out_h, s.out_w);
    const int i0 = window_begin(o.i, s.stride, s.pad), i1 = window_end(o.i, s.stride, s.pad, s.k, s.h);
    const int j0 = window_begin(o.j, s.stride, s.pad), j1 = window_end(o.j, s.stride, s.pad, s.k, s.w);
    Pack<P> best = load<P>(x + ((o.n * s.h + i0) * s.w + j0) * s.c + c);
    for (int i = i0; i < i1; i++)
      for (int j = j0; j < j1; j++) {
        const Pack<P> v = load<P>(x + ((o.n * s.h + i) * s.w + j) * s.c + c);
        best = select_positive(v - best, v, best);
      }
    store<P>(y + r * s.c + c, best);
  }
};

template <class T>
struct MaxPoolBackward {
  PoolShape s;
  const T *x, *dy;
  T* dx;
  /// d where mine, the pixel at (pi, pj), is the first largest of window (oi, oj), else 0. `picture` is channel c of the picture's
  /// first pixel; the offsets within a picture fit 32 bits.
  template <int P>
  KILN_HD Pack<P> if_chosen(Pack<P> d, const T* picture, Pack<P> mine, int oi, int oj, int pi, int pj) const {
    const int i0 = window_begin(oi, s.stride, s.pad), i1 = window_end(oi, s.stride, s.pad, s.k, s.h);
    const int j0 = window_begin(oj, s.stride, s.pad), j1 = window_end(oj, s.stride, s.pad, s.k, s.w);
    KILN_ROLLED
    for (int i = i0; i < i1; i++)
      KILN_ROLLED
      for (int j = j0; j < j1; j++) {
        const int after = (i - pi) * s.w + j - pj;
        if (after == 0) continue;
        const Pack<P> v = load<P>(picture + (i * s.w + j) * s.c), none(0.f);
        d = after < 0 ? select_positive(mine - v, d, none) : select_positive(v - mine, none, d);
      }
    return d;
  }
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {
    const Pixel p = pixel_of(r, s.h, s.w);
    const T* picture = x + p.n * s.h * s.w * s.c + c;
    const Pack<P> mine = load<P>(x + r * s.c + c);
    Pack<P> acc(0.f);
    // The windows that cover the pixel begin at most k - 1 before it.
    const int first_i = p.i + s.pad - s.k + 1, first_j = p.j + s.pad - s.k + 1;
    const int i0 = first_i > 0 ? (first_i + s.stride - 1) / s.stride : 0, j0 = first_j > 0 ? (first_j + s.stride - 1) / s.stride : 0;
    KILN_ROLLED
    for (int i = i0; i < s.out_h && i * s.stride - s.pad <= p.i; i++)
      KILN_ROLLED
      for (int j = j0; j < s.out_w && j * s.stride - s.pad <= p.j; j++)
        acc += if_chosen<P>(load<P>(dy + ((p.n * s.out_h + i) * s.out_w + j) * s.c + c), picture, mine, i, j, p.i, p.j);
    store<P>(dx + r * s.c + c, acc);
  }
};

template <class T>
struct AveragePool {
  PoolShape s;
  const T* x;
  T* y;
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {
    const Pixel o = pixel_of(r, s.out_h, s.out_w);
    const int i0 = window_begin(o.i, s.stride, s.pad), i1 = window_end(o.i, s.stride, s.pad, s.k, s.h);
    const int j0 = window_begin(o.j, s.stride, s.pad), j1 = window_end(o.j, s.stride, s.pad, s.k, s.w);
    Pack<P> acc(0.f);
    for (int i = i0; i < i1; i++)
      for (int j = j0; j < j1; j++) acc += load<P>(x + ((o.n * s.h + i) * s.w + j) * s.c + c);
    store<P>(y + r * s.c + c, acc * (1.0f / float((i1 - i0) * (j1 - j0))));
  }
};

template <class T>
struct Place {
  PlaceShape s;
  const T* x;
  T* y;
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {
    const Pixel o = pixel_of(r, s.out_h, s.out_w);
    const int i = o.i - s.top, j = o.j - s.left;
    Pack<P> v(0.f);
    if (i >= 0 && i < s.h && j >= 0 && j < s.w) v = load<P>(x + ((o.n * s.h + i) * s.w + j) * s.c + c);
    store<P>(y + r * s.c + c, v);
  }
};

template <class T>
struct CopyChannels {
  int cx, cy, first;
  const T* x;
  T* y;
  KILN_HD void operator()(int64_t i) const {
    const int64_t r = i / cx;
    y[r * cy + first + (i - r * cx)] = x[i];
  }
};

template <class T>
struct Bilinear {
  PlaceShape s;
  const T* x;
  T* y;
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {
    const Pixel o = pixel_of(r, s.out_h, s.out_w);
    const float si = (float(o.i) + 0.5f) * (float(s.h) / float(s.out_h)) - 0.5f, sj = (float(o.j) + 0.5f) * (float(s.w) / float(s.out_w)) - 0.5f;
    const float fi = si > 0.f ? si : 0.f, fj = sj > 0.f ? sj : 0.f;
    const int i0 = int(fi) < s.h - 1 ? int(fi) : s.h - 1, j0 = int(fj) < s.w - 1 ? int(fj) : s.w - 1;
    const int i1 = i0 + 1 < s.h ? i0 + 1 : i0, j1 = j0 + 1 < s.w ? j0 + 1 : j0;
    const float ti = fi - float(i0), tj = fj - float(j0);
    const auto at = [&](int i, int j) { return load<P>(x + ((o.n * s.h + i) * s.w + j) * s.c + c); };
    const Pack<P> top = at(i0, j0) * (1.f - tj) + at(i0, j1) * tj, bottom = at(i1, j0) * (1.f - tj) + at(i1, j1) * tj;
    store<P>(y + r * s.c + c, top * (1.f - ti) + bottom * ti);
  }
};

}  // namespace

void affine_activation(Stream stream, DType t, int64_t rows, int c, const void* x, const float* a, const float* b, float slope, void* y) {
  with_dtype(t, [&]<class T>() { map_rows<T>(stream, rows, c, AffineActivation<T>{c, (const T*)x, a, b, slope, (T*)y}); });
}
void affine_activation_backward(Stream stream, DType t, int64_t rows, int c, const void* y, const float* a, float slope, const void* dy,
                                void* dx) {
  with_dtype(t, [&]<class T>() { map_rows<T>(stream, rows, c, AffineBackward<T>{c, (const T*)y, a, slope, (const T*)dy, (T*)dx}); });
}
void max_pool_forward(Stream stream, DType t, const PoolShape& s, const void* x, void* y) {
  with_dtype(t, [&]<class T>() { map_rows<T>(stream, s.n * s.out_h * s.out_w, s.c, MaxPool<T>{s, (const T*)x, (T*)y}); });
}
void max_pool_backward(Stream stream, DType t, const PoolShape& s, const void* x, const void* dy, void* dx) {
  with_dtype(t, [&]<class T>() { map_rows<T>(stream, s.n * s.h * s.w, s.c, MaxPoolBackward<T>{s, (const T*)x, (const T*)dy, (T*)dx}); });
}
void average_pool(Stream stream, DType t, const PoolShape& s, const void* x, void* y) {
  with_dtype(t, [&]<class T>() { map_rows<T>(stream, s.n * s.out_h * s.out_w, s.c, AveragePool<T>{s, (const T*)x, (T*)y}); });
}
void place(Stream stream, DType t, const PlaceShape& s, const void* x, void* y) {
  with_dtype(t, [&]<class T>() { map_rows<T>(stream, s.n * s.out_h * s.out_w, s.c, Place<T>{s, (const T*)x, (T*)y}); });
}
void copy_channels(Stream stream, DType t, int64_t rows, int cx, int cy, int first, const void* x, void* y) {
  with_dtype(t, [&]<class T>() { map_each(stream, rows * cx, CopyChannels<T>{cx, cy, first, (const T*)x, (T*)y}); });
}
void bilinear(Stream stream, DType t, const PlaceShape& s, const void* x, void* y) {
  with_dtype(t, [&]<class T>() { map_rows<T>(stream, s.n * s.out_h * s.out_w, s.c, Bilinear<T>{s, (const T*)x, (T*)y}); });
}

}  // namespace kiln::KILN_EXEC
