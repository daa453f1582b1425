#include "kernels/perceptual.h"

#include "kernels/exec/primitives.h"

namespace kiln::KILN_EXEC {
namespace {

constexpr float kTiny = 1e-10f;

/// One pixel at a time, P channels at once. P divides c.
template <class T, int P>
KILN_HD float length(const T* p, int c) {
  Pack<P> acc(0.f);
  for (int k = 0; k < c; k += P) {
    const Pack<P> v = load<P>(p + k);
    acc += v * v;
  }
  return sqrtf(sum(acc));
}

template <class T, int P>
struct PixelDistance {
  int c;
  const T *f, *g;
  const float* head;
  float* out;
  KILN_HD void operator()(int64_t r) const {
    const T *a = f + r * c, *b = g + r * c;
    const float ra = 1.f / (length<T, P>(a, c) + kTiny), rb = 1.f / (length<T, P>(b, c) + kTiny);
    Pack<P> acc(0.f);
    for (int k = 0; k < c; k += P) {
      const Pack<P> d = load<P>(a + k) * ra - load<P>(b + k) * rb;
      acc += load<P>(head + k) * d * d;
    }
    out[r] = sum(acc);
  }
};

struct SumPixels {
  int64_t pixels;
  const float* x;
  template <int P>
  KILN_HD void operator()(int64_t s, int64_t i, Sums<1, P>& acc) const {
    acc.s[0] += load<P>(x + s * pixels + i) * (1.f / float(pixels));
  }
};

// With u = f/a, a = |f| + e and q = 2 head (u - v), v the other's: df = q/a - (q.f) f / (|f| a^2).
template <class T, int P>
struct PixelGradient {
  int64_t pixels;
  int c;
  const T *f, *g;
  const float *head, *seed;
  T* df;
  KILN_HD void operator()(int64_t r) const {
    const T *a = f + r * c, *b = g + r * c;
    T* out = df + r * c;
    const float la = length<T, P>(a, c);
    if (la == 0.f) {
      for (int k = 0; k < c; k += P) store<P>(out + k, Pack<P>(0.f));
      return;
    }
    const float ra = 1.f / (la + kTiny), rb = 1.f / (length<T, P>(b, c) + kTiny);
    const float scale = 2.f * seed[r / pixels] / float(pixels);
    Pack<P> acc(0.f);
    for (int k = 0; k < c; k += P) {
      const Pack<P> x = load<P>(a + k);
      acc += load<P>(head + k) * (x * ra - load<P>(b + k) * rb) * x;
    }
    const float along = sum(acc) * ra * ra / la;
    for (int k = 0; k < c; k += P) {
      const Pack<P> x = load<P>(a + k);
      store<P>(out + k, (load<P>(head + k) * (x * ra - load<P>(b + k) * rb) * ra - x * along) * scale);
    }
  }
};

}  // namespace

void perceptual_forward(Stream stream, DType t, int64_t n, int64_t pixels, int c, const void* f, const void* g, const float* head,
                        float* value, float* scratch) {
  with_dtype(t, [&]<class T>() {
    with_pack<T>(c, [&]<int P>() { map_each(stream, n * pixels, PixelDistance<T, P>{c, (const T*)f, (const T*)g, head, scratch}, c); });
  });
  segment_sums<float, 1>(stream, n, pixels, SumPixels{pixels, scratch}, value, scratch + n * pixels);
}
void perceptual_backward(Stream stream, DType t, int64_t n, int64_t pixels, int c, const void* f, const void* g, const float* head,
                         const float* seed, void* df) {
  with_dtype(t, [&]<class T>() {
    with_pack<T>(c, [&]<int P>() {
      map_each(stream, n * pixels, PixelGradient<T, P>{pixels, c, (const T*)f, (const T*)g, head, seed, (T*)df}, c);
    });
  });
}

}  // namespace kiln::KILN_EXEC
