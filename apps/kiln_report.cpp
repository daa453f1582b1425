// kiln_report RUN: writes RUN/report.html anew, for a run that has ended or that another program made.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "engine/error.h"
#include "engine/report.h"

int main(int argc, char** argv) {
  CLI::App app{"Writes RUN/report.html: the curves, samples, warnings and configuration of a run directory as one page.", "kiln_report"};
  std::vector<std::string> runs;
  kiln::ReportOptions options;
  double megabytes = double(options.picture_bytes) / 1e6;
  app.add_option("RUN", runs, "run directories")->required();
  app.add_option("--points", options.points, "points of a curve at most")->check(CLI::Range(2, 1000000))->capture_default_str();
  app.add_option("--picture-mb", megabytes, "megabytes of all pictures in the page")->check(CLI::Range(0.1, 1000.0))->capture_default_str();
  app.add_option("--longest-side", options.longest_side, "pixels of a sheet; larger ones are scaled down")->check(CLI::Range(16, 16000))->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    std::fputs(app.help().c_str(), stdout);
    return 0;
  } catch (const CLI::Error& e) {
    fmt::print(stderr, "kiln_report: {}; see --help\n", e.what());
    return 2;
  }
  options.picture_bytes = uint64_t(megabytes * 1e6);
  try {
    for (const std::string& run : runs) {
      kiln::Report(run, options).write();
      fmt::print("{}\n", (std::filesystem::path(run) / "report.html").string());
    }
    return 0;
  } catch (const std::exception& e) {
    fmt::print(stderr, "kiln_report: {}\n", e.what());
    return 2;
  }
}
