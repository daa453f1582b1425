// The ops with weights: convolutions, projection, normalisation, noise. The others are in op_pointwise_test.cpp.
#include <array>

#include "engine/parameters.h"
#include "tests/op_test.h"

using namespace kiln;
using namespace kiln::test;

namespace {

struct ConvCase {
  int64_t n, h, w, c, oc, kh, kw;
  int stride, pad;
  std::string text() const {
    return fmt::format("{}x{}x{}x{} to {}, kernel {}x{}, stride {}, pad {}", n, h, w, c, oc, kh, kw, stride, pad);
  }
  std::vector<Array> inputs() const {
    return {random_array("x", Shape{n, h, w, c}), random_array("w", Shape{oc, kh, kw, c}, 0.5)};
  }
};

}  // namespace

TEST_CASE("op: conv2d") {
  Fixture fixture;
  for (const ConvCase& k : std::initializer_list<ConvCase>{
           {2, 5, 7, 3, 5, 3, 3, 1, 1},
           {1, 8, 6, 1, 1, 3, 3, 1, 1},
           {1, 6, 9, 16, 16, 3, 3, 1, 1},
           {2, 6, 5, 5, 32, 3, 3, 1, 0},
           {1, 6, 7, 3, 16, 1, 1, 1, 0},
           {2, 3, 4, 16, 1, 1, 1, 1, 0},
           {2, 8, 6, 3, 5, 4, 4, 2, 1},
           {1, 9, 7, 5, 3, 4, 4, 2, 1},
           {1, 8, 12, 16, 16, 4, 4, 2, 1},
           {2, 4, 4, 16, 5, 4, 4, 1, 0},
           {2, 4, 4, 5, 1, 4, 4, 1, 0},
           {1, 8, 8, 3, 1, 4, 4, 1, 0},
           {1, 9, 11, 3, 5, 3, 3, 2, 1},
           {1, 6, 8, 2, 3, 3, 3, 2, 0},  // the last line and column are read by nothing
           {1, 7, 6, 16, 5, 1, 1, 2, 0},
           {1, 7, 8, 2, 3, 3, 5, 1, 2},
           {1, 11, 8, 3, 2, 2, 3, 3, 1},
       })
    check_op({"conv2d " + k.text(),
              k.inputs(),
              {},
              [&](const std::vector<Var>& v) { return conv2d(v[0], v[1], k.stride, k.pad); },
              [&](const std::vector<Array>& v) { return reference::conv2d(v[0], v[1], k.stride, k.pad); }});
}

TEST_CASE("op: conv_transpose2d") {
  Fixture fixture;
  for (const ConvCase& k : std::initializer_list<ConvCase>{
           {2, 3, 4, 5, 3, 4, 4, 2, 1},
           {1, 4, 3, 16, 16, 4, 4, 2, 1},
           {1, 5, 3, 3, 1, 4, 4, 2, 1},
           {2, 1, 1, 16, 5, 4, 4, 1, 0},
           {1, 4, 5, 5, 16, 3, 3, 1, 1},
           {2, 3, 3, 1, 5, 2, 2, 2, 0},
           {1, 3, 5, 5, 3, 3, 3, 2, 1},
           {1, 2, 3, 3, 2, 2, 5, 3, 0},
       })
    check_op({"conv_transpose2d " + k.text(),
              k.inputs(),
              {},
              [&](const std::vector<Var>& v) { return conv_transpose2d(v[0], v[1], k.stride, k.pad); },
              [&](const std::vector<Array>& v) { return reference::conv_transpose2d(v[0], v[1], k.stride, k.pad); }});
}

TEST_CASE("op: upsample_conv3x3") {
  Fixture fixture;
  for (const ConvCase& k : std::initializer_list<ConvCase>{{2, 3, 4, 5, 3, 3, 3, 1, 1},
                                                           {1, 4, 3, 16, 16, 3, 3, 1, 1},
                                                           {1, 1, 1, 3, 5, 3, 3, 1, 1},
                                                           {2, 5, 2, 1, 1, 3, 3, 1, 1}})
    check_op({"upsample_conv3x3 " + k.text(),
              k.inputs(),
              {},
              [](const std::vector<Var>& v) { return upsample_conv3x3(v[0], v[1]); },
              [](const std::vector<Array>& v) {
                return reference::conv2d(reference::nearest_resize(v[0], 2 * v[0].shape[1], 2 * v[0].shape[2]), v[1], 1,
                                         1);
              }});
}

TEST_CASE("op: project") {
  Fixture fixture;
  for (const auto& [n, c, oc, k] : std::initializer_list<std::array<int64_t, 4>>{
           {3, 7, 10, 4}, {1, 1, 1, 4}, {2, 16, 6, 2}, {5, 3, 16, 1}, {2, 40, 36, 4}})
    check_op({fmt::format("project {}x{} to {}, kernel {}", n, c, oc, k),
              {random_array("z", Shape{n, c}), random_array("w", Shape{oc, k, k, c})},
              {},
              [](const std::vector<Var>& v) { return project(v[0], v[1]); },
              [](const std::vector<Array>& v) { return reference::project(v[0], v[1]); }});
}

namespace {

/// A batch norm and a noise injection with hashed values in all their tensors.
struct NormModule {
  BatchNorm norm;
  NoiseInjection injection;
  ParameterSet set;
  std::vector<double> noise;
  Tensor noise_tensor;

  explicit NormModule(const Shape& x) : norm(x[-1]), set(*this, true) {
    fill(norm.weight.value, 1, 0.5);
    fill(norm.bias.value, 0, 0.5);
    fill(norm.running_mean.value, 0.2, 0.5);
    fill(norm.running_var.value, 1.5, 1);
    injection.weight.value.upload(std::vector<float>{0.7f}.data());
    const std::vector<float> n = hashed_normal("noise", x.rows());
    noise.assign(n.begin(), n.end());
    noise_tensor = from_vector(x.with(-1, 1), n);
  }
  NormModule(const NormModule&) = delete;
  template <class F>
  void visit(F&& f) {
    f("norm", norm);
    f("noise", injection);
  }
  reference::Statistics running() const {
    return {to_array(norm.running_mean.value).v, to_array(norm.running_var.value).v};
  }

 private:
  static void fill(const Tensor& t, double centre, double spread) {
    Array a = random_array(fmt::format("fill {} {}", centre, spread), t.shape(), spread);
    for (double& v : a.v) v = double(float(v + centre));
    t.upload(std::vector<float>(a.v.begin(), a.v.end()).data());
  }
};

enum class Tail { plain, none, relu, leaky, glu, noisy_glu };
const char* text(Tail t) {
  const char* names[] = {"batch_norm",     "norm_act none", "norm_act relu",
                         "norm_act leaky", "norm_glu",      "norm_glu with noise"};
  return names[int(t)];
}

void check_norm(const Shape& shape, Tail tail, bool training, double offset = 0) {
  NormModule m(shape);
  const bool noisy = tail == Tail::noisy_glu;
  // Training moves the running statistics at every call; evaluation reads them as they were set.
  const reference::Statistics running = m.running();
  Array x = random_array("x", shape, 2);
  for (double& v : x.v) v = double(float(v + offset));
  OpCase c;
  c.name = fmt::format("{} {} {}", text(tail), shape.text(), training ? "in training" : "in evaluation");
  c.inputs = {x};
  c.parameters = {&m.norm.weight, &m.norm.bias};
  if (noisy) c.parameters.push_back(&m.injection.weight);
  c.op = [&](const std::vector<Var>& v) {
    Scoped<bool> mode(&Context::training, training);
    switch (tail) {
      case Tail::plain: return batch_norm(v[0], m.norm);
      case Tail::none: return norm_act(v[0], m.norm, Activation::none);
      case Tail::relu: return norm_act(v[0], m.norm, Activation::relu);
      case Tail::leaky: return norm_act(v[0], m.norm, Activation::leaky_relu);
      case Tail::glu: return norm_glu(v[0], m.norm);
      default: return norm_glu(v[0], m.norm, &m.injection, &m.noise_tensor);
    }
  };
  c.reference = [&](const std::vector<Array>& v) {
    const Array in = noisy ? reference::inject_noise(v[0], v[3].v[0], m.noise) : v[0];
    const Array z = reference::batch_norm(in, v[1], v[2], training ? reference::statistics(in) : running);
    switch (tail) {
      case Tail::plain:
      case Tail::none: return z;
      case Tail::relu: return reference::activation(z, Activation::relu);
      case Tail::leaky: return reference::activation(z, Activation::leaky_relu);
      default: return reference::glu(z);
    }
  };
  check_op(c);
}

}  // namespace

TEST_CASE("op: normalisation, alone and fused, in training and in evaluation") {
  Fixture fixture;
  for (bool training : {true, false})
    for (Tail tail : {Tail::plain, Tail::none, Tail::relu, Tail::leaky, Tail::glu, Tail::noisy_glu}) {
      const bool halves = tail == Tail::glu || tail == Tail::noisy_glu;
      for (const Shape& s : {Shape{2, 3, 5, 6}, Shape{1, 4, 3, 2}, Shape{2, 2, 3, 32}, Shape{3, 1, 2, 10}})
        check_norm(s, tail, training);
      if (!halves)
        for (const Shape& s : {Shape{2, 3, 5, 3}, Shape{2, 2, 2, 5}, Shape{3, 3, 1, 1}}) check_norm(s, tail, training);
    }
}

TEST_CASE("op: normalisation over many rows, far from zero") {
  Fixture fixture;
  for (Tail tail : {Tail::plain, Tail::noisy_glu}) check_norm(Shape{2, 29, 31, 16}, tail, true);
  check_norm(Shape{2, 5, 4, 6}, Tail::leaky, true, 8);  // the mean is eight standard deviations away
}

TEST_CASE("op: running statistics follow the batches in training only") {
  Fixture fixture;
  for (bool noisy : {false, true}) {
    CAPTURE(noisy);
    const Shape shape{2, 3, 5, 6};
    NormModule m(shape);
    reference::Statistics expected = m.running();
    for (int step = 0; step < 3; step++) {
      const Array x = random_array(fmt::format("x{}", step), shape, 2);
      const Array in = noisy ? reference::inject_noise(x, double(0.7f), m.noise) : x;
      const reference::Statistics s = reference::statistics(in);
      const double rows = double(shape.rows());
      for (size_t c = 0; c < 6; c++) {
        expected.mean[c] = 0.9 * expected.mean[c] + 0.1 * s.mean[c];
        expected.variance[c] = 0.9 * expected.variance[c] + 0.1 * s.variance[c] * rows / (rows - 1);
      }
      if (step == 0)
        norm_glu(Var(to_tensor(x)), m.norm, noisy ? &m.injection : nullptr, noisy ? &m.noise_tensor : nullptr);
      else if (noisy)
        norm_glu(Var(to_tensor(x)), m.norm, &m.injection, &m.noise_tensor);
      else
        batch_norm(Var(to_tensor(x)), m.norm);
      for (size_t c = 0; c < 6; c++) {
        CHECK(double(m.norm.running_mean.value.to_vector()[c]) == doctest::Approx(expected.mean[c]).epsilon(1e-5));
        CHECK(double(m.norm.running_var.value.to_vector()[c]) == doctest::Approx(expected.variance[c]).epsilon(1e-5));
      }
    }
    const reference::Statistics before = m.running();
    Evaluation evaluation;
    norm_act(Var(to_tensor(random_array("later", shape, 9))), m.norm, Activation::relu);
    CHECK(m.running().mean == before.mean);
    CHECK(m.running().variance == before.variance);
  }
}

TEST_CASE("op: inject_noise") {
  Fixture fixture;
  for (const Shape& s : {Shape{2, 3, 5, 3}, Shape{1, 4, 3, 1}, Shape{2, 2, 3, 16}, Shape{1, 37, 31, 16}}) {
    NormModule m(s);
    check_op({"inject_noise " + s.text(),
              {random_array("x", s)},
              {&m.injection.weight},
              [&](const std::vector<Var>& v) { return inject_noise(v[0], m.injection, m.noise_tensor); },
              [&](const std::vector<Array>& v) { return reference::inject_noise(v[0], v[1].v[0], m.noise); }});
  }
}
