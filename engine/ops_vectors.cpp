#include "engine/error.h"
#include "engine/layer_table.h"
#include "engine/matrix.h"
#include "engine/ops_conditional.h"
#include "kernels/bias.h"
#include "kernels/embedding.h"
#include "kernels/pointwise.h"

namespace kiln {
namespace {

/// f32 numbers in a storage type; the same tensor where that is f32.
Tensor stored(const Tensor& x, DType t) {
  if (x.dtype() == t) return x;
  const Tensor y(x.shape(), t);
  KILN_RUN(Work::pointwise, cast(stream, x.dtype(), t, x.count(), x.data(), y.data()));
  return y;
}

}  // namespace

Var parameter(Param& p) {
  const bool record = context().tape && !context().weights_frozen && p.grad;
  Var v(p.value, record);
  if (record)
    context().tape->push([grad = p.grad, node = v.node] {
      const Tensor g = node->take();
      if (g) KILN_RUN(Work::pointwise, accumulate(stream, DType::f32, g.count(), 1.f, g.data(), grad.f32()));
    });
  return v;
}

Var reshape(const Var& x, const Shape& shape) {
  const bool record = recording({&x});
  Var y(x.value.reshape(shape), record);
  if (record)
    context().tape->push([xs = x.shape(), xn = x.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (dy) xn->add(dy.reshape(xs));
    });
  return y;
}

Var linear(const Var& x, const Var& weight) {
  const int64_t n = x.shape()[0], k = x.shape()[1], m = weight.shape()[0];
  KILN_ASSERT(x.shape().rank() == 2 && weight.value.count() == m * k && x.value.dtype() == DType::f32);
  const bool record = recording({&x, &weight});
  const DType t = weight.value.dtype();
  const Tensor xv = stored(x.value, t);
  Var y(Tensor(Shape{n, m}), record);
  note_layer(weight.value, y.shape());
  matrix_product(false, true, n, m, k, xv, weight.value, y.value);
  if (record)
    context().tape->push([=, ws = weight.shape(), xv = weight.node ? xv : Tensor(), wv = x.node ? weight.value : Tensor(), xn = x.node,
                          wn = weight.node, yn = y.node] {
      const Tensor dy32 = yn->take();
      if (!dy32) return;
      const Tensor dy = stored(dy32, t);
      if (wn) {
        const Tensor dw = wn->target(ws, DType::f32);
        matrix_product(true, false, m, k, n, dy, xv, dw);
        wn->add(dw);
      }
      if (xn) {
        const Tensor dx = xn->target(Shape{n, k}, DType::f32);
        matrix_product(false, false, n, k, m, dy, wv, dx);
        xn->add(dx);
      }
    });
  return y;
}

Var add_bias(const Var& x, Param& bias) {
  const int c = int(x.value.channels());
  const int64_t rows = x.value.rows();
  KILN_ASSERT(bias.shape.count() == c);
  const bool frozen = context().weights_frozen, record = context().tape && (x.node || !frozen);
  const DType t = x.value.dtype();
  Var y(Tensor(x.shape(), t), record);
  KILN_RUN(Work::pointwise, bias_forward(stream, t, rows, c, x.value.data(), bias.value.f32(), Activation::none, y.value.data()));
  if (record)
    context().tape->push([=, xn = x.node, yn = y.node, db = frozen ? Tensor() : bias.grad] {
      const Tensor dy = yn->take();
      if (!dy) return;
      if (db) {
        const Tensor scratch(Shape{bias_scratch_floats(c)});
        KILN_RUN(Work::reduction, bias_backward(stream, t, rows, c, nullptr, dy.data(), Activation::none, nullptr, db.f32(), scratch.f32()));
      }
      if (xn) xn->add(dy);
    });
  return y;
}

Var to_picture(const Var& x, int64_t h, int64_t w, int64_t c) {
  const int64_t n = x.shape()[0];
  KILN_ASSERT(x.value.count() == n * h * w * c && x.value.dtype() == DType::f32);
  const bool record = recording({&x});
  const DType t = context().storage;
  const Tensor last(Shape{n, h, w, c});
  KILN_RUN(Work::pointwise, transpose(stream, DType::f32, n, int(c), int(h * w), x.value.data(), last.data()));
  Var y(stored(last, t), record);
  if (record)
    context().tape->push([=, xs = x.shape(), xn = x.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      const Tensor dx(xs), d32 = stored(dy, DType::f32);
      KILN_RUN(Work::pointwise, transpose(stream, DType::f32, n, int(h * w), int(c), d32.data(), dx.data()));
      xn->add(dx);
    });
  return y;
}

Var embedding(const Var& table, const Tensor& labels) {
  const int64_t n = labels.count(), classes = table.shape()[0], c = table.value.count() / classes;
  KILN_ASSERT(labels.dtype() == DType::i32 && table.value.dtype() == DType::f32);
  const bool record = recording({&table});
  Var y(Tensor(Shape{n, c}), record);
  note_layer(table.value, y.shape());
  KILN_RUN(Work::data, embedding_forward(stream, n, int(c), table.value.f32(), labels.as<int32_t>(), y.value.f32()));
  if (record)
    context().tape->push([=, ts = table.shape(), tn = table.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      const Tensor dt = zeros(ts);
      KILN_RUN(Work::reduction, embedding_backward(stream, n, int(classes), int(c), dy.f32(), labels.as<int32_t>(), dt.f32()));
      tn->add(dt);
    });
  return y;
}

namespace {

Tensor columns_of(const Tensor& x, int64_t first, int64_t count) {
  const Tensor y(x.shape().with(-1, count), x.dtype());
  KILN_RUN(Work::pointwise, take_columns(stream, x.dtype(), x.rows(), int(x.channels()), int(first), int(count), x.data(), y.data()));
  return y;
}

}  // namespace

Var concat_channels(const Var& x, const Var& z) {
  const int64_t a = x.value.channels(), b = z.value.channels();
  const DType t = x.value.dtype();
  KILN_ASSERT(z.shape() == x.shape().with(-1, b) && z.value.dtype() == t);
  const bool record = recording({&x, &z});
  Var y(Tensor(x.shape().with(-1, a + b), t), record);
  KILN_RUN(Work::pointwise, concat_columns(stream, t, x.value.rows(), int(a), int(b), x.value.data(), z.value.data(), y.value.data()));
  if (record)
    context().tape->push([=, xn = x.node, zn = z.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      if (xn) xn->add(columns_of(dy, 0, a));
      if (zn) zn->add(columns_of(dy, a, b));
    });
  return y;
}

Var take_channels(const Var& x, int64_t first, int64_t count) {
  const Shape xs = x.shape();
  const int64_t c = xs[-1];
  KILN_ASSERT(first >= 0 && count > 0 && first + count <= c);
  const bool record = recording({&x});
  Var y(columns_of(x.value, first, count), record);
  if (record)
    context().tape->push([=, xn = x.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      const DType t = dy.dtype();
      Tensor left = dy;  // zeros behind, then zeros before
      if (first + count < c) {
        left = Tensor(xs.with(-1, c - first), t);
        KILN_RUN(Work::pointwise, concat_columns(stream, t, dy.rows(), int(count), int(c - first - count), dy.data(), nullptr, left.data()));
      }
      if (first == 0) return xn->add(left);
      const Tensor dx(xs, t), before = zeros(xs.with(-1, first), t);
      KILN_RUN(Work::pointwise, concat_columns(stream, t, dy.rows(), int(first), int(c - first), before.data(), left.data(), dx.data()));
      xn->add(dx);
    });
  return y;
}

Var take_rows(const Var& x, int64_t first, int64_t count) {
  const int64_t per = x.value.count() / x.shape()[0];
  const Shape shape = x.shape().with(0, count);
  const bool record = recording({&x});
  Var y(x.value.slice(first * per, shape), record);
  if (record)
    context().tape->push([=, t = x.value.dtype(), xs = x.shape(), xn = x.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      const Tensor dx = zeros(xs, t), part = dx.slice(first * per, shape);
      KILN_RUN(Work::pointwise, scale(stream, t, dy.count(), 1.f, dy.data(), part.data()));
      xn->add(dx);
    });
  return y;
}

Tensor concat_rows(const Tensor& a, const Tensor& b) {
  return concat_flat(Var(a), Var(b)).value.reshape(a.shape().with(0, a.shape()[0] + b.shape()[0]));
}

Tensor concat_labels(const Tensor& a, const Tensor& b) {
  KILN_ASSERT(a.dtype() == DType::i32 && b.dtype() == DType::i32);
  const Tensor y(Shape{a.count() + b.count()}, DType::i32);
  KILN_RUN(Work::data, concat_labels(stream, a.count(), b.count(), a.as<int32_t>(), b.as<int32_t>(), y.as<int32_t>()));
  return y;
}

Tensor draw_labels(const Tensor& uniforms, int64_t classes) {
  const Tensor labels(Shape{uniforms.count()}, DType::i32);
  KILN_RUN(Work::data, labels_from_uniform(stream, labels.count(), int(classes), uniforms.f32(), labels.as<int32_t>()));
  return labels;
}

}  // namespace kiln
