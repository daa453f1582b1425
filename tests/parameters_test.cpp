// Random numbers, parameter sets, and checkpoints of them.
#include "engine/parameters.h"

#include <cstring>
#include <set>

#include "engine/checkpoint.h"
#include "engine/error.h"
#include "kernels/philox.h"
#include "models/blocks.h"
#include "tests/picture_fixtures.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::test;
using fixtures::read_all;
using fixtures::TempFolder;

namespace {

struct Moments {
  double mean = 0, variance = 0, fourth = 0;
  explicit Moments(const std::vector<float>& v) {
    const double n = double(v.size());
    for (float x : v) mean += double(x) / n;
    for (float x : v) variance += std::pow(double(x) - mean, 2) / n;
    for (float x : v) fourth += std::pow(double(x) - mean, 4) / n;
  }
};

double correlation(const std::vector<float>& a, const std::vector<float>& b) {
  const Moments ma(a), mb(b);
  double s = 0;
  for (size_t i = 0; i < a.size(); i++) s += (double(a[i]) - ma.mean) * (double(b[i]) - mb.mean) / double(a.size());
  return s / std::sqrt(ma.variance * mb.variance);
}

}  // namespace

// ---- random
// -----------------------------------------------------------------------------------------------------------

TEST_CASE("random: the block function gives the published test vectors of Philox4x32-10") {
  const auto words = [](philox::Words c, uint32_t k0, uint32_t k1) {
    const philox::Words w = philox::block(c, k0, k1);
    return std::vector<uint32_t>{w.x, w.y, w.z, w.w};
  };
  CHECK(words({0, 0, 0, 0}, 0, 0) == std::vector<uint32_t>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(words({~0u, ~0u, ~0u, ~0u}, ~0u, ~0u) == std::vector<uint32_t>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(words({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0xa4093822, 0x299f31d0) ==
        std::vector<uint32_t>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("random: uniforms and normals have their moments") {
  Fixture fixture;
  Philox random(42);
  const std::vector<float> u = random.uniform("u", Shape{100, 1001}).to_vector(),
                           n = random.normal("n", Shape{100, 1001}).to_vector();
  const Moments mu(u), mn(n);
  CHECK(mu.mean == doctest::Approx(0.5).epsilon(0.01));
  CHECK(mu.variance == doctest::Approx(1.0 / 12).epsilon(0.01));
  CHECK(*std::min_element(u.begin(), u.end()) >= 0);
  CHECK(*std::max_element(u.begin(), u.end()) < 1);
  CHECK(std::abs(mn.mean) < 0.01);
  CHECK(mn.variance == doctest::Approx(1).epsilon(0.02));
  CHECK(mn.fourth == doctest::Approx(3).epsilon(0.05));
  // Neighbours, and the same element of neighbouring samples, have nothing to do with each other.
  for (const std::vector<float>& v : {u, n})
    for (size_t lag : {size_t(1), size_t(2), size_t(4), size_t(1001)})
      CHECK(std::abs(correlation({v.begin(), v.end() - long(lag)}, {v.begin() + long(lag), v.end()})) < 0.015);
}

TEST_CASE("random: a draw depends on seed, site, step and sample, and on nothing else") {
  Fixture fixture;
  const auto draw = [](uint64_t seed, const char* site, uint64_t step) {
    Philox p(seed);
    p.set_step(step);
    return p.normal(site, Shape{3, 50}).to_vector();
  };
  const std::vector<float> base = draw(1, "z", 5);
  CHECK(draw(1, "z", 5) == base);
  for (const std::vector<float>& other :
       {draw(2, "z", 5), draw(1 + (1ull << 32), "z", 5), draw(1, "noise.0", 5), draw(1, "z", 6)}) {
    CHECK(other != base);
    CHECK(std::abs(correlation(other, base)) < 0.35);
  }
  Philox p(1);
  p.uniform("z", Shape{9, 7});  // what was drawn before, here or at another site, does not matter
  p.normal("other", Shape{9, 7});
  p.set_step(5);
  CHECK(p.step() == 5);
  CHECK(p.normal("z", Shape{3, 50}).to_vector() == base);
  CHECK(p.normal("z", Shape{3, 50}).to_vector() == base);
  CHECK(p.normal("z", Shape{3, 5, 10}).to_vector() == base);
  // Parts of the batch are parts of the numbers.
  p.set_first_sample(1);
  CHECK(p.normal("z", Shape{2, 50}).to_vector() == std::vector<float>(base.begin() + 50, base.end()));
  p.set_first_sample(0);
  CHECK(p.normal("z", Shape{1, 50}).to_vector() == std::vector<float>(base.begin(), base.begin() + 50));
  // Each site of a FastGAN iteration has an id of its own.
  std::set<uint32_t> ids;
  size_t names = 0;
  for (const char* s : {"z", "part", "flip", "augment.real", "augment.fake.big", "augment.fake.small",
                        "margin.real.big", "margin.real.small", "margin.fake.big", "margin.fake.small", "noise.0",
                        "noise.1", "noise.2", "noise.3", "noise.4", "noise.5", "noise.6", "noise.7", "order"})
    ids.insert(site_id(s)), names++;
  CHECK(ids.size() == names);
}

TEST_CASE("random: a permutation is one, and each epoch has its own") {
  for (int64_t n : {0, 1, 2, 7, 1000}) {
    std::vector<int32_t> p = permutation(3, "order", 0, n);
    std::sort(p.begin(), p.end());
    REQUIRE(p.size() == size_t(n));
    for (int64_t i = 0; i < n; i++) CHECK(p[size_t(i)] == i);
  }
  const std::vector<int32_t> p = permutation(3, "order", 0, 100);
  CHECK(p == permutation(3, "order", 0, 100));
  CHECK(p != permutation(3, "order", 1, 100));
  CHECK(p != permutation(3, "order", 1ull << 32, 100));
  CHECK(p != permutation(4, "order", 0, 100));
  CHECK(p != permutation(3, "other", 0, 100));
  // Every picture is equally often at every place.
  int counts[5][5] = {};
  for (uint64_t epoch = 0; epoch < 5000; epoch++) {
    const std::vector<int32_t> q = permutation(9, "order", epoch, 5);
    for (size_t i = 0; i < 5; i++) counts[i][q[i]]++;
  }
  for (const auto& row : counts)
    for (int c : row) CHECK(std::abs(c - 1000) < 150);  // more than five standard deviations
}

// ---- parameters
// -------------------------------------------------------------------------------------------------------

namespace {

struct Block {
  SpectralConv conv{16, 48, 3, 1, 1};
  BatchNorm bn{20};
  NoiseInjection noise;
  template <class F>
  void visit(F&& f) {
    f("conv", conv);
    f("bn", bn);
    f("noise", noise);
  }
};
struct Network {
  Block one, two;
  template <class F>
  void visit(F&& f) {
    f("one", one);
    f("two", two);
  }
};

/// Fills everything of a set with numbers of its own.
void scramble(ParameterSet& set, const std::string& salt) {
  size_t k = 0;
  for (const Tensor* t : {&set.values, &set.statistics, &set.vectors, &set.m, &set.v})
    if (*t) t->upload(hashed_signed(salt + std::to_string(k++), t->count()).data());
}

}  // namespace

TEST_CASE("parameters: the layout") {
  Fixture fixture;
  Network net;
  ParameterSet set(net, true);
  std::vector<std::string> names;
  std::map<int, std::vector<std::pair<int64_t, int64_t>>> ranges;
  for (const auto& e : set.entries()) {
    names.push_back(e.name);
    CHECK(e.offset % 16 == 0);
    ranges[e.kind].emplace_back(e.offset, e.offset + e.count());
  }
  CHECK(names == std::vector<std::string>{"one.conv.weight", "one.conv.u", "one.conv.v", "one.bn.weight", "one.bn.bias",
                                          "one.bn.running_mean", "one.bn.running_var", "one.noise.weight",
                                          "two.conv.weight", "two.conv.u", "two.conv.v", "two.bn.weight", "two.bn.bias",
                                          "two.bn.running_mean", "two.bn.running_var", "two.noise.weight"});
  CHECK(ranges[ParameterSet::Entry::parameter].size() == 8);
  CHECK(ranges[ParameterSet::Entry::statistic].size() == 4);
  CHECK(ranges[ParameterSet::Entry::vector].size() == 4);
  const Tensor* flats[] = {&set.values, &set.statistics, &set.vectors};
  for (auto& [kind, list] : ranges) {
    std::sort(list.begin(), list.end());
    for (size_t i = 1; i < list.size(); i++) CHECK(list[i].first >= list[i - 1].second);
    CHECK(list.back().second <= flats[kind]->count());
  }
  CHECK(set.parameter_count() == 2 * (48 * 9 * 16 + 20 + 20 + 1));
  CHECK(set.steps() == 0);
  for (const Tensor* t : {&set.values, &set.grads, &set.m, &set.v, &set.statistics, &set.vectors})
    for (float x : t->to_vector()) REQUIRE(x == 0);

  // The parts see the flat buffers.
  const auto& e = set.entries()[8];
  CHECK(net.two.conv.w.weight.offset == e.offset);
  CHECK(net.two.conv.w.weight.value.data() == set.tensor(e).data());
  CHECK(net.two.conv.w.weight.grad.data() == set.gradient(e).data());
  CHECK(net.two.bn.running_var.value.data() == set.tensor(set.entries()[14]).data());
  CHECK(net.two.conv.w.u.value.data() == set.tensor(set.entries()[9]).data());
  CHECK(set.moment(e, 0).data() == set.m.slice(e.offset, e.shape).data());
  CHECK(set.moment(e, 1).data() == set.v.slice(e.offset, e.shape).data());

  Network average;
  const ParameterSet values_only(average, false);
  CHECK(!values_only.grads);
  CHECK(!values_only.m);
  CHECK(!average.one.bn.weight.grad);
  CHECK(values_only.parameter_count() == set.parameter_count());
}

TEST_CASE("parameters: initialisation") {
  Fixture fixture;
  Network net;
  ParameterSet set(net, true);
  Philox random(11);
  set.initialise(random, "G.");
  const Moments w(net.one.conv.w.weight.value.to_vector());
  CHECK(std::abs(w.mean) < 0.001);
  CHECK(std::sqrt(w.variance) == doctest::Approx(0.02).epsilon(0.05));
  const Moments gamma(net.one.bn.weight.value.to_vector());
  CHECK(gamma.mean == doctest::Approx(1).epsilon(0.02));
  CHECK(gamma.variance > 0);
  CHECK(std::sqrt(gamma.variance) < 0.04);
  for (float x : net.one.bn.bias.value.to_vector()) CHECK(x == 0);
  for (float x : net.one.bn.running_mean.value.to_vector()) CHECK(x == 0);
  for (float x : net.one.bn.running_var.value.to_vector()) CHECK(x == 1);
  CHECK(net.one.noise.weight.value.item() == 0);
  for (const Buffer* b : {&net.one.conv.w.u, &net.one.conv.w.v}) {
    double squares = 0;
    for (float x : b->value.to_vector()) squares += double(x) * double(x);
    CHECK(squares == doctest::Approx(1));
  }
  const auto one = net.one.conv.w.weight.value.to_vector();
  CHECK(std::abs(correlation(one, net.two.conv.w.weight.value.to_vector())) < 0.05);

  // By name: another network with a part of the same name starts the same, whatever else it has.
  struct Other : Network {};
  Network again;
  ParameterSet second(again, true);
  Philox same(11), different(12);
  second.initialise(same, "G.");
  CHECK(again.one.conv.w.weight.value.to_vector() == one);
  second.initialise(same, "D.");
  CHECK(again.one.conv.w.weight.value.to_vector() != one);
  second.initialise(different, "G.");
  CHECK(again.one.conv.w.weight.value.to_vector() != one);
}

TEST_CASE("parameters: copies") {
  Fixture fixture;
  Network a, b;
  ParameterSet from(a, true), to(b, false);
  scramble(from, "from");
  scramble(to, "to");
  const auto kept = to.values.to_vector(), kept_statistics = to.statistics.to_vector();
  to.copy_vectors_from(from);
  CHECK(to.vectors.to_vector() == from.vectors.to_vector());
  CHECK(to.values.to_vector() == kept);
  CHECK(to.statistics.to_vector() == kept_statistics);
  to.copy_from(from);
  CHECK(to.values.to_vector() == from.values.to_vector());
  CHECK(to.statistics.to_vector() == from.statistics.to_vector());
  CHECK(to.values.data() != from.values.data());
}

// ---- checkpoints
// ------------------------------------------------------------------------------------------------------

namespace {

void write(const fixtures::fs::path& path, const ParameterSet& set) {
  CheckpointWriter w;
  w.add("G.", set);
  w.add_optimiser("opt_g.", set);
  w.set("step", "17");
  w.write(path);
}

}  // namespace

TEST_CASE("checkpoint: a round trip, bit for bit") {
  Fixture fixture;
  TempFolder folder;
  Network a, b;
  ParameterSet saved(a, true), loaded(b, true);
  scramble(saved, "saved");
  saved.set_steps((int64_t(1) << 40) + 3);
  write(folder.path / "a.safetensors", saved);
  write(folder.path / "again.safetensors", saved);
  CHECK(read_all(folder.path / "a.safetensors") == read_all(folder.path / "again.safetensors"));

  const SafetensorsFile file(folder.path / "a.safetensors");
  CHECK(file.metadata().at("step") == "17");
  load_parameters(file, "G.", loaded);
  load_optimiser(file, "opt_g.", loaded);
  CHECK(loaded.steps() == saved.steps());
  for (const auto& e : saved.entries()) {
    CAPTURE(e.name);
    CHECK(loaded.tensor(e).to_vector() == saved.tensor(e).to_vector());
    CHECK(file.find("G." + e.name) != nullptr);
    if (e.kind != ParameterSet::Entry::parameter) continue;
    for (int which : {0, 1}) CHECK(loaded.moment(e, which).to_vector() == saved.moment(e, which).to_vector());
    CHECK(file.find("opt_g.v." + e.name) != nullptr);
  }
}

TEST_CASE("checkpoint: errors name the file, the tensor and what was expected") {
  Fixture fixture;
  TempFolder folder;
  const auto path = folder.path / "broken.safetensors";
  Network net;
  ParameterSet set(net, true);
  const std::vector<float> numbers(48 * 144);
  const auto load = [&](const std::vector<TensorEntry>& entries, bool optimiser = false) {
    write_safetensors(path, entries, {});
    return error_of([&] {
      const SafetensorsFile file(path);
      optimiser ? load_optimiser(file, "opt.", set) : load_parameters(file, "G.", set);
    });
  };
  const auto entry = [&](const char* name, const char* type, std::vector<int64_t> shape) {
    size_t n = 1;
    for (int64_t s : shape) n *= size_t(s);
    return TensorEntry{name, type, shape, numbers.data(), n * safetensors_dtype_bytes(type)};
  };
  std::string e = load({entry("x", "F32", {3})});
  CHECK(contains(e, path.string()));
  CHECK(contains(e, "G.one.conv.weight is missing"));

  e = load({entry("G.one.conv.weight", "F32", {48, 3, 3, 8})});
  CHECK(contains(e, path.string()));
  CHECK(contains(e, "G.one.conv.weight is F32 48x3x3x8, expected F32 48x3x3x16"));

  e = load({entry("G.one.conv.weight", "F16", {48, 3, 3, 16})});
  CHECK(contains(e, "F16 48x3x3x16, expected F32"));

  e = load({entry("G.one.conv.weight", "F32", {48, 9, 16})});  // as many numbers, in another shape
  CHECK(contains(e, "48x9x16, expected"));

  e = load({entry("G.one.conv.weight", "F32", {48, 3, 3, 16}), entry("G.one.conv.u", "F32", {48})});
  CHECK(contains(e, "G.one.conv.v is missing"));

  e = load({}, true);
  CHECK(contains(e, "opt.m.one.conv.weight is missing"));

  std::vector<TensorEntry> moments;
  std::vector<std::string> names;
  for (const auto& p : set.entries())
    if (p.kind == ParameterSet::Entry::parameter)
      for (const char* which : {"opt.m.", "opt.v."}) {
        moments.push_back(entry("", "F32", p.shape.sizes()));
        moments.back().name = which + p.name;
      }
  e = load(moments, true);
  CHECK(contains(e, path.string()));
  CHECK(contains(e, "opt."));
  CHECK(contains(e, "cannot go on"));
}
