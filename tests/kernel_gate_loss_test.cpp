// kernels/gate.h and kernels/loss.h beside plain loops.
#include "kernels/gate.h"
#include "kernels/loss.h"
#include "tests/kernel_test.h"

using namespace kiln;
using namespace kiln::test;

namespace {

constexpr int64_t kSizes[] = {1, 3, 15, 16, 31, 33, 100, 1000};

struct PictureShape {
  int64_t n, per;
};

std::vector<PictureShape> picture_shapes(Random& random) {
  std::vector<PictureShape> s = {{1, 1},    {3, 1},    {1, 31},          {2, 33},    {4, 48},
                                 {3, 1000}, {2, 4097}, {5, 3 * 33 * 31}, {1, 140003}};
  for (int i = 0; i < 4; i++) s.push_back({random.integer(1, 6), random.integer(1, 3000)});
  return s;
}

}  // namespace

TEST_CASE("kernel: gate product and both gradients") {
  Random random(30);
  struct Shape {
    int64_t n, pixels;
    int c;
  };
  std::vector<Shape> shapes = {{1, 1, 1},    {2, 3, 2},    {3, 31, 3}, {1, 33, 5},  {2, 65, 6},
                               {2, 64, 16},  {3, 9, 24},   {1, 7, 48}, {2, 5, 100}, {1, 3, 131},
                               {2, 900, 24}, {1, 9000, 3}, {1, 2, 528}};
  for (int i = 0; i < 6; i++) shapes.push_back({random.integer(1, 4), random.integer(1, 200), random.integer(1, 70)});
  for (const DType t : kFloatTypes)
    for (const auto& [n, pixels, c] : shapes) {
      CAPTURE(name_of_type(t));
      INFO(fmt::format("n {}, {} pixels, {} channels", n, pixels, c));
      const Doubles x = random.normals(t, n * pixels * c), g = random.normals(t, n * c),
                    dy = random.normals(t, n * pixels * c);
      Sums y(x.size()), dx(x.size()), dg(g.size());
      for (int64_t k = 0; k < n; k++)
        for (int64_t p = 0; p < pixels; p++)
          for (int j = 0; j < c; j++) {
            const size_t i = size_t((k * pixels + p) * c + j), gi = size_t(k * c + j);
            y[i] = x[i] * g[gi];
            dx[i] = dy[i] * g[gi];
            dg[gi] += dy[i] * x[i];
          }
      for_each_executor([&, n = n, pixels = pixels, c = c](Run& run) {
        Buffer &bx = run.in(t, x), &bg = run.in(t, g), &by = run.out(t, n * pixels * c);
        KILN_ON(run, gate_forward(run.stream(), t, n, pixels, c, bx.data(), bg.data(), by.data()));
        run.expect("y", by, y);
        Buffer &bdy = run.in(t, dy), &bdx = run.out(t, n * pixels * c), &bdg = run.out(DType::f32, n * c);
        Buffer& scratch = run.scratch(gate_scratch_floats(n, c));
        KILN_ON(run, gate_backward(run.stream(), t, n, pixels, c, bx.data(), bg.data(), bdy.data(), bdx.data(),
                                   bdg.f32(), scratch.f32()));
        run.expect("dx", bdx, dx);
        run.expect("dg", bdg, dg, 5e-6);
      });
    }
}

TEST_CASE("kernel: hinge loss, its mean logit and its gradient") {
  Random random(31);
  for (const DType t : kFloatTypes)
    for (const int64_t n : kSizes)
      for (const double sign : {1.0, -1.0})
        for (const bool margins : {false, true}) {
          CAPTURE(name_of_type(t));
          CAPTURE(n);
          CAPTURE(sign);
          CAPTURE(margins);
          const float low = 0.8f;
          const Doubles u = random.uniforms(n);
          Doubles logits = random.normals(t, n, 1.5);
          Sum value, mean;
          Sums gradient(logits.size());
          for (size_t i = 0; i < logits.size(); i++) {
            const double m = margins ? double(low) + (1 - double(low)) * u[i] : 1;
            while (std::fabs(m - sign * logits[i]) < 1e-5) logits[i] = random.normals(t, 1)[0];  // not on the kink
            const double d = m - sign * logits[i];
            value += Sum(std::max(d, 0.0)) * (1.0 / double(n));
            mean += logits[i] / double(n);
            gradient[i] = d > 0 ? -sign / double(n) : 0;
          }
          for_each_executor([&](Run& run) {
            Buffer &bl = run.in(t, logits), &bu = run.in(DType::f32, u);
            Buffer &bv = run.out(DType::f32, 1), &bm = run.out(DType::f32, 1), &bg = run.out(DType::f32, n);
            KILN_ON(run, hinge_loss(run.stream(), t, n, float(sign), low, bl.data(), margins ? bu.f32() : nullptr,
                                    bv.f32(), bm.f32(), bg.f32()));
            run.expect("value", bv, Sums{value});
            run.expect("mean logit", bm, Sums{mean});
            run.expect("gradient", bg, gradient);
          });
        }
}

TEST_CASE("kernel: relativistic loss and its gradients") {
  Random random(35);
  for (const DType t : kFloatTypes)
    for (const int64_t n : {1, 2, 7, 64, 333})
      for (const double sign : {1.0, -1.0})
        for (const double scale : {1.0, 40.0}) {  // 40: beyond where exp of it fits a float
          CAPTURE(name_of_type(t));
          CAPTURE(n);
          CAPTURE(sign);
          const Doubles logits = random.normals(t, n, scale);
          const double mean = rounded(DType::f32, 0.3 * scale);
          Sum value, d_mean;
          Sums gradient(logits.size());
          for (size_t i = 0; i < logits.size(); i++) {
            const double z = sign * (logits[i] - mean);
            value += Sum(std::max(-z, 0.0) + std::log1p(std::exp(-std::fabs(z)))) * (1.0 / double(n));
            gradient[i] = -sign / (1 + std::exp(z)) / double(n);
            d_mean += gradient[i] * -1.0;
          }
          for_each_executor([&](Run& run) {
            Buffer &bl = run.in(t, logits), &bm = run.in(DType::f32, {mean});
            Buffer &bv = run.out(DType::f32, 1), &bg = run.out(DType::f32, n), &bd = run.out(DType::f32, 1);
            KILN_ON(run, relativistic_loss(run.stream(), t, n, float(sign), bl.data(), bm.f32(), bv.f32(), bg.f32(), bd.f32()));
            run.expect("value", bv, Sums{value});
            run.expect("gradient", bg, gradient);
            run.expect("d mean", bd, Sums{d_mean});
          });
        }
}

TEST_CASE("kernel: mean_value, scale_by and broadcast") {
  Random random(32);
  for (const DType t : kFloatTypes)
    for (const int64_t n : {1, 3, 15, 16, 17, 31, 33, 100, 1000, 40003}) {
      CAPTURE(name_of_type(t));
      CAPTURE(n);
      const float factor = -0.6f;
      const double seed = rounded(DType::f32, 1.7);
      const Doubles x = random.normals(t, n), x32 = random.normals(DType::f32, n);
      Sum mean;
      Doubles scaled;
      for (const double v : x) mean += double(factor) * v / double(n);
      for (const double v : x32) scaled.push_back(seed * v);
      for_each_executor([&](Run& run) {
        Buffer &bx = run.in(t, x), &value = run.out(DType::f32, 1);
        KILN_ON(run, mean_value(run.stream(), t, n, factor, bx.data(), value.f32()));
        run.expect("mean", value, Sums{mean});
        Buffer &bs = run.in(DType::f32, {seed}), &b32 = run.in(DType::f32, x32), &y = run.out(t, n);
        KILN_ON(run, scale_by(run.stream(), t, n, bs.f32(), b32.f32(), y.data()));
        run.expect("scale_by", y, scaled);
        Buffer& all = run.out(t, n);
        KILN_ON(run, broadcast(run.stream(), t, n, factor, bs.f32(), all.data()));
        run.expect("broadcast", all, Doubles(size_t(n), double(factor) * seed));
      });
    }
}

TEST_CASE("kernel: difference loss and its gradient") {
  Random random(33);
  for (const DType t : kFloatTypes)
    for (const auto& [n, per] : picture_shapes(random))
      for (const int power : {1, 2}) {
        CAPTURE(name_of_type(t));
        INFO(fmt::format("{} pictures of {}, power {}", n, per, power));
        const double seed = rounded(DType::f32, -1.4);
        const Doubles x = random.normals(t, n * per);
        Doubles y = random.normals(t, n * per);
        for (size_t i = 0; i < y.size(); i += 7) y[i] = x[i];  // where the gradient is zero for both powers
        Sum value;
        Sums dx(x.size());
        for (size_t i = 0; i < x.size(); i++) {
          const double d = x[i] - y[i];
          value += (power == 1 ? std::fabs(d) : d * d) / double(per);
          dx[i] = seed * (power == 1 ? double((d > 0) - (d < 0)) : 2 * d) / double(per);
        }
        for_each_executor([&, n = n, per = per](Run& run) {
          Buffer &bx = run.in(t, x), &by = run.in(t, y), &bv = run.out(DType::f32, 1), &scratch = run.scratch(32);
          KILN_ON(run, difference_loss(run.stream(), t, n, per, power, bx.data(), by.data(), bv.f32(), scratch.f32()));
          run.expect("value", bv, Sums{value}, 1.5e-5);  // a CPU thread adds thousands of float32 numbers in a row
          Buffer &bs = run.in(DType::f32, {seed}), &bdx = run.out(t, n * per);
          KILN_ON(run, difference_backward(run.stream(), t, n, per, power, bx.data(), by.data(), bs.f32(), bdx.data()));
          run.expect("dx", bdx, dx);
        });
      }
}

TEST_CASE("kernel: sum of squares") {
  Random random(34);
  for (const int64_t n : {int64_t(1), int64_t(7), int64_t(1000), int64_t(70001)}) {
    CAPTURE(n);
    const Doubles x = random.normals(DType::f32, n);
    Sum value;
    for (const double v : x) value += v * v;
    for_each_executor([&](Run& run) {
      Buffer &bx = run.in(DType::f32, x), &bv = run.out(DType::f32, 1), &scratch = run.scratch(32);
      KILN_ON(run, square_sum(run.stream(), n, bx.f32(), bv.f32(), scratch.f32()));
      run.expect("value", bv, Sums{value}, 1.5e-5);
    });
  }
}
