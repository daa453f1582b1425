// kernels/clip.h beside plain loops. The adjoints are written here as scatters: the forward loop, backwards.
#include "kernels/clip.h"

#include <algorithm>

#include "tests/kernel_test.h"

using namespace kiln;
using namespace kiln::test;

namespace {

/// Calls f(input index, output index, share) for every input element that an output element is made of.
using Visit = std::function<void(size_t, size_t, double)>;
using Walk = std::function<void(const Visit&)>;

struct Expected {
  Doubles x, dy;
  Sums y, dx;
};

Expected expected(Random& random, DType t, int64_t in, int64_t out, const Walk& walk) {
  Expected r;
  r.x = random.normals(t, in);
  r.dy = random.normals(t, out);
  r.y.resize(size_t(out));
  r.dx.resize(size_t(in));
  walk([&](size_t i, size_t o, double share) {
    r.y[o] += Sum(r.x[i] * share, std::fabs(r.x[i]));  // a small share is as exact as a large one, and no more
    r.dx[i] += Sum(r.dy[o] * share, std::fabs(r.dy[o]));
  });
  return r;
}

/// Whole frames of clips: output frame o of video n is input frame source(n, o).
Walk frames(const FrameShape& s, const std::function<int(int64_t, int)>& source) {
  return [=](const Visit& f) {
    const int64_t per = int64_t(s.rows) * s.width;
    for (int64_t n = 0; n < s.n; n++)
      for (int o = 0; o < s.out_t; o++)
        for (int64_t i = 0; i < per; i++) f(size_t((n * s.t + source(n, o)) * per + i), size_t((n * s.out_t + o) * per + i), 1);
  };
}

/// Every pixel of the large clip and the one of the small clip whose box it is in.
Walk boxes(const BoxShape& s) {
  return [=](const Visit& f) {
    size_t i = 0;
    for (int64_t n = 0; n < s.n; n++)
      for (int t = 0; t < s.t; t++)
        for (int y = 0; y < s.h; y++)
          for (int x = 0; x < s.w; x++)
            for (int c = 0; c < s.c; c++, i++)
              f(i, size_t((((n * (s.t / s.ft) + t / s.ft) * (s.h / s.fs) + y / s.fs) * (s.w / s.fs) + x / s.fs) * s.c + c), 1);
  };
}

std::vector<std::pair<int, double>> linear_taps(int o, int in, int out) {
  const double p = std::max(0.0, (o + 0.5) * in / out - 0.5);
  const int i = std::min(int(p), in - 1);
  if (i == in - 1) return {{i, 1.0}};
  return {{i, 1 - (p - i)}, {i + 1, p - i}};
}

Walk resizing(const ClipResize& s) {
  return [=](const Visit& f) {
    for (int64_t n = 0; n < s.n; n++)
      for (int t = 0; t < s.out_t; t++)
        for (int y = 0; y < s.out_h; y++)
          for (int x = 0; x < s.out_w; x++)
            for (const auto& [it, wt] : s.linear_time ? linear_taps(t, s.t, s.out_t) : std::vector<std::pair<int, double>>{{t * s.t / s.out_t, 1.0}})
              for (const auto& [iy, wy] : linear_taps(y, s.h, s.out_h))
                for (const auto& [ix, wx] : linear_taps(x, s.w, s.out_w))
                  for (int c = 0; c < s.c; c++)
                    f(size_t((((n * s.t + it) * s.h + iy) * s.w + ix) * s.c + c), size_t((((n * s.out_t + t) * s.out_h + y) * s.out_w + x) * s.c + c),
                      wt * wy * wx);
  };
}

}  // namespace

TEST_CASE("kernel: frames that are taken, repeated and padded, and their adjoints") {
  Random random(120);
  struct Case {
    FrameShape s;
    FrameMap m;
  };
  std::vector<Case> cases = {{{1, 1, 1, 1, 1}, {}},
                             {{2, 7, 3, 3, 15}, {1, 2, 1}},    // every second frame
                             {{3, 4, 7, 2, 33}, {-2, 1, 1}},   // two before, one behind
                             {{1, 1, 5, 5, 16}, {-2, 1, 1}},
                             {{2, 3, 12, 1, 100}, {0, 1, 4}},  // each four times
                             {{2, 5, 8, 3, 31}, {0, 5, 8}},    // nearest neighbour
                             {{2, 9, 4, 2, 48}, {0, 9, 4}},
                             {{2, 6, 4, 2, 1}, {4, 1, 1}}};    // the last frame again and again
  for (int i = 0; i < 6; i++) {
    const int t = random.integer(1, 9), out = random.integer(1, 12);
    cases.push_back({{random.integer(1, 3), t, out, random.integer(1, 5), random.integer(1, 70)}, {0, t, out}});
  }
  for (const DType t : kFloatTypes)
    for (const auto& [s, m] : cases) {
      CAPTURE(name_of_type(t));
      INFO(fmt::format("n {}, {} -> {} frames of {} x {}, map {} {} {}", s.n, s.t, s.out_t, s.rows, s.width, m.first, m.step, m.divide));
      const int64_t per = int64_t(s.rows) * s.width;
      const Expected e = expected(random, t, s.n * s.t * per, s.n * s.out_t * per, frames(s, [s = s, m = m](int64_t, int o) {
                                    return std::clamp(int(std::floor(double(m.first + m.step * o) / m.divide)), 0, s.t - 1);
                                  }));
      for_each_executor([&, s = s, m = m](Run& run) {
        Buffer &x = run.in(t, e.x), &y = run.out(t, int64_t(e.y.size()));
        KILN_ON(run, frames_forward(run.stream(), t, s, m, x.data(), y.data()));
        run.expect("y", y, e.y);
        Buffer &dy = run.in(t, e.dy), &dx = run.out(t, int64_t(e.dx.size()));
        KILN_ON(run, frames_backward(run.stream(), t, s, m, dy.data(), dx.data()));
        run.expect("dx", dx, e.dx);
      });
    }
}

TEST_CASE("kernel: frames by index, some named twice and some not at all") {
  Random random(121);
  for (const DType t : kFloatTypes)
    for (const FrameShape& s : {FrameShape{1, 1, 1, 1, 1}, FrameShape{2, 7, 3, 3, 15}, FrameShape{3, 4, 6, 2, 48}, FrameShape{1, 12, 8, 5, 33}}) {
      CAPTURE(name_of_type(t));
      INFO(fmt::format("n {}, {} -> {} frames of {} x {}", s.n, s.t, s.out_t, s.rows, s.width));
      std::vector<int32_t> index(size_t(s.n * s.out_t));
      for (int32_t& i : index) i = random.integer(0, s.t - 1);
      const int64_t per = int64_t(s.rows) * s.width;
      const Expected e = expected(random, t, s.n * s.t * per, s.n * s.out_t * per,
                                  frames(s, [&](int64_t n, int o) { return index[size_t(n * s.out_t + o)]; }));
      for_each_executor([&](Run& run) {
        Buffer &bi = run.in(index), &x = run.in(t, e.x), &y = run.out(t, int64_t(e.y.size()));
        KILN_ON(run, gather_frames_forward(run.stream(), t, s, bi.as<int32_t>(), x.data(), y.data()));
        run.expect("y", y, e.y);
        Buffer &dy = run.in(t, e.dy), &dx = run.out(t, int64_t(e.dx.size()));
        KILN_ON(run, gather_frames_backward(run.stream(), t, s, bi.as<int32_t>(), dy.data(), dx.data()));
        run.expect("dx", dx, e.dx);
      });
    }
}

TEST_CASE("kernel: different frames from uniform numbers") {
  Random random(122);
  struct Shape {
    int64_t n;
    int t, k;
  };
  for (const auto& [n, t, k] : {Shape{1, 1, 1}, Shape{3, 5, 5}, Shape{33, 12, 8}, Shape{100, 31, 3}, Shape{5, 4, 1}}) {
    INFO(fmt::format("n {}, {} of {}", n, k, t));
    const Doubles u = random.uniforms(n * t);
    // A frame is taken with probability (wanted) / (left), whatever happened before.
    Doubles want;
    for (int64_t v = 0; v < n; v++) {
      int wanted = k;
      for (int i = 0; i < t; i++)
        if (u[size_t(v * t + i)] * (t - i) < wanted) want.push_back(i), wanted--;
    }
    REQUIRE(int64_t(want.size()) == n * k);
    for_each_executor([&, n = n, t = t, k = k](Run& run) {
      Buffer &bu = run.in(DType::f32, u), &index = run.out(DType::i32, n * k);
      KILN_ON(run, draw_frames(run.stream(), n, t, k, bu.f32(), index.as<int32_t>()));
      run.expect_exact("index", index, want);
    });
  }
}

TEST_CASE("kernel: sums over boxes of a clip, and boxes that are filled") {
  Random random(123);
  for (const DType t : kFloatTypes)
    for (const BoxShape& s : {BoxShape{1, 1, 1, 1, 1, 1, 1}, BoxShape{2, 4, 6, 2, 5, 2, 2}, BoxShape{1, 3, 4, 4, 16, 1, 2}, BoxShape{2, 6, 3, 5, 33, 3, 1},
                              BoxShape{3, 5, 1, 1, 1, 5, 1}, BoxShape{1, 2, 9, 6, 24, 2, 3}, BoxShape{2, 4, 1, 1, 100, 4, 1}}) {
      CAPTURE(name_of_type(t));
      INFO(fmt::format("n {}, {} x {} x {} x {}, boxes {} x {}", s.n, s.t, s.h, s.w, s.c, s.ft, s.fs));
      const int64_t large = s.n * s.t * s.h * s.w * s.c, small = large / (s.ft * s.fs * s.fs);
      const float scale = 0.375f;
      Expected e = expected(random, t, large, small, boxes(s));
      for (Sums* sums : {&e.y, &e.dx})
        for (Sum& v : *sums) v = v * scale;
      for_each_executor([&](Run& run) {
        Buffer &x = run.in(t, e.x), &y = run.out(t, small);
        KILN_ON(run, box_sum(run.stream(), t, s, scale, x.data(), y.data()));
        run.expect("sum", y, e.y);
        Buffer &dy = run.in(t, e.dy), &dx = run.out(t, large);
        KILN_ON(run, box_fill(run.stream(), t, s, scale, dy.data(), dx.data()));
        run.expect("fill", dx, e.dx);
      });
    }
}

TEST_CASE("kernel: resizing of clips and its adjoint") {
  Random random(124);
  std::vector<ClipResize> shapes = {{1, 1, 1, 1, 1, 1, 1, 1, true},    {2, 3, 4, 5, 6, 8, 10, 3, false}, {1, 4, 4, 4, 4, 16, 8, 16, true},
                                    {2, 2, 7, 5, 5, 3, 11, 5, true},   {1, 6, 9, 8, 3, 2, 4, 33, true},  {1, 1, 2, 3, 4, 17, 1, 2, true},
                                    {1, 5, 16, 16, 2, 5, 5, 3, false}, {2, 3, 4, 4, 3, 8, 8, 24, true}};
  for (int i = 0; i < 6; i++)
    shapes.push_back({random.integer(1, 2), random.integer(1, 6), random.integer(1, 9), random.integer(1, 9), random.integer(1, 9), random.integer(1, 14),
                      random.integer(1, 14), random.integer(1, 20), i % 2 == 0});
  for (const DType t : kFloatTypes)
    for (const ClipResize& s : shapes) {
      CAPTURE(name_of_type(t));
      INFO(fmt::format("n {}, {} x {} x {} -> {} x {} x {}, {} channels, linear time {}", s.n, s.t, s.h, s.w, s.out_t, s.out_h, s.out_w, s.c, s.linear_time));
      const Expected e = expected(random, t, s.n * s.t * s.h * s.w * s.c, s.n * s.out_t * s.out_h * s.out_w * s.c, resizing(s));
      for_each_executor([&](Run& run) {
        // The place between two pixels is a difference of numbers of the size of a side, rounded to f32.
        Buffer &x = run.in(t, e.x), &y = run.out(t, int64_t(e.y.size()));
        KILN_ON(run, clip_resize_forward(run.stream(), t, s, x.data(), y.data()));
        run.expect("y", y, e.y, 1e-5);
        Buffer &dy = run.in(t, e.dy), &dx = run.out(t, int64_t(e.dx.size()));
        KILN_ON(run, clip_resize_backward(run.stream(), t, s, dy.data(), dx.data()));
        run.expect("dx", dx, e.dx, 1e-5);
      });
    }
}
