// kernels/step.h: the loss scale's rules, the check of gradients; and Adam under a loss scale.
#include "kernels/step.h"

#include <cstring>
#include <limits>

#include "tests/kernel_test.h"

using namespace kiln;
using namespace kiln::test;

namespace {

template <class T>
T value_of(const Buffer& b) {
  T v;
  std::memcpy(&v, b.bytes().data(), sizeof v);
  return v;
}

constexpr double kInfinity = std::numeric_limits<double>::infinity(), kNaN = std::numeric_limits<double>::quiet_NaN();

}  // namespace

TEST_CASE("kernel: check_finite finds one infinity or NaN anywhere") {
  Random random(80);
  for (const int64_t n : {1, 3, 16, 33, 1000, 40003, 300000}) {
    const Doubles x = random.normals(DType::f32, n, 1e30);  // large, but finite
    for (const int64_t at : {int64_t(-1), int64_t(0), n / 2, n - 1})
      for (const double bad : {kInfinity, -kInfinity, kNaN}) {
        CAPTURE(n);
        CAPTURE(at);
        CAPTURE(bad);
        Doubles y = x;
        if (at >= 0) y[size_t(at)] = bad;
        for_each_executor([&](Run& run) {
          Buffer &b = run.in(DType::f32, y), &check = run.out(DType::f32, 1), &scratch = run.scratch(32);
          KILN_ON(run, check_finite(run.stream(), n, b.f32(), check.f32(), scratch.f32()));
          const float found = value_of<float>(check);
          CHECK((at < 0 ? found == 0.f : found != found));
        });
        if (at < 0) break;
      }
  }
}

TEST_CASE("kernel: the loss scale halves at an overflow, doubles after good steps, and keeps its limits") {
  LossScaleOptions o;
  o.least = 4;
  o.most = 64;
  o.interval = 3;
  struct Step {
    bool first, second;  // whose gradients overflow
    float scale;         // after the step
    int good;
    int64_t overflows;
  };
  const std::vector<Step> steps = {{false, false, 16, 1, 0}, {false, false, 16, 2, 0}, {false, false, 32, 0, 0},
                                   {false, true, 16, 0, 1},  {false, false, 16, 1, 1}, {true, false, 8, 0, 2},
                                   {true, true, 4, 0, 3},    {true, false, 4, 0, 4},   {false, false, 4, 1, 4}};
  for_each_executor([&](Run& run) {
    std::vector<StepState> start(1);
    start[0].loss_scale = 16;
    start[0].step = 40;
    Buffer& state = run.inout(start);
    uint64_t number = 40;
    const auto set_check = [&](int k, bool bad) {  // through check_finite, as a step does
      Buffer &g = run.in(DType::f32, {bad ? kNaN : 1.0}), &scratch = run.scratch(32);
      KILN_ON(run, check_finite(run.stream(), 1, g.f32(), &state.as<StepState>()->network[k].check, scratch.f32()));
    };
    for (const Step& s : steps) {
      set_check(0, s.first);
      set_check(1, s.second);
      set_check(2, true);  // not one of the two that count
      KILN_ON(run, end_step(run.stream(), 2, true, o, state.as<StepState>()));
      const StepState now = value_of<StepState>(state);
      CHECK(now.loss_scale == s.scale);
      CHECK(now.good_steps == s.good);
      CHECK(now.overflows == s.overflows);
      CHECK(now.step == ++number);
      CHECK(now.network[0].check == 0.f);
      CHECK(now.network[1].check == 0.f);
    }
    for (int i = 0; i < 20; i++) KILN_ON(run, end_step(run.stream(), 2, true, o, state.as<StepState>()));
    CHECK(value_of<StepState>(state).loss_scale == 64);
    // A network that is updated twice in a step, where the first update overflowed.
    Buffer &x = run.inout(DType::f32, {1}), &g = run.in(DType::f32, {1}), &m = run.inout(DType::f32, {0}), &v = run.inout(DType::f32, {0});
    OptimiserState* twice = &state.as<StepState>()->network[1];
    for (const bool bad : {true, false}) {
      set_check(1, bad);
      KILN_ON(run, adam_update(run.stream(), 1, {}, {}, &state.as<StepState>()->loss_scale, twice, x.f32(), g.f32(), m.f32(), v.f32(), nullptr));
    }
    CHECK(value_of<StepState>(state).network[1].updates == 1);
    KILN_ON(run, end_step(run.stream(), 2, true, o, state.as<StepState>()));
    CHECK(value_of<StepState>(state).loss_scale == 32);
    KILN_ON(run, end_step(run.stream(), 2, true, o, state.as<StepState>()));
    CHECK(value_of<StepState>(state).loss_scale == 32);  // told once
    number += 2;
    for (int i = 0; i < 3; i++) KILN_ON(run, end_step(run.stream(), 2, true, o, state.as<StepState>()));
    number += 3;
    set_check(0, true);
    KILN_ON(run, end_step(run.stream(), 2, false, o, state.as<StepState>()));  // not scaled: only the step moves
    CHECK(value_of<StepState>(state).loss_scale == 64);
    CHECK(value_of<StepState>(state).step == number + 21);
  });
}

TEST_CASE("kernel: Adam divides by the loss scale, and leaves an update out whole") {
  Random random(81);
  const int64_t n = 1003;
  const Doubles x = random.normals(DType::f32, n), g = random.normals(DType::f32, n), average = random.normals(DType::f32, n);
  Doubles scaled = g, m(size_t(n), 0.25), v(size_t(n), 0.5);
  for (double& y : scaled) y *= 1024;  // exact
  const AdamOptions o;
  const EmaOptions e;
  for_each_executor([&](Run& run) {
    const auto update = [&](const Doubles& gradient, double scale, float check, bool* same) {
      std::vector<OptimiserState> state(1);
      state[0].updates = 6;
      state[0].check = check;
      Buffer &s = run.inout(state), &bx = run.inout(DType::f32, x), &bg = run.in(DType::f32, gradient), &bm = run.inout(DType::f32, m),
             &bv = run.inout(DType::f32, v), &be = run.inout(DType::f32, average), &bs = run.inout(DType::f32, average);
      Buffer& loss_scale = run.in(DType::f32, {scale});
      KILN_ON(run, adam_update(run.stream(), n, o, e, scale == 1 ? nullptr : loss_scale.f32(), s.as<OptimiserState>(), bx.f32(), bg.f32(),
                               bm.f32(), bv.f32(), be.f32()));
      KILN_ON(run, ema_update(run.stream(), n, s.as<OptimiserState>(), bx.f32(), bs.f32()));
      *same = bx.values() == x && bm.values() == m && bv.values() == v && be.values() == average && bs.values() == average;
      CHECK(value_of<OptimiserState>(s).updates == (*same ? 6 : 7));
      return std::vector<Doubles>{bx.values(), bm.values(), bv.values(), be.values(), bs.values()};
    };
    bool same = true;
    const auto plain = update(g, 1, 0, &same);
    CHECK(!same);
    CHECK(update(scaled, 1024, 0, &same) == plain);
    Doubles bad = scaled;
    bad[500] = kNaN;
    update(bad, 1024, std::numeric_limits<float>::quiet_NaN(), &same);
    CHECK(same);
  });
}
