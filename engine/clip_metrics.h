// What can be said of generated clips without a network: how much moves, how different they are, how far their frames and motion are
// from those of real clips, and which real clips they are like.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/clip_dataset.h"
#include "engine/feature_distance.h"
#include "engine/swd.h"
#include "engine/tensor.h"

namespace kiln {

/// Clips of one size and length, read one by one.
struct ClipBytes {
  int64_t count = 0;
  int frames = 0, height = 0, width = 0;
  std::function<void(int64_t i, uint8_t* to)> read;  ///< clip i: uint8 [frames, height, width, 3]
  size_t bytes() const { return size_t(frames) * size_t(height) * size_t(width) * 3; }  // of a clip
};
/// uint8 [count, frames, height, width, 3] in memory that stays there.
ClipBytes clips_in_memory(const uint8_t* data, int64_t count, int frames, int height, int width);
/// Windows of data.frames() frames, per_clip of each clip at most: the first, the last and others evenly between; all clips' first windows
/// come first. data must outlive the result.
ClipBytes clip_windows(const ClipDataset& data, int per_clip = 1);

/// How much moves and how different clips are; pixels on [-1, 1], so that a distance is at most 2.
struct ClipMotion {
  double energy = 0;           ///< mean |x[t+1] - x[t]| over clips, frames, pixels and channels: 0 for stills
  double frame_diversity = 0;  ///< root mean square distance of a clip's frames from its mean frame, mean over clips: 0 for stills
  double clip_diversity = 0;   ///< root mean square distance of the clips' mean frames from the mean of all: 0 where all clips are alike
};
ClipMotion clip_motion(const ClipBytes& clips);
/// clips [n, t, h, w, 3], nominally on [-1, 1].
ClipMotion clip_motion(const Tensor& clips);

struct ClipSwdOptions {
  SwdOptions swd;
  int per_clip = 4;  ///< moments of a clip that are looked at, at most
  ClipSwdOptions() { swd.directions = 128; }  // three kinds of pictures: a quarter of the time for each
};
/// Sliced Wasserstein distances (engine/swd.h) of three kinds of pictures that a clip gives, x 1e3:
///   frames  single frames, at moments evenly spread: how the clips look
///   steps   differences of neighbouring frames at these moments: how they move from frame to frame
///   spans   differences of frames half a clip apart: what becomes of them
/// A difference d of bytes is the picture round(127.5 + d / 2). It is no FVD: no network takes part, and what a clip shows as a whole is not seen.
struct ClipSwd {
  SwdResult frames, steps, spans;
  double mean() const { return (frames.mean + steps.mean + spans.mean) / 3; }
};
class ClipSwdReference {
 public:
  /// Reads the real clips here. Throws kiln::Error where there are fewer than 2 pictures, clips of one frame, or sides below swd.min_level.
  explicit ClipSwdReference(const ClipBytes& real, const ClipSwdOptions& options = {});
  /// fakes of the same size and length, clips() of them at least. Throws kiln::Error otherwise.
  ClipSwd compare(const ClipBytes& fakes) const;
  /// Real against real. Halves of the real pictures may show one clip at two moments: with few clips new ones would be a little farther.
  ClipSwd baseline() const;
  /// Fake clips that compare() needs.
  int64_t clips() const;
  std::string description() const;

 private:
  ClipSwdOptions options_;
  int frames_, height_, width_, per_clip_;
  SwdReference references_[3];
};

/// A row a clip: box-averaged down to side x side pixels (side must divide height and width), grey levels 0 .. 255. [frames * side * side * 3].
FeatureSet clip_descriptors(const ClipBytes& clips, int side);

/// Whether fakes are copies, and how much of a set that can be counted through they reach. Distances: root mean square over a clip's
/// descriptor, grey levels.
struct ClipCoverage {
  double nearest = 0;       ///< mean over fakes of the distance to the nearest real clip
  double real_nearest = 0;  ///< the same of the real clips among themselves (of at most 2000 of them): what is far
  double coverage = 0;      ///< share of the real clips that are nearest to some fake
  double by_chance = 0;     ///< coverage of as many fakes that each were a real clip drawn at random: 1 - (1 - 1/n)^m
  std::vector<int64_t> index;  ///< of every fake's nearest real clip
};
/// Sets of equal dimensions, real of 2 or more.
ClipCoverage clip_coverage(const FeatureSet& real, const FeatureSet& fake);

}  // namespace kiln
