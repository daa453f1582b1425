// BigGAN against PyTorch: tests/golden/biggan_*.safetensors, written by tests/golden/make_biggan_golden.py.
#include <cstring>

#include "models/biggan_training.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::biggan;
using namespace kiln::test;

namespace {

SafetensorsFile golden(const std::string& name) {
  return SafetensorsFile(std::string(KILN_SOURCE_DIR) + "/tests/golden/biggan_" + name + ".safetensors");
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
  if (leaf == "gamma") return std::vector<float>(size_t(n), 0.5f);
  if (name == "G.output.bn.weight") return scaled(0.0625f, 0.5f);
  if (shape.rank() == 1) return scaled(0.125f);
  if (leaf == "gain" || leaf == "bias") return scaled(0.25f);
  return name == "G.shared" ? v : scaled(4.f);
}

void set_initial(ParameterSet& set, const std::string& prefix) {
  for (const auto& e : set.entries()) set.tensor(e).upload(initial(prefix + e.name, e.shape).data());
}

struct Case {
  Config config;
  int64_t batch;
  const char *z = "z", *real = "real", *fake = "fake";  // NAMES of make_biggan_golden.py
};
Case case_of(const std::string& name) {
  Config c;
  c.g_width = c.d_width = 4;
  c.g_attention = c.d_attention = 0;
  if (name == "32_tables") {
    c.size = 32, c.classes = 3, c.z = 9, c.shared = c.hierarchical = false;
    return {c, 6};
  }
  if (name == "32_deep") {
    c.size = 32, c.classes = 3, c.z = 7, c.shared_dim = 5, c.deep = true;
    return {c, 2};
  }
  if (name == "32_no_class") {
    c.size = 32, c.classes = 0, c.z = 9;
    return {c, 6};
  }
  if (name == "train") {
    c.size = 32, c.classes = 3, c.z = 9, c.shared_dim = 5;
    return {c, 6};
  }
  c.size = 64, c.classes = 4, c.shared_dim = 6;
  if (name == "64_whole_z") {
    c.z = 10, c.hierarchical = false;
    return {c, 4, "z.35"};
  }
  c.g_width = c.d_width = 8, c.g_attention = c.d_attention = 32, c.z = 17;
  if (name == "64_deep") {
    c.deep = true, c.z = 7;
    return {c, 2, "z.214", "real.22", "fake.29"};
  }
  return {c, 4};
}

Tensor label_tensor(const std::vector<int32_t>& v) {
  Tensor t(Shape{int64_t(v.size())}, DType::i32);
  t.upload(v.data());
  return t;
}

double largest(const std::vector<float>& v) {
  double m = 0;
  for (float x : v) m = std::max(m, double(std::abs(x)));
  return m;
}

std::vector<float> stored_values(const SafetensorsFile& file, const std::string& name) {
  const TensorView& view = file.at(name);
  std::vector<float> v(view.bytes / 4);
  std::memcpy(v.data(), view.data, view.bytes);
  return v;
}

/// The worst golden_error of the gradients of a set. Biases that a batch norm behind them takes away have a true gradient of
/// zero: what there is must be rounding noise beside the other gradients.
double worst_gradient(const SafetensorsFile& file, const ParameterSet& set, const std::string& prefix) {
  double worst = 0, scale = 0;
  int zero = 0;
  for (const auto& e : set.entries())
    if (e.kind == ParameterSet::Entry::parameter) scale = std::max(scale, largest(set.gradient(e).to_vector()));
  for (const auto& e : set.entries()) {
    if (e.kind != ParameterSet::Entry::parameter) continue;
    const std::vector<float> g = set.gradient(e).to_vector();
    INFO(e.name);
    if (largest(stored_values(file, prefix + e.name)) < 1e-10 * scale) {
      CHECK(largest(g) < 1e-5 * scale);
      zero++;
      continue;
    }
    const double error = golden_error(file, prefix + e.name, g);
    if (error > 1e-4) MESSAGE(prefix << e.name << " " << error);
    worst = std::max(worst, error);
  }
  if (prefix == "grad.G.") CHECK(zero > 0);
  return worst;
}

double worst_buffer(const SafetensorsFile& file, const ParameterSet& set, const std::string& prefix) {
  double worst = 0;
  for (const auto& e : set.entries())
    if (e.kind != ParameterSet::Entry::parameter && !e.name.ends_with(".v"))
      worst = std::max(worst, golden_error(file, prefix + e.name, set.tensor(e).to_vector()));
  return worst;
}

void check_forward(const std::string& name, bool fold) {
  Fixture fixture;
  const SafetensorsFile file = golden("forward_" + name);
  Case k = case_of(name);
  k.config.fold = fold;
  const Config& c = k.config;
  const int64_t n = k.batch;
  const Shape picture{n, c.size, c.size, 3};
  const double limit = c.deep ? 2e-5 : 1e-5;  // of forwards: 34 convolutions and norms in a row lose a little more
  std::vector<int32_t> y(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; i++) y[size_t(i)] = int32_t((7 * i + 3) % std::max(c.classes, 1));
  Labels labels;
  labels.a = label_tensor(y);

  Generator g(c);
  ParameterSet gp(g, true);
  SpectralGroup gs(g);
  gs.step_in_evaluation(true);
  set_initial(gp, "G.");
  const Tensor z = from_vector(Shape{n, c.latent()}, hashed_normal(k.z, n * c.latent()));
  {
    Tape tape;
    Recording recording(tape);
    gs.prepare(gp.values, gp.grads, gp.vectors);
    const Var p = g(z, labels);
    CHECK(golden_error(file, "G", p.value.to_vector()) < limit);
    tape.backward_from({{p, from_vector(picture, hashed_signed("cot", picture.count()))}});
    CHECK(worst_gradient(file, gp, "grad.G.") < 1e-4);
    CHECK(worst_buffer(file, gp, "after.G.") < 1e-5);
  }
  {
    NoGrad none;
    Evaluation evaluation;
    const std::vector<float> u = gp.vectors.to_vector();
    gs.prepare(gp.values, gp.grads, gp.vectors);
    CHECK(golden_error(file, "G.eval", g(z, labels).value.to_vector()) < limit);
    CHECK(gp.vectors.to_vector() == u);  // a fresh step, and not stored
  }

  Discriminator d(c);
  ParameterSet dp(d, true);
  SpectralGroup ds(d);
  set_initial(dp, "D.");
  {
    Tape tape;
    Recording recording(tape);
    ds.prepare(dp.values, dp.grads, dp.vectors);
    const Var logits = d(Var(from_vector(picture, hashed_signed(k.real, picture.count()))), labels.a);
    CHECK(golden_error(file, "D.logits", logits.value.to_vector()) < 1e-5);
    const HingeLoss a = hinge_loss(take_rows(logits, 0, n / 2), 1.f, 1.f, nullptr), b = hinge_loss(take_rows(logits, n / 2, n / 2), -1.f, 1.f, nullptr);
    CHECK(golden_error(file, "loss.D", {a.value.value.item() + b.value.value.item()}) < 1e-5);
    tape.backward({{a.value, 1.f}, {b.value, 1.f}});
    CHECK(worst_gradient(file, dp, "grad.D.") < 1e-4);
  }
  {
    Tape tape;
    Recording recording(tape);
    FrozenWeights frozen;
    ds.prepare(dp.values, dp.grads, dp.vectors);
    const Var fake(from_vector(picture, hashed_signed(k.fake, picture.count())), true);
    const Var loss = generator_loss(d(fake, labels.a));
    CHECK(golden_error(file, "loss.G", loss.value.to_vector()) < 1e-5);
    tape.backward({{loss, 1.f}});
    CHECK(golden_error(file, "grad.fake", fake.node->gradient().to_vector()) < 1e-4);
    CHECK(worst_buffer(file, dp, "after.D.") < 1e-5);
  }
}

}  // namespace

TEST_CASE("golden: BigGAN 32 with tables, no shared embedding") { check_forward("32_tables", true); }
TEST_CASE("golden: BigGAN 32 with tables, not folded") { check_forward("32_tables", false); }
TEST_CASE("golden: BigGAN 32, unconditional") { check_forward("32_no_class", true); }
TEST_CASE("golden: BigGAN 64 with attention, shared embedding, hierarchical z") { check_forward("64", true); }
TEST_CASE("golden: BigGAN 64, not folded") { check_forward("64", false); }
TEST_CASE("golden: BigGAN 64, z whole") { check_forward("64_whole_z", true); }
TEST_CASE("golden: BigGAN-deep 64 with attention") { check_forward("64_deep", true); }
TEST_CASE("golden: BigGAN-deep 32, whose D pools twice") { check_forward("32_deep", true); }
TEST_CASE("golden: BigGAN-deep 64, not folded") { check_forward("64_deep", false); }

TEST_CASE("golden: BigGAN, three training iterations in parts, with orthogonal regularisation and the average") {
  Fixture fixture;
  const SafetensorsFile file = golden("train");
  const Case k = case_of("train");
  auto random = std::make_shared<ReplaySource>();
  context().random = random;
  Model m(k.config);
  set_initial(m.g_params, "G.");
  set_initial(m.d_params, "D.");
  m.average_params.copy_from(m.g_params);
  TrainOptions o;
  o.adam_g = {1e-3f, 0.f, 0.999f, 1e-6f};
  o.adam_d = {2e-3f, 0.f, 0.999f, 1e-6f};
  o.ema = {0.9f, false};
  o.ema.start = 2;
  o.d_steps = o.parts = 2;
  o.ortho_g = o.ortho_d = 1e-3f;
  const Shape picture{k.batch, 32, 32, 3};
  for (int i = 0; i < 3; i++) {
    const std::string at = "#" + std::to_string(i);
    random->suffix = at;
    const auto real = [&](int step, int part) {
      std::vector<int32_t> y;
      for (int64_t j = 0; j < k.batch; j++) y.push_back(int32_t((j + part + step) % 3));
      return RealPart{from_vector(picture, hashed_signed(fmt::format("real.{}.{}{}", step, part, at), picture.count())), label_tensor(y)};
    };
    const Losses l = m.iteration(real, o);
    const auto stored = [&](const std::string& name) { return double(stored_values(file, name + at)[0]); };
    CHECK(std::abs(l.d_real.item() - (stored("loss.D_real.0") + stored("loss.D_real.1")) / 2) < 1e-3);
    CHECK(std::abs(l.d_fake.item() - (stored("loss.D_fake.0") + stored("loss.D_fake.1")) / 2) < 1e-3);
    CHECK(std::abs(l.g.item() - stored("loss.G")) < 1e-3);
  }
  // 99.9 % of the weights within a tenth of what the Adam steps can move them.
  int64_t all = 0, near = 0;
  const auto compare = [&](const ParameterSet& set, const std::string& prefix, double reach) {
    for (const auto& e : set.entries()) {
      if (e.name.ends_with(".v")) continue;
      const std::vector<float> whole = set.tensor(e).to_vector();
      if (e.kind != ParameterSet::Entry::parameter) {
        INFO(prefix << e.name);
        CHECK(golden_error(file, prefix + e.name, whole) < 5e-3);
        continue;
      }
      const std::vector<float> expected = stored_values(file, prefix + e.name);
      size_t stride = whole.size() > 2048 ? (whole.size() + 2047) / 2048 : 1;
      if (whole.size() > 2048 && stride % 2 == 0) stride++;
      for (size_t i = 0, j = 0; i < whole.size(); i += stride, j++) {
        all++;
        near += std::abs(double(whole[i]) - double(expected[j])) <= 0.1 * reach + 4e-7 * std::abs(double(expected[j]));
      }
    }
  };
  compare(m.g_params, "final.G.", 3e-3);
  compare(m.d_params, "final.D.", 12e-3);
  compare(m.average_params, "ema.G.", 3e-3);
  MESSAGE("weights near: " << double(near) / double(all) << " of " << all);
  CHECK(double(near) >= 0.999 * double(all));
}
