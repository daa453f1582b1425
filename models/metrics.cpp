#include "models/metrics.h"

#include <cmath>
#include <numeric>

#include "engine/error.h"

namespace kiln {
namespace {

constexpr int64_t kMostPairedUp = 5000;  // pictures a side where time grows with their square
constexpr int kSplits = 10;              // of the real set into halves

/// 0 .. n - 1 in an order that depends on n and seed alone (splitmix64).
std::vector<int64_t> shuffled(int64_t n, uint64_t seed) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  uint64_t state = seed * 0x9E3779B97F4A7C15ull;
  for (int64_t i = n - 1; i > 0; i--) {
    state += 0x9E3779B97F4A7C15ull;
    uint64_t x = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    std::swap(order[size_t(i)], order[size_t((x ^ (x >> 31)) % uint64_t(i + 1))]);
  }
  return order;
}

FeatureSet chosen(const FeatureSet& f, const int64_t* index, int64_t n) {
  FeatureSet out{n, f.dimensions, {}};
  out.values.reserve(size_t(n * f.dimensions));
  for (int64_t i = 0; i < n; i++) out.values.insert(out.values.end(), f.row(index[i]), f.row(index[i]) + f.dimensions);
  return out;
}

/// At most n rows, evenly spread: a folder's order may be by subject.
FeatureSet spread(const FeatureSet& f, int64_t n) {
  if (n >= f.count) return f;
  std::vector<int64_t> index;
  for (int64_t i = 0; i < n; i++) index.push_back(i * f.count / n);
  return chosen(f, index.data(), n);
}

/// A number of pairs of random halves of the real set.
struct Baseline {
  double mean = 0, spread = 0;
  int64_t pictures = 0;  // in each half
};
template <class F>
Baseline between_halves(const FeatureSet& real, int splits, F distance) {
  Baseline b;
  b.pictures = real.count / 2;
  double sum = 0, squares = 0;
  for (int s = 0; s < splits; s++) {
    const std::vector<int64_t> order = shuffled(real.count, uint64_t(s) + 1);
    const double d = distance(chosen(real, order.data(), b.pictures), chosen(real, order.data() + b.pictures, b.pictures));
    sum += d;
    squares += d * d;
  }
  b.mean = sum / splits;
  b.spread = splits > 1 ? std::sqrt(std::max(0.0, (squares - sum * b.mean) / (splits - 1))) : 0;
  return b;
}

}  // namespace

Metric measure_swd(MetricPictures& real, MetricPictures& fake, int64_t pictures) {
  SwdOptions o;
  o.pictures = int(pictures);
  const SwdReference reference([&](int64_t i, uint8_t* to) { real.read(i, 1, to); }, real.count(), real.size(), real.size(), o);
  const int64_t k = reference.pictures();
  if (fake.count() >= 0 && fake.count() < k)
    fail("{}; the distance compares {} pictures a side: add some, or give --pictures {}", fake.description(), k, fake.count());
  // A folder's order may be by subject: k of its pictures are spread over all of them. A generator's first k are those that training
  // measured.
  std::vector<uint8_t> fakes(size_t(k) * fake.picture_bytes());
  if (fake.count() < 0)
    fake.read(0, k, fakes.data());
  else
    for (int64_t i = 0; i < k; i++) fake.read(i * fake.count() / k, 1, fakes.data() + size_t(i) * fake.picture_bytes());
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

std::vector<Metric> measure_features(const FeatureSet& real, const FeatureSet& fake, const FeatureNetwork& network, int size) {
  for (const auto& [name, n] : {std::pair{"real", real.count}, std::pair{"generated", fake.count}})
    if (n < 10) fail("{} {} pictures: distances on a network's features want 10 at least; give more", n, name);
  const std::string suffix = network.standard() ? "" : "_" + network.key();
  const std::string on = network.standard() ? "" : fmt::format(" on {}", network.name().substr(0, network.name().find(',')));
  const auto protocol = [&](int64_t reals, int64_t fakes, const std::string& how) {
    return fmt::format("{}; pictures of {} px, {}; {} real, {} generated; {}", network.name(), size, network.resize(), reals, fakes, how);
  };
  std::vector<Metric> all;
  const auto add = [&](const char* key, const std::string& name, double value, double baseline) -> Metric& {
    Metric m;
    m.key = key + suffix;
    m.name = name + on;
    m.value = value;
    m.more = {{m.key + "_baseline", baseline}};
    all.push_back(std::move(m));
    return all.back();
  };

  const Baseline f = between_halves(real, 1, frechet_distance);
  Metric& fid = add("fid", network.standard() ? "FID" : "Frechet distance", frechet_distance(real, fake), f.mean);
  fid.reading = fmt::format("two halves of the real set ({} pictures each): {:.2f}; the fewer pictures, the larger, so compare at equal numbers only", f.pictures, f.mean);
  fid.protocol = protocol(real.count, fake.count, "exact trace of the root of the covariances' product, double precision");

  const FeatureSet some_real = spread(real, kMostPairedUp), some_fake = spread(fake, kMostPairedUp);
  const Baseline k = between_halves(some_real, kSplits, kernel_distance);
  Metric& kid = add("kid", "KID x1e3", 1e3 * kernel_distance(some_real, some_fake), 1e3 * k.mean);
  kid.more.emplace_back(kid.key + "_baseline_spread", 1e3 * k.spread);
  kid.reading = fmt::format("two halves of the real set ({} pictures each): {:.3f} (+- {:.3f} between splits); 0 in the mean where both sets are alike", k.pictures, 1e3 * k.mean, 1e3 * k.spread);
  kid.protocol = protocol(some_real.count, some_fake.count, "cubic kernel, unbiased over all pairs");

  const int64_t n = std::min(some_real.count, some_fake.count);
  const PrecisionRecall pr = precision_recall(spread(some_real, n), spread(some_fake, n));
  const std::vector<int64_t> order = shuffled(some_real.count, 1);
  const int64_t half = some_real.count / 2;
  const PrecisionRecall reals = precision_recall(chosen(some_real, order.data(), half), chosen(some_real, order.data() + half, half));
  const std::string how = "balls to the 3rd nearest neighbour";
  Metric& precision = add("precision", "precision", pr.precision, reals.precision);
  precision.reading = fmt::format("share of the generated pictures that lie among the real ones; of one half of the real set among the other: {:.3f}", reals.precision);
  precision.protocol = protocol(n, n, how);
  Metric& recall = add("recall", "recall", pr.recall, reals.recall);
  recall.reading = fmt::format("share of the real pictures that lie among the generated ones; of one half of the real set among the other: {:.3f}", reals.recall);
  recall.protocol = protocol(n, n, how);
  return all;
}

Metric measure_lpips(MetricPictures& real, MetricPictures& fake, const Lpips& lpips, int64_t pairs, const std::function<void(int64_t, int64_t)>& progress) {
  if (real.size() < lpips.least_side()) fail("pictures of {} px: {} takes {} at least; give a larger --size", real.size(), lpips.name(), lpips.least_side());
  const auto spread_of = [&](MetricPictures& s, int64_t done, int64_t total, double* error) {
    const int64_t there = s.count() < 0 ? 2 * pairs : s.count(), n = std::min(pairs, there / 2);
    if (n < 1) fail("{}: LPIPS between pictures wants 2 at least", s.description());
    const std::vector<int64_t> order = shuffled(there, 1);
    std::vector<uint8_t> bytes(2 * s.picture_bytes());
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) {
      for (int64_t side = 0; side < 2; side++) s.read(s.count() < 0 ? 2 * i + side : order[size_t(2 * i + side)], 1, bytes.data() + size_t(side) * s.picture_bytes());
      std::vector<float> v(bytes.begin(), bytes.end());
      for (float& x : v) x = x / 127.5f - 1.f;
      const Tensor both = from_vector(Shape{2, s.size(), s.size(), 3}, v);
      const Shape one{1, s.size(), s.size(), 3};
      const NoGrad none;
      const double d = lpips.distance(Var(both.slice(0, one)), lpips.encode(both.slice(one.count(), one))).value.item();
      sum += d;
      squares += d * d;
      if (progress) progress(done + i + 1, total);
    }
    const double mean = sum / double(n);
    *error = n > 1 ? std::sqrt(std::max(0.0, squares / double(n) - mean * mean) / double(n - 1)) : 0;
    return std::pair{mean, n};
  };
  double error = 0, real_error = 0;
  const auto [value, n] = spread_of(fake, 0, 2 * pairs, &error);
  const auto [reals, m] = spread_of(real, pairs, 2 * pairs, &real_error);
  Metric out;
  out.key = "lpips_" + lpips.key();
  out.name = "LPIPS between generated pictures";
  out.value = value;
  out.more = {{out.key + "_error", error}, {out.key + "_real", reals}, {out.key + "_real_error", real_error}};
  out.reading = fmt::format("+- {:.4f}; between real pictures {:.4f} +- {:.4f}: well below it, the generated ones are less varied", error, reals, real_error);
  out.protocol = fmt::format("{}; pictures of {} px, not resized; {} random pairs of generated, {} of real pictures", lpips.name(), real.size(), n, m);
  return out;
}

}  // namespace kiln
