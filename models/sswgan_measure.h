// How far generated clips are from real ones, without a trained network: for the log of a training.
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/picture.h"
#include "engine/swd.h"

namespace kiln::sswgan {

/// Mean |x(t+1) - x(t)| over a clip's pixels on the scale [-1, 1], averaged over clips. 0 where nothing moves.
double motion_energy(const std::vector<std::vector<Picture>>& clips);
/// Mean over clips of the distance between a clip's frames (mean_pairwise_distance): small where a clip shows one picture.
double frame_diversity(const std::vector<std::vector<Picture>>& clips);

/// Sliced Wasserstein distances x 1e3 of frames, and of the differences of neighbouring frames as pictures; "clip distance" is the mean of
/// the two. It is not the Frechet video distance.
class ClipDistance {
 public:
  /// Real clips, all of one size and length. Throws kiln::Error: fewer than two frames in all.
  explicit ClipDistance(const std::vector<std::vector<Picture>>& real);
  /// Clips that compare() takes, at least.
  int64_t clips() const { return clips_; }
  double baseline() const { return baseline_; }
  const std::string& description() const { return description_; }
  /// The distance; figures of it and of the clips' motion, those of real ones beside them, go to log.
  double compare(const std::vector<std::vector<Picture>>& generated, std::vector<std::pair<std::string, double>>& log) const;

 private:
  int64_t clips_ = 0;
  double baseline_ = 0, real_motion_ = 0, real_frames_ = 0, real_spread_ = 0;
  std::string description_;
  std::unique_ptr<SwdReference> frames_, differences_;
};

}  // namespace kiln::sswgan
