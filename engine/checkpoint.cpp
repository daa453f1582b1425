#include "engine/checkpoint.h"

#include <charconv>
#include <cstring>

#include "engine/error.h"

namespace kiln {
namespace {

void load_tensor(const SafetensorsFile& file, const std::string& name, const Tensor& into) {
  const TensorView* view = file.find(name);
  if (!view) fail("{}: the tensor {} is missing; is this the checkpoint of another model or size?", file.path(), name);
  if (view->dtype != "F32" || view->shape != into.shape().sizes()) {
    std::string shape;
    for (int64_t s : view->shape) shape += (shape.empty() ? "" : "x") + std::to_string(s);
    fail("{}: the tensor {} is {} {}, expected F32 {}; is this the checkpoint of another model, size or width?", file.path(), name,
         view->dtype, shape, into.shape().text());
  }
  std::vector<float> aligned(size_t(into.count()));  // the mapping need not be aligned for floats
  std::memcpy(aligned.data(), view->data, view->bytes);
  into.upload(aligned.data());
}

}  // namespace

void CheckpointWriter::add_tensor(const std::string& name, const Tensor& t) {
  const void* data = t.data();
  if (t.device() != Device::cpu) {
    staged_.emplace_back(t.bytes());
    t.download(staged_.back().data());
    data = staged_.back().data();
  }
  entries_.push_back({name, "F32", t.shape().sizes(), data, t.bytes()});
}

void CheckpointWriter::add(const std::string& prefix, const ParameterSet& set) {
  for (const auto& e : set.entries()) add_tensor(prefix + e.name, set.tensor(e));
}

void CheckpointWriter::add_optimiser(const std::string& prefix, const ParameterSet& set) {
  for (int which : {0, 1})
    for (const auto& e : set.entries())
      if (e.kind == ParameterSet::Entry::parameter)
        add_tensor(prefix + (which == 0 ? "m." : "v.") + e.name, set.moment(e, which));
  metadata_[prefix + "steps"] = std::to_string(set.steps());
}

void CheckpointWriter::add_loss_scale(const StepMemory& memory) {
  if (!memory.scaled()) return;
  const StepState s = memory.read();
  set("loss_scale", fmt::format("{}", s.loss_scale));
  set("loss_scale.good_steps", std::to_string(s.good_steps));
  set("loss_scale.overflows", std::to_string(s.overflows));
}

void CheckpointWriter::write(const std::filesystem::path& path) const { write_safetensors(path, entries_, metadata_); }

const std::string& metadata_text(const SafetensorsFile& file, const std::string& key) {
  const auto it = file.metadata().find(key);
  if (it == file.metadata().end())
    fail("{}: the metadata '{}' is missing; training cannot go on from it", file.path(), key);
  return it->second;
}

int64_t metadata_integer(const SafetensorsFile& file, const std::string& key) {
  const std::string& text = metadata_text(file, key);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    fail("{}: the metadata '{}' is '{}', not a whole number; the file was not written by kiln", file.path(), key, text);
  return value;
}

double metadata_number(const SafetensorsFile& file, const std::string& key) {
  const std::string& text = metadata_text(file, key);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    fail("{}: the metadata '{}' is '{}', not a number; the file was not written by kiln", file.path(), key, text);
  return value;
}

void load_parameters(const SafetensorsFile& file, const std::string& prefix, ParameterSet& set) {
  for (const auto& e : set.entries()) load_tensor(file, prefix + e.name, set.tensor(e));
}

void load_optimiser(const SafetensorsFile& file, const std::string& prefix, ParameterSet& set) {
  for (int which : {0, 1})
    for (const auto& e : set.entries())
      if (e.kind == ParameterSet::Entry::parameter)
        load_tensor(file, prefix + (which == 0 ? "m." : "v.") + e.name, set.moment(e, which));
  set.set_steps(metadata_integer(file, prefix + "steps"));
}

void load_loss_scale(const SafetensorsFile& file, StepMemory& memory) {
  if (!memory.scaled()) return;
  StepState s = memory.read();
  s.loss_scale = float(metadata_number(file, "loss_scale"));
  s.good_steps = int32_t(metadata_integer(file, "loss_scale.good_steps"));
  s.overflows = metadata_integer(file, "loss_scale.overflows");
  memory.write(s);
}

}  // namespace kiln
