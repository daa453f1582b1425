// Networks that turn a picture into a vector of features: what FID, KID and precision/recall compare.
#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "engine/tensor.h"

namespace kiln {

class FeatureNetwork {
 public:
  virtual ~FeatureNetwork() = default;
  /// pictures [n, h, w, 3], f32 on [0, 255] -> [n, dimensions()]. Needs a current context; records nothing.
  virtual Tensor features(const Tensor& pictures) const = 0;
  virtual int64_t dimensions() const = 0;
  /// "inception": for file names and JSON keys.
  const std::string& key() const { return key_; }
  /// "Inception v3 (pt_inception-2015-12-05), 2048 features".
  const std::string& name() const { return name_; }
  /// How a picture is brought to the network's size.
  const std::string& resize() const { return resize_; }
  /// True for the network that FID and KID are defined with; numbers of any other carry its name.
  bool standard() const { return key_ == "inception"; }
  uint64_t fingerprint() const { return fingerprint_; }  // of its weights

 protected:
  std::string key_, name_, resize_;
  uint64_t fingerprint_ = 0;
};

/// "inception", "squeezenet", "darknet".
std::vector<std::string> feature_network_names();
/// Reads a network's weights from the user's file. Needs a current context. Throws kiln::Error: another name; no such file (and
/// exactly which file it should be, and where people get it); a file without the tensors of that network.
///
///   inception    the graph of pytorch-fid: bilinear to 299 px without a filter, pool3, 2048 features. Its average pools do not
///                count the border, its last block pools by maximum. pt_inception-2015-12-05-6726825d.pth
///   squeezenet   SqueezeNet v1.1 in Keras' names (fire9's mean, 512 features); a .safetensors of the user's
///   darknet      Tiny Darknet in Keras' names (mean of the 14th convolution, 512 features); a .safetensors of the user's
std::unique_ptr<FeatureNetwork> open_feature_network(const std::string& name, const std::filesystem::path& weights);

}  // namespace kiln
