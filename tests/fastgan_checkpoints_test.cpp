// ./fastgan_train and its checkpoints: which are kept, which are refused and why, and what a run that failed leaves.
#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/checkpoint.h"
#include "engine/run_directory.h"
#include "tests/support.h"
#include "tests/training_runs.h"

using namespace kiln;
using namespace kiln::test;
namespace fs = std::filesystem;
using nlohmann::json;

namespace {

/// A checkpoint with this metadata and no tensors.
void write_checkpoint(const std::string& path, const std::vector<std::pair<std::string, std::string>>& metadata) {
  CheckpointWriter w;
  for (const auto& [key, value] : metadata) w.set(key, value);
  w.write(path);
}

}  // namespace

TEST_CASE("fastgan_train: of the checkpoints the newest are kept (--keep), and the best by distance always") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 10, 32), run = t / "run";
  // A learning rate with which the distance goes up and down: the best is not among the newest.
  const std::vector<std::string> often{"--lr", "0.02", "--metric-every", "2", "--checkpoint-every", "2", "--sample-every", "0", "--keep", "2"};
  const auto train = [&](std::vector<std::string> more) {
    more.insert(more.end(), often.begin(), often.end());
    const Finished f = run_program("fastgan_train", tiny(faces, run, more));
    CAPTURE(f.err);
    REQUIRE(f.code == 0);
  };
  bool older_was_kept = false;
  for (int64_t steps = 10; steps <= 60; steps += 10) {
    train(steps == 10 ? std::vector<std::string>{"--steps", "10"} : std::vector<std::string>{"--steps", std::to_string(steps), "--resume"});
    int64_t best = -1;
    double least = 0;
    std::ifstream log(run + "/log.jsonl");
    for (std::string line; std::getline(log, line);) {
      const json j = json::parse(line);
      if (!j.contains("swd") || (best >= 0 && j["swd"] >= least)) continue;
      best = j["step"];
      least = j["swd"];
    }
    std::vector<int64_t> expected{steps - 2, steps};
    if (best < steps - 2) {
      expected.insert(expected.begin(), best);
      older_was_kept = true;
    }
    CAPTURE(steps);
    CHECK(RunDirectory::open(run).checkpoints() == expected);
  }
  CHECK(older_was_kept);
}

TEST_CASE("fastgan_train: what is not a checkpoint of this model is refused by name and reason") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 8, 32), run = t / "run";
  const auto refused = [&](const std::string& file, std::vector<std::string> words) {
    words.push_back(file);
    refuses(tiny(faces, t / "other", {"--resume", t / file}), words);
    CHECK(!fs::exists(t / "other"));
  };
  write_checkpoint(t / "pytorch.safetensors", {{"format", "pt"}});
  refused("pytorch.safetensors", {"not a checkpoint of kiln", "name one that"});
  write_checkpoint(t / "biggan.safetensors", {{"config", R"({"model": "biggan"})"}, {"step", "3"}});
  refused("biggan.safetensors", {"model 'biggan'", "not of fastgan", "that model's program"});
  write_checkpoint(t / "odd.safetensors", {{"config", "{"}, {"step", "3"}});
  refused("odd.safetensors", {"configuration cannot be read"});
  std::ofstream(t / "empty.safetensors").flush();
  refused("empty.safetensors", {"empty"});
  fs::create_directories(t / "folder.safetensors");
  refused("folder.safetensors", {"not a file"});
  std::ofstream(t / "picture.safetensors", std::ios::binary) << file_text(faces + "/face100.png");
  refused("picture.safetensors", {"not a safetensors file"});

  // A run whose newest checkpoint is damaged says so, and which one is before it; without the damaged one it goes on from there.
  REQUIRE(run_program("fastgan_train", tiny(faces, run, {"--steps", "4", "--checkpoint-every", "2", "--metric-every", "0"})).code == 0);
  const std::string newest = run + "/checkpoints/000004.safetensors", whole = file_text(newest);
  std::ofstream(newest, std::ios::binary) << whole.substr(0, whole.size() - 1000);
  refuses({"--out", run, "--resume", "--steps", "6"}, {"000004.safetensors", "cut short", "step 2"});
  CHECK(RunDirectory::open(run).checkpoints() == std::vector<int64_t>{2, 4});  // nothing is deleted
  fs::remove(newest);
  const Finished f = run_program("fastgan_train", {"--out", run, "--resume", "--steps", "4"});
  CHECK(f.code == 0);
  CHECK(file_text(newest) == whole);
}

TEST_CASE("fastgan_train: a new run that fails before it has begun leaves no directory, so that the command can be corrected") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 8, 32), run = t / "deep/run";
  refuses(tiny(t / "nowhere", run), {"nowhere"});
  CHECK(!fs::exists(run));
  const std::vector<std::string> large{"--size", "128", "--batch", "64", "--metric-every", "0"};
  std::vector<std::string> limited = large;
  limited.insert(limited.end(), {"--memory", "0.2"});
  refuses(tiny(faces, run, limited), {"out of memory", "the run's own limit", "--batch"});
  CHECK(!fs::exists(run));
  limited.insert(limited.end(), {"--batch", "2", "--steps", "1"});
  CHECK(run_program("fastgan_train", tiny(faces, run, limited)).code == 0);
  CHECK(fs::exists(run + "/checkpoints/000001.safetensors"));
}
