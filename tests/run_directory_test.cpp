// The directory of a run: what it refuses, what it keeps, and its log.
#include "engine/run_directory.h"
#include "tests/support.h"

#include <doctest/doctest.h>

#include "engine/error.h"
#include "tests/picture_fixtures.h"

using namespace kiln;
using namespace kiln::test;
using fixtures::TempFolder;
namespace fs = std::filesystem;

namespace {

void touch(const fs::path& p, const std::string& text = "") { std::ofstream(p) << text; }

std::string text_of(const fs::path& p) {
  std::ifstream f(p);
  return {std::istreambuf_iterator<char>(f), {}};
}

}  // namespace

TEST_CASE("run directory: create makes the folders, and refuses one that holds a run") {
  TempFolder folder;
  const fs::path path = folder.path / "deep" / "run";
  RunDirectory run = RunDirectory::create(path);
  CHECK(run.path() == path);
  CHECK(fs::is_directory(path / "samples"));
  CHECK(fs::is_directory(path / "checkpoints"));
  CHECK(error_of([&] { RunDirectory::create(path); }).empty());  // nothing was trained in it yet
  touch(path / "notes.txt");
  CHECK(error_of([&] { RunDirectory::create(path); }).empty());

  SUBCASE("a configuration") { touch(path / "config.json", "{}"); }
  SUBCASE("a log") { run.log("{\"step\":1}"); }
  const std::string e = error_of([&] { RunDirectory::create(path); });
  CHECK(contains(e, path.string()));
  CHECK(contains(e, "holds another run"));
  CHECK(contains(e, "--resume"));
  CHECK(contains(e, "--out"));
}

TEST_CASE("run directory: a run that came to nothing is withdrawn, and what else lies there stays") {
  TempFolder folder;
  const fs::path path = folder.path / "run";
  RunDirectory run = RunDirectory::create(path);
  run.write_text("config.json", "{}");
  touch(path / "samples" / "real.png");
  run.withdraw();
  CHECK(!fs::exists(path));
  CHECK(fs::exists(folder.path));

  fs::create_directories(path);
  touch(path / "notes.txt");
  run = RunDirectory::create(path);
  run.write_text("config.json", "{}");
  touch(path / "checkpoints" / "mine.safetensors");
  run.withdraw();
  CHECK(fs::exists(path / "notes.txt"));
  CHECK(fs::exists(path / "checkpoints" / "mine.safetensors"));
  CHECK(!fs::exists(path / "samples"));
  CHECK(!fs::exists(path / "config.json"));
  CHECK(error_of([&] { RunDirectory::create(path); }).empty());
}

TEST_CASE("run directory: create refuses a file, open refuses a folder without a run") {
  TempFolder folder;
  touch(folder.path / "file");
  CHECK(contains(error_of([&] { RunDirectory::create(folder.path / "file"); }), "is not a folder"));
  CHECK(contains(error_of([&] { RunDirectory::create(folder.path / "file" / "run"); }),
                 (folder.path / "file" / "run").string()));
  const std::string e = error_of([&] { RunDirectory::open(folder.path); });
  CHECK(contains(e, folder.path.string()));
  CHECK(contains(e, "no run to resume"));
  touch(folder.path / "config.json", "{}");
  CHECK(error_of([&] { RunDirectory::open(folder.path); }).empty());
  CHECK(fs::is_directory(folder.path / "samples"));
}

TEST_CASE("run directory: names") {
  TempFolder folder;
  const RunDirectory run = RunDirectory::create(folder.path);
  CHECK(run.sample(400) == folder.path / "samples" / "000400.png");
  CHECK(run.sample(400, "_recon") == folder.path / "samples" / "000400_recon.png");
  CHECK(run.checkpoint(12345678) == folder.path / "checkpoints" / "12345678.safetensors");
  for (const char* name : {"000300.safetensors", "1000000.safetensors", "000020.safetensors", "best.safetensors",
                           "12x.safetensors", "000040.png", ".safetensors", "99999999999999999999.safetensors"})
    touch(folder.path / "checkpoints" / name);
  CHECK(run.checkpoints() == std::vector<int64_t>{20, 300, 1000000});
}

TEST_CASE("run directory: prune keeps the newest and the best") {
  TempFolder folder;
  const RunDirectory run = RunDirectory::create(folder.path);
  for (int64_t step : {100, 200, 300, 400, 500}) touch(run.checkpoint(step));
  touch(folder.path / "checkpoints" / "mine.safetensors");
  run.prune(0, 100);
  CHECK(run.checkpoints().size() == 5);
  run.prune(9, std::nullopt);
  CHECK(run.checkpoints().size() == 5);
  run.prune(3, 100);
  CHECK(run.checkpoints() == std::vector<int64_t>{100, 300, 400, 500});
  run.prune(3, 400);  // the best is among the newest
  CHECK(run.checkpoints() == std::vector<int64_t>{300, 400, 500});
  run.prune(1, std::nullopt);
  CHECK(run.checkpoints() == std::vector<int64_t>{500});
  CHECK(fs::exists(folder.path / "checkpoints" / "mine.safetensors"));
}

TEST_CASE("run directory: the log is appended to, and trimmed for a resumed run") {
  TempFolder folder;
  RunDirectory run = RunDirectory::create(folder.path);
  run.trim_log(5);  // there is none yet
  CHECK(!fs::exists(folder.path / "log.jsonl"));
  for (int step : {20, 40, 60, 80}) run.log("{\"step\":" + std::to_string(step) + ",\"loss\":1.5}");
  run.log("{\"note\":\"no step\"}");
  std::ofstream(folder.path / "log.jsonl", std::ios::app) << "{\"step\":10,\"lo";  // a kill cut it short
  run.trim_log(40);
  CHECK(text_of(folder.path / "log.jsonl") ==
        "{\"step\":20,\"loss\":1.5}\n{\"step\":40,\"loss\":1.5}\n{\"note\":\"no step\"}\n");
  run.log("{\"step\":60}");
  CHECK(text_of(folder.path / "log.jsonl").ends_with("\"no step\"}\n{\"step\":60}\n"));

  fs::remove(folder.path / "log.jsonl");
  fs::create_directory(folder.path / "log.jsonl");
  const std::string e = error_of([&] { run.log("{}"); });
  CHECK(contains(e, (folder.path / "log.jsonl").string()));
  CHECK(contains(e, "cannot write"));
}

TEST_CASE("run directory: small text files are replaced whole") {
  TempFolder folder;
  const RunDirectory run = RunDirectory::create(folder.path);
  run.write_text("config.json", "{\"a\": 1, \"long\": true}");
  CHECK(run.read_text("config.json") == "{\"a\": 1, \"long\": true}");
  run.write_text("config.json", "{}");
  CHECK(run.read_text("config.json") == "{}");
  CHECK(contains(error_of([&] { (void)run.read_text("none.json"); }), "none.json"));
}
