// The ops of class-conditional networks: forward against plain loops in double precision, backward against finite differences,
// fused against unfused.
#include "engine/ops_conditional.h"
#include "engine/orthogonal.h"
#include "engine/parameters.h"
#include "kernels/pointwise.h"
#include "tests/op_test.h"

using namespace kiln;
using namespace kiln::test;

namespace {

Tensor label_tensor(const std::vector<int32_t>& labels) {
  Tensor t(Shape{int64_t(labels.size())}, DType::i32);
  t.upload(labels.data());
  return t;
}

/// Parameters of any shapes with hashed values, bound.
struct Params {
  std::vector<Param> list;
  ParameterSet set;
  explicit Params(const std::vector<Shape>& shapes) : list(shapes.size()) {
    for (size_t i = 0; i < shapes.size(); i++) list[i].shape = shapes[i];
    set = ParameterSet(*this, true);
    for (size_t i = 0; i < shapes.size(); i++) list[i].value.upload(to_tensor(random_array("p" + std::to_string(i), shapes[i])).data());
  }
  Params(const Params&) = delete;
  template <class F>
  void visit(F&& f) {
    for (size_t i = 0; i < list.size(); i++) f(std::to_string(i), list[i]);
  }
};

struct Norm {
  ConditionalNorm norm;
  Param input_bias;
  ParameterSet set;
  explicit Norm(int64_t c) : norm(c) {
    input_bias.shape = Shape{c};
    set = ParameterSet(*this, true);
    input_bias.value.upload(to_tensor(random_array("input bias", Shape{c})).data());
    reset();
  }
  Norm(const Norm&) = delete;
  void reset() {
    norm.running_mean.value.upload(to_tensor(random_array("mean", norm.running_mean.shape)).data());
    Array var = random_array("var", norm.running_var.shape);
    for (double& x : var.v) x = 1.5 + 0.5 * x;
    norm.running_var.value.upload(to_tensor(var).data());
  }
  template <class F>
  void visit(F&& f) {
    f("norm", norm);
    f("input_bias", input_bias);
  }
};

Array conditional_norm_reference(const Array& x, const Array& gain, const Array& bias, const std::vector<double>& mean,
                                 const std::vector<double>& var, bool relu) {
  Array y(x.shape);
  const int64_t c = x.shape[3], pixels = x.shape[1] * x.shape[2];
  for (size_t i = 0; i < x.v.size(); i++) {
    const size_t j = i % size_t(c), n = i / size_t(c * pixels), k = n * size_t(c) + j;
    const double z = (x.v[i] - mean[j]) / std::sqrt(var[j] + 1e-5) * (1 + gain.v[k]) + bias.v[k];
    y.v[i] = relu && z < 0 ? 0 : z;
  }
  return y;
}

Array relu(const Array& x) { return reference::activation(x, Activation::relu); }

Array plus_bias(const Array& x, const Array& b) {
  Array y = x;
  for (size_t i = 0; i < y.v.size(); i++) y.v[i] += b.v[i % b.v.size()];
  return y;
}

Array sum(const Array& a, const Array& b) { return reference::combine(1, a, 1, b); }

/// softmax(q k') v, one picture after the other.
Array attention_reference(const Array& q, const Array& k, const Array& v) {
  const int64_t n = q.shape[0], queries = q.shape[1] * q.shape[2], keys = k.shape[1] * k.shape[2], d = q.shape[3], e = v.shape[3];
  Array y(q.shape.with(3, e));
  for (int64_t p = 0; p < n; p++)
    for (int64_t i = 0; i < queries; i++) {
      std::vector<double> s(static_cast<size_t>(keys));
      double top = -1e300, total = 0;
      for (int64_t j = 0; j < keys; j++) {
        for (int64_t c = 0; c < d; c++) s[size_t(j)] += q.v[size_t((p * queries + i) * d + c)] * k.v[size_t((p * keys + j) * d + c)];
        top = std::max(top, s[size_t(j)]);
      }
      for (double& x : s) total += x = std::exp(x - top);
      for (int64_t j = 0; j < keys; j++)
        for (int64_t c = 0; c < e; c++)
          y.v[size_t((p * queries + i) * e + c)] += s[size_t(j)] / total * v.v[size_t((p * keys + j) * e + c)];
    }
  return y;
}

}  // namespace

TEST_CASE("op: linear, to_picture, reshape, take_rows and channels") {
  Fixture fixture;
  const int64_t n = 3, k = 7, m = 10;
  check_op({"linear", {random_array("x", Shape{n, k}), random_array("w", Shape{m, 1, 1, k})}, {},
            [](const std::vector<Var>& v) { return linear(v[0], v[1]); },
            [=](const std::vector<Array>& v) {
              Array y(Shape{n, m});
              for (int64_t i = 0; i < n * m; i++)
                for (int64_t j = 0; j < k; j++) y.v[size_t(i)] += v[0].v[size_t(i / m * k + j)] * v[1].v[size_t(i % m * k + j)];
              return y;
            }});
  check_op({"to_picture", {random_array("x", Shape{2, 5 * 6})}, {},
            [](const std::vector<Var>& v) { return to_picture(v[0], 2, 3, 5); },
            [](const std::vector<Array>& v) {
              Array y(Shape{2, 2, 3, 5});
              for (int64_t p = 0; p < 2; p++)
                for (int64_t c = 0; c < 5; c++)
                  for (int64_t i = 0; i < 6; i++) y.at(p, i / 3, i % 3, c) = v[0].v[size_t(p * 30 + c * 6 + i)];
              return y;
            }});
  check_op({"reshape", {random_array("x", Shape{4, 6})}, {}, [](const std::vector<Var>& v) { return reshape(v[0], Shape{3, 8}); },
            [](const std::vector<Array>& v) {
              Array y = v[0];
              y.shape = Shape{3, 8};
              return y;
            }});
  check_op({"take_rows", {random_array("x", Shape{5, 3})}, {},
            [](const std::vector<Var>& v) { return combine(1.f, take_rows(v[0], 1, 2), 2.f, take_rows(v[0], 3, 2)); },
            [](const std::vector<Array>& v) {
              Array y(Shape{2, 3});
              for (size_t i = 0; i < 6; i++) y.v[i] = v[0].v[3 + i] + 2 * v[0].v[9 + i];
              return y;
            }});
  for (int64_t c : {16, 5}) {
    check_op({"concat_channels", {random_array("x", Shape{2, 2, 3, c}), random_array("z", Shape{2, 2, 3, 3})}, {},
              [](const std::vector<Var>& v) { return concat_channels(v[0], v[1]); },
              [=](const std::vector<Array>& v) {
                Array y(Shape{2, 2, 3, c + 3});
                for (int64_t r = 0; r < 12; r++)
                  for (int64_t j = 0; j < c + 3; j++)
                    y.v[size_t(r * (c + 3) + j)] = j < c ? v[0].v[size_t(r * c + j)] : v[1].v[size_t(r * 3 + j - c)];
                return y;
              }});
    for (int64_t first : {int64_t(0), int64_t(2), c - 3})
      check_op({fmt::format("take_channels {} from {}", first, c), {random_array("x", Shape{2, 3, 1, c})}, {},
                [=](const std::vector<Var>& v) { return take_channels(v[0], first, 3); },
                [=](const std::vector<Array>& v) {
                  Array y(Shape{2, 3, 1, 3});
                  for (int64_t i = 0; i < 18; i++) y.v[size_t(i)] = v[0].v[size_t(i / 3 * c + first + i % 3)];
                  return y;
                }});
  }
}

TEST_CASE("op: embedding, with a class that is there twice and one that is not") {
  Fixture fixture;
  const std::vector<int32_t> labels = {3, 0, 3, 1, 0, 3};
  const Tensor index = label_tensor(labels);
  for (int64_t c : {5, 32})
    check_op({"embedding", {random_array("table", Shape{5, c})}, {}, [=](const std::vector<Var>& v) { return embedding(v[0], index); },
              [=](const std::vector<Array>& v) {
                Array y(Shape{6, c});
                for (int64_t i = 0; i < 6 * c; i++) y.v[size_t(i)] = v[0].v[size_t(labels[size_t(i / c)] * c + i % c)];
                return y;
              }});
}

TEST_CASE("op: a parameter's gradient arrives, twice used or not, and not where weights are frozen") {
  Fixture fixture;
  Params p({Shape{4, 3}});
  check_op({"parameter", {random_array("x", Shape{4, 3})}, {&p.list[0]},
            [&](const std::vector<Var>& v) {
              const Var w = parameter(p.list[0]);
              return combine(1.f, combine(2.f, w, 1.f, v[0]), 3.f, w);
            },
            [](const std::vector<Array>& v) { return reference::combine(1, v[0], 5, v[1]); }});
}

TEST_CASE("op: labels are uniform over the classes") {
  Fixture fixture;
  const std::vector<float> u = {0.f, 0.3333f, 0.34f, 0.6666f, 0.667f, 0.99999994f};
  const Tensor labels = draw_labels(from_vector(Shape{6, 1}, u), 3);
  std::vector<int32_t> got(6);
  labels.download(got.data());
  CHECK(got == std::vector<int32_t>{0, 0, 1, 1, 2, 2});
}

TEST_CASE("op: conditional_norm, training and evaluation") {
  Fixture fixture;
  for (bool training : {true, false})
    for (bool act : {true, false})
      for (const Shape& s : {Shape{3, 3, 5, 6}, Shape{2, 4, 4, 32}, Shape{1, 7, 3, 17}}) {
        CAPTURE(training);
        const int64_t c = s[3];
        Norm m(c);
        Scoped<bool> mode(&Context::training, training);
        const std::vector<float> mean32 = m.norm.running_mean.value.to_vector(), var32 = m.norm.running_var.value.to_vector();
        const std::vector<double> mean(mean32.begin(), mean32.end()), var(var32.begin(), var32.end());
        check_op({fmt::format("conditional_norm {} relu {}", s.text(), act),
                  {random_array("x", s, 2), random_array("gain", Shape{s[0], c}), random_array("bias", Shape{s[0], c})},
                  {},
                  [&](const std::vector<Var>& v) {
                    return conditional_norm(v[0], m.norm, v[1], v[2], act ? Activation::relu : Activation::none);
                  },
                  [&](const std::vector<Array>& v) {
                    const reference::Statistics b = reference::statistics(v[0]);
                    return conditional_norm_reference(v[0], v[1], v[2], training ? b.mean : mean, training ? b.variance : var, act);
                  }});
      }
}

TEST_CASE("op: conditional_norm takes in the bias of the convolution before it") {
  Fixture fixture;
  const Shape s{3, 4, 5, 6};
  const Array gain = random_array("gain", Shape{3, 6}), bias = random_array("bias", Shape{3, 6}), x = random_array("x", s, 2);
  const auto run = [&](bool taken_in, bool training) {
    Norm m(6);
    Scoped<bool> mode(&Context::training, training);
    const Var in(to_tensor(x));
    const Var y = taken_in ? conditional_norm(in, m.norm, Var(to_tensor(gain)), Var(to_tensor(bias)), Activation::relu, &m.input_bias)
                           : conditional_norm(add_bias(in, m.input_bias), m.norm, Var(to_tensor(gain)), Var(to_tensor(bias)), Activation::relu);
    return std::vector<Array>{to_array(y.value), to_array(m.norm.running_mean.value), to_array(m.norm.running_var.value)};
  };
  for (bool training : {true, false}) {
    const auto a = run(true, training), b = run(false, training);
    for (size_t i = 0; i < a.size(); i++) CHECK(relative_error(a[i], b[i]) < 1e-6);
  }
}

TEST_CASE("op: running statistics with momentum 1/k are the plain mean of k batches") {
  Fixture fixture;
  Norm m(4);
  const Shape s{2, 3, 3, 4};
  std::vector<double> mean(4), var(4);
  for (int k = 1; k <= 3; k++) {
    Scoped<float> momentum(&Context::norm_momentum, 1.f / float(k));
    const Array x = random_array("batch " + std::to_string(k), s, 3);
    const Tensor none = zeros(Shape{2, 4});
    conditional_norm(Var(to_tensor(x)), m.norm, Var(none), Var(none), Activation::none);
    const reference::Statistics b = reference::statistics(x);
    for (size_t j = 0; j < 4; j++) {
      mean[j] += b.mean[j] / 3;
      var[j] += b.variance[j] * 18 / 17 / 3;
    }
  }
  CHECK(relative_error(to_array(m.norm.running_mean.value), Array(Shape{4}, {float(mean[0]), float(mean[1]), float(mean[2]), float(mean[3])})) < 1e-6);
  CHECK(relative_error(to_array(m.norm.running_var.value), Array(Shape{4}, {float(var[0]), float(var[1]), float(var[2]), float(var[3])})) < 1e-6);
}

TEST_CASE("op: biases and the residual sum") {
  Fixture fixture;
  for (int64_t c : {5, 16}) {
    Params p({Shape{c}, Shape{c}});
    const Shape s{2, 4, 6, c};
    check_op({"add_bias", {random_array("x", s)}, {&p.list[0]}, [&](const std::vector<Var>& v) { return add_bias(v[0], p.list[0]); },
              [](const std::vector<Array>& v) { return plus_bias(v[0], v[1]); }});
    for (Activation act : {Activation::none, Activation::relu})
      check_op({"bias_act", {random_array("x", s)}, {&p.list[0]}, [&](const std::vector<Var>& v) { return bias_act(v[0], p.list[0], act); },
                [=](const std::vector<Array>& v) { return reference::activation(plus_bias(v[0], v[1]), act); }});
    for (bool up : {true, false})
      check_op({"residual_sum", {random_array("x", s), random_array("skip", up ? Shape{2, 2, 3, c} : s)}, {&p.list[0], &p.list[1]},
                [&](const std::vector<Var>& v) { return residual_sum(v[0], v[1], up, &p.list[0], &p.list[1]); },
                [=](const std::vector<Array>& v) {
                  return plus_bias(plus_bias(sum(v[0], up ? reference::nearest_resize(v[1], 4, 6) : v[1]), v[2]), v[3]);
                }});
    // One bias only, as BigGAN-deep has.
    Params one({Shape{c}});
    check_op({"residual_sum, one bias", {random_array("x", s), random_array("skip", s)}, {&one.list[0]},
              [&](const std::vector<Var>& v) { return residual_sum(v[0], v[1], false, &one.list[0], nullptr); },
              [](const std::vector<Array>& v) { return plus_bias(sum(v[0], v[1]), v[2]); }});
    // In place: the same numbers in the memory that was handed over.
    Var x(to_tensor(random_array("x", s)));
    const void* memory = x.value.data();
    const Array expected = relu(plus_bias(to_array(x.value), to_array(p.list[0].value)));
    const Var y = bias_act(std::move(x), p.list[0], Activation::relu);
    CHECK(y.value.data() == memory);
    CHECK(relative_error(to_array(y.value), expected) < 1e-6);
  }
}

TEST_CASE("op: conv3x3_pool equals the convolution and the pool, and its gradients") {
  Fixture fixture;
  for (const auto& [h, w, c, oc] : std::initializer_list<std::array<int64_t, 4>>{{4, 6, 5, 3}, {8, 4, 16, 16}, {2, 2, 3, 5}, {2, 10, 1, 1}}) {
    const OpCase k{fmt::format("conv3x3_pool {}x{} {} to {}", h, w, c, oc),
                   {random_array("x", Shape{2, h, w, c}), random_array("w", Shape{oc, 3, 3, c}, 0.5)},
                   {},
                   [](const std::vector<Var>& v) { return conv3x3_pool(v[0], v[1]); },
                   [](const std::vector<Array>& v) {
                     const Array y = reference::conv2d(v[0], v[1], 1, 1);
                     return reference::area_resize(y, y.shape[1] / 2, y.shape[2] / 2);
                   }};
    check_op(k);
  }
}

TEST_CASE("op: max_pool2x2, ties to the first") {
  Fixture fixture;
  for (int64_t c : {3, 16})
    check_op({"max_pool2x2", {random_array("x", Shape{2, 4, 6, c})}, {}, [](const std::vector<Var>& v) { return max_pool2x2(v[0]); },
              [=](const std::vector<Array>& v) {
                Array y(Shape{2, 2, 3, c});
                for (int64_t n = 0; n < 2; n++)
                  for (int64_t i = 0; i < 2; i++)
                    for (int64_t j = 0; j < 3; j++)
                      for (int64_t k = 0; k < c; k++)
                        y.at(n, i, j, k) = std::max(std::max(v[0].at(n, 2 * i, 2 * j, k), v[0].at(n, 2 * i, 2 * j + 1, k)),
                                                    std::max(v[0].at(n, 2 * i + 1, 2 * j, k), v[0].at(n, 2 * i + 1, 2 * j + 1, k)));
                return y;
              }});
  Array flat(Shape{1, 2, 2, 1});
  flat.v = {1, 2, 2, 2};
  const std::vector<Array> g = gradients_of([](const std::vector<Var>& v) { return max_pool2x2(v[0]); }, {flat}, Array(Shape{1, 1, 1, 1}, {3.f}));
  CHECK(g[0].v == std::vector<double>{0, 3, 0, 0});
}

TEST_CASE("op: attention, in tiles of any size") {
  Fixture fixture;
  for (int64_t tile : {0, 1, 7, 24})
    check_op({fmt::format("attention, tile {}", tile),
              {random_array("q", Shape{2, 4, 6, 3}, 2), random_array("k", Shape{2, 2, 3, 3}, 2), random_array("v", Shape{2, 2, 3, 5})},
              {},
              [=](const std::vector<Var>& v) { return attention(v[0], v[1], v[2], tile); },
              [](const std::vector<Array>& v) { return attention_reference(v[0], v[1], v[2]); }});
  check_op({"attention, packs", {random_array("q", Shape{1, 8, 8, 4}), random_array("k", Shape{1, 4, 4, 4}), random_array("v", Shape{1, 4, 4, 16})},
            {},
            [](const std::vector<Var>& v) { return attention(v[0], v[1], v[2], 40); },
            [](const std::vector<Array>& v) { return attention_reference(v[0], v[1], v[2]); }});
}

TEST_CASE("op: attention keeps one tile of scores, in forward and in backward") {
  Fixture fixture;
  const auto peak = [&](int64_t tile) {
    Context c;
    UseContext use(c);
    Tape tape;
    Recording recording(tape);
    const Var q(zeros(Shape{1, 64, 64, 4}), true), k(zeros(Shape{1, 32, 32, 4}), true), v(zeros(Shape{1, 32, 32, 4}), true);
    const Var y = attention(q, k, v, tile);
    tape.backward_from({{y, zeros(y.shape())}});
    return c.arena->stats().peak;
  };
  const size_t scores = size_t(64) * 64 * 32 * 32 * 4;
  CHECK(peak(4096) > scores);      // the plain twin: all of them
  CHECK(peak(0) < scores / 4);     // a tile of 256 queries, twice
}

TEST_CASE("op: gamma_sum") {
  Fixture fixture;
  Params p({Shape{1}});
  for (const Shape& s : {Shape{2, 3, 3, 5}, Shape{1, 16, 16, 32}})
    check_op({"gamma_sum", {random_array("x", s), random_array("o", s)}, {&p.list[0]},
              [&](const std::vector<Var>& v) { return gamma_sum(v[0], v[1], p.list[0]); },
              [](const std::vector<Array>& v) { return reference::combine(1, v[0], v[2].v[0], v[1]); }});
}

TEST_CASE("op: relu_sum_pool sums, and does not average") {
  Fixture fixture;
  for (int64_t c : {3, 32})
    check_op({"relu_sum_pool", {random_array("x", Shape{3, 4, 5, c})}, {}, [](const std::vector<Var>& v) { return relu_sum_pool(v[0]); },
              [=](const std::vector<Array>& v) {
                Array y(Shape{3, c});
                for (size_t i = 0; i < v[0].v.size(); i++)
                  y.v[i / size_t(20 * c) * size_t(c) + i % size_t(c)] += std::max(0.0, v[0].v[i]);
                return y;
              }});
}

TEST_CASE("op: projection_logits with and without classes") {
  Fixture fixture;
  const std::vector<int32_t> labels = {2, 0, 2, 3};
  const Tensor index = label_tensor(labels);
  for (int64_t c : {5, 48}) {
    Params p({Shape{1}});
    check_op({"projection_logits",
              {random_array("h", Shape{4, c}), random_array("w", Shape{1, 1, 1, c}), random_array("embed", Shape{5, 1, 1, c})},
              {&p.list[0]},
              [&](const std::vector<Var>& v) { return projection_logits(v[0], v[1], p.list[0], v[2], index); },
              [=](const std::vector<Array>& v) {
                Array y(Shape{4});
                for (size_t n = 0; n < 4; n++) {
                  y.v[n] = v[3].v[0];
                  for (size_t j = 0; j < size_t(c); j++)
                    y.v[n] += v[0].v[n * size_t(c) + j] * (v[1].v[j] + v[2].v[size_t(labels[n]) * size_t(c) + j]);
                }
                return y;
              }});
    check_op({"projection_logits, unconditional", {random_array("h", Shape{4, c}), random_array("w", Shape{1, 1, 1, c})}, {&p.list[0]},
              [&](const std::vector<Var>& v) { return projection_logits(v[0], v[1], p.list[0], Var(), Tensor()); },
              [=](const std::vector<Array>& v) {
                Array y(Shape{4});
                for (size_t n = 0; n < 4; n++) {
                  y.v[n] = v[2].v[0];
                  for (size_t j = 0; j < size_t(c); j++) y.v[n] += v[0].v[n * size_t(c) + j] * v[1].v[j];
                }
                return y;
              }});
  }
}

TEST_CASE("op: pictures of a 16-bit type go through every conditional op") {
  // Against the same in f32: the storage type rounds, and must not lose its way through casts and sums.
  Fixture fixture;
  Norm m(16);
  Params p({Shape{16}, Shape{1}});
  const auto run = [&](DType t) {
    Scoped<DType> storage(&Context::storage, t);
    m.reset();
    const auto in = [&](const char* name, const Shape& s) {
      const Tensor x = to_tensor(random_array(name, s)), y(s, t);
      KILN_RUN(Work::pointwise, cast(stream, DType::f32, t, x.count(), x.data(), y.data()));
      return Var(y, true);
    };
    const Var x = in("x", Shape{2, 4, 4, 16}), w = in("w", Shape{16, 3, 3, 16}), e = in("e", Shape{3, 1, 1, 16}), l = in("l", Shape{1, 1, 1, 16});
    const Var gain(to_tensor(random_array("gain", Shape{2, 16})), true), bias(to_tensor(random_array("bias", Shape{2, 16})), true);
    p.set.zero_grad();
    Tape tape;
    Recording recording(tape);
    Var y = conditional_norm(x, m.norm, gain, bias, Activation::relu);
    const Var key = max_pool2x2(y);
    y = gamma_sum(y, attention(y, key, key, 5), p.list[1]);
    y = residual_sum(conv3x3_pool(y, w), max_pool2x2(x), false, &p.list[0], nullptr);
    y = bias_act(std::move(y), p.list[0], Activation::relu);
    y = concat_channels(take_channels(y, 0, 8), take_channels(y, 8, 8));
    const Var logits = projection_logits(relu_sum_pool(y), l, p.list[1], e, label_tensor({2, 0}));
    tape.backward_from({{logits, from_vector(Shape{2}, {1.f, -0.5f})}});
    std::vector<Array> out = {to_array(logits.value)};
    for (const Var& v : {x, w, e, l, gain, bias}) out.push_back(Array(v.shape(), v.node->gradient().to_vector()));
    for (Param& q : p.list) out.push_back(to_array(q.grad));
    return out;
  };
  const auto exact = run(DType::f32), rounded = run(DType::bf16), half = run(DType::f16);
  for (size_t i = 0; i < exact.size(); i++) {
    CAPTURE(i);
    CHECK(relative_error(rounded[i], exact[i]) < 0.05);
    CHECK(relative_error(half[i], exact[i]) < 0.01);
  }
}

TEST_CASE("orthogonal: rows or columns are orthonormal") {
  for (const auto& [rows, cols] : std::initializer_list<std::array<int64_t, 2>>{{5, 5}, {3, 20}, {20, 3}, {1, 7}, {64, 100}}) {
    const std::vector<float> q = orthogonal_matrix(hashed_normal("q", rows * cols), rows);
    const bool wide = rows <= cols;
    const int64_t k = wide ? rows : cols, len = wide ? cols : rows;
    for (int64_t a = 0; a < k; a++)
      for (int64_t b = 0; b < k; b++) {
        double s = 0;
        for (int64_t i = 0; i < len; i++)
          s += wide ? double(q[size_t(a * cols + i)]) * double(q[size_t(b * cols + i)]) : double(q[size_t(i * cols + a)]) * double(q[size_t(i * cols + b)]);
        CHECK(std::abs(s - (a == b)) < 1e-5);
      }
  }
  // With R's signs taken out, what is orthogonal already comes back as it is.
  const std::vector<float> eye = {1, 0, 0, 0, 1, 0, 0, 0, 1}, turned = {-1, 0, 0, 0, 1, 0, 0, 0, -1};
  CHECK(relative_error(orthogonal_matrix(eye, 3), eye) < 1e-6);
  CHECK(relative_error(orthogonal_matrix(turned, 3), turned) < 1e-6);
}

TEST_CASE("orthogonal: the gradients of both regularisations; BigGAN's is half of its penalty's") {
  Fixture fixture;
  Params p({Shape{4, 1, 2, 3}, Shape{6}, Shape{5, 3}});
  for (OrthogonalForm form : {OrthogonalForm::off_diagonal, OrthogonalForm::full}) {
    const double beta = 0.01;
    p.set.zero_grad();
    add_orthogonal_gradient(p.set, float(beta), form, [](const std::string& name) { return name != "2"; });
    CHECK(relative_error(to_array(p.list[1].grad), Array(Shape{6})) == 0);  // a vector has no Gram matrix
    CHECK(relative_error(to_array(p.list[2].grad), Array(Shape{5, 3})) == 0);  // left out by name
    const auto penalty = [&](const std::vector<Array>& v) {
      Array y(Shape{1});
      for (size_t a = 0; a < 4; a++)
        for (size_t b = 0; b < 4; b++) {
          double s = 0;
          for (size_t i = 0; i < 6; i++) s += v[0].v[a * 6 + i] * v[0].v[b * 6 + i];
          if (form == OrthogonalForm::full) s -= a == b;
          if (form == OrthogonalForm::full || a != b) y.v[0] += beta * s * s;
        }
      return y;
    };
    Array expected = to_array(p.list[0].grad);
    if (form == OrthogonalForm::off_diagonal)
      for (double& x : expected.v) x *= 2;
    CHECK(gradient_error(penalty, {to_array(p.list[0].value)}, 0, Array(Shape{1}, {1.f}), expected) < 1e-4);
  }
}
