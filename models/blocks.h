// Layers that the model families share.
#pragma once
#include <string>

#include "engine/ops_clip.h"

namespace kiln {

/// A spectrally normalised convolution without bias. Its group (SpectralGroup) must have prepared the weights.
struct SpectralConv {
  SpectralWeight w;
  int stride = 1, pad = 0;

  SpectralConv() = default;
  SpectralConv(int64_t in, int64_t out, int kernel, int conv_stride, int conv_pad)
      : w(out, kernel, kernel, in), stride(conv_stride), pad(conv_pad) {}
  Var operator()(const Var& x) const { return conv2d(x, w.normalised, stride, pad); }
  /// Nearest 2x upsampling, then this 3x3 convolution, in one.
  Var upsampled(const Var& x, bool fold) const {
    return fold ? upsample_conv3x3(x, w.normalised) : conv2d(upsample2x(x), w.normalised, 1, 1);
  }
  template <class F>
  void visit(F&& f) {
    f("", w);
  }
};

/// The same of clips: a kernel of kt frames and k x k pixels, stride 1, as large a picture as before.
struct SpectralConv3d {
  SpectralWeight w;
  TimePadding time = TimePadding::zero;

  SpectralConv3d() = default;
  SpectralConv3d(int64_t in, int64_t out, int kt, int k, TimePadding padding) : w(Shape{out, kt, k, k, in}), time(padding) {}
  Var operator()(const Var& clip) const { return conv3d(clip, w.normalised, time); }
  template <class F>
  void visit(F&& f) {
    f("", w);
  }
};

}  // namespace kiln
