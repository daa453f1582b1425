// The Philox4x32-10 block function and the conversions of its words, for kernels and for host code alike.
#pragma once
#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define KILN_PHILOX_HD __host__ __device__ __forceinline__
#else
#define KILN_PHILOX_HD inline
#endif

namespace kiln::philox {

struct Words {
  uint32_t x, y, z, w;
};

/// Ten rounds on counter `c` with key (k0, k1); checked against the published test vectors in tests/kernel_adam_random_test.cpp.
KILN_PHILOX_HD Words block(Words c, uint32_t k0, uint32_t k1) {
  for (int round = 0; round < 10; round++) {
    const uint64_t a = uint64_t(0xD2511F53u) * c.x, b = uint64_t(0xCD9E8D57u) * c.z;
    c = Words{uint32_t(b >> 32) ^ c.y ^ k0, uint32_t(b), uint32_t(a >> 32) ^ c.w ^ k1, uint32_t(a)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

/// [0, 1), a multiple of 2^-24: exact in a float.
KILN_PHILOX_HD float uniform(uint32_t word) { return float(word >> 8) * 5.9604644775390625e-8f; }

/// Natural logarithm of u in (0, 1], by a polynomial on [1/sqrt 2, sqrt 2]; explicit fma, so that every device rounds alike.
KILN_PHILOX_HD float log_unit(float u) {
  union {
    float f;
    uint32_t i;
  } b;
  b.f = u;
  int e = int(b.i >> 23) - 127;
  b.i = (b.i & 0x007FFFFFu) | 0x3F800000u;
  float m = b.f;
  if (m > 1.41421356f) {
    m *= 0.5f;
    e++;
  }
  const float x = m - 1.0f, s = x / (2.0f + x), s2 = s * s;  // log m = 2 atanh(s)
  float p = 0.22222222f;
  p = fmaf(p, s2, 0.28571429f);
  p = fmaf(p, s2, 0.4f);
  p = fmaf(p, s2, 0.66666667f);
  const float t = fmaf(s * s2, p, 2.0f * s);
  return fmaf(float(e), 0.693147181f, t);
}

/// sin and cos of 2 pi u for the 32-bit fraction u = word / 2^32: the octant comes from the top bits, exactly.
KILN_PHILOX_HD void sincos_turn(uint32_t word, float* s, float* c) {
  const uint32_t quadrant = (word + 0x20000000u) >> 30;                  // the nearest multiple of a quarter turn
  const int32_t rest = int32_t(word - (quadrant << 30));                 // in [-2^29, 2^29)
  const float a = float(rest) * (6.283185307f / 4294967296.0f), a2 = a * a;  // |a| <= pi / 4
  float sp = 2.7557319e-6f;
  sp = fmaf(sp, a2, -1.9841270e-4f);
  sp = fmaf(sp, a2, 8.3333333e-3f);
  sp = fmaf(sp, a2, -1.6666667e-1f);
  const float sn = fmaf(a * a2, sp, a);
  float cp = 2.4801587e-5f;
  cp = fmaf(cp, a2, -1.3888889e-3f);
  cp = fmaf(cp, a2, 4.1666667e-2f);
  cp = fmaf(cp, a2, -0.5f);
  const float cs = fmaf(a2, cp, 1.0f);
  const bool swap = quadrant & 1;
  const float x = swap ? sn : cs, y = swap ? cs : sn;
  *c = (quadrant == 1 || quadrant == 2) ? -x : x;
  *s = (quadrant == 2 || quadrant == 3) ? -y : y;
}

/// Two independent standard normals from two words (Box-Muller).
KILN_PHILOX_HD void normals(uint32_t a, uint32_t b, float* n0, float* n1) {
  const float u = (float(a >> 8) + 1.0f) * 5.9604644775390625e-8f;  // (0, 1]
  const float r = sqrtf(-2.0f * log_unit(u));
  float s, c;
  sincos_turn(b, &s, &c);
  *n0 = r * c;
  *n1 = r * s;
}

}  // namespace kiln::philox
