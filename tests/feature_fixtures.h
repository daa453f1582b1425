// Weights of feature networks for tests: hashed, as tests/golden/make_features.py makes them, in the files that users bring.
#pragma once
#include <nlohmann/json.hpp>

#include "engine/pth.h"
#include "tests/program.h"
#include "tests/support.h"

namespace kiln::test {

inline SafetensorsFile features_golden() { return SafetensorsFile(std::string(KILN_SOURCE_DIR) + "/tests/golden/features.safetensors"); }

/// The rules of make_features.py.
inline std::vector<float> hashed_weight(const std::string& name, const std::vector<int64_t>& shape, int64_t inputs) {
  int64_t n = 1;
  for (int64_t s : shape) n *= s;
  std::vector<float> v = hashed_signed(name, n);
  const std::string leaf = name.substr(name.find_last_of("./") + 1);
  const bool kernel = shape.size() == 4, one = leaf == "weight" || leaf == "gamma", variance = leaf == "running_var" || leaf == "moving_variance";
  const float gain = kernel ? float(std::sqrt(6.0 / double(inputs))) : 0.1f;
  for (float& x : v) x = kernel ? x * gain : one ? 1.f + 0.1f * x : variance ? 1.f + 0.5f * x : 0.1f * x;
  return v;
}

/// A network's tensors and their shapes, as the golden file's metadata has them.
inline std::map<std::string, std::vector<int64_t>> feature_shapes(const std::string& network) {
  std::map<std::string, std::vector<int64_t>> out;
  const nlohmann::json shapes = nlohmann::json::parse(features_golden().metadata().at("shapes"));
  for (const auto& [name, shape] : shapes.items())
    if (name.starts_with(network + ".")) out[name.substr(network.size() + 1)] = shape.get<std::vector<int64_t>>();
  return out;
}

/// Writes a hashed state dict of PyTorch's as .pth; returns its path.
inline std::string write_weights(const TempFolder& t, const std::string& network) {
  const PthValue state = PthNode::dict();
  for (const auto& [name, shape] : feature_shapes(network)) {
    const int64_t inputs = shape.size() == 4 ? shape[1] * shape[2] * shape[3] : 1;
    state->set(name, PthNode::of(PthTensor::of(shape, hashed_weight(network + "." + name, shape, inputs))));
  }
  write_pth(t / (network + ".pth"), *state);
  return t / (network + ".pth");
}

/// Writes hashed weights under Keras' names as .safetensors; returns its path.
inline std::string write_keras_weights(const TempFolder& t, const std::string& network) {
  std::vector<std::vector<float>> values;
  std::vector<TensorEntry> entries;
  const auto shapes = feature_shapes(network);
  values.reserve(shapes.size());
  for (const auto& [name, shape] : shapes) {
    const int64_t inputs = shape.size() == 4 ? shape[0] * shape[1] * shape[2] : 1;
    values.push_back(hashed_weight(network + "." + name, shape, inputs));
    entries.push_back({name, "F32", shape, values.back().data(), values.back().size() * sizeof(float)});
  }
  write_safetensors(t / (network + ".safetensors"), entries);
  return t / (network + ".safetensors");
}

inline std::string write_heads(const TempFolder& t, const std::string& network, const std::vector<int64_t>& channels) {
  const PthValue state = PthNode::dict();
  for (size_t i = 0; i < channels.size(); i++) {
    std::vector<float> v = hashed_signed(network + ".lin" + std::to_string(i), channels[i]);
    for (float& x : v) x = (x + 1.f) / 8.f;
    state->set("lin" + std::to_string(i) + ".model.1.weight", PthNode::of(PthTensor::of({1, channels[i], 1, 1}, v)));
  }
  write_pth(t / (network + "_heads.pth"), *state);
  return t / (network + "_heads.pth");
}

inline std::vector<int64_t> head_channels(const std::string& network) {
  if (network == "vgg") return {64, 128, 256, 512, 512};
  if (network == "alex") return {64, 192, 384, 256, 256};
  return {64, 128, 256, 384, 384, 512, 512};
}

}  // namespace kiln::test
