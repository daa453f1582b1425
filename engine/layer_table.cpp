#include "engine/layer_table.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/parameters.h"

namespace kiln {

void LayerTable::add(const std::string& network, const ParameterSet& set) {
  std::vector<Layer>& layers = networks_[network];
  for (const ParameterSet::Entry& e : set.entries()) {
    if (e.kind != ParameterSet::Entry::parameter) continue;
    const size_t dot = e.name.rfind('.');
    const std::string name = dot == std::string::npos ? e.name : e.name.substr(0, dot);
    if (layers.empty() || layers.back().row.layer != name) layers.push_back({{name, {}, 0}, -1});
    layers.back().row.parameters += e.count();
    owner_[set.tensor(e).data()] = {network, layers.size() - 1};
  }
}

void LayerTable::alias(const void* derived, const void* parameter) {
  const auto it = aliases_.find(parameter);
  aliases_[derived] = it == aliases_.end() ? parameter : it->second;
}

void LayerTable::output(const void* parameter, const Shape& shape) {
  const auto alias = aliases_.find(parameter);
  const auto it = owner_.find(alias == aliases_.end() ? parameter : alias->second);
  if (it == owner_.end()) return;
  Layer& layer = networks_[it->second.first][it->second.second];
  if (layer.order >= 0) return;
  layer.order = calls_++;
  layer.row.output = shape;
}

std::vector<LayerTable::Row> LayerTable::rows(const std::string& network) const {
  const auto it = networks_.find(network);
  if (it == networks_.end()) return {};
  std::vector<Layer> layers = it->second;
  std::stable_sort(layers.begin(), layers.end(), [](const Layer& a, const Layer& b) { return unsigned(a.order) < unsigned(b.order); });
  std::vector<Row> rows;
  for (Layer& l : layers) rows.push_back(std::move(l.row));
  return rows;
}

std::string LayerTable::text(const std::string& network) const {
  std::string out = fmt::format("{:32} {:>18} {:>12}\n", network, "output", "parameters");
  int64_t sum = 0;
  for (const Row& r : rows(network)) {
    out += fmt::format("  {:30} {:>18} {:>12}\n", r.layer, r.output.rank() ? r.output.text() : "-", r.parameters);
    sum += r.parameters;
  }
  return out + fmt::format("  {:30} {:>18} {:>12}\n", "total", "", sum);
}

}  // namespace kiln
