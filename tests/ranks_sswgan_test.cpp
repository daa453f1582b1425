// SSW-GAN on several ranks trains as in one process, the first stage and one that is conditioned on it.
#include <filesystem>
#include <vector>

#include "tests/ranks_runs.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::test;
namespace fs = std::filesystem;

namespace {

/// Clips as folders of frames: any pictures do.
std::string draw_clips(const TempFolder& t, int clips, int frames) {
  const fs::path root = t.path() / "clips";
  std::vector<fs::path> files;
  for (const auto& e : fs::directory_iterator(draw_faces(t, clips * frames, 32))) files.push_back(e.path());
  std::sort(files.begin(), files.end());
  for (int k = 0; k < clips; k++) {
    const fs::path folder = root / ("clip" + std::to_string(k));
    fs::create_directories(folder);
    for (int i = 0; i < frames; i++) fs::copy_file(files[size_t(k * frames + i)], folder / files[size_t(k * frames + i)].filename());
  }
  return root.string();
}

void check_equal(const std::string& a, const std::string& b, int steps, double rate) {
  char last[64];
  std::snprintf(last, sizeof last, "/checkpoints/%06d.safetensors", steps);
  CHECK(largest_loss_difference(a, b) < 1e-3);
  for (const char* network : {"G.", "D.", "ema."}) {
    const Distance d = distance(a + last, b + last, network, 0.1 * rate * steps);
    MESSAGE(std::string(network) << " largest " << d.largest << ", beyond 0.1 x lr x steps " << d.beyond);
    CHECK(d.beyond <= 0.002);
  }
  CHECK(distance(a + "/checkpoints/000001.safetensors", a + last, "G.", 0.1 * rate * steps).beyond > 0.5);
}

}  // namespace

TEST_CASE("ranks: SSW-GAN's stages on 2 ranks train as one process") {
  if (!has_ranks()) return;
  const TempFolder t;
  constexpr double kRate = 5e-6;
  constexpr int kSteps = 6;
  const std::string clips = draw_clips(t, 6, 4);
  const auto arguments = [&](const std::string& out, std::vector<std::string> more) {
    std::vector<std::string> a{clips, "--out", out, "--stages", "4x16/1,4x32@2", "--width", "8", "--z", "8", "--d-frames", "2", "--batch", "4", "--no-cache", "--grid", "2",
                               "--steps", std::to_string(kSteps), "--log-every", "1", "--sample-every", "0", "--metric-every", "0", "--checkpoint-every", "1", "--keep", "0",
                               "--standing", "0", "--lr", "5e-6", "--d-steps", "1", "--device", "cpu"};
    a.insert(a.end(), more.begin(), more.end());
    return a;
  };
  Finished f = run_ranks(2, "sswgan_train", arguments(t / "none", {"--dry-run"}));  // the clips are the root's to read
  CHECK(f.code == 0);
  // The second stage of both runs is trained on the clips of the same first stage.
  const std::string one = t / "one", two = t / "two";
  f = run_program("sswgan_train", arguments(one, {}));
  CAPTURE(f.err);
  REQUIRE(f.code == 0);
  f = run_ranks(2, "sswgan_train", arguments(two, {}));
  REQUIRE(f.code == 0);
  check_equal(one + "/stage1", two + "/stage1", kSteps, kRate);
  fs::remove_all(two);
  fs::copy(one, two, fs::copy_options::recursive);
  f = run_program("sswgan_train", arguments(one, {"--stage", "2"}));
  REQUIRE(f.code == 0);
  f = run_ranks(2, "sswgan_train", arguments(two, {"--stage", "2"}));
  REQUIRE(f.code == 0);
  check_equal(one + "/stage2", two + "/stage2", kSteps, kRate);
}
