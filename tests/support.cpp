#include "tests/support.h"

#include <cstdlib>
#include <cstring>

#include "engine/error.h"
#include "kernels/augment.h"

namespace kiln::test {

Device test_device() {
  const char* name = std::getenv("KILN_TEST_DEVICE");
  return name && std::string(name) == "gpu" ? Device::gpu : Device::cpu;
}

static uint64_t fnv1a64(const std::string& name) {
  uint64_t h = 0xcbf29ce484222325ull;
  for (char c : name) h = (h ^ uint8_t(c)) * 0x100000001b3ull;
  return h;
}

static float hashed(uint64_t base, uint64_t i) {
  uint64_t x = base + i + 0x9e3779b97f4a7c15ull;
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ull;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebull;
  x ^= x >> 31;
  return float(x >> 40) * 5.9604644775390625e-8f;
}

float hash_uniform(const std::string& name, uint64_t i) { return hashed(fnv1a64(name), i); }

std::vector<float> hashed_uniform(const std::string& name, int64_t n) {
  std::vector<float> v(static_cast<size_t>(n));
  const uint64_t base = fnv1a64(name);
  for (size_t i = 0; i < v.size(); i++) v[i] = hashed(base, i);
  return v;
}

std::vector<float> hashed_signed(const std::string& name, int64_t n) {
  std::vector<float> v = hashed_uniform(name, n);
  for (float& x : v) x = 2.0f * x - 1.0f;
  return v;
}

std::vector<float> hashed_normal(const std::string& name, int64_t n) {
  std::vector<float> v = hashed_signed(name, n);
  for (float& x : v) x *= 1.7320508f;
  return v;
}

std::vector<float> hashed_initial(const std::string& name, int64_t n) {
  const auto ends = [&](const char* s) { return name.size() >= std::strlen(s) && name.ends_with(s); };
  const size_t dot = name.rfind('.'), before = name.rfind('.', dot - 1);
  const std::string leaf = name.substr(dot + 1), part = name.substr(before + 1, dot - before - 1);
  const bool norm = part.starts_with("bn");
  std::vector<float> v = hashed_signed(name, n);
  if (ends(".running_mean")) return std::vector<float>(static_cast<size_t>(n), 0.f);
  if (ends(".running_var")) return std::vector<float>(static_cast<size_t>(n), 1.f);
  if (leaf == "u" || leaf == "v") {
    double s = 0;
    for (float x : v) s += double(x) * double(x);
    for (float& x : v) x = float(double(x) / std::sqrt(s));
  } else if (norm && leaf == "bias" && name.starts_with("D.") && !name.starts_with("D.decoder")) {
    for (float& x : v) x = 0.25f * x + (x < 0 ? -0.75f : 0.75f);
  } else if (leaf == "bias" || part.starts_with("noise")) {
    for (float& x : v) x = 0.125f * x;
  } else if (norm) {
    for (float& x : v) x = 0.5f + 0.0625f * x;
  } else {
    for (float& x : v) x = 4.0f * x;
  }
  return v;
}

double relative_error(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0, scale = 1e-30;
  for (size_t i = 0; i < a.size(); i++) {
    const double d = std::abs(double(a[i]) - double(b[i]));
    worst = d > worst || d != d ? d : worst;
    scale = std::max(scale, std::abs(double(b[i])));
  }
  return worst / scale;
}

double golden_error(const SafetensorsFile& file, const std::string& name, const std::vector<float>& whole) {
  const TensorView& view = file.at(name);
  std::vector<float> expected(view.bytes / 4);
  std::memcpy(expected.data(), view.data, view.bytes);
  size_t stride = 1;
  if (whole.size() > 2048) {
    stride = (whole.size() + 2047) / 2048;
    if (stride % 2 == 0) stride++;
  }
  std::vector<float> subset;
  for (size_t i = 0; i < whole.size(); i += stride) subset.push_back(whole[i]);
  INFO(name);
  REQUIRE(subset.size() == expected.size());
  double error = relative_error(subset, expected);
  // The moments see the elements that the subset does not.
  const TensorView* moments = file.find(name + ".moments");
  if (moments) {
    double m[2], s = 0, q = 0;
    std::memcpy(m, moments->data, sizeof m);
    for (float x : whole) {
      s += double(x);
      q += double(x) * double(x);
    }
    const double n = double(whole.size());
    if (m[1] > 0) {
      error = std::max(error, std::abs(s - m[0]) / std::sqrt(n * m[1]));
      error = std::max(error, 0.5 * std::abs(q - m[1]) / m[1]);
    }
  }
  return error;
}

Tensor ReplaySource::normal(std::string_view site, const Shape& shape) {
  return from_vector(shape, hashed_normal(std::string(site) + suffix, shape.count()));
}

Tensor ReplaySource::uniform(std::string_view site, const Shape& shape) {
  const std::string s(site);
  if (s == "part") return from_vector(shape, {(float(part) + 0.5f) / 4.0f});
  if (s.starts_with("margin.")) {
    // One flat list of 50 n: all of the big path, then all of the small one.
    const bool small = s.ends_with(".small");
    const std::string name = s.substr(0, s.rfind('.')) + suffix;
    const int64_t n = shape.count();
    const std::vector<float> all = hashed_uniform(name, 2 * n);
    return from_vector(shape, std::vector<float>(all.begin() + (small ? n : 0), all.begin() + (small ? 2 * n : n)));
  }
  if (s.starts_with("augment.")) {
    const std::string base = "aug." + s.substr(8) + ".";
    const char* names[kAugmentUniforms] = {"brightness", "saturation", "contrast", "shift_h", "shift_w", "cutout_h", "cutout_w"};
    std::vector<float> v(static_cast<size_t>(shape.count()));
    const size_t n = size_t(shape[0]);
    for (size_t k = 0; k < kAugmentUniforms; k++) {
      const std::vector<float> u = hashed_uniform(base + names[k] + suffix, int64_t(n));
      for (size_t i = 0; i < n; i++) v[i * kAugmentUniforms + k] = u[i];
    }
    return from_vector(shape, v);
  }
  return from_vector(shape, hashed_uniform(s + suffix, shape.count()));
}

}  // namespace kiln::test
