// The pictures of a training run: which ones a step shows, and where they come from. A set in memory stays where it is; of a
// larger one a thread reads the next batches from its file while a step runs. Both give the same numbers, bit for bit.
#pragma once
#include <memory>
#include <vector>

#include "engine/dataset.h"
#include "engine/ops.h"

namespace kiln {

/// What a rank takes of a batch that is computed in parts: of each part an equal share, the ranks' one behind the other.
struct BatchShare {
  int rank = 0, ranks = 1, parts = 1;
  /// Where picture i of this rank's share lies in the whole batch of `batch` pictures, which ranks * parts must divide.
  int64_t place(int64_t i, int64_t batch) const {
    const int64_t n = batch / (int64_t(ranks) * parts);
    return (i / n * ranks + rank) * n + i % n;
  }
};

/// The order in which a run shows its pictures: an endless row of permutations, cut into batches. It has no state: the step
/// says it all, so that a resumed run needs none, and neither does one with another number of ranks.
class BatchOrder {
 public:
  BatchOrder(uint64_t seed, int64_t pictures, int batch, BatchShare share = {})
      : seed_(seed), pictures_(pictures), batch_(batch), share_(share) {}
  /// Of these pictures only, which are not none.
  BatchOrder(uint64_t seed, std::vector<int32_t> only, int batch, BatchShare share)
      : seed_(seed), pictures_(int64_t(only.size())), batch_(batch), share_(share), only_(std::move(only)) {}
  /// Indices of step's pictures that are this rank's, [batch / ranks]. Cheap where the step's epoch is that of the last call.
  std::vector<int32_t> indices(int64_t step);
  int64_t count() const { return batch_ / share_.ranks; }  // of them

 private:
  uint64_t seed_;
  int64_t pictures_;
  int batch_;
  BatchShare share_;
  uint64_t epoch_ = ~0ull;
  std::vector<int32_t> order_, only_;
};

class BatchReader;

class PictureSource {
 public:
  /// Needs a current context. Takes no memory for a set in memory but a number a picture; for one in a file kBatchesAhead + 2
  /// batches of bytes.
  PictureSource(std::shared_ptr<const Dataset> data, uint64_t seed, int batch, BatchShare share = {});
  /// Batches of these pictures only: the others are held out.
  PictureSource(std::shared_ptr<const Dataset> data, std::vector<int32_t> only, uint64_t seed, int batch, BatchShare share);
  ~PictureSource();

  /// Makes the pictures of a step the current ones: steps one after the other, as a run takes them, or any step, which waits
  /// for the disk. Throws kiln::Error if the set's file cannot be read.
  void start(int64_t step);
  /// Pictures first .. first + n - 1 of this rank's share of the current batch on [-1, 1], mirrored where flips [n, 1] < flip_below, and augmented;
  /// uniforms [n, kAugmentUniforms] are read if the policy does anything. [n, h, w, 3].
  Tensor gather(int64_t first, int64_t n, const Tensor& flips, float flip_below, const AugmentPolicy& policy,
                const Tensor& uniforms) const;
  /// Pictures index[k] of the whole set on [-1, 1], as they are: for sheets. [n, h, w, 3].
  Tensor pictures(const std::vector<int32_t>& index) const;

  const Dataset& data() const { return *data_; }

  static constexpr int kBatchesAhead = 2;

 private:
  PictureSource(std::shared_ptr<const Dataset> data, BatchOrder order);
  std::shared_ptr<const Dataset> data_;
  BatchOrder order_;
  int64_t batch_;  // pictures of the share
  std::unique_ptr<PictureSet> set_;  // all pictures, or the current batch
  Tensor index_;                     // of the current batch, in set_
  std::unique_ptr<BatchReader> reader_;   // of a set in a file
};

}  // namespace kiln
