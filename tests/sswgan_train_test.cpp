// ./sswgan_train and ./sswgan_sample as a user meets them: help, mistakes, stages one after the other, resuming, clips out.
#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/video.h"
#include "models/sswgan_sampler.h"
#include "tests/clip_fixtures.h"
#include "tests/support.h"
#include "tests/training_runs.h"

using namespace kiln;
using namespace kiln::test;
namespace fs = std::filesystem;
using nlohmann::json;

namespace {

std::vector<std::string> small_run(const std::string& data, const std::string& out, std::vector<std::string> more = {}) {
  std::vector<std::string> a{data, "--out", out, "--stages", "2x16/2,4x32", "--width", "4", "--z", "6", "--shared-dim", "4", "--batch", "4", "--no-cache",
                             "--grid", "1", "--log-every", "1", "--sample-every", "0", "--metric-every", "4", "--standing", "1", "--steps", "4",
                             "--cond-clips", "6", "--chunk", "1"};
  a = with_device(a);
  a.insert(a.end(), more.begin(), more.end());
  return a;
}

Finished run(const std::vector<std::string>& arguments) { return run_program("sswgan_train", arguments); }

Finished done(const std::vector<std::string>& arguments, const char* program = "sswgan_train") {
  Finished f = run_program(program, arguments);
  INFO(f.err);
  REQUIRE(f.code == 0);
  return f;
}

void is_refused(const std::vector<std::string>& arguments, const std::vector<std::string>& words, const char* program = "sswgan_train") {
  const Finished f = run_program(program, arguments);
  CAPTURE(f.err);
  CHECK(f.code == 2);
  CHECK(std::count(f.err.begin(), f.err.end(), '\n') == 1);
  for (const std::string& w : words) {
    CAPTURE(w);
    CHECK(contains(f.err, w));
  }
}

/// Strips of 8 frames in two class folders.
std::string clip_folder(const TempFolder& t, int clips = 6) {
  const fs::path root = fs::path(t / "clips");
  for (int i = 0; i < clips; i++) {
    fs::create_directories(root / (i % 2 ? "b" : "a"));
    fixtures::write_file(root / (i % 2 ? "b" : "a") / (std::to_string(i) + ".png"), encode_png(fixtures::strip(i, 8, 32)));
  }
  return root.string();
}

std::vector<json> log_of(const std::string& stage) {
  std::ifstream f(stage + "/log.jsonl");
  std::vector<json> out;
  for (std::string line; std::getline(f, line);) out.push_back(json::parse(line));
  return out;
}

}  // namespace

TEST_CASE("sswgan_train: help names every group, with defaults, and needs nothing") {
  const Finished f = run({"--help"});
  CHECK(f.code == 0);
  for (const char* word : {"Pictures", "Run", "Training", "Later stages", "Network", "Machine", "--preset", "ssw-tiny", "ssw-100f", "--all-stages", "--dm-drop", "--cond-aug"}) {
    CAPTURE(word);
    CHECK(contains(f.out, word));
  }
}

TEST_CASE("sswgan_train: mistakes end with code 2 and one line that names them") {
  const TempFolder t;
  const std::string data = clip_folder(t), out = t / "run";
  is_refused({}, {"no folder", "sswgan_train DIR"});
  is_refused(small_run(t / "nowhere", out), {t / "nowhere"});
  is_refused(small_run(data, out, {"--preset", "huge"}), {"--preset", "huge"});
  is_refused(small_run(data, out, {"--stage", "3"}), {"--stage 3", "1 to 2"});
  is_refused(small_run(data, out, {"--stage", "2"}), {"stage 2", "stage 1", "--all-stages"});
  is_refused(small_run(data, out, {"--stage", "1", "--all-stages"}), {"--stage", "--all-stages"});
  is_refused(small_run(data, out, {"--stages", "2x16/2,6x32"}), {"--stages", "one length"});
  is_refused(small_run(data, out, {"--stages", "8x16/2,16x32"}), {"8 frames", "16 are needed (--stages)"});
  is_refused(small_run(data, out, {"--dm-mismatch", "0.5", "--accumulate", "4"}), {"--dm-mismatch", "--batch"});
  is_refused(small_run(data, out, {"--lr", "0.1", "--d-lr", "0.1"}), {"--lr"});
  is_refused(small_run(data, out, {"--resume"}), {"no run to resume"});
  CHECK(!fs::exists(fs::path(out) / "stage1" / "config.json"));
}

TEST_CASE("sswgan_train: a second stage's training takes the same memory for clips of 24 and of 96 frames") {
  const TempFolder t;
  const auto memory = [&](int frames, int stage) {
    const std::string name = std::to_string(frames), data = t / ("clips" + name), out = t / ("run" + name);
    if (stage == 1)
      for (int i = 0; i < 4; i++) {
        fs::create_directories(data);
        fixtures::write_file(fs::path(data) / (std::to_string(i) + ".png"), encode_png(fixtures::strip(i, frames, 32)));
      }
    done(small_run(data, out, {"--stages", std::to_string(frames / 2) + "x16/2," + name + "x32@6", "--stage", std::to_string(stage), "--batch", "2", "--steps", "2",
                               "--metric-every", "0"}));
    return log_of(out + "/stage" + std::to_string(stage)).at(0).at("memory_mb").get<double>();
  };
  const double short_first = memory(24, 1), long_first = memory(96, 1), short_second = memory(24, 2), long_second = memory(96, 2);
  CHECK(short_second == long_second);
  CHECK(long_first > 1.5 * short_first);  // the first stage's grows
}

TEST_CASE("sswgan_train: all stages, a manifest, and a first stage that is not touched by the second") {
  const TempFolder t;
  const std::string data = clip_folder(t), out = t / "run";
  done(small_run(data, out, {"--stage", "1", "--classes"}));
  const std::string first = "/stage1/checkpoints/000004.safetensors", before = file_text(out + first);
  // A second stage of other clips than the first makes is refused.
  is_refused(small_run(data, out, {"--stage", "2"}), {"--classes", "a, b"});
  is_refused(small_run(data, out, {"--stage", "2", "--classes", "--z", "7"}), {"--z 7", "--z 6"});
  is_refused(small_run(data, out, {"--stage", "2", "--classes", "--stages", "4x16,4x32"}), {"--stages", "2x16/2,4x32"});
  const Finished f = done(small_run(data, out, {"--stage", "2", "--classes", "--dm-mismatch", "0.5"}));
  CHECK(contains(f.out, "stage 2 is trained on clips of stage1/checkpoints/000004.safetensors"));
  CHECK(file_text(out + first) == before);
  const json m = json::parse(file_text(out + "/manifest.json"));
  CHECK(m["sizes"] == "2x16/2,4x32");
  REQUIRE(m["stages"].size() == 2);
  CHECK(m["stages"][0]["checkpoint"] == "stage1/checkpoints/000004.safetensors");
  CHECK(m["stages"][1]["trained_on"]["weights"] == m["stages"][0]["weights"]);
  CHECK(m["stages"][0]["weights"] == sswgan::weights_hash(SafetensorsFile(out + first)));
  for (const char* stage : {"/stage1", "/stage2"}) {
    const std::vector<json> log = log_of(out + stage);
    bool numbers = false, measures = false;
    for (const json& j : log) {
      numbers = numbers || (j.contains("hinge.spatial") && j.contains("hinge.temporal") && j.contains("motion"));
      measures = measures || (j.contains("clip_swd") && j.contains("motion_energy") && j.contains("frame_diversity"));
      if (std::string(stage) == "/stage2" && j.contains("loss_g")) {
        CHECK(j.contains("hinge.matching"));
        CHECK(j.contains("grounding_psnr"));
        CHECK(j.contains("score_mismatch.matching"));
      }
    }
    CHECK(numbers);
    CHECK(measures);
    for (const char* file : {"/config.json", "/samples/real.png", "/samples/000004.png", "/report.html"}) {
      CAPTURE(file);
      CHECK(fs::exists(out + stage + file));
    }
    if (video_compiled_in()) CHECK(fs::exists(out + stage + std::string("/samples/000004.gif")));
  }
  // A first stage that has gone on does not matter while the second's is still there; without it the second belongs to none.
  done(small_run(data, out, {"--stage", "1", "--classes", "--resume", "--steps", "6"}));
  const Finished further = done(small_run(data, out, {"--stage", "2", "--classes", "--dm-mismatch", "0.5", "--resume", "--steps", "5"}));
  CHECK(contains(further.out, "stage 2 is trained on clips of stage1/checkpoints/000004.safetensors"));
  fs::remove(out + first);
  is_refused(small_run(data, out, {"--stage", "2", "--classes", "--dm-mismatch", "0.5", "--resume", "--steps", "6"}), {"stage 2", "stage 1", "anew"});
}

TEST_CASE("sswgan_train: a resumed stage is the unbroken one, bit for bit") {
  const TempFolder t;
  const std::string data = clip_folder(t);
  for (const char* conditions : {"6", "0"}) {
    CAPTURE(conditions);
    const std::string whole = t / ("whole" + std::string(conditions)), broken = t / ("broken" + std::string(conditions));
    const auto arguments = [&](const std::string& out, const char* stage, const char* steps, std::vector<std::string> more = {}) {
      std::vector<std::string> a = small_run(data, out, {"--stage", stage, "--steps", steps, "--cond-clips", conditions, "--flip", "0.5", "--checkpoint-every", "2"});
      a.insert(a.end(), more.begin(), more.end());
      return a;
    };
    for (const char* stage : {"1", "2"}) {
      CAPTURE(stage);
      done(arguments(whole, stage, "4"));
      done(arguments(broken, stage, "2"));
      done(arguments(broken, stage, "4", {"--resume"}));
      const std::string file = "/stage" + std::string(stage) + "/checkpoints/000004.safetensors";
      CHECK(file_text(whole + file) == file_text(broken + file));
      CHECK(timeless_log(whole + "/stage" + stage) == timeless_log(broken + "/stage" + stage));
    }
  }
}

TEST_CASE("sswgan_train: --all-stages goes on where it was stopped") {
  const TempFolder t;
  const std::string data = clip_folder(t), out = t / "run", again = t / "again";
  done(small_run(data, out, {"--all-stages"}));
  done(small_run(data, again, {"--stage", "1"}));
  done(small_run(data, again, {"--all-stages", "--resume"}));
  for (const char* file : {"/stage1/checkpoints/000004.safetensors", "/stage2/checkpoints/000004.safetensors"}) CHECK(file_text(out + file) == file_text(again + file));
  const Finished f = done(small_run(data, again, {"--all-stages", "--resume"}));
  CHECK(contains(f.out, "stage 2: has done"));
  // More steps are the last stage's: those before it stay what it was trained on.
  const Finished more = done(small_run(data, again, {"--all-stages", "--resume", "--steps", "6"}));
  CHECK(contains(more.out, "stage 1: stays as it is"));
  CHECK(!fs::exists(again + "/stage1/checkpoints/000006.safetensors"));
  CHECK(fs::exists(again + "/stage2/checkpoints/000006.safetensors"));
}

TEST_CASE("sswgan_train: --all-stages goes on with a stage under that stage's own options") {
  const TempFolder t;
  const std::string data = clip_folder(t), out = t / "run";
  done(small_run(data, out, {"--stage", "1"}));
  done(small_run(data, out, {"--stage", "2", "--width", "8", "--dm-noise", "0.25"}));
  done(small_run(data, out, {"--all-stages", "--resume", "--steps", "5"}));
  CHECK(fs::exists(out + "/stage2/checkpoints/000005.safetensors"));
  const json c = json::parse(file_text(out + "/stage2/config.json"));
  CHECK(c["matching_noise"] == 0.25);
  CHECK(c["g_width"] == json::array({4, 8}));  // the first stage's is the first stage's
  CHECK(c["steps"] == 5);
  CHECK(contains(done({out, "--make", "sheet", "--seeds", "1", "--out", t / "a.png"}, "sswgan_sample").out, "stage 2 of 2"));
}

TEST_CASE("sswgan_train: --dry-run tells clips, windows and memory, and makes nothing") {
  const TempFolder t;
  const std::string data = clip_folder(t), out = t / "run";
  const Finished f = done(small_run(data, out, {"--all-stages", "--dry-run"}));
  for (const char* word : {"6 clips", "48 frames", "windows", "stage 1: G", "stage 2: D", "matching.", "MB of tensors"}) {
    CAPTURE(word);
    CHECK(contains(f.out, word));
  }
  CHECK(!fs::exists(out));
}

TEST_CASE("sswgan_sample: clips are their seeds', in every form, and as long as wanted") {
  const TempFolder t;
  const std::string data = clip_folder(t), out = t / "run";
  done(small_run(data, out, {"--all-stages", "--classes"}));
  const std::vector<std::string> common{out, "--standing", "1"};
  const auto sample = [&](std::vector<std::string> more) {
    std::vector<std::string> a = common;
    a.insert(a.end(), more.begin(), more.end());
    return done(a, "sswgan_sample");
  };
  CHECK(contains(sample({"--make", "sheet", "--seeds", "3", "--out", t / "a.png"}).out, "4 frames, stage 2 of 2"));
  CHECK(contains(sample({"--make", "sheet", "--seeds", "3", "--frames", "11", "--all-stages", "--out", t / "b.png"}).out, "11 frames"));
  CHECK(read_picture(t / "a.png").width == 4 * (32 + 2) + 2);
  CHECK(read_picture(t / "b.png").height == 2 * (32 + 2) + 2);
  CHECK(contains(sample({"--make", "sheet", "--seeds", "3", "--stage", "1", "--out", t / "c.png"}).out, "2 frames, stage 1 of 2"));
  sample({"--make", "frames", "--seeds", "3,5", "--classes", "b", "--out", t / "one", "--batch", "1"});
  sample({"--make", "frames", "--seeds", "5", "--classes", "1", "--out", t / "two", "--batch", "8", "--chunk", "0"});
  CHECK(fs::exists(t / "one/b-seed000003/000003.png"));
  const Picture p = read_picture(t / "one/b-seed000005/000002.png"), q = read_picture(t / "two/b-seed000005/000002.png");
  int most = 0;
  for (size_t i = 0; i < p.rgb.size(); i++) most = std::max(most, std::abs(int(p.rgb[i]) - int(q.rgb[i])));
  CHECK(most <= 1);
  if (video_compiled_in()) {
    sample({"--seeds", "0-3", "--fps", "8", "--out", t / "grid.gif"});
    sample({"--make", "videos", "--seeds", "1", "--out", t / "videos"});
    CHECK(fs::file_size(t / "grid.gif") > 100);
    CHECK(fs::exists(t / "videos/b-seed000001.mp4"));  // its class is the seed's, too
  }
  is_refused({out, "--classes", "cat"}, {"cat", "a, b"}, "sswgan_sample");
  is_refused({out, "--stage", "3"}, {"stage 3"}, "sswgan_sample");
  is_refused({t / "nothing"}, {"no stage", "sswgan_train"}, "sswgan_sample");
  // The first stage that the second was trained on is found by its weights; without it there are no clips of the second.
  fs::copy_file(out + "/stage1/checkpoints/000004.safetensors", out + "/stage1/checkpoints/000003.safetensors");
  done(small_run(data, t / "other", {"--stage", "1", "--classes", "--seed", "9"}));
  fs::copy_file(t / "other/stage1/checkpoints/000004.safetensors", out + "/stage1/checkpoints/000004.safetensors", fs::copy_options::overwrite_existing);
  sample({"--make", "frames", "--seeds", "5", "--classes", "b", "--out", t / "three"});
  const Picture r = read_picture(t / "three/b-seed000005/000002.png");
  most = 0;
  for (size_t i = 0; i < p.rgb.size(); i++) most = std::max(most, std::abs(int(p.rgb[i]) - int(r.rgb[i])));
  CHECK(most <= 1);
  fs::remove(out + "/manifest.json");
  sample({"--make", "sheet", "--seeds", "5", "--out", t / "d.png"});
  fs::remove(out + "/stage1/checkpoints/000003.safetensors");
  is_refused({out}, {"stage 2 was trained on"}, "sswgan_sample");
}
