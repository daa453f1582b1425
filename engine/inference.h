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

/// What is left to do behind a convolution with 2c output channels once its batch norm is folded into it:
/// glu(x + bias + strength * noise) * gate. All f32; noise and strength, and the gate, may be empty.
struct GluTail {
  Tensor bias, strength;  // [2c]
  Tensor noise;           // [n, h, w, 1]
  Tensor gate;            // [n, 1, 1, c]
};

/// x [n, h, w, 2c] -> [n, h, w, c]
Tensor biased_glu(const Tensor& x, const GluTail& tail);

/// A 3x3 convolution of stride 1 and padding 1 with a weight that stays the same and a GLU behind it, on twice the size if it
/// is `upsampling` (nearest). On a CPU it goes the way with the fewest products that is worth it there (engine/upsample_conv.h,
/// engine/winograd.h), its weight transformed once and the tail done while results are in the cache; else it is the
/// library's convolution and biased_glu. Copies share the weight. Used by one thread at a time.
class FixedGlu {
 public:
  /// weight [2c, 3, 3, in], bias [2c], strength [2c] or empty.
  FixedGlu(const Tensor& weight, Tensor bias, Tensor strength, bool upsampling);
  /// x [n, h, w, in] -> [n, h, w, c] or [n, 2h, 2w, c]. noise [n, h, w, 1] of the result's size where there is a strength;
  /// gate [n, 1, 1, c] or empty.
  Tensor operator()(const Tensor& x, const Tensor& noise = {}, const Tensor& gate = {}) const;
  bool noisy() const { return bool(strength_); }
  bool upsampling() const { return upsampling_; }
  enum class Way : uint8_t { library, nine_products, winograd };
  Way way() const { return way_; }

 private:
  Tensor bias_, strength_;
  bool upsampling_;
  Way way_ = Way::library;
  Shape shape_;              // of the weight
  Tensor products_;          // the transformed weight, where one of our own ways is taken
  FixedConvolution library_;  // elsewhere
};

/// Channels in a pack of glu_order: the largest power of two up to 16 that divides c.
int64_t glu_pack(int64_t c);
/// A weight [2c, ...] with its rows in the order in which our own convolutions want them before a GLU: a pack of values, the
/// pack of sigmoid inputs that belongs to it, the next pack of values, ...
Tensor glu_order(const Tensor& weight);

}  // namespace kiln
