#include "engine/random.h"

#include "engine/context.h"
#include "engine/error.h"
#include "kernels/philox.h"
#include "kernels/random.h"

namespace kiln {

uint32_t site_id(std::string_view site) {
  uint32_t h = 2166136261u;
  for (char c : site) h = (h ^ uint8_t(c)) * 16777619u;
  return h;
}

Philox::Philox(uint64_t seed) : seed_(seed), device_step_(Shape{2}, DType::i32) { set_step(0); }

void Philox::set_step(uint64_t step) {
  step_ = step;
  device_step_.upload(&step_);
}

Tensor Philox::normal(std::string_view site, const Shape& shape) {
  Tensor out(shape);
  const int64_t per = shape.count() / shape[0];
  KILN_RUN(Work::data, random_normal(stream, seed_, site_id(site), device_step_.as<uint64_t>(), first_sample_, shape[0], per, out.f32()));
  return out;
}

Tensor Philox::uniform(std::string_view site, const Shape& shape) {
  Tensor out(shape);
  const int64_t per = shape.count() / shape[0];
  KILN_RUN(Work::data, random_uniform(stream, seed_, site_id(site), device_step_.as<uint64_t>(), first_sample_, shape[0], per, out.f32()));
  return out;
}

PictureSeeds::PictureSeeds(std::vector<uint64_t> seeds, uint64_t step) : seeds_(std::move(seeds)), device_step_(Shape{2}, DType::i32) {
  device_step_.upload(&step);
}

Tensor PictureSeeds::normal(std::string_view site, const Shape& shape) {
  KILN_ASSERT(shape[0] == int64_t(seeds_.size()));
  Tensor out(shape);
  const int64_t per = shape.count() / shape[0];
  for (size_t k = 0; k < seeds_.size(); k++)
    KILN_RUN(Work::data, random_normal(stream, seeds_[k], site_id(site), device_step_.as<uint64_t>(), 0, 1, per, out.f32() + int64_t(k) * per));
  return out;
}

Tensor PictureSeeds::uniform(std::string_view site, const Shape& shape) {
  KILN_ASSERT(shape[0] == int64_t(seeds_.size()));
  Tensor out(shape);
  const int64_t per = shape.count() / shape[0];
  for (size_t k = 0; k < seeds_.size(); k++)
    KILN_RUN(Work::data, random_uniform(stream, seeds_[k], site_id(site), device_step_.as<uint64_t>(), 0, 1, per, out.f32() + int64_t(k) * per));
  return out;
}

std::vector<int32_t> permutation(uint64_t seed, std::string_view site, uint64_t epoch, int64_t n) {
  std::vector<int32_t> p(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; i++) p[size_t(i)] = int32_t(i);
  const uint32_t id = site_id(site);
  for (int64_t i = n - 1; i > 0; i--) {
    // 64 random bits modulo at most 2^31: the bias is below 2^-33.
    const philox::Words w = philox::block({uint32_t(i), uint32_t(epoch), id, uint32_t(epoch >> 32)}, uint32_t(seed), uint32_t(seed >> 32));
    const uint64_t r = (uint64_t(w.x) << 32 | w.y) % uint64_t(i + 1);
    std::swap(p[size_t(i)], p[size_t(r)]);
  }
  return p;
}

}  // namespace kiln
