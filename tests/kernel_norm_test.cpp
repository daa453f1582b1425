// kernels/norm.h beside plain loops, and these loops beside finite differences of what the header says y is.
#include "kernels/norm.h"

#include <algorithm>

#include "tests/kernel_test.h"

using namespace kiln;
using namespace kiln::test;

namespace {

constexpr double kEps = double(1e-5f), kMomentum = double(0.1f);

struct Case {
  DType t = DType::f32;
  int64_t rows = 1;
  int c = 1;
  Activation act = Activation::none;
  bool glu = false, noisy = false, training = true;

  std::string describe() const {
    return fmt::format("{}, {} rows, {} channels, {}, noise {}, training {}", name_of_type(t), rows, c,
                       glu ? "glu" : fmt::format("activation {}", int(act)), noisy, training);
  }
  int out() const { return glu ? c / 2 : c; }
};

/// A case's numbers in double precision, each one that the kernel can hold.
struct Data {
  Doubles x, dy, noise, gamma, beta, running_mean, running_var;
  double weight = 0;
};

Data draw(Random& random, const Case& k) {
  Data d;
  for (int64_t r = 0; r < k.rows; r++)
    for (int c = 0; c < k.c; c++)  // a different mean and deviation in every channel
      d.x.push_back(rounded(k.t, 3 * std::sin(c) + (1 + 0.5 * std::cos(2 * c)) * random.normal()));
  d.dy = random.normals(k.t, k.rows * k.out());
  if (k.noisy) d.noise = random.normals(DType::f32, k.rows);
  d.weight = k.noisy ? rounded(DType::f32, 0.4) : 0;
  d.gamma = random.normals(DType::f32, k.c, 0.3, 1);
  d.beta = random.normals(DType::f32, k.c, 0.5);
  d.running_mean = random.normals(DType::f32, k.c);
  d.running_var = random.uniforms(k.c);
  for (double& v : d.running_var) v = rounded(DType::f32, v + 0.5);
  return d;
}

Sum noisy_input(const Case& k, const Data& d, int64_t r, int c) {
  Sum x = d.x[size_t(r * k.c + c)];
  if (k.noisy) x += d.weight * d.noise[size_t(r)];
  return x;
}
double input(const Case& k, const Data& d, int64_t r, int c) { return noisy_input(k, d, r, c).value; }

/// What norm_prepare writes, and what the other two read.
struct Channels {
  Doubles mean, inv_std, a, b, running_mean, running_var;
};

Channels prepare(const Case& k, const Data& d) {
  Channels ch;
  for (int c = 0; c < k.c; c++) {
    const size_t i = size_t(c);
    double mean = d.running_mean[i], var = d.running_var[i];
    if (k.training) {
      mean = var = 0;
      for (int64_t r = 0; r < k.rows; r++) mean += input(k, d, r, c) / double(k.rows);
      for (int64_t r = 0; r < k.rows; r++) var += std::pow(input(k, d, r, c) - mean, 2) / double(k.rows);
      const double unbiased = k.rows > 1 ? var * double(k.rows) / double(k.rows - 1) : var;
      ch.running_mean.push_back((1 - kMomentum) * d.running_mean[i] + kMomentum * mean);
      ch.running_var.push_back((1 - kMomentum) * d.running_var[i] + kMomentum * unbiased);
    } else {
      ch.running_mean.push_back(mean);
      ch.running_var.push_back(var);
    }
    ch.mean.push_back(mean);
    ch.inv_std.push_back(1 / std::sqrt(var + kEps));
    ch.a.push_back(d.gamma[i] * ch.inv_std[i]);
    ch.b.push_back(d.beta[i] - mean * ch.a[i]);
  }
  return ch;
}

double logistic(double x) { return 1 / (1 + std::exp(-x)); }
double act(Activation a, double z) {
  return a == Activation::none || z > 0 ? z : a == Activation::relu ? 0 : double(0.2f) * z;
}

Sum affine(const Case& k, const Data& d, const Channels& ch, int64_t r, int c) {
  const size_t i = size_t(c);
  Sum z = noisy_input(k, d, r, c) * ch.a[i];
  z += ch.b[i];
  return z;
}

Sums forward(const Case& k, const Data& d, const Channels& ch) {
  Sums y;
  for (int64_t r = 0; r < k.rows; r++)
    for (int j = 0; j < k.out(); j++) {
      const Sum u = affine(k, d, ch, r, j);
      if (k.glu) {
        const Sum g = affine(k, d, ch, r, k.c / 2 + j);
        y.push_back({u.value * logistic(g.value), u.size * logistic(g.value) * (1 + g.size)});
      } else {
        y.push_back({act(k.act, u.value), u.size});
      }
    }
  return y;
}

struct Gradients {
  Sums dx, dgamma, dbeta;
  Sum dweight;
};

/// The chain rule, step by step: dz from dy; then through z = gamma xhat + beta and xhat = (x - mean) / std.
Gradients backward(const Case& k, const Data& d, const Channels& ch) {
  const int h = k.c / 2;
  Sums dz(d.x.size());
  for (int64_t r = 0; r < k.rows; r++)
    for (int j = 0; j < k.out(); j++) {
      const double dy = d.dy[size_t(r * k.out() + j)];
      const Sum u = affine(k, d, ch, r, j);
      const size_t i = size_t(r * k.c + j);
      if (k.glu) {
        const Sum gate = affine(k, d, ch, r, h + j);
        const double s = logistic(gate.value);
        dz[i] = Sum(dy * s, std::fabs(dy) * s * (1 + gate.size));
        dz[i + size_t(h)] = Sum(dy * u.value * s * (1 - s), std::fabs(dy) * u.size * s * (1 + gate.size));
      } else {
        const double below = k.act == Activation::none ? 1 : k.act == Activation::relu ? 0 : double(0.2f);
        dz[i] = dy * (u.value > 0 ? 1 : below);
      }
    }
  Gradients g;
  g.dx.resize(d.x.size());
  for (int c = 0; c < k.c; c++) {
    const size_t ci = size_t(c);
    const auto at = [&](int64_t r) { return size_t(r * k.c + c); };
    const auto xhat = [&](int64_t r) {
      Sum x = noisy_input(k, d, r, c);
      x += -ch.mean[ci];
      return x * ch.inv_std[ci];
    };
    Sum dbeta, dgamma;
    for (int64_t r = 0; r < k.rows; r++) {
      const Sum& z = dz[at(r)];
      dbeta += z;
      dgamma += Sum(z.value * xhat(r).value, z.size * xhat(r).size);
    }
    const double n = double(k.rows);
    for (int64_t r = 0; r < k.rows; r++) {
      Sum through = dz[at(r)];
      if (k.training) {
        through += dbeta * (-1 / n);
        through += Sum(-xhat(r).value * dgamma.value / n, xhat(r).size * dgamma.size / n);
      }
      g.dx[at(r)] = through * (d.gamma[ci] * ch.inv_std[ci]);
      if (k.noisy) g.dweight += g.dx[at(r)] * d.noise[size_t(r)];
    }
    g.dgamma.push_back(dgamma);
    g.dbeta.push_back(dbeta);
  }
  return g;
}

/// Whether float32 and double may disagree about the side of a kink on which some z lies.
bool near_kink(const Case& k, const Data& d, const Channels& ch) {
  if (k.glu || k.act == Activation::none) return false;
  for (int64_t r = 0; r < k.rows; r++)
    for (int c = 0; c < k.c; c++)
      if (const Sum z = affine(k, d, ch, r, c); std::fabs(z.value) < 2e-6 * z.size) return true;
  return false;
}

std::vector<Case> cases() {
  Random random(40);
  const std::pair<int64_t, int> shapes[] = {{1, 2},  {2, 1},    {3, 3},   {31, 6},  {33, 16},  {65, 32},  {64, 5},
                                            {9, 48}, {129, 24}, {7, 100}, {5, 131}, {3, 1056}, {700, 48}, {9001, 2}};
  std::vector<Case> all;
  for (const DType t : kFloatTypes)
    for (const bool noisy : {false, true})
      for (const bool training : {true, false}) {
        std::vector<std::pair<int64_t, int>> sizes(std::begin(shapes), std::end(shapes));
        for (int i = 0; i < 3; i++) sizes.push_back({random.integer(2, 150), random.integer(1, 70)});
        for (const auto& [rows, c] : sizes) {
          const Activation acts[] = {Activation::none, Activation::relu, Activation::leaky_relu};
          for (const Activation act : acts) all.push_back({t, rows, c, act, false, noisy, training});
          if (c % 2 == 0) all.push_back({t, rows, c, Activation::none, true, noisy, training});
        }
      }
  return all;
}

Doubles floats(const Doubles& v) {
  Doubles r = v;
  for (double& x : r) x = rounded(DType::f32, x);
  return r;
}

}  // namespace

TEST_CASE("kernel: the batch norm reference's gradients are finite differences of its forward") {
  Random random(41);
  for (const bool glu : {false, true})
    for (const Activation a : {Activation::none, Activation::relu, Activation::leaky_relu})
      for (const bool training : {true, false}) {
        const Case k{DType::f32, 5, 4, a, glu, true, training};
        CAPTURE(k.describe());
        Data d = draw(random, k);
        const auto loss = [&] {
          const Sums y = forward(k, d, prepare(k, d));
          double s = 0;
          for (size_t i = 0; i < y.size(); i++) s += y[i].value * d.dy[i];
          return s;
        };
        const Gradients g = backward(k, d, prepare(k, d));
        const auto check = [&](double& number, double gradient) {
          const double h = 1e-6, before = number;
          number = before + h;
          const double up = loss();
          number = before - h;
          const double down = loss();
          number = before;
          CHECK(gradient == doctest::Approx((up - down) / (2 * h)).epsilon(1e-5));
        };
        for (size_t i = 0; i < d.x.size(); i++) check(d.x[i], g.dx[i].value);
        for (size_t i = 0; i < d.gamma.size(); i++) check(d.gamma[i], g.dgamma[i].value);
        for (size_t i = 0; i < d.beta.size(); i++) check(d.beta[i], g.dbeta[i].value);
        check(d.weight, g.dweight.value);
      }
}

TEST_CASE("kernel: batch norm statistics") {
  Random random(42);
  for (const Case& k : cases()) {
    if (k.act != Activation::none || k.glu) continue;
    CAPTURE(k.describe());
    const Data d = draw(random, k);
    const Channels ch = prepare(k, d);
    for_each_executor([&](Run& run) {
      Buffer &x = run.in(k.t, d.x), &gamma = run.in(DType::f32, d.gamma), &beta = run.in(DType::f32, d.beta);
      Buffer &noise = run.in(DType::f32, d.noise), &weight = run.in(DType::f32, {d.weight});
      Buffer &rm = run.inout(DType::f32, d.running_mean), &rv = run.inout(DType::f32, d.running_var);
      Buffer &mean = run.out(DType::f32, k.c), &inv_std = run.out(DType::f32, k.c);
      Buffer &a = run.out(DType::f32, k.c), &b = run.out(DType::f32, k.c),
             &scratch = run.scratch(norm_scratch_floats(k.c));
      NormFusion fusion;
      if (k.noisy) fusion = {Activation::none, false, noise.f32(), weight.f32()};
      const NormChannels channels{gamma.f32(), beta.f32(),    rm.f32(), rv.f32(),
                                  mean.f32(),  inv_std.f32(), a.f32(),  b.f32()};
      KILN_ON(run, norm_prepare(run.stream(), k.t, k.rows, k.c, k.training ? x.data() : nullptr, fusion, channels,
                                float(kEps), float(kMomentum), k.training, scratch.f32()));
      // The mean of numbers of size 5 and deviation 1 is known to a few 1e-6, their deviation as well.
      // Narrow shapes add thousands of rows one after the other, in float32: then it is a few 1e-5.
      const double tolerance = 2e-5 + 1e-8 * double(k.rows);
      Sums means, shifts;
      for (size_t i = 0; i < ch.mean.size(); i++) {
        means.push_back({ch.mean[i], std::fabs(ch.mean[i]) + (k.rows > 1 ? 0.1 / ch.inv_std[i] : 0)});
        shifts.push_back({ch.b[i], std::fabs(d.beta[i]) + means[i].size * std::fabs(ch.a[i])});
      }
      run.expect("mean", mean, means, tolerance);
      run.expect("inv_std", inv_std, ch.inv_std, tolerance);
      run.expect("a", a, ch.a, tolerance);
      run.expect("b", b, shifts, tolerance);
      if (k.training) {
        Sums running;
        for (size_t i = 0; i < ch.mean.size(); i++)
          running.push_back({ch.running_mean[i], std::fabs(d.running_mean[i]) + means[i].size});
        run.expect("running mean", rm, running, tolerance / 5);
        run.expect("running variance", rv, ch.running_var, tolerance / 5);
      } else {
        run.expect_exact("running mean", rm, d.running_mean);
        run.expect_exact("running variance", rv, d.running_var);
      }
    });
  }
}

TEST_CASE("kernel: batch norm statistics of numbers far from zero") {
  Random random(43);
  const Case k{DType::f32, 4000, 3};
  Data d = draw(random, k);
  for (size_t i = 0; i < d.x.size(); i++) d.x[i] = rounded(DType::f32, 1000 + d.x[i]);
  const Channels ch = prepare(k, d);
  for_each_executor([&](Run& run) {
    Buffer &x = run.in(k.t, d.x), &gamma = run.in(DType::f32, d.gamma), &beta = run.in(DType::f32, d.beta);
    Buffer &rm = run.inout(DType::f32, d.running_mean), &rv = run.inout(DType::f32, d.running_var);
    Buffer &out = run.out(DType::f32, 3 * k.c), &inv_std = run.out(DType::f32, k.c);
    Buffer& scratch = run.scratch(norm_scratch_floats(k.c));
    float* o = out.f32();
    const NormChannels channels{gamma.f32(), beta.f32(), rm.f32(), rv.f32(), o, inv_std.f32(), o + k.c, o + 2 * k.c};
    KILN_ON(run, norm_prepare(run.stream(), k.t, k.rows, k.c, x.data(), NormFusion{}, channels, float(kEps),
                              float(kMomentum), true, scratch.f32()));
    run.expect("inv_std", inv_std, ch.inv_std, 1e-5);
  });
}

TEST_CASE("kernel: batch norm forward and backward, fused with noise, GLU and activations") {
  Random random(44);
  int turn = 0;
  for (const Case& k : cases()) {
    CAPTURE(k.describe());
    Data d = draw(random, k);
    Channels ch = prepare(k, d);
    while (near_kink(k, d, ch)) {
      d = draw(random, k);
      ch = prepare(k, d);
    }
    // The kernels read a, b, mean and inv_std as floats: the reference reads the same.
    ch.mean = floats(ch.mean);
    ch.inv_std = floats(ch.inv_std);
    ch.a = floats(ch.a);
    ch.b = floats(ch.b);
    const Sums y = forward(k, d, ch);
    Gradients g = backward(k, d, ch);
    // Which of the parameters' gradients are wanted: all in most cases, and each of the combinations in turn.
    const int wanted = turn++ % 2 == 0 ? 7 : turn / 2 % 8;
    Doubles before = random.normals(DType::f32, k.c);
    for (size_t i = 0; i < before.size(); i++) {
      g.dgamma[i] += before[i];
      g.dbeta[i] += before[i];
    }
    const double weight_before = 0.5;
    g.dweight += weight_before;

    for_each_executor([&](Run& run) {
      Buffer &x = run.in(k.t, d.x), &dy = run.in(k.t, d.dy), &gamma = run.in(DType::f32, d.gamma),
             &beta = run.in(DType::f32, d.beta);
      Buffer &noise = run.in(DType::f32, d.noise), &weight = run.in(DType::f32, {d.weight});
      Buffer &mean = run.in(DType::f32, ch.mean), &inv_std = run.in(DType::f32, ch.inv_std);
      Buffer &a = run.in(DType::f32, ch.a), &b = run.in(DType::f32, ch.b);
      NormFusion fusion{k.act, k.glu, nullptr, nullptr};
      if (k.noisy) {
        fusion.noise = noise.f32();
        fusion.noise_weight = weight.f32();
      }
      const NormChannels channels{gamma.f32(), beta.f32(),    nullptr, nullptr,
                                  mean.f32(),  inv_std.f32(), a.f32(), b.f32()};
      Buffer& by = run.out(k.t, k.rows * k.out());
      KILN_ON(run, norm_forward(run.stream(), k.t, k.rows, k.c, x.data(), fusion, channels, by.data()));
      run.expect("y", by, y);

      Buffer &dx = run.out(k.t, k.rows * k.c), &scratch = run.scratch(norm_scratch_floats(k.c));
      Buffer &dgamma = run.inout(DType::f32, before), &dbeta = run.inout(DType::f32, before);
      Buffer& dweight = run.inout(DType::f32, {weight_before});
      KILN_ON(run, norm_backward(run.stream(), k.t, k.rows, k.c, x.data(), dy.data(), fusion, channels, k.training,
                                 dx.data(), wanted & 1 ? dgamma.f32() : nullptr, wanted & 2 ? dbeta.f32() : nullptr,
                                 wanted & 4 ? dweight.f32() : nullptr, scratch.f32()));
      run.expect("dx", dx, g.dx, 4e-6);
      run.expect("dgamma", dgamma, wanted & 1 ? g.dgamma : Sums(before.begin(), before.end()), wanted & 1 ? 6e-6 : 0);
      run.expect("dbeta", dbeta, wanted & 2 ? g.dbeta : Sums(before.begin(), before.end()), wanted & 2 ? 6e-6 : 0);
      const bool has_weight = (wanted & 4) && k.noisy;
      run.expect("dweight", dweight, has_weight ? Sums{g.dweight} : Sums{weight_before}, has_weight ? 6e-6 : 0);
    });
  }
}
