// kernels/resize.h beside plain loops. The adjoints are written here as scatters: the forward loop, backwards.
#include "kernels/resize.h"

#include "tests/kernel_test.h"

using namespace kiln;
using namespace kiln::test;

namespace {

std::vector<ResizeShape> shapes(Random& random) {
  std::vector<ResizeShape> s = {{1, 1, 1, 1, 1, 1},    {1, 1, 1, 5, 3, 2},      {2, 5, 3, 1, 1, 3},
                                {1, 3, 3, 7, 7, 5},    {3, 8, 8, 16, 16, 6},    {2, 16, 16, 8, 8, 16},
                                {1, 33, 31, 7, 9, 3},  {2, 7, 9, 33, 31, 1},    {1, 12, 9, 8, 6, 24},
                                {1, 8, 6, 12, 9, 48},  {2, 5, 5, 5, 5, 100},    {1, 2, 3, 31, 33, 5},
                                {1, 31, 33, 31, 1, 2}, {1, 40, 40, 20, 20, 16}, {1, 20, 20, 41, 40, 24}};
  for (int i = 0; i < 8; i++)
    s.push_back({random.integer(1, 3), random.integer(1, 20), random.integer(1, 20), random.integer(1, 20),
                 random.integer(1, 20), random.integer(1, 35)});
  return s;
}

size_t index(int64_t n, int i, int j, int c, int h, int w, int channels) {
  return size_t(((n * h + i) * w + j) * channels + c);
}

/// Calls f(input index, output index, share) for every input element that an output element is made of.
void for_each_nearest(const ResizeShape& s, const std::function<void(size_t, size_t, double)>& f) {
  for (int64_t n = 0; n < s.n; n++)
    for (int i = 0; i < s.out_h; i++)
      for (int j = 0; j < s.out_w; j++)
        for (int c = 0; c < s.c; c++)
          f(index(n, int(std::floor(double(i) * s.h / s.out_h)), int(std::floor(double(j) * s.w / s.out_w)), c, s.h,
                  s.w, s.c),
            index(n, i, j, c, s.out_h, s.out_w, s.c), 1);
}

void for_each_area(const ResizeShape& s, const std::function<void(size_t, size_t, double)>& f) {
  for (int64_t n = 0; n < s.n; n++)
    for (int i = 0; i < s.out_h; i++)
      for (int j = 0; j < s.out_w; j++) {
        const int i0 = int(std::floor(double(i) * s.h / s.out_h)), i1 = int(std::ceil(double(i + 1) * s.h / s.out_h));
        const int j0 = int(std::floor(double(j) * s.w / s.out_w)), j1 = int(std::ceil(double(j + 1) * s.w / s.out_w));
        for (int y = i0; y < i1; y++)
          for (int x = j0; x < j1; x++)
            for (int c = 0; c < s.c; c++)
              f(index(n, y, x, c, s.h, s.w, s.c), index(n, i, j, c, s.out_h, s.out_w, s.c),
                1.0 / ((i1 - i0) * (j1 - j0)));
      }
}

/// Of outputs at least as large as inputs.
void for_each_corner_bilinear(const ResizeShape& s, const std::function<void(size_t, size_t, double)>& f) {
  const auto position = [](int o, int in, int out) { return out == 1 ? 0.0 : double(o) * (in - 1) / (out - 1); };
  for (int64_t n = 0; n < s.n; n++)
    for (int i = 0; i < s.out_h; i++)
      for (int j = 0; j < s.out_w; j++)
        for (int y = 0; y < s.h; y++)
          for (int x = 0; x < s.w; x++) {
            const double share = std::max(0.0, 1 - std::fabs(position(i, s.h, s.out_h) - y)) * std::max(0.0, 1 - std::fabs(position(j, s.w, s.out_w) - x));
            if (share > 1e-9)
              for (int c = 0; c < s.c; c++) f(index(n, y, x, c, s.h, s.w, s.c), index(n, i, j, c, s.out_h, s.out_w, s.c), share);
          }
}

using Walk = void (*)(const ResizeShape&, const std::function<void(size_t, size_t, double)>&);

struct Reference {
  Doubles x, dy;
  Sums y, dx;
};

Reference reference(Random& random, DType t, const ResizeShape& s, Walk walk) {
  Reference r;
  r.x = random.normals(t, s.n * s.h * s.w * s.c);
  r.dy = random.normals(t, s.n * s.out_h * s.out_w * s.c);
  r.y.resize(r.dy.size());
  r.dx.resize(r.x.size());
  walk(s, [&](size_t in, size_t out, double share) {
    r.y[out] += r.x[in] * share;
    r.dx[in] += r.dy[out] * share;
  });
  return r;
}

Doubles values(const Sums& sums) {
  Doubles v;
  for (const Sum& s : sums) v.push_back(s.value);
  return v;
}

}  // namespace

#define CAPTURE_SHAPE(t, s) \
  CAPTURE(name_of_type(t)); \
  INFO(fmt::format("n {}, {} x {} -> {} x {}, {} channels", (s).n, (s).h, (s).w, (s).out_h, (s).out_w, (s).c))

TEST_CASE("kernel: nearest resizing and its adjoint") {
  Random random(20);
  for (const DType t : kFloatTypes)
    for (const ResizeShape& s : shapes(random)) {
      CAPTURE_SHAPE(t, s);
      const Reference r = reference(random, t, s, for_each_nearest);
      for_each_executor([&](Run& run) {
        Buffer &x = run.in(t, r.x), &y = run.out(t, int64_t(r.y.size()));
        KILN_ON(run, nearest_forward(run.stream(), t, s, x.data(), y.data()));
        run.expect_exact("y", y, values(r.y));
        Buffer &dy = run.in(t, r.dy), &dx = run.out(t, int64_t(r.dx.size()));
        KILN_ON(run, nearest_backward(run.stream(), t, s, dy.data(), dx.data()));
        run.expect("dx", dx, r.dx);
      });
    }
}

TEST_CASE("kernel: area resizing and its adjoint") {
  Random random(21);
  for (const DType t : kFloatTypes)
    for (const ResizeShape& s : shapes(random)) {
      CAPTURE_SHAPE(t, s);
      const Reference r = reference(random, t, s, for_each_area);
      for_each_executor([&](Run& run) {
        Buffer &x = run.in(t, r.x), &y = run.out(t, int64_t(r.y.size()));
        KILN_ON(run, area_forward(run.stream(), t, s, x.data(), y.data()));
        run.expect("y", y, r.y);
        Buffer &dy = run.in(t, r.dy), &dx = run.out(t, int64_t(r.dx.size()));
        KILN_ON(run, area_backward(run.stream(), t, s, dy.data(), dx.data()));
        run.expect("dx", dx, r.dx);
      });
    }
}

TEST_CASE("kernel: bilinear resizing between fixed corners and its adjoint") {
  Random random(24);
  std::vector<ResizeShape> shapes = {{1, 1, 1, 1, 1, 1}, {2, 1, 1, 2, 2, 3}, {1, 2, 2, 4, 4, 16}, {2, 4, 8, 8, 16, 5}, {1, 16, 16, 32, 32, 8}, {1, 1, 5, 2, 10, 7}};
  for (int i = 0; i < 6; i++) {
    const int h = random.integer(1, 12), w = random.integer(1, 12);
    shapes.push_back({random.integer(1, 3), h, w, random.integer(h, 3 * h), random.integer(w, 3 * w), random.integer(1, 35)});
  }
  for (const DType t : kFloatTypes)
    for (const ResizeShape& s : shapes) {
      CAPTURE_SHAPE(t, s);
      const Reference r = reference(random, t, s, for_each_corner_bilinear);
      for_each_executor([&](Run& run) {
        Buffer &x = run.in(t, r.x), &y = run.out(t, int64_t(r.y.size()));
        KILN_ON(run, corner_bilinear_forward(run.stream(), t, s, x.data(), y.data()));
        run.expect("y", y, r.y);
        Buffer &dy = run.in(t, r.dy), &dx = run.out(t, int64_t(r.dx.size()));
        KILN_ON(run, corner_bilinear_backward(run.stream(), t, s, dy.data(), dx.data()));
        run.expect("dx", dx, r.dx);
      });
    }
}

TEST_CASE("kernel: area resizing by half is 2x2 average pooling") {
  Random random(22);
  const ResizeShape s{2, 6, 10, 3, 5, 7};
  const Doubles x = random.normals(DType::f32, s.n * s.h * s.w * s.c);
  Sums y;
  for (int64_t n = 0; n < s.n; n++)
    for (int i = 0; i < s.out_h; i++)
      for (int j = 0; j < s.out_w; j++)
        for (int c = 0; c < s.c; c++) {
          Sum sum;
          for (int k = 0; k < 4; k++) sum += 0.25 * x[index(n, 2 * i + k / 2, 2 * j + k % 2, c, s.h, s.w, s.c)];
          y.push_back(sum);
        }
  for_each_executor([&](Run& run) {
    Buffer &bx = run.in(DType::f32, x), &by = run.out(DType::f32, int64_t(y.size()));
    KILN_ON(run, area_forward(run.stream(), DType::f32, s, bx.data(), by.data()));
    run.expect("y", by, y);
  });
}

TEST_CASE("kernel: corner crops and their adjoint") {
  Random random(23);
  std::vector<ResizeShape> crops = {{1, 1, 1, 1, 1, 1},      {2, 8, 8, 4, 4, 3},     {1, 9, 7, 4, 3, 16},
                                    {3, 5, 33, 5, 1, 5},     {1, 33, 5, 1, 5, 24},   {2, 16, 6, 8, 6, 2},
                                    {1, 10, 11, 7, 10, 100}, {1, 64, 64, 32, 32, 16}};
  for (int i = 0; i < 4; i++) {
    const int h = random.integer(1, 20), w = random.integer(1, 20);
    crops.push_back({random.integer(1, 3), h, w, random.integer(1, h), random.integer(1, w), random.integer(1, 35)});
  }
  for (const DType t : kFloatTypes)
    for (const ResizeShape& s : crops)
      for (int q = 0; q < 4; q++) {
        CAPTURE_SHAPE(t, s);
        CAPTURE(q);
        const int top = q >= 2 ? s.h - s.out_h : 0, left = q % 2 == 1 ? s.w - s.out_w : 0;
        const Doubles x = random.normals(t, s.n * s.h * s.w * s.c),
                      dy = random.normals(t, s.n * s.out_h * s.out_w * s.c);
        Doubles y(dy.size()), dx(x.size(), 0.0);
        for (int64_t n = 0; n < s.n; n++)
          for (int i = 0; i < s.out_h; i++)
            for (int j = 0; j < s.out_w; j++)
              for (int c = 0; c < s.c; c++) {
                const size_t in = index(n, top + i, left + j, c, s.h, s.w, s.c),
                             out = index(n, i, j, c, s.out_h, s.out_w, s.c);
                y[out] = x[in];
                dx[in] = dy[out];
              }
        for_each_executor([&](Run& run) {
          Buffer &corner = run.in(std::vector<int32_t>{q}), &bx = run.in(t, x), &by = run.out(t, int64_t(y.size()));
          KILN_ON(run, corner_crop_forward(run.stream(), t, s, corner.as<int32_t>(), bx.data(), by.data()));
          run.expect_exact("y", by, y);
          Buffer &bdy = run.in(t, dy), &bdx = run.out(t, int64_t(dx.size()));
          KILN_ON(run, corner_crop_backward(run.stream(), t, s, corner.as<int32_t>(), bdy.data(), bdx.data()));
          run.expect_exact("dx", bdx, dx);
        });
      }
}

TEST_CASE("kernel: a corner from a uniform number") {
  const std::pair<double, double> cases[] = {{0, 0},      {0.2499, 0}, {0.25, 1},        {0.4999, 1}, {0.5, 2},
                                             {0.7499, 2}, {0.75, 3},   {1 - 0x1p-24, 3}, {1, 3}};
  for (const auto& [u, q] : cases) {
    CAPTURE(u);
    for_each_executor([&, u = u, q = q](Run& run) {
      Buffer &bu = run.in(DType::f32, {rounded(DType::f32, u)}), &corner = run.out(DType::i32, 1);
      KILN_ON(run, corner_from_uniform(run.stream(), bu.f32(), corner.as<int32_t>()));
      run.expect_exact("corner", corner, {q});
    });
  }
}
