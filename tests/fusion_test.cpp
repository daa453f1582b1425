// Every fused op equals its unfused composition, forward and backward. Spectral norm is in spectral_test.cpp.
#include <fmt/format.h>

#include "engine/parameters.h"
#include "tests/op_test.h"

using namespace kiln;
using namespace kiln::test;

namespace {

struct NormModule {
  BatchNorm norm;
  NoiseInjection injection;
  explicit NormModule(int64_t channels) : norm(channels, 0.3f) {
    norm.bias.init = {0.1f, 0.3f}, injection.weight.init = {0.5f, 0.1f};
  }
  template <class F>
  void visit(F&& f) {
    f("norm", norm);
    f("noise", injection);
  }
};

/// What a pass leaves behind: the value, and the gradients of the inputs and of all parameters, and the running
/// statistics.
struct Outcome {
  std::vector<Array> arrays;
};

using Op = std::function<Var(NormModule&, const std::vector<Var>&)>;

Outcome run(const Shape& shape, const Op& op, bool training) {
  NormModule m(shape[-1]);
  ParameterSet set(m, true);
  Philox random(7);
  set.initialise(random, "");
  Scoped<bool> mode(&Context::training, training);
  const std::vector<Var> v{Var(to_tensor(random_array("x", shape, 2)), true)};
  Tape tape;
  Recording recording(tape);
  poison_arena();
  const Var y = op(m, v);
  Outcome o;
  o.arrays = {to_array(y.value)};
  tape.backward_from({{y, to_tensor(random_array("seed", y.shape()))}});
  o.arrays.push_back(to_array(v[0].node->gradient()));
  for (const auto& e : set.entries())
    o.arrays.push_back(to_array(e.kind == ParameterSet::Entry::parameter ? set.gradient(e) : set.tensor(e)));
  return o;
}

void compare(const Outcome& fused, const Outcome& plain) {
  REQUIRE(fused.arrays.size() == plain.arrays.size());
  for (size_t i = 0; i < fused.arrays.size(); i++) {
    CAPTURE(i);
    CHECK(relative_error(fused.arrays[i], plain.arrays[i]) < 1e-5);
  }
}

}  // namespace

TEST_CASE("fusion: norm_glu equals noise, batch norm and GLU one after the other") {
  Fixture fixture;
  for (bool training : {true, false})
    for (const Shape& s : {Shape{2, 5, 7, 6}, Shape{3, 4, 4, 32}, Shape{2, 33, 35, 10}}) {
      CAPTURE(s.text());
      CAPTURE(training);
      const Tensor noise = from_vector(s.with(-1, 1), hashed_normal("noise", s.rows()));
      compare(
          run(
              s, [&](NormModule& m, const std::vector<Var>& v) { return norm_glu(v[0], m.norm, &m.injection, &noise); },
              training),
          run(
              s,
              [&](NormModule& m, const std::vector<Var>& v) {
                return glu(batch_norm(inject_noise(v[0], m.injection, noise), m.norm));
              },
              training));
      compare(
          run(
              s, [&](NormModule& m, const std::vector<Var>& v) { return norm_glu(v[0], m.norm); }, training),
          run(
              s, [&](NormModule& m, const std::vector<Var>& v) { return glu(batch_norm(v[0], m.norm)); }, training));
    }
}

TEST_CASE("fusion: norm_act equals batch norm and activation one after the other") {
  Fixture fixture;
  for (bool training : {true, false})
    for (Activation a : {Activation::none, Activation::relu, Activation::leaky_relu})
      for (const Shape& s : {Shape{2, 5, 7, 3}, Shape{3, 4, 4, 16}, Shape{2, 33, 35, 5}}) {
        CAPTURE(s.text());
        CAPTURE(training);
        compare(
            run(
                s, [&](NormModule& m, const std::vector<Var>& v) { return norm_act(v[0], m.norm, a); }, training),
            run(
                s, [&](NormModule& m, const std::vector<Var>& v) { return activation(batch_norm(v[0], m.norm), a); },
                training));
      }
}

TEST_CASE("fusion: upsample_conv3x3 equals upsampling and convolution one after the other") {
  Fixture fixture;
  for (const auto& [n, h, w, c, oc] : std::initializer_list<std::array<int64_t, 5>>{
           {2, 5, 7, 3, 6}, {1, 8, 8, 16, 32}, {3, 4, 4, 32, 16}, {1, 1, 3, 5, 1}, {2, 16, 9, 8, 64}}) {
    const std::vector<Array> inputs = {random_array("x", Shape{n, h, w, c}),
                                       random_array("w", Shape{oc, 3, 3, c}, 0.3)};
    const Array seed = random_array("seed", Shape{n, 2 * h, 2 * w, oc});
    const auto fused = [](const std::vector<Var>& v) { return upsample_conv3x3(v[0], v[1]); };
    const auto plain = [](const std::vector<Var>& v) { return conv2d(upsample2x(v[0]), v[1], 1, 1); };
    const std::vector<Var> constants = {Var(to_tensor(inputs[0])), Var(to_tensor(inputs[1]))};
    CHECK(relative_error(to_array(fused(constants).value), to_array(plain(constants).value)) < 1e-5);
    const std::vector<Array> a = gradients_of(fused, inputs, seed), b = gradients_of(plain, inputs, seed);
    CHECK(relative_error(a[0], b[0]) < 1e-5);
    CHECK(relative_error(a[1], b[1]) < 1e-5);
  }
}

TEST_CASE("fusion: gather_augmented equals gather and augment one after the other") {
  Fixture fixture;
  const int64_t count = 5, n = 4;
  for (const auto& [h, w] : {std::pair{8, 8}, std::pair{18, 14}, std::pair{48, 40}}) {
    std::vector<uint8_t> bytes;
    for (float f : hashed_uniform("bytes", count * h * w * 3)) bytes.push_back(uint8_t(f * 200));
    const PictureSet set(bytes.data(), count, h, w);
    const std::vector<int32_t> order = {3, 0, 4, 3};
    const Tensor index(Shape{n}, DType::i32), flips = from_vector(Shape{n, 1}, {0.1f, 0.6f, 0.7f, 0.49f});
    index.upload(order.data());
    const Array u(Shape{n, 7}, hashed_uniform("uniforms", n * 7));
    const Array plain = reference::gather(bytes, h, w, order, {true, false, false, true});
    for (int bits = 0; bits < 8; bits++) {
      const AugmentPolicy policy{bool(bits & 1), bool(bits & 2), bool(bits & 4)};
      CAPTURE(bits);
      poison_arena();
      const Array fused = to_array(gather_augmented(set, index, flips, 0.5f, policy, to_tensor(u)));
      const Array apart = to_array(augment(Var(gather(set, index, flips, 0.5f)), policy, to_tensor(u)).value);
      CHECK(relative_error(fused, apart) < 1e-6);
      CHECK(relative_error(fused, reference::augment(plain, policy, u.v)) < 1e-5);
    }
  }
}

// ---- Adam and the moving average
// -------------------------------------------------------------------------------------

namespace {

struct Weights {
  Param a, b, c;
  Buffer mean, vector;
  Weights() {
    a.shape = Shape{3, 5};
    b.shape = Shape{1};
    c.shape = Shape{2, 7, 3};
    mean.shape = Shape{5};
    vector.shape = Shape{4};
    vector.averaged = false;
    for (Param* p : {&a, &b, &c}) p->init = {0.1f, 1};
    for (Buffer* p : {&mean, &vector}) p->init = {0, 1};
  }
  template <class F>
  void visit(F&& f) {
    f("a", a);
    f("b", b);
    f("mean", mean);
    f("vector", vector);
    f("c", c);
  }
};

void check_adam(const AdamOptions& o, const EmaOptions& e) {
  Weights w, average_w;
  ParameterSet set(w, true), average(average_w, false);
  Philox random(1);
  set.initialise(random, "w.");
  average.copy_from(set);
  const auto value = [](const ParameterSet& s) {
    std::vector<double> all;
    for (const auto& entry : s.entries())
      for (float x : s.tensor(entry).to_vector()) all.push_back(double(x));
    return all;
  };
  std::vector<double> x = value(set), ema = value(average), m(x.size()), v(x.size());
  const std::vector<double> first_ema = ema;
  for (int t = 1; t <= 12; t++) {
    CAPTURE(t);
    // Gradients of several sizes; statistics and vectors move as a forward pass would move them.
    const double lr = double(o.lr), b1 = double(o.beta1), b2 = double(o.beta2);
    double decay = double(e.decay);
    if (e.warm_up) decay = std::min(decay, (1.0 + t) / (10.0 + t));
    size_t i = 0;
    for (const auto& entry : set.entries()) {
      const std::vector<float> g = hashed_signed(fmt::format("{} {}", entry.name, t), entry.count());
      if (entry.kind == ParameterSet::Entry::parameter) {
        set.gradient(entry).upload(g.data());
      } else {
        set.tensor(entry).upload(g.data());
      }
      for (float f : g) {
        if (entry.kind == ParameterSet::Entry::parameter) {
          m[i] = b1 * m[i] + (1 - b1) * double(f);
          v[i] = b2 * v[i] + (1 - b2) * double(f) * double(f);
          x[i] -= lr * (m[i] / (1 - std::pow(b1, t))) / (std::sqrt(v[i] / (1 - std::pow(b2, t))) + double(o.eps));
        } else {
          x[i] = double(f);
        }
        if (entry.kind != ParameterSet::Entry::vector) ema[i] = decay * ema[i] + (1 - decay) * x[i];
        i++;
      }
    }
    set.adam_step(o, e, &average);
    CHECK(set.steps() == t);
    const std::vector<double> got = value(set), got_ema = value(average);
    double worst = 0, worst_ema = 0, moved = 0;
    for (i = 0; i < x.size(); i++) {
      worst = std::max(worst, std::abs(got[i] - x[i]));
      worst_ema = std::max(worst_ema, std::abs(got_ema[i] - ema[i]));
      moved = std::max(moved, std::abs(ema[i] - first_ema[i]));
    }
    CHECK(worst < 1e-3 * lr + 3e-7 * t);  // a thousandth of a step, and float's rounding of weights near 1
    CHECK(worst_ema < 1e-3 * lr + 3e-7 * t);
    CHECK(moved > 1e-6);
  }
  // The moments, by name.
  size_t i = 0;
  for (const auto& entry : set.entries()) {
    if (entry.kind != ParameterSet::Entry::parameter) {
      i += size_t(entry.count());
      continue;
    }
    const std::vector<float> m0 = set.moment(entry, 0).to_vector(), m1 = set.moment(entry, 1).to_vector();
    for (size_t k = 0; k < m0.size(); k++, i++) {
      CHECK(double(m0[k]) == doctest::Approx(m[i]).epsilon(1e-5));
      CHECK(double(m1[k]) == doctest::Approx(v[i]).epsilon(1e-5));
    }
  }
}

}  // namespace

TEST_CASE("fusion: Adam and the moving average in one launch equal the textbook's, in double") {
  Fixture fixture;
  SUBCASE("as FastGAN trains, warm-up on") { check_adam({2e-4f, 0.5f, 0.999f, 1e-8f}, {0.999f, true}); }
  SUBCASE("warm-up off") { check_adam({2e-4f, 0.5f, 0.999f, 1e-8f}, {0.9f, false}); }
  SUBCASE("large steps, a decay that ends the warm-up") { check_adam({0.05f, 0.9f, 0.99f, 1e-3f}, {0.4f, true}); }
  SUBCASE("no momentum") { check_adam({1e-3f, 0.f, 0.9f, 1e-8f}, {0.f, false}); }
}

TEST_CASE("fusion: Adam without an average, from a given number of steps") {
  Fixture fixture;
  Weights w;
  ParameterSet set(w, true);
  set.grads.upload(std::vector<float>(size_t(set.grads.count()), -3.f).data());
  set.set_steps(999);
  set.adam_step({0.1f, 0.5f, 0.999f, 0.f}, {}, nullptr);
  CHECK(set.steps() == 1000);
  // m = 0.5 g (bias correction 1 at step 1000), v = 0.001 g^2 over (1 - 0.999^1000).
  const double expected = 0.1 * 0.5 / std::sqrt(0.001 / (1 - std::pow(double(0.999f), 1000)));
  for (float x : set.values.to_vector()) CHECK(double(x) == doctest::Approx(expected).epsilon(1e-4));
}
