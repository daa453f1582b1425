// engine/upsample_conv.h: nine products a pixel against upsampling and convolving, in every way that the work is cut up.
#include <omp.h>

#include "engine/ops.h"
#include "tests/op_reference.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::test;

namespace {

struct Case {
  int64_t n, h, w, c, oc;
};

struct Result {
  Array y, dx, dw;
};

Result run(const Case& k, bool products) {
  const Shape xs{k.n, k.h, k.w, k.c}, ws{k.oc, 3, 3, k.c}, ys{k.n, 2 * k.h, 2 * k.w, k.oc};
  Tape tape;
  Var x(to_tensor(random_array("x", xs)), true), w(to_tensor(random_array("w", ws)), true), y;
  {
    Recording recording(tape);
    y = products ? upsample_conv3x3(x, w) : conv2d(upsample2x(x), w, 1, 1);
  }
  const Array out = to_array(y.value);
  tape.backward_from({{y, to_tensor(random_array("dy", ys))}});
  return {out, to_array(x.node->gradient()), to_array(w.node->gradient())};
}

}  // namespace

TEST_CASE("upsample_conv: nine products equal upsampling and a convolution, forward and backward") {
  Fixture fixture;
  for (const Case& k : {
           Case{1, 1, 1, 1, 1},       // nothing but borders
           Case{3, 1, 5, 2, 3},       // one row
           Case{2, 5, 1, 3, 2},       // one column
           Case{9, 4, 4, 20, 34},     // several small pictures at a time, the last of them alone
           Case{5, 6, 7, 16, 130},    // output channels in two blocks, the second one a rest
           Case{1, 16, 16, 8, 6},     // rows in blocks
           Case{2, 13, 40, 5, 70},    // blocks of rows with a rest
           Case{1, 3, 300, 4, 9},     // rows longer than a chunk
           Case{3, 33, 32, 24, 16},   // many chunks, in groups
           Case{4, 8, 8, 96, 544},    // a deep layer: the gathered gradients go in parts
           Case{40, 4, 4, 150, 512},  // the same with many pictures
       }) {
    const std::string name = Shape{k.n, k.h, k.w, k.c, k.oc}.text();
    CAPTURE(name);
    const Result got = run(k, true), want = run(k, false);
    CHECK(relative_error(got.y, want.y) < 3e-6);
    CHECK(relative_error(got.dx, want.dx) < 3e-6);
    CHECK(relative_error(got.dw, want.dw) < 3e-6);
  }
}

TEST_CASE("upsample_conv: one thread and two give the same bits") {
  Fixture fixture;
  const int before = omp_get_max_threads();
  for (const Case& k : {Case{3, 33, 32, 24, 16}, Case{4, 8, 8, 96, 544}, Case{9, 4, 4, 20, 34}}) {
    omp_set_num_threads(1);
    const Result one = run(k, true);
    omp_set_num_threads(2);
    const Result two = run(k, true);
    CHECK(one.y.v == two.y.v);
    CHECK(one.dx.v == two.dx.v);
    CHECK(one.dw.v == two.dw.v);
  }
  omp_set_num_threads(before);
}

TEST_CASE("upsample_conv: a gradient that nobody wants is not computed") {
  Fixture fixture;
  for (const Case& k : {Case{3, 33, 32, 24, 16}, Case{4, 8, 8, 96, 544}}) {
    const Result both = run(k, true);
    for (const bool for_x : {true, false}) {
      Tape tape;
      Var x(to_tensor(random_array("x", {k.n, k.h, k.w, k.c})), for_x), w(to_tensor(random_array("w", {k.oc, 3, 3, k.c})), !for_x), y;
      {
        Recording recording(tape);
        y = upsample_conv3x3(x, w);
      }
      tape.backward_from({{y, to_tensor(random_array("dy", y.shape()))}});
      CHECK(to_array((for_x ? x : w).node->gradient()).v == (for_x ? both.dx : both.dw).v);
    }
  }
}
