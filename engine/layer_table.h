// The table of a network's layers, filled by the ops themselves while a planning context (or a real one) runs the network:
// name, output shape, parameters. No network is described a second time for it.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "engine/context.h"
#include "engine/tensor.h"

namespace kiln {

class ParameterSet;

class LayerTable {
 public:
  struct Row {
    std::string layer;  // "feat_8.conv1": a parameter's name without its last part
    Shape output;       // of its first call, with what is fused behind it; empty for a layer that was not called
    int64_t parameters = 0;
  };

  /// Makes a network's layers known by the addresses of their parameters. The set must stay where it is.
  void add(const std::string& network, const ParameterSet& set);
  /// A network's layers in the order of their first calls.
  std::vector<Row> rows(const std::string& network) const;
  /// The rows and their sum as text, under a title.
  std::string text(const std::string& network) const;

  // What ops report, through the functions below.
  void alias(const void* derived, const void* parameter);
  void output(const void* parameter, const Shape& shape);

 private:
  struct Layer {
    Row row;
    int order = -1;  // of its first call
  };
  std::map<std::string, std::vector<Layer>> networks_;
  std::map<const void*, std::pair<std::string, size_t>> owner_;  // of a parameter: network and layer
  std::map<const void*, const void*> aliases_;
  int calls_ = 0;
};

/// For ops: a layer that owns this parameter has made an output. Does nothing unless the context keeps a table.
inline void note_layer(const Tensor& parameter, const Shape& output) {
  if (context().layers) context().layers->output(parameter.data(), output);
}
/// For ops: this tensor stands for that parameter from now on (a weight that was normalised or converted).
inline void note_derived(const Tensor& derived, const Tensor& parameter) {
  if (context().layers) context().layers->alias(derived.data(), parameter.data());
}

}  // namespace kiln
