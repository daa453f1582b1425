// kernels/pointwise.h beside plain loops.
#include "kernels/pointwise.h"

#include <limits>

#include "kernels/exec/half.h"
#include "tests/kernel_test.h"

using namespace kiln;
using namespace kiln::test;

namespace {

constexpr int64_t kSizes[] = {1, 3, 15, 16, 17, 31, 33, 100, 1000, 40003};  // the last is worth two threads

struct RowShape {
  int64_t rows;
  int c;
};

std::vector<RowShape> row_shapes(Random& random) {
  std::vector<RowShape> shapes = {{1, 1},  {3, 2},   {31, 3},  {33, 5},  {2, 6},    {65, 16}, {7, 24},
                                  {9, 48}, {5, 100}, {3, 131}, {2, 528}, {500, 48}, {6001, 3}};
  for (int i = 0; i < 5; i++) shapes.push_back({random.integer(1, 200), random.integer(1, 70)});
  return shapes;
}

}  // namespace

TEST_CASE("kernel: fill") {
  for (const DType t : kFloatTypes)
    for (const int64_t n : kSizes) {
      CAPTURE(name_of_type(t));
      CAPTURE(n);
      for (const float value : {0.0f, 1.0f, -0.3f}) {
        const Doubles want(size_t(n), rounded(t, double(value)));
        for_each_executor([&](Run& run) {
          Buffer& y = run.out(t, n);
          KILN_ON(run, fill(run.stream(), t, n, value, y.data()));
          run.expect_exact("y", y, want);
        });
      }
    }
}

TEST_CASE("kernel: linear_combination, scale and accumulate") {
  Random random(10);
  for (const DType t : kFloatTypes)
    for (const int64_t n : kSizes) {
      CAPTURE(name_of_type(t));
      CAPTURE(n);
      const float a = 0.7f, b = -1.3f;
      const Doubles x = random.normals(t, n), y = random.normals(t, n), total = random.normals(DType::f32, n);
      Sums combined(x.size()), scaled(x.size()), sum(x.size());
      for (size_t i = 0; i < x.size(); i++) {
        combined[i] = Sum(double(a) * x[i]);
        combined[i] += double(b) * y[i];
        scaled[i] = double(a) * x[i];
        sum[i] = total[i];
        sum[i] += double(a) * x[i];
      }
      for_each_executor([&](Run& run) {
        Buffer &bx = run.in(t, x), &by = run.in(t, y), &bz = run.out(t, n);
        KILN_ON(run, linear_combination(run.stream(), t, n, a, bx.data(), b, by.data(), bz.data()));
        run.expect("z", bz, combined);
        Buffer& into_x = run.inout(t, x);
        KILN_ON(run, linear_combination(run.stream(), t, n, a, into_x.data(), b, by.data(), into_x.data()));
        run.expect("z in x's place", into_x, combined);
        Buffer& into_y = run.inout(t, y);
        KILN_ON(run, linear_combination(run.stream(), t, n, a, bx.data(), b, into_y.data(), into_y.data()));
        run.expect("z in y's place", into_y, combined);

        Buffer& bs = run.out(t, n);
        KILN_ON(run, scale(run.stream(), t, n, a, bx.data(), bs.data()));
        run.expect("scale", bs, scaled);
        Buffer& in_place = run.inout(t, x);
        KILN_ON(run, scale(run.stream(), t, n, a, in_place.data(), in_place.data()));
        run.expect("scale in place", in_place, scaled);
        Buffer& copy = run.out(t, n);
        KILN_ON(run, scale(run.stream(), t, n, 1.0f, bx.data(), copy.data()));
        run.expect_exact("scale by one", copy, x);

        Buffer& bt = run.inout(DType::f32, total);
        KILN_ON(run, accumulate(run.stream(), t, n, a, bx.data(), bt.f32()));
        run.expect("accumulate", bt, sum);
      });
    }
}

TEST_CASE("kernel: cast") {
  Random random(11);
  for (const DType from : kFloatTypes)
    for (const DType to : kFloatTypes)
      for (const int64_t n : kSizes) {
        CAPTURE(name_of_type(from));
        CAPTURE(name_of_type(to));
        CAPTURE(n);
        const Doubles x = random.normals(from, n, 10);
        Doubles want = x;
        for (double& v : want) v = rounded(to, v);
        for_each_executor([&](Run& run) {
          Buffer &bx = run.in(from, x), &by = run.out(to, n);
          KILN_ON(run, cast(run.stream(), from, to, n, bx.data(), by.data()));
          run.expect_exact("y", by, want);
        });
      }
}

TEST_CASE("kernel: cast reads every 16-bit number") {
  std::vector<uint16_t> all(65536);
  for (size_t i = 0; i < all.size(); i++) all[i] = uint16_t(i);
  for (const DType t : {DType::f16, DType::bf16}) {
    CAPTURE(name_of_type(t));
    const int fraction_bits = t == DType::f16 ? 10 : 7, full = t == DType::f16 ? 31 : 255,
              bias = t == DType::f16 ? 15 : 127;
    Doubles want;
    for (const uint16_t bits : all) {
      const int exponent = bits >> fraction_bits & full, fraction = bits & ((1 << fraction_bits) - 1);
      double v = exponent == 0 ? std::ldexp(fraction, 1 - bias - fraction_bits)
                               : std::ldexp(fraction + (1 << fraction_bits), exponent - bias - fraction_bits);
      if (exponent == full)
        v = fraction == 0 ? std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
      want.push_back(bits >> 15 ? -v : v);
    }
    for_each_executor([&](Run& run) {
      Buffer &x = run.in(all), &y = run.inout(DType::f32, Doubles(all.size(), 0.0));
      KILN_ON(run, cast(run.stream(), t, DType::f32, int64_t(all.size()), x.data(), y.data()));
      const Doubles got = y.values();
      size_t wrong = 0;
      for (size_t i = 0; i < got.size(); i++)
        wrong += !(got[i] == want[i] || (std::isnan(got[i]) && std::isnan(want[i])));
      CHECK(wrong == 0);
    });
  }
}

TEST_CASE("kernel: noise injection and its weight's gradient") {
  Random random(12);
  for (const DType t : kFloatTypes)
    for (const auto& [rows, c] : row_shapes(random)) {
      CAPTURE(name_of_type(t));
      CAPTURE(rows);
      CAPTURE(c);
      const double w = rounded(DType::f32, 0.3), before = rounded(DType::f32, -0.7);
      const Doubles x = random.normals(t, rows * c), noise = random.normals(DType::f32, rows),
                    dy = random.normals(t, rows * c);
      Sums y(x.size()), dw(1, Sum(before));
      for (size_t i = 0; i < x.size(); i++) {
        const double n = noise[i / size_t(c)];
        y[i] = x[i];
        y[i] += w * n;
        dw[0] += dy[i] * n;
      }
      for_each_executor([&, rows = rows, c = c](Run& run) {
        Buffer &bx = run.in(t, x), &bn = run.in(DType::f32, noise), &bw = run.in(DType::f32, {w}),
               &by = run.out(t, rows * c);
        KILN_ON(run, noise_forward(run.stream(), t, rows, c, bx.data(), bn.f32(), bw.f32(), by.data()));
        run.expect("y", by, y);
        Buffer& in_place = run.inout(t, x);
        KILN_ON(run, noise_forward(run.stream(), t, rows, c, in_place.data(), bn.f32(), bw.f32(), in_place.data()));
        run.expect("y in place", in_place, y);
        Buffer &bdy = run.in(t, dy), &bdw = run.inout(DType::f32, {before}), &scratch = run.scratch(c + 64 * c);
        KILN_ON(run, noise_backward_weight(run.stream(), t, rows, c, bdy.data(), bn.f32(), bdw.f32(), scratch.f32()));
        run.expect("dw", bdw, dw);
      });
    }
}

TEST_CASE("kernel: concatenate and split") {
  Random random(14);
  for (const DType t : kFloatTypes)
    for (const auto& [na, nb] : {std::pair(1, 1), {25, 25}, {100, 100}, {3, 64}, {33, 1}}) {
      CAPTURE(name_of_type(t));
      CAPTURE(na);
      CAPTURE(nb);
      const Doubles a = random.normals(t, na), b = random.normals(t, nb);
      Doubles y = a;
      y.insert(y.end(), b.begin(), b.end());
      for_each_executor([&, na = na, nb = nb](Run& run) {
        Buffer &ba = run.in(t, a), &bb = run.in(t, b), &by = run.out(t, na + nb), &oa = run.out(t, na), &ob = run.out(t, nb);
        KILN_ON(run, concatenate(run.stream(), t, na, ba.data(), nb, bb.data(), by.data()));
        run.expect_exact("y", by, y);
        Buffer& dy = run.in(t, y);
        KILN_ON(run, split(run.stream(), t, na, nullptr, nb, ob.data(), dy.data()));
        run.expect_exact("b alone", ob, b);
        KILN_ON(run, split(run.stream(), t, na, oa.data(), nb, nullptr, dy.data()));
        run.expect_exact("a alone", oa, a);
      });
    }
}

TEST_CASE("kernel: transpose") {
  Random random(13);
  struct Shape {
    int64_t n;
    int a, b;
  };
  std::vector<Shape> shapes = {{1, 1, 1},   {1, 1, 33},  {2, 33, 1},  {3, 3, 5},   {1, 31, 32}, {2, 32, 32},
                               {2, 33, 31}, {1, 64, 96}, {3, 65, 70}, {1, 100, 7}, {5, 8, 40},  {2, 200, 3}};
  for (int i = 0; i < 5; i++) shapes.push_back({random.integer(1, 4), random.integer(1, 130), random.integer(1, 130)});
  for (const auto& [n, a, b] : shapes) {
    CAPTURE(n);
    CAPTURE(a);
    CAPTURE(b);
    const DType t = kFloatTypes[(a + b) % 3];
    CAPTURE(name_of_type(t));
    const Doubles x = random.normals(t, n * a * b);
    Doubles y(x.size());
    for (int64_t k = 0; k < n; k++)
      for (int i = 0; i < a; i++)
        for (int j = 0; j < b; j++) y[size_t((k * b + j) * a + i)] = x[size_t((k * a + i) * b + j)];
    for_each_executor([&, n = n, a = a, b = b](Run& run) {
      Buffer &bx = run.in(t, x), &by = run.out(t, n * a * b);
      KILN_ON(run, transpose(run.stream(), t, n, a, b, bx.data(), by.data()));
      run.expect_exact("y", by, y);
    });
  }
}
