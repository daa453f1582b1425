// The sampler: equal to the trained model, free of what a picture is computed with, style mixing, paths, latents in files.
#include "models/fastgan_sampler.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "engine/picture_tensor.h"
#include "models/fastgan_folded.h"
#include "models/fastgan_run.h"
#include "tests/program.h"
#include "tests/random_checkpoint.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::fastgan;
using namespace kiln::test;

namespace {

Config config(int size, int ngf = 4) {
  Config c;
  c.size = size;
  c.ngf = c.ndf = ngf;
  c.nz = 24;
  return c;
}

int largest_difference(const Picture& a, const Picture& b) {
  REQUIRE(a.rgb.size() == b.rgb.size());
  int most = 0;
  for (size_t i = 0; i < a.rgb.size(); i++) most = std::max(most, std::abs(int(a.rgb[i]) - int(b.rgb[i])));
  return most;
}

}  // namespace

TEST_CASE("sampler: the folded generator equals Model::sample to rounding, whatever the network's options") {
  const TempFolder t;
  std::vector<std::pair<const char*, Config>> cases;
  for (int size : {32, 64, 256, 1024}) cases.emplace_back("size", config(size, size == 1024 ? 8 : 4));
  Config c = config(64);
  c.noise = false;
  cases.emplace_back("no noise", c);
  c = config(64);
  c.sle_64 = false;
  cases.emplace_back("no 64 gate", c);
  c = config(128);
  c.sle_leaky = c.tanh = true;
  c.fold_upsample = false;
  cases.emplace_back("leaky, tanh, no fold", c);
  c = config(64, 6);  // channels that vectors do not divide
  cases.emplace_back("width 6", c);
  for (const auto& [what, network] : cases) {
    CAPTURE(std::string(what));
    CAPTURE(network.size);
    Fixture fixture;
    const Tensor z = tensor_of(Shape{3, network.nz}, hashed_normal("z", 3 * network.nz));
    const std::vector<uint64_t> noise{5, 6, 1ull << 40};
    const Tensor expected = write_random_checkpoint(t / "c.safetensors", network, 1, z, noise);
    const SafetensorsFile file(t / "c.safetensors");
    const AveragedGenerator average(file);
    const FoldedGenerator folded(average.g);
    context().random = std::make_shared<PictureSeeds>(noise);
    const Tensor y = folded(z);
    CHECK(y.shape() == expected.shape());
    CHECK(relative_error(y.to_vector(), expected.to_vector()) < 1e-5);
    context().random = std::make_shared<PictureSeeds>(std::vector<uint64_t>{1, 2, 3});
    CHECK((relative_error(folded(z).to_vector(), expected.to_vector()) > 1e-3) == network.noise);  // the noise is really there
  }
}

TEST_CASE("sampler: a seed's picture does not depend on batch or order, and seeds differ") {
  const TempFolder t;
  write_random_checkpoint(t / "c.safetensors", config(64), 2);
  SamplerOptions by_three;
  by_three.batch = 3;
  Sampler a(t / "c.safetensors"), b(t / "c.safetensors", by_three);
  CHECK(a.size() == 64);
  CHECK(a.latent_size() == 24);
  CHECK(a.step() == 17);
  CHECK(a.name() == "c.safetensors");
  CHECK(a.fingerprint().size() == 16);
  CHECK(a.gates() == 1);
  CHECK(b.batch() == 3);
  const std::vector<uint64_t> seeds{3, 9, 1, 4, 12345678901234567ull, 0, 7};
  std::vector<Latent> latents;
  for (uint64_t s : seeds) latents.push_back(b.latent(s));
  const std::vector<Picture> together = b.render(latents);
  REQUIRE(together.size() == 7);
  for (size_t i = 0; i < seeds.size(); i++) {
    CHECK(largest_difference(a.render(a.latent(seeds[i])), together[i]) <= 1);
    for (size_t k = 0; k < i; k++) CHECK(largest_difference(together[i], together[k]) > 10);
  }
}

TEST_CASE("sampler: truncation bounds z, keeps what was inside, and is the seed's own") {
  const TempFolder t;
  write_random_checkpoint(t / "c.safetensors", config(32), 2);
  Sampler s(t / "c.safetensors");
  const Latent free = s.latent(5);
  for (double bound : {0.1, 0.7, 1.5}) {
    const Latent l = s.latent(5, bound);
    CHECK(l.z == s.latent(5, bound).z);
    std::set<float> distinct(l.z.begin(), l.z.end());
    CHECK(distinct.size() == l.z.size());  // drawn again, not clamped
    for (size_t i = 0; i < l.z.size(); i++) {
      CHECK(std::abs(double(l.z[i])) <= bound);
      if (std::abs(double(free.z[i])) <= bound) CHECK(l.z[i] == free.z[i]);
    }
  }
  CHECK(contains(error_of([&] { s.latent(5, 0.01); }), "0.05"));
  CHECK(contains(error_of([&] { s.latent(5, -1); }), "truncation -1"));
}

TEST_CASE("sampler: style mixing exchanges the excitations and nothing else") {
  const TempFolder t;
  write_random_checkpoint(t / "c.safetensors", config(256), 3);
  write_random_checkpoint(t / "none.safetensors", config(32), 3);
  Sampler s(t / "c.safetensors");
  CHECK(s.gates() == 3);  // 4 -> 64, 8 -> 128, 16 -> 256
  const std::vector<Latent> a{s.latent(1), s.latent(1), s.latent(2)}, b{s.latent(1), s.latent(2), s.latent(1)};
  const std::vector<Picture> mixed = s.mix(a, b);
  CHECK(largest_difference(mixed[0], s.render(a[0])) <= 1);
  CHECK(largest_difference(mixed[1], s.render(a[1])) > 1);  // the style of 2 shows
  CHECK(largest_difference(mixed[1], mixed[2]) > 1);        // content and style are not the same
  CHECK(contains(error_of([&] { s.mix(a, std::span(b).first(2)); }), "3 contents and 2 styles"));
  Sampler none(t / "none.safetensors");
  CHECK(contains(error_of([&] { none.mix(std::vector{none.latent(1)}, std::vector{none.latent(2)}); }), "no skip-layer excitation"));
}

TEST_CASE("sampler: two on two threads make what each makes alone") {
  const TempFolder t;
  write_random_checkpoint(t / "a.safetensors", config(64), 4);
  write_random_checkpoint(t / "b.safetensors", config(32), 5);
  const auto pictures = [&](const char* name) {
    Sampler s(t / name);
    std::vector<Latent> latents;
    for (uint64_t i = 0; i < 12; i++) latents.push_back(s.latent(i));
    std::vector<std::vector<uint8_t>> out;
    for (const Picture& p : s.render(latents)) out.push_back(p.rgb);
    return out;
  };
  const auto a = pictures("a.safetensors"), b = pictures("b.safetensors");
  std::vector<std::vector<uint8_t>> a2, b2;
  std::thread first([&] { a2 = pictures("a.safetensors"); }), second([&] { b2 = pictures("b.safetensors"); });
  first.join();
  second.join();
  CHECK(a == a2);
  CHECK(b == b2);
  // Made here, used there.
  Sampler s(t / "a.safetensors");
  std::vector<uint8_t> moved;
  std::thread([&, u = std::move(s)]() mutable { moved = u.render(u.latent(3)).rgb; }).join();
  CHECK(moved.size() == a[3].size());
  Picture p{64, 64, moved}, q{64, 64, a[3]};
  CHECK(largest_difference(p, q) <= 1);
}

TEST_CASE("sampler: what a user can get wrong is a kiln::Error that names it") {
  const TempFolder t;
  write_random_checkpoint(t / "c.safetensors", config(32), 4);
  CHECK(contains(error_of([&] { Sampler(t / "nothing.safetensors"); }), "nothing.safetensors"));
  CHECK(contains(error_of([&] { Sampler(std::filesystem::path(t / "c.safetensors").parent_path()); }), t.path().string()));
  std::ofstream(t / "text.safetensors") << "this is a text, and long enough for a header";
  CHECK(contains(error_of([&] { Sampler(t / "text.safetensors"); }), "text.safetensors"));
  write_safetensors(t / "other.safetensors", {}, {{"format", "pt"}});
  CHECK(contains(error_of([&] { Sampler(t / "other.safetensors"); }), "not a checkpoint of kiln"));
  RunOptions o;
  o.network = config(32);
  write_safetensors(t / "empty.safetensors", {}, {{"config", to_json(o, false)}, {"step", "1"}});
  CHECK(contains(error_of([&] { Sampler(t / "empty.safetensors"); }), "ema.init.conv.weight is missing"));
  SamplerOptions little;
  little.memory_gb = 0.0005;
  CHECK(contains(error_of([&] { Sampler(t / "c.safetensors", little); }), "out of memory"));
  Sampler s(t / "c.safetensors");
  CHECK(contains(error_of([&] { s.render(Latent{std::vector<float>(25), 0}); }), "24 latent numbers"));
}

TEST_CASE("sampler: less memory, smaller batches, and the estimate holds") {
  const TempFolder t;
  write_random_checkpoint(t / "c.safetensors", config(64, 16), 4);
  Sampler free(t / "c.safetensors");
  CHECK(free.batch() > 1);
  SamplerOptions o;
  bool smaller = false;
  for (double gb : {0.08, 0.13, 0.2, 1.0}) {
    o.memory_gb = gb;
    CAPTURE(gb);
    Sampler s(t / "c.safetensors", o);
    smaller = smaller || s.batch() < free.batch();
    std::vector<Latent> latents(size_t(s.batch()), s.latent(1));
    CHECK(error_of([&] { s.render(latents); }) == "");
  }
  CHECK(smaller);
}

TEST_CASE("sampler: the path between two latents") {
  const Latent a{{3, 0, 0}, 1}, b{{0, 4, 0}, 2};
  for (Path path : {Path::spherical, Path::linear}) {
    CHECK(between(a, b, 0, path).z == a.z);
    const Latent end = between(a, b, 1, path);
    for (size_t i = 0; i < 3; i++) CHECK(double(end.z[i]) == doctest::Approx(double(b.z[i])).epsilon(1e-6));
    CHECK(end.noise == 1);
  }
  const Latent middle = between(a, b, 0.5), chord = between(a, b, 0.5, Path::linear);
  CHECK(double(middle.z[0]) == doctest::Approx(3.5 / std::sqrt(2.0)));  // length halfway from 3 to 4, at 45 degrees
  CHECK(double(middle.z[1]) == doctest::Approx(3.5 / std::sqrt(2.0)));
  CHECK(double(chord.z[0]) == doctest::Approx(1.5));
  CHECK(double(chord.z[1]) == doctest::Approx(2.0));
  CHECK(between(a, a, 0.3).z == std::vector<float>{3, 0, 0});
  CHECK(between(a, Latent{{-3, 0, 0}, 0}, 0.25).z[0] == doctest::Approx(1.5));
  CHECK(contains(error_of([&] { between(a, Latent{{1, 2}, 0}, 0.5); }), "3"));
}

TEST_CASE("sampler: latents go into a file and come back") {
  const TempFolder t;
  const LatentFile f{{{{1, 2, 3}, 7}, {{-1, 0.5f, 1e-8f}, 1ull << 63}}, {"a.jpg", "b \"x\".png"}, "0123456789abcdef"};
  write_latents(t / "l.safetensors", f);
  const LatentFile g = read_latents(t / "l.safetensors");
  REQUIRE(g.latents.size() == 2);
  for (size_t i = 0; i < 2; i++) {
    CHECK(g.latents[i].z == f.latents[i].z);
    CHECK(g.latents[i].noise == f.latents[i].noise);
  }
  CHECK(g.names == f.names);
  CHECK(g.fingerprint == f.fingerprint);
  write_safetensors(t / "x.safetensors", {}, {});
  CHECK(contains(error_of([&] { read_latents(t / "x.safetensors"); }), "not a file of latents"));
  const float bad[2] = {1, std::nanf("")};
  write_safetensors(t / "n.safetensors", {{"z", "F32", {1, 2}, bad, sizeof bad}}, {});
  CHECK(contains(error_of([&] { read_latents(t / "n.safetensors"); }), "not finite"));
}
