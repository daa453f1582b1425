// The scripts that judge the GPU's code and machines: what they accept, what they refuse, and what they say without a GPU.
#include <doctest/doctest.h>

#include <cstdlib>
#include <fstream>
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
  CHECK(script("python3 scripts/gpu_check.py --out " + (t / "c") + " --part everything", t, &code).find("invalid choice") != std::string::npos);
  CHECK(code == 2);
}
