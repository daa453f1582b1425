// The layers that NSB-GAN's decoders are made of: plain convolutions with biases, and blocks of them.
#pragma once
#include "engine/ops_upscale.h"

namespace kiln::nsbgan {

/// A convolution whose bias is for others to add. It starts as PyTorch's do, uniform on +-1/sqrt(fan in), bias likewise, unless he() says
/// otherwise.
struct Conv {
  Param weight, bias;  // [out, kernel, kernel, in]; [out]
  bool biased = true;
  int stride = 1, pad = 1;

  Conv() = default;
  Conv(int64_t in, int64_t out, int kernel = 3, int conv_stride = 1, bool with_bias = true);
  /// Starts normal with `gain` times He's deviation for rectifiers, sqrt(2 / fan in), bias 0.
  Conv& he(float gain);
  /// x [n, h, w, in] -> [n, .., .., out], without the bias.
  Var operator()(const Var& x) { return conv2d(x, stored_parameter(weight), stride, pad); }
  /// With the bias, and times slope where negative: 1 linear, 0 ReLU.
  Var with_slope(const Var& x, float slope) { return bias_slope((*this)(x), bias, slope); }
  template <class F>
  void visit(F&& f) {
    f("weight", weight);
    if (biased) f("bias", bias);
  }
};

/// A linear layer: x [n, in] f32 -> [n, out] f32, bias and slope as above.
struct Linear {
  Param weight, bias;
  Linear() = default;
  Linear(int64_t in, int64_t out);
  Var with_slope(const Var& x, float slope) { return bias_slope(linear(x, stored_parameter(weight)), bias, slope); }
  template <class F>
  void visit(F&& f) {
    f("weight", weight);
    f("bias", bias);
  }
};

/// 3x3 convolution, batch norm, ReLU.
struct ConvNorm {
  Conv conv;
  BatchNorm norm;
  ConvNorm() = default;
  ConvNorm(int64_t in, int64_t out) : conv(in, out), norm(out, 0.f) {}
  Var operator()(const Var& x) { return norm_act(conv.with_slope(x, 1.f), norm, Activation::relu); }
  template <class F>
  void visit(F&& f) {
    f("conv", conv);
    f("bn", norm);
  }
};

/// Two of them.
struct DoubleConv {
  ConvNorm first, second;
  DoubleConv() = default;
  DoubleConv(int64_t in, int64_t out) : first(in, out), second(out, out) {}
  Var operator()(const Var& x) { return second(first(x)); }
  template <class F>
  void visit(F&& f) {
    f("0", first);
    f("1", second);
  }
};

}  // namespace kiln::nsbgan
