// SpectralGroup, which normalises all layers in a few launches, against one plain layer at a time in double precision.
#include "engine/spectral.h"

#include "engine/parameters.h"
#include "tests/op_test.h"

using namespace kiln;
using namespace kiln::test;

namespace {

/// Layers of many shapes: single rows and columns, and more rows and columns than a tile has.
struct Network {
  std::vector<SpectralWeight> layers;
  BatchNorm between{3};  // so that offsets of weights and of packed weights differ
  Network() {
    for (const Shape& s :
         {Shape{5, 3, 3, 4}, Shape{1, 4, 4, 7}, Shape{6, 1, 1, 1}, Shape{1, 1, 1, 1}, Shape{70, 4, 4, 66},
          Shape{131, 1, 1, 9}, Shape{3, 3, 3, 1}, Shape{16, 1, 1, 16}, Shape{64, 4, 4, 64}})
      layers.emplace_back(s[0], s[1], s[2], s[3], 0.3f);
  }
  template <class F>
  void visit(F&& f) {
    for (size_t i = 0; i < layers.size(); i++) {
      f("layer" + std::to_string(i), layers[i]);
      if (i == 2) f("between", between);
    }
  }
};

/// One layer in double: the weight as a matrix [rows, cols].
struct Layer {
  size_t rows, cols;
  std::vector<double> w, u, v;

  explicit Layer(const SpectralWeight& s)
      : rows(size_t(s.weight.shape[0])),
        w(to_array(s.weight.value).v),
        u(to_array(s.u.value).v),
        v(to_array(s.v.value).v) {
    cols = w.size() / rows;
  }
  static void normalise(std::vector<double>& a) {
    double squares = 0;
    for (double x : a) squares += x * x;
    for (double& x : a) x /= std::max(std::sqrt(squares), 1e-12);
  }
  void iterate() {
    v.assign(cols, 0);
    for (size_t r = 0; r < rows; r++)
      for (size_t c = 0; c < cols; c++) v[c] += w[r * cols + c] * u[r];
    normalise(v);
    u.assign(rows, 0);
    for (size_t r = 0; r < rows; r++)
      for (size_t c = 0; c < cols; c++) u[r] += w[r * cols + c] * v[c];
    normalise(u);
  }
  double sigma(const std::vector<double>& weight) const {
    double s = 0;
    for (size_t r = 0; r < rows; r++)
      for (size_t c = 0; c < cols; c++) s += u[r] * weight[r * cols + c] * v[c];
    return s;
  }
  Array normalised(const std::vector<double>& weight, const Shape& shape) const {
    Array a(shape);
    const double s = sigma(weight);
    for (size_t i = 0; i < weight.size(); i++) a.v[i] = weight[i] / s;
    return a;
  }
};

struct Bound {
  Network net;
  ParameterSet set{net, true};
  SpectralGroup group;
  Bound() {
    Philox random(5);
    set.initialise(random, "");
    group = SpectralGroup(net);
  }
  void prepare() { group.prepare(set.values, set.grads, set.vectors); }
};

Array cotangent(size_t i, const Shape& s) { return random_array("A" + std::to_string(i), s); }

/// A root whose gradient by the normalised weight of layer i is factor * cotangent(i): the projection of the unit
/// vectors.
std::pair<Var, Tensor> root(Network& net, size_t i, double factor = 1) {
  const Shape s = net.layers[i].weight.shape;
  const int64_t c = s[3];
  Array unit(Shape{c, c});
  for (int64_t k = 0; k < c; k++) unit.v[size_t(k * c + k)] = 1;
  const Var y = project(Var(to_tensor(unit)), net.layers[i].normalised);  // y[k, p, o] = W[o, p, k]
  const Array a = cotangent(i, s);
  Array seed(Shape{c, s[1], s[2], s[0]});
  for (int64_t o = 0; o < s[0]; o++)
    for (int64_t p = 0; p < s[1] * s[2]; p++)
      for (int64_t k = 0; k < c; k++)
        seed.v[size_t((k * s[1] * s[2] + p) * s[0] + o)] = factor * a.v[size_t((o * s[1] * s[2] + p) * c + k)];
  return {y, to_tensor(seed)};
}

/// The error of layer i's gradient, given the layer (u, v, w) as its forward saw it.
double layer_error(Bound& b, size_t i, const Layer& layer, double factor = 1) {
  const Shape s = b.net.layers[i].weight.shape;
  Array weight(s), a = cotangent(i, s);
  weight.v = layer.w;
  for (double& x : a.v) x *= factor;
  const Reference f = [&](const std::vector<Array>& v) { return layer.normalised(v[0].v, s); };
  // A single number divided by itself has no gradient but rounding: compare with A / sigma.
  const double scale = std::abs(factor / layer.sigma(layer.w));
  return gradient_error(f, {weight}, 0, a, to_array(b.net.layers[i].weight.grad), scale);
}

std::vector<Layer> layers_of(const Network& net) { return {net.layers.begin(), net.layers.end()}; }

}  // namespace

TEST_CASE("spectral: one power iteration in training, stored; none in evaluation") {
  Fixture fixture;
  Bound b;
  CHECK(b.group.size() == b.net.layers.size());
  std::vector<Layer> expected = layers_of(b.net);
  for (int step = 0; step < 3; step++) {
    const bool training = step != 1;
    CAPTURE(step);
    Scoped<bool> mode(&Context::training, training);
    const std::vector<float> before = b.set.vectors.to_vector();
    poison_arena();
    b.prepare();
    if (!training) CHECK(b.set.vectors.to_vector() == before);
    for (size_t i = 0; i < expected.size(); i++) {
      CAPTURE(i);
      if (training) expected[i].iterate();
      const SpectralWeight& w = b.net.layers[i];
      CHECK(relative_error(to_array(w.u.value),
                           Array(w.u.shape, std::vector<float>(expected[i].u.begin(), expected[i].u.end()))) < 1e-5);
      CHECK(relative_error(to_array(w.v.value),
                           Array(w.v.shape, std::vector<float>(expected[i].v.begin(), expected[i].v.end()))) < 1e-5);
      CHECK(relative_error(to_array(w.normalised.value), expected[i].normalised(expected[i].w, w.weight.shape)) < 1e-5);
      CHECK(w.normalised.shape() == w.weight.shape);
    }
  }
  b.group.release();
  for (const SpectralWeight& w : b.net.layers) CHECK(!w.normalised);
}

TEST_CASE("spectral: a group that steps in evaluation uses one more iteration and does not store it") {
  Fixture fixture;
  Bound b;
  b.prepare();
  std::vector<Layer> expected = layers_of(b.net);
  b.group.step_in_evaluation(true);
  const std::vector<float> before = b.set.vectors.to_vector();
  for (int again = 0; again < 2; again++) {  // the same step from the same vectors
    Evaluation evaluation;
    b.prepare();
    CHECK(b.set.vectors.to_vector() == before);
    for (size_t i = 0; i < expected.size(); i++) {
      Layer next = expected[i];
      next.iterate();
      const SpectralWeight& w = b.net.layers[i];
      CHECK(relative_error(to_array(w.normalised.value), next.normalised(next.w, w.weight.shape)) < 1e-5);
    }
    // A step from random vectors is far from the last one's result.
    double moved = 0;
    for (size_t i = 0; i < expected.size(); i++)
      moved = std::max(moved, relative_error(to_array(b.net.layers[i].normalised.value), expected[i].normalised(expected[i].w, b.net.layers[i].weight.shape)));
    CHECK(moved > 1e-3);
    const std::vector<float> sigmas = b.group.sigmas().to_vector();
    CHECK(sigmas.size() == b.group.names().size());
    CHECK(*std::max_element(sigmas.begin(), sigmas.end()) == b.group.largest_sigma());
  }
}

TEST_CASE("spectral: the iteration ends at the largest singular value") {
  Fixture fixture;
  Bound b;
  // Layer 7 becomes diagonal: 3, 2, 1, 1, ...
  std::vector<float> diagonal(256, 0.f);
  for (size_t k = 0; k < 16; k++) diagonal[k * 17] = k == 0 ? 3.f : k == 1 ? 2.f : 1.f;
  b.net.layers[7].weight.value.upload(diagonal.data());
  for (int k = 0; k < 25; k++) b.prepare();
  const std::vector<float> n = b.net.layers[7].normalised.value.to_vector();
  CHECK(n[0] == doctest::Approx(1.0));
  CHECK(n[17] == doctest::Approx(2.0 / 3.0));
}

TEST_CASE("spectral: gradients, and layers that took no part") {
  Fixture fixture;
  for (bool training : {true, false}) {
    CAPTURE(training);
    Bound b;
    b.set.zero_grad();
    Scoped<bool> mode(&Context::training, training);
    Tape tape;
    Recording recording(tape);
    b.prepare();
    const std::vector<Layer> then = layers_of(b.net);
    std::vector<std::pair<Var, Tensor>> roots;
    for (size_t i = 0; i < then.size(); i++)
      if (i % 3 != 1) roots.push_back(root(b.net, i));
    poison_arena();
    tape.backward_from(roots);
    for (size_t i = 0; i < then.size(); i++) {
      CAPTURE(i);
      if (i % 3 != 1) {
        CHECK(layer_error(b, i, then[i]) < 1e-4);
      } else {
        const std::vector<float> g = b.net.layers[i].weight.grad.to_vector();
        CHECK(std::all_of(g.begin(), g.end(), [](float x) { return x == 0; }));
      }
    }
    for (float g : b.net.between.weight.grad.to_vector()) CHECK(g == 0);  // its neighbours in the flat buffer
  }
}

TEST_CASE("spectral: a backward uses the vectors of its own forward") {
  Fixture fixture;
  Bound b;
  b.set.zero_grad();
  Tape first, second;
  std::vector<std::pair<Var, Tensor>> roots;
  std::vector<Layer> then;
  {
    Recording recording(first);
    b.prepare();
    then = layers_of(b.net);
    for (size_t i = 0; i < then.size(); i++) roots.push_back(root(b.net, i));
  }
  {  // A later forward, with its own backward and gradients of its own, moves u and v.
    Recording recording(second);
    b.prepare();
    CHECK(relative_error(to_array(b.net.layers[4].u.value),
                         Array(b.net.layers[4].u.shape, std::vector<float>(then[4].u.begin(), then[4].u.end()))) >
          1e-3);
    const auto later = root(b.net, 0);
    second.backward_from({later});
  }
  {
    NoGrad none;
    b.prepare();
  }
  b.set.zero_grad();
  first.backward_from(roots);
  for (size_t i = 0; i < then.size(); i++) {
    CAPTURE(i);
    CHECK(layer_error(b, i, then[i]) < 1e-4);
  }
}

TEST_CASE("spectral: weights used twice, and by ops that do not write into the group's buffer") {
  Fixture fixture;
  Bound b;
  b.set.zero_grad();
  Tape tape;
  Recording recording(tape);
  b.prepare();
  const std::vector<Layer> then = layers_of(b.net);
  std::vector<std::pair<Var, Tensor>> roots = {root(b.net, 0, 1), root(b.net, 0, 2), root(b.net, 0, 4)};
  for (size_t i : {size_t(2), size_t(6)})  // a sum of the weight itself, and the weight as the root
    roots.emplace_back(combine(1.f, b.net.layers[i].normalised, 1.f, b.net.layers[i].normalised),
                       to_tensor(cotangent(i, b.net.layers[i].weight.shape)));
  roots.emplace_back(b.net.layers[5].normalised, to_tensor(cotangent(5, b.net.layers[5].weight.shape)));
  tape.backward_from(roots);
  CHECK(layer_error(b, 0, then[0], 7) < 1e-4);
  CHECK(layer_error(b, 2, then[2], 2) < 1e-4);
  CHECK(layer_error(b, 6, then[6], 2) < 1e-4);
  CHECK(layer_error(b, 5, then[5]) < 1e-4);
}

TEST_CASE("spectral: frozen weights enter as constants") {
  Fixture fixture;
  Bound b;
  Tape tape;
  Recording recording(tape);
  b.prepare();
  CHECK(tape.size() == 1);
  CHECK(bool(b.net.layers[0].normalised.node));
  FrozenWeights frozen;
  b.prepare();
  CHECK(tape.size() == 1);
  for (const SpectralWeight& w : b.net.layers) CHECK(!w.normalised.node);
}
