#include "models/feature_meter.h"

#include "engine/error.h"
#include "engine/picture_tensor.h"
#include "engine/progress.h"

namespace kiln {
namespace {

std::filesystem::path cache_for(const std::filesystem::path& folder, const Dataset& d, int64_t count) {
  return count == int64_t(d.count()) ? folder : std::filesystem::path();  // a part of a set has no name of its own
}

}  // namespace

FeatureMeter::FeatureMeter(std::unique_ptr<FeatureNetwork> network, std::shared_ptr<const Dataset> real, const std::filesystem::path& cache_folder,
                           int64_t samples)
    : network_(std::move(network)), data_(std::move(real)), count_(std::min(int64_t(data_->count()), kMostReal)), samples_(samples),
      cache_(cache_for(cache_folder, *data_, count_), *network_, data_->fingerprint(), data_->size(), count_) {
  if (count_ < 10) fail("--metric-network: {} pictures are too few for a distance on a network's features; 10 is the least", count_);
  if (!cache_.load(real_)) real_ = {0, network_->dimensions(), {}};
}

std::string FeatureMeter::name() const {
  return fmt::format("{} on {}", network_->standard() ? "KID and FID" : "the kernel distance (KID)", network_->name().substr(0, network_->name().find(',')));
}

std::string FeatureMeter::description() const {
  return fmt::format("{}: {} samples against {} real pictures of {} px, {}; a fortieth of the time at most", name(), samples_, count_, data_->size(), network_->resize());
}

void FeatureMeter::look_at(const uint8_t* bytes, int64_t n, FeatureSet& into) const {
  const std::vector<float> f = network_->features(byte_pictures(bytes, n, data_->size())).to_vector();
  into.values.insert(into.values.end(), f.begin(), f.end());
  into.count += n;
}

bool FeatureMeter::prepare(double seconds) {
  const Stopwatch all;
  std::vector<uint8_t> bytes(size_t(kBatch) * data_->picture_bytes());
  if (real_.count == count_ && batch_seconds_ == 0) {  // from the cache: one batch tells how fast the network is
    const Stopwatch one;
    FeatureSet unused{0, real_.dimensions, {}};
    data_->read(0, bytes.data());
    look_at(bytes.data(), 1, unused);
    batch_seconds_ = one.seconds() * kBatch;
  }
  while (real_.count < count_ && all.seconds() + batch_seconds_ <= seconds) {
    const Stopwatch one;
    const int64_t n = std::min(kBatch, count_ - real_.count);
    for (int64_t i = 0; i < n; i++) data_->read(size_t((real_.count + i) * int64_t(data_->count()) / count_), bytes.data() + size_t(i) * data_->picture_bytes());
    look_at(bytes.data(), n, real_);
    batch_seconds_ = std::max(one.seconds(), 1e-9) * double(kBatch) / double(n);
    if (real_.count == count_) cache_.store(real_);
  }
  return real_.count == count_;
}

std::vector<std::pair<std::string, double>> FeatureMeter::measure(const std::function<Tensor(int64_t, int64_t)>& sample) {
  KILN_ASSERT(real_.count == count_);
  FeatureSet fake{0, real_.dimensions, {}};
  std::vector<uint8_t> bytes;
  while (fake.count < samples_) {
    bytes.clear();
    for (const Picture& p : to_pictures(sample(fake.count, std::min(kBatch, samples_ - fake.count)))) bytes.insert(bytes.end(), p.rgb.begin(), p.rgb.end());
    look_at(bytes.data(), int64_t(bytes.size() / data_->picture_bytes()), fake);
  }
  const std::string suffix = network_->standard() ? "" : "_" + network_->key();
  return {{"kid" + suffix, 1e3 * kernel_distance(real_, fake)}, {"fid" + suffix, frechet_distance(real_, fake)}};
}

}  // namespace kiln
