// The perceptual loss of ESRGAN (Wang et al. 2018): the distance of two pictures on VGG19's last convolution before its rectifier.
#pragma once
#include <filesystem>
#include <memory>
#include <vector>

#include "models/feature_weights.h"

namespace kiln {

class Vgg19Loss {
 public:
  /// weights: torchvision's vgg19-dcbb9e9d.pth (or its state dict as safetensors). Needs a current context, which must live as long. Throws
  /// kiln::Error naming the file, what it should be and where people get it. storage: the type that pictures come in.
  explicit Vgg19Loss(const std::filesystem::path& weights, DType storage = DType::f32);

  /// Features of pictures [n, h, w, 3] on [0, 1], sides at least 16: conv5_4, [n, h/16, w/16, 512]. The gradient goes to x.
  Var features(const Var& x) const;
  /// Sum over pictures of the mean absolute difference of their features, a single number. The gradient goes to x.
  Var operator()(const Var& x, const Tensor& target) const;

 private:
  Tensor scale_, shift_;  // ImageNet's normalisation
  std::vector<FeatureConv> convs_;
};

}  // namespace kiln
