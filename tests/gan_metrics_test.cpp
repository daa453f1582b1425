// ./gan_metrics as a user meets it: numbers with their protocols, and mistakes.
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/program.h"

using namespace kiln;
using namespace kiln::test;
namespace fs = std::filesystem;
using nlohmann::json;

namespace {

void refuses(const std::vector<std::string>& arguments, const std::vector<std::string>& words) {
  const Finished f = run_program("gan_metrics", arguments);
  CAPTURE(f.err);
  CHECK(f.code == 2);
  CHECK(std::count(f.err.begin(), f.err.end(), '\n') == 1);
  for (const std::string& w : words) {
    CAPTURE(w);
    CHECK(f.err.find(w) != std::string::npos);
  }
}

json measure(std::vector<std::string> arguments) {
  arguments.insert(arguments.end(), {"--json", "--no-cache"});
  const Finished f = run_program("gan_metrics", arguments);
  CAPTURE(f.err);
  REQUIRE(f.code == 0);
  return json::parse(f.out);
}

}  // namespace

TEST_CASE("gan_metrics: help needs nothing and names every option") {
  const Finished f = run_program("gan_metrics", {"--help"});
  CHECK(f.code == 0);
  for (const char* word : {"REAL", "FAKE", "--size", "--fit", "--pictures", "--seed", "--json", "=256"}) {
    CAPTURE(word);
    CHECK(f.out.find(word) != std::string::npos);
  }
}

TEST_CASE("gan_metrics: mistakes end with code 2 and one line that names them") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 6, 40);
  fs::create_directories(t / "empty");
  std::ofstream(t / "broken.safetensors") << "not a checkpoint";
  refuses({}, {"REAL"});
  refuses({faces}, {"FAKE"});
  refuses({t / "nowhere", faces}, {t / "nowhere", "folder"});
  refuses({faces, t / "nowhere"}, {t / "nowhere"});
  refuses({faces, t / "empty"}, {t / "empty"});
  refuses({t / "empty", faces}, {t / "empty"});
  refuses({faces, t / "broken.safetensors"}, {"broken.safetensors"});
  refuses({faces, faces, "--size", "8"}, {"--size 8"});
  refuses({faces, faces, "--pictures", "0"}, {"--pictures 0"});
  refuses({faces, faces, "--fit", "stretch"}, {"stretch"});
  refuses({faces, faces, "--typo"}, {"--typo"});
}

TEST_CASE("gan_metrics: the real pictures themselves are nearer than their own halves; other pictures are far") {
  const TempFolder t, other;
  const std::string faces = draw_faces(t, 24, 40);
  const json same = measure({faces, faces});
  CHECK(same.at("size") == 40);
  CHECK(same.at("swd").get<double>() < same.at("swd_baseline").get<double>());
  CHECK(same.at("swd_protocol").get<std::string>().find("12 pictures a side") != std::string::npos);

  fs::create_directories(other / "few");
  int n = 0;
  for (const auto& e : fs::directory_iterator(faces))
    if (n++ < 3) fs::copy(e.path(), other / "few");
  refuses({faces, other / "few"}, {"3 pictures", "12", "--pictures 3"});
  CHECK(measure({faces, other / "few", "--pictures", "3"}).at("swd_protocol").get<std::string>().find("3 pictures a side") != std::string::npos);

  const Finished text = run_program("gan_metrics", {faces, faces, "--no-cache"});
  for (const char* word : {"SWD x1e3 = ", "real against real", "protocol: SWD", "512 directions"}) {
    CAPTURE(word);
    CHECK(text.out.find(word) != std::string::npos);
  }
}

TEST_CASE("gan_metrics: a checkpoint's distance is the one in its training log") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 12, 40), run = t / "run";
  REQUIRE(run_program("fastgan_train", {faces, "--out", run, "--size", "32", "--ngf", "4", "--ndf", "4", "--batch", "4", "--no-cache", "--grid",
                                        "2", "--steps", "4", "--metric-every", "4", "--seed", "7"})
              .code == 0);
  double logged = -1;
  std::ifstream log(run + "/log.jsonl");
  for (std::string line; std::getline(log, line);) {
    const json j = json::parse(line);
    if (j.contains("swd")) logged = j.at("swd");
  }
  const std::string checkpoint = run + "/checkpoints/000004.safetensors";
  const json mine = measure({faces, checkpoint, "--batch", "3"});
  CHECK(mine.at("swd").get<double>() == doctest::Approx(logged).epsilon(1e-6));
  CHECK(mine.at("fake").get<std::string>().find("step 4, 32 px, seed 7") != std::string::npos);
  CHECK(measure({faces, checkpoint, "--seed", "8"}).at("swd").get<double>() != doctest::Approx(logged).epsilon(1e-6));
  refuses({faces, checkpoint, "--size", "64"}, {"--size 64", "32 px"});
}
