#include "engine/growth_alarm.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace kiln {

std::optional<GrowthAlarm::Growth> GrowthAlarm::look(const std::string& name, int64_t step, double value) {
  Layer& l = layers_[name];
  if (!(value > 0) || !std::isfinite(value)) return std::nullopt;  // what is not finite ends the run elsewhere
  if (!l.values.empty() && step <= l.values.back().first) return std::nullopt;
  l.values.emplace_back(step, std::log(value));
  // The newest look that is a whole window old stays in front.
  while (l.values.size() > 1 && l.values[1].first <= step - options_.window) l.values.pop_front();
  const auto& [then, before] = l.values.front();
  if (step - then < options_.window) return std::nullopt;
  const double growth = l.values.back().second - before, rate = growth / double(step - then);
  bool alarm = false;
  double median = 0;
  if (l.rates.size() >= options_.enough) {
    std::vector<double> sorted;
    for (double r : l.rates) sorted.push_back(std::abs(r));
    std::nth_element(sorted.begin(), sorted.begin() + int64_t(sorted.size() / 2), sorted.end());
    median = sorted[sorted.size() / 2];
    alarm = rate > options_.times * median && growth > std::log(options_.least);
  }
  if (!alarm) {  // a rate that alarms is no part of what is usual
    l.rates.push_back(rate);
    if (l.rates.size() > options_.history) l.rates.pop_front();
  }
  const bool speaks = alarm && !l.told;
  l.told = alarm;
  if (!speaks) return std::nullopt;
  return Growth{then, fmt::format("the largest singular value of {} grew from {:.2f} to {:.2f} in {} steps, more than {:.0f} times its usual pace: the "
                                  "generator may be collapsing",
                                  name, std::exp(before), value, step - then, options_.times)};
}

}  // namespace kiln
