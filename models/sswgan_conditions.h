// What a later stage is trained on beside real clips: windows of clips that the frozen stages before it make. The generators run in a
// context of their own, so that the training's memory has nothing of them and of the clips' length.
#pragma once
#include <memory>
#include <vector>

#include "engine/picture_source.h"
#include "models/sswgan_sampler.h"

namespace kiln::sswgan {

class ConditionSource {
 public:
  /// Windows of `window` frames of the sampler's last stage's clips, `batch` a step. kept: clips that are made now and shown again and again, each
  /// at every offset as often as at any other; 0: new clips for every step. Needs a current context.
  ConditionSource(std::shared_ptr<Sampler> sampler, int window, int kept, uint64_t seed, int batch, BatchShare share);

  /// Makes the windows of a step the current ones; uploads.
  void start(int64_t step);
  /// Windows first .. first + n - 1 of this rank's share of the current step, in the context's storage type, with their labels.
  ConditionPart part(int64_t first, int64_t n) const;

 private:
  void make(const std::vector<ClipDraw>& draws);

  std::shared_ptr<Sampler> sampler_;
  int64_t window_, frames_, frame_floats_, offsets_;
  uint64_t seed_;
  int batch_, kept_;
  BatchShare share_;
  BatchOrder order_;
  std::vector<float> clips_;     // [clips, frames, s, s, 3]
  std::vector<int32_t> labels_;  // of them
  Tensor windows_, window_labels_;
  std::vector<float> staged_;
};

/// The classes that clips without a wish are made of, in turn.
inline int label_of(const Config& c, uint64_t number) { return int(number % uint64_t(std::max(c.classes, 1))); }

}  // namespace kiln::sswgan
