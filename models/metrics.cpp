#include "models/metrics.h"

#include "engine/error.h"

namespace kiln {
namespace {

std::vector<uint8_t> read_all(PictureSource& source, int64_t n) {
  std::vector<uint8_t> bytes(size_t(n) * source.picture_bytes());
  source.read(0, n, bytes.data());
  return bytes;
}

}  // namespace

Metric measure_swd(PictureSource& real, PictureSource& fake, int64_t pictures) {
  SwdOptions o;
  o.pictures = pictures;
  const std::vector<uint8_t> reals = read_all(real, real.count());
  const SwdReference reference(reals.data(), real.count(), real.size(), real.size(), o);
  const int64_t k = reference.pictures();
  if (fake.count() >= 0 && fake.count() < k)
    fail("{}; the distance compares {} pictures a side: add some, or give --pictures {}", fake.description(), k, fake.count());
  const std::vector<uint8_t> fakes = read_all(fake, k);
  const SwdResult r = reference.compare(fakes.data(), k);
  Metric m;
  m.key = "swd";
  m.name = "SWD x1e3";
  m.value = r.mean;
  const double baseline = reference.baseline().mean, spread = reference.baseline_spread();
  m.more = {{"swd_baseline", baseline}, {"swd_baseline_spread", spread}};
  const std::vector<int> levels = reference.levels();
  for (size_t i = 0; i < levels.size(); i++) m.more.emplace_back(fmt::format("swd_{}", levels[i]), r.per_level[i]);
  m.reading = fmt::format("real against real {:.2f} (+- {:.2f} between splits): a perfect generator reaches it, one well below repeats its training pictures", baseline, spread);
  m.protocol = reference.description();
  return m;
}

}  // namespace kiln
