// The convolutional GRU. Convolutions of x do not wait for each other and are one call; those of h do, frame by frame. What is kept
// for backward lies frame after frame, so that the gradient of each recurrent weight is one call over all frames too.
#include "engine/convolution.h"
#include "engine/error.h"
#include "engine/layer_table.h"
#include "engine/ops_clip.h"
#include "engine/winograd.h"
#include "kernels/bias.h"
#include "kernels/fold.h"
#include "kernels/gru.h"
#include "kernels/pointwise.h"

namespace kiln {
namespace {

/// A convolution that keeps the size of its picture, with one weight that serves many calls: conv2d's ways, without a tape.
struct RecurrentConv {
  ConvShape s;
  WinogradShape winograd;
  Tensor w, u;  // u: the weight as Winograd's products take it; empty where they are not used

  RecurrentConv(const Shape& picture, const Tensor& weight) : w(weight) {
    const Shape ws = weight.shape();
    KILN_ASSERT(ws.rank() == 4 && ws[1] == ws[2] && ws[1] % 2 == 1 && ws[3] == picture[3]);
    s = {picture[0], picture[1], picture[2], picture[3], picture[1], picture[2], ws[0], int(ws[1]), int(ws[2]), 1, int(ws[1]) / 2, false};
    winograd = {s.n, s.h, s.w, s.c, s.oc};
    const bool own = context().device == Device::cpu && context().cpu_products && weight.dtype() == DType::f32;
    if (!own || s.kh != 3 || !winograd.wins()) return;
    u = Tensor(Shape{16, s.oc, s.c});
    KILN_RUN(Work::convolution, winograd_weights(stream, int(s.oc), int(s.c), w.f32(), u.f32()));
  }
  void forward(const Tensor& x, const Tensor& y) const { u ? winograd_forward(winograd, x, u, y) : conv_forward(s, x, w, y); }
  void backward_data(const Tensor& dy, const Tensor& dx) const {
    u ? winograd_backward_data(winograd, dy, u, dx) : conv_backward_data(s, dy, w, dx);
  }
  /// dw from pictures of `frames` frames, added up.
  void backward_weights(int64_t frames, const Tensor& x, const Tensor& dy, const Tensor& dw) const {
    if (u) {
      WinogradShape all = winograd;
      all.n *= frames;
      const Tensor du(Shape{16, s.oc, s.c});
      winograd_backward_weights(all, x, dy, du);
      KILN_RUN(Work::convolution, winograd_weights_backward(stream, int(s.oc), int(s.c), du.f32(), dw.f32()));
    } else {
      ConvShape all = s;
      all.n *= frames;
      conv_backward_weights(all, x, dy, dw);
    }
  }
};

/// Pictures of one shape, one behind the other; `count` of them are there, frame i is number i modulo that.
struct Frames {
  Tensor all;
  Shape shape;
  int64_t count = 0;

  Frames() = default;
  Frames(int64_t n, const Shape& picture, DType t) : all(Shape{n, picture.count()}, t), shape(picture), count(n) {}
  Tensor operator[](int64_t i) const { return all.slice(i % count * shape.count(), shape); }
  /// Frames first, first + 1, ..., as pictures of one batch.
  Tensor from(int64_t first) const { return all.slice(first * shape.count(), shape.with(0, (count - first) * shape[0])); }
};

void* data_of(const Tensor& t) { return t ? t.data() : nullptr; }

}  // namespace

ConvGru::ConvGru(int64_t in, int64_t channels, int kernel, Activation activation)
    : input(3 * channels, kernel, kernel, in), gates(2 * channels, kernel, kernel, channels), candidate(channels, kernel, kernel, channels),
      act(activation) {
  bias.shape = Shape{3 * channels};
}

Var conv_gru(const Var& x, int64_t t, ConvGru& gru) {
  const Shape xs = x.shape();
  KILN_ASSERT(xs.rank() == 4 || (xs.rank() == 5 && xs[1] == t));
  const Var& w = gru.input.normalised;
  const Var gates_x = conv2d(xs.rank() == 5 ? frames_of(x) : x, w, 1, int(w.shape()[1]) / 2);
  return gru_recurrence(gates_x, xs[0], t, gru.gates.normalised, gru.candidate.normalised, gru.bias, gru.act, gru.truncate);
}

Var gru_recurrence(const Var& gates_x, int64_t n, int64_t t, const Var& gates, const Var& candidate, Param& bias, Activation act,
                   int64_t truncate) {
  const Shape gs = gates_x.shape();
  KILN_ASSERT(gs.rank() == 4 && gs[3] % 3 == 0 && (gs[0] == n || gs[0] == n * t));
  KILN_ASSERT(act == Activation::relu || act == Activation::tanh);
  const int64_t h = gs[1], w = gs[2], c = gs[3] / 3;
  KILN_ASSERT(gates.shape()[0] == 2 * c && candidate.shape()[0] == c && bias.shape.count() == 3 * c);
  const GruShape s{n, h * w, int(t), int(c), gs[0] == n};
  const Shape state{n, h, w, c}, pair{n, h, w, 2 * c};
  const DType type = gates_x.value.dtype();
  const bool frozen = context().weights_frozen;
  const bool record = context().tape && (gates_x.node || gates.node || candidate.node || !frozen);
  const RecurrentConv to_gates(state, gates.value), to_candidate(state, candidate.value);

  // Kept where somebody goes back over them: the states, both gates and the candidates. Else two states and one of the others.
  const int64_t kept = record ? t : 1;
  const Frames states(record ? t : 2, state, type), ru(kept, pair, type), k(kept, state, type);
  const Tensor rh(state, type);
  Var y(Tensor(Shape{n, t, h, w, c}, type), record);
  for (int64_t f = 0; f < t; f++) {
    const Tensor before = f > 0 ? states[f - 1] : Tensor(), gate = ru[f], proposal = k[f], next = states[f];
    if (f > 0) to_gates.forward(before, gate);
    KILN_RUN(Work::pointwise, gru_gates(stream, type, s, int(f), gates_x.value.data(), f > 0 ? gate.data() : nullptr, data_of(before),
                                        bias.value.f32(), gate.data(), f > 0 ? rh.data() : nullptr));
    if (f > 0) to_candidate.forward(rh, proposal);
    KILN_RUN(Work::pointwise, gru_blend(stream, type, s, int(f), act, gates_x.value.data(), f > 0 ? proposal.data() : nullptr, gate.data(),
                                        data_of(before), bias.value.f32(), proposal.data(), next.data(), y.value.data()));
  }
  note_layer(gates.value, y.shape());
  note_layer(candidate.value, y.shape());
  if (!record) return y;

  context().tape->push([=, xn = gates_x.node, gn = gates.node, cn = candidate.node, yn = y.node, gws = gates.shape(), cws = candidate.shape(),
                        db = frozen ? Tensor() : bias.grad] {
    const Tensor dy = yn->take();
    if (!dy) return;
    const Frames dg(t, pair, type), dk(t, state, type), again(t > 1 ? t - 1 : 1, state, type);
    Tensor carry1, carry2;  // what the frame behind leaves to this one's state
    for (int64_t f = t - 1; f >= 0; f--) {
      const Tensor before = f > 0 ? states[f - 1] : Tensor();
      const bool cut = f == 0 || (truncate > 0 && f % truncate == 0);
      const Tensor dh = cut ? Tensor() : Tensor(state, type);
      KILN_RUN(Work::pointwise, gru_blend_backward(stream, type, s, int(f), act, dy.data(), data_of(carry1), data_of(carry2), ru[f].data(),
                                                   data_of(before), k[f].data(), dg[f].data(), dk[f].data(), data_of(dh)));
      if (f == 0) break;
      const Tensor drh(state, type);
      to_candidate.backward_data(dk[f], drh);
      KILN_RUN(Work::pointwise, gru_gates_backward(stream, type, s, drh.data(), ru[f].data(), before.data(), dg[f].data(), data_of(dh),
                                                   again[f - 1].data()));
      carry1 = dh;
      carry2 = cut ? Tensor() : Tensor(state, type);
      if (!cut) to_gates.backward_data(dg[f], carry2);
    }
    const auto add_weights = [&](Node& node, const Shape& shape, const RecurrentConv& conv, const Tensor& x, const Frames& d) {
      const Tensor dw = node.target(shape, DType::f32);
      if (t > 1)
        conv.backward_weights(t - 1, x, d.from(1), dw);
      else
        KILN_RUN(Work::pointwise, fill(stream, DType::f32, dw.count(), 0.f, dw.data()));
      node.add(dw);
    };
    if (gn) add_weights(*gn, gws, to_gates, t > 1 ? states.all.slice(0, state.with(0, (t - 1) * n)) : Tensor(), dg);
    if (cn) add_weights(*cn, cws, to_candidate, again.all.reshape(state.with(0, again.count * n)), dk);
    if (!xn && !db) return;
    const Tensor dx = xn ? xn->target(gs, type) : Tensor(gs, type);
    KILN_RUN(Work::pointwise, gru_collect(stream, type, s, dg.all.data(), dk.all.data(), dx.data()));
    if (db) {
      const Tensor scratch(Shape{bias_scratch_floats(int(3 * c))});
      KILN_RUN(Work::reduction, bias_backward(stream, type, dx.rows(), int(3 * c), nullptr, dx.data(), Activation::none, nullptr, db.f32(), scratch.f32()));
    }
    if (xn) xn->add(dx);
  });
  return y;
}

}  // namespace kiln
