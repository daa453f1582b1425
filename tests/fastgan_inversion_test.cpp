// Back-tracking: a generator's own picture is found again, by itself or among others, under any distance.
#include "models/fastgan_inversion.h"

#include "engine/ops.h"
#include "tests/program.h"
#include "tests/random_checkpoint.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::fastgan;
using namespace kiln::test;

TEST_CASE("inversion: the error of a generator's own pictures falls far, and the latents give the reconstructions") {
  const TempFolder t;
  Config c;
  c.size = 32;
  c.ngf = c.ndf = 4;
  c.nz = 8;
  write_responsive_checkpoint(t / "c.safetensors", c, 3);
  Sampler sampler(t / "c.safetensors");
  // The same noise as the inversion has: picture k has seed 40 + k.
  std::vector<Latent> truth;
  for (uint64_t k = 0; k < 3; k++) truth.push_back({sampler.latent(100 + k).z, 40 + k});
  const std::vector<Picture> targets = sampler.render(truth);
  Inverter inverter(t / "c.safetensors");
  CHECK(inverter.size() == 32);
  InversionOptions o;
  o.seed = 40;
  o.iterations = 0;
  const Inversion start = inverter.invert(targets, o);
  o.iterations = 150;
  int calls = 0;
  o.progress = [&](size_t, size_t all, int, int) { calls += all == 3; };
  const Inversion end = inverter.invert(targets, o);
  CHECK(calls == 150);
  REQUIRE(end.latents.size() == 3);
  const std::vector<Picture> again = sampler.render(end.latents);
  for (size_t k = 0; k < 3; k++) {
    MESSAGE("mean squared error " << start.errors[k] << " -> " << end.errors[k]);
    CHECK(start.errors[k] > 1e-3);
    CHECK(end.errors[k] < 0.2 * start.errors[k]);
    CHECK(start.latents[k].z == sampler.latent(40 + k).z);  // N(0, 1), the seed's
    int most = 0;
    for (size_t i = 0; i < again[k].rgb.size(); i++) most = std::max(most, std::abs(int(again[k].rgb[i]) - int(end.pictures[k].rgb[i])));
    CHECK(most <= 1);
  }

  SUBCASE("one at a time it comes out as together") {
    o.batch = 1;
    o.progress = nullptr;
    const Inversion single = inverter.invert(targets, o);
    for (size_t k = 0; k < 3; k++) CHECK(single.errors[k] < 0.2 * start.errors[k]);
    o.iterations = 5;  // before rounding has grown
    const Inversion a = inverter.invert(targets, o);
    o.batch = 8;
    const Inversion b = inverter.invert(targets, o);
    for (size_t k = 0; k < 3; k++) CHECK(relative_error(a.latents[k].z, b.latents[k].z) < 1e-3);
  }
  SUBCASE("another distance is used where it is given") {
    int used = 0;
    o.iterations = 4;
    o.distance = [&](const Var& x, const Tensor& target) {
      CHECK(x.shape() == Shape{3, 16, 16, 3});  // half size
      used++;
      return difference_loss(x, target, 1);
    };
    const Inversion other = inverter.invert(targets, o);
    CHECK(used == 4);
    o.distance = nullptr;
    CHECK(other.latents[0].z != inverter.invert(targets, o).latents[0].z);
  }
  SUBCASE("a picture of another size is refused") {
    const Picture small{16, 16, std::vector<uint8_t>(16 * 16 * 3)};
    CHECK(contains(error_of([&] { inverter.invert(std::span(&small, 1), o); }), "16x16"));
  }
}
