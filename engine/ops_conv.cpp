#include "engine/convolution.h"
#include "engine/error.h"
#include "engine/layer_table.h"
#include "engine/matrix.h"
#include "engine/ops.h"
#include "engine/upsample_conv.h"
#include "engine/winograd.h"
#include "kernels/fold.h"
#include "kernels/narrow.h"
#include "kernels/pointwise.h"

namespace kiln {
namespace {

/// True where the CPU has its own ways, beside its library's.
bool own_products(const Var& x) {
  return context().device == Device::cpu && context().cpu_products && x.value.dtype() == DType::f32;
}

/// The convolution whose adjoint maps x [n, h, w, c] to y [n, oh, ow, oc] with weight [oc, kh, kw, c].
ConvShape adjoint_shape(const Shape& x, const Shape& w, int stride, int pad) {
  const int64_t oh = (x[1] - 1) * stride - 2 * pad + w[1], ow = (x[2] - 1) * stride - 2 * pad + w[2];
  return {x[0], oh, ow, w[0], x[1], x[2], x[3], int(w[1]), int(w[2]), stride, pad, true};
}

Var transposed(const Var& x, const Var& weight, int stride, int pad) {
  KILN_ASSERT(x.shape().rank() == 4 && weight.shape()[3] == x.shape()[3]);
  const ConvShape s = adjoint_shape(x.shape(), weight.shape(), stride, pad);
  const bool record = recording({&x, &weight});
  Var y(Tensor(Shape{s.n, s.h, s.w, s.c}, x.value.dtype()), record);
  note_layer(weight.value, y.shape());
  conv_backward_data(s, x.value, weight.value, y.value);
  if (record)
    context().tape->push([s, xv = weight.node ? x.value : Tensor(), wv = x.node ? weight.value : Tensor(), xs = x.shape(),
                          ws = weight.shape(), xn = x.node, wn = weight.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      if (wn) {
        const Tensor dw = wn->target(ws, DType::f32);
        conv_backward_weights(s, dy, xv, dw);
        wn->add(dw);
      }
      if (xn) {
        const Tensor dx = xn->target(xs, dy.dtype());
        conv_forward(s, dy, wv, dx);
        xn->add(dx);
      }
    });
  return y;
}

/// upsample_conv3x3 in nine products: the CPU's way.
Var upsample_in_products(const Var& x, const Var& weight) {
  const Shape &xs = x.shape(), ws = weight.shape();
  const UpsampleShape s{xs[0], xs[1], xs[2], xs[3], ws[0]};
  const bool record = recording({&x, &weight});
  const Tensor u(Shape{9, s.oc, s.c});
  KILN_RUN(Work::convolution, upsample_products(stream, int(s.oc), int(s.c), weight.value.f32(), u.f32()));
  Var y(Tensor(Shape{s.n, 2 * s.h, 2 * s.w, s.oc}), record);
  note_layer(weight.value, y.shape());
  upsample_conv_forward(s, x.value, u, y.value);
  if (record)
    context().tape->push([s, xs, ws, xv = weight.node ? x.value : Tensor(), u = x.node ? u : Tensor(), xn = x.node, wn = weight.node,
                          yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      const Tensor dx = xn ? xn->target(xs, DType::f32) : Tensor(), du = wn ? Tensor(Shape{9, s.oc, s.c}) : Tensor();
      upsample_conv_backward(s, dy, u, xv, dx, du);
      if (wn) {
        const Tensor dw = wn->target(ws, DType::f32);
        KILN_RUN(Work::convolution, upsample_products_backward(stream, int(s.oc), int(s.c), du.f32(), dw.f32()));
        wn->add(dw);
      }
      if (xn) xn->add(dx);
    });
  return y;
}

/// conv2d of a 3x3 kernel, stride 1, padding 1, in Winograd's products.
Var conv_by_winograd(const WinogradShape& s, const Var& x, const Var& weight) {
  const bool record = recording({&x, &weight});
  const Tensor u(Shape{16, s.oc, s.c});
  KILN_RUN(Work::convolution, winograd_weights(stream, int(s.oc), int(s.c), weight.value.f32(), u.f32()));
  Var y(Tensor(x.shape().with(-1, s.oc)), record);
  note_layer(weight.value, y.shape());
  winograd_forward(s, x.value, u, y.value);
  if (record)
    context().tape->push([s, xs = x.shape(), ws = weight.shape(), xv = weight.node ? x.value : Tensor(), u = x.node ? u : Tensor(),
                          xn = x.node, wn = weight.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      if (wn) {
        const Tensor du(Shape{16, s.oc, s.c}), dw = wn->target(ws, DType::f32);
        winograd_backward_weights(s, xv, dy, du);
        KILN_RUN(Work::convolution, winograd_weights_backward(stream, int(s.oc), int(s.c), du.f32(), dw.f32()));
        wn->add(dw);
      }
      if (xn) {
        const Tensor dx = xn->target(xs, DType::f32);
        winograd_backward_data(s, dy, u, dx);
        xn->add(dx);
      }
    });
  return y;
}

/// A 3x3 convolution to few channels (kernels/narrow.h): forward and the weight's gradient, where oneDNN is weak.
Var conv_to_few(const ConvShape& s, const Var& x, const Var& weight) {
  const NarrowShape narrow{s.n, int(s.h), int(s.w), int(s.oc), int(s.c)};
  const bool record = recording({&x, &weight});
  Var y(Tensor(Shape{s.n, s.oh, s.ow, s.oc}), record);
  note_layer(weight.value, y.shape());
  KILN_RUN(Work::convolution, narrow_forward(stream, DType::f32, narrow, x.value.data(), weight.value.data(), y.value.data()));
  if (record)
    context().tape->push([=, xs = x.shape(), ws = weight.shape(), xv = weight.node ? x.value : Tensor(), wv = x.node ? weight.value : Tensor(),
                          xn = x.node, wn = weight.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      if (wn) {
        const Tensor dw = wn->target(ws, DType::f32), scratch(Shape{narrow_scratch_floats(narrow)});
        KILN_RUN(Work::convolution, narrow_weights(stream, DType::f32, narrow, xv.data(), dy.data(), dw.f32(), scratch.f32()));
        wn->add(dw);
      }
      if (xn) {
        const Tensor dx = xn->target(xs, DType::f32);
        conv_backward_data(s, dy, wv, dx);
        xn->add(dx);
      }
    });
  return y;
}

/// The input's gradient of a 3x3 convolution from few channels: a convolution to them.
void data_of_few(const ConvShape& s, const Tensor& dy, const Tensor& weight, const Tensor& dx) {
  if (context().conv_calls) context().conv_calls->push_back({ConvDirection::data, s, DType::f32});
  const Tensor turned(Shape{s.c, 3, 3, s.oc});
  KILN_RUN(Work::convolution, narrow_turn(stream, DType::f32, int(s.c), int(s.oc), weight.data(), turned.data()));
  KILN_RUN(Work::convolution, narrow_forward(stream, DType::f32, NarrowShape{s.n, int(s.h), int(s.w), int(s.c), int(s.oc)}, dy.data(),
                                             turned.data(), dx.data()));
}

/// Where kernels/narrow.h beats oneDNN: by 2 to 4 times for 16 to 64 wide channels (docs/kernels.md). Towards many channels, and from
/// or to 12, oneDNN is as fast or faster.
bool narrow_wins(int64_t few, int64_t wide) { return few <= kMostFew && wide >= 16 && wide % 16 == 0; }

}  // namespace

Var conv2d(const Var& x, const Var& weight, int stride, int pad) {
  const Shape xs = x.shape(), as_given = weight.shape();
  KILN_ASSERT(as_given.rank() == 4 || (as_given.rank() == 5 && as_given[1] == 1));
  const Shape ws = as_given.rank() == 5 ? Shape{as_given[0], as_given[2], as_given[3], as_given[4]} : as_given;
  KILN_ASSERT(xs.rank() == 4 && ws[3] == xs[3]);
  const ConvShape s{xs[0], xs[1], xs[2], xs[3], (xs[1] + 2 * pad - ws[1]) / stride + 1, (xs[2] + 2 * pad - ws[2]) / stride + 1,
                    ws[0], int(ws[1]), int(ws[2]), stride, pad, false};
  bool from_few = false;
  if (ws[1] == 3 && ws[2] == 3 && stride == 1 && pad == 1 && own_products(x)) {
    const WinogradShape winograd{s.n, s.h, s.w, s.c, s.oc};
    if (winograd.wins()) return conv_by_winograd(winograd, x, weight);
    if (narrow_wins(s.oc, s.c)) return conv_to_few(s, x, weight);
    from_few = narrow_wins(s.c, s.oc);
  }
  const bool record = recording({&x, &weight});
  Var y(Tensor(Shape{s.n, s.oh, s.ow, s.oc}, x.value.dtype()), record);
  note_layer(weight.value, y.shape());
  conv_forward(s, x.value, weight.value, y.value);
  // Kept: the input for the weight's gradient, the weight for the input's; neither where nobody asks.
  if (record)
    context().tape->push([s, from_few, xv = weight.node ? x.value : Tensor(), wv = x.node ? weight.value : Tensor(), xs, as_given, xn = x.node,
                          wn = weight.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      if (wn) {
        const Tensor dw = wn->target(as_given, DType::f32);
        conv_backward_weights(s, xv, dy, dw);
        wn->add(dw);
      }
      if (xn) {
        const Tensor dx = xn->target(xs, dy.dtype());
        if (from_few)
          data_of_few(s, dy, wv, dx);
        else
          conv_backward_data(s, dy, wv, dx);
        xn->add(dx);
      }
    });
  return y;
}

Var conv_transpose2d(const Var& x, const Var& weight, int stride, int pad) { return transposed(x, weight, stride, pad); }

Var upsample_conv3x3(const Var& x, const Var& weight) {
  const Shape ws = weight.shape();
  KILN_ASSERT(ws[1] == 3 && ws[2] == 3 && ws[3] == x.shape()[3]);
  if (own_products(x)) return upsample_in_products(x, weight);
  const bool record = recording({&weight});
  const DType t = weight.value.dtype();
  Var folded(Tensor(Shape{ws[0], 4, 4, ws[3]}, t), record);
  note_derived(folded.value, weight.value);
  KILN_RUN(Work::pointwise, upsample_fold(stream, t, int(ws[0]), int(ws[3]), weight.value.data(), folded.value.data()));
  if (record)
    context().tape->push([ws, wn = weight.node, fn = folded.node] {
      const Tensor dk = fn->take();
      if (!dk) return;
      const Tensor dw = wn->target(ws, DType::f32);
      KILN_RUN(Work::pointwise, upsample_fold_backward(stream, int(ws[0]), int(ws[3]), dk.f32(), dw.f32()));
      wn->add(dw);
    });
  return transposed(x, folded, 2, 1);
}

Var project(const Var& z, const Var& weight) {
  const Shape ws = weight.shape();  // [oc, k, k, c]
  const int64_t n = z.shape()[0], c = z.shape()[1], oc = ws[0], kk = ws[1] * ws[2];
  KILN_ASSERT(z.shape().rank() == 2 && ws[3] == c);
  const bool record = recording({&z, &weight});
  // y[n, (o, p)] = z W', then the channels go last.
  const DType t = weight.value.dtype();
  const auto in_storage = [t](const Tensor& f32) {
    if (f32.dtype() == t) return f32;
    const Tensor x(f32.shape(), t);
    KILN_RUN(Work::pointwise, cast(stream, f32.dtype(), t, f32.count(), f32.data(), x.data()));
    return x;
  };
  const Tensor zv = in_storage(z.value), flat(Shape{n, oc * kk}, t);
  matrix_product(false, true, n, oc * kk, c, zv, weight.value, flat);
  Var y(Tensor(Shape{n, ws[1], ws[2], oc}, t), record);
  note_layer(weight.value, y.shape());
  KILN_RUN(Work::pointwise, transpose(stream, t, n, int(oc), int(kk), flat.data(), y.value.data()));
  if (record)
    context().tape->push([=, wv = weight.value, zn = z.node, wn = weight.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      const Tensor dflat(Shape{n, oc * kk}, t);
      KILN_RUN(Work::pointwise, transpose(stream, t, n, int(kk), int(oc), dy.data(), dflat.data()));
      if (wn) {
        const Tensor dw = wn->target(ws, DType::f32);
        matrix_product(true, false, oc * kk, c, n, dflat, zv, dw);
        wn->add(dw);
      }
      if (zn) {
        const Tensor dz = zn->target(zv.shape(), DType::f32);
        matrix_product(false, false, n, c, oc * kk, dflat, wv, dz);
        zn->add(dz);
      }
    });
  return y;
}

}  // namespace kiln
