// What a library does for convolutions: three plain functions, one source file per library in engine/backend.
#pragma once
#include "engine/tensor.h"

namespace kiln {

/// A 2-d convolution (cross-correlation, as everybody's): x [n, h, w, c] -> y [n, oh, ow, oc] with kernel kh x kw, the same
/// stride and padding on both axes. oh = (h + 2 pad - kh) / stride + 1.
struct ConvShape {
  int64_t n, h, w, c, oh, ow, oc;
  int kh, kw, stride, pad;
  /// Order of the weight's axes in memory: [oc, kh, kw, c], or [c, kh, kw, oc] where the convolution serves as the adjoint of
  /// a transposed one (whose output channels are this one's input channels).
  bool weights_transposed = false;
  /// A 3-d one: x [n, d, h, w, c] -> y [n, od, oh, ow, oc] with weight [oc, kd, kh, kw, c] (transposed likewise). Along this axis the
  /// stride is 1 and the padding pad_d: od = d + 2 pad_d - kd + 1.
  int64_t d = 1, od = 1;
  int kd = 1, pad_d = 0;
  bool is_3d() const { return d > 1 || kd > 1; }
  bool operator==(const ConvShape&) const = default;
  double flops() const { return 2.0 * double(n) * double(od * oh * ow) * double(oc) * double(c) * kd * kh * kw; }
  /// "8x32x32x64 -> 32 channels, kernel 3x3, stride 1", with the third axis in front where there is one.
  std::string text() const;
};

/// y from x and w; dx from dy and w (also how a transposed convolution runs); dw from x and dy.
enum class ConvDirection : uint8_t { forward, data, weights };
const char* name_of(ConvDirection d);

/// One call of the functions below, as Context::conv_calls notes it; or a gradient that ops_conv.cpp computes in place of one.
struct ConvCall {
  ConvDirection direction;
  ConvShape shape;
  DType type;  // of the activations
};

// x, y, dx, dy and w in one floating type, f32, bf16 or f16; dw in f32 whatever the others are, and overwritten. Products are
// added up in f32. w and dw are in the order the shape says. A library without a type converts: oneDNN has no f16 on CPUs and
// computes it in f32; cuDNN gives dw of 16-bit inputs in 16 bits, which are widened. The library
// is the one of the tensors' device. All throw kiln::Error if it refuses the shape.
void conv_forward(const ConvShape& s, const Tensor& x, const Tensor& w, const Tensor& y);
void conv_backward_data(const ConvShape& s, const Tensor& dy, const Tensor& w, const Tensor& dx);
void conv_backward_weights(const ConvShape& s, const Tensor& x, const Tensor& dy, const Tensor& dw);

/// True where this CPU multiplies bf16 numbers (AVX512_BF16 or AMX). oneDNN emulates it elsewhere, slower than f32.
bool cpu_has_bf16();

/// Convolutions of different shapes that this thread has planned on a CPU, and about what each takes beside its tensors: oneDNN's
/// description and code of it.
size_t convolution_plans();
constexpr size_t kConvolutionPlanBytes = 100'000;

}  // namespace kiln
