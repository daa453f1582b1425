// ./biggan_train as a user meets it: help, mistakes, a run on class folders, resuming, other classes.
#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/backend/gpu_runtime.h"
#include "engine/safetensors.h"
#include "models/biggan_run.h"
#include "tests/support.h"
#include "tests/training_runs.h"

using namespace kiln;
using namespace kiln::test;
namespace fs = std::filesystem;
using nlohmann::json;

namespace {

std::vector<std::string> small_run(const std::string& data, const std::string& out, std::vector<std::string> more = {}) {
  std::vector<std::string> a{data, "--out", out, "--width", "4", "--z", "8", "--shared-dim", "4", "--batch", "4", "--no-cache", "--grid", "2",
                             "--log-every", "2", "--sample-every", "4", "--metric-every", "4", "--standing", "2", "--steps", "4"};
  a = with_device(a);
  a.insert(a.end(), more.begin(), more.end());
  return a;
}

Finished run(const std::vector<std::string>& arguments) { return run_program("biggan_train", arguments); }

void is_refused(const std::vector<std::string>& arguments, const std::vector<std::string>& words) {
  const Finished f = run(arguments);
  CAPTURE(f.err);
  CHECK(f.code == 2);
  CHECK(std::count(f.err.begin(), f.err.end(), '\n') == 1);
  for (const std::string& w : words) {
    CAPTURE(w);
    CHECK(contains(f.err, w));
  }
}

/// Sorts drawn faces into class folders of so many each. Returns the folder.
std::string class_folders(const TempFolder& t, const std::vector<std::pair<std::string, int>>& classes) {
  int total = 0;
  for (const auto& c : classes) total += c.second;
  const fs::path faces = draw_faces(t, total, 40), root = fs::path(t / "classes");
  std::vector<fs::path> files;
  for (const auto& e : fs::directory_iterator(faces)) files.push_back(e.path());
  std::sort(files.begin(), files.end());
  size_t at = 0;
  for (const auto& [name, count] : classes) {
    fs::create_directories(root / name);
    for (int i = 0; i < count; i++, at++) fs::rename(files[at], root / name / files[at].filename());
  }
  return root.string();
}

std::string text_of(const fs::path& p) { return file_text(p); }

}  // namespace

TEST_CASE("biggan_train: help names every group, with defaults, and needs nothing") {
  const Finished f = run({"--help"});
  CHECK(f.code == 0);
  for (const char* word : {"Pictures", "Run", "Training", "Network", "Machine", "--preset", "=small", "--ortho-form", "--d-steps", "--standing", "=16"}) {
    CAPTURE(word);
    CHECK(contains(f.out, word));
  }
}

TEST_CASE("biggan_train: mistakes end with code 2 and one line that names them") {
  const TempFolder t;
  const std::string data = class_folders(t, {{"a", 4}, {"b", 4}}), out = t / "run";
  is_refused({}, {"no folder of pictures", "biggan_train DIR"});
  is_refused(small_run(t / "nowhere", out), {t / "nowhere"});
  is_refused(small_run(data, out, {"--size", "48"}), {"--size 48", "128"});
  is_refused(small_run(data, out, {"--preset", "huge"}), {"--preset", "huge"});
  is_refused(small_run(data, out, {"--batch", "6", "--accumulate", "4"}), {"--accumulate 4", "--batch 6"});
  is_refused(small_run(data, out, {"--d-steps", "0"}), {"--d-steps 0"});
  is_refused(small_run(data, out, {"--no-shared"}), {"--no-hier"});
  is_refused(small_run(data, out, {"--attention", "24"}), {"--g-attention 24", "8, 16, 32"});
  is_refused(small_run(data, out, {"--lr", "0.1", "--g-lr", "0.1"}), {"--lr"});
  is_refused(small_run(data, out, {"--standing", "-1"}), {"--standing"});
  is_refused(small_run(data, out, {"--augment", "colour"}), {"colour"});
  is_refused({data, "--out", out, "--resume"}, {out, "no run"});
  is_refused(small_run(data, out, {"--precision", "f64"}), {"--precision", "f64"});
  is_refused(small_run(data, out, {"--device", "cpu", "--tf32"}), {"--tf32", "only a GPU"});
  if (!gpu_runtime::available()) is_refused(small_run(data, out, {"--device", "gpu"}), {"--device gpu: ", "--device cpu"});
  fs::copy(data + "/a", data, fs::copy_options::recursive);  // pictures in no class
  is_refused(small_run(data, out), {"4 in none", "--unconditional"});
  CHECK(!fs::exists(out));
  const Finished f = run(small_run(data, out, {"--unconditional"}));
  CHECK(contains(f.out, "no class folders: unconditional"));
  CAPTURE(f.err);
  CHECK(f.code == 0);
}

TEST_CASE("biggan_train: a run on class folders leaves what it says") {
  const TempFolder t;
  // One class is large enough to be measured by itself; one has a single picture, one none, one a name that is not UTF-8.
  const std::string data = class_folders(t, {{"blue", 18}, {"only", 1}, {"\xff", 3}}), out = t / "run";
  fs::create_directories(data + "/empty");
  const Finished f = run(small_run(data, out, {"--d-steps", "2", "--accumulate", "2", "--ortho", "1e-3", "--checkpoint-every", "2"}));
  CAPTURE(f.err);
  CAPTURE(f.out);
  REQUIRE(f.code == 0);
  for (const char* word : {"3 classes: blue 18, only 1, \\xff 3", "18.0 times", "empty has no usable picture", "only has one picture", "batch 4 x 2 D steps"})
    CHECK(contains(f.out, word));
  for (const char* name : {"samples/000004.png", "samples/000004_classes.png", "samples/real.png", "checkpoints/000004.safetensors", "config.json"})
    CHECK(fs::exists(fs::path(out) / name));
  const SafetensorsFile file(fs::path(out) / "checkpoints/000004.safetensors");
  CHECK(file.at("G.shared").shape == std::vector<int64_t>{3, 4});
  const json config = json::parse(file.metadata().at("config"));
  CHECK(config.at("class_names") == json({"blue", "only", "\\xff"}));
  int logged = 0, measured = 0;
  std::ifstream log(out + "/log.jsonl");
  for (std::string line; std::getline(log, line);) {
    const json j = json::parse(line);
    if (j.contains("sv_g.linear")) {
      logged++;
      CHECK(j.contains("sv_d.linear"));
      CHECK(j.at("sigma_g").get<double>() >= j.at("sv_g.linear").get<double>());
    }
    if (j.contains("class_swd.blue")) {
      measured++;
      CHECK(!j.contains("class_swd.only"));
      CHECK(j.at("class_swd") == j.at("class_swd.blue"));
    }
  }
  CHECK(logged == 2);
  CHECK(measured == 2);
}

TEST_CASE("biggan_train: a run resumed is the run that never stopped, bit for bit") {
  const TempFolder t;
  const std::string data = class_folders(t, {{"a", 6}, {"b", 5}}), whole = t / "whole", halves = t / "halves";
  const std::vector<std::string> more = {"--augment", "color,translation", "--steps", "8", "--checkpoint-every", "4"};
  REQUIRE(run(small_run(data, whole, more)).code == 0);
  std::vector<std::string> first = small_run(data, halves, more);
  first.insert(first.end(), {"--steps", "4"});
  REQUIRE(run(first).code == 0);
  const Finished f = run({data, "--no-cache", "--out", halves, "--resume", "--steps", "8"});
  CAPTURE(f.err);
  REQUIRE(f.code == 0);
  CHECK(text_of(whole + "/checkpoints/000008.safetensors") == text_of(halves + "/checkpoints/000008.safetensors"));
  CHECK(text_of(whole + "/samples/000008_classes.png") == text_of(halves + "/samples/000008_classes.png"));
  CHECK(timeless_log(whole) == timeless_log(halves));
  is_refused({data, "--no-cache", "--out", halves, "--resume", "--steps", "9", "--width", "8"}, {"--resume", "--width"});
  // The folders are not those of the run any more.
  fs::rename(data + "/b", data + "/c");
  is_refused({data, "--no-cache", "--out", halves, "--resume", "--steps", "9"}, {"kept a", "new", "c", "dropped b", "--resume FILE"});
}

TEST_CASE("biggan_train: a checkpoint goes on with other classes; rows and their Adam state follow the names") {
  const TempFolder t;
  const std::string data = class_folders(t, {{"a", 4}, {"b", 4}, {"c", 4}}), before = t / "before", after = t / "after";
  for (const bool tables : {false, true}) {
    CAPTURE(tables);
    std::vector<std::string> network;
    if (tables) network = {"--no-shared", "--no-hier"};
    const std::string from = before + (tables ? "2" : ""), to = after + (tables ? "2" : "");
    std::vector<std::string> first = small_run(data, from, network), second;
    REQUIRE(run(first).code == 0);
    const std::string checkpoint = from + "/checkpoints/000004.safetensors";
    fs::rename(data + "/a", data + "/d");
    fs::rename(data + "/b", data + "/a0");
    second = small_run(data, to, network);
    second.insert(second.end(), {"--steps", "5", "--resume", checkpoint});
    const Finished f = run(second);
    CAPTURE(f.err);
    CAPTURE(f.out);
    REQUIRE(f.code == 0);
    CHECK(contains(f.out, "kept c; new, beginning as the mean of the old ones: a0, d; dropped a, b"));
    fs::rename(data + "/d", data + "/a");
    fs::rename(data + "/a0", data + "/b");

    // The same through the library, before any step.
    Context context;
    UseContext use(context);
    const SafetensorsFile file(checkpoint);
    biggan::RunOptions o = biggan::from_json(file.metadata().at("config"), checkpoint);
    const biggan::Mapping mapping = biggan::map_classes(o.class_names, {"a0", "c", "d"});
    CHECK(mapping.from == std::vector<int>{-1, 2, -1});
    biggan::Model m(o.network);
    biggan::load_with_classes(file, mapping, m, true);
    int checked = 0;
    const auto compare = [&](const ParameterSet& set, const std::string& prefix, const std::string& name) {
      for (const auto& e : set.entries()) {
        if (e.name != name) continue;
        const auto rows = [&](const std::string& key) {
          std::vector<float> v(file.at(key).bytes / 4);
          std::memcpy(v.data(), file.at(key).data, file.at(key).bytes);
          return v;
        };
        const size_t row = size_t(e.count() / e.shape[0]);
        const std::vector<float> old = rows(prefix + name), now = set.tensor(e).to_vector();
        for (size_t i = 0; i < row; i++) {
          CHECK(now[row + i] == old[2 * row + i]);  // c
          CHECK(now[i] == doctest::Approx((old[i] + old[row + i] + old[2 * row + i]) / 3).epsilon(1e-5));
          CHECK(now[2 * row + i] == now[i]);
        }
        checked++;
        if (e.kind != ParameterSet::Entry::parameter || prefix == "ema.") continue;
        const std::string optimiser = prefix == "G." ? "opt_g." : "opt_d.";
        const std::vector<float> m0 = rows(optimiser + "m." + name), v0 = rows(optimiser + "v." + name), m1 = set.moment(e, 0).to_vector(), v1 = set.moment(e, 1).to_vector();
        for (size_t i = 0; i < row; i++) {
          CHECK(m1[row + i] == m0[2 * row + i]);
          CHECK(m1[i] == 0);
          CHECK(v1[row + i] == v0[2 * row + i]);
          CHECK(v1[i] == doctest::Approx((v0[i] + v0[row + i] + v0[2 * row + i]) / 3).epsilon(1e-5));
        }
      }
    };
    compare(m.g_params, "G.", tables ? "blocks.1.bn2.gain" : "shared");
    compare(m.average_params, "ema.", tables ? "blocks.1.bn2.gain" : "shared");
    compare(m.d_params, "D.", "embed.weight");
    compare(m.d_params, "D.", "embed.u");
    CHECK(checked == 4);
    // All else is as it was.
    int same = 0;
    for (const auto& [prefix, set] : {std::pair{"G.", &m.g_params}, std::pair{"ema.", &m.average_params}, std::pair{"D.", &m.d_params}})
      for (const auto& e : set->entries()) {
        const bool table = contains(e.name, "blocks.") && contains(e.name, ".bn") && (e.name.ends_with(".gain") || e.name.ends_with(".bias"));
        if (e.name == "shared" || e.name == "embed.weight" || e.name == "embed.u" || table) continue;
        const TensorView& view = file.at(prefix + e.name);
        std::vector<float> old(view.bytes / 4);
        std::memcpy(old.data(), view.data, view.bytes);
        CAPTURE(prefix + e.name);
        CHECK(set->tensor(e).to_vector() == old);
        same++;
      }
    CHECK(same > 100);
    CHECK(m.g_params.steps() == 4);
  }
  // Into another kind of network it does not go.
  for (const char* name : {"b", "c"}) fs::remove_all(data + "/" + name);
  std::vector<std::string> one = small_run(data, t / "one");
  one.insert(one.end(), {"--steps", "5", "--resume", before + "/checkpoints/000004.safetensors"});
  is_refused(one, {"class-conditional", "Sort the pictures"});
}

TEST_CASE("biggan_train: one class and none train the unconditional network") {
  const TempFolder t;
  const std::string data = class_folders(t, {{"a", 6}});
  const Finished f = run(small_run(data, t / "one"));
  CAPTURE(f.err);
  CHECK(f.code == 0);
  const SafetensorsFile file(fs::path(t / "one") / "checkpoints/000004.safetensors");
  CHECK(!file.find("G.shared"));
  CHECK(!fs::exists(fs::path(t / "one") / "samples/000004_classes.png"));
}

TEST_CASE("biggan_train: --dry-run counts parameters and memory of every preset, and allocates neither") {
  for (const auto& [preset, count] : std::vector<std::pair<std::string, std::string>>{{"cifar", "4304387"}, {"128", "70307268"}, {"small", ""}}) {
    const Finished f = run({"--dry-run", "--preset", preset});
    CAPTURE(f.out);
    CAPTURE(f.err);
    CHECK(f.code == 0);
    CHECK(contains(f.out, count));
    CHECK(contains(f.out, "in all at the peak"));
  }
}
