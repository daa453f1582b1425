// The clips of a training run: which windows a step shows, and where they come from. A set in memory stays where it is; of a
// larger one a thread reads the next steps' windows from its file while a step runs. Both give the same numbers, bit for bit.
#pragma once
#include <memory>
#include <vector>

#include "engine/clip_dataset.h"
#include "engine/picture_source.h"

namespace kiln {

/// Which clips a run shows, and from which source frame on: clips in an endless row of permutations (BatchOrder), the first frame
/// uniform over those where a window of span source frames fits, drawn from (seed, number of the clip since step 0). No state: the
/// step says it all, so that a resumed run or one with other ranks shows the same windows.
class ClipOrder {
 public:
  /// span: source frames of a window, at most those of the shortest clip.
  ClipOrder(const ClipDataset& data, uint64_t seed, int batch, int64_t span, BatchShare share = {});
  struct Window {
    int32_t clip = 0;
    int64_t first = 0;  // source frame of the clip
    bool operator==(const Window&) const = default;
  };
  /// This rank's windows of a step, [batch / ranks].
  std::vector<Window> windows(int64_t step);
  int64_t count() const { return order_.count(); }

 private:
  const ClipDataset& data_;
  BatchOrder order_;
  uint64_t seed_;
  int64_t batch_, span_;
  BatchShare share_;
};

class ClipSource {
 public:
  /// frames: of a window, at the final rate, data->stride() source frames apart: from 1 to data->frames(). Needs a current context. Takes
  /// no memory for a set in memory on a CPU (its bytes on a GPU) but a number a frame; for one in a file kBatchesAhead + 2 batches of bytes.
  ClipSource(std::shared_ptr<const ClipDataset> data, uint64_t seed, int batch, int frames, BatchShare share = {});
  ~ClipSource();

  /// Makes the clips of a step the current ones: steps one after the other, as a run takes them, or any step, which waits for the
  /// disk. Uploads before the step's launches, so that a captured step (StepGraph) reads the new ones. Throws kiln::Error if the
  /// set's file cannot be read.
  void start(int64_t step);
  /// Clips first .. first + n - 1 of this rank's share of the current batch on [-1, 1] in the context's storage type, all frames of
  /// a clip mirrored where flips [n, 1] < flip_below. [n, frames, size, size, 3].
  Tensor gather(int64_t first, int64_t n, const Tensor& flips, float flip_below) const;
  /// Their classes, i32 [n]; zeros in a set without classes.
  Tensor labels(int64_t first, int64_t n) const;
  /// Windows of the whole set as they are, for sheets and metrics: [windows.size(), frames, size, size, 3] on [-1, 1].
  Tensor clips(const std::vector<ClipOrder::Window>& windows) const;

  const ClipDataset& data() const { return *data_; }
  int frames() const { return frames_; }

  static constexpr int kBatchesAhead = 2;

 private:
  std::vector<uint8_t> read(const std::vector<ClipOrder::Window>& windows) const;

  std::shared_ptr<const ClipDataset> data_;
  int frames_;
  ClipOrder order_;
  Tensor pixels_;  // u8 [frames, size, size, 3]: all, or the current batch's
  Tensor index_;   // i32 [share * frames]: in pixels_
  Tensor labels_;  // i32 [share]
  std::unique_ptr<BatchReader> reader_;  // of a set in a file
};

}  // namespace kiln
