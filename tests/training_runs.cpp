#include "tests/training_runs.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support.h"

namespace kiln::test {

std::vector<std::string> with_device(std::vector<std::string> arguments) {
  arguments.insert(arguments.end(), {"--device", name_of(test_device())});
  if (test_device() == Device::gpu) arguments.insert(arguments.end(), {"--deterministic", "--precision", "f32"});
  return arguments;
}

std::vector<std::string> tiny(const std::string& data, const std::string& out, std::vector<std::string> more) {
  std::vector<std::string> a{data, "--out", out, "--size", "32", "--ngf", "4", "--ndf", "4", "--batch", "4", "--no-cache",
                             "--grid", "2", "--log-every", "2", "--sample-every", "5", "--metric-every", "5"};
  a = with_device(a);
  a.insert(a.end(), more.begin(), more.end());
  return a;
}

void refuses(const std::vector<std::string>& arguments, const std::vector<std::string>& words) {
  const Finished f = run_program("fastgan_train", arguments);
  CAPTURE(f.err);
  CHECK(f.code == 2);
  CHECK(std::count(f.err.begin(), f.err.end(), '\n') == 1);
  for (const std::string& w : words) {
    CAPTURE(w);
    CHECK(f.err.find(w) != std::string::npos);
  }
}

std::vector<std::string> timeless_log(const std::string& run) {
  std::vector<std::string> lines;
  std::ifstream f(run + "/log.jsonl");
  for (std::string line; std::getline(f, line);) {
    nlohmann::json j = nlohmann::json::parse(line);
    j.erase("seconds");
    j.erase("images_per_second");
    j.erase("memory_mb");
    lines.push_back(j.dump());
  }
  return lines;
}

int megabytes_in_all(const Finished& f) { return int(reported_megabytes(f, " MB in all")); }

double reported_megabytes(const Finished& f, const std::string& before) {
  const size_t end = f.out.rfind(before);
  REQUIRE(end != std::string::npos);
  const size_t begin = f.out.rfind(' ', end - 1);
  return std::stod(f.out.substr(begin + 1, end - begin - 1));
}

double planned_megabytes(const std::string& text, const std::string& after) {
  const size_t at = text.find(after, text.find("memory:"));
  REQUIRE(at != std::string::npos);
  std::istringstream s(text.substr(at + after.size()));
  double value = 0;
  std::string unit;
  s >> value >> unit;
  return unit == "GiB" ? value * 1024 : unit == "MiB" ? value : unit == "KiB" ? value / 1024 : value / 1048576;
}

}  // namespace kiln::test
