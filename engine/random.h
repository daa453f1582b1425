// Where random numbers come from. Sites have names ("z", "noise.0", "augment.real"); a draw depends on (seed, site, step,
// picture's index in the whole batch) and on nothing else: not on device, batch split, rank or what was drawn before.
#pragma once
#include <cstdint>
#include <string_view>

#include "engine/tensor.h"

namespace kiln {

uint32_t site_id(std::string_view site);  // FNV-1a of the name

/// Interface, so that tests can replay numbers from a file.
class RandomSource {
 public:
  virtual ~RandomSource() = default;
  /// f32 tensors; axis 0 of the shape counts pictures (samples).
  virtual Tensor normal(std::string_view site, const Shape& shape) = 0;
  virtual Tensor uniform(std::string_view site, const Shape& shape) = 0;
  /// Index, in the whole batch, of the first picture that later draws are for (a batch in parts, or on several ranks).
  virtual void set_first_sample(int64_t) {}
};

/// Philox4x32-10 streams (kernels/random). The step lives in device memory, so that a captured graph can advance it.
class Philox : public RandomSource {
 public:
  explicit Philox(uint64_t seed);
  Tensor normal(std::string_view site, const Shape& shape) override;
  Tensor uniform(std::string_view site, const Shape& shape) override;

  uint64_t seed() const { return seed_; }
  uint64_t step() const { return step_; }
  void set_step(uint64_t step);
  /// Keeps the step in this device memory (one uint64, i32 [2]) from now on, as it is there: a training step that ends by
  /// counting it up draws new numbers in the next with the same launches. step() knows of set_step only.
  void keep_step_in(const Tensor& memory) { device_step_ = memory; }
  void set_first_sample(int64_t first) override { first_sample_ = first; }

 private:
  uint64_t seed_, step_ = 0;
  int64_t first_sample_ = 0;
  Tensor device_step_;
};

/// One seed a picture: picture k of a batch gets what Philox(seeds[k]) draws for its first picture at that step. So a picture
/// is its seed's, whatever the batch that it is made in.
class PictureSeeds : public RandomSource {
 public:
  explicit PictureSeeds(std::vector<uint64_t> seeds, uint64_t step = 0);
  Tensor normal(std::string_view site, const Shape& shape) override;  // axis 0: as many as there are seeds
  Tensor uniform(std::string_view site, const Shape& shape) override;

 private:
  std::vector<uint64_t> seeds_;
  Tensor device_step_;
};

/// A permutation of 0..n-1 from (seed, site, epoch), made on the host: the order in which an epoch shows its pictures.
std::vector<int32_t> permutation(uint64_t seed, std::string_view site, uint64_t epoch, int64_t n);

}  // namespace kiln
