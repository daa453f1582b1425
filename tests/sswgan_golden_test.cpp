// SSW-GAN's networks against PyTorch: tests/golden/sswgan_*.safetensors, written by tests/golden/make_sswgan_golden.py.
#include <cstring>

#include "models/sswgan_training.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::sswgan;
using namespace kiln::test;

namespace {

SafetensorsFile golden(const std::string& name) {
  return SafetensorsFile(std::string(KILN_SOURCE_DIR) + "/tests/golden/sswgan_" + name + ".safetensors");
}

/// The rules of make_biggan_golden.py.
std::vector<float> initial(const std::string& name, const Shape& shape) {
  const std::string leaf = name.substr(name.rfind('.') + 1);
  const int64_t n = shape.count();
  std::vector<float> v = hashed_signed(name, n);
  const auto scaled = [&](float factor, float offset = 0) {
    for (float& x : v) x = offset + factor * x;
    return v;
  };
  if (leaf == "u") {
    double s = 0;
    for (float x : v) s += double(x) * double(x);
    for (float& x : v) x = float(double(x) / std::sqrt(s));
    return v;
  }
  if (leaf == "v" || leaf == "running_mean") return std::vector<float>(size_t(n), 0.f);
  if (leaf == "running_var") return std::vector<float>(size_t(n), 1.f);
  if (name == "G.output.bn.weight") return scaled(0.0625f, 0.5f);
  if (shape.rank() == 1) return scaled(0.125f);
  return name == "G.shared" ? v : scaled(4.f);
}

void set_initial(ParameterSet& set, const std::string& prefix) {
  for (const auto& e : set.entries()) set.tensor(e).upload(initial(prefix + e.name, e.shape).data());
}

double largest(const std::vector<float>& v) {
  double m = 0;
  for (float x : v) m = std::max(m, double(std::abs(x)));
  return m;
}

/// The worst golden_error of a set's gradients; biases that a norm behind them takes away must have next to none.
double worst_gradient(const SafetensorsFile& file, const ParameterSet& set, const std::string& prefix) {
  double worst = 0, scale = 0;
  for (const auto& e : set.entries())
    if (e.kind == ParameterSet::Entry::parameter) scale = std::max(scale, largest(set.gradient(e).to_vector()));
  REQUIRE(scale > 0);
  for (const auto& e : set.entries()) {
    if (e.kind != ParameterSet::Entry::parameter) continue;
    INFO(e.name);
    const TensorView& view = file.at(prefix + e.name);
    std::vector<float> expected(view.bytes / 4);
    std::memcpy(expected.data(), view.data, view.bytes);
    const std::vector<float> g = set.gradient(e).to_vector();
    if (largest(expected) < 1e-10 * scale) {
      CHECK(largest(g) < 1e-5 * scale);
      continue;
    }
    const double error = golden_error(file, prefix + e.name, g);
    if (error > 1e-4) MESSAGE(prefix << e.name << " " << error);
    worst = std::max(worst, error);
  }
  return worst;
}

double worst_buffer(const SafetensorsFile& file, const ParameterSet& set, const std::string& prefix) {
  double worst = 0;
  for (const auto& e : set.entries())
    if (e.kind != ParameterSet::Entry::parameter && !e.name.ends_with(".v"))
      worst = std::max(worst, golden_error(file, prefix + e.name, set.tensor(e).to_vector()));
  return worst;
}

Config config_of(int side) {
  Config c;
  c.stages = {{4, 16, 2, 4, 4, 4}, {8, side, 1, 4, 4, 4}};
  c.classes = 3;
  c.z = 6;
  c.shared_dim = 5;
  c.residual = side == 32;
  return c;
}

Tensor two_labels() {
  Tensor t(Shape{2}, DType::i32);
  t.upload(std::vector<int32_t>{1, 0}.data());
  return t;
}

Tensor hashed(const std::string& name, const Shape& s) { return from_vector(s, hashed_signed(name, s.count())); }

void check_generator(const std::string& name, int stage, const Config& c) {
  Fixture fixture;
  const SafetensorsFile file = golden(name);
  Generator g(c, stage);
  ParameterSet set(g, true);
  SpectralGroup spectral(g);
  spectral.step_in_evaluation(true);
  set_initial(set, "G.");
  const Tensor z = from_vector(Shape{2, c.z}, hashed_normal(file.metadata().at("input"), 2 * c.z));
  const Tensor condition = stage == 1 ? Tensor() : hashed("condition", Shape{2, 2, 16, 16, 3});
  Labels labels;
  labels.a = two_labels();
  {
    Tape tape;
    Recording recording(tape);
    spectral.prepare(set.values, set.grads, set.vectors);
    const Var clips = g(z, labels, condition, 3);
    CHECK(golden_error(file, "G", clips.value.to_vector()) < 1e-5);
    tape.backward_from({{clips, hashed("cot", clips.shape())}});
    CHECK(worst_gradient(file, set, "grad.G.") < 1e-4);
    CHECK(worst_buffer(file, set, "after.G.") < 1e-5);
  }
  NoGrad none;
  Evaluation evaluation;
  spectral.prepare(set.values, set.grads, set.vectors);
  CHECK(golden_error(file, "G.eval", g(z, labels, condition, 3).value.to_vector()) < 1e-5);
}

}  // namespace

TEST_CASE("golden: SSW-GAN, the first stage's generator") { check_generator("first", 1, config_of(32)); }
TEST_CASE("golden: SSW-GAN, a later stage's generator") { check_generator("second", 2, config_of(32)); }
TEST_CASE("golden: SSW-GAN, a later stage's generator that quadruples sides, without the residual") { check_generator("fourfold", 2, config_of(64)); }

TEST_CASE("golden: SSW-GAN, the three discriminators of a later stage") {
  Fixture fixture;
  const SafetensorsFile file = golden("critics");
  Critics d(config_of(32), 2);
  ParameterSet set(d, true);
  SpectralGroup spectral(d);
  set_initial(set, "D.");
  Tape tape;
  Recording recording(tape);
  spectral.prepare(set.values, set.grads, set.vectors);
  const Var real(hashed(file.metadata().at("input"), Shape{2, 4, 32, 32, 3}), true);
  Tensor frames(Shape{2, 3}, DType::i32);
  frames.upload(std::vector<int32_t>{0, 1, 3, 0, 1, 3}.data());
  const Tensor labels = two_labels();
  const std::pair<const char*, Var> scores[] = {
      {"spatial", d.spatial(gather_frames(real, frames), labels)},
      {"temporal", d.temporal(clip_pool(real, 1, 2), labels)},
      {"matching", d.matching(concat_channels(Var(hashed("condition", Shape{2, 2, 16, 16, 3})), view(real, 2, 2)), Tensor())}};
  std::vector<std::pair<Var, float>> roots;
  double loss = 0;
  for (const auto& [name, s] : scores) {
    CHECK(golden_error(file, std::string("scores.") + name, s.value.to_vector()) < 1e-5);
    for (int i = 0; i < 2; i++) {
      const HingeLoss h = hinge_loss(take_rows(s, i, 1), i == 0 ? 1.f : -1.f, 1.f, nullptr);
      roots.emplace_back(h.value, 1.f);
      loss += double(h.value.value.item());
    }
  }
  CHECK(golden_error(file, "loss", {float(loss)}) < 1e-5);
  tape.backward(roots);
  CHECK(worst_gradient(file, set, "grad.D.") < 1e-4);
  CHECK(golden_error(file, "grad.real", real.node->gradient().to_vector()) < 1e-4);
  CHECK(worst_buffer(file, set, "after.D.") < 1e-5);
}
