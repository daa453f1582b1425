// kernels/narrow.h beside plain loops.
#include "kernels/narrow.h"

#include "tests/kernel_test.h"

using namespace kiln;
using namespace kiln::test;

namespace {

size_t wide_at(const NarrowShape& s, int64_t n, int i, int j, int c) { return size_t(((n * s.h + i) * s.w + j) * s.wide + c); }
size_t few_at(const NarrowShape& s, int64_t n, int i, int j, int f) { return size_t(((n * s.h + i) * s.w + j) * s.few + f); }
size_t weight_at(const NarrowShape& s, int f, int tap, int c) { return size_t((f * 9 + tap) * s.wide + c); }

/// Calls body(n, i, j, tap, row, column) for every output pixel and every input pixel under its kernel.
template <class Body>
void each_tap(const NarrowShape& s, Body body) {
  for (int64_t n = 0; n < s.n; n++)
    for (int i = 0; i < s.h; i++)
      for (int j = 0; j < s.w; j++)
        for (int tap = 0; tap < 9; tap++) {
          const int row = i + tap / 3 - 1, column = j + tap % 3 - 1;
          if (row >= 0 && row < s.h && column >= 0 && column < s.w) body(n, i, j, tap, row, column);
        }
}

std::vector<NarrowShape> shapes() {
  std::vector<NarrowShape> all;
  for (int few = 1; few <= kMostFew; few++) {
    all.push_back({1, 1, 1, few, 16});
    all.push_back({2, 5, 9, few, 16});
    all.push_back({1, 3, 26, few, 32});
    all.push_back({1, 4, 7, few, 5});
  }
  all.push_back({1, 2, 33, 3, 64});
  return all;
}

}  // namespace

TEST_CASE("kernel: narrow_forward") {
  Random random(21);
  for (const DType t : kFloatTypes)
    for (const NarrowShape& s : shapes()) {
      CAPTURE(name_of_type(t));
      CAPTURE(s.few);
      CAPTURE(s.wide);
      const int64_t pixels = s.n * s.h * s.w;
      const Doubles x = random.normals(t, pixels * s.wide), w = random.normals(t, int64_t(9) * s.few * s.wide);
      Sums y(size_t(pixels * s.few));
      each_tap(s, [&](int64_t n, int i, int j, int tap, int row, int column) {
        for (int f = 0; f < s.few; f++)
          for (int c = 0; c < s.wide; c++) y[few_at(s, n, i, j, f)] += Sum(x[wide_at(s, n, row, column, c)] * w[weight_at(s, f, tap, c)]);
      });
      for_each_executor([&](Run& run) {
        Buffer &xb = run.in(t, x), &wb = run.in(t, w), &out = run.out(t, pixels * s.few);
        KILN_ON(run, narrow_forward(run.stream(), t, s, xb.data(), wb.data(), out.data()));
        run.expect("y", out, y);
      });
    }
}

TEST_CASE("kernel: narrow_weights") {
  Random random(22);
  for (const DType t : kFloatTypes)
    for (const NarrowShape& s : shapes()) {
      CAPTURE(name_of_type(t));
      CAPTURE(s.few);
      CAPTURE(s.wide);
      const int64_t pixels = s.n * s.h * s.w;
      const Doubles x = random.normals(t, pixels * s.wide), dy = random.normals(t, pixels * s.few);
      Sums dw(size_t(9 * s.few * s.wide));
      each_tap(s, [&](int64_t n, int i, int j, int tap, int row, int column) {
        for (int f = 0; f < s.few; f++)
          for (int c = 0; c < s.wide; c++) dw[weight_at(s, f, tap, c)] += Sum(x[wide_at(s, n, row, column, c)] * dy[few_at(s, n, i, j, f)]);
      });
      for_each_executor([&](Run& run) {
        Buffer &xb = run.in(t, x), &db = run.in(t, dy), &out = run.out(DType::f32, int64_t(dw.size())), &scratch = run.scratch(narrow_scratch_floats(s));
        KILN_ON(run, narrow_weights(run.stream(), t, s, xb.data(), db.data(), out.f32(), scratch.f32()));
        run.expect("dw", out, dw);
      });
    }
}

TEST_CASE("kernel: narrow_turn") {
  Random random(23);
  for (const DType t : kFloatTypes) {
    const int few = 3, wide = 20;
    const Doubles from = random.normals(t, 9 * few * wide);
    Doubles to(from.size());
    for (int f = 0; f < few; f++)
      for (int tap = 0; tap < 9; tap++)
        for (int c = 0; c < wide; c++) to[size_t((f * 9 + tap) * wide + c)] = from[size_t((c * 9 + 8 - tap) * few + f)];
    for_each_executor([&](Run& run) {
      Buffer &in = run.in(t, from), &out = run.out(t, int64_t(to.size()));
      KILN_ON(run, narrow_turn(run.stream(), t, few, wide, in.data(), out.data()));
      run.expect_exact("turned", out, to);
    });
  }
}
