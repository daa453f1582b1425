#include "models/sswgan_conditions.h"

#include <algorithm>
#include <cstdint>

#include "engine/error.h"
#include "engine/ops_feature.h"

namespace kiln::sswgan {
namespace {

constexpr uint64_t kConditionSeed = 1ull << 41;  // seeds that nobody asks for

/// Windows of all kept clips, which are counted in 31 bits.
int64_t windows_of(int kept, int64_t offsets) {
  const int64_t all = std::max<int64_t>(kept, 1) * offsets;
  if (all > INT32_MAX) fail("--cond-clips {}: with {} windows each these are more than {}; keep fewer clips", kept, offsets, INT32_MAX);
  return all;
}

}  // namespace

ConditionSource::ConditionSource(std::shared_ptr<Sampler> sampler, int window, int kept, uint64_t seed, int batch, BatchShare share)
    : sampler_(std::move(sampler)), window_(window), frames_(sampler_->frames(0)), offsets_(frames_ - window + 1), seed_(seed), batch_(batch),
      kept_(kept), share_(share), order_(seed ^ kConditionSeed, windows_of(kept, offsets_), batch, share) {
  KILN_ASSERT(offsets_ >= 1);
  const int64_t side = sampler_->config().stage(sampler_->stages()).size, count = batch / share.ranks;
  frame_floats_ = side * side * 3;
  windows_ = Tensor(Shape{count, window_, side, side, 3});
  window_labels_ = Tensor(Shape{count}, DType::i32);
  staged_.resize(size_t(windows_.count()));
  if (kept == 0) return;
  std::vector<ClipDraw> draws;
  for (int i = 0; i < kept; i++) draws.push_back({kConditionSeed + uint64_t(i) + (seed_ << 44), label_of(sampler_->config(), uint64_t(i))});
  make(draws);
}

void ConditionSource::make(const std::vector<ClipDraw>& draws) {
  clips_ = sampler_->numbers(draws);
  labels_.clear();
  for (const ClipDraw& d : draws) labels_.push_back(d.label);
}

void ConditionSource::start(int64_t step) {
  const int64_t count = windows_.shape()[0];
  std::vector<int32_t> labels(static_cast<size_t>(count));
  std::vector<int32_t> which;  // clip * offsets + offset
  if (kept_ > 0) {
    which = order_.indices(step);
  } else {
    std::vector<ClipDraw> draws;
    const std::vector<int32_t> offsets = permutation(seed_, "condition.offset", uint64_t(step), offsets_);
    for (int64_t i = 0; i < count; i++) {
      const uint64_t place = uint64_t(share_.place(i, batch_)), number = uint64_t(step) * uint64_t(batch_) + place;
      draws.push_back({kConditionSeed + number + (seed_ << 44), label_of(sampler_->config(), number)});
      which.push_back(int32_t(i * offsets_ + offsets[size_t(place) % offsets.size()]));
    }
    make(draws);
  }
  const int64_t per = window_ * frame_floats_;
  for (int64_t i = 0; i < count; i++) {
    const int64_t clip = which[size_t(i)] / offsets_, offset = which[size_t(i)] % offsets_;
    const auto from = clips_.begin() + (clip * frames_ + offset) * frame_floats_;
    std::copy(from, from + per, staged_.begin() + i * per);
    labels[size_t(i)] = labels_[size_t(clip)];
  }
  windows_.upload(staged_.data());
  window_labels_.upload(labels.data());
}

ConditionPart ConditionSource::part(int64_t first, int64_t n) const {
  const int64_t per = window_ * frame_floats_;
  return {converted(windows_.slice(first * per, windows_.shape().with(0, n)), context().storage), window_labels_.slice(first, Shape{n})};
}

}  // namespace kiln::sswgan
