// GrowthAlarm: a layer whose largest singular value suddenly grows. Collapse of a large GAN announces itself so: for long the values creep
// up, each at its own pace, then one of the generator's layers (the first linear one, in BigGAN's published run) multiplies its own within
// two thousand steps (Brock et al. 2019, section 4.1 and appendix F).
//
//   rate    growth of log(value) a step, over the last `window` steps
//   alarm   rate above `times` the median size of the layer's past rates, and the value at least `least` times what it was a window ago
//
// A layer speaks once, and again after its rate has been below the limit. Spikes of a discriminator recover by themselves: watch generators.
#pragma once
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace kiln {

struct GrowthOptions {
  int64_t window = 500;  // steps
  double times = 10, least = 1.25;
  size_t history = 200;  // past rates behind the median, at most
  size_t enough = 10;    // and at least
};

class GrowthAlarm {
 public:
  explicit GrowthAlarm(GrowthOptions options = {}) : options_(options) {}
  struct Growth {
    int64_t since;  // the step that the window begins with
    std::string text;  // what happened
  };
  /// Looks at a layer's value at a step; steps ascend. What happened, if it speaks.
  std::optional<Growth> look(const std::string& layer, int64_t step, double value);

 private:
  struct Layer {
    std::deque<std::pair<int64_t, double>> values;  // of the last window: step, log(value)
    std::deque<double> rates;
    bool told = false;
  };
  GrowthOptions options_;
  std::map<std::string, Layer> layers_;
};

}  // namespace kiln
