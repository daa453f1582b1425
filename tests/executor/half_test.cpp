// half_t and bf16_t: every value to float, and rounding to nearest even, against plain arithmetic in double.
#include "kernels/exec/half.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "tests/executor/support.h"

using namespace kiln::cpu;
using kiln::bf16_t;
using kiln::half_t;

namespace {

/// The value of a 16-bit float with `fraction` fraction bits, by definition.
double decode(unsigned bits, int fraction, int bias) {
  const int exponent = (bits & 0x7fff) >> fraction;
  const double part = (bits & ((1u << fraction) - 1)) / static_cast<double>(1 << fraction);
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == (0x7fff >> fraction)) return part == 0 ? sign * INFINITY : NAN;
  return sign * (exponent == 0 ? std::ldexp(part, 1 - bias) : std::ldexp(1 + part, exponent - bias));
}

/// The nearest of all values, ties to the even one, by search. Beyond the largest, half a step on is infinity.
unsigned encode(float value, int fraction, int bias) {
  const unsigned infinity = 0x7fffu >> fraction << fraction, sign = std::signbit(value) ? 0x8000u : 0;
  const double magnitude = std::fabs(double{value});
  const auto at = [&](unsigned bits) {  // as if the exponents went on
    return bits == infinity ? std::ldexp(1.0, static_cast<int>(infinity >> fraction) - bias)
                            : decode(bits, fraction, bias);
  };
  unsigned below = 0, above = infinity;
  if (magnitude >= at(infinity)) return sign | infinity;
  while (above - below > 1) {
    const unsigned middle = (below + above) / 2;
    (at(middle) <= magnitude ? below : above) = middle;
  }
  const double down = magnitude - at(below), up = at(above) - magnitude;
  return sign | (down < up || (down == up && below % 2 == 0) ? below : above);
}

float from_bits(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace

TEST_CASE("half_t and bf16_t to float: all values") {
  for (unsigned bits = 0; bits < 0x10000; bits++) {
    const float half = to_float(half_t{static_cast<std::uint16_t>(bits)});
    const float bf16 = to_float(bf16_t{static_cast<std::uint16_t>(bits)});
    const double half_expected = decode(bits, 10, 15), bf16_expected = decode(bits, 7, 127);
    REQUIRE((std::isnan(half_expected) ? std::isnan(half) : half == half_expected));
    REQUIRE((std::isnan(bf16_expected) ? std::isnan(bf16) : bf16 == bf16_expected));
    REQUIRE(std::signbit(half) == (bits >= 0x8000));
    // And back again.
    if (!std::isnan(half)) REQUIRE(kiln::from_float<half_t>(half).bits == bits);
    if (!std::isnan(bf16)) REQUIRE(kiln::from_float<bf16_t>(bf16).bits == bits);
  }
}

TEST_CASE("float to half_t and bf16_t: to nearest, ties to even") {
  std::mt19937 generator(1);
  std::vector<float> values = {0.0f,         -0.0f,           65504.0f,      65519.996f, 65520.0f,  65536.0f,
                               1e30f,        INFINITY,        -INFINITY,     0x1p-14f,   0x1p-24f,  0x1p-25f,
                               0x1.8p-25f,   0x1.000002p-25f, 0x1p-26f,      0x1p-126f,  0x1p-149f, 0x1.ffcp-15f,
                               0x1.ffep-15f, 3.4028235e38f,   3.3895314e38f, 3.396e38f};
  for (int i = 0; i < 20000; i++) {
    const float any = from_bits(generator());
    if (!std::isnan(any)) values.push_back(any);
    // Near the range of half, and exactly in the middle of two neighbours.
    values.push_back(std::ldexp(static_cast<float>(generator()) * 0x1p-32f, static_cast<int>(generator() % 48) - 30));
    values.push_back(from_bits((generator() % 0x4000u + 0x1c000u) << 13 | 0x1000u));
    values.push_back(from_bits((generator() % 0xff00u) << 16 | 0x8000u) * (i % 2 ? 1.0f : -1.0f));
  }
  for (const float value : values) {
    if (std::isnan(value)) continue;
    CAPTURE(value);
    REQUIRE(kiln::from_float<half_t>(value).bits == encode(value, 10, 15));
    REQUIRE(kiln::from_float<bf16_t>(value).bits == encode(value, 7, 127));
    REQUIRE(kiln::from_float<float>(value) == value);
  }
  for (const std::uint32_t nan : {0x7fc00000u, 0x7f800001u, 0xffffffffu, 0xff801000u, 0x7f80ffffu}) {
    CHECK(std::isnan(to_float(kiln::from_float<half_t>(from_bits(nan)))));
    CHECK(std::isnan(to_float(kiln::from_float<bf16_t>(from_bits(nan)))));
  }
}

TEST_CASE("half_t and bf16_t in a kernel") {
  const std::vector<float> x = randoms(1000, -100, 100);
  std::vector<float> y(1000), z(1000);
  through_half(1000, x.data(), y.data(), z.data());
  for (int i = 0; i < 1000; i++) {
    REQUIRE(y[i] == decode(encode(x[i], 10, 15), 10, 15));
    REQUIRE(z[i] == decode(encode(x[i], 7, 127), 7, 127));
  }
}
