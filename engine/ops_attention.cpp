#include "engine/error.h"
#include "engine/layer_table.h"
#include "engine/matrix.h"
#include "engine/ops_conditional.h"
#include "kernels/attention.h"
#include "kernels/pointwise.h"
#include "kernels/pool.h"
#include "kernels/projection.h"

namespace kiln {

Var max_pool2x2(const Var& x) {
  const Shape xs = x.shape();
  KILN_ASSERT(xs.rank() == 4 && xs[1] % 2 == 0 && xs[2] % 2 == 0);
  const bool record = recording({&x});
  const DType t = x.value.dtype();
  Var y(Tensor(Shape{xs[0], xs[1] / 2, xs[2] / 2, xs[3]}, t), record);
  KILN_RUN(Work::pointwise, max_pool_forward(stream, t, xs[0], int(xs[1]), int(xs[2]), int(xs[3]), x.value.data(), y.value.data()));
  if (record)
    context().tape->push([=, xv = x.value, xn = x.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      const Tensor dx(xs, t);
      KILN_RUN(Work::pointwise, max_pool_backward(stream, t, xs[0], int(xs[1]), int(xs[2]), int(xs[3]), xv.data(), dy.data(), dx.data()));
      xn->add(dx);
    });
  return y;
}

namespace {

constexpr int64_t kTileScores = 1 << 18;  // numbers in a tile of scores: 1 MB stays in a core's cache

struct AttentionShape {
  int64_t n, queries, keys, d, e, tile;
};

/// probabilities [rows, keys] of the queries [first, first + rows) of picture k, of the operands' type.
Tensor tile_probabilities(const AttentionShape& s, const Tensor& query, const Tensor& key, int64_t k, int64_t first, int64_t rows) {
  const Tensor q = query.slice((k * s.queries + first) * s.d, Shape{rows, s.d}), ky = key.slice(k * s.keys * s.d, Shape{s.keys, s.d});
  const Tensor scores(Shape{rows, s.keys});
  matrix_product(false, true, rows, s.keys, s.d, q, ky, scores);
  const DType t = query.dtype();
  const Tensor p = t == DType::f32 ? scores : Tensor(scores.shape(), t);
  KILN_RUN(Work::pointwise, softmax_forward(stream, t, rows, int(s.keys), scores.f32(), p.data()));
  return p;
}

/// sum += part, sum being f32; the first part starts it.
void add_part(bool first, const Tensor& part, const Tensor& sum) {
  if (first)
    KILN_RUN(Work::pointwise, scale(stream, DType::f32, part.count(), 1.f, part.data(), sum.data()));
  else
    KILN_RUN(Work::pointwise, accumulate(stream, DType::f32, part.count(), 1.f, part.data(), sum.f32()));
}

Tensor as_type(const Tensor& x, DType t) {
  if (x.dtype() == t) return x;
  const Tensor y(x.shape(), t);
  KILN_RUN(Work::pointwise, cast(stream, x.dtype(), t, x.count(), x.data(), y.data()));
  return y;
}

}  // namespace

Var attention(const Var& query, const Var& key, const Var& value, int64_t tile) {
  const Shape qs = query.shape(), ks = key.shape(), vs = value.shape();
  KILN_ASSERT(qs.rank() == 4 && qs[0] == ks[0] && qs[3] == ks[3] && vs == ks.with(3, vs[3]));
  AttentionShape s{qs[0], qs[1] * qs[2], ks[1] * ks[2], qs[3], vs[3], tile};
  if (s.tile <= 0) s.tile = std::max<int64_t>(16, kTileScores / s.keys);
  s.tile = std::min(s.tile, s.queries);
  const bool record = recording({&query, &key, &value});
  const DType t = query.value.dtype();
  Var y(Tensor(qs.with(3, s.e), t), record);
  for (int64_t k = 0; k < s.n; k++) {
    const Tensor v = value.value.slice(k * s.keys * s.e, Shape{s.keys, s.e});
    for (int64_t first = 0; first < s.queries; first += s.tile) {
      const int64_t rows = std::min(s.tile, s.queries - first);
      const Tensor p = tile_probabilities(s, query.value, key.value, k, first, rows);
      matrix_product(false, false, rows, s.e, s.keys, p, v, y.value.slice((k * s.queries + first) * s.e, Shape{rows, s.e}));
    }
  }
  if (record)
    context().tape->push([=, q = query.value, ky = key.value, v = value.value, qn = query.node, kn = key.node, vn = value.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      const Tensor dq(qs, t), dk(ks), dv(vs);
      for (int64_t k = 0; k < s.n; k++) {
        const Tensor keys = ky.slice(k * s.keys * s.d, Shape{s.keys, s.d}), values = v.slice(k * s.keys * s.e, Shape{s.keys, s.e});
        const Tensor dk_sum = dk.slice(k * s.keys * s.d, Shape{s.keys, s.d}), dv_sum = dv.slice(k * s.keys * s.e, Shape{s.keys, s.e});
        for (int64_t first = 0; first < s.queries; first += s.tile) {
          const int64_t rows = std::min(s.tile, s.queries - first);
          const Tensor p = tile_probabilities(s, q, ky, k, first, rows);
          const Tensor queries = q.slice((k * s.queries + first) * s.d, Shape{rows, s.d});
          const Tensor dout = dy.slice((k * s.queries + first) * s.e, Shape{rows, s.e});
          if (vn) {
            const Tensor part(Shape{s.keys, s.e});
            matrix_product(true, false, s.keys, s.e, rows, p, dout, part);
            add_part(first == 0, part, dv_sum);
          }
          if (!qn && !kn) continue;
          const Tensor dp(Shape{rows, s.keys});
          matrix_product(false, true, rows, s.keys, s.e, dout, values, dp);
          const Tensor ds = t == DType::f32 ? dp : Tensor(dp.shape(), t);
          KILN_RUN(Work::pointwise, softmax_backward(stream, t, rows, int(s.keys), p.data(), dp.f32(), ds.data()));
          if (qn) matrix_product(false, false, rows, s.d, s.keys, ds, keys, dq.slice((k * s.queries + first) * s.d, Shape{rows, s.d}));
          if (kn) {
            const Tensor part(Shape{s.keys, s.d});
            matrix_product(true, false, s.keys, s.d, rows, ds, queries, part);
            add_part(first == 0, part, dk_sum);
          }
        }
      }
      if (qn) qn->add(dq);
      if (kn) kn->add(as_type(dk, t));
      if (vn) vn->add(as_type(dv, t));
    });
  return y;
}

Var gamma_sum(const Var& x, const Var& o, Param& gamma) {
  KILN_ASSERT(x.shape() == o.shape() && gamma.shape.count() == 1);
  const int64_t n = x.value.count();
  const bool frozen = context().weights_frozen, record = context().tape && (x.node || o.node || !frozen);
  const DType t = x.value.dtype();
  Var y(Tensor(x.shape(), t), record);
  note_layer(gamma.value, y.shape());
  KILN_RUN(Work::pointwise, gamma_forward(stream, t, n, x.value.data(), o.value.data(), gamma.value.f32(), y.value.data()));
  if (record)
    context().tape->push([=, ov = frozen ? Tensor() : o.value, value = gamma.value, xn = x.node, on = o.node, yn = y.node,
                          dg = frozen ? Tensor() : gamma.grad] {
      const Tensor dy = yn->take();
      if (!dy) return;
      const Tensor dout = on ? Tensor(dy.shape(), t) : Tensor(), scratch(Shape{gamma_scratch_floats()});
      KILN_RUN(Work::reduction, gamma_backward(stream, t, n, ov.data(), dy.data(), value.f32(), dout ? dout.data() : nullptr,
                                               dg ? dg.f32() : nullptr, scratch.f32()));
      if (on) on->add(dout);
      if (xn) xn->add(dy);
    });
  return y;
}

Var relu_sum_pool(const Var& x) {
  const Shape xs = x.shape();
  const int64_t n = xs[0], pixels = x.value.rows() / n;
  const int c = int(xs[-1]);
  const bool record = recording({&x});
  const DType t = x.value.dtype();
  Var y(Tensor(Shape{n, c}, t), record);
  {
    const Tensor scratch(Shape{sum_pool_scratch_floats(n, c)});
    KILN_RUN(Work::reduction, relu_sum_pool_forward(stream, t, n, pixels, c, x.value.data(), y.value.data(), scratch.f32()));
  }
  if (record)
    context().tape->push([=, xv = x.value, xn = x.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      const Tensor dx(xs, t);
      KILN_RUN(Work::pointwise, relu_sum_pool_backward(stream, t, n, pixels, c, xv.data(), dy.data(), dx.data()));
      xn->add(dx);
    });
  return y;
}

Var projection_logits(const Var& h, const Var& weight, Param& bias, const Var& embed, const Tensor& labels) {
  const int64_t n = h.shape()[0];
  const int c = int(h.shape()[1]);
  const int64_t classes = embed ? embed.shape()[0] : 0;
  KILN_ASSERT(weight.value.count() == c && (!embed || (embed.value.count() == classes * c && labels.count() == n && labels.dtype() == DType::i32)));
  const bool frozen = context().weights_frozen, record = context().tape && (h.node || !frozen);
  const DType t = h.value.dtype();
  const void* ev = embed ? embed.value.data() : nullptr;
  const int32_t* lv = embed ? labels.as<int32_t>() : nullptr;
  Var y(Tensor(Shape{n}), record);
  note_layer(weight.value, y.shape());
  if (embed) note_layer(embed.value, y.shape());
  {
    const Tensor scratch(Shape{projection_scratch_floats(n)});
    KILN_RUN(Work::reduction, projection_forward(stream, t, n, c, h.value.data(), weight.value.data(), bias.value.f32(), ev, lv, y.value.f32(),
                                                 scratch.f32()));
  }
  if (record)
    context().tape->push([=, hv = h.value, wv = weight.value, e = embed.value, hn = h.node, wn = weight.node, en = embed.node, yn = y.node,
                          keep = labels, ws = weight.shape(), es = embed ? embed.shape() : Shape{}, db = frozen ? Tensor() : bias.grad] {
      const Tensor dy = yn->take();
      if (!dy) return;
      const Tensor dh = hn ? Tensor(hv.shape(), t) : Tensor(), dw = wn ? wn->target(ws, DType::f32) : Tensor(),
                   de = en ? en->target(es, DType::f32) : Tensor();
      KILN_RUN(Work::reduction, projection_backward(stream, t, n, int(classes), c, hv.data(), wv.data(), e.data(), lv, dy.f32(),
                                                    dh ? dh.data() : nullptr, dw ? dw.f32() : nullptr, de ? de.f32() : nullptr,
                                                    db ? db.f32() : nullptr));
      if (hn) hn->add(dh);
      if (wn) wn->add(dw);
      if (en) en->add(de);
    });
  return y;
}

}  // namespace kiln
