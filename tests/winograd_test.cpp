// engine/winograd.h: 16 products a tile against the definition, in every way that the work is cut up.
#include "engine/winograd.h"

#include <omp.h>

#include "engine/convolution.h"
#include "engine/ops.h"
#include "kernels/fold.h"
#include "tests/op_reference.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::test;

namespace {

struct Result {
  Array y, dx, dw;
};

/// The three functions themselves, whatever wins() says.
Result by_winograd(const WinogradShape& s) {
  const Tensor x = to_tensor(random_array("x", {s.n, s.h, s.w, s.c})), w = to_tensor(random_array("w", {s.oc, 3, 3, s.c}));
  const Tensor dy = to_tensor(random_array("dy", {s.n, s.h, s.w, s.oc}));
  const Tensor u(Shape{16, s.oc, s.c}), du(u.shape()), y(dy.shape()), dx(x.shape()), dw(w.shape());
  KILN_RUN(Work::convolution, winograd_weights(stream, int(s.oc), int(s.c), w.f32(), u.f32()));
  winograd_forward(s, x, u, y);
  winograd_backward_data(s, dy, u, dx);
  winograd_backward_weights(s, x, dy, du);
  KILN_RUN(Work::convolution, winograd_weights_backward(stream, int(s.oc), int(s.c), du.f32(), dw.f32()));
  return {to_array(y), to_array(dx), to_array(dw)};
}

/// oneDNN's direct convolution, which tests/op_gradient_test.cpp sets beside plain loops.
Result direct(const WinogradShape& s) {
  const ConvShape c{s.n, s.h, s.w, s.c, s.h, s.w, s.oc, 3, 3, 1, 1, false};
  const Tensor x = to_tensor(random_array("x", {s.n, s.h, s.w, s.c})), w = to_tensor(random_array("w", {s.oc, 3, 3, s.c}));
  const Tensor dy = to_tensor(random_array("dy", {s.n, s.h, s.w, s.oc})), y(dy.shape()), dx(x.shape()), dw(w.shape());
  conv_forward(c, x, w, y);
  conv_backward_data(c, dy, w, dx);
  conv_backward_weights(c, x, dy, dw);
  return {to_array(y), to_array(dx), to_array(dw)};
}

constexpr WinogradShape kShapes[] = {
    {1, 1, 1, 1, 1},       // one pixel
    {2, 3, 5, 2, 3},       // odd sides: tiles that hang over
    {3, 7, 1, 3, 2},       // one column
    {2, 8, 8, 20, 150},    // results in two blocks, the second one a rest
    {5, 8, 6, 40, 6},      // the deep way, a few tiles
    {3, 33, 34, 6, 140},   // many tiles in chunks with a rest, results in blocks
    {8, 18, 17, 24, 16},   // chunks in groups
    {2, 32, 32, 16, 8},    // exactly the deep way's limit
    {1, 46, 46, 300, 600}  // a weight too large for partial sums, more tiles than go at a time
};

}  // namespace

TEST_CASE("winograd: equals the direct convolution, forward and backward") {
  Fixture fixture;
  for (const WinogradShape& s : kShapes) {
    const std::string name = Shape{s.n, s.h, s.w, s.c, s.oc}.text();
    CAPTURE(name);
    const Result got = by_winograd(s), want = direct(s);
    CHECK(relative_error(got.y, want.y) < 3e-6);
    CHECK(relative_error(got.dx, want.dx) < 3e-6);
    CHECK(relative_error(got.dw, want.dw) < 3e-6);
  }
}

TEST_CASE("winograd: one thread and two give the same bits") {
  Fixture fixture;
  const int before = omp_get_max_threads();
  for (const WinogradShape& s : kShapes) {
    if (s.c == 300) continue;  // the other shapes go all ways already
    omp_set_num_threads(1);
    const Result one = by_winograd(s);
    omp_set_num_threads(2);
    const Result two = by_winograd(s);
    CHECK(one.y.v == two.y.v);
    CHECK(one.dx.v == two.dx.v);
    CHECK(one.dw.v == two.dw.v);
  }
  omp_set_num_threads(before);
}

TEST_CASE("winograd: conv2d takes this way where it wins, and its gradients are right") {
  Fixture fixture;
  const WinogradShape s{2, 6, 5, 128, 130};
  REQUIRE(s.wins());
  Tape tape;
  Var x(to_tensor(random_array("x", {s.n, s.h, s.w, s.c})), true), w(to_tensor(random_array("w", {s.oc, 3, 3, s.c})), true), y;
  {
    Recording recording(tape);
    y = conv2d(x, w, 1, 1);
  }
  const Array out = to_array(y.value);
  tape.backward_from({{y, to_tensor(random_array("dy", y.shape()))}});
  const Result same = by_winograd(s);
  CHECK(out.v == same.y.v);
  CHECK(to_array(x.node->gradient()).v == same.dx.v);
  CHECK(to_array(w.node->gradient()).v == same.dw.v);
}
