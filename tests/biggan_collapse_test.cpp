// Collapse of BigGAN, provoked in real runs of biggan_train: weights that run away, and the alarm of a layer that suddenly grows.
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/program.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::test;
namespace fs = std::filesystem;
using nlohmann::json;

namespace {

std::vector<std::string> little(const std::string& data, const std::string& out, std::vector<std::string> more) {
  std::vector<std::string> a{data, "--out", out, "--width", "4", "--z", "8", "--shared-dim", "4", "--batch", "4", "--no-cache", "--grid", "2",
                             "--sample-every", "0", "--metric-every", "0", "--standing", "0", "--augment", "none"};
  a.insert(a.end(), more.begin(), more.end());
  return a;
}

std::vector<json> log_of(const std::string& run) {
  std::vector<json> lines;
  std::ifstream f(run + "/log.jsonl");
  for (std::string line; std::getline(f, line);) lines.push_back(json::parse(line));
  return lines;
}

}  // namespace

TEST_CASE("biggan_train: --lr 1 makes the weights run away: told, stopped with code 3, no bad checkpoint") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 8, 32), run = t / "run";
  const Finished f = run_program("biggan_train", little(faces, run, {"--lr", "1", "--steps", "200", "--log-every", "1", "--checkpoint-every", "1000", "--on-collapse", "stop"}));
  CAPTURE(f.out);
  CAPTURE(f.err);
  CHECK(f.code == 3);
  CHECK(contains(f.err, "biggan_train: stopped: step"));
  CHECK(contains(f.err, "no checkpoint is from before"));
  CHECK(fs::is_empty(run + "/checkpoints"));
  CHECK(log_of(run).back().contains("warning"));
}

TEST_CASE("biggan_train: a layer that suddenly grows is told, and --on-collapse rewind goes back to before the growth") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 8, 32), run = t / "run";
  REQUIRE(run_program("biggan_train", little(faces, run, {"--lr", "1e-4", "--steps", "580", "--log-every", "4", "--checkpoint-every", "60", "--keep", "0"})).code == 0);
  // Its first linear layer as it would have been, had it been steady at half of what it is now: a resumed run goes on from its log.
  std::vector<json> lines = log_of(run);
  // (An untrained D of this size answers anything at first, which the watch tells, too.)
  for (const json& j : lines) CHECK(!j.value("rule", "").starts_with("growth"));
  double now = 0;
  for (const json& j : lines) now = j.value("sv_g.linear", now);
  {
    std::ofstream log(run + "/log.jsonl");
    for (json& j : lines) {
      if (j.contains("sv_g.linear")) j["sv_g.linear"] = now / 2;
      log << j.dump() << '\n';
    }
  }
  const Finished f = run_program("biggan_train", {faces, "--no-cache", "--out", run, "--resume", "--steps", "600", "--on-collapse", "rewind"});
  CAPTURE(f.out);
  CAPTURE(f.err);
  CHECK(f.code == 0);
  CHECK(contains(f.out, "the largest singular value of G.linear grew"));
  CHECK(contains(f.out, "rewind: back to step 60 with other random numbers (1 of at most 3)"));  // 584 - 500 = 84
  bool told = false;
  for (const json& j : log_of(run))
    if (j.contains("rewinds")) {
      CHECK(j.at("rule") == "growth.linear");
      CHECK(j.at("since") == 84);
      CHECK(j.at("step") == 60);
      told = true;
    }
  CHECK(told);
  CHECK(fs::exists(run + "/checkpoints/000600.safetensors"));
  // The report has the layers' values, and the warning.
  const std::string page = file_text(run + "/report.html");
  CHECK(contains(page, "Singular values of the generator's layers"));
  CHECK(contains(page, "sv_g.linear"));
  CHECK(contains(page, "Went back to step 60"));
}
