#include <algorithm>

#include "engine/error.h"
#include "engine/ops.h"
#include "kernels/gate.h"
#include "kernels/pointwise.h"
#include "kernels/resize.h"

namespace kiln {

Var activation(const Var& x, Activation act) {
  const bool record = recording({&x});
  const DType t = x.value.dtype();
  const int64_t n = x.value.count();
  Var y(Tensor(x.shape(), t), record);
  KILN_RUN(Work::pointwise, activation_forward(stream, t, act, n, x.value.data(), y.value.data()));
  if (record) {
    const bool from_output = act == Activation::sigmoid || act == Activation::tanh;
    context().tape->push([=, saved = from_output ? y.value : x.value, xn = x.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      const Tensor dx(saved.shape(), t);
      KILN_RUN(Work::pointwise, activation_backward(stream, t, act, n, saved.data(), dy.data(), dx.data()));
      xn->add(dx);
    });
  }
  return y;
}

Var glu(const Var& x) {
  const int h = int(x.value.channels() / 2);
  KILN_ASSERT(x.value.channels() == 2 * h);
  const bool record = recording({&x});
  const DType t = x.value.dtype();
  const int64_t rows = x.value.rows();
  Var y(Tensor(x.shape().with(-1, h), t), record);
  KILN_RUN(Work::pointwise, glu_forward(stream, t, rows, h, x.value.data(), y.value.data()));
  if (record)
    context().tape->push([=, xv = x.value, xn = x.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      const Tensor dx(xv.shape(), t);
      KILN_RUN(Work::pointwise, glu_backward(stream, t, rows, h, xv.data(), dy.data(), dx.data()));
      xn->add(dx);
    });
  return y;
}

Var combine(float a, const Var& x, float b, const Var& y) {
  KILN_ASSERT(x.shape() == y.shape());
  const bool record = recording({&x, &y});
  const DType t = x.value.dtype();
  const int64_t n = x.value.count();
  Var z(Tensor(x.shape(), t), record);
  KILN_RUN(Work::pointwise, linear_combination(stream, t, n, a, x.value.data(), b, y.value.data(), z.value.data()));
  if (record)
    context().tape->push([=, xn = x.node, yn = y.node, zn = z.node] {
      const Tensor dz = zn->take();
      if (!dz) return;
      Tensor dx;
      for (auto& [node, factor] : {std::pair{xn, a}, std::pair{yn, b}}) {
        if (!node) continue;
        if (node == yn && a == b && dx) {
          node->add(dx);  // equal factors: the two inputs share one gradient
          continue;
        }
        dx = Tensor(dz.shape(), t);
        KILN_RUN(Work::pointwise, scale(stream, t, n, factor, dz.data(), dx.data()));
        node->add(dx);
      }
    });
  return z;
}

Var gate(const Var& x, const Var& g) {
  const int64_t n = x.shape()[0];
  const int c = int(x.value.channels());
  KILN_ASSERT(g.value.count() == n * c);
  const int64_t pixels = x.value.rows() / n;
  const bool record = recording({&x, &g});
  const DType t = x.value.dtype();
  Var y(Tensor(x.shape(), t), record);
  KILN_RUN(Work::pointwise, gate_forward(stream, t, n, pixels, c, x.value.data(), g.value.data(), y.value.data()));
  if (record)
    context().tape->push([=, xv = x.value, gv = g.value, xn = x.node, gn = g.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      const Tensor dx(xv.shape(), t), dg(gv.shape()), scratch(Shape{gate_scratch_floats(n, c)});
      KILN_RUN(Work::reduction, gate_backward(stream, t, n, pixels, c, xv.data(), gv.data(), dy.data(), dx.data(), dg.f32(),
                                              scratch.f32()));
      if (xn) xn->add(dx);
      if (!gn) return;
      Tensor out = dg;
      if (t != DType::f32) {
        out = Tensor(gv.shape(), t);
        KILN_RUN(Work::pointwise, cast(stream, DType::f32, t, dg.count(), dg.data(), out.data()));
      }
      gn->add(out);
    });
  return y;
}

Var concat_flat(const Var& a, const Var& b) {
  const int64_t na = a.value.count(), nb = b.value.count();
  const DType t = a.value.dtype();
  KILN_ASSERT(b.value.dtype() == t);
  const bool record = recording({&a, &b});
  Var y(Tensor(Shape{na + nb}, t), record);
  KILN_RUN(Work::pointwise, concatenate(stream, t, na, a.value.data(), nb, b.value.data(), y.value.data()));
  if (record)
    context().tape->push([=, as = a.shape(), bs = b.shape(), an = a.node, bn = b.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      // Into tensors of their own: a part of dy need not be aligned as kernels and libraries on a GPU want it.
      const Tensor da = an ? Tensor(as, t) : Tensor(), db = bn ? Tensor(bs, t) : Tensor();
      KILN_RUN(Work::pointwise, split(stream, t, na, da.data(), nb, db.data(), dy.data()));
      if (an) an->add(da);
      if (bn) bn->add(db);
    });
  return y;
}

namespace {

/// An op that changes h and w by a linear map and its adjoint.
template <class Forward, class Backward>
Var resize(const Var& x, int64_t h, int64_t w, Forward forward, Backward backward) {
  const Shape xs = x.shape();
  KILN_ASSERT(xs.rank() == 4 && std::max({xs[1], xs[2], h, w}) <= kLargestSide);
  const ResizeShape s{xs[0], int(xs[1]), int(xs[2]), int(h), int(w), int(xs[3])};
  const bool record = recording({&x});
  const DType t = x.value.dtype();
  Var y(Tensor(Shape{xs[0], h, w, xs[3]}, t), record);
  forward(t, s, x.value, y.value);
  if (record)
    context().tape->push([=, xn = x.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      const Tensor dx(xs, t);
      backward(t, s, dy, dx);
      xn->add(dx);
    });
  return y;
}

}  // namespace

Var nearest_resize(const Var& x, int64_t h, int64_t w) {
  if (x.shape()[1] == h && x.shape()[2] == w) return x;
  return resize(
      x, h, w,
      [](DType t, const ResizeShape& s, const Tensor& in, const Tensor& out) {
        KILN_RUN(Work::pointwise, nearest_forward(stream, t, s, in.data(), out.data()));
      },
      [](DType t, const ResizeShape& s, const Tensor& dy, const Tensor& dx) {
        KILN_RUN(Work::pointwise, nearest_backward(stream, t, s, dy.data(), dx.data()));
      });
}

Var upsample2x(const Var& x) { return nearest_resize(x, 2 * x.shape()[1], 2 * x.shape()[2]); }

Var area_resize(const Var& x, int64_t h, int64_t w) {
  if (x.shape()[1] == h && x.shape()[2] == w) return x;
  return resize(
      x, h, w,
      [](DType t, const ResizeShape& s, const Tensor& in, const Tensor& out) {
        KILN_RUN(Work::pointwise, area_forward(stream, t, s, in.data(), out.data()));
      },
      [](DType t, const ResizeShape& s, const Tensor& dy, const Tensor& dx) {
        KILN_RUN(Work::pointwise, area_backward(stream, t, s, dy.data(), dx.data()));
      });
}

Var average_pool2x2(const Var& x) {
  KILN_ASSERT(x.shape()[1] % 2 == 0 && x.shape()[2] % 2 == 0);
  return area_resize(x, x.shape()[1] / 2, x.shape()[2] / 2);
}

Var corner_crop(const Var& x, int64_t h, int64_t w, const Tensor& corner) {
  KILN_ASSERT(h <= x.shape()[1] && w <= x.shape()[2] && corner.dtype() == DType::i32);
  return resize(
      x, h, w,
      [corner](DType t, const ResizeShape& s, const Tensor& in, const Tensor& out) {
        KILN_RUN(Work::pointwise, corner_crop_forward(stream, t, s, corner.as<int32_t>(), in.data(), out.data()));
      },
      [corner](DType t, const ResizeShape& s, const Tensor& dy, const Tensor& dx) {
        KILN_RUN(Work::pointwise, corner_crop_backward(stream, t, s, corner.as<int32_t>(), dy.data(), dx.data()));
      });
}

Tensor draw_corner(const Tensor& uniform) {
  const Tensor corner(Shape{1}, DType::i32);
  KILN_RUN(Work::data, corner_from_uniform(stream, uniform.f32(), corner.as<int32_t>()));
  return corner;
}

}  // namespace kiln
