// LPIPS v0.1 (Zhang, Isola, Efros, Shechtman, Wang, CVPR 2018): a learned perceptual distance of two pictures, on the trunk of
// VGG16, AlexNet or SqueezeNet as torchvision has them. The weights are the user's files.
#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "engine/tape.h"

namespace kiln {

class Lpips {
 public:
  /// trunk: "vgg", "alex" or "squeeze". weights: torchvision's file; heads: LPIPS's linear heads of that trunk (lin0.model.1.weight,
  /// ...). Needs a current context, which must live as long. Throws kiln::Error naming the file, what it should be and where people
  /// get it. storage: the type that pictures come in, and features are kept in.
  Lpips(const std::string& trunk, const std::filesystem::path& weights, const std::filesystem::path& heads, DType storage = DType::f32);
  ~Lpips();

  /// Features of pictures [n, h, w, 3] on [-1, 1], one tensor per layer, without gradients: encode a target once, compare often.
  std::vector<Tensor> encode(const Tensor& pictures) const;
  /// One distance per picture, [n]. Gradients go to x (with vgg and alex), never to the target or the weights.
  Var distance(const Var& x, const std::vector<Tensor>& target) const;

  /// A training loss: value [1], the sum of the pictures' distances, and its gradient with respect to x, times weight and, where
  /// there is one, scale[0] (a loss scale in device memory). Both at once, so that the trunk's activations live only in here. Not
  /// with squeeze.
  struct Loss {
    Tensor value, gradient;
  };
  Loss loss(const Tensor& x, const std::vector<Tensor>& target, float weight, const float* scale = nullptr) const;

  /// "LPIPS v0.1 (VGG16)".
  const std::string& name() const;
  const std::string& key() const;  // the trunk: "vgg"
  uint64_t fingerprint() const;    // of trunk and heads
  /// The least side of a picture that the trunk can take.
  int least_side() const;

 private:
  struct Trunk;
  std::unique_ptr<Trunk> trunk_;
};

}  // namespace kiln
