// The ops without weights: activations, sums and products, changes of size, losses, augmentation.
#include "tests/op_test.h"

using namespace kiln;
using namespace kiln::test;

namespace {

const std::vector<Shape> kShapes = {Shape{2, 3, 5, 3}, Shape{1, 7, 2, 1}, Shape{3, 2, 2, 5}, Shape{2, 3, 3, 16}};

Tensor i32_tensor(const std::vector<int32_t>& v) {
  Tensor t(Shape{int64_t(v.size())}, DType::i32);
  t.upload(v.data());
  return t;
}

}  // namespace

TEST_CASE("op: activations") {
  Fixture fixture;
  using A = Activation;
  for (const auto& [act, name] : std::initializer_list<std::pair<A, const char*>>{{A::none, "none"},
                                                                                  {A::relu, "relu"},
                                                                                  {A::leaky_relu, "leaky relu"},
                                                                                  {A::swish, "swish"},
                                                                                  {A::sigmoid, "sigmoid"},
                                                                                  {A::tanh, "tanh"}})
    for (double scale : {1.0, 6.0})
      for (const Shape& s : kShapes)
        check_op({fmt::format("{} {} to {}", name, s.text(), scale),
                  {random_array("x", s, scale)},
                  {},
                  [&](const std::vector<Var>& v) { return activation(v[0], act); },
                  [&](const std::vector<Array>& v) { return reference::activation(v[0], act); }});
}

TEST_CASE("op: activations where they saturate, and at zero") {
  Fixture fixture;
  const std::vector<float> x = {-1e4f, -200.f, -40.f, 0.f, 40.f, 200.f, 1e4f};
  const Var v(from_vector(Shape{7}, x));
  CHECK(sigmoid(v).value.to_vector()[0] == doctest::Approx(0).epsilon(1e-6));
  CHECK(sigmoid(v).value.to_vector()[6] == doctest::Approx(1));
  CHECK(kiln::tanh(v).value.to_vector()[1] == doctest::Approx(-1));
  CHECK(kiln::tanh(v).value.to_vector()[5] == doctest::Approx(1));
  CHECK(swish(v).value.to_vector()[0] == doctest::Approx(0).epsilon(1e-6));
  CHECK(swish(v).value.to_vector()[6] == doctest::Approx(1e4));
  CHECK(leaky_relu(v).value.to_vector() == std::vector<float>{-2000.f, -40.f, -8.f, 0.f, 40.f, 200.f, 1e4f});
  for (Activation a : {Activation::swish, Activation::sigmoid, Activation::tanh}) {
    const Array g = gradients_of([&](const std::vector<Var>& u) { return activation(u[0], a); }, {Array(Shape{7}, x)},
                                 Array(Shape{7}, std::vector<float>(7, 1.f)))[0];
    for (double d : g.v) CHECK(std::isfinite(d));
    CHECK(g.v[0] == doctest::Approx(0).epsilon(1e-6));
  }
}

TEST_CASE("op: glu") {
  Fixture fixture;
  for (const Shape& s : {Shape{2, 3, 5, 6}, Shape{1, 7, 2, 2}, Shape{3, 2, 2, 10}, Shape{2, 3, 3, 32}, Shape{4, 8}})
    check_op({"glu " + s.text(),
              {random_array("x", s, 3)},
              {},
              [](const std::vector<Var>& v) { return glu(v[0]); },
              [](const std::vector<Array>& v) { return reference::glu(v[0]); }});
}

TEST_CASE("op: combine") {
  Fixture fixture;
  for (const auto& [a, b] :
       std::initializer_list<std::pair<float, float>>{{0.5f, 0.5f}, {1.f, 1.f}, {0.25f, -1.5f}, {2.f, 0.f}})
    for (const Shape& s : kShapes) {
      check_op({fmt::format("combine {} {} {}", a, b, s.text()),
                {random_array("x", s), random_array("y", s)},
                {},
                [&](const std::vector<Var>& v) { return combine(a, v[0], b, v[1]); },
                [&](const std::vector<Array>& v) { return reference::combine(a, v[0], b, v[1]); }});
      check_op({fmt::format("combine {} x {} x {}", a, b, s.text()),
                {random_array("x", s)},
                {},
                [&](const std::vector<Var>& v) { return combine(a, v[0], b, v[0]); },
                [&](const std::vector<Array>& v) { return reference::combine(a, v[0], b, v[0]); }});
    }
}

TEST_CASE("op: gate") {
  Fixture fixture;
  for (const Shape& s :
       {Shape{2, 3, 5, 3}, Shape{1, 7, 2, 1}, Shape{3, 2, 2, 5}, Shape{2, 9, 8, 16}, Shape{2, 33, 34, 16}})
    check_op({"gate " + s.text(),
              {random_array("x", s), random_array("g", Shape{s[0], 1, 1, s[3]})},
              {},
              [](const std::vector<Var>& v) { return gate(v[0], v[1]); },
              [](const std::vector<Array>& v) { return reference::gate(v[0], v[1]); }});
}

TEST_CASE("op: concat_flat") {
  Fixture fixture;
  const auto check = [](const Shape& a, const Shape& b) {
    check_op({"concat_flat " + a.text() + " " + b.text(),
              {random_array("a", a), random_array("b", b)},
              {},
              [](const std::vector<Var>& v) { return concat_flat(v[0], v[1]); },
              [](const std::vector<Array>& v) { return reference::concat_flat(v[0], v[1]); }});
  };
  check(Shape{2, 5, 5, 1}, Shape{2, 5, 5, 1});
  check(Shape{1, 3, 1, 1}, Shape{7});
  check(Shape{16}, Shape{2, 8, 3, 2});
}

namespace {

using Resize = Var (*)(const Var&, int64_t, int64_t);
using ResizeReference = Array (*)(const Array&, int64_t, int64_t);

void check_resize(const char* name, Resize op, ResizeReference expected,
                  std::initializer_list<std::array<int64_t, 4>> sizes) {
  for (const auto& [h, w, oh, ow] : sizes)
    for (int64_t c : {1, 3, 5, 16}) {
      const Shape s{2, h, w, c};
      check_op({fmt::format("{} {} to {}x{}", name, s.text(), oh, ow),
                {random_array("x", s)},
                {},
                [&](const std::vector<Var>& v) { return op(v[0], oh, ow); },
                [&](const std::vector<Array>& v) { return expected(v[0], oh, ow); }});
    }
}

}  // namespace

TEST_CASE("op: nearest_resize and upsample2x") {
  Fixture fixture;
  check_resize("nearest", nearest_resize, reference::nearest_resize,
               {{3, 4, 6, 8},
                {3, 4, 9, 4},
                {8, 6, 4, 3},
                {8, 9, 2, 3},
                {5, 7, 3, 4},
                {3, 4, 5, 7},
                {6, 3, 4, 7},
                {1, 1, 3, 2},
                {4, 5, 1, 1}});
  check_resize("upsample2x", [](const Var& x, int64_t, int64_t) { return upsample2x(x); }, reference::nearest_resize,
               {{3, 4, 6, 8}, {1, 5, 2, 10}});
}

TEST_CASE("op: area_resize and average_pool2x2") {
  Fixture fixture;
  check_resize("area", area_resize, reference::area_resize,
               {{8, 6, 4, 3},
                {9, 8, 3, 2},
                {5, 7, 3, 4},
                {7, 5, 4, 4},
                {10, 11, 4, 4},
                {3, 2, 4, 4},
                {4, 3, 7, 5},
                {5, 4, 1, 1},
                {6, 4, 6, 2}});
  check_resize("average_pool2x2", [](const Var& x, int64_t, int64_t) { return average_pool2x2(x); },
               reference::area_resize, {{4, 6, 2, 3}, {2, 8, 1, 4}});
}

TEST_CASE("op: a change of size to the same size is no change") {
  Fixture fixture;
  const Var x(to_tensor(random_array("x", Shape{1, 4, 5, 3})), true);
  CHECK(nearest_resize(x, 4, 5).node == x.node);
  CHECK(area_resize(x, 4, 5).node == x.node);
  CHECK(augment(x, {false, false, false}, zeros(Shape{1, 7})).node == x.node);
}

TEST_CASE("op: corner_crop at all four corners") {
  Fixture fixture;
  for (int corner = 0; corner < 4; corner++) {
    const Tensor q = i32_tensor({corner});
    for (const auto& [h, w, oh, ow] :
         std::initializer_list<std::array<int64_t, 4>>{{6, 8, 3, 4}, {5, 7, 2, 6}, {4, 5, 4, 2}})
      for (int64_t c : {1, 3, 5, 16}) {
        const Shape s{2, h, w, c};
        check_op({fmt::format("corner_crop {} {} to {}x{}", corner, s.text(), oh, ow),
                  {random_array("x", s)},
                  {},
                  [&](const std::vector<Var>& v) { return corner_crop(v[0], oh, ow, q); },
                  [&](const std::vector<Array>& v) { return reference::corner_crop(v[0], oh, ow, corner); }});
      }
  }
}

TEST_CASE("op: draw_corner") {
  Fixture fixture;
  const std::pair<float, int32_t> expected[] = {{0.f, 0},   {0.24f, 0}, {0.25f, 1},       {0.49f, 1}, {0.5f, 2},
                                                {0.74f, 2}, {0.75f, 3}, {0.99999994f, 3}, {1.f, 3}};
  for (const auto& [u, corner] : expected) {
    int32_t got = -1;
    draw_corner(from_vector(Shape{1, 1}, {u})).download(&got);
    CHECK(got == corner);
  }
}

TEST_CASE("op: hinge_loss") {
  Fixture fixture;
  for (int64_t n : {1, 7, 100})
    for (float sign : {1.f, -1.f})
      for (bool drawn : {false, true}) {
        const float low = drawn ? 0.8f : 1.f;
        const Array u(Shape{n}, hashed_uniform("margins", n));
        const Tensor uniforms = to_tensor(u);
        const Array logits = random_array("logits", Shape{n}, 2);
        check_op(
            {fmt::format("hinge {} {} {}", n, sign, drawn),
             {logits},
             {},
             [&](const std::vector<Var>& v) { return hinge_loss(v[0], sign, low, drawn ? &uniforms : nullptr).value; },
             [&](const std::vector<Array>& v) {
               return reference::hinge_loss(v[0], double(sign), double(low), drawn ? &u.v : nullptr);
             }});
        CHECK(double(hinge_loss(Var(to_tensor(logits)), sign, low, nullptr).mean_logit.item()) ==
              doctest::Approx(reference::mean(logits).v[0]).epsilon(1e-6));
      }
}

TEST_CASE("op: generator_loss") {
  Fixture fixture;
  for (const Shape& s : {Shape{1}, Shape{100}, Shape{2, 5, 5, 1}})
    check_op({"generator_loss " + s.text(),
              {random_array("logits", s)},
              {},
              [](const std::vector<Var>& v) { return generator_loss(v[0]); },
              [](const std::vector<Array>& v) {
                Array m = reference::mean(v[0]);
                m.v[0] = -m.v[0];
                return m;
              }});
}

TEST_CASE("op: difference_loss, L1 and mean squared error") {
  Fixture fixture;
  for (int power : {1, 2})
    for (const Shape& s : {Shape{1, 3, 2, 3}, Shape{3, 5, 7, 3}, Shape{4, 4, 4, 1}, Shape{2, 41, 43, 3}}) {
      const Array target = random_array("target", s);
      const Tensor t = to_tensor(target);
      check_op({fmt::format("difference_loss {} {}", power, s.text()),
                {random_array("x", s)},
                {},
                [&](const std::vector<Var>& v) { return difference_loss(v[0], t, power); },
                [&](const std::vector<Array>& v) { return reference::difference_loss(v[0], target, power); }});
    }
}

TEST_CASE("op: augment, every policy") {
  Fixture fixture;
  for (const Shape& s : {Shape{3, 8, 8, 3}, Shape{2, 18, 14, 3}, Shape{2, 5, 7, 3}, Shape{1, 40, 44, 3}})
    for (int bits = 1; bits < 8; bits++) {
      const AugmentPolicy policy{bool(bits & 1), bool(bits & 2), bool(bits & 4)};
      const Array u(Shape{s[0], 7}, hashed_uniform("augment " + s.text(), s[0] * 7));
      const Tensor uniforms = to_tensor(u);
      check_op({fmt::format("augment {} {}", bits, s.text()),
                {random_array("x", s)},
                {},
                [&](const std::vector<Var>& v) { return augment(v[0], policy, uniforms); },
                [&](const std::vector<Array>& v) { return reference::augment(v[0], policy, u.v); }});
    }
}

TEST_CASE("op: augment at the ends of its draws") {
  Fixture fixture;
  const Shape s{2, 8, 6, 3};
  const Array x = random_array("x", s);
  const AugmentPolicy all{true, true, true};
  for (float end : {0.f, 0.99999994f}) {
    const Array u(Shape{2, 7}, std::vector<float>(14, end));
    CHECK(relative_error(to_array(augment(Var(to_tensor(x)), all, to_tensor(u)).value),
                         reference::augment(x, all, u.v)) < 1e-5);
  }
}

TEST_CASE("op: gather takes the pictures of the indices and mirrors those below the threshold") {
  Fixture fixture;
  const int h = 5, w = 4;
  const int64_t count = 6;
  std::vector<uint8_t> bytes;
  for (float f : hashed_uniform("bytes", count * h * w * 3)) bytes.push_back(uint8_t(f * 256));
  bytes[0] = 0;
  bytes[1] = 255;
  const PictureSet set(bytes.data(), count, h, w);
  CHECK(set.count == count);
  const std::vector<int32_t> index = {0, 5, 2, 2, 1};
  const std::vector<float> flips = {0.2f, 0.4999f, 0.5f, 0.f, 0.9f};
  const Tensor flip_tensor = from_vector(Shape{5, 1}, flips);
  for (float below : {0.f, 0.5f, 1.f}) {
    std::vector<bool> flip;
    for (float f : flips) flip.push_back(f < below);
    poison_arena();
    CHECK(relative_error(to_array(gather(set, i32_tensor(index), flip_tensor, below)),
                         reference::gather(bytes, h, w, index, flip)) < 1e-6);
  }
  const std::vector<float> means = set.means.to_vector();
  for (int64_t k = 0; k < count; k++)
    CHECK(double(means[size_t(k)]) ==
          doctest::Approx(reference::mean(reference::gather(bytes, h, w, {int32_t(k)}, {false})).v[0]).epsilon(1e-5));
}
