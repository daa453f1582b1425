// Checkpoints: parameter sets in and out of safetensors files. Names carry a prefix: "G.feat_8.conv1.weight",
// "opt_g.m.feat_8.conv1.weight". Checkpoints hold no time and no path: equal runs give equal files.
#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "engine/parameters.h"
#include "engine/safetensors.h"
#include "engine/step_memory.h"

namespace kiln {

class CheckpointWriter {
 public:
  /// Values, statistics and vectors of a set under prefix + name. The set must stay until write().
  void add(const std::string& prefix, const ParameterSet& set);
  /// Adam's moments under prefix + "m." + name and prefix + "v." + name, and its number of updates in the metadata.
  void add_optimiser(const std::string& prefix, const ParameterSet& set);
  /// The loss scale and what moves it, in the metadata; nothing where gradients are not scaled.
  void add_loss_scale(const StepMemory& memory);
  void set(const std::string& key, const std::string& value) { metadata_[key] = value; }
  /// Appears whole or not at all, synced to disk. Throws kiln::Error (no space, ...) with the last good file untouched.
  void write(const std::filesystem::path& path) const;

 private:
  void add_tensor(const std::string& name, const Tensor& t);
  std::vector<TensorEntry> entries_;
  std::vector<std::vector<char>> staged_;  // copies of tensors that live on a GPU
  std::map<std::string, std::string> metadata_;
};

/// What a file's metadata says under a key. Throw kiln::Error naming file and key where it is missing or no number.
const std::string& metadata_text(const SafetensorsFile& file, const std::string& key);
int64_t metadata_integer(const SafetensorsFile& file, const std::string& key);
double metadata_number(const SafetensorsFile& file, const std::string& key);

/// Loads what CheckpointWriter::add wrote. Throws kiln::Error naming the file and the tensor that is missing or has another
/// shape.
void load_parameters(const SafetensorsFile& file, const std::string& prefix, ParameterSet& set);
void load_optimiser(const SafetensorsFile& file, const std::string& prefix, ParameterSet& set);
/// What add_loss_scale wrote; nothing where gradients are not scaled. Of a checkpoint of the same precision.
void load_loss_scale(const SafetensorsFile& file, StepMemory& memory);

}  // namespace kiln
