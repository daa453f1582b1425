// kernels/attention.h and kernels/gram.h beside plain loops, and the folds of a convolution with a pool (kernels/fold.h).
#include <array>

#include "kernels/attention.h"
#include "kernels/fold.h"
#include "kernels/gram.h"
#include "tests/kernel_test.h"

using namespace kiln;
using namespace kiln::test;

TEST_CASE("kernel: softmax of rows and its gradient, also in place") {
  Random random(60);
  for (const DType t : kFloatTypes)
    for (const auto& [rows, m] : std::vector<std::array<int, 2>>{{1, 1}, {3, 7}, {9, 16}, {17, 33}, {5, 256}, {2, 1000}, {4, 4096}}) {
      CAPTURE(name_of_type(t));
      INFO(fmt::format("{} rows of {}", rows, m));
      Doubles scores = random.normals(DType::f32, rows * m, 4), dp = random.normals(DType::f32, rows * m);
      scores[0] = 80;  // would overflow without the largest taken off
      Sums p(scores.size()), ds(scores.size());
      Doubles saved(scores.size());
      for (int r = 0; r < rows; r++) {
        double top = -1e300, total = 0;
        Sum inner;
        for (int i = 0; i < m; i++) top = std::max(top, scores[size_t(r * m + i)]);
        for (int i = 0; i < m; i++) total += std::exp(scores[size_t(r * m + i)] - top);
        for (int i = 0; i < m; i++) {
          const size_t at = size_t(r * m + i);
          // exp of a difference of floats: its rounding error grows with the difference; below 1e-38 it is flushed.
          p[at] = Sum(std::exp(scores[at] - top) / total, std::exp(scores[at] - top) / total * (2 + std::fabs(scores[at] - top) / 4) + 1e-32);
          saved[at] = rounded(t, p[at].value);
          inner += dp[at] * saved[at];
        }
        for (int i = 0; i < m; i++) {
          const size_t at = size_t(r * m + i);
          ds[at] = Sum(saved[at] * (dp[at] - inner.value), saved[at] * (std::fabs(dp[at]) + inner.size) + 1e-32);
        }
      }
      for_each_executor([&, rows = rows, m = m](Run& run) {
        Buffer &bs = run.in(DType::f32, scores), &bp = run.out(t, rows * m);
        KILN_ON(run, softmax_forward(run.stream(), t, rows, m, bs.f32(), bp.data()));
        run.expect("p", bp, p, 5e-6);
        Buffer &sv = run.in(t, saved), &bdp = run.in(DType::f32, dp), &bds = run.out(t, rows * m);
        KILN_ON(run, softmax_backward(run.stream(), t, rows, m, sv.data(), bdp.f32(), bds.data()));
        run.expect("ds", bds, ds, 5e-6);
        if (t != DType::f32) return;
        Buffer &in_place = run.inout(DType::f32, scores), &back = run.inout(DType::f32, dp);
        KILN_ON(run, softmax_forward(run.stream(), t, rows, m, in_place.f32(), in_place.data()));
        run.expect("p in place", in_place, p, 5e-6);
        KILN_ON(run, softmax_backward(run.stream(), t, rows, m, sv.data(), back.f32(), back.data()));
        run.expect("ds in place", back, ds, 5e-6);
      });
    }
}

TEST_CASE("kernel: x + gamma o and both gradients") {
  Random random(61);
  for (const DType t : kFloatTypes)
    for (const int64_t n : {1, 15, 33, 1000, 9001}) {
      CAPTURE(name_of_type(t));
      CAPTURE(n);
      const Doubles x = random.normals(t, n), o = random.normals(t, n), dy = random.normals(t, n), gamma = random.normals(DType::f32, 1), before = random.normals(DType::f32, 1);
      Sums y(x.size()), dout(x.size());
      Sum dgamma(before[0]);
      for (size_t i = 0; i < x.size(); i++) {
        y[i] = x[i];
        y[i] += gamma[0] * o[i];
        dout[i] = gamma[0] * dy[i];
        dgamma += dy[i] * o[i];
      }
      for_each_executor([&](Run& run) {
        Buffer &bx = run.in(t, x), &bo = run.in(t, o), &bg = run.in(DType::f32, gamma), &by = run.out(t, n);
        KILN_ON(run, gamma_forward(run.stream(), t, n, bx.data(), bo.data(), bg.f32(), by.data()));
        run.expect("y", by, y);
        Buffer &bdy = run.in(t, dy), &bdo = run.out(t, n), &bdg = run.inout(DType::f32, before), &scratch = run.scratch(gamma_scratch_floats());
        KILN_ON(run, gamma_backward(run.stream(), t, n, bo.data(), bdy.data(), bg.f32(), bdo.data(), bdg.f32(), scratch.f32()));
        run.expect("dout", bdo, dout);
        run.expect("dgamma", bdg, Sums{dgamma}, 5e-6);
      });
    }
}

TEST_CASE("kernel: the Gram matrix's residual") {
  Random random(62);
  for (const int n : {1, 3, 16, 33})
    for (const auto& [off, scale] : {std::pair{true, 1.0}, {false, 1.0}, {true, 1024.0}, {false, 1024.0}}) {
      const Doubles g = random.normals(DType::f32, n * n);
      Sums want(g.size());
      for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
          const size_t at = size_t(i * n + j);
          want[at] = 0.25 * scale * (i != j ? g[at] : off ? 0 : g[at] - 1);
        }
      for_each_executor([&](Run& run) {
        Buffer &b = run.inout(DType::f32, g), &by = run.in(DType::f32, {scale});
        KILN_ON(run, gram_residual(run.stream(), n, off, 0.25f, scale == 1 ? nullptr : by.f32(), b.f32()));
        run.expect("g", b, want);
      });
    }
}

TEST_CASE("kernel: a 3x3 convolution and a 2x2 pool folded into a 4x4 one, its adjoint, and the adjoint convolution's weight") {
  Random random(63);
  for (const DType t : kFloatTypes)
    for (const auto& [o, i] : std::vector<std::array<int, 2>>{{1, 1}, {3, 5}, {2, 16}, {16, 48}, {5, 33}}) {
      CAPTURE(name_of_type(t));
      INFO(fmt::format("{} to {}", i, o));
      const auto at = [i = i](int a, int y, int x, int c, int k) { return size_t(((a * k + y) * k + x) * i + c); };
      const Doubles w = random.normals(t, o * 9 * i), dk = random.normals(DType::f32, o * 16 * i), w32 = random.normals(DType::f32, o * 9 * i);
      Sums k(dk.size()), dw(w.size());
      Doubles adjoint(w.size());
      for (int a = 0; a < o; a++)
        for (int c = 0; c < i; c++)
          for (int y = 0; y < 3; y++)
            for (int x = 0; x < 3; x++) {
              for (int dy = 0; dy < 2; dy++)
                for (int dx = 0; dx < 2; dx++) {  // the four outputs that are averaged
                  k[at(a, y + dy, x + dx, c, 4)] += w[at(a, y, x, c, 3)] / 4;
                  dw[at(a, y, x, c, 3)] += dk[at(a, y + dy, x + dx, c, 4)] / 4;
                }
              adjoint[size_t(((c * 3 + 2 - y) * 3 + 2 - x) * o + a)] = 0.25 * w32[at(a, y, x, c, 3)];
            }
      for_each_executor([&, o = o, i = i](Run& run) {
        Buffer &bw = run.in(t, w), &bk = run.out(t, o * 16 * i);
        KILN_ON(run, pool_fold(run.stream(), t, o, i, bw.data(), bk.data()));
        run.expect("k", bk, k);
        Buffer &bdk = run.in(DType::f32, dk), &bdw = run.out(DType::f32, o * 9 * i);
        KILN_ON(run, pool_fold_backward(run.stream(), o, i, bdk.f32(), bdw.f32()));
        run.expect("dw", bdw, dw);
        Buffer &b32 = run.in(DType::f32, w32), &ba = run.out(DType::f32, o * 9 * i);
        KILN_ON(run, adjoint_weights(run.stream(), o, i, 0.25f, b32.f32(), ba.f32()));
        run.expect_exact("adjoint", ba, adjoint);
      });
    }
}
