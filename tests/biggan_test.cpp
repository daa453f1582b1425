// BigGAN's tables, counts and rules. The numbers against PyTorch are in biggan_golden_test.cpp.
#include "models/biggan_training.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::biggan;
using namespace kiln::test;

namespace {

struct Counts {
  int64_t g, d;
};

/// Parameters of both networks; in a planning context, so that no memory is taken.
Counts count(const Config& c) {
  Context context(Device::cpu, true);
  UseContext use(context);
  Generator g(c);
  Discriminator d(c);
  return {ParameterSet(g, false).parameter_count(), ParameterSet(d, false).parameter_count()};
}

Config published(int size, int width, int z, int attention, int classes = 1000) {
  Config c;
  c.size = size;
  c.g_width = c.d_width = width;
  c.z = z;
  c.classes = classes;
  c.g_attention = c.d_attention = attention;
  return c;
}

Config tiny(int size = 32, int classes = 3) {
  Config c = published(size, 4, 12, 0, classes);
  c.shared_dim = 6;
  return c;
}

std::shared_ptr<Philox> use_random(uint64_t seed) {
  auto r = std::make_shared<Philox>(seed);
  context().random = r;
  return r;
}

RealSource pictures(int64_t n, int size, int classes) {
  return [=](int step, int part) {
    const Shape s{n, size, size, 3};
    std::vector<int32_t> y;
    for (int64_t i = 0; i < n; i++) y.push_back(int32_t((i + part) % std::max(classes, 1)));
    Tensor labels(Shape{n}, DType::i32);
    labels.upload(y.data());
    return RealPart{from_vector(s, hashed_signed("real" + std::to_string(step), s.count())), labels};
  };
}

Labels all_of(int32_t label, int64_t n) {
  Labels l;
  l.a = Tensor(Shape{n}, DType::i32);
  l.a.upload(std::vector<int32_t>(size_t(n), label).data());
  return l;
}

}  // namespace

TEST_CASE("biggan: parameter counts are the published ones") {
  const auto both = [](const Config& c, int64_t g, int64_t d) {
    const Counts n = count(c);
    CHECK(n.g == g);
    if (d) CHECK(n.d == d);
  };
  Config cifar = published(32, 64, 128, 0, 10);
  cifar.shared = cifar.hierarchical = false;
  both(cifar, 4304387, 4207361);
  cifar.classes = 100;
  both(cifar, 4580867, 4230401);
  both(published(64, 64, 120, 32), 31969540, 20571842);
  both(published(64, 96, 120, 32), 70377348, 45511970);
  both(published(64, 32, 100, 32, 10), 8374660, 4894306);
  both(published(128, 64, 120, 64), 31978628, 39448258);
  both(published(128, 96, 120, 64), 70433988, 87982370);
  both(published(256, 96, 140, 64), 82235844, 99225890);
  Config wide = published(256, 96, 140, 128);
  wide.d_attention = 64;
  both(wide, 82097604, 99225890);
  both(published(512, 96, 128, 64), 82296804, 0);
  Config studio = published(32, 96, 80, 16, 10);  // of another public code, whose D is half as wide
  studio.d_width = 48;
  both(studio, 9416196, 2415170);
  // Without sharing or hierarchy, G and D together: rows of the paper's table 1.
  Config whole = published(128, 96, 120, 64);
  whole.hierarchical = false;
  const Counts shared = count(whole);
  CHECK(std::abs(double(shared.g + shared.d) / 1e6 - 160.58) < 0.005);
  whole.shared = false;
  whole.z = 128;
  const Counts tables = count(whole);
  CHECK(std::abs(double(tables.g + tables.d) / 1e6 - 173.54) < 0.005);
  whole.g_width = whole.d_width = 64;
  const Counts narrow = count(whole), full = count(published(128, 96, 120, 64)), narrow_full = count(published(128, 64, 120, 64));
  CHECK(std::abs(double(narrow.g + narrow.d) / 1e6 - 81.47) < 0.005);
  CHECK(std::abs(double(full.g + full.d) / 1e6 - 158.42) < 0.005);
  CHECK(std::abs(double(narrow_full.g + narrow_full.d) / 1e6 - 71.43) < 0.005);
}

TEST_CASE("biggan: the deep generator's parameter counts are the published ones") {
  // The published weights have an output convolution of `width` channels, of which three are used.
  const int64_t extra = (128 - 3) * (128 * 9 + 1);
  for (const auto& [size, expected] : {std::pair{128, 50388609}, {256, 55880833}, {512, 56163905}}) {
    Config c = published(size, 128, 128, 64);
    c.deep = true;
    CHECK(count(c).g + extra == expected);
  }
}

TEST_CASE("biggan: tables by the same rule for every power of two") {
  for (int size = 32; size <= 1024; size *= 2) {
    CAPTURE(size);
    const auto g = generator_plan(size), d = discriminator_plan(size);
    CHECK(g.back().side == size);
    CHECK(int(g.size()) == published(size, 16, 120, 0).blocks());
    CHECK(d.back().side == (size == 32 ? 8 : 4));
    CHECK(!d.back().resize);
    for (size_t i = 1; i < g.size(); i++) CHECK(g[i].in == g[i - 1].out);
    for (size_t i = 1; i < d.size(); i++) CHECK(d[i].in == d[i - 1].out);
    for (bool deep : {false, true}) {
      Config c = published(size, 8, 120, 0, 3);
      c.deep = deep;
      Context context(Device::cpu, true);
      UseContext use(context);
      use_random(1);
      Model m(c);
      CHECK(m.sample(Tensor(Shape{2, c.latent()}), all_of(1, 2)).shape() == Shape{2, size, size, 3});
      m.iteration(pictures(2, size, 3), {});
    }
  }
  const auto d32 = discriminator_plan(32);
  CHECK(d32[1].side == 8);  // the public table says 16, and its block pools all the same
}

TEST_CASE("biggan: z is cut into equal chunks, and what does not fit is dropped") {
  CHECK(published(128, 96, 120, 64).chunk() == 20);
  CHECK(published(256, 96, 140, 64).chunk() == 20);
  CHECK(published(512, 96, 128, 64).chunk() == 16);
  Config c = published(64, 64, 104, 32);
  CHECK(c.chunk() == 20);
  CHECK(c.latent() == 100);
  c.hierarchical = false;
  CHECK(c.latent() == 104);
}

TEST_CASE("biggan: options that do not fit together are refused by name") {
  const auto refusal = [](auto change) {
    Config c = published(64, 16, 120, 32, 10);
    change(c);
    return error_of([&] { check(c); });
  };
  CHECK(refusal([](Config&) {}) == "");
  CHECK(contains(refusal([](Config& c) { c.size = 48; }), "--size 48"));
  CHECK(contains(refusal([](Config& c) { c.shared = false; }), "--no-hier"));
  CHECK(contains(refusal([](Config& c) { c.g_attention = 48; }), "--g-attention 48: no block has maps of that side; use one of 8, 16, 32, 64"));
  CHECK(contains(refusal([](Config& c) { c.d_attention = 64; }), "--d-attention 64"));
  CHECK(contains(refusal([](Config& c) { c.g_width = 5; }), "multiple of 8"));
  CHECK(contains(refusal([](Config& c) { c.z = 3; }), "--z 3"));
  CHECK(contains(refusal([](Config& c) { c.deep = true, c.hierarchical = false; }), "--deep"));
  CHECK(contains(refusal([](Config& c) { c.bn_eps = 0; }), "--bn-eps"));
}

TEST_CASE("biggan: weights start orthogonal, tables and embeddings too; biases within one over the root of the fan in") {
  Fixture fixture;
  auto random = use_random(3);
  Model m(tiny());
  m.initialise(*random);
  for (const auto& e : m.g_params.entries()) {
    if (e.kind != ParameterSet::Entry::parameter) continue;
    const std::vector<float> v = m.g_params.tensor(e).to_vector();
    CAPTURE(e.name);
    if (e.name == "blocks.0.conv1.bias")
      for (float x : v) CHECK(std::abs(x) <= 1 / std::sqrt(16.f * 9));
    if (e.shape.rank() < 2) continue;
    const size_t rows = size_t(e.shape[0]), cols = v.size() / rows;
    double squares = 0;  // of an orthogonal matrix: the smaller of its sides
    for (float x : v) squares += double(x) * double(x);
    CHECK(squares == doctest::Approx(double(std::min(rows, cols))).epsilon(1e-4));
  }
}

TEST_CASE("biggan: attention begins as the identity, and only gamma has a gradient then") {
  Fixture fixture;
  auto random = use_random(4);
  SelfAttention a(16, InitKind::orthogonal);
  ParameterSet set(a, true);
  set.initialise(*random, "");
  SpectralGroup group(a);
  Tape tape;
  Recording recording(tape);
  group.prepare(set.values, set.grads, set.vectors);
  const Var x(from_vector(Shape{2, 4, 4, 16}, hashed_signed("x", 512)), true);
  const Var y = a(x);
  CHECK(y.value.to_vector() == x.value.to_vector());
  tape.backward_from({{y, from_vector(Shape{2, 4, 4, 16}, hashed_signed("cot", 512))}});
  for (const auto& e : set.entries()) {
    if (e.kind != ParameterSet::Entry::parameter) continue;
    double largest = 0;
    for (float g : set.gradient(e).to_vector()) largest = std::max(largest, double(std::abs(g)));
    CAPTURE(e.name);
    CHECK((largest > 0) == (e.name == "gamma"));
  }
}

TEST_CASE("biggan: D's first block does not rectify its input, and no skip does") {
  Fixture fixture;
  auto random = use_random(5);
  for (bool first : {true, false}) {
    DownBlock b(3, 8, first, true, tiny());
    ParameterSet set(b, true);
    set.initialise(*random, "");
    SpectralGroup group(b);
    NoGrad none;
    group.prepare(set.values, set.grads, set.vectors);
    // On pictures that are negative everywhere: with a relu in front the main branch sees nothing but biases.
    const auto at = [&](float level) {
      const std::vector<float> v(size_t(4 * 4 * 3), level);
      return b(Var(from_vector(Shape{1, 4, 4, 3}, v)), true).value.to_vector();
    };
    const auto skip = [&](float level) {
      const std::vector<float> v(size_t(2 * 2 * 3), level);
      return b.skip(Var(from_vector(Shape{1, 2, 2, 3}, v))).value.to_vector();
    };
    const std::vector<float> one = at(-1), two = at(-2), s1 = skip(-1), s2 = skip(-2);
    double main = 0, through_skip = 0;
    for (size_t i = 0; i < one.size(); i++) {
      main = std::max(main, double(std::abs((two[i] - s2[i]) - (one[i] - s1[i]))));
      through_skip = std::max(through_skip, double(std::abs(s2[i] - s1[i])));
    }
    CHECK((main > 1e-5) == first);
    CHECK(through_skip > 1e-3);
  }
}

TEST_CASE("biggan: the output norm's eps does not follow bn_eps") {
  Fixture fixture;
  auto random = use_random(6);
  Config c = tiny();
  c.bn_eps = 0.5f;
  Generator g(c);
  CHECK(BatchNorm::eps == 1e-5f);
  // Conditional norms do follow it: the same weights give other pictures.
  const auto picture = [&](float eps) {
    Config k = tiny();
    k.bn_eps = eps;
    Model m(k);
    m.initialise(*random);
    return m.sample(from_vector(Shape{1, k.latent()}, hashed_normal("z", k.latent())), all_of(0, 1)).to_vector();
  };
  CHECK(picture(1e-5f) == picture(1e-5f));
  CHECK(picture(1e-5f) != picture(0.5f));
}

TEST_CASE("biggan: classes and every chunk of z change the picture; interpolation meets both ends") {
  Fixture fixture;
  auto random = use_random(7);
  for (bool shared : {true, false}) {
    Config c = tiny();
    c.shared = c.hierarchical = shared;
    Model m(c);
    m.initialise(*random);
    const auto picture = [&](int32_t a, int32_t b, float t, int64_t changed) {
      std::vector<float> z = hashed_normal("z", c.latent());
      if (changed >= 0) z[size_t(changed)] += 1;
      Labels l = all_of(a, 1);
      l.b = all_of(b, 1).a;
      l.t = t;
      return m.sample(from_vector(Shape{1, c.latent()}, z), l).to_vector();
    };
    const std::vector<float> zero = picture(0, 0, 0, -1), one = picture(1, 1, 0, -1);
    CHECK(zero != one);
    CHECK(relative_error(picture(0, 1, 1, -1), one) < 1e-5);
    CHECK(relative_error(picture(0, 1, 1e-7f, -1), zero) < 1e-4);
    CHECK(picture(0, 1, 0.5f, -1) != zero);
    for (int64_t i = 0; i < c.latent(); i++) CHECK(picture(0, 0, 0, i) != zero);
  }
}

TEST_CASE("biggan: none and one class are the same, unconditional network") {
  const Counts none = count(tiny(32, 0)), one = count(tiny(32, 1)), two = count(tiny(32, 2));
  CHECK(none.g == one.g);
  CHECK(none.d == one.d);
  CHECK(two.g > one.g);
  CHECK(two.d > one.d);
  for (bool hierarchical : {true, false})
    for (int classes : {0, 1}) {
      Fixture fixture;
      auto random = use_random(8);
      Config c = tiny(32, classes);
      c.hierarchical = hierarchical;
      Model m(c);
      m.initialise(*random);
      const Losses l = m.iteration(pictures(4, 32, classes), {});
      CHECK(std::isfinite(l.g.item()));
      CHECK(m.sample(from_vector(Shape{2, c.latent()}, hashed_normal("z", 2 * c.latent())), {}).shape() == Shape{2, 32, 32, 3});
    }
}

TEST_CASE("biggan: the average follows running statistics and singular vectors, and starts when it is told to") {
  Fixture fixture;
  auto random = use_random(9);
  Model m(tiny());
  m.initialise(*random);
  TrainOptions o;
  o.ema = {0.5f, false};
  o.ema.start = 2;
  const auto state = [](const ParameterSet& s) {
    std::vector<std::vector<float>> v = {s.values.to_vector(), s.statistics.to_vector(), s.vectors.to_vector()};
    return v;
  };
  m.iteration(pictures(4, 32, 3), o);
  const auto first = state(m.g_params);
  const auto started = state(m.average_params);
  for (size_t k = 0; k < 3; k++) CHECK(relative_error(started[k], first[k]) < 1e-6);  // before the start: the network itself
  random->set_step(1);
  m.iteration(pictures(4, 32, 3), o);
  const auto second = state(m.g_params), average = state(m.average_params);
  for (size_t k = 0; k < 3; k++) {
    CHECK(second[k] != first[k]);
    std::vector<float> half(first[k].size());
    for (size_t i = 0; i < half.size(); i++) half[i] = 0.5f * first[k][i] + 0.5f * second[k][i];
    CHECK(relative_error(average[k], half) < 1e-6);
  }
}

TEST_CASE("biggan: standing statistics are those of the latents given, and leave no trace") {
  Fixture fixture;
  auto random = use_random(10);
  const Config c = tiny();
  Model m(c);
  m.initialise(*random);
  const auto batch = [&](float scale) {
    return [&, scale](int k) {
      std::vector<float> z = hashed_normal("standing " + std::to_string(k), 8 * c.latent());
      for (float& x : z) x *= scale;
      return StandingStatistics::Batch{from_vector(Shape{8, c.latent()}, z), all_of(k % 3, 8)};
    };
  };
  const Tensor z = from_vector(Shape{2, c.latent()}, hashed_normal("z", 2 * c.latent()));
  const auto before = m.average_params.statistics.to_vector(), vectors = m.average_params.vectors.to_vector();
  const std::vector<float> plain = m.sample(z, all_of(0, 2)).to_vector();
  std::vector<float> wide, narrow;
  {
    StandingStatistics s(m, 4, batch(1.f));
    wide = m.sample(z, all_of(0, 2)).to_vector();
  }
  {
    StandingStatistics s(m, 4, batch(0.3f));
    narrow = m.sample(z, all_of(0, 2)).to_vector();
  }
  CHECK(wide != plain);
  CHECK(wide != narrow);
  CHECK(m.average_params.statistics.to_vector() == before);
  CHECK(m.average_params.vectors.to_vector() == vectors);
  CHECK(m.sample(z, all_of(0, 2)).to_vector() == plain);
}

TEST_CASE("biggan: a batch in parts draws the numbers of the whole batch; D steps have their own") {
  Fixture fixture;
  struct Listener : RandomSource {
    Philox real{11};
    int64_t first = 0;
    std::vector<std::string> drawn;
    Tensor normal(std::string_view site, const Shape& s) override {
      drawn.push_back(fmt::format("{} {}+{}", site, first, s[0]));
      return real.normal(site, s);
    }
    Tensor uniform(std::string_view site, const Shape& s) override { return real.uniform(site, s); }
    void set_first_sample(int64_t f) override { real.set_first_sample(first = f); }
  };
  auto listener = std::make_shared<Listener>();
  context().random = listener;
  Model m(tiny());
  m.initialise(listener->real);
  TrainOptions o;
  o.d_steps = 2;
  o.parts = 2;
  m.iteration(pictures(3, 32, 3), o);
  CHECK(listener->drawn == std::vector<std::string>{"z.d0 0+3", "z.d0 3+3", "z.d1 0+3", "z.d1 3+3", "z.g 0+3", "z.g 3+3"});
}

TEST_CASE("biggan: singular values of every layer, under their names") {
  Fixture fixture;
  auto random = use_random(12);
  Model m(tiny());
  m.initialise(*random);
  m.iteration(pictures(4, 32, 3), {});
  const auto g = m.singular_values_g(), d = m.singular_values_d();
  CHECK(g.size() == 1 + 3 * 7 + 1);
  CHECK(d.size() == 4 * 2 + 2 + 2);
  CHECK(g[0].layer == "linear");
  for (const auto& s : g) CHECK(s.value == doctest::Approx(1).epsilon(0.05));  // orthogonal
}
