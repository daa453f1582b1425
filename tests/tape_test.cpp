// The tape: values used more than once, guards, segments, roots, and how gradients of parameters gather.
#include "engine/tape.h"

#include "engine/parameters.h"
#include "tests/op_test.h"

using namespace kiln;
using namespace kiln::test;

namespace {

const Shape kShape{2, 3, 4, 6};

Var leaf(const std::string& name, const Shape& s = kShape) { return Var(to_tensor(random_array(name, s)), true); }
Array gradient(const Var& v) { return v.node->has_gradient() ? to_array(v.node->gradient()) : Array(); }
Array ref_act(const Array& x, Activation a) { return reference::activation(x, a); }

struct Network {
  SpectralWeight conv{6, 3, 3, 6};
  BatchNorm norm{6};
  template <class F>
  void visit(F&& f) {
    f("conv", conv);
    f("norm", norm);
  }
};

}  // namespace

TEST_CASE("tape: gradients of a value used several times add") {
  Fixture fixture;
  check_op({"three uses in a chain",
            {random_array("x", kShape)},
            {},
            [](const std::vector<Var>& v) {
              return combine(0.5f, combine(2.f, swish(v[0]), 1.f, v[0]), -1.f, kiln::tanh(v[0]));
            },
            [](const std::vector<Array>& v) {
              const Array inner = reference::combine(2, ref_act(v[0], Activation::swish), 1, v[0]);
              return reference::combine(0.5, inner, -1, ref_act(v[0], Activation::tanh));
            }});
  // combine with equal factors hands one tensor to both of its inputs; what they receive later must not meet in it.
  check_op({"one gradient handed to two values",
            {random_array("x", kShape), random_array("y", kShape)},
            {},
            [](const std::vector<Var>& v) {
              const Var a = swish(v[0]), b = kiln::tanh(v[1]);
              const Var early = concat_flat(a, b);
              return concat_flat(early, combine(0.5f, v[0], 0.5f, v[1]));
            },
            [](const std::vector<Array>& v) {
              const Array early =
                  reference::concat_flat(ref_act(v[0], Activation::swish), ref_act(v[1], Activation::tanh));
              return reference::concat_flat(early, reference::combine(0.5, v[0], 0.5, v[1]));
            }});
  check_op({"both halves of one gradient to one value",
            {random_array("x", kShape)},
            {},
            [](const std::vector<Var>& v) {
              const Var late = concat_flat(v[0], v[0]);
              return combine(1.f, late, 1.f, concat_flat(sigmoid(v[0]), v[0]));
            },
            [](const std::vector<Array>& v) {
              return reference::combine(1, reference::concat_flat(v[0], v[0]), 1,
                                        reference::concat_flat(ref_act(v[0], Activation::sigmoid), v[0]));
            }});
  check_op(
      {"one weight in three convolutions",
       {random_array("x", Shape{1, 5, 4, 3}), random_array("w", Shape{3, 3, 3, 3}, 0.5)},
       {},
       [](const std::vector<Var>& v) { return upsample_conv3x3(conv2d(conv2d(v[0], v[1], 1, 1), v[1], 1, 1), v[1]); },
       [](const std::vector<Array>& v) {
         const Array twice = reference::conv2d(reference::conv2d(v[0], v[1], 1, 1), v[1], 1, 1);
         return reference::conv2d(reference::nearest_resize(twice, 10, 8), v[1], 1, 1);
       }});
}

TEST_CASE("tape: the caller's gradient of a root stays as it is") {
  Fixture fixture;
  NoiseInjection injection;
  const ParameterSet set(injection, true);
  const Var x = leaf("x");
  const Tensor noise = to_tensor(random_array("noise", Shape{2, 3, 4, 1})),
               seed = to_tensor(random_array("seed", kShape));
  const std::vector<float> before = seed.to_vector();
  Tape tape;
  Recording recording(tape);
  const Var early = swish(x), late = inject_noise(x, injection, noise);  // hands its gradient on as it is
  tape.backward_from({{early, seed}, {late, seed}});
  CHECK(seed.to_vector() == before);
  CHECK(x.node->gradient().to_vector() != before);
}

TEST_CASE("tape: guards hold in their scope and nest") {
  Fixture fixture;
  Tape tape, inner;
  const Var x = leaf("x");
  CHECK(!swish(x).node);  // no tape, no record
  CHECK(context().training);
  CHECK(!context().weights_frozen);
  {
    Recording recording(tape);
    CHECK(bool(swish(x).node));
    CHECK(tape.size() == 1);
    {
      NoGrad none;
      Evaluation evaluation;
      FrozenWeights frozen;
      CHECK(!swish(x).node);
      CHECK(!context().training);
      CHECK(context().weights_frozen);
      Recording again(inner);
      CHECK(bool(swish(x).node));
      CHECK(inner.size() == 1);
    }
    CHECK(context().training);
    CHECK(!context().weights_frozen);
    CHECK(tape.size() == 1);
    CHECK(!swish(Var(x.value)).node);  // nobody asks for a gradient of a constant
    CHECK(tape.size() == 1);
  }
  CHECK(context().tape == nullptr);
}

TEST_CASE("tape: detach stops gradients") {
  Fixture fixture;
  const Var x = leaf("x");
  Tape tape;
  Recording recording(tape);
  const Var y = combine(3.f, x, 5.f, swish(x).detach());
  const Array ones(kShape, std::vector<float>(size_t(kShape.count()), 1.f));
  tape.backward_from({{y, to_tensor(ones)}});
  for (double g : gradient(x).v) CHECK(g == 3);
  CHECK(x.detach().value.data() == x.value.data());
}

TEST_CASE("tape: segments run on their own and may be continued") {
  Fixture fixture;
  // first(x) on tape G; a critic on the detached value on tape D; then the critic again on tape G, and G's backward.
  const Var x = leaf("x"), w = leaf("w", Shape{4, 3, 3, 6}), critic = leaf("critic", Shape{1, 3, 4, 4});
  Tape g_tape, d_tape;
  Var y;
  {
    Recording recording(g_tape);
    y = swish(conv2d(x, w, 1, 1));
  }
  const size_t first = g_tape.size();
  {
    Recording recording(d_tape);
    const Var loss = generator_loss(conv2d(y.detach(), critic, 1, 0));
    d_tape.backward({{loss, 1.f}});
  }
  CHECK(!x.node->has_gradient());
  CHECK(!w.node->has_gradient());
  const Array d_gradient = gradient(critic);
  CHECK(d_gradient.v.size() == 48);
  CHECK(g_tape.size() == first);
  {
    Recording recording(g_tape);
    const Var loss = generator_loss(conv2d(y, Var(critic.value), 1, 0));
    y = Var();
    g_tape.backward({{loss, 1.f}});
  }
  CHECK(gradient(critic).v == d_gradient.v);
  const Reference whole = [](const std::vector<Array>& v) {
    Array m =
        reference::mean(reference::conv2d(ref_act(reference::conv2d(v[0], v[1], 1, 1), Activation::swish), v[2], 1, 0));
    m.v[0] = -m.v[0];
    return m;
  };
  const std::vector<Array> inputs = {to_array(x.value), to_array(w.value), to_array(critic.value)};
  const Array one(Shape{1}, {1.f});
  CHECK(gradient_error(whole, inputs, 0, one, gradient(x)) < 1e-4);
  CHECK(gradient_error(whole, inputs, 1, one, gradient(w)) < 1e-4);
  CHECK(gradient_error(whole, inputs, 2, one, d_gradient) < 1e-4);
}

TEST_CASE("tape: roots that nobody asked for, and branches without a root") {
  Fixture fixture;
  const Var x = leaf("x"), constant = Var(to_tensor(random_array("c", kShape)));
  Tape tape;
  Recording recording(tape);
  const Var asked = generator_loss(swish(x)), unasked = generator_loss(swish(constant));
  const Var dead = kiln::tanh(x);  // recorded, but no part of a loss
  CHECK(!unasked.node);
  const size_t records = tape.size();
  CHECK(records == 3);
  SUBCASE("only the constant's loss") {
    tape.backward({{unasked, 1.f}});
    CHECK(!x.node->has_gradient());
  }
  SUBCASE("both") {
    tape.backward({{unasked, 1.f}, {asked, 1.f}});
    const Reference f = [](const std::vector<Array>& v) { return reference::mean(ref_act(v[0], Activation::swish)); };
    CHECK(gradient_error(f, {to_array(x.value)}, 0, Array(Shape{1}, {-1.f}), gradient(x)) < 1e-4);
  }
  SUBCASE("none") {
    tape.backward({});
    CHECK(!x.node->has_gradient());
  }
  CHECK(tape.size() == 0);
  CHECK(!dead.node->has_gradient());
}

TEST_CASE("tape: roots carry weights, and add") {
  Fixture fixture;
  const auto run = [](const std::vector<std::pair<int, float>>& seeds) {
    const Var x = leaf("x");
    Tape tape;
    Recording recording(tape);
    const Var losses[] = {generator_loss(swish(x)), difference_loss(x, zeros(kShape), 2)};
    std::vector<std::pair<Var, float>> roots;
    for (const auto& [i, w] : seeds) roots.emplace_back(losses[i], w);
    tape.backward(roots);
    return gradient(x);
  };
  const Array a = run({{0, 1.f}}), b = run({{1, 1.f}});
  CHECK(relative_error(run({{0, 2.f}, {1, -0.5f}}), reference::combine(2, a, -0.5, b)) < 1e-6);
  CHECK(relative_error(run({{1, 1.f}, {1, 1.5f}}), reference::combine(0, a, 2.5, b)) < 1e-6);
}

TEST_CASE("tape: gradients of parameters gather over backwards until zero_grad") {
  Fixture fixture;
  Network net;
  ParameterSet set(net, true);
  SpectralGroup group(net);
  Philox random(3);
  set.initialise(random, "");
  Evaluation evaluation;  // equal passes
  const auto pass = [&](float weight) {
    Tape tape;
    Recording recording(tape);
    group.prepare(set.values, set.grads, set.vectors);
    const Var x(to_tensor(random_array("x", kShape)));
    tape.backward({{difference_loss(norm_act(conv2d(x, net.conv.normalised, 1, 1), net.norm, Activation::leaky_relu),
                                    zeros(kShape), 2),
                    weight}});
  };
  pass(1.f);
  const Array once = to_array(set.grads);
  for (const auto& e : set.entries())
    if (e.kind == ParameterSet::Entry::parameter) {
      CAPTURE(e.name);
      double largest = 0;
      for (float g : set.gradient(e).to_vector()) largest = std::max(largest, std::abs(double(g)));
      CHECK(largest > 0);
    }
  pass(2.f);
  CHECK(relative_error(to_array(set.grads), reference::combine(3, once, 0, once)) < 1e-6);
  set.zero_grad();
  for (float g : set.grads.to_vector()) CHECK(g == 0);
  pass(1.f);
  CHECK(to_array(set.grads).v == once.v);
}

TEST_CASE("tape: backward frees what the records kept, record by record") {
  Fixture fixture;
  const Shape big{1, 64, 64, 64};  // 1 MiB
  const size_t mib = size_t(big.count()) * 4;
  const Var x = leaf("x", big);
  const Arena& arena = *context().arena;
  const size_t before = arena.stats().in_use;
  Tape tape;
  Recording recording(tape);
  Var loss;
  {
    Var y = x;
    for (int i = 0; i < 10; i++) y = swish(y);
    loss = generator_loss(y);
  }
  const size_t forward = arena.stats().in_use;
  CHECK(forward >= before + 9 * mib);  // each swish keeps its input
  context().arena->reset_peak();
  tape.backward({{loss, 1.f}});
  CHECK(arena.stats().peak <= forward + 3 * mib);
  CHECK(arena.stats().in_use <= before + mib + 4096);  // x's gradient, and the loss
  CHECK(x.node->has_gradient());
}
