// kernels/activation.h beside plain loops.
#include "kernels/activation.h"

#include "tests/kernel_test.h"

using namespace kiln;
using namespace kiln::test;

namespace {

constexpr Activation kActivations[] = {Activation::none,  Activation::relu,    Activation::leaky_relu,
                                       Activation::swish, Activation::sigmoid, Activation::tanh};
constexpr int64_t kSizes[] = {1, 3, 15, 16, 17, 31, 33, 100, 1000, 40003};  // the last is worth two threads

double logistic(double x) { return 1 / (1 + std::exp(-x)); }

double act(Activation a, double x) {
  switch (a) {
    case Activation::relu: return x > 0 ? x : 0;
    case Activation::leaky_relu: return x > 0 ? x : double(0.2f) * x;
    case Activation::swish: return x * logistic(x);
    case Activation::sigmoid: return logistic(x);
    case Activation::tanh: return std::tanh(x);
    default: return x;
  }
}

/// act'(x) from the definition; `saved` as activation_backward gets it.
Sum slope(Activation a, double saved) {
  switch (a) {
    case Activation::relu: return saved > 0 ? 1. : 0.;
    case Activation::leaky_relu: return saved > 0 ? 1. : double(0.2f);
    case Activation::swish: {
      const double s = logistic(saved);
      return {s + saved * s * (1 - s), s + std::fabs(saved) * s};
    }
    case Activation::sigmoid: return {saved * (1 - saved), std::fabs(saved)};
    case Activation::tanh: return {1 - saved * saved, 1};
    default: return 1.;
  }
}

/// Normals, with numbers among them at which activations are special.
Doubles inputs(Random& random, DType t, int64_t n) {
  Doubles x = random.normals(t, n, 3);
  const double special[] = {0, -0.0, 20, -20, 60, -60, 1e-4, -1e-4};
  for (size_t i = 0; i < std::size(special) && 2 * i + 1 < x.size(); i++) x[2 * i + 1] = rounded(t, special[i]);
  return x;
}

}  // namespace

TEST_CASE("kernel: activation forward and backward") {
  Random random(1);
  for (const DType t : kFloatTypes)
    for (const Activation a : kActivations)
      for (const int64_t n : kSizes) {
        CAPTURE(name_of_type(t));
        CAPTURE(int(a));
        CAPTURE(n);
        const Doubles x = inputs(random, t, n), dy = random.normals(t, n);
        Doubles saved = x;
        if (a == Activation::sigmoid || a == Activation::tanh)
          for (double& s : saved) s = rounded(t, act(a, s));
        Sums y(x.size()), dx(x.size());
        for (size_t i = 0; i < x.size(); i++) {
          y[i] = a == Activation::tanh ? Sum(act(a, x[i]), 1) : Sum(act(a, x[i]));
          dx[i] = slope(a, saved[i]) * dy[i];
        }
        for_each_executor([&](Run& run) {
          Buffer &bx = run.in(t, x), &by = run.out(t, n);
          KILN_ON(run, activation_forward(run.stream(), t, a, n, bx.data(), by.data()));
          run.expect("y", by, y);
          Buffer &bs = run.in(t, saved), &bdy = run.in(t, dy), &bdx = run.out(t, n);
          KILN_ON(run, activation_backward(run.stream(), t, a, n, bs.data(), bdy.data(), bdx.data()));
          run.expect("dx", bdx, dx);
        });
      }
}

TEST_CASE("kernel: activations' slopes are their derivatives") {
  for (const Activation a : kActivations)
    for (const double x : {-3.1, -0.7, -0.01, 0.02, 0.9, 4.2}) {
      const double h = 1e-5, numeric = (act(a, x + h) - act(a, x - h)) / (2 * h);
      const bool from_output = a == Activation::sigmoid || a == Activation::tanh;
      CHECK(slope(a, from_output ? act(a, x) : x).value == doctest::Approx(numeric).epsilon(1e-6));
    }
}

TEST_CASE("kernel: gated linear unit forward and backward") {
  Random random(2);
  std::vector<std::pair<int64_t, int>> shapes = {{1, 1},  {3, 1},   {31, 2}, {33, 3},   {1, 5},    {7, 6},
                                                 {3, 16}, {33, 24}, {5, 48}, {31, 100}, {401, 64}, {1031, 33}};
  for (int i = 0; i < 6; i++) shapes.push_back({random.integer(1, 70), random.integer(1, 130)});
  for (const DType t : kFloatTypes)
    for (const auto& [rows, h] : shapes) {
      CAPTURE(name_of_type(t));
      CAPTURE(rows);
      CAPTURE(h);
      const Doubles x = inputs(random, t, rows * 2 * h), dy = random.normals(t, rows * h);
      Sums y(dy.size()), dx(x.size());
      for (int64_t r = 0; r < rows; r++)
        for (int c = 0; c < h; c++) {
          const size_t value = size_t(r * 2 * h + c), gate = value + size_t(h), out = size_t(r * h + c);
          const double s = logistic(x[gate]);
          y[out] = x[value] * s;
          dx[value] = dy[out] * s;
          dx[gate] = Sum(dy[out] * x[value] * s * (1 - s), std::fabs(dy[out] * x[value] * s));
        }
      for_each_executor([&, rows = rows, h = h](Run& run) {
        Buffer &bx = run.in(t, x), &by = run.out(t, rows * h);
        KILN_ON(run, glu_forward(run.stream(), t, rows, h, bx.data(), by.data()));
        run.expect("y", by, y);
        Buffer &bdy = run.in(t, dy), &bdx = run.out(t, rows * 2 * h);
        KILN_ON(run, glu_backward(run.stream(), t, rows, h, bx.data(), bdy.data(), bdx.data()));
        run.expect("dx", bdx, dx);
      });
    }
}
