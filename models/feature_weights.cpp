#include "models/feature_weights.h"

#include <cmath>
#include <cstring>

#include "engine/error.h"
#include "engine/hash.h"
#include "engine/pth.h"
#include "engine/safetensors.h"

namespace kiln {
namespace {

std::string shape_text(const std::vector<int64_t>& s) {
  std::string text;
  for (int64_t n : s) text += (text.empty() ? "" : "x") + std::to_string(n);
  return text;
}

Tensor vector_of(const std::vector<float>& v) { return from_vector(Shape{int64_t(v.size())}, v); }

const FeatureWeights::Array& array_of_rank(const FeatureWeights& w, const std::string& name, size_t rank) {
  const auto& a = w.at(name);
  if (a.shape.size() != rank) fail("{}: {} is {}, which is no convolution's; is it the right file?", w.path(), name, shape_text(a.shape));
  return a;
}

std::vector<float> channel_vector(const FeatureWeights& w, const std::string& name, int64_t channels) {
  const auto& a = w.at(name);
  if (int64_t(a.values.size()) != channels) fail("{}: {} is {}, where {} numbers are expected; is it the right file?", w.path(), name, shape_text(a.shape), channels);
  return a.values;
}

/// Batch norm in evaluation mode as a scale and a bias.
void fold_norm(FeatureConv& c, const FeatureWeights& w, const std::string& gamma, const std::string& beta, const std::string& mean, const std::string& variance) {
  const int64_t n = c.weight.shape()[0];
  const auto g = channel_vector(w, gamma, n), b = channel_vector(w, beta, n), m = channel_vector(w, mean, n), v = channel_vector(w, variance, n);
  std::vector<float> scale(static_cast<size_t>(n)), bias(static_cast<size_t>(n));
  for (size_t i = 0; i < size_t(n); i++) {
    const double s = double(g[i]) / std::sqrt(double(v[i]) + 1e-3);
    scale[i] = float(s);
    bias[i] = float(double(b[i]) - double(m[i]) * s);
  }
  c.scale = vector_of(scale);
  c.bias = vector_of(bias);
}

FeatureConv from_torch(const FeatureWeights& w, const std::string& name, int stride) {
  const auto& a = array_of_rank(w, name, 4);
  const int64_t oc = a.shape[0], ic = a.shape[1], kh = a.shape[2], kw = a.shape[3];
  std::vector<float> ours(a.values.size());
  for (int64_t o = 0; o < oc; o++)
    for (int64_t i = 0; i < ic; i++)
      for (int64_t k = 0; k < kh * kw; k++) ours[size_t((o * kh * kw + k) * ic + i)] = a.values[size_t((o * ic + i) * kh * kw + k)];
  FeatureConv c;
  c.weight = from_vector(Shape{oc, kh, kw, ic}, ours);
  c.stride = stride;
  return c;
}

void pad_same(FeatureConv& c) {
  c.pad_h = int(c.weight.shape()[1] / 2);
  c.pad_w = int(c.weight.shape()[2] / 2);
}

}  // namespace

FeatureWeights::FeatureWeights(const std::filesystem::path& file, const std::string& what) : path_(file.string()), what_(what) {
  if (file.empty()) fail("no file of weights given: {}", what);
  if (!std::filesystem::exists(file)) fail("{}: no such file. It should be {}", path_, what);
  const auto wanted = [](const std::string& name) { return !name.starts_with("classifier.") && !name.starts_with("fc."); };  // large, and no use here
  if (file.extension() == ".safetensors") {
    const SafetensorsFile f(file);
    for (const TensorView& t : f.tensors()) {
      if (t.dtype != "F32" || !wanted(t.name)) continue;
      Array a{t.shape, std::vector<float>(t.bytes / 4)};
      std::memcpy(a.values.data(), t.data, t.bytes);
      arrays_[t.name] = std::move(a);
    }
  } else {
    const PthValue root = read_pth(file);
    if (root->kind != PthNode::Kind::dict) fail("{}: holds a {}, not a state dict. It should be {}", path_, root->kind_name(), what);
    for (size_t i = 0; i < root->items.size(); i += 2)
      if (root->items[i]->kind == PthNode::Kind::text && root->items[i + 1]->kind == PthNode::Kind::tensor && wanted(root->items[i]->text))
        arrays_[root->items[i]->text] = {root->items[i + 1]->tensor.shape, root->items[i + 1]->tensor.floats()};
  }
}

const FeatureWeights::Array& FeatureWeights::at(const std::string& name) const {
  const auto it = arrays_.find(name);
  if (it == arrays_.end()) fail("{}: has no tensor {}. It should be {}", path_, name, what_);
  return it->second;
}

uint64_t FeatureWeights::fingerprint() const {
  Hash64 h;
  for (const auto& [name, a] : arrays_) {
    h.update(name.data(), name.size());
    h.update(a.values.data(), a.values.size() * sizeof(float));
  }
  return h.value();
}

Var FeatureConv::operator()(const Var& x) const {
  // The engine's convolution has one padding for both axes; the long thin kernels of Inception want two.
  Var y = pad_h == pad_w ? conv2d(x, Var(weight), stride, pad_h) : conv2d(pad_picture(x, pad_h, pad_h, pad_w, pad_w), Var(weight), stride, 0);
  return affine_activation(std::move(y), scale, bias, slope);
}

FeatureConv torch_conv(const FeatureWeights& w, const std::string& prefix, int stride, int pad) {
  FeatureConv c = from_torch(w, prefix + ".weight", stride);
  c.bias = vector_of(channel_vector(w, prefix + ".bias", c.weight.shape()[0]));
  c.pad_h = c.pad_w = pad;
  return c;
}

FeatureConv torch_conv_norm(const FeatureWeights& w, const std::string& prefix, int stride, bool same) {
  FeatureConv c = from_torch(w, prefix + ".conv.weight", stride);
  fold_norm(c, w, prefix + ".bn.weight", prefix + ".bn.bias", prefix + ".bn.running_mean", prefix + ".bn.running_var");
  if (same) pad_same(c);
  return c;
}

FeatureConv keras_conv(const FeatureWeights& w, const std::string& kernel, const std::string& bias, const std::string& norm, int stride, bool same,
                       float slope) {
  const auto& a = array_of_rank(w, kernel, 4);
  const int64_t k = a.shape[0] * a.shape[1] * a.shape[2], oc = a.shape[3];
  std::vector<float> ours(a.values.size());
  for (int64_t i = 0; i < k; i++)
    for (int64_t o = 0; o < oc; o++) ours[size_t(o * k + i)] = a.values[size_t(i * oc + o)];
  FeatureConv c;
  c.weight = from_vector(Shape{oc, a.shape[0], a.shape[1], a.shape[2]}, ours);
  c.stride = stride;
  c.slope = slope;
  if (!norm.empty())
    fold_norm(c, w, norm + "/gamma", norm + "/beta", norm + "/moving_mean", norm + "/moving_variance");
  else
    c.bias = bias.empty() ? zeros(Shape{oc}) : vector_of(channel_vector(w, bias, oc));
  if (same) pad_same(c);
  return c;
}

}  // namespace kiln
