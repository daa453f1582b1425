// FastGAN as a network: its parameters, shapes, options, random numbers and training at toy size. Against PyTorch it is
// tested in fastgan_golden_test.cpp.
#include <set>

#include "engine/error.h"
#include "models/fastgan_run.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::fastgan;
using namespace kiln::test;

namespace {

/// A context that allocates and computes nothing.
struct Planning {
  Context context{Device::cpu, true};
  UseContext use{context};
};

Config config_of(int size, int width) {
  Config c;
  c.size = size;
  c.ngf = c.ndf = width;
  return c;
}

struct Network {
  Generator g;
  Discriminator d;
  ParameterSet gp, dp;
  explicit Network(const Config& c) : g(c), d(c), gp(g, true), dp(d, true) {}
};

std::set<std::string> names(const ParameterSet& set) {
  std::set<std::string> out;
  for (const auto& e : set.entries()) out.insert(e.name);
  return out;
}

/// Names that start with a prefix.
int count(const ParameterSet& set, const std::string& prefix) {
  int n = 0;
  for (const auto& e : set.entries()) n += e.name.starts_with(prefix);
  return n;
}

int count_with(const ParameterSet& set, const std::string& part) {
  int n = 0;
  for (const auto& e : set.entries()) n += e.name.find(part) != std::string::npos;
  return n;
}

constexpr int kSizes[] = {32, 64, 128, 256, 512, 1024};

}  // namespace

TEST_CASE("fastgan: parameters at the published widths") {
  Planning planning;
  const int64_t g[] = {25802884, 28211460, 28959814, 29127846, 29174392, 29176512};
  const int64_t d[] = {8672768, 10701568, 11319584, 11526160, 11526496, 11528192};
  for (size_t i = 0; i < 6; i++) {
    CAPTURE(kSizes[i]);
    const Network n(config_of(kSizes[i], 64));
    CHECK(n.gp.parameter_count() == g[i]);
    CHECK(n.dp.parameter_count() == d[i]);
    CHECK(names(n.gp).size() == n.gp.entries().size());
    CHECK(names(n.dp).size() == n.dp.entries().size());
  }
  const Network at_256(config_of(256, 64));
  int64_t decoders = 0;
  for (const auto& e : at_256.dp.entries())
    if (e.kind == ParameterSet::Entry::parameter && e.name.starts_with("decoder_")) decoders += e.count();
  CHECK(decoders == 3139488);
}

TEST_CASE("fastgan: shapes at every size, and fifty logits a picture") {
  Planning planning;
  planning.context.random = std::make_shared<Philox>(1);
  for (int size : kSizes) {
    CAPTURE(size);
    const Config c = config_of(size, 8);
    const int64_t n = 3, s = size <= 256 ? size / 2 : 128;
    CHECK(c.small() == s);
    Network net(c);
    SpectralGroup gs(net.g), ds(net.d);
    gs.prepare(net.gp.values, net.gp.grads, net.gp.vectors);
    ds.prepare(net.dp.values, net.dp.grads, net.dp.vectors);
    const Pictures p = net.g(Var(Tensor(Shape{n, c.nz})));
    CHECK(p.big.shape() == Shape{n, size, size, 3});
    CHECK(p.small.shape() == Shape{n, s, s, 3});
    const Features f = net.d(p);
    CHECK(f.logits.shape() == Shape{50 * n});
    CHECK(f.last.shape() == Shape{n, 8, 8, discriminator_channels(8, 8)});
    CHECK(f.mid.shape() == Shape{n, 16, 16, discriminator_channels(16, 8)});
    CHECK(f.small.shape() == Shape{n, 8, 8, discriminator_channels(16, 8)});
    const Reconstructions r = net.d.reconstruct(f, Tensor(Shape{1}, DType::i32));
    for (const Var* v : {&r.all, &r.small, &r.part}) CHECK(v->shape() == Shape{n, s, s, 3});
  }
}

TEST_CASE("fastgan: channels follow the published tables") {
  const int64_t g[] = {1024, 512, 256, 128, 128, 64, 32, 16, 8}, d[] = {1024, 512, 256, 128, 64, 32, 16, 8};
  for (int i = 0; i < 9; i++) CHECK(generator_channels(4 << i, 64) == g[i]);
  CHECK(discriminator_channels(4, 64) == 1024);
  for (int i = 1; i < 8; i++) CHECK(discriminator_channels(4 << i, 64) == d[i]);
  const int64_t dec[] = {128, 64, 64, 32};
  for (int i = 0; i < 4; i++) CHECK(decoder_channels(16 << i, 32) == dec[i]);
  CHECK(generator_channels(1024, 4) == 1);  // never none
}

TEST_CASE("fastgan: each option of the network changes what it says, and nothing else") {
  Planning planning;
  const Config base = config_of(256, 64);
  const Network plain(base);
  CHECK(base == config_of(256, 64));
  const auto change = [&](auto f) {
    Config c = base;
    f(c);
    CHECK(c != base);
    return Network(c);
  };
  const auto same = [&](const ParameterSet& a, const ParameterSet& b) {
    CHECK(names(a) == names(b));
    CHECK(a.parameter_count() == b.parameter_count());
  };
  CHECK(count_with(plain.gp, "noise") == 6);
  CHECK(count_with(Network(config_of(1024, 8)).gp, "noise") == 8);
  CHECK(count(plain.dp, "se_") == 3 * 6);
  {
    const Network n = change([](Config& c) { c.noise = false; });
    CHECK(count_with(n.gp, "noise") == 0);
    CHECK(n.gp.parameter_count() == plain.gp.parameter_count() - 6);
    same(n.dp, plain.dp);
  }
  {
    const Network n = change([](Config& c) { c.sle_64 = false; });
    CHECK(count(n.gp, "se_64.") == 0);
    CHECK(count(n.gp, "se_128.") == count(plain.gp, "se_128."));
    CHECK(n.gp.parameter_count() == plain.gp.parameter_count() - 2113536);
    same(n.dp, plain.dp);
  }
  {
    const Network n = change([](Config& c) { c.d_gates = false; });
    CHECK(count(n.dp, "se_") == 0);
    const int64_t gates = (16 * 16 + 128) * 128 + (32 * 16 + 256) * 256 + (64 * 16 + 512) * 512;
    CHECK(n.dp.parameter_count() == plain.dp.parameter_count() - gates);
    same(n.gp, plain.gp);
  }
  {
    const Network n = change([](Config& c) { c.nz = 100; });
    CHECK(n.gp.parameter_count() == 24016038);
    same(n.dp, plain.dp);
  }
  for (const Network& n : {change([](Config& c) { c.tanh = true; }), change([](Config& c) { c.sle_leaky = true; }),
                           change([](Config& c) { c.fold_upsample = false; })}) {
    same(n.gp, plain.gp);
    same(n.dp, plain.dp);
  }
  {
    const Network n = change([](Config& c) { c.ngf = 32; });
    CHECK(n.gp.parameter_count() < plain.gp.parameter_count() / 2);
    same(n.dp, plain.dp);
  }
  {
    const Network n = change([](Config& c) { c.ndf = 32; });
    CHECK(n.dp.parameter_count() < plain.dp.parameter_count() / 2);
    same(n.gp, plain.gp);
  }
  const Network small(config_of(64, 64)), large(config_of(1024, 64));
  CHECK(count(small.gp, "feat_128.") == 0);
  CHECK(count(small.gp, "feat_64.") > 0);
  CHECK(count(small.gp, "se_128.") == 0);
  CHECK(count(large.gp, "feat_1024.") > 0);
  CHECK(count(large.gp, "se_512.") > 0);
  CHECK(count(large.gp, "se_1024.") == 0);
  CHECK(count(large.dp, "stem.conv2.") == 3);
}

// ---- what the options do to the pictures
// --------------------------------------------------------------------------------

namespace {

/// The big and the small pictures of a generator with initial weights, its gains and its noise turned up so that
/// pictures reach beyond [-1, 1], in evaluation mode.
std::vector<std::vector<float>> pictures(const Config& c, uint64_t seed, uint64_t step, int64_t n = 2) {
  Generator g(c);
  ParameterSet set(g, true);
  SpectralGroup group(g);
  Philox init(1);
  set.initialise(init, "G.");
  for (const auto& e : set.entries()) {
    if (e.name.find("noise") != std::string::npos) set.tensor(e).upload(std::vector<float>{0.5f}.data());
    if (e.name.find("bn") == std::string::npos || !e.name.ends_with("weight")) continue;
    set.tensor(e).upload(std::vector<float>(size_t(e.count()), 3.f).data());
  }
  const auto random = std::make_shared<Philox>(seed);
  random->set_step(step);
  context().random = random;
  NoGrad none;
  {
    // A training forward first: the singular vectors and the statistics of a fresh network mean nothing.
    group.prepare(set.values, set.grads, set.vectors);
    g(Var(from_vector(Shape{4, c.nz}, hashed_normal("warm", 4 * c.nz))));
  }
  Evaluation evaluation;
  group.prepare(set.values, set.grads, set.vectors);
  const Pictures p = g(Var(from_vector(Shape{n, c.nz}, hashed_normal("z", n * c.nz))));
  return {p.big.value.to_vector(), p.small.value.to_vector()};
}

}  // namespace

TEST_CASE("fastgan: tanh, leaky gates and folded upsampling do to the pictures what they say") {
  Fixture fixture;
  Config c = config_of(64, 4);
  c.noise = false;
  const auto plain = pictures(c, 1, 0);
  Config t = c;
  t.tanh = true;
  const auto bounded = pictures(t, 1, 0);
  for (size_t k = 0; k < 2; k++) {
    std::vector<float> expected = plain[k];
    for (float& x : expected) x = std::tanh(x);
    CHECK(test::relative_error(bounded[k], expected) < 1e-5);
    CHECK(test::relative_error(bounded[k], plain[k]) > 0.1);
  }
  Config unfolded = c;
  unfolded.fold_upsample = false;
  CHECK(test::relative_error(pictures(unfolded, 1, 0)[0], plain[0]) < 1e-4);
  Config leaky = c, gateless = c;
  leaky.sle_leaky = true;
  gateless.sle_64 = false;
  CHECK(test::relative_error(pictures(leaky, 1, 0)[0], plain[0]) > 1e-5);
  CHECK(test::relative_error(pictures(leaky, 1, 0)[1], plain[1]) ==
        0);  // the gate at 64 comes after the picture of side 32
  CHECK(test::relative_error(pictures(gateless, 1, 0)[0], plain[0]) > 1e-2);

  Config large = config_of(1024, 2);
  large.noise = false;
  const auto always = pictures(large, 1, 0, 1);
  large.tanh = true;
  CHECK(pictures(large, 1, 0, 1) == always);
  CHECK(std::all_of(always[0].begin(), always[0].end(), [](float x) { return std::abs(x) <= 1; }));
}

TEST_CASE("fastgan: a gate is what section 3.1 says") {
  Fixture fixture;
  for (bool leaky : {false, true}) {
    SkipExcitation se(6, 10, leaky);
    ParameterSet set(se, true);
    SpectralGroup group(se);
    Philox random(3);
    set.initialise(random, "");
    group.prepare(set.values, set.grads, set.vectors);
    const Var x(from_vector(Shape{2, 8, 8, 6}, hashed_signed("x", 2 * 64 * 6)));
    const Var h = conv2d(area_resize(x, 4, 4), se.conv1.w.normalised, 1, 0);
    const Var y = conv2d(leaky ? leaky_relu(h) : swish(h), se.conv2.w.normalised, 1, 0);
    const Var g = se(x);
    CHECK(g.shape() == Shape{2, 1, 1, 10});
    CHECK(g.value.to_vector() == sigmoid(y).value.to_vector());
  }
}

TEST_CASE("fastgan: noise is fresh at every step, and the same for the same seed and step") {
  Fixture fixture;
  const Config c = config_of(32, 4);
  const auto base = pictures(c, 7, 3);
  CHECK(pictures(c, 7, 3) == base);
  CHECK(test::relative_error(pictures(c, 7, 4)[0], base[0]) > 1e-3);
  CHECK(test::relative_error(pictures(c, 8, 3)[0], base[0]) > 1e-3);
  Config silent = c;
  silent.noise = false;
  CHECK(pictures(silent, 7, 3) == pictures(silent, 8, 4));
}

namespace {

/// Notes every site that is drawn from.
class Witness : public RandomSource {
 public:
  std::vector<std::string> sites;
  Tensor normal(std::string_view site, const Shape& shape) override {
    sites.push_back(std::string(site) + " " + shape.text());
    return Tensor(shape);
  }
  Tensor uniform(std::string_view site, const Shape& shape) override { return normal(site, shape); }
};

}  // namespace

TEST_CASE("fastgan: every noise injection draws from a site of its own, one number a pixel") {
  Planning planning;
  const auto witness = std::make_shared<Witness>();
  planning.context.random = witness;
  Network net(config_of(128, 8));
  SpectralGroup group(net.g);
  group.prepare(net.gp.values, net.gp.grads, net.gp.vectors);
  net.g(Var(Tensor(Shape{3, 256})));
  CHECK(witness->sites == std::vector<std::string>{"noise.0 3x8x8x1", "noise.1 3x8x8x1", "noise.2 3x32x32x1",
                                                   "noise.3 3x32x32x1", "noise.4 3x128x128x1", "noise.5 3x128x128x1"});
}

TEST_CASE("fastgan: errors of options name the flag and the limits") {
  const auto error = [](auto f) {
    RunOptions o;
    f(o);
    return error_of([&] { check(o); });
  };
  CHECK(error([](RunOptions&) {}).empty());
  for (int size : kSizes) CHECK(error([&](RunOptions& o) { o.network.size = size; }).empty());
  for (int size : {0, -64, 16, 33, 48, 100, 2048}) {
    const std::string e = error([&](RunOptions& o) { o.network.size = size; });
    CHECK(e.starts_with("--size " + std::to_string(size)));
    CHECK(e.find("32, 64, 128, 256, 512 or 1024") != std::string::npos);
  }
  for (int width : {0, -2, 1, 3, 1026}) {
    CHECK(error([&](RunOptions& o) { o.network.ngf = width; }).starts_with("--ngf " + std::to_string(width)));
    CHECK(error([&](RunOptions& o) { o.network.ndf = width; }).starts_with("--ndf " + std::to_string(width)));
  }
  for (int nz : {0, -1, 65537}) CHECK(error([&](RunOptions& o) { o.network.nz = nz; }).starts_with("--nz"));
  using Set = void (*)(RunOptions&);
  const std::pair<const char*, Set> bad[] = {
      {"--batch", [](RunOptions& o) { o.batch = 0; }},
      {"--steps", [](RunOptions& o) { o.steps = 0; }},
      {"--minutes", [](RunOptions& o) { o.minutes = -1; }},
      {"--flip", [](RunOptions& o) { o.flip = 1.5; }},
      {"--lr", [](RunOptions& o) { o.train.adam.lr = NAN; }},
      {"--beta1", [](RunOptions& o) { o.train.adam.beta1 = 1; }},
      {"--beta2", [](RunOptions& o) { o.train.adam.beta2 = -0.1f; }},
      {"--ema-decay", [](RunOptions& o) { o.train.ema.decay = 1; }},
      {"--margin-low", [](RunOptions& o) { o.train.margin_low = 1.1f; }},
      {"--recon-weight", [](RunOptions& o) { o.train.recon_weight = -1; }},
      {"--log-every", [](RunOptions& o) { o.log_every = 0; }},
      {"--sample-every", [](RunOptions& o) { o.sample_every = -1; }},
      {"--metric-every", [](RunOptions& o) { o.metric_every = -1; }},
      {"--checkpoint-every", [](RunOptions& o) { o.checkpoint_every = 0; }},
      {"--keep", [](RunOptions& o) { o.keep = -1; }},
      {"--grid", [](RunOptions& o) { o.grid = 0; }},
      {"--threads", [](RunOptions& o) { o.threads = -1; }},
      {"--memory", [](RunOptions& o) { o.memory_gb = -1; }},
  };
  for (const auto& [flag, set] : bad) {
    CAPTURE(flag);
    CHECK(error(set).starts_with(std::string(flag) + " "));
  }
}
