// BigGAN folded and not: the exact foldings of up- and downsampling, in whole networks, forward and backward. And biases whose
// gradient is exactly zero, so that they are left out.
#include "models/biggan_training.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::biggan;
using namespace kiln::test;

namespace {

Config network(bool deep, bool fold) {
  Config c;
  c.size = 64;
  c.g_width = c.d_width = 8;
  c.z = 20;
  c.shared_dim = 6;
  c.classes = 3;
  c.deep = deep;
  c.g_attention = c.d_attention = 32;
  c.fold = fold;
  return c;
}

struct Result {
  std::vector<float> picture, logits;
  std::map<std::string, std::vector<float>> gradients;  // of all parameters of both networks, by name
};

/// Pictures and logits, and the gradients of one iteration: of D on these pictures, and of G through a D that has not moved.
Result compute(bool deep, bool fold) {
  Fixture fixture;
  const auto random = std::make_shared<Philox>(21);
  context().random = random;
  Model m(network(deep, fold));
  m.initialise(*random);
  // Attention begins as the identity: here it must matter.
  for (ParameterSet* set : {&m.g_params, &m.d_params})
    for (const auto& e : set->entries())
      if (e.name == "attention.gamma") set->tensor(e).upload(std::vector<float>{0.7f}.data());
  const Shape s{3, 64, 64, 3};
  const Tensor real = from_vector(s, hashed_signed("real", s.count()));
  Tensor labels(Shape{3}, DType::i32);
  labels.upload(std::vector<int32_t>{0, 2, 1}.data());
  TrainOptions o;
  o.adam_g.lr = o.adam_d.lr = 1e-12f;
  const Losses l = m.iteration([&](int, int) { return RealPart{real, labels}; }, o);
  Result r;
  r.logits = {l.d_real.item(), l.d_fake.item(), l.g.item(), l.logit_real.item(), l.logit_fake.item()};
  for (const auto& [prefix, set] : {std::pair{"G.", &m.g_params}, std::pair{"D.", &m.d_params}})
    for (const auto& e : set->entries())
      if (e.kind == ParameterSet::Entry::parameter) r.gradients[prefix + e.name] = set->gradient(e).to_vector();
  m.average_params.copy_from(m.g_params);
  r.picture = m.sample(from_vector(Shape{3, m.config.latent()}, hashed_normal("z", 3 * m.config.latent())), {labels, {}, 0}).to_vector();
  return r;
}

double largest(const std::vector<float>& v) {
  double m = 0;
  for (const float x : v) m = std::max(m, double(std::abs(x)));
  return m;
}

/// Biases that a batch norm takes out again: of convolutions before a conditional norm.
bool cancelled(const std::string& name, bool deep) {
  if (!name.starts_with("G.blocks.") || !name.ends_with(".bias")) return false;
  return name.ends_with("conv1.bias") || (deep && (name.ends_with("conv2.bias") || name.ends_with("conv3.bias")));
}

}  // namespace

TEST_CASE("biggan: folded networks equal the unfolded ones: pictures, losses, and every gradient") {
  for (const bool deep : {false, true}) {
    CAPTURE(deep);
    const Result folded = compute(deep, true), plain = compute(deep, false);
    CHECK(folded.picture != plain.picture);  // they were computed in another way
    CHECK(relative_error(folded.picture, plain.picture) < 1e-5);
    CHECK(relative_error(folded.logits, plain.logits) < 1e-5);
    REQUIRE(folded.gradients.size() == plain.gradients.size());
    double most = 0;
    for (const auto& [name, g] : plain.gradients) most = std::max(most, largest(g));
    double worst = 0;
    for (const auto& [name, g] : plain.gradients) {
      CAPTURE(name);
      const std::vector<float>& other = folded.gradients.at(name);
      double difference = 0;
      for (size_t i = 0; i < g.size(); i++) difference = std::max(difference, double(std::abs(g[i] - other[i])));
      // A gradient that is zero but for rounding (the biases below, and what lies behind them) has no size of its own.
      const double error = difference / std::max(largest(g), 1e-4 * most);
      worst = std::max(worst, error);
      CHECK(error < 1e-2);  // in f32 one relu that rounding has flipped moves whole tensors by this much
    }
    MESSAGE(std::string(deep ? "deep: " : "") << "worst gradient " << worst);
  }
}

TEST_CASE("biggan: biases before a norm have a gradient of exactly zero and stay as they are; others move") {
  for (const bool deep : {false, true}) {
    CAPTURE(deep);
    const Result r = compute(deep, true);
    int zero = 0;
    for (const auto& [name, g] : r.gradients) {
      if (!name.ends_with(".bias")) continue;
      CAPTURE(name);
      if (cancelled(name, deep)) {
        CHECK(largest(g) == 0);
        zero++;
      } else if ((name.starts_with("D.") && name != "D.linear.bias") || name.find("bn") != std::string::npos || name == "G.output.conv.bias") {
        CHECK(largest(g) > 0);
      }
    }
    CHECK(zero == (deep ? 3 * 8 : 4));
  }
}
