// The convolutional GRU: forward against plain loops in double precision, back-propagation through time against finite differences.
#include "engine/ops_clip.h"
#include "engine/ops_feature.h"
#include "engine/parameters.h"
#include "engine/random.h"
#include "engine/step_graph.h"
#include "kernels/exec/log.h"
#include "models/blocks.h"
#include "tests/op_test.h"

using namespace kiln;
using namespace kiln::test;

namespace {

struct Case {
  int64_t n, t, h, w, cin, c;
  int64_t k = 3, truncate = 0;
  bool constant = false;
  Activation act = Activation::relu;

  Shape input() const { return constant ? Shape{n, h, w, cin} : Shape{n, t, h, w, cin}; }
  std::vector<Array> inputs() const {
    return {random_array("x", input()), random_array("wx", Shape{3 * c, k, k, cin}, 0.4), random_array("wh", Shape{2 * c, k, k, c}, 0.4),
            random_array("wc", Shape{c, k, k, c}, 0.4)};
  }
  std::string text() const {
    return fmt::format("conv_gru {} to {}, kernel {}, {} frames, truncate {}, constant {}, act {}", input().text(), c, k, t, truncate, constant, int(act));
  }
};

/// The bias as a bound parameter.
struct Bias {
  Param p;
  ParameterSet set;
  explicit Bias(int64_t c) {
    p.shape = Shape{3 * c};
    set = ParameterSet(*this, true);
    p.value.upload(to_tensor(random_array("bias", p.shape)).data());
  }
  Bias(const Bias&) = delete;
  template <class F>
  void visit(F&& f) {
    f("bias", p);
  }
};

double logistic(double x) { return 1 / (1 + std::exp(-x)); }

/// States of all frames. At frames where gradients stop, the state before comes from `fixed` if that is given: a constant.
Array gru_reference(const Case& g, const std::vector<Array>& v, const Array* fixed) {
  const int64_t pixels = g.h * g.w, c = g.c;
  Array frames = v[0];
  frames.shape = Shape{g.constant ? g.n : g.n * g.t, g.h, g.w, g.cin};
  const Array gx = reference::conv2d(frames, v[1], 1, int(g.k / 2)), &b = v[4];
  Array y(Shape{g.n, g.t, g.h, g.w, c}), h(Shape{g.n, g.h, g.w, c});
  for (int64_t f = 0; f < g.t; f++) {
    if (fixed && f > 0 && g.truncate > 0 && f % g.truncate == 0)
      for (int64_t n = 0; n < g.n; n++)
        for (int64_t i = 0; i < pixels * c; i++) h.v[size_t(n * pixels * c + i)] = fixed->v[size_t((n * g.t + f - 1) * pixels * c + i)];
    const Array gh = reference::conv2d(h, v[2], 1, int(g.k / 2));
    Array rh = h, u = h;
    const auto input = [&](int64_t r, int64_t j) {  // row r of the frame
      const int64_t n = r / pixels, row = g.constant ? r : (n * g.t + f) * pixels + r % pixels;
      return gx.v[size_t(row * 3 * c + j)] + b.v[size_t(j)];
    };
    for (int64_t r = 0; r < g.n * pixels; r++)
      for (int64_t j = 0; j < c; j++) {
        rh.v[size_t(r * c + j)] *= logistic(input(r, j) + gh.v[size_t(r * 2 * c + j)]);
        u.v[size_t(r * c + j)] = logistic(input(r, c + j) + gh.v[size_t(r * 2 * c + c + j)]);
      }
    const Array ck = reference::conv2d(rh, v[3], 1, int(g.k / 2));
    for (int64_t r = 0; r < g.n * pixels; r++)
      for (int64_t j = 0; j < c; j++) {
        const size_t i = size_t(r * c + j);
        const double z = input(r, 2 * c + j) + ck.v[i], k = g.act == Activation::tanh ? std::tanh(z) : std::max(0.0, z);
        h.v[i] = u.v[i] * h.v[i] + (1 - u.v[i]) * k;
        y.v[size_t(((r / pixels * g.t + f) * pixels + r % pixels) * c + j)] = h.v[i];
      }
  }
  return y;
}

Var run(const Case& g, const std::vector<Var>& v, Param& bias) {
  const Var x = g.constant ? v[0] : frames_of(v[0]);
  return gru_recurrence(conv2d(x, v[1], 1, int(g.k / 2)), g.n, g.t, v[2], v[3], bias, g.act, g.truncate);
}

void check(const Case& g) {
  Bias bias(g.c);
  Array fixed;
  std::vector<Array> base = g.inputs();
  base.push_back(to_array(bias.p.value));
  if (g.truncate) fixed = gru_reference(g, base, nullptr);
  check_op({g.text(), g.inputs(), {&bias.p}, [&](const std::vector<Var>& v) { return run(g, v, bias.p); },
            [&](const std::vector<Array>& v) { return gru_reference(g, v, g.truncate ? &fixed : nullptr); }});
}

}  // namespace

TEST_CASE("op: conv_gru and back-propagation through time") {
  Fixture fixture;
  for (const Activation act : {Activation::tanh, Activation::relu})
    for (const bool constant : {false, true}) {
      check({2, 3, 3, 2, 4, 5, 3, 0, constant, act});
      check({1, 4, 2, 2, 3, 16, 1, 0, constant, act});
      check({2, 1, 3, 3, 2, 3, 3, 0, constant, act});
    }
}

TEST_CASE("op: truncated back-propagation is that of states that are constants") {
  Fixture fixture;
  for (int64_t truncate : {1, 2, 3, 5}) check({2, 5, 2, 3, 3, 4, 3, truncate, false, Activation::tanh});
  check({1, 4, 2, 2, 3, 4, 3, 2, true, Activation::relu});
}

TEST_CASE("op: conv_gru by the library and by our own products agree, and nothing is kept where nothing records") {
  Fixture fixture;
  const Case g{2, 3, 4, 4, 8, 128};
  Bias bias(g.c);
  const Array d = random_array("d", Shape{g.n, g.t, g.h, g.w, g.c});
  std::vector<Array> in = g.inputs();
  for (size_t i = 1; i < in.size(); i++)
    for (double& x : in[i].v) x *= 0.1;
  const auto gradients = [&] { return gradients_of([&](const std::vector<Var>& v) { return run(g, v, bias.p); }, in, d); };
  const std::vector<Array> own = gradients();
  fixture.context.cpu_products = false;
  const std::vector<Array> library = gradients();
  fixture.context.cpu_products = true;
  for (size_t i = 0; i < own.size(); i++) CHECK(relative_error(own[i], library[i]) < 1e-4);

  std::vector<Var> plain;
  for (const Array& a : in) plain.emplace_back(to_tensor(a));
  const Array without = to_array(run(g, plain, bias.p).value);
  Tape tape;
  Recording recording(tape);
  CHECK(relative_error(to_array(run(g, plain, bias.p).value), without) == 0);
}

TEST_CASE("op: conv_gru in 16 bits follows the one in 32 bits") {
  Fixture fixture;
  const Case g{2, 4, 4, 3, 8, 16, 3, 0, false, Activation::tanh};
  Bias bias(g.c);
  const Array d = random_array("d", Shape{g.n, g.t, g.h, g.w, g.c});
  const auto in_type = [&](DType t) {
    Tape tape;
    Recording recording(tape);
    std::vector<Var> v;
    for (const Array& a : g.inputs()) v.emplace_back(converted(to_tensor(a), t), true);
    const Var y = run(g, v, bias.p);
    tape.backward_from({{y, converted(to_tensor(d), t)}});
    std::vector<Array> r = {to_array(y.value)};
    for (const Var& x : v) r.push_back(to_array(x.node->gradient()));
    return r;
  };
  const auto exact = in_type(DType::f32);
  for (const DType t : {DType::bf16, DType::f16}) {
    const auto got = in_type(t);
    CAPTURE(name_of(t));
    for (size_t i = 0; i < got.size(); i++) CHECK(relative_error(got[i], exact[i]) < (t == DType::bf16 ? 4e-2 : 6e-3));
  }
}

TEST_CASE("op: a ConvGru trains behind its spectral norm") {
  Fixture fixture;
  for (const bool constant : {false, true}) {
    ConvGru gru(3, 6);
    CHECK(gru.input.weight.shape == Shape{18, 3, 3, 3});
    ParameterSet set(gru, true);
    Philox random(3);
    set.initialise(random, "gru");
    SpectralGroup group(gru);
    Tape tape;
    Recording recording(tape);
    set.zero_grad();
    group.prepare(set.values, set.grads, set.vectors);
    const Var x(to_tensor(random_array("x", constant ? Shape{2, 4, 4, 3} : Shape{2, 5, 4, 4, 3})));
    const Var y = conv_gru(x, 5, gru);
    CHECK(y.shape() == Shape{2, 5, 4, 4, 6});
    tape.backward_from({{y, to_tensor(random_array("d", y.shape()))}});
    for (Param* p : {&gru.input.weight, &gru.gates.weight, &gru.candidate.weight, &gru.bias}) {
      double most = 0;
      for (float g : p->grad.to_vector()) most = std::max(most, double(std::fabs(g)));
      CHECK(most > 1e-6);
      CHECK(most < 1e6);
    }
  }
}

namespace {

/// A GRU and ops of clips behind it, forward and backward, as one step.
struct ClipStep {
  ConvGru gru{3, 8};
  SpectralConv3d conv{8, 4, 3, 3, TimePadding::replicate};
  ParameterSet set;
  SpectralGroup group;
  Tensor x = to_tensor(random_array("x", Shape{2, 6, 4, 4, 3})), u = to_tensor(random_array("u", Shape{2, 6}));
  Tensor d = to_tensor(random_array("d", Shape{2, 2, 2, 2, 4}));

  ClipStep() : set(*this, true), group(*this) {
    Philox random(4);
    set.initialise(random, "step");
  }
  ClipStep(const ClipStep&) = delete;
  template <class F>
  void visit(F&& f) {
    f("gru", gru);
    f("conv", conv);
  }
  void run() {
    Tape tape;
    Recording recording(tape);
    set.zero_grad();
    group.prepare(set.values, set.grads, set.vectors);
    const Var frames = gather_frames(conv(conv_gru(Var(x), 6, gru)), draw_frames(u, 4));
    const Var y = clip_pool(time_repeat(take_frames(frames, 0, 2, 2), 2), 2, 2);
    tape.backward_from({{resize_clip(y, 2, 2, 2, TimeScaling::linear), d}});
  }
};

}  // namespace

TEST_CASE("op: the ops of clips keep the rules of a captured step") {
  Fixture fixture;
  ClipStep step;
  StepGraph graph(true);
  std::vector<LaunchLog> logs(5);
  for (LaunchLog& log : logs) {
    launch_log = &log;
    graph.run([&] { step.run(); });
    launch_log = nullptr;
  }
  if (fixture.context.device == Device::cpu) {
    CHECK(logs[3].entries.size() > 60);
    CHECK(logs[3].entries == logs[4].entries);
  }
}

TEST_CASE("op: a plan of the ops of clips takes the memory that they take") {
  const auto peak = [](bool planning) {
    Context context(Device::cpu, planning);
    UseContext use(context);
    ClipStep step;
    for (int i = 0; i < 2; i++) step.run();
    return context.arena->stats().peak;
  };
  CHECK(peak(true) == peak(false));
}
