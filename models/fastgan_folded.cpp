#include "models/fastgan_folded.h"

#include <bit>
#include <cmath>
#include <filesystem>

#include "engine/checkpoint.h"
#include "engine/error.h"
#include "engine/hash.h"
#include "models/fastgan_run.h"

namespace kiln::fastgan {

CheckpointInfo checkpoint_info(const SafetensorsFile& file) {
  const auto it = file.metadata().find("config");
  if (it == file.metadata().end()) fail("{}: not a checkpoint of kiln (it has no configuration)", file.path());
  const RunOptions run = from_json(it->second, file.path());
  check(run.network);
  Hash64 hash;
  for (const TensorView& t : file.tensors())
    if (t.name.starts_with("ema.")) hash.update(t.data, t.bytes);
  CheckpointInfo info;
  info.network = run.network;
  info.step = metadata_integer(file, "step");
  info.fit = run.fit;
  info.background = run.background;
  info.name = std::filesystem::path(file.path()).filename().string();
  info.fingerprint = fmt::format("{:016x}", hash.value());
  return info;
}

AveragedGenerator::AveragedGenerator(const SafetensorsFile& file) : info(checkpoint_info(file)), g(info.network), parameters(g, false), spectral_(g) {
  load_parameters(file, "ema.", parameters);
  const NoGrad none;
  const Evaluation evaluation;
  spectral_.prepare(parameters.values, Tensor(), parameters.vectors);
}

namespace {

/// Batch norm by its running statistics as scale and shift per channel.
struct Affine {
  std::vector<double> scale, shift;
};

Affine affine(const BatchNorm& norm) {
  const std::vector<float> gamma = norm.weight.value.to_vector(), beta = norm.bias.value.to_vector();
  const std::vector<float> mean = norm.running_mean.value.to_vector(), var = norm.running_var.value.to_vector();
  Affine a;
  for (size_t i = 0; i < gamma.size(); i++) {
    const double s = double(gamma[i]) / std::sqrt(double(var[i]) + double(BatchNorm::eps));
    a.scale.push_back(s);
    a.shift.push_back(double(beta[i]) - double(mean[i]) * s);
  }
  return a;
}

Tensor vector_of(const std::vector<double>& v, double factor = 1) {
  std::vector<float> f;
  for (const double x : v) f.push_back(float(x * factor));
  return from_vector(Shape{int64_t(f.size())}, f);
}

/// A weight [oc, ...] with every output channel times its factor.
Tensor scaled_rows(const Tensor& weight, const std::vector<double>& factor) {
  std::vector<float> v = weight.to_vector();
  const size_t row = v.size() / factor.size();
  for (size_t i = 0; i < v.size(); i++) v[i] = float(double(v[i]) * factor[i / row]);
  return from_vector(weight.shape(), v);
}

}  // namespace

FixedGlu FoldedGenerator::fold(const SpectralConv& conv, const BatchNorm& norm, const NoiseInjection* noise, bool upsample) {
  const Affine a = affine(norm);
  const Tensor weight = scaled_rows(conv.w.normalised.value, a.scale);
  return FixedGlu(weight, vector_of(a.shift), noise ? vector_of(a.scale, double(noise->weight.value.item())) : Tensor(), upsample);
}

FoldedGenerator::FoldedGenerator(const Generator& g) : size_(g.config_.size), tanh_(g.config_.tanh || g.config_.size == 1024) {
  const Affine a = affine(g.init_bn_);
  init_weight_ = scaled_rows(g.init_conv_.normalised.value, a.scale);
  init_bias_ = vector_of(a.shift);
  for (const UpBlock& b : g.stages_) {
    Stage s;
    s.push_back(fold(b.conv1, b.bn1, b.noisy ? &b.noise1 : nullptr, true));
    if (b.two) s.push_back(fold(b.conv2, b.bn2, b.noisy ? &b.noise2 : nullptr, false));
    stages_.push_back(std::move(s));
  }
  const auto fixed = [](const SpectralConv& c) { return FixedConvolution(copy_of(c.w.normalised.value), c.stride, c.pad); };
  for (const Generator::Gate& gate : g.gates_) gates_.push_back({gate.from, gate.to, fixed(gate.se.conv1), fixed(gate.se.conv2), gate.se.leaky});
  to_big_ = fixed(g.to_big_);
}

Tensor FoldedGenerator::Gate::operator()(const Tensor& x) const {
  const Tensor h = conv1(area_resize(Var(x), 4, 4).value);
  return sigmoid(Var(conv2(activation(Var(h), leaky ? Activation::leaky_relu : Activation::swish).value))).value;
}

Tensor FoldedGenerator::start(const Tensor& z) const { return biased_glu(project(Var(z), Var(init_weight_)).value, {init_bias_, {}, {}, {}}); }

Tensor FoldedGenerator::stage(size_t i, Tensor x, const Tensor& gate, int* site) const {
  for (const FixedGlu& layer : stages_[i]) {
    const Shape& s = x.shape();
    const int64_t scale = layer.upsampling() ? 2 : 1;
    Tensor noise;
    if (layer.noisy()) noise = context().random->normal("noise." + std::to_string((*site)++), Shape{s[0], scale * s[1], scale * s[2], 1});
    x = layer(x, noise, &layer == &stages_[i].back() ? gate : Tensor());
  }
  return x;
}

std::vector<Tensor> FoldedGenerator::excitations(const Tensor& z) const {
  const NoGrad none;
  std::vector<Tensor> out;
  int site = 0, r = 4;
  Tensor x = start(z);
  for (size_t next = 0; next < gates_.size(); r *= 2) {  // both are in the order of resolutions; no gate acts on what one reads
    if (gates_[next].from == r) out.push_back(gates_[next++](x));
    if (next < gates_.size()) x = stage(size_t(std::countr_zero(unsigned(r))) - 2, x, Tensor(), &site);
  }
  return out;
}

Tensor FoldedGenerator::run(const Tensor& z, const std::vector<Tensor>* given) const {
  KILN_ASSERT(!given || given->size() == gates_.size());
  const NoGrad none;
  std::vector<Tensor> waiting(gates_.size());  // a gate is made as soon as its map is there, and used later
  int site = 0, r = 4;
  Tensor x = start(z);
  for (size_t i = 0; r < size_; i++) {
    for (size_t k = 0; k < gates_.size(); k++)
      if (gates_[k].from == r) waiting[k] = given ? (*given)[k] : gates_[k](x);
    r *= 2;
    Tensor acting;
    for (size_t k = 0; k < gates_.size(); k++)
      if (gates_[k].to == r) acting = std::move(waiting[k]);
    x = stage(i, x, acting, &site);
  }
  const Tensor y = to_big_(x);
  return tanh_ ? kiln::tanh(Var(y)).value : y;
}

}  // namespace kiln::fastgan
