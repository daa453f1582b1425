// Collapse, provoked: each kind happens in a real run of fastgan_train, which tells it and acts as --on-collapse says.
#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/safetensors.h"
#include "tests/program.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::test;
namespace fs = std::filesystem;
using nlohmann::json;

namespace {

std::vector<std::string> tiny(const std::string& data, const std::string& out, std::vector<std::string> more) {
  std::vector<std::string> a{data, "--out", out, "--size", "32", "--ngf", "4", "--ndf", "4", "--batch", "4", "--no-cache", "--grid", "2",
                             "--log-every", "1", "--sample-every", "0", "--metric-every", "0"};
  a.insert(a.end(), more.begin(), more.end());
  return a;
}

std::vector<json> log_of(const std::string& run) {
  std::vector<json> lines;
  std::ifstream f(run + "/log.jsonl");
  for (std::string line; std::getline(f, line);) lines.push_back(json::parse(line));
  return lines;
}

/// The rules that were told, in order.
std::vector<std::string> rules(const std::string& run) {
  std::vector<std::string> out;
  for (const json& j : log_of(run))
    if (j.contains("warning")) out.push_back(j["rule"]);
  return out;
}

bool has(const std::vector<std::string>& rules, const std::string& rule) { return std::count(rules.begin(), rules.end(), rule) > 0; }

/// A checkpoint with some of its tensors filled with zeros: those whose names `choose` takes.
template <class F>
void with_zeros(const std::string& from, const std::string& to, F choose) {
  const SafetensorsFile file(from);
  std::vector<std::vector<char>> kept;
  std::vector<TensorEntry> entries;
  for (const TensorView& e : file.tensors()) {
    const char* bytes = reinterpret_cast<const char*>(e.data);
    kept.emplace_back(bytes, bytes + e.bytes);
    if (choose(e.name)) std::fill(kept.back().begin(), kept.back().end(), 0);
    entries.push_back({e.name, e.dtype, e.shape, kept.back().data(), e.bytes});
  }
  write_safetensors(to, entries, file.metadata());
}

}  // namespace

TEST_CASE("fastgan_train: --lr 1 makes the weights run away: told once, stopped with code 3, good checkpoints untouched") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 8, 32), run = t / "run";
  REQUIRE(run_program("fastgan_train", tiny(faces, run, {"--steps", "4", "--checkpoint-every", "2"})).code == 0);
  const std::string good = run + "/checkpoints/000004.safetensors", before = file_text(good);

  const Finished f = run_program("fastgan_train", tiny(faces, t / "stop", {"--resume", good, "--lr", "1", "--steps", "200", "--checkpoint-every", "1000", "--on-collapse", "stop"}));
  CAPTURE(f.out);
  CAPTURE(f.err);
  CHECK(f.code == 3);
  CHECK(std::count(f.err.begin(), f.err.end(), '\n') == 1);
  CHECK(contains(f.err, "stopped: step"));
  CHECK(contains(f.err, "no checkpoint is from before"));
  CHECK(contains(f.out, "warning: step"));
  const std::vector<std::string> told = rules(t / "stop");
  REQUIRE(!told.empty());
  CHECK((told[0].starts_with("sigma_") || told[0] == "not_finite"));
  CHECK(log_of(t / "stop").back().contains("warning"));
  CHECK(fs::is_empty(t / "stop/checkpoints"));
  CHECK(file_text(good) == before);
  CHECK(contains(file_text(t / "stop/report.html"), "run away"));

  // By default it only says so: once, and the run goes to its end, or to where nothing is finite any more.
  const Finished warned = run_program("fastgan_train", tiny(faces, t / "warn", {"--lr", "1", "--steps", "60"}));
  CAPTURE(warned.err);
  CHECK((warned.code == 0 || warned.code == 3));
  const std::vector<std::string> all = rules(t / "warn");
  CHECK((has(all, "sigma_g") || has(all, "sigma_d")));
  CHECK(std::count(all.begin(), all.end(), "sigma_d") <= 1);
  CHECK((warned.code == 3) == has(all, "not_finite"));
}

TEST_CASE("fastgan_train: --on-collapse rewind goes back to before the trouble, a bounded number of times, and is reproducible") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 8, 32);
  const auto go = [&](const std::string& out, std::vector<std::string> more) {
    std::vector<std::string> a = tiny(faces, out, {"--lr", "1", "--steps", "80", "--checkpoint-every", "1", "--keep", "0", "--on-collapse", "rewind", "--max-rewinds", "2"});
    a.insert(a.end(), more.begin(), more.end());
    return run_program("fastgan_train", a);
  };
  const Finished f = go(t / "a", {});
  CAPTURE(f.out);
  CAPTURE(f.err);
  CHECK(f.code == 3);  // the cause is still there: it gives up after two
  CHECK(contains(f.out, "(1 of at most 2)"));
  CHECK(contains(f.out, "(2 of at most 2)"));
  CHECK(contains(f.err, "the last checkpoint from before is"));
  const json config = json::parse(file_text(t / "a/config.json"));
  CHECK(config["rewinds"] == 2);
  CHECK(config["on_collapse"] == "rewind");
  int rewinds = 0;
  double step = 0;
  for (const json& j : log_of(t / "a")) {
    if (j.contains("rewinds")) rewinds = j["rewinds"];
    CHECK(j["step"].get<double>() >= step);  // the log tells one story
    step = j["step"];
  }
  CHECK(rewinds == 2);
  // The same command does the same again.
  go(t / "b", {});
  const auto timeless = [](const std::string& run) {
    std::vector<std::string> lines;
    for (json j : log_of(run)) {
      j.erase("seconds");
      j.erase("images_per_second");
      lines.push_back(j.dump());
    }
    return lines;
  };
  CHECK(timeless(t / "a") == timeless(t / "b"));
  // With no checkpoint from before, it stops.
  const Finished none = go(t / "c", {"--checkpoint-every", "1000"});
  CHECK(none.code == 3);
  CHECK(contains(none.err, "no checkpoint is from before"));
}

TEST_CASE("fastgan_train: a generator that makes one picture, and a discriminator that answers one number, are told") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 8, 32), run = t / "run";
  REQUIRE(run_program("fastgan_train", tiny(faces, run, {"--steps", "2"})).code == 0);
  const std::string start = run + "/checkpoints/000002.safetensors";

  // Zeros behind its first batch norm: the latent does not get through.
  const auto is = [](const std::string& name, const std::string& end) { return name.ends_with(end); };
  with_zeros(start, t / "one_picture.safetensors", [&](const std::string& n) {
    return (n.starts_with("G.") || n.starts_with("ema.")) && (n.find("init.bn.") != std::string::npos && (is(n, "weight") || is(n, "bias")));
  });
  const Finished one = run_program("fastgan_train", tiny(faces, t / "one", {"--resume", t / "one_picture.safetensors", "--lr", "2e-9", "--steps", "12", "--metric-every", "2"}));
  CAPTURE(one.err);
  REQUIRE(one.code == 0);
  CHECK(has(rules(t / "one"), "diversity"));
  CHECK(contains(one.out, "nearly the same"));

  // Zeros behind the last batch norm of both paths: every picture gets the same answer. (At 32 px the small path has none.)
  REQUIRE(run_program("fastgan_train", tiny(faces, t / "run64", {"--size", "64", "--steps", "2"})).code == 0);
  with_zeros(t / "run64/checkpoints/000002.safetensors", t / "one_answer.safetensors", [&](const std::string& n) {
    return n.starts_with("D.") && (n.find("rf_big.bn1.") != std::string::npos || n.find("down_small.down") != std::string::npos) &&
           n.find(".bn") != std::string::npos && (is(n, "weight") || is(n, "bias"));
  });
  const Finished dead = run_program("fastgan_train", tiny(faces, t / "dead", {"--resume", t / "one_answer.safetensors", "--size", "64", "--lr", "2e-9", "--steps", "14", "--on-collapse", "stop"}));
  CAPTURE(dead.out);
  CHECK(dead.code == 3);
  CHECK(has(rules(t / "dead"), "dead"));
  CHECK(contains(dead.err, "the discriminator is dead"));
}
