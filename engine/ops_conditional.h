// The ops of class-conditional networks: linear layers, class embeddings, conditional batch norm, self-attention, the projection
// discriminator's head, biases fused with their neighbours. Same conventions as engine/ops.h. Vectors of a picture (latents,
// embeddings, gains, logits) are f32 [n, c] whatever the pictures' storage type is.
#pragma once
#include "engine/ops.h"

namespace kiln {

// ---- parameters and vectors (ops_vectors.cpp) -----------------------------------------------------------------------

/// A parameter as a Var: what arrives at it in backward is added to the parameter's gradient. Constant where weights are frozen.
Var parameter(Param& p);
/// The same numbers in another shape, gradient included.
Var reshape(const Var& x, const Shape& shape);
/// x [n, k] f32, weight [m, ...] with m * k numbers of any storage type -> x W' [n, m] f32. One matrix product.
Var linear(const Var& x, const Var& weight);
/// x [n, c] + bias [c].
Var add_bias(const Var& x, Param& bias);
/// x [n, c * h * w] f32, channel first, as the public code's reshape reads it -> [n, h, w, c] of the context's storage type.
Var to_picture(const Var& x, int64_t h, int64_t w, int64_t c);
/// Rows of a table [classes, c] by labels i32 [n] -> [n, c].
Var embedding(const Var& table, const Tensor& labels);
/// x [.., a], z [.., b] of one type -> [.., a + b]: along the last axis, the channels of a picture or the numbers of a vector.
Var concat_channels(const Var& x, const Var& z);
/// Channels [first, first + count) of x.
Var take_channels(const Var& x, int64_t first, int64_t count);
/// Rows (pictures, logits) [first, first + count) of x.
Var take_rows(const Var& x, int64_t first, int64_t count);
/// The rows of a, then those of b; constants.
Tensor concat_rows(const Tensor& a, const Tensor& b);
/// Labels i32 of a, then of b.
Tensor concat_labels(const Tensor& a, const Tensor& b);
/// i32 [n], uniform over `classes`, from uniforms [n, 1].
Tensor draw_labels(const Tensor& uniforms, int64_t classes);

// ---- conditional batch norm (ops_conditional.cpp) -------------------------------------------------------------------

/// Batch statistics without gain and bias of their own.
struct ConditionalNorm {
  Buffer running_mean, running_var;
  float eps = 1e-5f;
  ConditionalNorm() = default;
  explicit ConditionalNorm(int64_t channels, float epsilon = 1e-5f);
  template <class F>
  void visit(F&& f) {
    f("running_mean", running_mean);
    f("running_var", running_var);
  }
};

/// act(batch_norm(x + input_bias) * (1 + gain[n, c]) + bias[n, c]), act none or relu; gain, bias [n, c] f32. input_bias, the bias of
/// the convolution before, may be null; it is never added to the picture: batch statistics take it away again, so that its
/// gradient in training is exactly zero, and only the running mean knows of it. In evaluation with weights that are not frozen
/// such a norm cannot record (assert).
Var conditional_norm(const Var& x, ConditionalNorm& norm, const Var& gain, const Var& bias, Activation act, Param* input_bias = nullptr);

// ---- residual blocks (ops_conditional.cpp) --------------------------------------------------------------------------

/// act(x + bias), act none or relu. Overwrites x where nobody else holds it: hand a temporary over.
Var bias_act(Var x, Param& bias, Activation act);
/// x + skip + biases: the end of a residual block, of pictures or of clips; `skip` is doubled by nearest neighbour in space where
/// `upsample`. Overwrites x likewise.
Var residual_sum(Var x, const Var& skip, bool upsample, Param* bias1, Param* bias2);
/// A 3x3 convolution with padding 1, then 2x2 average pooling, as one operation: equal to
/// average_pool2x2(conv2d(x, weight, 1, 1)) to rounding. On a CPU in f32 nine matrix products per four input pixels (it is the adjoint of
/// upsample_conv3x3), otherwise one 4x4 convolution of stride 2. Height and width even.
Var conv3x3_pool(const Var& x, const Var& weight);

// ---- attention (ops_attention.cpp) ----------------------------------------------------------------------------------

/// 2x2 max pooling; ties go to the first pixel in reading order.
Var max_pool2x2(const Var& x);
/// softmax(query key') value for each picture, scores not scaled: query [n, h, w, d], key [n, h2, w2, d], value [n, h2, w2, e] ->
/// [n, h, w, e]. Works in tiles of `tile` queries (0: as many as keep a tile of scores at 1 MB): only one tile of scores is alive,
/// and backward computes it again.
Var attention(const Var& query, const Var& key, const Var& value, int64_t tile = 0);
/// x + gamma * o, gamma one learned number.
Var gamma_sum(const Var& x, const Var& o, Param& gamma);

// ---- the discriminator's head (ops_attention.cpp) -------------------------------------------------------------------

/// relu, then the sum (not the mean) over the pixels: [n, h, w, c] -> [n, c] of the same type.
Var relu_sum_pool(const Var& x);
/// <w, h> + bias + <embed[label], h> (Miyato & Koyama 2018): h [n, c], weight [1, 1, 1, c], embed [classes, 1, 1, c] -> [n] f32.
/// embed may be empty (unconditional); then labels are not read.
Var projection_logits(const Var& h, const Var& weight, Param& bias, const Var& embed, const Tensor& labels);

}  // namespace kiln
