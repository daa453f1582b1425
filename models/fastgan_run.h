// A whole FastGAN training run: pictures in, a run directory out. What apps/fastgan_train does, as a function.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "engine/dataset.h"
#include "engine/training_run.h"
#include "models/fastgan_training.h"

namespace kiln::fastgan {

/// What a step did, for RunOptions::on_step.
struct StepReport {
  int64_t step = 0;  // done, this one included
  float loss_d_real = 0, loss_d_fake = 0, loss_g = 0, recon_all = 0, recon_small = 0, recon_part = 0;
  float logit_real = 0, logit_fake = 0;
};

struct RunOptions {
  // Data
  std::filesystem::path data;
  Fit fit = Fit::crop;
  Rgb background;
  bool strict = false, cache = true;
  // Network and training
  Config network;
  TrainOptions train;
  std::string augment = "color,translation";  // train.augment as text
  std::string lpips;  // the trunk of a perceptual reconstruction loss, vgg or alex; empty: train.recon_power
  std::filesystem::path lpips_weights, lpips_heads;
  int batch = 8;
  int accumulate = 1;  // parts that a batch is computed in; divides batch
  double flip = 0.5;  // probability of a horizontal mirror
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
  std::string metric_network;  // models/feature_network.h; empty: only the sliced Wasserstein distance is measured
  std::filesystem::path metric_weights;
  int keep = 3;
  int grid = 6;  // sample grids show grid x grid pictures
  // Machine
  Device device = Device::cpu;
  DType precision = DType::f32;  // storage of activations: engine/precision.h
  LibraryOptions library;  // of a GPU
  std::shared_ptr<Ranks> ranks;  // that train together (engine/ranks.h), null: this process alone. `batch` is that of all
  bool sync_norm = true;  // on several ranks, batch norm takes its statistics over all of their pictures
  int threads = 0;
  double memory_gb = 0;  // of tensors; 0: no limit
  double picture_memory_gb = 0;  // of decoded pictures, a larger set streams; 0: default_picture_memory()
  bool profile = false;
  // Inside another program
  bool console = true;  // prints to standard output, and saves and ends at SIGINT and SIGTERM; without it: neither
  std::function<bool(const StepReport&)> on_step;  // after every step, on the thread that trains; false: save and end
};

/// The options that make a run what it is, as one JSON object: written to config.json and into every checkpoint (there
/// without paths). from_json throws kiln::Error where a key is missing or of the wrong type; `source` is named in it.
std::string to_json(const RunOptions& o, bool with_paths);
RunOptions from_json(const std::string& text, const std::string& source);

/// Throws kiln::Error naming the flag and the remedy if a value is out of range.
void check(const RunOptions& o);

/// How a run reads its pictures, and what it does when.
DatasetOptions dataset_options(const RunOptions& o);
RunPlan plan_of(const RunOptions& o);

/// The options with the networks that their files name, in the current context.
RunOptions with_networks(RunOptions o);

/// Trains. Needs no current context: it makes its own. Throws kiln::Error.
RunResult train(const RunOptions& options);

/// Prints the table of layers with their output shapes and parameters, and the memory that the run will need, without
/// allocating or computing anything of it. Throws kiln::Error.
void dry_run(const RunOptions& options);

}  // namespace kiln::fastgan
