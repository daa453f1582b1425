#include "engine/growth_alarm.h"

#include <doctest/doctest.h>

#include <cmath>

using namespace kiln;

namespace {

/// Values every 50 steps; returns the steps at which it spoke.
template <class F>
std::vector<int64_t> alarms(int64_t steps, F value) {
  GrowthAlarm a;
  std::vector<int64_t> out;
  for (int64_t s = 0; s <= steps; s += 50)
    if (a.look("linear", s, value(double(s)))) out.push_back(s);
  return out;
}

}  // namespace

TEST_CASE("growth alarm: a steady growth, however far, and noise are nothing") {
  CHECK(alarms(100000, [](double s) { return 1 + s * 1e-3; }).empty());
  CHECK(alarms(20000, [](double s) { return 5 + std::sin(s); }).empty());
  CHECK(alarms(20000, [](double) { return 2.0; }).empty());
  CHECK(alarms(20000, [](double s) { return std::exp(s * 1e-3); }).empty());  // fast, but always so
}

TEST_CASE("growth alarm: a sudden one is told once, soon, in words") {
  // The published run: 5 to 12 for 138,000 steps, above 40 within two thousand.
  const auto published = [](double s) { return s < 138000 ? 5 + s * 5e-5 : 12 * std::exp((s - 138000) / 2000 * std::log(40 / 12.)); };
  const std::vector<int64_t> told = alarms(140000, published);
  REQUIRE(told.size() == 1);
  CHECK(told[0] > 138000);
  CHECK(told[0] <= 139200);
  GrowthAlarm a;
  std::string text;
  int64_t since = 0;
  for (int64_t s = 0; s < 140000 && text.empty(); s += 50)
    if (const auto t = a.look("linear", s, published(double(s)))) text = t->text, since = t->since;
  CHECK(text.find("linear") != std::string::npos);
  CHECK(since == told[0] - 500);
}

TEST_CASE("growth alarm: a spike that recovers is told again when it comes again; layers do not mix") {
  const auto spikes = [](double s) { return std::fmod(s, 20000) < 10000 ? 3.0 : 9.0; };
  CHECK(alarms(60000, spikes).size() == 3);
  GrowthAlarm a;
  for (int64_t s = 0; s < 20000; s += 50) {
    CHECK(!a.look("one", s, 1));
    CHECK(!a.look("two", s, 100));
  }
  CHECK(!a.look("one", 20000, std::nan("")));
  CHECK(!a.look("one", 20000, -1));
}
