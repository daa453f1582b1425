#include "models/nsbgan_band.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/error.h"
#include "engine/ops.h"
#include "engine/ops_feature.h"
#include "models/nsbgan_band_json.h"

namespace kiln::nsbgan {

const char* name_of(Domain d) { return d == Domain::wavelet ? "wavelet" : "pixels"; }

Domain domain_from_name(const std::string& name) {
  for (const Domain d : {Domain::wavelet, Domain::pixels})
    if (name == name_of(d)) return d;
  fail("the domain '{}' is not known; use wavelet or pixels", name);
}

std::string Band::text() const {
  if (domain == Domain::pixels) return fmt::format("{} px made {} px", picture_size, size());
  return fmt::format("{}, {} level{} of {} px: {} px, 2 (x + {}) / {} - 1", kiln::name_of(wavelet), levels, levels > 1 ? "s" : "", picture_size, size(), shift, scale);
}

void check(const Band& b) {
  if (b.levels < 1 || b.levels > 6) fail("--levels {}: give 1 to 6", b.levels);
  if (b.picture_size >> b.levels << b.levels != b.picture_size || b.size() < 4)
    fail("--levels {}: pictures of {} px cannot be halved that often to 4 px or more; change --levels or --size", b.levels, b.picture_size);
  if (!(b.scale > 0 && std::isfinite(b.scale) && std::isfinite(b.shift))) fail("the normalisation 2 (x + {}) / {} - 1 is none; its scale must be above 0", b.shift, b.scale);
}

std::string mismatch(const Band& sampler, const Band& decoder) {
  const auto differ = [](const std::string& ours, const std::string& theirs, const std::string& remedy) {
    return fmt::format("the sampler makes {}, the decoder takes {}; {}", ours, theirs, remedy);
  };
  if (sampler.domain != decoder.domain)
    return differ(sampler.domain == Domain::pixels ? "small pictures" : "wavelet bands", decoder.domain == Domain::pixels ? "small pictures" : "wavelet bands",
                  fmt::format("use a decoder trained with --domain {}", name_of(sampler.domain)));
  if (sampler.domain == Domain::wavelet && sampler.wavelet != decoder.wavelet)
    return differ(fmt::format("bands of {}", kiln::name_of(sampler.wavelet)), fmt::format("those of {}", kiln::name_of(decoder.wavelet)),
                  fmt::format("use a decoder trained with --wavelet {}", kiln::name_of(sampler.wavelet)));
  if (sampler.levels != decoder.levels)
    return differ(fmt::format("bands of {} levels", sampler.levels), fmt::format("bands of {}", decoder.levels), fmt::format("use a decoder trained with --levels {}", sampler.levels));
  if (sampler.shift != decoder.shift || sampler.scale != decoder.scale)
    return differ(fmt::format("bands normalised by 2 (x + {}) / {} - 1", sampler.shift, sampler.scale), fmt::format("2 (x + {}) / {} - 1", decoder.shift, decoder.scale),
                  fmt::format("they were trained on other pictures, or train one of them with --normalisation {} {}", sampler.shift, sampler.scale));
  return "";
}

void to_json(nlohmann::json& j, const Band& b) {
  j = {{"domain", name_of(b.domain)}, {"levels", b.levels}, {"picture_size", b.picture_size}, {"shift", b.shift}, {"scale", b.scale}};
  if (b.domain == Domain::wavelet) j["wavelet"] = kiln::name_of(b.wavelet);
}

void from_json(const nlohmann::json& j, Band& b) {
  b = {};
  b.domain = domain_from_name(j.at("domain").get<std::string>());
  if (b.domain == Domain::wavelet) b.wavelet = wavelet_from_name(j.at("wavelet").get<std::string>());
  j.at("levels").get_to(b.levels);
  j.at("picture_size").get_to(b.picture_size);
  j.at("shift").get_to(b.shift);
  j.at("scale").get_to(b.scale);
  check(b);
}

Var affine(const Var& x, double a, double b) {
  // Not uploaded: a step that is replayed as a graph reads no ordinary memory.
  const Shape channels{x.value.channels()};
  return affine_activation(x, filled(channels, float(a)), filled(channels, float(b)), 1.f);
}

Var raw_band(const Var& pictures, const Band& b) {
  KILN_ASSERT(pictures.shape()[1] == b.picture_size && pictures.shape()[2] == b.picture_size);
  // On [0, 1] before the transform: bior2.2's borders are zeros there, as the public code pads.
  if (b.domain == Domain::wavelet) return low_band(affine(pictures, 0.5, 0.5), b.wavelet, b.levels);
  return affine(area_resize(pictures, b.size(), b.size()), 0.5, 0.5);
}

Var band_of(const Var& pictures, const Band& b) { return normalise(raw_band(pictures, b), b); }

Var picture_of_band(const Var& band, const Band& b) {
  KILN_ASSERT(band.shape()[1] == b.size() && band.shape()[2] == b.size());
  const Var raw = denormalise(band, b);
  return affine(b.domain == Domain::wavelet ? from_low_band(raw, b.wavelet, b.levels) : bilinear_resize(raw, b.picture_size, b.picture_size), 2, -1);
}

Band measure(const Dataset& data, Band b) {
  KILN_ASSERT(data.size() == b.picture_size);
  if (b.domain == Domain::pixels) {
    b.shift = 0, b.scale = 1;
    return b;
  }
  const NoGrad none;
  double smallest = 0, largest = 0;
  constexpr size_t kAtOnce = 32;
  const size_t row = size_t(b.picture_size) * 3;
  std::vector<uint8_t> bytes(data.picture_bytes());
  for (size_t first = 0; first < data.count(); first += kAtOnce) {
    const size_t n = std::min(kAtOnce, data.count() - first);
    std::vector<float> values(2 * n * bytes.size());
    for (size_t i = 0; i < n; i++) {
      data.read(first + i, bytes.data());
      float* plain = values.data() + 2 * i * bytes.size();
      float* mirrored = plain + bytes.size();  // the levels do not pair the same columns
      for (size_t k = 0; k < bytes.size(); k++) {
        const size_t x = k % row / 3, at = k - x * 3 + (size_t(b.picture_size) - 1 - x) * 3;
        plain[k] = mirrored[at] = float(bytes[k]) / 127.5f - 1.f;
      }
    }
    const Var pictures(from_vector(Shape{int64_t(2 * n), b.picture_size, b.picture_size, 3}, values));
    for (const float v : raw_band(pictures, b).value.to_vector()) {
      smallest = std::min(smallest, double(v));
      largest = std::max(largest, double(v));
    }
  }
  const auto up = [](double v) { return std::ceil(v - 1e-4); };  // rounding does not add a whole one
  b.shift = up(-smallest) + 0.0;                                 // not -0
  b.scale = std::max(1.0, b.shift + up(largest));
  return b;
}

}  // namespace kiln::nsbgan
