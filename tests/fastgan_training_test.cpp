// FastGAN's training iteration at toy size: the average, repeatability, sampling.
#include "models/fastgan_training.h"

#include "tests/support.h"

using namespace kiln;
using namespace kiln::fastgan;
using namespace kiln::test;

namespace {

Config tiny() {
  Config c;
  c.size = 32;
  c.ngf = c.ndf = 4;
  return c;
}

/// Discs of different colours and places on grounds of different colours.
Tensor discs(int64_t n, int size) {
  std::vector<float> v;
  for (int64_t k = 0; k < n; k++)
    for (int i = 0; i < size; i++)
      for (int j = 0; j < size; j++) {
        const double di = i - size * (0.3 + 0.05 * double(k)), dj = j - size * (0.7 - 0.05 * double(k));
        const bool in = di * di + dj * dj < size * size / 16.0;
        for (int c = 0; c < 3; c++) v.push_back(in ? 0.8f - 0.2f * float(c) : -0.6f + 0.1f * float(k) * float(c == 1));
      }
  return from_vector(Shape{n, size, size, 3}, v);
}

std::vector<float> all_of(const ParameterSet& s) {
  std::vector<float> v;
  for (const Tensor* t : {&s.values, &s.statistics, &s.vectors, &s.m, &s.v}) {
    if (!*t) continue;
    const std::vector<float> part = t->to_vector();
    v.insert(v.end(), part.begin(), part.end());
  }
  return v;
}

std::vector<float> numbers(const Losses& l) {
  std::vector<float> v;
  for (const Tensor* t :
       {&l.d_real, &l.d_fake, &l.g, &l.recon_all, &l.recon_small, &l.recon_part, &l.logit_real, &l.logit_fake})
    v.push_back(t->item());
  return v;
}

bool finite(const std::vector<float>& v) {
  return std::all_of(v.begin(), v.end(), [](float x) { return std::isfinite(x); });
}

struct Trained {
  std::vector<float> losses, g, d, average;
  bool operator==(const Trained&) const = default;
};

/// Iterations with all eight pictures, each in `parts` parts.
Trained train(uint64_t seed, const TrainOptions& o = {}, int64_t parts = 1, int iterations = 5) {
  Fixture fixture;
  const auto random = std::make_shared<Philox>(seed);
  context().random = random;
  Model m(tiny());
  m.initialise(*random);
  const Tensor real = discs(8, 32);
  const int64_t n = 8 / parts, per = n * 32 * 32 * 3;
  Trained t;
  for (int k = 0; k < iterations; k++) {
    random->set_step(uint64_t(k));
    std::vector<Tensor> batch;
    for (int64_t p = 0; p < parts; p++) batch.push_back(real.slice(p * per, Shape{n, 32, 32, 3}));
    const std::vector<float> losses = numbers(m.iteration(batch, o));
    t.losses.insert(t.losses.end(), losses.begin(), losses.end());
  }
  CHECK(m.g_params.steps() == iterations);
  CHECK(m.d_params.steps() == iterations);
  t.g = all_of(m.g_params);
  t.d = all_of(m.d_params);
  t.average = all_of(m.average_params);
  return t;
}

}  // namespace

TEST_CASE("fastgan training: five iterations stay finite, and the same seed gives the same bits") {
  const Trained a = train(1);
  for (const std::vector<float>* v : {&a.losses, &a.g, &a.d, &a.average}) CHECK(finite(*v));
  CHECK(train(1) == a);
  const Trained b = train(2);
  CHECK(b.losses != a.losses);
  CHECK(b.g != a.g);
  CHECK(b.d != a.d);
  for (size_t k = 0; k < 5; k++)
    for (size_t i : {0, 1, 3, 4, 5}) CHECK(a.losses[k * 8 + i] > 0);  // hinge losses and reconstructions
}

TEST_CASE("fastgan training: the options reach the losses") {
  const Trained base = train(1, {}, 1, 2);
  TrainOptions o;
  SUBCASE("the margin") { o.margin_low = 1; }
  SUBCASE("the reconstruction's power") { o.recon_power = 1; }
  SUBCASE("the reconstruction's weight") { o.recon_weight = 0; }
  SUBCASE("the augmentation") { o.augment = {false, false, false}; }
  SUBCASE("the learning rate") { o.adam.lr = 1e-3f; }
  const Trained other = train(1, o, 1, 2);
  CHECK(finite(other.losses));
  CHECK(other.losses != base.losses);
  CHECK(other.d != base.d);
}

TEST_CASE("fastgan training: a batch in parts trains too, and every run of it the same") {
  const Trained a = train(1, {}, 4, 2);
  for (const std::vector<float>* v : {&a.losses, &a.g, &a.d, &a.average}) CHECK(finite(*v));
  CHECK(train(1, {}, 4, 2) == a);
  const Trained whole = train(1, {}, 1, 1);
  // Batch norm sees other statistics; the losses at the start are near each other all the same (sums, not means of
  // sums).
  for (size_t i : {0, 1, 3, 4, 5}) CHECK(double(a.losses[i]) == doctest::Approx(double(whole.losses[i])).epsilon(0.3));
}

TEST_CASE("fastgan training: the average follows with a decay that warms up") {
  for (bool warm_up : {true, false}) {
    CAPTURE(warm_up);
    Fixture fixture;
    const auto random = std::make_shared<Philox>(1);
    context().random = random;
    Model m(tiny());
    m.initialise(*random);
    CHECK(m.average_params.values.to_vector() == m.g_params.values.to_vector());
    TrainOptions o;
    o.ema.warm_up = warm_up;
    std::vector<float> values = m.average_params.values.to_vector(),
                       statistics = m.average_params.statistics.to_vector();
    for (int t = 1; t <= 3; t++) {
      random->set_step(uint64_t(t));
      m.iteration(discs(4, 32), o);
      const double d = warm_up ? (1.0 + t) / (10.0 + t) : double(0.999f);
      const std::vector<float> v = m.g_params.values.to_vector(), s = m.g_params.statistics.to_vector();
      for (size_t i = 0; i < v.size(); i++) values[i] = float(d * double(values[i]) + (1 - d) * double(v[i]));
      for (size_t i = 0; i < s.size(); i++) statistics[i] = float(d * double(statistics[i]) + (1 - d) * double(s[i]));
      CHECK(test::relative_error(m.average_params.values.to_vector(), values) < 1e-6);
      CHECK(test::relative_error(m.average_params.statistics.to_vector(), statistics) < 1e-6);
    }
    CHECK(m.average_params.values.to_vector() != m.g_params.values.to_vector());
  }
}

TEST_CASE("fastgan training: samples do not depend on how a batch is split, nor change the networks") {
  Fixture fixture;
  const auto random = std::make_shared<Philox>(1);
  context().random = random;
  Model m(tiny());
  m.initialise(*random);
  m.iteration(discs(4, 32), {});
  for (const auto& e : m.average_params.entries())
    if (e.name.find("noise") != std::string::npos) m.average_params.tensor(e).upload(std::vector<float>{0.5f}.data());
  const auto sample = [&](int64_t first, int64_t n) {
    random->set_first_sample(first);
    return m.sample(random->normal("z", Shape{n, 256})).to_vector();
  };
  const std::vector<float> g_before = all_of(m.g_params), average_before = m.average_params.values.to_vector(),
                           statistics_before = m.average_params.statistics.to_vector();
  const std::vector<float> whole = sample(0, 5);
  CHECK(whole.size() == 5 * 32 * 32 * 3);
  for (const std::vector<int64_t>& split : {std::vector<int64_t>{1, 1, 1, 1, 1}, {2, 3}, {4, 1}}) {
    std::vector<float> parts;
    int64_t first = 0;
    for (int64_t n : split) {
      const std::vector<float> p = sample(first, n);
      parts.insert(parts.end(), p.begin(), p.end());
      first += n;
    }
    CHECK(test::relative_error(parts, whole) < 1e-5);
  }
  CHECK(test::relative_error(sample(1, 5), whole) > 1e-3);
  CHECK(all_of(m.g_params) == g_before);
  CHECK(m.average_params.values.to_vector() == average_before);
  CHECK(m.average_params.statistics.to_vector() == statistics_before);
}

TEST_CASE("fastgan training: the reconstruction sheet changes nothing") {
  Fixture fixture;
  const auto random = std::make_shared<Philox>(1);
  context().random = random;
  Model m(tiny());
  m.initialise(*random);
  m.iteration(discs(4, 32), {});
  const std::vector<float> before = all_of(m.d_params);
  const ReconstructionSheet s = m.reconstruct(discs(3, 32));
  for (const Tensor* t : {&s.real, &s.all, &s.small, &s.part, &s.part_target}) CHECK(t->shape() == Shape{3, 16, 16, 3});
  CHECK(all_of(m.d_params) == before);
  // The real pictures are the small ones, and the part's target the top left quarter.
  const std::vector<float> x = discs(3, 32).to_vector(), small = s.real.to_vector(), part = s.part_target.to_vector();
  for (int i = 0; i < 16; i++)
    for (int j = 0; j < 16; j++) {
      CHECK(small[size_t((i * 16 + j) * 3)] == x[size_t((2 * i * 32 + 2 * j) * 3)]);
      CHECK(part[size_t((i * 16 + j) * 3)] == x[size_t((i * 32 + j) * 3)]);
    }
}
