// half_t and bf16_t: 16-bit floating point as storage, for every compiler and executor.
//
// Neither type has arithmetic, on purpose: a kernel loads, computes in float and rounds once, on store. That gives the
// same numbers on every device and keeps one source free of the differences between the vendors' half classes.
//
//   float x = to_float(p[i]);                 // exact
//   p[i] = from_float<half_t>(x);             // to nearest, ties to even; overflow gives infinity, a NaN stays a NaN
//
// float has the same two functions (they do nothing), so a kernel written for a storage type T takes all three.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define KILN_HALF_FN __host__ __device__ __forceinline__
#else
// Always inlined, so that no out-of-line copy exists: a copy built with wider instructions than the machine has could
// otherwise be the one that the linker keeps for everybody.
#define KILN_HALF_FN inline __attribute__((always_inline))
#endif

namespace kiln {

/// IEEE binary16: 1 sign, 5 exponent, 10 fraction bits. Largest finite value 65504, smallest normal 2^-14.
struct half_t {
  std::uint16_t bits;
};

/// bfloat16: the upper half of a float. 1 sign, 8 exponent, 7 fraction bits.
struct bf16_t {
  std::uint16_t bits;
};

static_assert(sizeof(half_t) == 2 && sizeof(bf16_t) == 2);
static_assert(std::is_trivial_v<half_t> && std::is_trivial_v<bf16_t>, "they live in shared memory and in unions");

namespace half_detail {

// Bit casts that both compilers take (std::bit_cast is no device function in every toolkit).
KILN_HALF_FN float as_float(std::uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
KILN_HALF_FN std::uint32_t as_bits(float value) {
  std::uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

/// A mask, for selecting without a branch: one that a compiler makes of `?:` around a float operation stays a branch,
/// because the operation might raise a floating point exception.
KILN_HALF_FN std::uint32_t all_ones_if(bool condition) { return 0u - static_cast<std::uint32_t>(condition); }

// The host's conversions are straight-line integer and float code with selects in place of branches: compilers turn a
// loop over them into full-width vector code. The scalar F16C instructions would be shorter, but no compiler of today
// vectorises a loop over those intrinsics.
KILN_HALF_FN float half_to_float(std::uint16_t half) {
  const std::int32_t magnitude = (half & 0x7fff) << 13;
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000) << 16;
  // Read as a float, the magnitude is 2^112 times too small, subnormals included: one exact product repairs both. For
  // infinities and NaNs the exponent is still not full then; the fraction is right.
  const std::uint32_t scaled = as_bits(as_float(static_cast<std::uint32_t>(magnitude)) * 0x1p112f);
  return as_float(sign | scaled | (all_ones_if(magnitude >= 0x0f800000) & 0x7f800000u));
}

KILN_HALF_FN std::uint16_t float_to_half(float value) {
  const std::uint32_t bits = as_bits(value);
  const std::int32_t magnitude = static_cast<std::int32_t>(bits & 0x7fffffffu);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  // Normal results: move the exponent's bias from 127 to 15, add half a unit in the last place (a little less when the
  // last bit is even) and let the carry run into the exponent: 65520 and more become infinity that way.
  const std::uint32_t normal =
      (static_cast<std::uint32_t>(magnitude) - (112u << 23) + 0xfffu + ((bits >> 13) & 1u)) >> 13;
  // Subnormal results: adding 0.5 puts the value's last kept bit, 2^-24, at the end of a float's fraction, so that the
  // float adder itself rounds to nearest even.
  const std::uint32_t subnormal = as_bits(as_float(static_cast<std::uint32_t>(magnitude)) + 0.5f) - 0x3f000000u;
  const std::uint32_t nan = 0x7e00u | ((bits >> 13) & 0x3ffu);
  const std::uint32_t small = all_ones_if(magnitude < (113 << 23));
  const std::uint32_t large = all_ones_if(magnitude >= (143 << 23));
  const std::uint32_t not_a_number = all_ones_if(magnitude > 0x7f800000);
  std::uint32_t half = (subnormal & small) | (normal & ~small);
  half = (0x7c00u & large) | (half & ~large);
  half = (nan & not_a_number) | (half & ~not_a_number);
  return static_cast<std::uint16_t>(sign | half);
}

KILN_HALF_FN float bf16_to_float(std::uint16_t bf16) { return as_float(std::uint32_t(bf16) << 16); }

KILN_HALF_FN std::uint16_t float_to_bf16(float value) {
  const std::uint32_t bits = as_bits(value);
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const std::uint32_t nan = (bits >> 16) | 0x40u;  // quiet, or a NaN whose upper bits are zero would become infinity
  return std::uint16_t((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

}  // namespace half_detail

KILN_HALF_FN float to_float(float value) { return value; }

KILN_HALF_FN float to_float(half_t value) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(value.bits));
#else
  return half_detail::half_to_float(value.bits);
#endif
}

KILN_HALF_FN float to_float(bf16_t value) {
#if defined(__CUDA_ARCH__)
  return __bfloat162float(__ushort_as_bfloat16(value.bits));
#else
  return half_detail::bf16_to_float(value.bits);
#endif
}

/// Rounds to T: float, half_t or bf16_t.
template <class T>
KILN_HALF_FN T from_float(float value) {
  if constexpr (std::is_same_v<T, float>) {
    return value;
  } else if constexpr (std::is_same_v<T, half_t>) {
#if defined(__CUDA_ARCH__)
    return half_t{__half_as_ushort(__float2half_rn(value))};
#else
    return half_t{half_detail::float_to_half(value)};
#endif
  } else {
    static_assert(std::is_same_v<T, bf16_t>, "from_float<T>: T is float, half_t or bf16_t");
#if defined(__CUDA_ARCH__)
    return bf16_t{__bfloat16_as_ushort(__float2bfloat16_rn(value))};
#else
    return bf16_t{half_detail::float_to_bf16(value)};
#endif
  }
}

}  // namespace kiln
