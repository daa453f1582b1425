// A whole BigGAN training run: a folder of class folders in, a run directory out. What apps/biggan_train does, as a function; with a band
// in the options, what apps/nsbgan_train's `sampler` does.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/classes.h"
#include "engine/training_options.h"
#include "models/biggan_training.h"
#include "models/nsbgan_band.h"

namespace kiln::biggan {

/// What a step did, for RunOptions::on_step.
struct StepReport {
  int64_t step = 0;  // done, this one included
  float loss_d_real = 0, loss_d_fake = 0, loss_g = 0, logit_real = 0, logit_fake = 0;
};

struct RunOptions : TrainingOptions {
  RunOptions() {
    augment = "none";
    batch = 32;
  }
  bool unconditional = false;            // take no notice of folders
  std::vector<std::string> class_names;  // of the data, in order of labels; what a checkpoint's labels mean
  std::string preset = "small";
  Config network;
  /// NSB-GAN's sampler: the networks learn this band of the pictures in place of the pictures, network.size is its size(), and grids and
  /// distances are of the pictures that follow from the band alone.
  std::optional<nsbgan::Band> band;
  bool measure_band = false;  // its shift and scale are still to be measured; a run started from a checkpoint takes that one's
  TrainOptions train;
  int standing = 16;         // batches of standing statistics behind samples and distances; 0: the averaged running ones
  bool class_metric = true;  // the distance of each class beside that of all
  std::function<bool(const StepReport&)> on_step;  // after every step, on the thread that trains; false: save and end
};

/// Settings by name: small (CPU, 32 px), cifar (32 px, the public script's), 64, 128, 256. Throws kiln::Error for any other.
RunOptions preset(const std::string& name);
/// Settings of NSB-GAN's sampler: small (CPU, 32 -> 128 px), 64-256 and 128-512 (the published networks). Throws kiln::Error for any other.
RunOptions band_preset(const std::string& name);

/// The options that make a run what it is, as one JSON object, in config.json and in every checkpoint (there without paths).
/// from_json throws kiln::Error where a key is missing or of the wrong type, or where a run with a band is asked for and this is none, or
/// the other way round; `source` is named in it.
std::string to_json(const RunOptions& o, bool with_paths);
RunOptions from_json(const std::string& text, const std::string& source, bool of_band = false);

/// Throws kiln::Error naming the flag and the remedy if a value is out of range.
void check(const RunOptions& o);

constexpr int kSheetClasses = 20, kSheetColumns = 10;  // at most, of the sheet with a row a class
constexpr int64_t kFewestForMetric = 16;               // pictures of a class whose distance is measured

/// What a run does when.
RunPlan plan_of(const RunOptions& o);

/// Trains. Needs no current context: it makes its own. Throws kiln::Error.
RunResult train(const RunOptions& o);

/// Prints the table of layers with their output shapes and parameters, and the memory that the run will need, without
/// allocating or computing anything of it. Where no folder is named there are as many classes as in the options, or 10. Throws kiln::Error.
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
