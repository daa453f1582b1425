// NSB-GAN's decoders against PyTorch: tests/golden/nsbgan_*.safetensors, written by tests/golden/make_nsbgan_golden.py.
#include <cstring>

#include "engine/ops_feature.h"
#include "models/nsbgan_decoder_training.h"
#include "tests/feature_fixtures.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::nsbgan;
using namespace kiln::test;

namespace {

SafetensorsFile golden(const std::string& name) { return SafetensorsFile(std::string(KILN_SOURCE_DIR) + "/tests/golden/nsbgan_" + name + ".safetensors"); }

/// The rules of make_nsbgan_golden.py.
std::vector<float> initial(const std::string& name, const Shape& shape) {
  const std::string leaf = name.substr(name.rfind('.') + 1), before = name.substr(0, name.rfind('.')), owner = before.substr(before.rfind('.') + 1);
  const int64_t n = shape.count();
  if (leaf == "running_mean") return std::vector<float>(size_t(n), 0.f);
  if (leaf == "running_var") return std::vector<float>(size_t(n), 1.f);
  std::vector<float> v = hashed_signed(name, n);
  const double fan_in = double(n) / double(shape[0]);
  for (float& x : v) x = leaf == "bias" ? 0.125f * x : owner.starts_with("bn") ? 1.f + 0.25f * x : float(std::exp2(std::floor(std::log2(std::sqrt(6 / fan_in))))) * x;
  return v;
}

void set_initial(ParameterSet& set, const std::string& prefix) {
  for (const auto& e : set.entries()) set.tensor(e).upload(initial(prefix + e.name, e.shape).data());
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

/// Biases that a batch norm behind them takes away have a gradient of zero: what there is must be rounding noise.
void check_gradients(const SafetensorsFile& file, const ParameterSet& set) {
  double scale = 0;
  for (const auto& e : set.entries())
    if (e.kind == ParameterSet::Entry::parameter) scale = std::max(scale, largest(set.gradient(e).to_vector()));
  for (const auto& e : set.entries()) {
    if (e.kind != ParameterSet::Entry::parameter) continue;
    const std::vector<float> g = set.gradient(e).to_vector();
    INFO(e.name);
    if (largest(stored_values(file, "grad.G." + e.name)) < 1e-10 * scale)
      CHECK(largest(g) < 1e-5 * scale);
    else
      CHECK(golden_error(file, "grad.G." + e.name, g) < 1e-4);
  }
}

template <class Network>
void check_unet(const std::string& name, Network g, const Shape& shape) {
  Fixture fixture;
  const SafetensorsFile file = golden(name);
  ParameterSet set(g, true);
  set_initial(set, "G.");
  const Var x(from_vector(shape, hashed_signed("x", shape.count())));
  {
    Tape tape;
    Recording recording(tape);
    const Var y = g(x);
    CHECK(golden_error(file, "y", y.value.to_vector()) < 1e-5);
    tape.backward_from({{y, from_vector(y.shape(), hashed_signed("cot", y.value.count()))}});
    check_gradients(file, set);
  }
  for (const auto& e : set.entries()) {
    INFO(e.name);
    if (e.kind == ParameterSet::Entry::statistic) CHECK(golden_error(file, "after.G." + e.name, set.tensor(e).to_vector()) < 1e-5);
  }
  NoGrad none;
  Evaluation evaluation;
  CHECK(golden_error(file, "eval", g(x).value.to_vector()) < 1e-5);
}

DecoderConfig decoder(Wavelet wavelet, double shift, double scale, bool published) {
  DecoderConfig c;
  c.width = 8, c.blocks = 2, c.published_base = published;
  c.band = Band{Domain::wavelet, wavelet, 2, 32, shift, scale};
  return c;
}

void check_decoder(const std::string& name, const DecoderConfig& c) {
  Fixture fixture;
  const SafetensorsFile file = golden(name);
  DecoderNetwork g(c);
  ParameterSet set(g, true);
  set_initial(set, "G.");
  std::vector<float> band = hashed_signed("band", 2 * 8 * 8 * 3);
  for (float& v : band) v = 5 * v + 2;
  Tape tape;
  Recording recording(tape);
  const Var y = g(from_vector(Shape{2, 8, 8, 3}, band));
  CHECK(golden_error(file, "y", y.value.to_vector()) < 1e-5);
  tape.backward_from({{y, from_vector(y.shape(), hashed_signed("cot", y.value.count()))}});
  check_gradients(file, set);
}

}  // namespace

TEST_CASE("golden: NSB-GAN's U-Net with a head for every tile") { check_unet("tails", TailUNet(12, 12, 8), Shape{4, 16, 16, 12}); }
TEST_CASE("golden: NSB-GAN's residual U-Net in pixels") { check_unet("residual", ResidualUNet(4), Shape{4, 32, 32, 3}); }
TEST_CASE("golden: NSB-GAN's SRResNet on bior2.2 with the published base") { check_decoder("published", decoder(Wavelet::bior22, 3, 10, true)); }
TEST_CASE("golden: NSB-GAN's SRResNet on haar") { check_decoder("haar", decoder(Wavelet::haar, 3, 10, false)); }

TEST_CASE("golden: NSB-GAN's perceptual loss: VGG19's conv5_4 and its gradient") {
  Fixture fixture;
  const TempFolder t;
  const PthValue state = PthNode::dict();
  int64_t channels = 3;
  int at = 0;
  for (const auto& [width, convolutions] : {std::pair{64, 2}, std::pair{128, 2}, std::pair{256, 4}, std::pair{512, 4}, std::pair{512, 4}}) {
    for (int k = 0; k < convolutions; k++, at += 2, channels = width) {
      const std::string name = fmt::format("features.{}.", at);
      state->set(name + "weight", PthNode::of(PthTensor::of({width, channels, 3, 3}, hashed_weight("vgg19." + name + "weight", {width, channels, 3, 3}, 9 * channels))));
      state->set(name + "bias", PthNode::of(PthTensor::of({width}, hashed_weight("vgg19." + name + "bias", {width}, 1))));
    }
    at++;
  }
  write_pth(t / "vgg19.pth", *state);
  CHECK(contains(error_of([&] { Vgg19Loss(t / "none.pth"); }), "vgg19-dcbb9e9d.pth"));
  const Vgg19Loss vgg(t / "vgg19.pth");
  const SafetensorsFile file = golden("vgg");
  const Shape shape{1, 32, 48, 3};
  Tape tape;
  Recording recording(tape);
  const Var x(from_vector(shape, hashed_uniform("picture", shape.count())), true);
  const Var y = vgg.features(x);
  CHECK(golden_error(file, "y", y.value.to_vector()) < 1e-5);
  const Var loss = vgg(x, x.value);
  CHECK(loss.value.item() == 0);
  tape.backward_from({{y, from_vector(y.shape(), hashed_signed("cot", y.value.count()))}});
  CHECK(golden_error(file, "grad.x", x.node->gradient().to_vector()) < 1e-4);
}

TEST_CASE("golden: NSB-GAN's adversarial stage, two steps") {
  Fixture fixture;
  const SafetensorsFile file = golden("gan");
  context().random = std::make_shared<Philox>(1);
  decoding::Model m(decoder(Wavelet::haar, 0, 4, false), 4);
  set_initial(m.g_params, "G.");
  set_initial(m.d_params, "D.");
  decoding::TrainOptions o;
  o.adam_g.lr = 1e-3f, o.adam_d.lr = 2e-3f;
  o.gan = true;
  o.pixel_weight = 1e-2f;
  for (int i = 0; i < 2; i++) {
    const std::string at = "#" + std::to_string(i);
    const Shape shape{4, 32, 32, 3};
    std::vector<float> real = hashed_uniform("real" + at, shape.count());
    for (float& v : real) v = 2 * v - 1;
    const decoding::Losses l = m.iteration([&](int) { return from_vector(shape, real); }, o);
    const double limit = i == 0 ? 1e-5 : 1e-3;
    CHECK(std::abs(double(l.pixel.item()) / double(stored_values(file, "loss.l1" + at)[0]) - 1) < limit);
    CHECK(std::abs(double(l.adversarial.item()) / double(stored_values(file, "loss.gan" + at)[0]) - 1) < limit);
    CHECK(std::abs(double(l.d.item()) / double(stored_values(file, "loss.d" + at)[0]) - 1) < limit);
  }
  // 99.9 % of the weights within a tenth of what the Adam steps can move them.
  int64_t all = 0, near = 0;
  const auto compare = [&](const ParameterSet& set, const std::string& prefix, double reach) {
    for (const auto& e : set.entries()) {
      const std::vector<float> whole = set.tensor(e).to_vector();
      INFO(prefix << e.name);
      if (e.kind != ParameterSet::Entry::parameter) {
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
  compare(m.g_params, "final.G.", 2e-3);
  compare(m.d_params, "final.D.", 4e-3);
  MESSAGE("weights near: " << double(near) / double(all) << " of " << all);
  CHECK(double(near) >= 0.999 * double(all));
}
