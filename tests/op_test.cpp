#include "tests/op_test.h"

namespace kiln::test {
namespace {

constexpr double kForward = 1e-5, kGradient = 1e-4;
constexpr size_t kSampled = 96;  // elements of one input that are moved one at a time

double dot(const Array& a, const Array& b) {
  double s = 0;
  for (size_t i = 0; i < a.v.size(); i++) s += a.v[i] * b.v[i];
  return s;
}

/// d/dt <weights, f(inputs with inputs[which] + t direction)> at t = 0.
double slope(const Reference& f, std::vector<Array>& inputs, size_t which, const Array& weights,
             const Array& direction) {
  const double step = 1e-5;
  const std::vector<double> kept = inputs[which].v;
  double side[2];
  for (int s : {0, 1}) {
    for (size_t i = 0; i < kept.size(); i++) inputs[which].v[i] = kept[i] + (s ? step : -step) * direction.v[i];
    side[s] = dot(weights, f(inputs));
  }
  inputs[which].v = kept;
  return (side[1] - side[0]) / (2 * step);
}

}  // namespace

void poison_arena() {
  const std::vector<uint8_t> nan(4 << 20, 0xFF);
  Tensor(Shape{int64_t(nan.size())}, DType::u8).upload(nan.data());
}

double gradient_error(const Reference& f, std::vector<Array> inputs, size_t which, const Array& weights,
                      const Array& gradient, double least_scale) {
  const size_t n = inputs[which].v.size();
  if (gradient.v.size() != n) return std::numeric_limits<double>::infinity();
  double worst = 0, scale = least_scale;
  const auto note = [&](double difference) {
    difference = std::abs(difference);
    if (difference > worst || difference != difference) worst = difference;
  };
  for (double g : gradient.v) scale = std::max(scale, std::abs(g));
  Array direction(inputs[which].shape);
  const size_t step = n <= kSampled ? 1 : n / kSampled + 1;
  for (size_t i = 0; i < n; i += step) {
    direction.v[i] = 1;
    const double expected = slope(f, inputs, which, weights, direction);
    direction.v[i] = 0;
    scale = std::max(scale, std::abs(expected));
    note(gradient.v[i] - expected);
  }
  for (const char* name : {"direction 1", "direction 2"}) {
    direction = random_array(name, inputs[which].shape);
    note((dot(gradient, direction) - slope(f, inputs, which, weights, direction)) / std::sqrt(double(n)));
  }
  return worst / scale;
}

std::vector<Array> gradients_of(const std::function<Var(const std::vector<Var>&)>& op, const std::vector<Array>& inputs,
                                const Array& cotangent) {
  std::vector<Var> vars;
  for (const Array& a : inputs) vars.emplace_back(to_tensor(a), true);
  Tape tape;
  {
    Recording recording(tape);
    const Var y = op(vars);
    poison_arena();
    tape.backward_from({{y, to_tensor(cotangent)}});
  }
  std::vector<Array> out;
  for (const Var& v : vars) out.push_back(v.node->has_gradient() ? to_array(v.node->gradient()) : Array());
  return out;
}

void check_op(const OpCase& c) {
  INFO(c.name);
  std::vector<Array> all = c.inputs;
  for (const Param* p : c.parameters) all.push_back(to_array(p->value));
  const Array expected = c.reference(all);
  const Array cotangent = random_array(c.name + " cotangent", expected.shape);

  // Forward and backward with everything asked for.
  std::vector<Var> vars;
  for (const Array& a : c.inputs) vars.emplace_back(to_tensor(a), true);
  for (Param* p : c.parameters) p->grad.upload(std::vector<float>(size_t(p->grad.count()), 0.5f).data());
  std::vector<float> value;
  Tape tape;
  {
    Recording recording(tape);
    poison_arena();
    const Var y = c.op(vars);
    REQUIRE(y.shape() == expected.shape);
    value = y.value.to_vector();
    CHECK(relative_error(Array(y.shape(), value), expected) < kForward);
    REQUIRE(tape.size() > 0);
    poison_arena();
    tape.backward_from({{y, to_tensor(cotangent)}});
    CHECK(tape.size() == 0);
  }
  std::vector<Array> gradients;
  for (size_t i = 0; i < vars.size(); i++) {
    CAPTURE(i);
    CHECK(vars[i].value.to_vector() == to_tensor(c.inputs[i]).to_vector());
    REQUIRE(vars[i].node->has_gradient());
    CHECK(vars[i].node->gradient().shape() == c.inputs[i].shape);
    gradients.push_back(to_array(vars[i].node->gradient()));
    CHECK(gradient_error(c.reference, all, i, cotangent, gradients[i]) < kGradient);
  }
  for (size_t k = 0; k < c.parameters.size(); k++) {
    CAPTURE(k);
    Array g = to_array(c.parameters[k]->grad);
    for (double& x : g.v) x -= 0.5;
    CHECK(gradient_error(c.reference, all, c.inputs.size() + k, cotangent, g) < kGradient);
  }

  // Each input alone: what the others would have needed may be missing from the record.
  for (size_t i = 0; i < c.inputs.size(); i++) {
    CAPTURE(i);
    std::vector<Var> one;
    for (size_t k = 0; k < c.inputs.size(); k++) one.emplace_back(to_tensor(c.inputs[k]), k == i);
    Tape alone;
    Recording recording(alone);
    poison_arena();
    const Var y = c.op(one);
    poison_arena();
    alone.backward_from({{y, to_tensor(cotangent)}});
    REQUIRE(one[i].node->has_gradient());
    CHECK(relative_error(to_array(one[i].node->gradient()), gradients[i]) < 1e-6);
  }

  {  // Nothing records, and the values are the same.
    Tape none;
    Recording recording(none);
    NoGrad guard;
    const Var y = c.op(vars);
    CHECK(!y.node);
    CHECK(none.size() == 0);
    CHECK(y.value.to_vector() == value);
  }

  if (c.parameters.empty()) return;
  for (Param* p : c.parameters) p->grad.upload(std::vector<float>(size_t(p->grad.count()), 0.5f).data());
  std::vector<Array> frozen;
  {
    FrozenWeights guard;
    frozen = gradients_of(c.op, c.inputs, cotangent);
    Tape constants;
    Recording recording(constants);
    std::vector<Var> plain;
    for (const Var& v : vars) plain.push_back(v.detach());
    CHECK(!c.op(plain).node);
    CHECK(constants.size() == 0);
  }
  for (size_t i = 0; i < frozen.size(); i++) CHECK(relative_error(frozen[i], gradients[i]) < 1e-6);
  for (const Param* p : c.parameters) CHECK(p->grad.to_vector() == std::vector<float>(size_t(p->grad.count()), 0.5f));
}

}  // namespace kiln::test
