// kernels/feature.h and kernels/perceptual.h beside plain loops.
#include "kernels/feature.h"

#include <array>

#include "kernels/perceptual.h"
#include "tests/kernel_test.h"

using namespace kiln;
using namespace kiln::test;

namespace {

size_t at(int64_t n, int i, int j, int c, int h, int w, int channels) { return size_t(((n * h + i) * w + j) * channels + c); }

Doubles floats(const Doubles& v) {
  Doubles out;
  for (double x : v) out.push_back(double(float(x)));
  return out;
}

std::vector<PoolShape> pools(Random& random) {
  std::vector<PoolShape> s = {{1, 5, 7, 2, 3, 3, 3, 2, 0}, {2, 6, 8, 3, 4, 16, 2, 2, 0}, {1, 8, 8, 4, 4, 5, 3, 2, 0}, {1, 4, 5, 4, 5, 24, 3, 1, 1}, {1, 1, 1, 1, 1, 2, 3, 1, 1}};
  for (int i = 0; i < 6; i++) {
    const int k = random.integer(1, 4), stride = random.integer(1, 3), h = random.integer(k, 12), w = random.integer(k, 12);
    s.push_back({random.integer(1, 2), h, w, (h - k) / stride + 1, (w - k) / stride + 1, random.integer(1, 20), k, stride, 0});
  }
  return s;
}

/// Calls f(n, i, j, c, inputs of the window in order).
template <class F>
void each_window(const PoolShape& s, F f) {
  for (int64_t n = 0; n < s.n; n++)
    for (int i = 0; i < s.out_h; i++)
      for (int j = 0; j < s.out_w; j++)
        for (int c = 0; c < s.c; c++) {
          std::vector<size_t> inside;
          for (int y = 0; y < s.k; y++)
            for (int x = 0; x < s.k; x++) {
              const int iy = i * s.stride - s.pad + y, ix = j * s.stride - s.pad + x;
              if (iy >= 0 && iy < s.h && ix >= 0 && ix < s.w) inside.push_back(at(n, iy, ix, c, s.h, s.w, s.c));
            }
          f(at(n, i, j, c, s.out_h, s.out_w, s.c), inside);
        }
}

}  // namespace

TEST_CASE("kernel: an affine map with a rectifier, and its gradient") {
  Random random(70);
  for (const DType t : kFloatTypes)
    for (const int c : {1, 3, 8, 48})
      for (const float slope : {0.f, 0.1f, 1.f})
        for (const bool scaled : {false, true}) {
          const int64_t rows = 37;
          const Doubles x = random.normals(t, rows * c), a = random.normals(DType::f32, c), b = random.normals(DType::f32, c);
          Doubles dy = random.normals(t, rows * c), saved = random.normals(t, rows * c);
          dy[0] = NAN;  // a rectifier selects: what it cuts off is 0, whatever came
          saved[0] = 0;
          Sums y, dx;
          for (int64_t i = 0; i < rows * c; i++) {
            const size_t k = size_t(i), ch = size_t(i % c);
            const double v = (scaled ? a[ch] : 1) * x[k] + b[ch], m = std::fabs(a[ch] * x[k]) + std::fabs(b[ch]) + std::fabs(x[k]);
            y.push_back({v > 0 ? v : v * double(slope), m});
            const double d = (scaled ? a[ch] : 1) * dy[k];
            const double g = saved[k] > 0 || slope == 1.f ? d : slope == 0.f ? 0 : d * double(slope);
            dx.push_back({g, std::fabs(d)});
            if (k == 0 && slope == 0.f) dx.back() = {0, 0};
          }
          for_each_executor([&](Run& run) {
            Buffer &xb = run.in(t, x), &ab = run.in(DType::f32, a), &bb = run.in(DType::f32, b), &yb = run.out(t, rows * c);
            KILN_ON(run, affine_activation(run.stream(), t, rows, c, xb.data(), scaled ? ab.f32() : nullptr, bb.f32(), slope, yb.data()));
            run.expect("y", yb, y);
            Buffer &sb = run.in(t, saved), &db = run.in(t, dy), &gb = run.out(t, rows * c);
            KILN_ON(run, affine_activation_backward(run.stream(), t, rows, c, slope == 1.f ? nullptr : sb.data(), scaled ? ab.f32() : nullptr, slope, db.data(), gb.data()));
            run.expect("dx", gb, dx);
          });
        }
}

TEST_CASE("kernel: pooling by maximum, its gradient, and by mean inside of the picture") {
  Random random(71);
  for (const DType t : kFloatTypes)
    for (const PoolShape& s : pools(random)) {
      INFO(fmt::format("{}x{}x{}x{} to {}x{}, window {}, stride {}, pad {}", s.n, s.h, s.w, s.c, s.out_h, s.out_w, s.k, s.stride, s.pad));
      Doubles x = random.normals(t, s.n * s.h * s.w * s.c);
      for (double& v : x)
        if (v < 0) v = 0;  // many equal values, as behind a ReLU: the first one counts
      const Doubles dy = random.normals(t, s.n * s.out_h * s.out_w * s.c);
      Doubles largest(dy.size());
      Sums dx(x.size()), mean(dy.size());
      each_window(s, [&](size_t out, const std::vector<size_t>& inside) {
        size_t best = inside[0];
        for (size_t i : inside) {
          if (x[i] > x[best]) best = i;
          mean[out] += Sum(x[i] / double(inside.size()));
        }
        largest[out] = x[best];
        dx[best] += Sum(dy[out]);
      });
      for_each_executor([&](Run& run) {
        Buffer &xb = run.in(t, x), &yb = run.out(t, int64_t(dy.size())), &db = run.in(t, dy), &gb = run.out(t, int64_t(x.size()));
        KILN_ON(run, max_pool_forward(run.stream(), t, s, xb.data(), yb.data()));
        run.expect_exact("largest", yb, largest);
        KILN_ON(run, max_pool_backward(run.stream(), t, s, xb.data(), db.data(), gb.data()));
        run.expect("dx", gb, dx);
        Buffer& mb = run.out(t, int64_t(dy.size()));
        KILN_ON(run, average_pool(run.stream(), t, s, xb.data(), mb.data()));
        run.expect("mean", mb, mean);
      });
    }
}

TEST_CASE("kernel: padding, joining channels, bilinear resizing") {
  Random random(72);
  for (const DType t : kFloatTypes)
    for (const auto& [h, w, oh, ow, c] : std::initializer_list<std::array<int, 5>>{{3, 4, 7, 9, 5}, {8, 5, 11, 8, 16}, {1, 1, 4, 3, 2}, {9, 12, 5, 7, 3}, {6, 6, 6, 6, 48}}) {
      const int64_t n = 2;
      const Doubles x = random.normals(t, n * h * w * c);
      const bool grows = oh >= h && ow >= w;
      const PlaceShape s{n, h, w, oh, ow, c, grows ? (oh - h) / 2 : 0, grows ? (ow - w) / 3 : 0};
      Doubles placed, joined(size_t(n * h * w * (c + 3)), 0);
      Sums resized;
      for (int64_t k = 0; k < n; k++)
        for (int i = 0; i < oh; i++)
          for (int j = 0; j < ow; j++)
            for (int ch = 0; ch < c; ch++) {
              const int y = i - s.top, z = j - s.left;
              placed.push_back(y >= 0 && y < h && z >= 0 && z < w ? x[at(k, y, z, ch, h, w, c)] : 0);
              const double si = std::max(0.0, (i + 0.5) * h / oh - 0.5), sj = std::max(0.0, (j + 0.5) * w / ow - 0.5);
              const int i0 = std::min(int(si), h - 1), j0 = std::min(int(sj), w - 1), i1 = std::min(i0 + 1, h - 1), j1 = std::min(j0 + 1, w - 1);
              const double ti = si - i0, tj = sj - j0;
              const double a = x[at(k, i0, j0, ch, h, w, c)], b = x[at(k, i0, j1, ch, h, w, c)], d = x[at(k, i1, j0, ch, h, w, c)], e = x[at(k, i1, j1, ch, h, w, c)];
              resized.push_back({(a * (1 - tj) + b * tj) * (1 - ti) + (d * (1 - tj) + e * tj) * ti, 4 * (std::fabs(a) + std::fabs(b) + std::fabs(d) + std::fabs(e))});
            }
      for (int64_t r = 0; r < n * h * w; r++)
        for (int ch = 0; ch < c; ch++) joined[size_t(r * (c + 3) + 2 + ch)] = x[size_t(r * c + ch)];
      for_each_executor([&](Run& run) {
        Buffer& xb = run.in(t, x);
        if (grows) {
          Buffer& pb = run.out(t, int64_t(placed.size()));
          KILN_ON(run, place(run.stream(), t, s, xb.data(), pb.data()));
          run.expect_exact("placed", pb, placed);
        }
        Buffer& jb = run.inout(t, Doubles(joined.size(), 0));
        KILN_ON(run, copy_channels(run.stream(), t, n * h * w, c, c + 3, 2, xb.data(), jb.data()));
        run.expect_exact("joined", jb, joined);
        Buffer& rb = run.out(t, int64_t(resized.size()));
        KILN_ON(run, bilinear(run.stream(), t, s, xb.data(), rb.data()));
        run.expect("resized", rb, resized);
      });
    }
}

TEST_CASE("kernel: the perceptual distance and its gradient") {
  Random random(73);
  for (const DType t : kFloatTypes)
    for (const int c : {1, 3, 16, 40}) {
      const int64_t n = 3, pixels = 21;
      Doubles f = random.normals(t, n * pixels * c), g = random.normals(t, n * pixels * c), head = random.uniforms(c), seed = random.uniforms(n);
      for (double& v : f)
        if (v < 0) v = 0;
      for (int k = 0; k < 2 * c; k++) f[size_t(k)] = 0;  // two pixels without anything
      head = floats(head);
      Sums value(n), df(f.size());
      for (int64_t p = 0; p < n * pixels; p++) {
        double lf = 0, lg = 0;
        for (int k = 0; k < c; k++) {
          lf += f[size_t(p * c + k)] * f[size_t(p * c + k)];
          lg += g[size_t(p * c + k)] * g[size_t(p * c + k)];
        }
        lf = std::sqrt(lf);
        lg = std::sqrt(lg);
        const double a = lf + 1e-10, b = lg + 1e-10, share = seed[size_t(p / pixels)] / double(pixels);
        double along = 0;
        Doubles q;
        for (int k = 0; k < c; k++) {
          const double d = f[size_t(p * c + k)] / a - g[size_t(p * c + k)] / b;
          q.push_back(2 * head[size_t(k)] * d);
          value[size_t(p / pixels)] += Sum(head[size_t(k)] * d * d / double(pixels), 4 * head[size_t(k)] / double(pixels));
          along += q.back() * f[size_t(p * c + k)];
        }
        for (int k = 0; k < c; k++)
          df[size_t(p * c + k)] = lf == 0 ? Sum(0) : Sum(share * (q[size_t(k)] / a - along * f[size_t(p * c + k)] / (lf * a * a)), share * 40 * c / a);
      }
      for_each_executor([&](Run& run) {
        Buffer &fb = run.in(t, f), &gb = run.in(t, g), &hb = run.in(DType::f32, head), &sb = run.in(DType::f32, seed), &vb = run.out(DType::f32, n);
        Buffer& scratch = run.scratch(perceptual_scratch_floats(n, pixels));
        KILN_ON(run, perceptual_forward(run.stream(), t, n, pixels, c, fb.data(), gb.data(), hb.f32(), vb.f32(), scratch.f32()));
        run.expect("value", vb, value);
        Buffer& db = run.out(t, int64_t(f.size()));
        KILN_ON(run, perceptual_backward(run.stream(), t, n, pixels, c, fb.data(), gb.data(), hb.f32(), sb.f32(), db.data()));
        run.expect("df", db, df);
      });
    }
}
