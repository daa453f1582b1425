// The layers BigGAN is made of: convolutions and linear layers with biases, the conditional batch norm, self-attention.
#pragma once
#include "engine/ops_conditional.h"
#include "models/blocks.h"

namespace kiln::biggan {

/// How convolutions, linear layers and embeddings start: orthogonal (the paper), N(0, 0.02) (the CIFAR recipe), or Glorot's
/// uniform. Biases start uniform on +-1/sqrt(fan in).
enum class InitKind : uint8_t { orthogonal, normal, xavier };
Init weight_init(InitKind kind, int64_t rows, int64_t cols);

/// Which classes the pictures of a batch are of. With t > 0 between two: everything that is looked up by class is a + t (b - a).
struct Labels {
  Tensor a, b;  // i32 [n]
  float t = 0;
  /// Rows of a table, interpolated.
  Var look_up(const Var& table) const;
};

/// What a conditional norm is told: a vector per picture, or the labels, or neither.
struct Condition {
  Var vector;  // [n, dims] f32
  const Labels* labels = nullptr;
  int64_t n = 0;
};

/// A spectrally normalised convolution of stride 1 that keeps the size; its bias is for others to add.
struct Conv {
  SpectralConv conv;
  Param bias;
  bool biased = true;
  Conv() = default;
  Conv(int64_t in, int64_t out, int kernel, InitKind init, bool with_bias = true);
  Var operator()(const Var& x) const { return conv(x); }
  template <class F>
  void visit(F&& f) {
    f("", conv);
    if (biased) f("bias", bias);
  }
};

/// A spectrally normalised linear layer, weight [out, 1, 1, in].
struct Linear {
  SpectralWeight w;
  Param bias;
  bool biased = true;
  Linear() = default;
  Linear(int64_t in, int64_t out, InitKind init, bool with_bias = true);
  Var operator()(const Var& x);
  template <class F>
  void visit(F&& f) {
    f("", w);
    if (biased) f("bias", bias);
  }
};

/// relu(norm(x) * (1 + gain(condition)) + bias(condition)). Gain and bias are linear layers of the condition's vector, or, where it
/// has none, tables by class (one row if there are no classes).
class CondBatchNorm {
 public:
  CondBatchNorm() = default;
  /// condition: numbers in its vector, 0 for tables.
  CondBatchNorm(int64_t channels, int64_t condition, int64_t classes, float eps, InitKind init);
  /// input_bias: of the convolution before, which the norm takes in (engine/ops_conditional.h).
  Var operator()(const Var& x, const Condition& y, Param* input_bias = nullptr);
  template <class F>
  void visit(F&& f) {
    if (by_vector_) {
      f("gain", gain_);
      f("bias", bias_);
    } else {
      f("gain", gain_table_);
      f("bias", bias_table_);
    }
    f("", norm_);
  }

 private:
  bool by_vector_ = false;
  Linear gain_, bias_;
  Param gain_table_, bias_table_;  // [classes or 1, channels]
  ConditionalNorm norm_;
};

/// Self-attention (Zhang et al. 2019) with keys and values pooled to a quarter, scores unscaled, 1x1 convolutions without biases.
struct SelfAttention {
  Conv theta, phi, g, o;
  Param gamma;  // starts at 0: the layer begins as the identity
  SelfAttention() = default;
  SelfAttention(int64_t channels, InitKind init);
  Var operator()(const Var& x);
  template <class F>
  void visit(F&& f) {
    f("theta", theta);
    f("phi", phi);
    f("g", g);
    f("o", o);
    f("gamma", gamma);
  }
};

}  // namespace kiln::biggan
