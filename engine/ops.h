// The ops that models are made of. Each takes Vars, records its backward on the current tape where a gradient is wanted, and
// returns a Var. Pictures are [n, h, w, c]. Shapes that do not fit are programming errors (asserts).
#pragma once
#include <optional>

#include "engine/module.h"
#include "engine/spectral.h"
#include "engine/tape.h"
#include "kernels/activation.h"
#include "kernels/augment.h"

namespace kiln {

// ---- convolutions (ops_conv.cpp) ------------------------------------------------------------------------------------

/// x [n, h, w, c], weight [oc, kh, kw, c] or, of a clip's layer, [oc, 1, kh, kw, c] -> [n, (h + 2 pad - kh) / stride + 1, ..., oc].
Var conv2d(const Var& x, const Var& weight, int stride, int pad);
/// Transposed convolution: x [n, h, w, c], weight [oc, kh, kw, c] -> [n, (h - 1) stride - 2 pad + kh, ..., oc].
Var conv_transpose2d(const Var& x, const Var& weight, int stride, int pad);
/// Nearest 2x upsampling followed by a 3x3 convolution with padding 1, weight [oc, 3, 3, c], without storing the upsampled
/// picture: equal to conv2d(upsample2x(x), weight, 1, 1) to rounding. On a CPU in f32 nine matrix products a pixel
/// (engine/upsample_conv.h), otherwise one 4x4 transposed convolution with box-summed weights.
Var upsample_conv3x3(const Var& x, const Var& weight);
/// The 1x1 -> k x k transposed convolution that starts a generator: z [n, c] f32, weight [oc, k, k, c] -> [n, k, k, oc] of the
/// weight's type. A matrix product.
Var project(const Var& z, const Var& weight);

// ---- normalisation (ops_norm.cpp) -----------------------------------------------------------------------------------

/// Batch norm (Ioffe & Szegedy 2015), eps 1e-5, running statistics with the unbiased variance and the context's momentum (0.1).
struct BatchNorm {
  Param weight, bias;
  Buffer running_mean, running_var;
  static constexpr float eps = 1e-5f;

  BatchNorm() = default;
  explicit BatchNorm(int64_t channels, float init_std = 0.02f);
  template <class F>
  void visit(F&& f) {
    f("weight", weight);
    f("bias", bias);
    f("running_mean", running_mean);
    f("running_var", running_var);
  }
};

/// One learned number that scales a picture of noise shared by all channels.
struct NoiseInjection {
  Param weight;
  NoiseInjection() { weight.shape = Shape{1}; }
  template <class F>
  void visit(F&& f) {
    f("weight", weight);
  }
};

Var batch_norm(const Var& x, BatchNorm& norm);
/// Fused: act(batch_norm(x)); act is none, relu or leaky_relu.
Var norm_act(const Var& x, BatchNorm& norm, Activation act);
/// Fused: glu(batch_norm(x + weight * noise)); noise [n, h, w, 1] and its weight may be left out. Halves the channels.
Var norm_glu(const Var& x, BatchNorm& norm, NoiseInjection* injection = nullptr, const Tensor* noise = nullptr);
/// x + weight * noise.
Var inject_noise(const Var& x, NoiseInjection& injection, const Tensor& noise);

// ---- pointwise and sizes (ops_pointwise.cpp) ------------------------------------------------------------------------

Var activation(const Var& x, Activation act);
inline Var leaky_relu(const Var& x) { return activation(x, Activation::leaky_relu); }
inline Var swish(const Var& x) { return activation(x, Activation::swish); }
inline Var sigmoid(const Var& x) { return activation(x, Activation::sigmoid); }
inline Var tanh(const Var& x) { return activation(x, Activation::tanh); }
/// [.., 2c] -> [.., c]: first half * sigmoid(second half).
Var glu(const Var& x);
/// a x + b y.
Var combine(float a, const Var& x, float b, const Var& y);
/// x [n, h, w, c] * gate [n, 1, 1, c] (skip-layer excitation, Liu et al. 2021 section 3.1).
Var gate(const Var& x, const Var& g);
/// All elements of a, then all of b, as one flat tensor.
Var concat_flat(const Var& a, const Var& b);

Var upsample2x(const Var& x);                               // nearest
Var nearest_resize(const Var& x, int64_t h, int64_t w);     // source index floor(i * in / out)
Var area_resize(const Var& x, int64_t h, int64_t w);        // adaptive average pooling
Var average_pool2x2(const Var& x);                          // even sizes
/// One of the four corners of size h x w; corner: i32 tensor [1] with 0..3 = top left, top right, bottom left, bottom right.
Var corner_crop(const Var& x, int64_t h, int64_t w, const Tensor& corner);
/// i32 [1] in 0..3 from a uniform [1, 1].
Tensor draw_corner(const Tensor& uniform);

// ---- losses (ops_loss.cpp): single numbers --------------------------------------------------------------------------

/// Hinge loss of logits with margins margin_low + (1 - margin_low) * u, mean over logits (Lim & Ye 2017). sign +1 real, -1 fake.
struct HingeLoss {
  Var value;
  Tensor mean_logit;
};
HingeLoss hinge_loss(const Var& logits, float sign, float margin_low, const Tensor* uniforms);
/// -mean(logits), the generator's side.
Var generator_loss(const Var& logits);
/// Sum over pictures of the mean over a picture of |x - target|^power, power 1 (L1) or 2 (MSE).
Var difference_loss(const Var& x, const Tensor& target, int power);

/// sum += factor * x, for single numbers that are reported; an empty sum starts at 0.
void add_scaled(Tensor& sum, const Tensor& x, float factor);

/// Plain copies of memory, equal shapes, f32; no gradient.
void copy(const Tensor& from, const Tensor& to);
Tensor copy_of(const Tensor& x);

// ---- augmentation (ops_augment.cpp) ---------------------------------------------------------------------------------

/// What --augment means: color, translation, cutout, separated by commas, or none. Throws kiln::Error for any other word.
AugmentPolicy augment_policy(const std::string& text);
/// DiffAugment of pictures [n, h, w, 3] (kernels/augment.h); uniforms [n, 7].
Var augment(const Var& x, const AugmentPolicy& policy, const Tensor& uniforms);

/// A set of byte pictures [count, h, w, 3] on the device, and the mean of each on the scale [-1, 1].
struct PictureSet {
  Tensor pixels, means;
  int64_t count = 0;
  int height = 0, width = 0;
  /// Room for that many; upload() fills it.
  PictureSet(int64_t count, int height, int width);
  /// Copies the pictures to the device.
  PictureSet(const uint8_t* data, int64_t count, int height, int width);
  /// Pictures in ordinary memory: on a CPU they stay there and are only read, on a GPU they are copied.
  PictureSet(std::shared_ptr<void> memory, int64_t count, int height, int width);
  /// Replaces all pictures: uint8 [count, height, width, 3] in ordinary memory.
  void upload(const uint8_t* data);

 private:
  void measure(const uint8_t* data);
};
/// Pictures index[k] of the set on [-1, 1], in the context's storage type, mirrored where flips[k] < flip_below. index i32 [n], flips [n, 1].
Tensor gather(const PictureSet& set, const Tensor& index, const Tensor& flips, float flip_below);
/// gather and augment in one pass.
Tensor gather_augmented(const PictureSet& set, const Tensor& index, const Tensor& flips, float flip_below,
                        const AugmentPolicy& policy, const Tensor& uniforms);

}  // namespace kiln
