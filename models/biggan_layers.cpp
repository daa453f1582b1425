#include "models/biggan_layers.h"

#include <cmath>

namespace kiln::biggan {

Init weight_init(InitKind kind, int64_t rows, int64_t cols) {
  Init i;
  if (kind == InitKind::orthogonal) i.orthogonal = true;
  if (kind == InitKind::normal) i.std = 0.02f;
  // Glorot's fans of [rows, kernel, in] are kernel-size times rows and columns; for the 1x1 and linear layers that is this, and for
  // 3x3 convolutions the callers pass both.
  if (kind == InitKind::xavier) i.uniform = std::sqrt(6.f / float(rows + cols));
  return i;
}

Var Labels::look_up(const Var& table) const {
  const Var first = embedding(table, a);
  return t == 0.f ? first : combine(1.f - t, first, t, embedding(table, b));
}

Conv::Conv(int64_t in, int64_t out, int kernel, InitKind init, bool with_bias)
    : conv(in, out, kernel, 1, kernel / 2), biased(with_bias) {
  const int64_t area = kernel * kernel;
  conv.w.weight.init = weight_init(init, init == InitKind::xavier ? out * area : out, in * area);
  bias.shape = Shape{out};
  bias.init.uniform = 1.f / std::sqrt(float(in * area));
}

Linear::Linear(int64_t in, int64_t out, InitKind init, bool with_bias) : w(out, 1, 1, in), biased(with_bias) {
  w.weight.init = weight_init(init, out, in);
  bias.shape = Shape{out};
  bias.init.uniform = 1.f / std::sqrt(float(in));
}

Var Linear::operator()(const Var& x) {
  const Var y = linear(x, w.normalised);
  return biased ? add_bias(y, bias) : y;
}

CondBatchNorm::CondBatchNorm(int64_t channels, int64_t condition, int64_t classes, float eps, InitKind init)
    : by_vector_(condition > 0), norm_(channels, eps) {
  if (by_vector_) {
    gain_ = Linear(condition, channels, init, false);
    bias_ = Linear(condition, channels, init, false);
  } else {
    const int64_t rows = classes > 1 ? classes : 1;
    gain_table_.shape = bias_table_.shape = Shape{rows, channels};
    gain_table_.init = bias_table_.init = weight_init(init, rows, channels);
  }
}

Var CondBatchNorm::operator()(const Var& x, const Condition& y, Param* input_bias) {
  if (by_vector_) return conditional_norm(x, norm_, gain_(y.vector), bias_(y.vector), Activation::relu, input_bias);
  const Var gain = parameter(gain_table_), bias = parameter(bias_table_);
  if (y.labels) return conditional_norm(x, norm_, y.labels->look_up(gain), y.labels->look_up(bias), Activation::relu, input_bias);
  const Tensor only = zeros(Shape{y.n}, DType::i32);  // the one row, for every picture
  return conditional_norm(x, norm_, embedding(gain, only), embedding(bias, only), Activation::relu, input_bias);
}

SelfAttention::SelfAttention(int64_t c, InitKind init)
    : theta(c, c / 8, 1, init, false), phi(c, c / 8, 1, init, false), g(c, c / 2, 1, init, false), o(c / 2, c, 1, init, false) {
  gamma.shape = Shape{1};
}

Var SelfAttention::operator()(const Var& x) {
  const Var query = theta(x), key = max_pool2x2(phi(x)), value = max_pool2x2(g(x));
  return gamma_sum(x, o(attention(query, key, value)), gamma);
}

}  // namespace kiln::biggan
