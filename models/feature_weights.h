// Weights of trained networks from the user's file: a PyTorch state dict (.pth) or safetensors, and the layers made of them.
#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "engine/ops_feature.h"

namespace kiln {

/// Named tensors of a file, as f32 on the host, but for those of its classifier.
class FeatureWeights {
 public:
  struct Array {
    std::vector<int64_t> shape;
    std::vector<float> values;
  };
  /// `what` names the file that is wanted and where people get it: the error of a missing file says so. Throws kiln::Error.
  FeatureWeights(const std::filesystem::path& file, const std::string& what);
  bool has(const std::string& name) const { return arrays_.count(name) > 0; }
  /// Throws kiln::Error naming the file and the tensor.
  const Array& at(const std::string& name) const;
  const std::string& path() const { return path_; }
  /// Of all names and numbers: two files with equal contents are equal.
  uint64_t fingerprint() const;

 private:
  std::string path_, what_;
  std::map<std::string, Array> arrays_;
};

/// A convolution whose weights do not change, an affine map per channel (a bias, or a folded batch norm), and a rectifier.
struct FeatureConv {
  Tensor weight, scale, bias;  // [oc, kh, kw, c]; [oc], may be empty; [oc]
  int stride = 1, pad_h = 0, pad_w = 0;
  float slope = 0;  // of the rectifier below zero
  Var operator()(const Var& x) const;
};

/// PyTorch's Conv2d with a bias: prefix.weight [oc, c, kh, kw], prefix.bias.
FeatureConv torch_conv(const FeatureWeights& w, const std::string& prefix, int stride, int pad);
/// torchvision's BasicConv2d: prefix.conv.weight, prefix.bn.*, eps 1e-3, ReLU; `same` pads to the same size (at stride 1).
FeatureConv torch_conv_norm(const FeatureWeights& w, const std::string& prefix, int stride, bool same);
/// Keras' Conv2D: a kernel [kh, kw, c, oc], and a bias or a batch norm (gamma, beta, moving_mean, moving_variance; eps 1e-3)
/// under the given names; an empty name is none. `same` as above.
FeatureConv keras_conv(const FeatureWeights& w, const std::string& kernel, const std::string& bias, const std::string& norm, int stride, bool same,
                       float slope);

}  // namespace kiln
