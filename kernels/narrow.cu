#include "kernels/narrow.h"

#include "kernels/exec/primitives.h"

namespace kiln::KILN_EXEC {
namespace {

#if defined(__CUDACC__)
constexpr int kAtOnce = 1;        // few channels whose gradients one pass adds up: nine sums each must stay in registers
constexpr int kForwardStrip = 2;  // pixels of a line that one call computes: so many sums for each few channel
constexpr bool kInner = false;    // strips away from the borders have code of their own, without conditions
#else
constexpr int kAtOnce = 3;
constexpr int kForwardStrip = 4;
constexpr bool kInner = true;
#endif
constexpr int kStrip = 8;

/// A strip of `size` pixels in a line.
struct Strip {
  int64_t n;
  int i, j;
};
KILN_HD int strips_of(int w, int size) { return (w + size - 1) / size; }
KILN_HD Strip strip_at(int64_t r, const NarrowShape& s, int size) {
  const uint32_t all = uint32_t(r), strips = uint32_t(strips_of(s.w, size)), line = all / strips, n = line / uint32_t(s.h);
  return {int64_t(n), int(line - n * uint32_t(s.h)), int(all - line * strips) * size};
}

// ---- wide to few ----------------------------------------------------------------------------------------------------

/// A sum of products of packs. On the CPU the pack is added up at the end, on the GPU as it comes, which takes fewer registers.
template <int P>
struct Dot {
#if defined(__CUDACC__)
  float s = 0.f;
  KILN_HD void add(const Pack<P>& a, const Pack<P>& b) {
    for (int i = 0; i < P; i++) s += a[i] * b[i];
  }
  KILN_HD float total() const { return s; }
#else
  Pack<P> s = Pack<P>(0.f);
  void add(const Pack<P>& a, const Pack<P>& b) { s += a * b; }
  float total() const {
    if constexpr (P <= 4) {
      return sum(s);
    } else {  // in halves as long as they are vectors: a loop over elements goes through memory
      Dot<P / 2> half;
      Pack<P / 2> high;
      __builtin_memcpy(&half.s.v, &s.v, sizeof half.s.v);
      __builtin_memcpy(&high.v, reinterpret_cast<const char*>(&s.v) + sizeof half.s.v, sizeof high.v);
      half.s += high;
      return half.total();
    }
  }
#endif
};

template <class T, int P>
struct Forward {
  NarrowShape s;
  const T *x, *weight;
  T* y;
  /// F channels. Inner: all pixels that the strip reads lie in the line.
  template <int F, bool Inner>
  KILN_HD void strip(const Strip& at) const {
    Dot<P> acc[F][kForwardStrip];
    for (int u = 0; u < 3; u++) {
      const int row = at.i + u - 1;
      if (row < 0 || row >= s.h) continue;
      const T* line = x + ((at.n * s.h + row) * s.w) * s.wide;
      KILN_ROLLED
      for (int v = 0; v < 3; v++) {
        const int first = at.j + v - 1;
        KILN_ROLLED
        for (int c = 0; c < s.wide; c += P) {
          Pack<P> wp[F];
          for (int f = 0; f < F; f++) wp[f] = load<P>(weight + (int64_t(f) * 9 + u * 3 + v) * s.wide + c);
          for (int q = 0; q < kForwardStrip; q++)
            if (Inner || (first + q >= 0 && first + q < s.w)) {
              const Pack<P> xp = load<P>(line + int64_t(first + q) * s.wide + c);
              for (int f = 0; f < F; f++) acc[f][q].add(xp, wp[f]);
            }
        }
      }
    }
    T* to = y + ((at.n * s.h + at.i) * s.w + at.j) * s.few;
    for (int q = 0; q < kForwardStrip; q++)
      for (int f = 0; f < F; f++)
        if (Inner || at.j + q < s.w) to[q * F + f] = from_float<T>(acc[f][q].total());
  }
  template <bool Inner>
  KILN_HD void all(const Strip& at) const {
    if (s.few == 1) strip<1, Inner>(at);
    if (s.few == 2) strip<2, Inner>(at);
    if (s.few == 3) strip<3, Inner>(at);
    if (s.few == 4) strip<4, Inner>(at);
  }
  KILN_HD void operator()(int64_t r) const {
    const Strip at = strip_at(r, s, kForwardStrip);
    if (kInner && at.j > 0 && at.j + kForwardStrip < s.w)
      all<kInner>(at);
    else
      all<false>(at);
  }
};

// ---- gradients of weights -------------------------------------------------------------------------------------------

/// Adds x[p + tap] * dy[p] for F few channels from f on and each tap: x is read once, with nine pixels of dy around.
template <class T, int F>
struct WeightSums {
  NarrowShape s;
  int f;
  const T *x, *dy;
  template <int P, bool Inner>
  KILN_HD void strip(const Strip& at, int c, Sums<9 * F, P>& acc) const {
    const T* from = x + ((at.n * s.h + at.i) * s.w + at.j) * s.wide + c;
    const T* centre = dy + ((at.n * s.h + at.i) * s.w + at.j) * s.few + f;
    KILN_ROLLED
    for (int q = 0; q < kStrip; q++) {
      const int j = at.j + q;
      if (!Inner && j >= s.w) break;
      const Pack<P> xp = load<P>(from + int64_t(q) * s.wide);
      for (int u = 0; u < 3; u++)
        for (int v = 0; v < 3; v++) {
          if (!Inner && (at.i - u + 1 < 0 || at.i - u + 1 >= s.h || j - v + 1 < 0 || j - v + 1 >= s.w)) continue;
          const T* p = centre + (int64_t(1 - u) * s.w + q + 1 - v) * s.few;
          for (int k = 0; k < F; k++) acc.s[k * 9 + u * 3 + v] += to_float(p[k]) * xp;
        }
    }
  }
  template <int P>
  KILN_HD void operator()(int64_t r, int c, Sums<9 * F, P>& acc) const {
    const Strip at = strip_at(r, s, kStrip);
    if (kInner && at.i > 0 && at.i + 1 < s.h && at.j > 0 && at.j + kStrip < s.w) {
      Sums<9 * F, P> mine = acc;
      strip<P, kInner>(at, c, mine);
      acc = mine;
    } else {
      strip<P, false>(at, c, acc);
    }
  }
};

template <class T>
struct Turned {
  int few, wide;
  const T* from;
  T* to;
  KILN_HD void operator()(int64_t i) const {
    const int k = int(i % wide), tap = int(i / wide % 9), f = int(i / (9 * int64_t(wide)));
    to[i] = from[(int64_t(k) * 9 + 8 - tap) * few + f];
  }
};

template <class T, int F>
void add_weights(Stream stream, const NarrowShape& s, int f, const void* x, const void* dy, float* dw, float* scratch) {
  column_sums<T, 9 * F>(stream, 1, s.n * s.h * strips_of(s.w, kStrip), s.wide, WeightSums<T, F>{s, f, (const T*)x, (const T*)dy},
                        dw + int64_t(f) * 9 * s.wide, scratch);
}

}  // namespace

void narrow_forward(Stream stream, DType t, const NarrowShape& s, const void* x, const void* weight, void* y) {
  with_dtype(t, [&]<class T>() {
    with_pack<T>(s.wide, [&]<int P>() {
      map_each(stream, s.n * s.h * strips_of(s.w, kForwardStrip), Forward<T, P>{s, (const T*)x, (const T*)weight, (T*)y},
               int64_t(kForwardStrip) * s.wide);
    });
  });
}

void narrow_weights(Stream stream, DType t, const NarrowShape& s, const void* x, const void* dy, float* dw, float* scratch) {
  with_dtype(t, [&]<class T>() {
    for (int f = 0; f < s.few; f += kAtOnce) {
      const int left = s.few - f;
      if (kAtOnce == 1 || left == 1) add_weights<T, 1>(stream, s, f, x, dy, dw, scratch);
      if (kAtOnce > 1 && left == 2) add_weights<T, kAtOnce == 1 ? 1 : 2>(stream, s, f, x, dy, dw, scratch);
      if (kAtOnce > 1 && left > 2) add_weights<T, kAtOnce>(stream, s, f, x, dy, dw, scratch);
    }
  });
}

void narrow_turn(Stream stream, DType t, int few, int wide, const void* from, void* to) {
  with_dtype(t, [&]<class T>() { map_each(stream, int64_t(9) * few * wide, Turned<T>{few, wide, (const T*)from, (T*)to}); });
}

}  // namespace kiln::KILN_EXEC
