// A whole FastGAN training run: pictures in, a run directory out. What apps/fastgan_train does, as a function.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "engine/training_options.h"
#include "models/fastgan_training.h"

namespace kiln::fastgan {

/// What a step did, for RunOptions::on_step.
struct StepReport {
  int64_t step = 0;  // done, this one included
  float loss_d_real = 0, loss_d_fake = 0, loss_g = 0, recon_all = 0, recon_small = 0, recon_part = 0;
  float logit_real = 0, logit_fake = 0;
};

struct RunOptions : TrainingOptions {
  RunOptions() {
    augment = "color,translation";
    batch = 8;
  }
  Config network;
  TrainOptions train;
  std::string lpips;  // the trunk of a perceptual reconstruction loss, vgg or alex; empty: train.recon_power
  std::filesystem::path lpips_weights, lpips_heads;
  int accumulate = 1;          // parts that a batch is computed in; divides batch
  std::string metric_network;  // models/feature_network.h; empty: only the sliced Wasserstein distance is measured
  std::filesystem::path metric_weights;
  std::function<bool(const StepReport&)> on_step;  // after every step, on the thread that trains; false: save and end
};

/// The options that make a run what it is, as one JSON object: written to config.json and into every checkpoint (there
/// without paths). from_json throws kiln::Error where a key is missing or of the wrong type; `source` is named in it.
std::string to_json(const RunOptions& o, bool with_paths);
RunOptions from_json(const std::string& text, const std::string& source);

/// Throws kiln::Error naming the flag and the remedy if a value is out of range.
void check(const RunOptions& o);

/// What a run does when.
RunPlan plan_of(const RunOptions& o);

/// The options with the networks that their files name, in the current context.
RunOptions with_networks(RunOptions o);

/// Trains. Needs no current context: it makes its own. Throws kiln::Error.
RunResult train(const RunOptions& options);

/// Prints the table of layers with their output shapes and parameters, and the memory that the run will need, without
/// allocating or computing anything of it. Throws kiln::Error.
void dry_run(const RunOptions& options);

}  // namespace kiln::fastgan
