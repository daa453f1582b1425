// Kernel and Frechet distance on a network's features, measured while a run trains.
#pragma once
#include <memory>

#include "engine/dataset.h"
#include "engine/picture_meter.h"
#include "models/picture_features.h"

namespace kiln {

/// `samples` against at most 1000 of the real pictures, evenly spread over the set. Works in the context that is current when
/// it is called, which must be the one that the network was opened in.
class FeatureMeter : public PictureMeter {
 public:
  static constexpr int64_t kSamples = 256, kMostReal = 1000;
  static constexpr int64_t kBatch = 8;  // pictures that the network sees at once: few, so that a short share of time is enough

  /// cache_folder: where the real pictures' features are kept for the next run; empty: nowhere.
  FeatureMeter(std::unique_ptr<FeatureNetwork> network, std::shared_ptr<const Dataset> real, const std::filesystem::path& cache_folder,
               int64_t samples = kSamples);

  std::string description() const override;
  std::string name() const override;
  bool prepare(double seconds) override;
  double expected_seconds() const override { return batch_seconds_ * double((samples_ + kBatch - 1) / kBatch); }
  std::vector<std::pair<std::string, double>> measure(const std::function<Tensor(int64_t, int64_t)>& sample) override;
  int64_t real_pictures() const { return count_; }

 private:
  void look_at(const uint8_t* bytes, int64_t n, FeatureSet& into) const;

  std::unique_ptr<FeatureNetwork> network_;
  std::shared_ptr<const Dataset> data_;
  int64_t count_, samples_;
  FeatureCache cache_;
  FeatureSet real_;
  double batch_seconds_ = 0;  // of a batch of real pictures
};

}  // namespace kiln
