#include "engine/wavelet_conv.h"

#include "engine/error.h"
#include "engine/layer_table.h"
#include "engine/ops.h"
#include "kernels/bias.h"
#include "kernels/pointwise.h"

namespace kiln {
namespace {

/// x + bias [c], where the bias is a value of this computation, not a parameter.
Var add_channels(const Var& x, const Var& bias) {
  const int c = int(x.value.channels());
  const int64_t rows = x.value.rows();
  KILN_ASSERT(bias.value.count() == c && bias.value.dtype() == DType::f32);
  const bool record = recording({&x, &bias});
  const DType t = x.value.dtype();
  Var y(Tensor(x.shape(), t), record);
  KILN_RUN(Work::pointwise, bias_forward(stream, t, rows, c, x.value.data(), bias.value.f32(), Activation::none, y.value.data()));
  if (record)
    context().tape->push([=, bs = bias.shape(), xn = x.node, bn = bias.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      if (bn) {
        const Tensor db = zeros(bs), scratch(Shape{bias_scratch_floats(c)});
        KILN_RUN(Work::reduction, bias_backward(stream, t, rows, c, nullptr, dy.data(), Activation::none, nullptr, db.f32(), scratch.f32()));
        bn->add(db);
      }
      if (xn) xn->add(dy);
    });
  return y;
}

}  // namespace

Var wavelet_conv(const Var& x, const Var& weight, int levels) {
  const Shape ws = weight.shape();
  KILN_ASSERT(levels >= 1 && ws.rank() == 4 && ws[1] == ws[2] && ws[1] % 2 == 1 && ws[3] == x.shape()[3] << (2 * levels));
  // The transform's matrix is symmetric: what it makes of a block's pixels its inverse makes of the weights that the bands have.
  const Var folded = wavelet_unpacket(weight, Wavelet::haar, levels);
  note_derived(folded.value, weight.value);
  return conv2d(x, folded, 1 << levels, int(ws[1] / 2) << levels);
}

Var conv_wavelet_unpacket(const Var& x, const Var& weight, const Var& bias, int levels) {
  const Shape ws = weight.shape();
  const int64_t c = ws[0] >> (2 * levels);
  KILN_ASSERT(levels >= 1 && ws.rank() == 4 && ws[1] == ws[2] && ws[1] % 2 == 1 && c << (2 * levels) == ws[0]);
  Var folded = weight, mixed = bias;
  for (int level = 0; level < levels; level++) {  // the innermost bands first, as the transform takes them
    folded = haar_rows(folded, c << (2 * level));
    if (bias) mixed = haar_rows(mixed, c << (2 * level));
  }
  note_derived(folded.value, weight.value);
  Var y = conv2d(x, folded, 1, int(ws[1] / 2));
  if (bias) y = add_channels(y, mixed);
  return wavelet_unpacket(y, Wavelet::lazy, levels);
}

}  // namespace kiln
