// Does a generator copy? Every generated picture beside the training pictures that are nearest to it.
#pragma once
#include "models/metrics.h"

namespace kiln {

struct NearestOptions {
  int64_t fakes = 256;  ///< generated pictures looked at, the first ones
  int rows = 16;        ///< of the sheet: half of them the nearest to a real picture, half the first of the rest
  int columns = 4;      ///< real pictures a row and way of looking, nearest first
};

struct NearestSheet {
  Metric metric;
  /// A row: the generated picture, then the nearest real ones by pixels, then, where a network was given, those by its features.
  Picture sheet;
};

/// Distances by pixels: Euclidean, of both pictures at 32 x 32, real ones also mirrored, since training mirrors. With features of
/// all real and of the first fakes (as many as `fakes` at least), by these too. The metric is the median over fakes of the distance
/// to the nearest real picture, over the same median for the real pictures among themselves: 1 where fakes are as far from the
/// real ones as those are from each other, near 0 for copies; by features where there are some. Throws kiln::Error where there
/// are fewer than 5 real pictures.
NearestSheet nearest_sheet(MetricPictures& real, MetricPictures& fake, const NearestOptions& o = {}, const FeatureNetwork* network = nullptr,
                           const FeatureSet* real_features = nullptr, const FeatureSet* fake_features = nullptr);

}  // namespace kiln
