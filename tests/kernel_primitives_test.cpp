// kernels/exec/pack.h and primitives.h: the arithmetic of packs, and that the loops visit everything once and add it
// up.
#include <algorithm>
#include <limits>

#include "tests/kernel_test.h"
#include "tests/kernels/primitives_probe.h"

using namespace kiln;
using namespace kiln::test;

namespace {

constexpr double kLongSum = 1.5e-5;  // thousands of float32 additions one after the other
constexpr int kWidths[] = {1, 2, 4, 8, 16};
const double kNan = std::numeric_limits<double>::quiet_NaN(), kInf = std::numeric_limits<double>::infinity();

/// y = f(x) in packs of `pack`, on each executor.
void for_each_result(PackFunction f, int pack, const Doubles& x, const std::function<void(const Doubles&)>& check) {
  for_each_executor([&](Run& run) {
    Buffer &bx = run.in(DType::f32, x), &by = run.out(DType::f32, int64_t(x.size()));
    KILN_ON(run, probe_pack(run.stream(), f, pack, int64_t(x.size()), bx.f32(), by.f32()));
    check(by.values());
  });
}

/// A float's unit in the last place.
double ulp(double v) { return std::ldexp(1.0, std::max(std::ilogb(v), -126) - 23); }

}  // namespace

TEST_CASE("kernel: exp is within 1.3 ulp on [-87, 88]") {
  Random random(3);
  Doubles x;
  for (int i = 0; i <= 175 * 64; i++) x.push_back(-87 + i / 64.0);
  for (int i = 0; i < 8000; i++) x.push_back(rounded(DType::f32, -87 + 175 * random.uniform()));
  for (int i = 0; i < 8000; i++) x.push_back(rounded(DType::f32, random.normal()));
  for (const double v : {0.0, -0.0, 1e-30, -1e-30, 1e-8, -1e-8, 0.34657359, -0.34657359})
    x.push_back(rounded(DType::f32, v));
  while (x.size() % 16 != 0) x.push_back(1);
  for (const int pack : kWidths) {
    CAPTURE(pack);
    for_each_result(PackFunction::exp, pack, x, [&](const Doubles& y) {
      double worst = 0, at = 0;
      for (size_t i = 0; i < x.size(); i++) {
        const double right = std::exp(x[i]), error = std::fabs(y[i] - right) / ulp(right);
        if (!(error <= worst)) {
          worst = error;
          at = x[i];
        }
      }
      CAPTURE(at);
      CHECK(worst <= 1.3);
    });
  }
}

TEST_CASE("kernel: exp saturates, never overflows, and keeps a NaN") {
  const Doubles x = {-87.5, -100, -1e6, -kInf, 88.5, 1000, rounded(DType::f32, 3e38), kInf, kNan, 0, 0, 0, 0, 0, 0, 0};
  for (const int pack : kWidths) {
    CAPTURE(pack);
    for_each_result(PackFunction::exp, pack, x, [&](const Doubles& y) {
      for (size_t i = 0; i < 4; i++) CHECK((y[i] > 0 && y[i] < 1.7e-38));
      for (size_t i = 4; i < 8; i++) CHECK((y[i] > 1.5e38 && y[i] < 1.8e38));
      CHECK(std::isnan(y[8]));
      for (size_t i = 9; i < 16; i++) CHECK(y[i] == 1.0);
    });
    for_each_result(PackFunction::sigmoid, pack, x, [&](const Doubles& y) {
      for (size_t i = 0; i < 4; i++) CHECK((y[i] >= 0 && y[i] < 1.7e-38));
      for (size_t i = 4; i < 8; i++) CHECK(y[i] == 1.0);
      CHECK(std::isnan(y[8]));
    });
  }
}

TEST_CASE("kernel: exp keeps every kind of NaN") {
  // Poisoned memory is all ones; a GPU's own NaN is 0x7fffffff, x86's 0xffc00000.
  std::vector<uint32_t> bits = {0xffffffffu, 0x7fffffffu, 0xffc00000u, 0x7fc00000u,
                                0x7fc00001u, 0x7fd55555u, 0xffeaaaaau, 0x7fc001ffu};
  for (size_t i = 0; i < 8; i++) bits.push_back(bits[i]);
  for (const int pack : kWidths) {
    CAPTURE(pack);
    for_each_executor([&](Run& run) {
      Buffer &x = run.in(bits), &y = run.out(DType::f32, 16);
      KILN_ON(run, probe_pack(run.stream(), PackFunction::exp, pack, 16, x.f32(), y.f32()));
      // The result's bits may differ between executors; that it is a NaN may not.
      const Doubles got = y.values();
      CHECK(std::all_of(got.begin(), got.end(), [](double v) { return std::isnan(v); }));
    });
  }
}

TEST_CASE("kernel: functions of packs") {
  Random random(4);
  Doubles x = random.normals(DType::f32, 4096, 4);
  x[0] = 0;
  x[1] = -0.0;
  Doubles squares = x;
  for (double& v : squares) v = rounded(DType::f32, v * v);
  for (const int pack : kWidths) {
    CAPTURE(pack);
    const auto check = [&](PackFunction f, const Doubles& in, const Sums& want, double arithmetic) {
      CAPTURE(int(f));
      for_each_executor([&](Run& run) {
        Buffer &bx = run.in(DType::f32, in), &by = run.out(DType::f32, int64_t(in.size()));
        KILN_ON(run, probe_pack(run.stream(), f, pack, int64_t(in.size()), bx.f32(), by.f32()));
        run.expect("f(x)", by, want, arithmetic);
      });
    };
    Sums sigmoid, leaky, select, root;
    for (size_t i = 0; i < x.size(); i++) {
      sigmoid.push_back(1 / (1 + std::exp(-x[i])));
      leaky.push_back(x[i] > 0 ? x[i] : double(0.2f) * x[i]);
      select.push_back(x[i] > 0 ? 1 : x[i]);
      root.push_back(std::sqrt(squares[i]));
    }
    check(PackFunction::sigmoid, x, sigmoid, 5e-7);
    check(PackFunction::leaky_relu, x, leaky, 0);
    check(PackFunction::select_positive, x, select, 0);
    check(PackFunction::sqrt, squares, root, 6e-8);  // GPUs round it right as well, with nvcc's defaults
  }
}

TEST_CASE("kernel: a pack is added up pairwise, halves first") {
  Random random(5);
  for (const int pack : kWidths) {
    CAPTURE(pack);
    const Doubles x = random.normals(DType::f32, 64 * pack, 1000);
    Doubles want;
    for (size_t i = 0; i < 64; i++) {
      std::vector<float> t(size_t(pack), 0.f);
      for (size_t k = 0; k < t.size(); k++) t[k] = float(x[i * t.size() + k]);
      for (size_t half = t.size() / 2; half > 0; half /= 2)
        for (size_t k = 0; k < half; k++) t[k] += t[k + half];
      want.push_back(double(t[0]));
    }
    for_each_executor([&](Run& run) {
      Buffer &bx = run.in(DType::f32, x), &by = run.out(DType::f32, 64);
      KILN_ON(run, probe_pack_sum(run.stream(), pack, int64_t(x.size()), bx.f32(), by.f32()));
      run.expect_exact("sum", by, want);
    });
  }
}

TEST_CASE("kernel: loads and stores of packs keep every type's numbers") {
  Random random(6);
  for (const DType t : kFloatTypes)
    for (const int pack : kWidths) {
      CAPTURE(name_of_type(t));
      CAPTURE(pack);
      const Doubles x = random.normals(t, 48 * 16, 100);
      for_each_executor([&](Run& run) {
        Buffer &bx = run.in(t, x), &by = run.out(t, int64_t(x.size()));
        KILN_ON(run, probe_copy(run.stream(), t, pack, int64_t(x.size()), bx.data(), by.data()));
        run.expect_exact("y", by, x);
      });
    }
}

TEST_CASE("kernel: map, map_each and map_rows visit every element once") {
  for (const DType t : kFloatTypes) {
    CAPTURE(name_of_type(t));
    for (const int64_t n : {0, 1, 3, 7, 8, 15, 16, 17, 31, 33, 1000, 16385, 50001}) {
      CAPTURE(n);
      const Doubles zeros(size_t(n), 0.0), ones(size_t(n), 1.0);
      for_each_executor([&](Run& run) {
        Buffer &visits = run.inout(DType::i32, zeros), &packs = run.out(DType::i32, n);
        KILN_ON(run, probe_map(run.stream(), t, n, visits.as<int32_t>(), packs.as<int32_t>()));
        run.expect_exact("visits", visits, ones);
        // Whole packs at the start, single elements at the end.
        const Doubles width = packs.values();
        const int64_t whole = n == 0 ? 0 : n - std::count(width.begin(), width.end(), 1.0);
        if (whole > 0) CHECK(whole % int64_t(width[0]) == 0);
        if (whole > 0) CHECK(n - whole < int64_t(width[0]));
        CHECK(std::all_of(width.begin(), width.begin() + whole, [&](double w) { return w == width[0]; }));
        CHECK((n < 16 || whole > 0));
        Buffer& each = run.inout(DType::i32, zeros);
        KILN_ON(run, probe_map_each(run.stream(), n, each.as<int32_t>()));
        run.expect_exact("visits of map_each", each, ones);
      });
    }
    for (const int64_t rows : {0, 1, 3, 33, 700})
      for (const int channels : {0, 1, 2, 3, 5, 6, 12, 16, 24, 48, 100, 300}) {
        CAPTURE(rows);
        CAPTURE(channels);
        const Doubles zeros(size_t(rows * channels), 0.0), ones(size_t(rows * channels), 1.0);
        for_each_executor([&](Run& run) {
          Buffer &visits = run.inout(DType::i32, zeros), &packs = run.out(DType::i32, rows * channels);
          KILN_ON(run, probe_map_rows(run.stream(), t, rows, channels, visits.as<int32_t>(), packs.as<int32_t>()));
          run.expect_exact("visits", visits, ones);
          for (const double w : packs.values())
            if (channels % int(w) != 0) FAIL_CHECK("a pack of ", w, " channels does not divide ", channels);
        });
      }
  }
}

namespace {

/// The sums that the probes make of x [groups][n] (one column) or of a column of it.
void add_probe(Sum* s, int64_t stride, double x) {
  s[0] += x;
  s[stride] += x * x;
  s[2 * stride] += 1.0;
}

}  // namespace

TEST_CASE("kernel: column_sums adds up every row of every group") {
  Random random(7);
  struct Shape {
    int64_t groups, rows;
    int channels;
  };
  std::vector<Shape> shapes = {{1, 1, 1},     {1, 3, 2},    {2, 31, 3},   {3, 33, 5},  {2, 65, 6},  {1, 129, 16},
                               {2, 127, 24},  {3, 64, 48},  {1, 5, 100},  {1, 9, 131}, {2, 3, 528}, {1, 4099, 3},
                               {1, 2050, 16}, {1, 700, 48}, {5, 1, 1040}, {1, 1, 264}};
  for (int i = 0; i < 8; i++) shapes.push_back({random.integer(1, 4), random.integer(1, 300), random.integer(1, 70)});
  for (const DType t : kFloatTypes)
    for (const auto& [groups, rows, channels] : shapes) {
      CAPTURE(name_of_type(t));
      CAPTURE(groups);
      CAPTURE(rows);
      CAPTURE(channels);
      const Doubles x = random.normals(t, groups * rows * channels, 1, 0.5);
      Sums want(size_t(groups * kProbeSums * channels));
      for (int64_t g = 0; g < groups; g++)
        for (int64_t r = 0; r < rows; r++)
          for (int c = 0; c < channels; c++)
            add_probe(&want[size_t(g * kProbeSums * channels + c)], channels, x[size_t((g * rows + r) * channels + c)]);
      for_each_executor([&, groups = groups, rows = rows, channels = channels](Run& run) {
        Buffer &bx = run.in(t, x), &out = run.out(DType::f32, int64_t(want.size()));
        Buffer& scratch = run.scratch(cpu::probe_column_scratch(kProbeSums, channels, groups));
        KILN_ON(run, probe_column_sums(run.stream(), t, groups, rows, channels, bx.data(), out.f32(), scratch.f32()));
        run.expect("sums", out, want, kLongSum);
      });
    }
}

TEST_CASE("kernel: column_sums of eight quantities fits into shared memory in every shape") {
  Random random(8);
  for (const int channels : {1, 2, 4, 8, 16, 32, 48, 128, 528}) {
    CAPTURE(channels);
    const int64_t rows = 70;
    const Doubles x = random.normals(DType::f32, rows * channels);
    Sums want(size_t(kProbeManySums * channels));
    for (int k = 0; k < kProbeManySums; k++)
      for (int64_t r = 0; r < rows; r++)
        for (int c = 0; c < channels; c++) want[size_t(k * channels + c)] += x[size_t(r * channels + c)] * (k + 1);
    for_each_executor([&](Run& run) {
      Buffer &bx = run.in(DType::f32, x), &out = run.out(DType::f32, int64_t(want.size()));
      Buffer& scratch = run.scratch(cpu::probe_column_scratch(kProbeManySums, channels, 1));
      KILN_ON(run, probe_many_column_sums(run.stream(), rows, channels, bx.f32(), out.f32(), scratch.f32()));
      run.expect("sums", out, want);
    });
  }
}

TEST_CASE("kernel: segment_sums adds up every element of every segment") {
  Random random(9);
  std::vector<std::pair<int64_t, int64_t>> shapes = {{1, 1},    {1, 3},      {3, 1},     {5, 15},   {2, 16},
                                                     {3, 17},   {7, 33},     {2, 100},   {1, 4095}, {2, 4096},
                                                     {2, 4099}, {1, 140003}, {3, 12304}, {1, 8192}};
  for (int i = 0; i < 6; i++) shapes.push_back({random.integer(1, 5), random.integer(1, 9000)});
  for (const DType t : kFloatTypes)
    for (const auto& [segments, n] : shapes) {
      CAPTURE(name_of_type(t));
      CAPTURE(segments);
      CAPTURE(n);
      const Doubles x = random.normals(t, segments * n, 1, 0.5);
      Sums want(size_t(segments * kProbeSums));
      for (int64_t s = 0; s < segments; s++)
        for (int64_t i = 0; i < n; i++) add_probe(&want[size_t(s * kProbeSums)], 1, x[size_t(s * n + i)]);
      for_each_executor([&, segments = segments, n = n](Run& run) {
        Buffer &bx = run.in(t, x), &out = run.out(DType::f32, int64_t(want.size()));
        Buffer& scratch = run.scratch(cpu::probe_segment_scratch(kProbeSums, segments));
        KILN_ON(run, probe_segment_sums(run.stream(), t, segments, n, bx.data(), out.f32(), scratch.f32()));
        run.expect("sums", out, want, kLongSum);
      });
    }
}
