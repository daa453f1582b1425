// A whole BigGAN training run: a folder of class folders in, a run directory out. What apps/biggan_train does, as a function.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "engine/classes.h"
#include "engine/training_run.h"
#include "models/biggan_training.h"

namespace kiln::biggan {

/// What a step did, for RunOptions::on_step.
struct StepReport {
  int64_t step = 0;  // done, this one included
  float loss_d_real = 0, loss_d_fake = 0, loss_g = 0, logit_real = 0, logit_fake = 0;
};

struct RunOptions {
  // Data
  std::filesystem::path data;
  Fit fit = Fit::crop;
  Rgb background;
  bool strict = false, cache = true;
  bool unconditional = false;            // take no notice of folders
  std::vector<std::string> class_names;  // of the data, in order of labels; what a checkpoint's labels mean
  // Network and training
  std::string preset = "small";
  Config network;
  TrainOptions train;
  std::string augment = "none";  // train.augment as text
  int batch = 32;                // pictures of one D step
  double flip = 0.5;
  int64_t steps = 50000;
  double minutes = 0;
  uint64_t seed = 0;
  OnCollapse on_collapse = OnCollapse::warn;
  int max_rewinds = 3;  // after that many it stops
  int rewinds = 0;      // the run went back so often: it picks the random stream of all draws. Kept by the run itself
  int standing = 16;  // batches of standing statistics behind samples and distances; 0: the averaged running ones
  // Output
  std::filesystem::path out;
  bool resume = false;
  std::filesystem::path resume_file;
  std::vector<std::string> commands;
  int64_t log_every = 20, sample_every = 500, metric_every = 500, checkpoint_every = 1000;
  int keep = 3;
  int grid = 6;
  bool class_metric = true;  // the distance of each class beside that of all
  // Machine
  Device device = Device::cpu;
  DType precision = DType::f32;  // storage of activations: engine/precision.h
  LibraryOptions library;        // of a GPU
  std::shared_ptr<Ranks> ranks;  // that train together (engine/ranks.h), null: this process alone. `batch` is that of all
  bool sync_norm = true;         // on several ranks, batch norm takes its statistics over all of their pictures
  int threads = 0;
  double memory_gb = 0;
  double picture_memory_gb = 0;
  bool profile = false;
  // Inside another program
  bool console = true;  // prints to standard output, and saves and ends at SIGINT and SIGTERM; without it: neither
  std::function<bool(const StepReport&)> on_step;  // after every step, on the thread that trains; false: save and end
};

/// Settings by name: small (CPU, 32 px), cifar (32 px, the public script's), 64, 128, 256. Throws kiln::Error for any other.
RunOptions preset(const std::string& name);

/// The options that make a run what it is, as one JSON object, in config.json and in every checkpoint (there without paths).
/// from_json throws kiln::Error where a key is missing or of the wrong type; `source` is named in it.
std::string to_json(const RunOptions& o, bool with_paths);
RunOptions from_json(const std::string& text, const std::string& source);

/// Throws kiln::Error naming the flag and the remedy if a value is out of range.
void check(const RunOptions& o);

DatasetOptions dataset_options(const RunOptions& o);

/// Trains. Needs no current context: it makes its own. Throws kiln::Error.
RunResult train(const RunOptions& o);

/// Prints the table of parameters and the memory of a step, without allocating or computing anything of it.
void dry_run(const RunOptions& o);

/// Which class of a checkpoint becomes which of now.
struct Mapping {
  std::vector<int> from;  // for every class now, its number in the checkpoint; -1: it is new
  bool same() const;      // nothing changes
  std::string text;       // what is kept, new and dropped, for people
};
/// Classes of a checkpoint beside those of now, by name.
Mapping map_classes(const std::vector<std::string>& before, const std::vector<std::string>& now);
/// Loads a checkpoint of the same network but for its classes: rows of embeddings and tables, and their Adam moments, go to the classes of
/// the same names; a new class starts as the mean of all, with the mean of their second moments. Throws kiln::Error.
void load_with_classes(const SafetensorsFile& file, const Mapping& mapping, Model& model, bool optimisers);

}  // namespace kiln::biggan
