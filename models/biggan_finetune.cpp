// Checkpoints whose classes are not those of now: rows of embeddings and tables find their classes by name.
#include <cstring>

#include "engine/error.h"
#include "models/biggan_run.h"

namespace kiln::biggan {

bool Mapping::same() const { return text.empty(); }

Mapping map_classes(const std::vector<std::string>& before, const std::vector<std::string>& now) {
  Mapping m;
  std::string kept, fresh, dropped;
  const auto note = [](std::string& list, const std::string& name) { list += (list.empty() ? "" : ", ") + name; };
  for (const std::string& name : now) {
    int from = -1;
    for (size_t i = 0; i < before.size(); i++)
      if (before[i] == name) from = int(i);
    m.from.push_back(from);
    note(from < 0 ? fresh : kept, name);
  }
  for (const std::string& name : before) {
    bool found = false;
    for (const std::string& n : now) found = found || n == name;
    if (!found) note(dropped, name);
  }
  if (before == now) return m;
  m.text = fmt::format("kept {}; new, beginning as the mean of the old ones: {}; dropped {}", kept.empty() ? "none" : kept,
                       fresh.empty() ? "none" : fresh, dropped.empty() ? "none" : dropped);
  return m;
}

namespace {

/// Tensors with a row (or a number, for the embedding's u) a class. The output norm's bias is none.
bool by_class(const std::string& name) {
  return name == "shared" || name == "embed.weight" || name == "embed.u" || (name.starts_with("blocks.") && name.find(".bn") != std::string::npos && (name.ends_with(".gain") || name.ends_with(".bias")));
}

/// A tensor of the file as it is, or with its rows brought into the order of now.
std::vector<float> rows_of(const SafetensorsFile& file, const std::string& key, const Shape& shape, bool mapped, const Mapping& mapping, bool zero_new) {
  const TensorView& view = file.at(key);
  const int64_t count = int64_t(view.bytes / 4), row = mapped ? shape.count() / shape[0] : shape.count();
  const bool sound = view.dtype == "F32" && (mapped ? count % row == 0 : count == shape.count());
  if (!sound) fail("{}: the tensor {} has another shape than this network's ({})", file.path(), key, shape.text());
  std::vector<float> old(static_cast<size_t>(count));
  std::memcpy(old.data(), view.data, view.bytes);
  if (!mapped) return old;
  const int64_t rows = count / row;
  std::vector<float> mean(size_t(row), 0.f), out;
  if (!zero_new)
    for (int64_t r = 0; r < rows; r++)
      for (int64_t i = 0; i < row; i++) mean[size_t(i)] += old[size_t(r * row + i)] / float(rows);
  for (int from : mapping.from) {
    if (from >= rows) fail("{}: the tensor {} has {} rows, and its configuration more classes", file.path(), key, rows);
    if (from < 0)
      out.insert(out.end(), mean.begin(), mean.end());
    else
      out.insert(out.end(), old.begin() + from * row, old.begin() + (from + 1) * row);
  }
  KILN_ASSERT(int64_t(out.size()) == shape.count());
  return out;
}

void load_set(const SafetensorsFile& file, const std::string& prefix, ParameterSet& set, const Mapping& mapping) {
  for (const ParameterSet::Entry& e : set.entries())
    set.tensor(e).upload(rows_of(file, prefix + e.name, e.shape, by_class(e.name), mapping, false).data());
}

void load_moments(const SafetensorsFile& file, const std::string& prefix, ParameterSet& set, const Mapping& mapping) {
  for (const ParameterSet::Entry& e : set.entries()) {
    if (e.kind != ParameterSet::Entry::parameter) continue;
    set.moment(e, 0).upload(rows_of(file, prefix + "m." + e.name, e.shape, by_class(e.name), mapping, true).data());
    set.moment(e, 1).upload(rows_of(file, prefix + "v." + e.name, e.shape, by_class(e.name), mapping, false).data());
  }
  set.set_steps(metadata_integer(file, prefix + "steps"));
}

}  // namespace

void load_with_classes(const SafetensorsFile& file, const Mapping& mapping, Model& model, bool optimisers) {
  if (mapping.same()) {
    load_parameters(file, "G.", model.g_params);
    load_parameters(file, "D.", model.d_params);
    load_parameters(file, "ema.", model.average_params);
    if (!optimisers) return;
    load_optimiser(file, "opt_g.", model.g_params);
    load_optimiser(file, "opt_d.", model.d_params);
    return;
  }
  load_set(file, "G.", model.g_params, mapping);
  load_set(file, "D.", model.d_params, mapping);
  load_set(file, "ema.", model.average_params, mapping);
  if (!optimisers) return;
  load_moments(file, "opt_g.", model.g_params, mapping);
  load_moments(file, "opt_d.", model.d_params, mapping);
}

}  // namespace kiln::biggan
