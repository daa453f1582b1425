// Pack<P>: P neighbouring floats, and the arithmetic that kernels do on them.
//
// A kernel's body is written once in terms of Pack<P>. On the GPU a pack is what one thread loads with one 16-byte
// access (P = 4 floats or 8 halves); on the CPU it is one or more vector registers (P = 16), through the compiler's
// vector extension, so that the loop over channels needs no luck with the auto-vectoriser. P = 1 is the tail. The
// transcendental functions are polynomials of our own: they vectorise on the CPU, where libm's do not, and they round
// the same everywhere.
#pragma once
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "kernels/exec/exec.h"
#include "kernels/exec/half.h"

namespace kiln::KILN_EXEC {

#if defined(__CUDACC__)
template <int P>
struct Pack {
  float v[P];
  Pack() = default;
  KILN_HD Pack(float x) {
    for (int i = 0; i < P; i++) v[i] = x;
  }
  KILN_HD float& operator[](int i) { return v[i]; }
  KILN_HD float operator[](int i) const { return v[i]; }
};
#define KILN_PACK_OPERATOR(op)                                      \
  template <int P>                                                  \
  KILN_HD Pack<P> operator op(const Pack<P>& a, const Pack<P>& b) { \
    Pack<P> r;                                                      \
    for (int i = 0; i < P; i++) r.v[i] = a.v[i] op b.v[i];          \
    return r;                                                       \
  }                                                                 \
  template <int P>                                                  \
  KILN_HD Pack<P> operator op(const Pack<P>& a, float b) {          \
    Pack<P> r;                                                      \
    for (int i = 0; i < P; i++) r.v[i] = a.v[i] op b;               \
    return r;                                                       \
  }                                                                 \
  template <int P>                                                  \
  KILN_HD Pack<P> operator op(float a, const Pack<P>& b) {          \
    Pack<P> r;                                                      \
    for (int i = 0; i < P; i++) r.v[i] = a op b.v[i];               \
    return r;                                                       \
  }
KILN_PACK_OPERATOR(+)
KILN_PACK_OPERATOR(-)
KILN_PACK_OPERATOR(*)
KILN_PACK_OPERATOR(/)
#undef KILN_PACK_OPERATOR
template <int P>
KILN_HD Pack<P>& operator+=(Pack<P>& a, const Pack<P>& b) {
  for (int i = 0; i < P; i++) a.v[i] += b.v[i];
  return a;
}
/// Applies a scalar function to every element.
template <int P, class F>
KILN_HD Pack<P> each(const Pack<P>& a, F f) {
  Pack<P> r;
  for (int i = 0; i < P; i++) r.v[i] = f(a.v[i]);
  return r;
}
#else
// One specialisation a width: compilers disagree on a vector_size that depends on a template parameter.
template <int P>
struct Vectors;
#define KILN_VECTORS(P)                                                \
  template <>                                                          \
  struct Vectors<P> {                                                  \
    typedef float Float __attribute__((vector_size(4 * P)));           \
    typedef std::int32_t Int __attribute__((vector_size(4 * P)));      \
    typedef std::uint32_t Word __attribute__((vector_size(4 * P)));    \
    typedef std::uint16_t Short __attribute__((vector_size(2 * P)));   \
  };
KILN_VECTORS(2)
KILN_VECTORS(4)
KILN_VECTORS(8)
KILN_VECTORS(16)
#undef KILN_VECTORS

template <int P>
struct Pack {
  using Vec = typename Vectors<P>::Float;
  Vec v;
  Pack() = default;
  Pack(float x) : v(x - Vec{}) {}
  Pack(Vec x) : v(x) {}
  float operator[](int i) const { return v[i]; }
  // Element access for the few places that need it; vector elements have no addressable reference.
  void set(int i, float x) { v[i] = x; }
};
template <>
struct Pack<1> {
  float v;
  Pack() = default;
  Pack(float x) : v(x) {}
  float operator[](int) const { return v; }
  void set(int, float x) { v = x; }
};
#define KILN_PACK_OPERATOR(op)                                      \
  template <int P>                                                  \
  KILN_HD Pack<P> operator op(const Pack<P>& a, const Pack<P>& b) { \
    return Pack<P>(a.v op b.v);                                     \
  }                                                                 \
  template <int P>                                                  \
  KILN_HD Pack<P> operator op(const Pack<P>& a, float b) {          \
    return Pack<P>(a.v op b);                                       \
  }                                                                 \
  template <int P>                                                  \
  KILN_HD Pack<P> operator op(float a, const Pack<P>& b) {          \
    return Pack<P>(a op b.v);                                       \
  }
KILN_PACK_OPERATOR(+)
KILN_PACK_OPERATOR(-)
KILN_PACK_OPERATOR(*)
KILN_PACK_OPERATOR(/)
#undef KILN_PACK_OPERATOR
template <int P>
KILN_HD Pack<P>& operator+=(Pack<P>& a, const Pack<P>& b) {
  a.v += b.v;
  return a;
}
#endif

// ---- load and store: P elements of T at p, which must be aligned to P * sizeof(T) on the GPU
// --------------------------

template <class T, int P>
struct alignas(P * sizeof(T) <= 16 ? P * sizeof(T) : 16) Raw {
  T v[P];
};

template <int P, class T>
KILN_HD Pack<P> load(const T* p) {
  Pack<P> r;
#if defined(__CUDACC__)
  const Raw<T, P> raw = *reinterpret_cast<const Raw<T, P>*>(p);
  for (int i = 0; i < P; i++) r.v[i] = to_float(raw.v[i]);
#else
  if constexpr (sizeof(T) == 4 && P > 1) {
    __builtin_memcpy(&r.v, p, sizeof r.v);
  } else if constexpr (std::is_same_v<T, bf16_t> && P > 1) {  // in vectors: a loop over elements is four times slower
    typename Vectors<P>::Short s;
    __builtin_memcpy(&s, p, sizeof s);
    r.v = (typename Vectors<P>::Float)(__builtin_convertvector(s, typename Vectors<P>::Word) << 16);
  } else if constexpr (P > 1) {
    float t[P];
    for (int i = 0; i < P; i++) t[i] = to_float(p[i]);
    __builtin_memcpy(&r.v, t, sizeof r.v);
  } else {
    r.v = to_float(*p);
  }
#endif
  return r;
}

template <int P, class T>
KILN_HD void store(T* p, const Pack<P>& x) {
#if defined(__CUDACC__)
  if constexpr (P == 1) {
    *p = from_float<T>(x.v[0]);
  } else {
    // In words, through the instruction itself: nvcc splits a vector store into its elements, finds them together again in some
    // loops and in others not (the test wide_accesses looks at what came out).
    constexpr int bytes = P * int(sizeof(T)), per_word = 4 / int(sizeof(T)), words = bytes / 4;
    uint32_t w[words];
    for (int i = 0; i < words; i++) {
      if constexpr (per_word == 1)
        w[i] = half_detail::as_bits(x.v[i]);
      else
        w[i] = uint32_t(from_float<T>(x.v[2 * i]).bits) | uint32_t(from_float<T>(x.v[2 * i + 1]).bits) << 16;
    }
#if defined(__CUDA_ARCH__)
    uint32_t* q = reinterpret_cast<uint32_t*>(p);
    if constexpr (words % 4 == 0) {
      for (int i = 0; i < words; i += 4)
        asm volatile("st.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(q + i), "r"(w[i]), "r"(w[i + 1]), "r"(w[i + 2]), "r"(w[i + 3]) : "memory");
    } else if constexpr (words == 2) {
      asm volatile("st.v2.b32 [%0], {%1, %2};" ::"l"(q), "r"(w[0]), "r"(w[1]) : "memory");
    } else {
      *q = w[0];
    }
#else
    memcpy(p, w, bytes);
#endif
  }
#else
  if constexpr (sizeof(T) == 4 && P > 1) {
    __builtin_memcpy(p, &x.v, sizeof x.v);
  } else if constexpr (std::is_same_v<T, bf16_t> && P > 1) {  // half_detail::float_to_bf16, in vectors
    using Word = typename Vectors<P>::Word;
    const Word bits = (Word)x.v;
    const Word rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const Word word = (bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16) | 0x40u : rounded;
    const auto s = __builtin_convertvector(word, typename Vectors<P>::Short);
    __builtin_memcpy(p, &s, sizeof s);
  } else if constexpr (P > 1) {
    float t[P];
    __builtin_memcpy(t, &x.v, sizeof x.v);
    for (int i = 0; i < P; i++) p[i] = from_float<T>(t[i]);
  } else {
    *p = from_float<T>(x.v);
  }
#endif
}

/// The same for shared memory and for partial sums, where the width of an access does not matter: nvcc may choose its registers.
template <int P>
KILN_HD void store_freely(float* p, const Pack<P>& x) {
#if defined(__CUDACC__)
  for (int i = 0; i < P; i++) p[i] = x.v[i];
#else
  store<P>(p, x);
#endif
}

/// The sum of a pack's elements, pairwise: the same order for every executor.
template <int P>
KILN_HD float sum(const Pack<P>& a) {
  float t[P];
  for (int i = 0; i < P; i++) t[i] = a[i];
  for (int s = P / 2; s > 0; s /= 2)
    for (int i = 0; i < s; i++) t[i] += t[i + s];
  return t[0];
}

// ---- functions ---------------------------------------------------------------------------------------------------

/// exp(x) for floats: 2^n * p(r), with n = round(x / ln 2) and a degree-6 polynomial on |r| <= ln(2)/2, minimax up to 4e-9.
/// Within 1.3 ulp on [-87, 88]; below it flushes to about 1e-38, above it saturates at about 1.6e38 (never inf: a sigmoid
/// stays finite). A NaN stays a NaN.
KILN_HD inline float exp_poly(float a) {
  float x = a > -87.0f ? a : -87.0f;
  x = x < 88.0f ? x : 88.0f;
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer that sits in the low mantissa bits
  const float t = x * 1.44269504088896f + magic;
  const float n = t - magic;
  const float r = fmaf(n, 2.12194440e-4f, fmaf(n, -0.693359375f, x));  // ln 2 in two parts, n * the first exact
  float p = 1.39341252e-3f;
  p = fmaf(p, r, 8.36953641e-3f);
  p = fmaf(p, r, 4.16664742e-2f);
  p = fmaf(p, r, 1.66665126e-1f);
  p = fmaf(p, r, 0.5f);
  p = fmaf(p, r, 1.0f);
  p = fmaf(p, r, 1.0f);
  union {
    float f;
    int i;
  } bits;
  bits.f = t;
  const int e = (bits.i - 0x4B400000) << 23;
  bits.f = p;
  bits.i += e;
  return a == a ? bits.f : a;
}

#if defined(__CUDACC__)
template <int P>
KILN_HD Pack<P> exp(const Pack<P>& x) {
  return each(x, [](float a) { return exp_poly(a); });
}
template <int P>
KILN_HD Pack<P> select_positive(const Pack<P>& x, const Pack<P>& a, const Pack<P>& b) {
  Pack<P> r;
  for (int i = 0; i < P; i++) r.v[i] = x.v[i] > 0.f ? a.v[i] : b.v[i];
  return r;
}
template <int P>
KILN_HD Pack<P> sqrt(const Pack<P>& x) {
  return each(x, [](float a) { return sqrtf(a); });
}
#else
template <int P>
KILN_HD Pack<P> exp(const Pack<P>& x) {
  if constexpr (P == 1) {
    return Pack<1>(exp_poly(x.v));
  } else {
    using Vec = typename Pack<P>::Vec;
    using Int = typename Vectors<P>::Int;
    const float magic = 12582912.0f;
    Vec v = x.v > -87.0f ? x.v : Vec{} - 87.0f;
    v = v < 88.0f ? v : Vec{} + 88.0f;
    const Vec t = v * 1.44269504088896f + magic;
    const Vec n = t - magic;
    const Vec r = (v - n * 0.693359375f) + n * 2.12194440e-4f;  // n * the first part is exact, fused or not
    Vec p = 1.39341252e-3f * r + 8.36953641e-3f;
    p = p * r + 4.16664742e-2f;
    p = p * r + 1.66665126e-1f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const Int e = ((Int)t - 0x4B400000) << 23;
    return Pack<P>(x.v == x.v ? (Vec)((Int)p + e) : x.v);
  }
}
/// x > 0 ? a : b, element by element.
template <int P>
KILN_HD Pack<P> select_positive(const Pack<P>& x, const Pack<P>& a, const Pack<P>& b) {
  return Pack<P>(x.v > 0.f ? a.v : b.v);
}
template <int P>
KILN_HD Pack<P> sqrt(const Pack<P>& x) {
  if constexpr (P == 1) {
    return Pack<1>(std::sqrt(x.v));
  } else {
    Pack<P> r;
    float t[P];
    __builtin_memcpy(t, &x.v, sizeof x.v);
    for (int i = 0; i < P; i++) t[i] = __builtin_sqrtf(t[i]);
    __builtin_memcpy(&r.v, t, sizeof r.v);
    return r;
  }
}
#endif

template <int P>
KILN_HD Pack<P> sigmoid(const Pack<P>& x) {
  return 1.0f / (1.0f + exp(0.0f - x));
}
template <int P>
KILN_HD Pack<P> leaky_relu(const Pack<P>& x, float slope) {
  return select_positive(x, x, x * slope);
}

}  // namespace kiln::KILN_EXEC
