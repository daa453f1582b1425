// A whole SSW-GAN training run: a folder of clips in, a directory with a run for every stage out. What apps/sswgan_train does.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "engine/clip_dataset.h"
#include "engine/training_options.h"
#include "models/sswgan_training.h"

namespace kiln::sswgan {

struct RunOptions : TrainingOptions {
  RunOptions() {
    augment = "none";
    batch = 8;
    flip = 0;
    grid = 4;
  }
  std::string preset = "ssw-tiny";
  Config network;
  TrainOptions train;
  int stage = 1;                  // the one that is trained
  bool all_stages = false;        // all of them, one after the other
  bool by_class = false;          // classes from folders
  std::vector<std::string> class_names;
  int frame_stride = 1;           // every so-manieth frame of the data is used
  ClipPictures clip_pictures = ClipPictures::automatic;
  int standing = 16;              // batches of standing statistics behind samples, and behind the stages before
  int kept_conditions = 512;      // clips of the stage before that are made at the start; 0: new ones for every step
  int chunk = 8;                  // frames of the condition that are enlarged at a time when whole clips are made
  std::string fed_checkpoint, fed_weights;  // of the stage before, that this one is trained on; kept by the run itself
  std::function<bool(int64_t)> on_step;     // after every step, on the thread that trains; false: save and end
};

/// Settings by name: those of preset_names(). Throws kiln::Error for any other.
RunOptions preset(const std::string& name);

/// The options that make a stage's run what it is, as one JSON object, in config.json and in every checkpoint (there without paths).
std::string to_json(const RunOptions& o, bool with_paths);
RunOptions from_json(const std::string& text, const std::string& source);

/// Throws kiln::Error naming the flag and the remedy if a value is out of range.
void check(const RunOptions& o);

/// Trains the stage, or all that are not done. o.out is the directory of the whole. Throws kiln::Error.
RunResult train(const RunOptions& o);

/// Prints what the data gives (where there is any), and the parameters and the memory of a step of the stage or of all.
void dry_run(const RunOptions& o);

/// Bytes of tensors at the peak of a training step, of a context that only plans.
size_t planned_peak(const RunOptions& o, int stage);

}  // namespace kiln::sswgan
