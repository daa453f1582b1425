// kernels/gru.h beside plain loops, one frame at a time.
#include "kernels/gru.h"

#include "tests/kernel_test.h"

using namespace kiln;
using namespace kiln::test;

namespace {

double logistic(double x) { return 1 / (1 + std::exp(-x)); }

/// Numbers as they are stored by somebody who computed them before: on (0, 1).
Doubles gates(Random& random, DType t, int64_t n) {
  Doubles v = random.normals(t, n);
  for (double& x : v) x = rounded(t, logistic(x));
  return v;
}

struct Sizes {
  GruShape s;
  int64_t rows() const { return s.n * s.pixels; }
  int64_t state() const { return rows() * s.c; }
  /// Where element j of row r of frame f lies in a clip of `channels`.
  size_t in_clip(int64_t r, int f, int64_t channels, int64_t j) const {
    return size_t((((r / s.pixels) * s.frames + f) * s.pixels + r % s.pixels) * channels + j);
  }
  size_t in_input(int64_t r, int f, int64_t j) const { return s.constant_input ? size_t(r * 3 * s.c + j) : in_clip(r, f, 3 * s.c, j); }
  int64_t input() const { return state() * 3 * (s.constant_input ? 1 : s.frames); }
};

std::vector<Sizes> all_sizes() {
  return {{{1, 1, 1, 1, false}}, {{2, 5, 3, 3, false}}, {{3, 4, 2, 16, false}}, {{2, 9, 4, 33, true}}, {{1, 31, 2, 24, true}}, {{2, 6, 5, 100, false}}};
}

}  // namespace

TEST_CASE("kernel: gru, gates and blending") {
  Random random(130);
  for (const DType t : kFloatTypes)
    for (const Sizes& z : all_sizes())
      for (const bool first : {true, false})
        for (const Activation act : {Activation::relu, Activation::tanh}) {
          const GruShape& s = z.s;
          const int c = s.c, frame = first ? 0 : s.frames - 1;
          CAPTURE(name_of_type(t));
          INFO(fmt::format("n {}, {} pixels, {} frames, {} channels, constant {}, first {}, act {}", s.n, s.pixels, s.frames, c, s.constant_input, first,
                           int(act)));
          const Doubles gx = random.normals(t, z.input()), gh = random.normals(t, 2 * z.state()), ck = random.normals(t, z.state());
          const Doubles h = random.normals(t, z.state()), b = random.normals(DType::f32, 3 * c), ru = gates(random, t, 2 * z.state());
          Sums want_ru(gh.size()), want_rh(h.size()), k(h.size()), next(h.size()), y(h.size() * size_t(s.frames), Sum(std::nan("")));
          for (int64_t r = 0; r < z.rows(); r++)
            for (int64_t j = 0; j < c; j++) {
              const size_t i = size_t(r * c + j), p = size_t(r * 2 * c + j);
              const double reset = logistic(gx[z.in_input(r, frame, j)] + b[size_t(j)] + (first ? 0 : gh[p]));
              want_ru[p] = Sum(reset, 1);
              want_ru[p + size_t(c)] = Sum(logistic(gx[z.in_input(r, frame, c + j)] + b[size_t(c + j)] + (first ? 0 : gh[p + size_t(c)])), 1);
              want_rh[i] = Sum(reset * h[i], std::fabs(h[i]));
              const double sum = gx[z.in_input(r, frame, 2 * c + j)] + b[size_t(2 * c + j)] + (first ? 0 : ck[i]);
              k[i] = Sum(act == Activation::tanh ? std::tanh(sum) : std::max(0.0, sum), 1 + std::fabs(sum) + std::fabs(ck[i]));
              const double u = ru[p + size_t(c)], before = first ? 0 : h[i];
              next[i] = Sum(u * before + (1 - u) * k[i].value, std::fabs(u * before) + k[i].size);
              y[z.in_clip(r, frame, c, j)] = next[i];
            }
          for_each_executor([&](Run& run) {
            Buffer &bx = run.in(t, gx), &bb = run.in(DType::f32, b), &bh = run.in(t, h), &bru = run.in(t, ru);
            // In place, as the op calls it, where there is something to stand in.
            Buffer &pair = first ? run.out(t, 2 * z.state()) : run.inout(t, gh), &rh = run.out(t, z.state());
            KILN_ON(run, gru_gates(run.stream(), t, s, frame, bx.data(), first ? nullptr : pair.data(), first ? nullptr : bh.data(), bb.f32(), pair.data(),
                                   first ? nullptr : rh.data()));
            run.expect("ru", pair, want_ru, 5e-6);
            if (!first) run.expect("rh", rh, want_rh, 5e-6);
            Buffer &bk = first ? run.out(t, z.state()) : run.inout(t, ck), &bn = run.out(t, z.state()), &by = run.out(t, z.state() * s.frames);
            KILN_ON(run, gru_blend(run.stream(), t, s, frame, act, bx.data(), first ? nullptr : bk.data(), bru.data(), first ? nullptr : bh.data(), bb.f32(),
                                   bk.data(), bn.data(), by.data()));
            run.expect("k", bk, k, 5e-6);
            run.expect("h", bn, next, 5e-6);
            run.expect("y", by, y, 5e-6);
          });
        }
}

TEST_CASE("kernel: gru, backward") {
  Random random(131);
  for (const DType t : kFloatTypes)
    for (const Sizes& z : all_sizes())
      for (const bool first : {true, false})
        for (const int carries : {0, 1, 2})
          for (const Activation act : {Activation::relu, Activation::tanh}) {
            const GruShape& s = z.s;
            const int c = s.c, frame = first ? 0 : s.frames - 1;
            CAPTURE(name_of_type(t));
            INFO(fmt::format("n {}, {} pixels, {} frames, {} channels, first {}, {} carries, act {}", s.n, s.pixels, s.frames, c, first, carries, int(act)));
            const Doubles dy = random.normals(t, z.state() * s.frames), c1 = random.normals(t, z.state()), c2 = random.normals(t, z.state());
            const Doubles h = random.normals(t, z.state()), ru = gates(random, t, 2 * z.state()), drh = random.normals(t, z.state());
            Doubles k = random.normals(t, z.state(), 0.5);
            for (double& v : k) v = rounded(t, act == Activation::tanh ? std::tanh(v) : std::max(0.0, v));
            Sums dg(ru.size(), Sum(std::nan(""))), dk(k.size()), dh(k.size()), rh(k.size());
            for (int64_t r = 0; r < z.rows(); r++)
              for (int64_t j = 0; j < c; j++) {
                const size_t i = size_t(r * c + j), p = size_t(r * 2 * c + j);
                Sum d(dy[z.in_clip(r, frame, c, j)]);
                if (carries > 0) d += c1[i];
                if (carries > 1) d += c2[i];
                const double u = ru[p + size_t(c)], reset = ru[p], before = first ? 0 : h[i];
                dg[p + size_t(c)] = Sum(d.value * (before - k[i]) * u * (1 - u), d.size * (std::fabs(before) + std::fabs(k[i])));
                if (first) dg[p] = 0.0;
                const double slope = act == Activation::tanh ? 1 - k[i] * k[i] : k[i] > 0 ? 1 : 0;
                dk[i] = Sum(d.value * (1 - u) * slope, d.size);
                dh[i] = Sum(d.value * u, d.size);
                rh[i] = reset * h[i];
              }
            for_each_executor([&](Run& run) {
              Buffer &bdy = run.in(t, dy), &b1 = run.in(t, c1), &b2 = run.in(t, c2), &bru = run.in(t, ru), &bh = run.in(t, h), &bk = run.in(t, k);
              Buffer &bdg = run.out(t, 2 * z.state()), &bdk = run.out(t, z.state()), &bdh = run.out(t, z.state());
              KILN_ON(run, gru_blend_backward(run.stream(), t, s, frame, act, bdy.data(), carries > 0 ? b1.data() : nullptr, carries > 1 ? b2.data() : nullptr,
                                              bru.data(), first ? nullptr : bh.data(), bk.data(), bdg.data(), bdk.data(), first ? nullptr : bdh.data()));
              run.expect("dg", bdg, dg, 5e-6);
              run.expect("dk", bdk, dk, 5e-6);
              if (first) return;
              run.expect("dh", bdh, dh, 5e-6);
            });
            if (first) continue;
            // Into a gradient of numbers that the type holds, so that it is known to the last bit.
            const Doubles start = random.normals(t, z.state()), half = random.normals(t, 2 * z.state());
            Sums want_dg(half.size()), want_dh(start.size());
            for (int64_t r = 0; r < z.rows(); r++)
              for (int64_t j = 0; j < c; j++) {
                const size_t i = size_t(r * c + j), p = size_t(r * 2 * c + j);
                want_dg[p] = Sum(drh[i] * h[i] * ru[p] * (1 - ru[p]), std::fabs(drh[i] * h[i]));
                want_dg[p + size_t(c)] = half[p + size_t(c)];  // left as it is
                want_dh[i] = start[i];
                want_dh[i] += drh[i] * ru[p];
              }
            for_each_executor([&](Run& run) {
              Buffer &bd = run.in(t, drh), &bru = run.in(t, ru), &bh = run.in(t, h);
              Buffer &bdg = run.inout(t, half), &bdh = run.inout(t, start), &brh = run.out(t, z.state());
              KILN_ON(run, gru_gates_backward(run.stream(), t, s, bd.data(), bru.data(), bh.data(), bdg.data(), carries ? bdh.data() : nullptr, brh.data()));
              run.expect("dg", bdg, want_dg, 5e-6);
              if (carries) run.expect("dh", bdh, want_dh, 5e-6);
              run.expect("rh", brh, rh);
            });
          }
}

TEST_CASE("kernel: gru, the gradient of the input's convolution") {
  Random random(132);
  for (const DType t : kFloatTypes)
    for (const Sizes& z : all_sizes()) {
      const GruShape& s = z.s;
      CAPTURE(name_of_type(t));
      INFO(fmt::format("n {}, {} pixels, {} frames, {} channels, constant {}", s.n, s.pixels, s.frames, s.c, s.constant_input));
      const Doubles dg = random.normals(t, 2 * z.state() * s.frames), dk = random.normals(t, z.state() * s.frames);
      Sums dgx(size_t(z.input()));
      for (int f = 0; f < s.frames; f++)
        for (int64_t r = 0; r < z.rows(); r++)
          for (int64_t j = 0; j < 3 * s.c; j++)
            dgx[z.in_input(r, f, j)] += j < 2 * s.c ? dg[size_t((f * z.rows() + r) * 2 * s.c + j)] : dk[size_t((f * z.rows() + r) * s.c + j - 2 * s.c)];
      for_each_executor([&](Run& run) {
        Buffer &bg = run.in(t, dg), &bk = run.in(t, dk), &bx = run.out(t, z.input());
        KILN_ON(run, gru_collect(run.stream(), t, s, bg.data(), bk.data(), bx.data()));
        run.expect("dgx", bx, dgx);
      });
    }
}
