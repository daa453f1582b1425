// The ops of networks that enlarge pictures: forward against plain loops in double precision, backward against finite differences.
#include "engine/ops_upscale.h"
#include "engine/parameters.h"
#include "tests/op_test.h"

using namespace kiln;
using namespace kiln::test;

namespace {

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

Array sloped(Array x, const Array& bias, double slope) {
  for (size_t i = 0; i < x.v.size(); i++) {
    x.v[i] += bias.v[i % bias.v.size()];
    if (x.v[i] < 0) x.v[i] *= slope;
  }
  return x;
}

/// Numbers away from the kink, so that differences are taken on one side of it.
Array without_kinks(Array x, const Array& bias) {
  for (size_t i = 0; i < x.v.size(); i++)
    if (std::abs(x.v[i] + bias.v[i % bias.v.size()]) < 0.05) x.v[i] += 0.25;
  return x;
}

Array bilinear2x(const Array& x) {
  const int64_t n = x.shape[0], h = x.shape[1], w = x.shape[2], c = x.shape[3];
  Array y(Shape{n, 2 * h, 2 * w, c});
  for (int64_t p = 0; p < n; p++)
    for (int64_t i = 0; i < 2 * h; i++)
      for (int64_t j = 0; j < 2 * w; j++)
        for (int64_t k = 0; k < c; k++) {
          const double v = double(i) * double(h - 1) / double(2 * h - 1), u = double(j) * double(w - 1) / double(2 * w - 1);
          const int64_t i0 = std::min(int64_t(v), h - 1), j0 = std::min(int64_t(u), w - 1), i1 = std::min(i0 + 1, h - 1), j1 = std::min(j0 + 1, w - 1);
          const double a = v - double(i0), b = u - double(j0);
          y.at(p, i, j, k) = (1 - a) * ((1 - b) * x.at(p, i0, j0, k) + b * x.at(p, i0, j1, k)) + a * ((1 - b) * x.at(p, i1, j0, k) + b * x.at(p, i1, j1, k));
        }
  return y;
}

Array channels(const Array& x, int64_t first, int64_t count) {
  Array y(x.shape.with(3, count));
  for (size_t r = 0; r < size_t(x.shape.rows()); r++)
    for (size_t k = 0; k < size_t(count); k++) y.v[r * size_t(count) + k] = x.v[r * size_t(x.shape[3]) + size_t(first) + k];
  return y;
}

Array grouped(const Array& x, const Array& w, int groups, int stride, int pad) {
  const int64_t c = w.shape[3], oc = w.shape[0] / groups;
  Array y;
  for (int64_t g = 0; g < groups; g++) {
    Array part(Shape{oc, w.shape[1], w.shape[2], c});
    std::copy(w.v.begin() + ptrdiff_t(g * part.count()), w.v.begin() + ptrdiff_t((g + 1) * part.count()), part.v.begin());
    const Array own = reference::conv2d(channels(x, g * c, c), part, stride, pad);
    if (g == 0) y = Array(own.shape.with(3, oc * groups));
    for (size_t r = 0; r < size_t(own.shape.rows()); r++)
      for (size_t k = 0; k < size_t(oc); k++) y.v[r * size_t(oc * groups) + size_t(g * oc) + k] = own.v[r * size_t(oc) + k];
  }
  return y;
}

Array relativistic(const Array& x, double mean, double sign) {
  Array y(Shape{1});
  for (double v : x.v) y.v[0] += std::log1p(std::exp(-sign * (v - mean))) / double(x.v.size());
  return y;
}

double mean_of(const Array& x) {
  double s = 0;
  for (double v : x.v) s += v / double(x.v.size());
  return s;
}

}  // namespace

TEST_CASE("op: a bias, and a slope below zero") {
  Fixture f;
  const Shape shapes[] = {{2, 3, 5, 4}, {3, 7}, {1, 4, 4, 33}};
  for (const Shape& s : shapes)
    for (const float k : {0.f, 0.1f, 0.2f, 1.f}) {
      Params p({Shape{s[-1]}});
      const Array bias = to_array(p.list[0].value);
      check_op({fmt::format("bias_slope {}", k), {without_kinks(random_array("x", s), bias)}, {&p.list[0]},
                [&](const std::vector<Var>& v) { return bias_slope(v[0], p.list[0], k); },
                [k](const std::vector<Array>& v) { return sloped(v[0], v[1], double(k)); }});
    }
}

TEST_CASE("op: bilinear doubling between fixed corners") {
  Fixture f;
  const Shape shapes[] = {{2, 3, 5, 4}, {1, 1, 1, 3}, {1, 2, 1, 16}, {2, 4, 4, 7}};
  for (const Shape& s : shapes)
    check_op({"upsample_bilinear2x", {random_array("x", s)}, {}, [](const std::vector<Var>& v) { return upsample_bilinear2x(v[0]); },
              [](const std::vector<Array>& v) { return bilinear2x(v[0]); }});
}

TEST_CASE("op: grouped convolution") {
  Fixture f;
  struct Case {
    Shape x;
    int64_t out;
    int groups, kernel, stride, pad;
  };
  for (const Case& c : {Case{{2, 5, 4, 6}, 3, 2, 3, 1, 1}, Case{{1, 6, 6, 12}, 1, 3, 4, 2, 1}, Case{{1, 4, 4, 8}, 3, 1, 3, 1, 1}, Case{{2, 3, 3, 4}, 2, 4, 1, 1, 0}}) {
    const Shape w{c.out * c.groups, c.kernel, c.kernel, c.x[3] / c.groups};
    check_op({"grouped_conv2d", {random_array("x", c.x), random_array("w", w)}, {},
              [&](const std::vector<Var>& v) { return grouped_conv2d(v[0], v[1], c.groups, c.stride, c.pad); },
              [&](const std::vector<Array>& v) { return grouped(v[0], v[1], c.groups, c.stride, c.pad); }});
  }
}

TEST_CASE("op: relativistic loss against a mean that may want a gradient") {
  Fixture f;
  for (const float sign : {1.f, -1.f})
    check_op({"relativistic_loss", {random_array("x", Shape{5}, 2), random_array("y", Shape{7}, 3)}, {},
              [&](const std::vector<Var>& v) { return relativistic_loss(v[0], mean_logit(v[1]), sign); },
              [&](const std::vector<Array>& v) { return relativistic(v[0], mean_of(v[1]), double(sign)); }});
}

TEST_CASE("op: a stored parameter gathers its gradients") {
  Fixture f;
  Params p({Shape{3, 3, 3, 2}});
  check_op({"stored_parameter", {random_array("x", Shape{1, 4, 4, 2})}, {&p.list[0]},
            [&](const std::vector<Var>& v) { return conv2d(v[0], stored_parameter(p.list[0]), 1, 1); },
            [](const std::vector<Array>& v) { return reference::conv2d(v[0], v[1], 1, 1); }});
}
