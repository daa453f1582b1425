// What a network needs that is only used, not trained: weights that stay the same, and no tape. A model folds its batch norms
// and its spectral norm into its weights once and runs on these (models/fastgan_folded.h).
#pragma once
#include <memory>

#include "engine/tensor.h"

namespace kiln {

/// A convolution without bias whose weight [oc, kh, kw, c] stays the same. On the CPU the weight is brought into the library's
/// own layout once, not at every call. Copies share the weight. Used by one thread at a time.
class FixedConvolution {
 public:
  FixedConvolution() = default;
  /// transposed: the adjoint of a convolution of that stride and padding, as conv_transpose2d in engine/ops.h.
  FixedConvolution(Tensor weight, int stride, int pad, bool transposed = false);
  /// x [n, h, w, c], f32 -> [n, oh, ow, oc]: the sizes of conv2d and conv_transpose2d. Throws kiln::Error if the library
  /// refuses the shape.
  Tensor operator()(const Tensor& x) const;

 private:
  struct Plans;  // the library's side on the CPU; null on a GPU
  Tensor run_on_cpu(const Tensor& x, const Tensor& y) const;

  Tensor weight_;  // as given: a GPU's
  Shape shape_;    // of the weight
  int stride_ = 1, pad_ = 0;
  bool transposed_ = false;
  std::shared_ptr<Plans> plans_;
  static std::shared_ptr<Plans> make_plans(const Tensor& weight);
};

/// glu(x + bias + strength * noise), x [n, h, w, 2c] -> [n, h, w, c]; bias and strength [2c], noise [n, h, w, 1]. Both noise
/// and strength may be empty.
Tensor biased_glu(const Tensor& x, const Tensor& bias, const Tensor& noise = {}, const Tensor& strength = {});

/// The weight of the 4x4 transposed convolution of stride 2 and padding 1 that is nearest 2x upsampling and then this 3x3
/// convolution [oc, 3, 3, c] (upsample_conv3x3 in engine/ops.h).
Tensor folded_upsampling(const Tensor& weight);

}  // namespace kiln
