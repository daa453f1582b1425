// Distances between two sets of pictures: what apps/gan_metrics prints, as functions.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "engine/swd.h"
#include "models/lpips.h"
#include "models/picture_features.h"

namespace kiln {

/// One number and how it was made: numbers whose protocols differ are not comparable.
struct Metric {
  std::string key;       ///< for JSON: "swd", "fid", "kid_squeezenet"
  std::string name;      ///< for people: "SWD x1e3", "KID x1e3 on SqueezeNet v1.1"
  double value = 0;
  std::vector<std::pair<std::string, double>> more;  ///< further numbers of the same measurement, by JSON key
  std::string reading;   ///< one line that says what to compare it with
  std::string protocol;  ///< network, resize filter, numbers of pictures
};

/// Sliced Wasserstein distance by the protocol of training's own (engine/swd.h): equal pictures give the number that the log
/// has. `pictures`: a side, at most half of the real ones. Throws kiln::Error where a set is too small.
Metric measure_swd(MetricPictures& real, MetricPictures& fake, int64_t pictures = SwdOptions().pictures);

/// Frechet distance (FID on Inception), kernel distance (KID), precision and recall of two sets as a network sees them
/// (engine/feature_distance.h), each beside the same number of two halves of the real set. Only numbers on the network that FID is
/// defined with are called FID and KID; any other's carry its name. Kernel distance and precision/recall take at most 5000 pictures a
/// side, the latter as many of the one side as of the other. `size`: the side of the pictures that the network was given. Throws
/// kiln::Error where a set has fewer than 10 pictures.
std::vector<Metric> measure_features(const FeatureSet& real, const FeatureSet& fake, const FeatureNetwork& network, int size);

/// Mean LPIPS between the pictures of random pairs of fakes, beside that of as many pairs of real ones: how varied they are. Throws
/// kiln::Error where a set has fewer than 2 pictures, or they are smaller than the network takes.
Metric measure_lpips(MetricPictures& real, MetricPictures& fake, const Lpips& lpips, int64_t pairs, const std::function<void(int64_t, int64_t)>& progress = {});

}  // namespace kiln
