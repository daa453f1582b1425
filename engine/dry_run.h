// --dry-run of every training program: a run's own code on imaginary addresses, then its layers and the memory that it will need.
#pragma once
#include <string>
#include <vector>

#include "engine/layer_table.h"
#include "engine/memory_plan.h"
#include "engine/training_options.h"

namespace kiln {

class DryRun {
 public:
  /// Surveys the pictures, of side x side pixels, if there is a folder, and plans from here on: `context` is the current one while this
  /// object lives. Throws kiln::Error, as the run would.
  DryRun(const TrainingOptions& o, int side);

  /// A network of the table; the set must stay where it is.
  void add(const std::string& network, const ParameterSet& set);
  /// Two steps, the first of which fills the table. Returns what the last one reports, which a run keeps.
  template <class F>
  auto steps(F step) {
    context.layers = &layers_;
    auto kept = step();
    context.layers = nullptr;
    kept = {};
    kept = step();
    return kept;
  }
  /// The pictures that a step finds in device memory, `batch` a step on all ranks: a set that fits counts as pictures, not as tensors.
  int64_t resident_pictures(int64_t batch) const { return streams_ ? batch / o_.rank_count() : 1; }
  /// Prints the tables, what a step sends to other ranks, and the memory; `extras`: what this model has beside any.
  void print(const RunPlan& plan, const MemoryExtras& extras = {}) const;

 private:
  const TrainingOptions& o_;
  const size_t at_start_;  // what the process took before all of this, in bytes

 public:
  const DatasetSurvey survey;
  Context context;

 private:
  const int side_;
  const uint64_t picture_memory_;
  const bool streams_;
  UseContext use_;
  LayerTable layers_;
  std::vector<std::string> networks_;
};

}  // namespace kiln
