// ./fastgan_train as a user meets it: help, mistakes, a run, its files, resuming.
#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "engine/backend/gpu_runtime.h"
#include "engine/convolution.h"
#include "engine/picture.h"
#include "engine/safetensors.h"
#include "tests/support.h"
#include "tests/training_runs.h"

using namespace kiln;
using namespace kiln::test;
namespace fs = std::filesystem;
using nlohmann::json;

TEST_CASE("fastgan_train: help names every group, with defaults, and needs nothing") {
  const Finished f = run_program("fastgan_train", {"--help"});
  CHECK(f.code == 0);
  for (const char* word : {"Pictures", "Run", "Training", "Network", "Machine", "--size", "--minutes", "--resume", "--recon",
                           "--precision", "=8", "=50000", "=mse", "=0.0002"}) {
    CAPTURE(word);
    CHECK(f.out.find(word) != std::string::npos);
  }
}

TEST_CASE("fastgan_train: mistakes end with code 2 and one line that names them") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 6, 40), run = t / "run";
  fs::create_directories(t / "empty");
  fs::create_directories(t / "texts");
  std::ofstream(t / "texts/a.txt") << "no picture";
  fs::create_directories(t / "broken");
  std::ofstream(t / "broken/a.jpg") << "not a JPEG";

  refuses({}, {"no folder of pictures", "fastgan_train DIR"});
  refuses({"--out", run}, {"no folder of pictures"});
  refuses(tiny(t / "nowhere", run), {t / "nowhere"});
  refuses(tiny(faces + "/face100.png", run), {"face100.png"});
  refuses(tiny(t / "empty", run), {t / "empty", "jpg"});
  refuses(tiny(t / "texts", run), {t / "texts", "jpg"});
  refuses(tiny(t / "broken", run), {t / "broken"});
  refuses(tiny(t / "broken", run, {"--strict"}), {"a.jpg"});
  refuses({faces, "--out", run, "--size", "100"}, {"--size 100", "128"});
  refuses({faces, "--out", run, "--batch", "0"}, {"--batch 0", "from 1"});
  refuses({faces, "--out", run, "--batch", "many"}, {"--batch", "many"});
  refuses({faces, "--out", run, "--ngf", "7"}, {"--ngf 7", "even"});
  refuses({faces, "--out", run, "--steps", "0"}, {"--steps 0"});
  refuses({faces, "--out", run, "--minutes", "-1"}, {"--minutes -1"});
  refuses({faces, "--out", run, "--augment", "colour"}, {"--augment", "colour", "translation"});
  refuses({faces, "--out", run, "--fit", "stretch"}, {"stretch", "squash"});
  refuses({faces, "--out", run, "--recon", "ssim"}, {"--recon", "ssim"});
  refuses({faces, "--out", run, "--precision", "fp8"}, {"--precision", "fp8", "bf16"});
  setenv("DNNL_MAX_CPU_ISA", "AVX512_CORE", 1);  // a CPU without bf16, as oneDNN sees it
  refuses({faces, "--out", run, "--precision", "bf16"}, {"--precision bf16", "AVX512_BF16", "--precision f32"});
  unsetenv("DNNL_MAX_CPU_ISA");
  refuses({faces, "--out", run, "--colour"}, {"--colour"});
  refuses({faces, "--out", run, "--background", "0", "0", "300"}, {"--background", "300"});
  refuses({faces, "--out", run, "--resume"}, {run, "no run"});
  refuses({faces, "--resume"}, {"--out"});
  refuses(tiny(faces, run, {"--resume", t / "nothing.safetensors"}), {"nothing.safetensors"});
  refuses(tiny(faces, faces + "/face100.png", {"--steps", "1"}), {"face100.png"});
  refuses(tiny(faces, run, {"--device", "cpu", "--tf32"}), {"--tf32", "GPU"});
  refuses(tiny(faces, run, {"--device", "cpu", "--autotune"}), {"--autotune", "GPU"});
  if (!gpu_runtime::available()) {
    refuses(tiny(faces, t / "gpu", {"--device", "gpu"}), {"--device gpu: ", gpu_runtime::describe(gpu_runtime::facts()), "--device cpu"});
    refuses(tiny(faces, t / "gpu", {"--device", "gpu", "--dry-run"}), {"--device gpu: ", "--device cpu"});
    CHECK(!fs::exists(t / "gpu"));
    const Finished anywhere = run_program("fastgan_train", {"--dry-run"});  // --device auto
    CHECK(anywhere.code == 0);
    CHECK(anywhere.out.find("memory:") != std::string::npos);
  }
  refuses(tiny(faces, t / "small", {"--memory", "0.01"}), {"out of memory", "--batch"});
}

TEST_CASE("fastgan_train: a run leaves what it says, and nothing is overwritten") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 12, 48), run = t / "run";
  std::ofstream(faces + "/broken.jpg") << "not a JPEG";
  const Finished f = run_program("fastgan_train", tiny(faces, run, {"--steps", "10", "--checkpoint-every", "5"}));
  CAPTURE(f.out);
  CAPTURE(f.err);
  REQUIRE(f.code == 0);
  for (const char* word : {"12 pictures", "broken.jpg", "1 skipped", "step 10/10", "img/s", "ETA", "D(real)", "D(fake)", "rec", "SWD", "mem", "MB"})
    CHECK(f.out.find(word) != std::string::npos);
  CHECK(f.out.find('\r') == std::string::npos);  // not a terminal: plain lines
  for (const char* name : {"config.json", "log.jsonl", "report.html", "samples/real.png", "samples/000005.png", "samples/000010.png",
                           "samples/000010_recon.png", "checkpoints/000005.safetensors", "checkpoints/000010.safetensors"}) {
    CAPTURE(name);
    CHECK(fs::exists(fs::path(run) / name));
  }
  const Picture grid = read_picture(fs::path(run) / "samples/000010.png");
  CHECK(grid.width == 2 * 32 + 3 * 2);
  const json config = json::parse(file_text(fs::path(run) / "config.json"));
  CHECK(config["size"] == 32);
  CHECK(config["ngf"] == 4);
  CHECK(config["commands"].size() == 1);
  CHECK(config["commands"][0].get<std::string>().find("fastgan_train " + faces + " --out") != std::string::npos);
  int steps = 0, metrics = 0;
  std::ifstream log(run + "/log.jsonl");
  for (std::string line; std::getline(log, line);) {
    const json j = json::parse(line);
    CHECK(j.is_object());
    for (const auto& item : j.items()) CHECK(item.value().is_primitive());
    steps += j.contains("loss_g");
    metrics += j.contains("swd") && j.contains("swd_baseline") && j.contains("swd_32");
  }
  CHECK(steps == 5);
  CHECK(metrics == 2);
  const SafetensorsFile c(fs::path(run) / "checkpoints/000010.safetensors");
  for (const char* name : {"G.init.conv.weight", "D.stem.conv1.u", "ema.feat_8.bn1.running_var", "opt_g.m.to_big.weight", "opt_d.v.rf_small.weight"}) {
    CAPTURE(name);
    CHECK(c.find(name) != nullptr);
  }
  CHECK(c.metadata().at("step") == "10");
  // A second run does not go over the first.
  refuses(tiny(faces, run, {"--steps", "10"}), {run, "--resume"});
}

TEST_CASE("fastgan_train: equal seeds give equal runs, and 20 + 20 resumed steps equal 40, byte for byte") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 10, 32);
  const auto run = [&](const std::string& out, std::vector<std::string> more) {
    std::vector<std::string> a = tiny(faces, out, {"--checkpoint-every", "10", "--keep", "0", "--metric-every", "10", "--seed", "7"});
    a.insert(a.end(), more.begin(), more.end());
    const Finished f = run_program("fastgan_train", a);
    CAPTURE(f.err);
    REQUIRE(f.code == 0);
  };
  run(t / "a", {"--steps", "40"});
  run(t / "b", {"--steps", "20"});
  run(t / "b", {"--steps", "40", "--resume"});
  const auto same = [&](const std::string& name) { return file_text(t / ("a/" + name)) == file_text(t / ("b/" + name)); };
  for (const char* name : {"checkpoints/000010.safetensors", "checkpoints/000020.safetensors", "checkpoints/000030.safetensors",
                           "checkpoints/000040.safetensors", "samples/000040.png", "samples/000025.png", "samples/000040_recon.png"}) {
    CAPTURE(name);
    CHECK(same(name));
  }
  CHECK(timeless_log(t / "a") == timeless_log(t / "b"));
  run(t / "c", {"--steps", "10", "--seed", "8"});
  CHECK(file_text(t / "a/checkpoints/000010.safetensors") != file_text(t / "c/checkpoints/000010.safetensors"));

  SUBCASE("a flag that would make it another run is refused, by name") {
    refuses({"--out", t / "b", "--resume", "--batch", "5"}, {"--batch"});
    refuses({"--out", t / "b", "--resume", "--size", "64"}, {"--size"});
    refuses({"--out", t / "b", "--resume", "--lr", "0.1"}, {"training option"});
    refuses({"--out", t / "b", "--resume"}, {"40 steps already", "--steps"});
  }
  SUBCASE("a run killed after its last checkpoint goes on as if it had not been") {
    // Lines that the killed run wrote after step 30, the last one cut short.
    fs::remove(t / "b/checkpoints/000040.safetensors");
    std::ofstream(t / "b/log.jsonl", std::ios::app) << "{\"step\": 41, \"loss_g\": 1}\n{\"step\": 4";
    run(t / "b", {"--steps", "40", "--resume"});
    CHECK(same("checkpoints/000040.safetensors"));
    CHECK(timeless_log(t / "a") == timeless_log(t / "b"));
  }
  SUBCASE("a damaged checkpoint, or another network's, is refused by name and reason") {
    const std::string whole = file_text(t / "a/checkpoints/000040.safetensors");
    std::ofstream(t / "cut.safetensors", std::ios::binary) << whole.substr(0, whole.size() / 2);
    refuses(tiny(faces, t / "d", {"--resume", t / "cut.safetensors"}), {"cut.safetensors", "cut short"});
    std::string altered = whole;
    altered[altered.size() / 2] = char(altered[altered.size() / 2] ^ 1);
    std::ofstream(t / "altered.safetensors", std::ios::binary) << altered;
    refuses(tiny(faces, t / "d2", {"--resume", t / "altered.safetensors"}), {"altered.safetensors"});
    std::ofstream(t / "text.safetensors", std::ios::binary) << "just some text that is long enough to be read as a header";
    refuses(tiny(faces, t / "d3", {"--resume", t / "text.safetensors"}), {"text.safetensors"});
    refuses(tiny(faces, t / "d4", {"--resume", t / "a/checkpoints/000040.safetensors", "--size", "64"}), {"--size"});
    refuses(tiny(faces, t / "d5", {"--resume", t / "a/checkpoints/000040.safetensors", "--ngf", "8"}), {"--ngf"});
  }
}

TEST_CASE("fastgan_train: 16-bit runs resume bit for bit in their precision, and start from any checkpoint") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 10, 32);
  const auto run = [&](const std::string& out, std::vector<std::string> more) {
    std::vector<std::string> a = tiny(faces, out, {"--checkpoint-every", "6", "--keep", "0", "--metric-every", "0"});
    a.insert(a.end(), more.begin(), more.end());
    return run_program("fastgan_train", a);
  };
  std::vector<std::string> types{"f16"};
  if (cpu_has_bf16()) types.push_back("bf16");
  for (const std::string& type : types) {
    CAPTURE(type);
    CHECK(run(t / (type + "a"), {"--steps", "12", "--precision", type}).code == 0);
    CHECK(run(t / (type + "b"), {"--steps", "6", "--precision", type}).code == 0);
    CHECK(run(t / (type + "b"), {"--steps", "12", "--resume"}).code == 0);
    const std::string last = "/checkpoints/000012.safetensors";
    CHECK(file_text(t / (type + "a" + last)) == file_text(t / (type + "b" + last)));
    CHECK(timeless_log(t / (type + "a")) == timeless_log(t / (type + "b")));
    const SafetensorsFile c(t / (type + "a" + last));
    CHECK(c.find("G.init.conv.weight")->dtype == "F32");
    CHECK(c.metadata().contains("loss_scale") == (type == "f16"));
    refuses({"--out", t / (type + "b"), "--resume", "--precision", "f32"}, {"--precision", "--resume FILE"});
  }
  const SafetensorsFile c(t / "f16a/checkpoints/000012.safetensors");
  CHECK(c.metadata().at("loss_scale") == "65536");
  CHECK(c.metadata().at("loss_scale.good_steps") == "12");
  const std::string from = t / "f16a/checkpoints/000006.safetensors";
  CHECK(run(t / "f32", {"--steps", "12", "--resume", from}).code == 0);
  CHECK(run(t / "again", {"--steps", "12", "--resume", from, "--precision", "f16"}).code == 0);
  CHECK(file_text(t / "again/checkpoints/000012.safetensors") == file_text(t / "f16a/checkpoints/000012.safetensors"));
  CHECK(file_text(t / "f32/checkpoints/000012.safetensors") != file_text(t / "f16a/checkpoints/000012.safetensors"));
  CHECK(run(t / "f32", {"--steps", "14", "--resume"}).code == 0);
  CHECK(run(t / "f16c", {"--steps", "14", "--precision", "f16", "--resume", t / "f32/checkpoints/000012.safetensors"}).code == 0);
}

TEST_CASE("fastgan_train: Ctrl-C finishes the step and saves; --minutes stops by the clock; --dry-run touches nothing") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 8, 32), run = t / "run";
  const int process = start_program("fastgan_train", tiny(faces, run, {"--steps", "1000000", "--metric-every", "5"}), t / "log");
  for (int i = 0; i < 300 && file_text(t / "log").find("step ") == std::string::npos; i++)
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  kill(process, SIGINT);
  CHECK(wait_program(process) == 0);
  CHECK(file_text(t / "log").find("interrupted") != std::string::npos);
  int checkpoints = 0;
  for (const auto& e : fs::directory_iterator(run + "/checkpoints")) {
    CHECK_NOTHROW(SafetensorsFile(e.path()));
    checkpoints++;
  }
  CHECK(checkpoints == 1);

  const Finished timed = run_program("fastgan_train", tiny(faces, t / "timed", {"--steps", "1000000", "--minutes", "0.02", "--metric-every", "0"}));
  CHECK(timed.code == 0);
  CHECK(timed.out.find("done:") != std::string::npos);

  const Finished plan = run_program("fastgan_train", tiny(faces, t / "plan", {"--dry-run"}));
  CHECK(plan.code == 0);
  CHECK(plan.out.find("init.conv ") != std::string::npos);
  CHECK(plan.out.find("memory:") != std::string::npos);
  CHECK(!fs::exists(t / "plan"));
}

TEST_CASE("fastgan_train: it learns: the distance to the pictures falls") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 60, 32), run = t / "run";
  const Finished f = run_program("fastgan_train", with_device({faces, "--out", run, "--size", "32", "--ngf", "8", "--ndf", "8", "--batch", "8", "--no-cache", "--steps", "240",
                                                   "--metric-every", "20", "--sample-every", "0", "--grid", "4", "--seed", "1"}));
  CAPTURE(f.err);
  REQUIRE(f.code == 0);
  double first = -1, last = -1, baseline = 0;
  std::ifstream log(run + "/log.jsonl");
  for (std::string line; std::getline(log, line);) {
    const json j = json::parse(line);
    if (!j.contains("swd")) continue;
    if (first < 0) first = j["swd"];
    last = j["swd"];
    baseline = j["swd_baseline"];
  }
  MESSAGE("distance " << first << " -> " << last << ", real against real " << baseline);
  CHECK(last < 0.6 * first);
  CHECK(baseline < last);
}
