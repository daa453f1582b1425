// The options that a training run has whatever its model, and what follows from them.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "engine/context.h"
#include "engine/dataset.h"
#include "engine/training_run.h"

namespace kiln {

/// A model's run options are these and its own.
struct TrainingOptions {
  // Data
  std::filesystem::path data;
  Fit fit = Fit::crop;
  Rgb background;
  bool strict = false, cache = true;
  // Training
  std::string augment;  // the model's augmentation as text (augment_policy)
  int batch = 1;        // real pictures of one update of the discriminator, on all ranks together
  double flip = 0.5;    // probability of a horizontal mirror
  int64_t steps = 50000;
  double minutes = 0;  // stop by the clock; 0: never
  uint64_t seed = 0;
  OnCollapse on_collapse = OnCollapse::warn;
  int max_rewinds = 3;  // after that many it stops
  int rewinds = 0;      // the run went back so often: it picks the random stream of all draws. Kept by the run itself
  // Output
  std::filesystem::path out;
  bool resume = false;
  std::filesystem::path resume_file;
  std::vector<std::string> commands;  // the command lines that started and resumed the run, for the record
  int64_t log_every = 20, sample_every = 500, metric_every = 500, checkpoint_every = 1000;
  int keep = 3;
  int grid = 6;  // sample grids show grid x grid pictures
  // Machine
  Device device = Device::cpu;
  DType precision = DType::f32;  // storage of activations: engine/precision.h
  LibraryOptions library;        // of a GPU
  std::shared_ptr<Ranks> ranks;  // that train together (engine/ranks.h), null: this process alone
  bool sync_norm = true;         // on several ranks, batch norm takes its statistics over all of their pictures
  int threads = 0;               // 0: all processors
  double memory_gb = 0;          // of tensors; 0: no limit
  double picture_memory_gb = 0;  // of decoded pictures, a larger set streams; 0: default_picture_memory()
  bool profile = false;
  // Inside another program
  bool console = true;  // prints to standard output, and saves and ends at SIGINT and SIGTERM; without it: neither

  /// It goes on with the run in `out`, under that run's own options.
  bool goes_on() const { return resume && resume_file.empty(); }
  int rank_count() const;  // 1 where there are no others
};

/// Throws kiln::Error naming `flag` and the remedy if the value is not from low to high.
void check_range(const char* flag, double value, double low, double high);
/// Throws kiln::Error naming the flag and the remedy if a value is out of range. --batch is the model's to check, whose range it is.
void check_training(const TrainingOptions& o);
/// The batch in `parts` equal parts, and each of these over the ranks. Throws kiln::Error where that leaves a rest.
void check_parts(const TrainingOptions& o, int parts);

/// How a run reads its pictures, of side x side pixels.
DatasetOptions dataset_options(const TrainingOptions& o, int side);
/// What a run does when. The program's name, its configuration and the pictures of a step are the model's to fill in.
RunPlan plan_of(const TrainingOptions& o);

/// The limit for a context's tensors, in bytes; 0: none.
size_t tensor_limit(const TrainingOptions& o);
/// What the options say of computing, to a context that was made for their device.
void configure(Context& context, const TrainingOptions& o);
/// "cpu (2 ranks, each with 8 threads)": what a run computes on, for people.
std::string machine_text(const TrainingOptions& o);

}  // namespace kiln
