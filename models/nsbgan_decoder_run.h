// A whole training run of a decoder: a folder of pictures in, a run directory out. What apps/nsbgan_train's `decoder` does, as a function.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "engine/training_options.h"
#include "models/nsbgan_decoder_training.h"

namespace kiln::nsbgan::decoding {

struct RunOptions : TrainingOptions {
  RunOptions() {
    augment = "none";
    batch = 16;
    metric_every = 200;
    sample_every = 200;
    checkpoint_every = 200;
    grid = 4;
  }
  std::string preset = "small";
  DecoderConfig network;
  bool measure_band = true;  // the band's shift and scale are measured on the pictures
  int d_width = 64;  // of the discriminator
  TrainOptions train;
  // The learning rate: from --lr down to 1e-7 along half a cosine, again and again, and halved where these many steps are done.
  int64_t lr_period = 0;  // steps of a cosine; 0: constant
  std::vector<int64_t> halve_at;
  int64_t first_step = 0;      // of this stage, where the one before ended: both count from it
  double hold_out = 0.05;      // share of the pictures that are measured on and not trained on, by a hash of their names
  std::filesystem::path test;  // a folder of pictures to measure on in their place
  int measured = 64;           // of them, at most
  std::filesystem::path vgg;   // weights of the perceptual loss; empty: trained without
};

/// Settings by name: small (32 -> 128, narrow, for a CPU), 64-256 and 128-512 (the published). kind and domain: what the settings are for.
/// Throws kiln::Error for any other.
RunOptions preset(const std::string& name, DecoderKind kind = DecoderKind::srresnet, Domain domain = Domain::wavelet, bool gan = false);

/// The options that make a run what it is, as one JSON object, in config.json and in every checkpoint (there without paths).
/// from_json throws kiln::Error where a key is missing or of the wrong type; `source` is named in it.
std::string to_json(const RunOptions& o, bool with_paths);
RunOptions from_json(const std::string& text, const std::string& source);

/// Throws kiln::Error naming the flag and the remedy if a value is out of range.
void check(const RunOptions& o);

/// The factor of the learning rates at a step, in stairs of 1/256 of a period.
float rate_at(const RunOptions& o, int64_t step);

/// Which pictures are held out, by their names: each stays on its side when others come or go. At least one of two.
struct Split {
  std::vector<int32_t> train, held_out;
};
Split split_by_name(const std::vector<std::string>& names, double share);

/// Trains. Needs no current context: it makes its own. Throws kiln::Error.
RunResult train(const RunOptions& o);

/// Prints the parameters and the memory of a step, without allocating or computing anything of it.
void dry_run(const RunOptions& o);

}  // namespace kiln::nsbgan::decoding
