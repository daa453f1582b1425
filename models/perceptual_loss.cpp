#include "models/perceptual_loss.h"

#include <fmt/format.h>

namespace kiln {

Vgg19Loss::Vgg19Loss(const std::filesystem::path& weights, DType storage) {
  const float mean[3] = {0.485f, 0.456f, 0.406f}, deviation[3] = {0.229f, 0.224f, 0.225f};
  scale_ = from_vector(Shape{3}, {1 / deviation[0], 1 / deviation[1], 1 / deviation[2]});
  shift_ = from_vector(Shape{3}, {-mean[0] / deviation[0], -mean[1] / deviation[1], -mean[2] / deviation[2]});
  const FeatureWeights w(weights, "vgg19-dcbb9e9d.pth of torchvision (548 MB; from download.pytorch.org/models)");
  for (int i : {0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34}) {
    convs_.push_back(torch_conv(w, fmt::format("features.{}", i), 1, 1));
    convs_.back().weight = converted(convs_.back().weight, storage);
  }
  convs_.back().slope = 1;
}

Var Vgg19Loss::features(const Var& x) const {
  Var y = affine_activation(x, scale_, shift_, 1.f);
  size_t i = 0;
  for (int block = 0; block < 5; block++) {
    if (block > 0) y = max_pool(y, 2, 2);
    for (int k = 0; k < (block < 2 ? 2 : 4); k++) y = convs_[i++](y);
  }
  return y;
}

Var Vgg19Loss::operator()(const Var& x, const Tensor& target) const {
  Tensor wanted;
  {
    const NoGrad none;
    wanted = features(Var(target)).value;
  }
  return difference_loss(features(x), wanted, 1);
}

}  // namespace kiln
