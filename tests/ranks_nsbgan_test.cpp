// NSB-GAN's two networks on several ranks train as in one process: the sampler, which is a BigGAN on a measured band, and the decoder.
#include <filesystem>

#include "tests/ranks_runs.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::test;
namespace fs = std::filesystem;

namespace {

constexpr int kSteps = 10;
const std::string kLast = "/checkpoints/000010.safetensors", kFirst = "/checkpoints/000001.safetensors";

std::vector<std::string> arguments(const char* network, const std::string& data, const std::string& out, const char* rate, std::vector<std::string> more) {
  std::vector<std::string> a{network, data, "--out", out, "--size", "64", "--levels", "1", "--batch", "8", "--no-cache", "--grid", "2", "--steps", "10", "--log-every", "1",
                             "--sample-every", "0", "--metric-every", "0", "--checkpoint-every", "1", "--keep", "0", "--lr", rate, "--device", "cpu"};
  a.insert(a.end(), more.begin(), more.end());
  return a;
}

/// Runs it alone and on 2 and 4 ranks, and compares the weights of the networks named by prefixes; `moved` moves by more than it may differ.
void check_ranks(const TempFolder& t, const char* network, const std::string& data, const char* rate, const std::vector<std::string>& more,
                 const std::vector<const char*>& prefixes, const char* moved, const std::string& name, const std::vector<std::string>& except = {}) {
  const std::string one = t / name;
  const Finished f = run_program("nsbgan_train", arguments(network, data, one, rate, more));
  CAPTURE(f.err);
  REQUIRE(f.code == 0);
  const double limit = 0.1 * std::stod(rate) * kSteps;
  for (const int n : {2, 4}) {
    CAPTURE(n);
    const std::string run = one + "-" + std::to_string(n);
    const Finished g = run_ranks(n, "nsbgan_train", arguments(network, data, run, rate, more));
    CAPTURE(g.err);
    REQUIRE(g.code == 0);
    CHECK(largest_loss_difference(one, run) < 1e-3);
    for (const char* prefix : prefixes) {
      const Distance d = distance(one + kLast, run + kLast, prefix, limit, except);
      MESSAGE(std::string(prefix) << " largest " << d.largest << ", beyond 0.1 x lr x steps " << d.beyond);
      CHECK(d.beyond <= 0.001);
    }
    CHECK(distance(one + kFirst, one + kLast, moved, limit, except).beyond > 0.5);
  }
}

}  // namespace

TEST_CASE("ranks: NSB-GAN's sampler on 2 and 4 ranks trains as one process, on the same measured band") {
  if (!has_ranks()) return;
  const TempFolder t;
  const std::string faces = draw_faces(t, 12, 64);
  for (const bool more : {false, true}) {
    CAPTURE(more);
    std::vector<std::string> flags{"--width", "16", "--unconditional"};
    if (more) flags.insert(flags.end(), {"--accumulate", "2", "--d-steps", "2", "--augment", "color,translation"});
    check_ranks(t, "sampler", faces, "5e-6", flags, {"G.", "D.", "ema."}, "G.", more ? "two" : "one");
  }
}

TEST_CASE("ranks: NSB-GAN's decoder on 2 and 4 ranks trains as one process") {
  if (!has_ranks()) return;
  const TempFolder t;
  const std::string faces = draw_faces(t, 12, 64);
  check_ranks(t, "decoder", faces, "2e-5", {"--width", "8", "--blocks", "1"}, {"G."}, "G.", "srresnet");
  // The second stage: a mean over the ranks inside of the loss, and its gradient.
  check_ranks(t, "decoder", faces, "2e-5", {"--gan", "on", "--width", "8", "--blocks", "1", "--d-width", "4"}, {"G.", "D."}, "D.", "gan", {".conv.bias"});
  // Its batch norms take the biases before them away again: their gradients are rounding, of which Adam makes steps of full size.
  check_ranks(t, "decoder", faces, "2e-5", {"--kind", "unet", "--width", "8"}, {"G."}, "G.", "unet", {".conv.bias"});
}
