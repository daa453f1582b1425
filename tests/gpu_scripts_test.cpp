// The scripts that judge the GPU's code and machines: what they accept, what they refuse, and what they say without a GPU.
#include <doctest/doctest.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "tests/program.h"

using namespace kiln::test;
namespace fs = std::filesystem;

namespace {

bool have_python() { return std::system("python3 -c '' >/dev/null 2>&1") == 0; }

/// Runs a script of this repository with a shell. Its output, both streams; the exit code in `code`.
std::string script(const std::string& command, const TempFolder& folder, int* code) {
  const int status = std::system(("cd " KILN_SOURCE_DIR " && " + command + " >" + (folder / "said") + " 2>&1").c_str());
  *code = WEXITSTATUS(status);
  return file_text(folder / "said");
}

void plant_report(const TempFolder& folder, const std::string& file, const std::string& stack) {
  const fs::path path = folder.path() / "kernels/gpu/objects" / (file + ".cu.o.ptxas");
  fs::create_directories(path.parent_path());
  std::ofstream(path) << "ptxas info    : 0 bytes gmem\n"
                         "ptxas info    : Compiling entry function '_ZN4kiln3gpu6kernelEv' for 'sm_75'\n"
                         "ptxas info    : Function properties for _ZN4kiln3gpu6kernelEv\n    "
                      << stack << "\nptxas info    : Used 18 registers, used 0 barriers, 384 bytes cmem[0]\n";
}

}  // namespace

TEST_CASE("gpu scripts: ptxas_check accepts kernels in registers and refuses spills, stacks and missing reports") {
  if (!have_python()) {
    MESSAGE("no python3: not checked");
    return;
  }
  const TempFolder t;
  int code = 0;
  const std::string check = "python3 scripts/ptxas_check.py " + t.path().string() + " good other";
  script(check, t, &code);
  CHECK(code == 2);  // nothing there
  plant_report(t, "good", "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads");
  CHECK(script(check, t, &code).find("no report of other") != std::string::npos);
  CHECK(code == 2);
  plant_report(t, "other", "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads");
  CHECK(script(check, t, &code).find("2 kernels for sm_75: 0 that spill") != std::string::npos);
  CHECK(code == 0);
  for (const char* bad : {"8 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads", "0 bytes stack frame, 4 bytes spill stores, 0 bytes spill loads",
                          "0 bytes stack frame, 0 bytes spill stores, 4 bytes spill loads", "no such line"}) {
    CAPTURE(bad);
    plant_report(t, "other", bad);
    CHECK(script(check, t, &code).find("other.cu, sm_75: kiln::gpu::kernel()") != std::string::npos);
    CHECK(code == 1);
  }
}

TEST_CASE("gpu scripts: ptxas_log keeps the report beside the object, the rest for the reader, and the exit code") {
  const TempFolder t;
  std::ofstream(t / "compiler") << "#!/bin/sh\necho 'ptxas info    : Used 18 registers' >&2\n"
                                   "echo '    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads' >&2\necho 'a warning' >&2\nexit 3\n";
  int code = 0;
  const std::string said = script("scripts/ptxas_log.sh sh " + (t / "compiler") + " -c a.cu -o " + (t / "a.o"), t, &code);
  CHECK(code == 3);
  CHECK(said == "a warning\n");
  const std::string kept = file_text(t / "a.o.ptxas");
  CHECK(kept.find("Used 18 registers\n    0 bytes stack frame") != std::string::npos);
}

TEST_CASE("gpu scripts: gpu_check says what it could not do, keeps every step, and merges reports") {
  if (!have_python()) {
    MESSAGE("no python3: not checked");
    return;
  }
  const TempFolder t;
  int code = 0;
  // No packages in the folder: there is no build, and every part says so.
  fs::create_directories(t.path() / "empty");
  script("python3 scripts/gpu_check.py --out " + (t / "a") + " --deps " + (t / "empty") + " --part tests --part kernels", t, &code);
  CHECK(code == 1);
  const auto report = nlohmann::json::parse(file_text(t / "a/report.json"));
  REQUIRE(report["steps"].size() == 3);
  CHECK(report["steps"][0]["state"] == "failed");
  CHECK(report["steps"][0]["words"].get<std::string>().find("make gpu-deps") != std::string::npos);
  CHECK(report["steps"][2]["state"] == "skipped");
  CHECK(file_text(t / "a/report.md").find("| kernels | all | skipped |") != std::string::npos);
  script("python3 scripts/gpu_check.py --out " + (t / "b") + " --merge " + (t / "a/report.json") + " " + (t / "a/report.json"), t, &code);
  CHECK(code == 0);
  CHECK(nlohmann::json::parse(file_text(t / "b/report.json"))["steps"].size() == 6);
  for (const auto& target : report["targets"]) CHECK(target["met"].is_null());
  CHECK(report["targets"].size() == 12);
  CHECK(script("python3 scripts/gpu_check.py --out " + (t / "c") + " --part everything", t, &code).find("invalid choice") != std::string::npos);
  CHECK(code == 2);
}

TEST_CASE("gpu scripts: gpu_check runs ctest's tests one by one: one that fails, hangs or is skipped loses no other") {
  if (!have_python()) {
    MESSAGE("no python3: not checked");
    return;
  }
  const TempFolder t;
  fs::create_directories(t.path() / "bin");
  std::ofstream(t / "bin/ctest") << "#!/bin/sh\n"
                                    "case \"$*\" in\n"
                                    "*--show-only*) echo '{\"tests\": [{\"name\": \"good\"}, {\"name\": \"bad\"}, {\"name\": \"slow\"}, {\"name\": \"gpu\"}, {\"name\": \"last\"}]}' ;;\n"
                                    "*^bad*) echo 'a.cpp:7: ERROR: CHECK( 1 == 2 ) is NOT correct!'; echo '0% tests passed'; exit 8 ;;\n"
                                    "*^slow*) sleep 20 ;;\n"
                                    "*^gpu*) echo 'skipped: no GPU here'; echo '1/1 Test #9: gpu ..***Skipped'; ;;\n"
                                    "*) echo '100% tests passed' ;;\n"
                                    "esac\n";
  fs::permissions(t.path() / "bin/ctest", fs::perms::owner_all);
  const auto run = [&](const std::string& call, const std::string& out) {
    int code = 0;
    const std::string said = script("PATH=" + (t / "bin") + ":$PATH python3 -c \"import os, pathlib, sys; sys.path.insert(0, 'scripts'); import gpu_check; "
                                    "c = gpu_check.Check.__new__(gpu_check.Check); c.env = dict(os.environ); c.gpu, c.no_gpu, c.TEST_LIMIT = '', 'none', 1; "
                                    "c.report = gpu_check.Report(pathlib.Path('" + (t / out) + "')); " + call + "\"", t, &code);
    CAPTURE(said);
    REQUIRE(code == 0);
    std::map<std::string, std::pair<std::string, std::string>> steps;
    const auto report = nlohmann::json::parse(file_text(t / (out + "/report.json")));
    for (const auto& s : report["steps"]) steps[s["name"]] = {s["state"], s["words"]};
    return steps;
  };
  auto all = run("c.tests()", "all");
  CHECK(all.size() == 6);
  CHECK(all["good"].first == "ok");
  CHECK(all["last"].first == "ok");
  CHECK(all["bad"].first == "failed");
  CHECK(all["bad"].second == "exit code 8: a.cpp:7: ERROR: CHECK( 1 == 2 ) is NOT correct!");
  CHECK(all["slow"].first == "failed");
  CHECK(all["slow"].second.starts_with("not done after 1 s"));
  CHECK(all["gpu"].first == "skipped");
  CHECK(all["gpu"].second == "no GPU here");
  auto one = run("c.tests('last')", "one");
  CHECK(one.size() == 2);
  CHECK(one["last"].first == "ok");
  auto none = run("c.tests('mistyped')", "none");
  CHECK(none["ctest"].second == "no test mistyped; there are good, bad, slow, gpu, last");
}

TEST_CASE("gpu scripts: a report's targets are judged by what it measured") {
  if (!have_python()) {
    MESSAGE("no python3: not checked");
    return;
  }
  using nlohmann::json;
  const TempFolder t;
  const auto iteration = [](const char* name, double seconds, double peak) {
    return json{{"part", "fastgan-1024"},
                {"name", name},
                {"state", "ok"},
                {"words", ""},
                {"seconds", 1.0},
                {"data",
                 {{"seconds", seconds},
                  {"peak_mb", peak},
                  {"reserved_mb", peak},
                  {"images_per_second", 8 / seconds},
                  {"beside", "kiln bf16"}}}};
  };
  const auto step = [](const char* part, const char* name, const json& data) {
    return json{{"part", part}, {"name", name}, {"state", "ok"}, {"words", ""}, {"seconds", 1.0}, {"data", data}};
  };
  const auto kernel = [](const char* name, double share, double bytes) {
    return json{{"kernel", name},
                {"shape", "8x512x512x64"},
                {"dtype", "bf16"},
                {"correct", true},
                {"ms", 1.0},
                {"gbps", 1000.0},
                {"bytes", bytes},
                {"share_of_limit", share},
                {"unfused_ms", nullptr},
                {"device", "a card"},
                {"copy_gbps", 2000.0},
                {"matrix_tflops", 500.0},
                {"size", 1024}};
  };
  const json counted{{"size", 1024},     {"launches", 1500},       {"flops", 1e12},
                     {"bytes_16", 20e9}, {"least_bytes_16", 16e9}, {"peak_bytes_16", 2e9}};
  json whole{{"machine", {{"gpu", "a card"}}}, {"steps", json::array()}};
  whole["steps"] = {
      step("kernels", "bench_kernels",
           {kernel("norm_forward_glu", 0.9, 1e9), kernel("gate_forward", 0.7, 1e9), kernel("hinge_loss", 0.01, 1e3)}),
      step("fastgan-1024", "counted", counted),
      iteration("kiln f32", 0.05, 3000),
      iteration("kiln bf16", 0.015, 2000),
      step("fastgan-1024", "GPU busy", {{"busy_share", 0.97}}),
      iteration("PyTorch eager f32 as published", 0.09, 9000),
      iteration("PyTorch eager bf16 channels last", 0.02, 3500)};
  // A step that failed is no measurement.
  json failed = iteration("kiln bf16 autotuned", 0.0001, 1);
  failed["state"] = "failed";
  whole["steps"].push_back(failed);
  std::ofstream(t / "one.json") << whole;
  int code = 0;
  script("python3 scripts/gpu_check.py --out " + (t / "out") + " --merge " + (t / "one.json"), t, &code);
  REQUIRE(code == 0);
  const json report = json::parse(file_text(t / "out/report.json"));
  std::map<std::string, std::pair<std::string, bool>> judged;
  for (const json& target : report["targets"])
    if (!target["met"].is_null())
      judged[target["target"].get<std::string>()] = {target["measured"].get<std::string>(), target["met"].get<bool>()};
  using Judged = std::pair<std::string, bool>;
  CHECK(judged.size() == 6);
  CHECK(judged["1024 px: kiln's best over the counted floor at this card's limits"] ==
        Judged("1.50", true));  // 8 ms + 2 ms
  CHECK(judged["1024 px: PyTorch's best over kiln's best"] == Judged("1.33", false));
  CHECK(judged["1024 px: kiln's smallest peak over PyTorch's smallest"] == Judged("0.57", false));
  CHECK(judged["1024 px, batch 8: kiln's smallest peak, GB"] == Judged("2.10", true));
  CHECK(
      judged
          ["1024 px: the slowest pointwise or reduction kernel (gate_forward 8x512x512x64 bf16) over the copy rate"] ==
      Judged("0.70", false));
  CHECK(judged["1024 px: the GPU's idle share of a step"] == Judged("0.030", true));
  const std::string page = file_text(t / "out/report.md");
  CHECK(page.find("| 1024 px: PyTorch's best over kiln's best | at least 1.5 | 1.33 | NO |") != std::string::npos);
  CHECK(page.find("| 256 px: PyTorch's best over kiln's best | at least 2 | not measured | - |") != std::string::npos);
  CHECK(page.find("| fastgan-1024 | kiln bf16 | 15.00 | 533 | 2000 | 2000 | 1.00 | kiln bf16 |") != std::string::npos);
}

TEST_CASE(
    "gpu scripts: the share of time in which a GPU computes is the union of its operations, without the warm-up") {
  if (!have_python()) {
    MESSAGE("no python3: not checked");
    return;
  }
  const TempFolder t;
  std::ofstream(t / "trace.csv") << "Processing [trace.sqlite] ...\n\nStart (ns),Duration (ns),Name\n0,10,warm "
                                    "up\n5000,10,warm up\n6000,10,warm up\n"
                                    "10000,40,a\n10020,30,inside of a and behind\n10090,10,b\n";
  int code = 0;
  const auto share = [&](const std::string& file) {
    return script(
        "python3 -c \"import sys; sys.path.insert(0, 'scripts'); import gpu_targets; "
        "print(gpu_targets.busy_share(open('" +
            file + "').read()))\"",
        t, &code);
  };
  CHECK(share(t / "trace.csv") == "0.6\n");
  CHECK(code == 0);
  std::ofstream(t / "none.csv") << "SKIPPED: trace.sqlite does not contain GPU trace data.\n";
  CHECK(share(t / "none.csv").find("no trace of a GPU") != std::string::npos);
  CHECK(code == 1);
}
