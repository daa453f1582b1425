#include "models/picture_features.h"

#include <cstring>

#include "engine/error.h"
#include "engine/file.h"
#include "engine/hash.h"
#include "engine/safetensors.h"

namespace kiln {

FeatureCache::FeatureCache(const std::filesystem::path& folder, const FeatureNetwork& network, uint64_t pictures, int size, int64_t count)
    : count_(count), dimensions_(network.dimensions()) {
  if (folder.empty() || pictures == 0) return;
  key_ = fmt::format("1 {} {:016x} {:016x} {} {}", network.key(), network.fingerprint(), pictures, size, count);
  path_ = folder / fmt::format("features-{}-{:016x}.safetensors", network.key(), hash_bytes(key_.data(), key_.size()));
}

bool FeatureCache::load(FeatureSet& out) const {
  if (path_.empty() || !std::filesystem::exists(path_)) return false;
  try {
    const SafetensorsFile file(path_);
    const auto key = file.metadata().find("features_of");
    const TensorView* t = file.find("features");
    if (key == file.metadata().end() || key->second != key_ || !t || t->dtype != "F32" || t->shape != std::vector<int64_t>{count_, dimensions_}) return false;
    out = {count_, dimensions_, std::vector<float>(size_t(count_ * dimensions_))};
    std::memcpy(out.values.data(), t->data, t->bytes);
    return true;
  } catch (const Error&) {  // damaged: it is made again
    return false;
  }
}

void FeatureCache::store(const FeatureSet& f) const {
  if (path_.empty()) return;
  try {
    std::filesystem::create_directories(path_.parent_path());
    write_safetensors(path_, {{"features", "F32", {f.count, f.dimensions}, f.values.data(), f.values.size() * sizeof(float)}}, {{"features_of", key_}});
  } catch (const Error&) {
  } catch (const std::filesystem::filesystem_error&) {
  }
}

Tensor byte_pictures(const uint8_t* bytes, int64_t n, int size) {
  return from_vector(Shape{n, size, size, 3}, std::vector<float>(bytes, bytes + n * size * size * 3));
}

FeatureSet picture_features(MetricPictures& pictures, int64_t count, const FeatureNetwork& network, const FeatureOptions& o) {
  KILN_ASSERT(count >= 1 && (pictures.count() < 0 || count <= pictures.count()));
  const FeatureCache cache(o.cache_folder, network, pictures.fingerprint(), pictures.size(), count);
  FeatureSet out;
  if (cache.load(out)) return out;
  out = {count, network.dimensions(), {}};
  out.values.reserve(size_t(count * network.dimensions()));
  std::vector<uint8_t> bytes;
  for (int64_t first = 0; first < count;) {
    const int64_t n = std::min<int64_t>(o.batch, count - first);
    bytes.resize(size_t(n) * pictures.picture_bytes());
    pictures.read(first, n, bytes.data());
    const std::vector<float> f = network.features(byte_pictures(bytes.data(), n, pictures.size())).to_vector();
    out.values.insert(out.values.end(), f.begin(), f.end());
    first += n;
    if (o.progress) o.progress(first, count);
  }
  cache.store(out);
  return out;
}

}  // namespace kiln
