// kernels/adam.h, kernels/philox.h and kernels/random.h: published vectors, plain loops, and statistics.
#include <algorithm>
#include <array>
#include <cstring>

#include "kernels/adam.h"
#include "kernels/philox.h"
#include "kernels/random.h"
#include "tests/kernel_test.h"

using namespace kiln;
using namespace kiln::test;

namespace {

struct AdamState {
  Doubles value, m, v, ema;
};

OptimiserState state_of(const Buffer& b) {
  OptimiserState s;
  std::memcpy(&s, b.bytes().data(), sizeof s);
  return s;
}

/// d = min(decay, (1 + t) / (10 + t)) at update t, 0 before the start.
double ema_decay(const EmaOptions& e, int64_t t) {
  if (t < e.start) return 0;
  return e.warm_up ? std::min(double(e.decay), double(1 + t) / double(10 + t)) : double(e.decay);
}

}  // namespace

TEST_CASE("kernel: Adam and the moving average") {
  Random random(70);
  for (const int64_t n : {1, 3, 15, 16, 17, 31, 33, 100, 1000, 40003})
    for (const int64_t done : {0, 1, 8, 999, 100000})
      for (const int kind : {0, 1, 2, 3, 4, 5}) {  // 0: no average; 1: warming up; 2: not; 3: and other options; 4, 5: before the start, at it
        if (n > 1000 && done > 1) continue;
        CAPTURE(n);
        CAPTURE(done);
        CAPTURE(kind);
        AdamOptions o;
        EmaOptions e;
        e.warm_up = kind != 2;
        if (kind >= 4) e.start = done + 6 - kind;
        if (kind == 3) {
          o = {1e-2f, 0.9f, 0.99f, 1e-3f};
          e.decay = 0.5f;
        }
        const Doubles grad = random.normals(DType::f32, n, 0.1), x = random.normals(DType::f32, n),
                      ema = random.normals(DType::f32, n);
        Doubles m(size_t(n), 0.0), v(size_t(n), 0.0);
        if (done > 0) {
          m = random.normals(DType::f32, n, 0.1);
          for (double& q : v) q = rounded(DType::f32, 0.01 * random.uniform());
        }
        const int64_t t = done + 1;
        const double b1 = double(o.beta1), b2 = double(o.beta2), d = ema_decay(e, t);
        Sums new_m(size_t(n), Sum{}), new_v = new_m, new_x = new_m, new_ema = new_m;
        for (size_t i = 0; i < size_t(n); i++) {
          new_m[i] += b1 * m[i];
          new_m[i] += (1 - b1) * grad[i];
          new_v[i] = b2 * v[i] + (1 - b2) * grad[i] * grad[i];
          const double m_hat = new_m[i].value / (1 - std::pow(b1, double(t))),
                       v_hat = new_v[i].value / (1 - std::pow(b2, double(t)));
          const double scale = double(o.lr) / (std::sqrt(v_hat) + double(o.eps));
          new_x[i] =
              Sum(x[i] - scale * m_hat, std::fabs(x[i]) * 0.1 + scale * new_m[i].size / (1 - std::pow(b1, double(t))));
          new_ema[i] =
              Sum(d * ema[i] + (1 - d) * new_x[i].value, std::fabs(ema[i]) + (1 - d) * std::fabs(x[i]) + new_x[i].size);
        }
        const Doubles statistics = random.normals(DType::f32, n), average = random.normals(DType::f32, n);
        Sums new_average;
        for (size_t i = 0; i < size_t(n); i++) {
          new_average.push_back(d * average[i]);
          new_average.back() += (1 - d) * statistics[i];
        }
        for_each_executor([&](Run& run) {
          Buffer &state = run.inout(std::vector<OptimiserState>{{done, 0, 0, 0, 0, 0, 0}}), &bx = run.inout(DType::f32, x),
                 &bg = run.in(DType::f32, grad);
          Buffer &bm = run.inout(DType::f32, m), &bv = run.inout(DType::f32, v), &be = run.inout(DType::f32, ema);
          KILN_ON(run, adam_update(run.stream(), n, o, e, nullptr, state.as<OptimiserState>(), bx.f32(), bg.f32(), bm.f32(),
                                   bv.f32(), kind == 0 ? nullptr : be.f32()));
          CHECK(state_of(state).updates == t);
          run.expect("m", bm, new_m, 3e-7);
          run.expect("v", bv, new_v, 3e-7);
          run.expect("value", bx, new_x, 1e-6);
          if (kind == 0)
            run.expect_exact("no average", be, ema);
          else
            run.expect("average", be, new_ema, 3e-7);
          Buffer &bs = run.in(DType::f32, statistics), &ba = run.inout(DType::f32, average);
          KILN_ON(run, ema_update(run.stream(), n, state.as<OptimiserState>(), bs.f32(), ba.f32()));
          run.expect("average of statistics", ba, new_average, 1e-6);
        });
      }
}

TEST_CASE("kernel: fifty steps of Adam follow the double-precision ones") {
  Random random(71);
  const int64_t n = 100, steps = 50;
  const AdamOptions o;
  const EmaOptions e;
  std::vector<Doubles> grads;
  for (int64_t t = 0; t < steps; t++) grads.push_back(random.normals(DType::f32, n));
  const Doubles start = random.normals(DType::f32, n);
  AdamState s{start, Doubles(size_t(n), 0.0), Doubles(size_t(n), 0.0), start};
  for (int64_t t = 1; t <= steps; t++)
    for (size_t i = 0; i < size_t(n); i++) {
      const double g = grads[size_t(t - 1)][i], b1 = double(o.beta1), b2 = double(o.beta2), d = ema_decay(e, t);
      s.m[i] = b1 * s.m[i] + (1 - b1) * g;
      s.v[i] = b2 * s.v[i] + (1 - b2) * g * g;
      s.value[i] -= double(o.lr) * s.m[i] / (1 - std::pow(b1, double(t))) /
                    (std::sqrt(s.v[i] / (1 - std::pow(b2, double(t)))) + double(o.eps));
      s.ema[i] = d * s.ema[i] + (1 - d) * s.value[i];
    }
  Sums value, ema;
  for (size_t i = 0; i < size_t(n); i++) {
    value.push_back({s.value[i], 1 + std::fabs(s.value[i])});
    ema.push_back({s.ema[i], 1 + std::fabs(s.ema[i])});
  }
  for_each_executor([&](Run& run) {
    Buffer &state = run.inout(std::vector<OptimiserState>(1)), &x = run.inout(DType::f32, start),
           &average = run.inout(DType::f32, start);
    Buffer &m = run.inout(DType::f32, Doubles(size_t(n), 0.0)), &v = run.inout(DType::f32, Doubles(size_t(n), 0.0));
    for (const Doubles& grad : grads) {
      Buffer& g = run.in(DType::f32, grad);
      KILN_ON(run, adam_update(run.stream(), n, o, e, nullptr, state.as<OptimiserState>(), x.f32(), g.f32(), m.f32(), v.f32(),
                               average.f32()));
    }
    run.expect("value", x, value, 1e-6);
    run.expect("average", average, ema, 1e-6);
  });
}

// ---- Philox
// -----------------------------------------------------------------------------------------------------------

TEST_CASE("kernel: Philox4x32-10's published vectors") {  // Random123, kat_vectors
  struct Vector {
    philox::Words counter;
    uint32_t k0, k1;
    philox::Words want;
  };
  const Vector vectors[] = {
      {{0, 0, 0, 0}, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{~0u, ~0u, ~0u, ~0u}, ~0u, ~0u, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       0xa4093822,
       0x299f31d0,
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (const Vector& v : vectors) {
    const philox::Words got = philox::block(v.counter, v.k0, v.k1);
    CHECK(got.x == v.want.x);
    CHECK(got.y == v.want.y);
    CHECK(got.z == v.want.z);
    CHECK(got.w == v.want.w);
  }
}

TEST_CASE("kernel: Philox's logarithm, sine and cosine are right to 1e-6") {
  double worst = 0;
  const auto check_log = [&](uint32_t k) {  // u = k / 2^24 in (0, 1]
    const double u = k * 0x1p-24, right = std::log(u), got = double(philox::log_unit(float(u)));
    worst = std::max(worst, std::fabs(got - right) / std::max(std::fabs(right), 0x1p-24));
    CHECK_FALSE(got > 0);
  };
  for (uint32_t k = 1; k < (1u << 24); k += 997) check_log(k);
  for (uint32_t k = 1; k <= 2000; k++) {
    check_log(k);
    check_log((1u << 24) + 1 - k);
    check_log(11863283u - 1000 + k);  // around 1 / sqrt 2, where the polynomial's range ends
  }
  CHECK(worst < 1e-6);
  CHECK(philox::log_unit(1.0f) == 0.0f);

  worst = 0;
  const auto check_turn = [&](uint32_t word) {
    float s, c;
    philox::sincos_turn(word, &s, &c);
    const double angle = 6.283185307179586476925 * (word * 0x1p-32);
    worst = std::max({worst, std::fabs(double(s) - std::sin(angle)), std::fabs(double(c) - std::cos(angle))});
  };
  for (uint64_t word = 0; word < (uint64_t(1) << 32); word += 200003) check_turn(uint32_t(word));
  for (uint32_t octant = 0; octant < 8; octant++)
    for (uint32_t k = 0; k < 200; k++) check_turn((octant << 29) - 100 + k);
  CHECK(worst < 1e-6);
}

namespace {

constexpr uint64_t kSeed = 0x123456789abcdef0u;

struct Draw {
  bool normal = false;
  uint64_t seed = kSeed;
  uint32_t site = 3;
  uint64_t step = 41;
  int64_t first = 0, samples = 1, per = 1;
};

Buffer& draw(Run& run, const Draw& d) {
  Buffer &step = run.in(std::vector<uint64_t>{d.step}), &out = run.out(DType::f32, d.samples * d.per);
  if (d.normal)
    KILN_ON(run,
            random_normal(run.stream(), d.seed, d.site, step.as<uint64_t>(), d.first, d.samples, d.per, out.f32()));
  else
    KILN_ON(run,
            random_uniform(run.stream(), d.seed, d.site, step.as<uint64_t>(), d.first, d.samples, d.per, out.f32()));
  return out;
}

/// The words behind element i of a sample, as kernels/random.h counts them.
std::array<uint32_t, 4> words(const Draw& d, int64_t sample, int64_t i) {
  const philox::Words w = philox::block({uint32_t(i / 4), uint32_t(sample), d.site, uint32_t(d.step)}, uint32_t(d.seed),
                                        uint32_t(d.seed >> 32));
  return {w.x, w.y, w.z, w.w};
}

}  // namespace

TEST_CASE("kernel: uniform and normal numbers are Philox's words") {
  for (const auto& [samples, per] :
       {std::pair<int64_t, int64_t>(1, 1), {3, 3}, {2, 4}, {5, 7}, {31, 33}, {1, 1000}, {4, 2501}})
    for (const int64_t first : {int64_t(0), int64_t(7), int64_t(100000)}) {
      CAPTURE(samples);
      CAPTURE(per);
      CAPTURE(first);
      Draw d;
      d.first = first;
      d.samples = samples;
      d.per = per;
      Doubles uniform;
      Sums normal;
      for (int64_t s = 0; s < samples; s++)
        for (int64_t i = 0; i < per; i++) {
          const auto w = words(d, first + s, i);
          const size_t k = size_t(i % 4);
          uniform.push_back((w[k] >> 8) * 0x1p-24);
          const double r = std::sqrt(-2 * std::log(((w[k / 2 * 2] >> 8) + 1) * 0x1p-24));
          const double angle = 6.283185307179586476925 * (w[k / 2 * 2 + 1] * 0x1p-32);
          normal.push_back({r * (k % 2 == 0 ? std::cos(angle) : std::sin(angle)), std::max(r, 1.0)});
        }
      for_each_executor([&](Run& run) {
        d.normal = false;
        run.expect_exact("uniform", draw(run, d), uniform);
        d.normal = true;
        run.expect("normal", draw(run, d), normal, 1e-6);
      });
    }
}

TEST_CASE("kernel: a sample's numbers do not depend on the batch it is in, and everything else changes them") {
  for (const bool normal : {false, true}) {
    CAPTURE(normal);
    for_each_executor([&](Run& run) {
      Draw d;
      d.normal = normal;
      d.samples = 6;
      d.per = 301;
      const Doubles all = draw(run, d).values();
      for (int64_t s = 0; s < d.samples; s++) {
        Draw one = d;
        one.first = s;
        one.samples = 1;
        CHECK(draw(run, one).values() == Doubles(all.begin() + s * d.per, all.begin() + (s + 1) * d.per));
      }
      Draw shorter = d;
      shorter.per = 77;
      const Doubles part = draw(run, shorter).values();
      for (int64_t s = 0; s < d.samples; s++)
        CHECK(std::equal(part.begin() + s * 77, part.begin() + (s + 1) * 77, all.begin() + s * d.per));

      std::vector<Draw> others(6, d);
      others[0].seed ^= 1;
      others[1].seed ^= uint64_t(1) << 32;
      others[2].seed ^= uint64_t(1) << 63;
      others[3].site++;
      others[4].step++;
      others[5].first += d.samples;
      for (const Draw& other : others) {
        const Doubles b = draw(run, other).values();
        size_t equal = 0;
        for (size_t i = 0; i < b.size(); i++) equal += b[i] == all[i];
        CHECK(equal <= 1);
      }
    });
  }
}

TEST_CASE("kernel: normal numbers are distributed as such") {
  for_each_executor([&](Run& run) {
    if (run.way().wide && !run.on_gpu()) return;  // the kernel has one shape
    Draw d;
    d.normal = true;
    d.samples = 10;
    d.per = 20000;
    Doubles x = draw(run, d).values();
    const double n = double(x.size());
    double moment[5] = {}, neighbours[4] = {}, uniform_mean = 0;
    for (size_t i = 0; i < x.size(); i++) {
      for (int k = 1; k <= 4; k++) moment[k] += std::pow(x[i], k) / n;
      for (size_t k = 1; k <= 3; k++)
        if (i + k < x.size()) neighbours[k] += x[i] * x[i + k] / n;
    }
    // Five standard deviations of each estimate.
    CHECK(std::fabs(moment[1]) < 5 / std::sqrt(n));
    CHECK(std::fabs(moment[2] - 1) < 5 * std::sqrt(2 / n));
    CHECK(std::fabs(moment[3]) < 5 * std::sqrt(15 / n));
    CHECK(std::fabs(moment[4] - 3) < 5 * std::sqrt(96 / n));
    for (int k = 1; k <= 3; k++) CHECK(std::fabs(neighbours[k]) < 5 / std::sqrt(n));
    // Kolmogorov and Smirnov: the largest distance of the two distribution functions; 1.95 / sqrt n once in 1000.
    std::sort(x.begin(), x.end());
    double distance = 0;
    for (size_t i = 0; i < x.size(); i++) {
      const double p = 0.5 * std::erfc(-x[i] / std::sqrt(2.0));
      distance = std::max({distance, std::fabs(p - double(i) / n), std::fabs(p - double(i + 1) / n)});
    }
    CHECK(distance < 1.95 / std::sqrt(n));

    d.normal = false;
    double square = 0;
    for (const double u : draw(run, d).values()) {
      uniform_mean += u / n;
      square += u * u / n;
      if (!(u >= 0 && u < 1)) FAIL_CHECK("a uniform number ", u);
    }
    CHECK(std::fabs(uniform_mean - 0.5) < 5 * std::sqrt(1 / 12.0 / n));
    CHECK(std::fabs(square - 1 / 3.0) < 5 * std::sqrt(4 / 45.0 / n));
  });
}
