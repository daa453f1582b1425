// From pictures to feature vectors: what a network sees in a set, kept on the disk for the next time.
#pragma once
#include <filesystem>
#include <functional>

#include "engine/feature_distance.h"
#include "models/feature_network.h"
#include "models/metric_pictures.h"

namespace kiln {

struct FeatureOptions {
  int batch = 16;                      ///< pictures that the network sees at once
  std::filesystem::path cache_folder;  ///< where the features of a set with a fingerprint are kept; empty: nowhere
  /// After every batch; may throw to stop.
  std::function<void(int64_t done, int64_t total)> progress;
};

/// Features of pictures 0 .. count - 1. Needs a current context. Those of a set whose fingerprint is known are read from the
/// cache, or put there: equal pictures and equal weights, whatever their names. Throws kiln::Error as the source does.
FeatureSet picture_features(MetricPictures& pictures, int64_t count, const FeatureNetwork& network, const FeatureOptions& options = {});

/// The cache of such a set: a file that is read only if all of it belongs to these pictures and weights. 0 is no fingerprint.
class FeatureCache {
 public:
  FeatureCache(const std::filesystem::path& folder, const FeatureNetwork& network, uint64_t pictures, int size, int64_t count);
  /// False if there is none that fits, whatever is in the file.
  bool load(FeatureSet& out) const;
  /// A disk that is full or read-only costs the next run's time, nothing else.
  void store(const FeatureSet& features) const;

 private:
  std::filesystem::path path_;
  std::string key_;
  int64_t count_, dimensions_;
};

/// Bytes [n, size, size, 3] as the networks take them: f32 on [0, 255], in the current context.
Tensor byte_pictures(const uint8_t* bytes, int64_t n, int size);

}  // namespace kiln
