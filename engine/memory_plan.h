// The memory that a training run will need, told before it starts: the tensors of a planning context, and what lies around
// them.
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/context.h"
#include "engine/training_run.h"

namespace kiln {

struct MemoryPlan {
  // Bytes.
  size_t tensors = 0;   // live at the peak
  size_t arena = 0;     // what they take of the system: with the gaps between them
  size_t pictures = 0;  // in memory as bytes: all of a set that fits, or the batches that are read ahead
  size_t distance = 0;  // the sliced Wasserstein distance's, between measurements
  size_t passing = 0;   // more for a while: the distance being built or compared, or the sheets of pictures
  size_t program = 0;   // the program, its libraries, and the code that oneDNN makes for each convolution
  size_t decoding = 0;  // all that the process takes while it decodes pictures, before there are tensors

  /// The most that the process will take.
  size_t total() const { return std::max(arena + pictures + distance + passing + program, decoding); }
  /// A few lines for people.
  std::string text() const;
};

/// What a model's run has beside what every run has.
struct MemoryExtras {
  struct Distance {
    int64_t pictures;
    int side;
  };
  std::vector<Distance> distances;  // further references of the sliced Wasserstein distance
  int64_t sheet_pictures = 0;      // on the largest of its sheets
};

/// `planned`: a planning context in which everything that allocates has been run. pictures: the set, of side pixels a
/// picture; none if it is not known. at_start: what the process took before anything was planned. Called in the program that will
/// train, or one like it.
MemoryPlan plan_memory(const Context& planned, const RunPlan& run, const DatasetSurvey& pictures, int side, uint64_t max_picture_bytes, int threads,
                       size_t at_start, const MemoryExtras& extras = {});

}  // namespace kiln
