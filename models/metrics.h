// Distances between two sets of pictures: what apps/gan_metrics prints, as a function.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "engine/swd.h"
#include "models/metric_pictures.h"

namespace kiln {

/// One number and how it was made: numbers whose protocols differ are not comparable.
struct Metric {
  std::string key;       ///< for JSON: "swd", "kid_squeezenet"
  std::string name;      ///< for people: "SWD x1e3", "KID x1e3 (SqueezeNet v1.1)"
  double value = 0;
  std::vector<std::pair<std::string, double>> more;  ///< further numbers of the same measurement, by JSON key
  std::string reading;   ///< one line that says what to compare it with
  std::string protocol;  ///< network, resize filter, numbers of pictures
};

/// Sliced Wasserstein distance by the protocol of training's own (engine/swd.h): equal pictures give the number that the log
/// has. `pictures`: a side, at most half of the real ones. Throws kiln::Error where a set is too small.
Metric measure_swd(PictureSource& real, PictureSource& fake, int64_t pictures = SwdOptions().pictures);

}  // namespace kiln
