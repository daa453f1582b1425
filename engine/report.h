// report.html: what a run directory holds, as one page that needs neither a network nor a server.
//
// It is made of what is there, so it serves every model: log.jsonl (every numeric key but step, images and seconds is a
// curve; keys with one first word share a chart, and those that begin alike up to a dot; NAME_baseline is drawn as NAME's reference), the sheets in samples/
// (000400.png, 000400_recon.png: one slider a suffix; other names: references beside it), config.json ("commands" is shown
// as the command lines) and the log's lines with "warning". The page is engine/report.html, with the data inside as JSON.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

namespace kiln {

struct ReportOptions {
  int points = 800;                        ///< of a curve at most; longer ones are means of equal spans, with the range
  uint64_t picture_bytes = 6'000'000;      ///< of all sheets together, as they lie in the page
  int longest_side = 1280;                 ///< pixels of a sheet; larger ones are scaled down
  int sheets = 64;                         ///< of a suffix at most: every second, fourth, ... one, and the last
  float quality = 80;                      ///< of the WebP pictures, 0 to 100
};

class Report {
 public:
  explicit Report(std::filesystem::path run, ReportOptions options = {});
  /// The page. A sheet or a line of the log that cannot be read is left out, and the page says so. Throws kiln::Error if
  /// there is neither a log.jsonl nor a config.json. Sheets that were encoded for an earlier page of this object are kept.
  std::string html();
  /// Writes it to RUN/report.html, whole or not at all. Throws kiln::Error (no space, ...).
  void write();

 private:
  struct Sheet {
    std::string state;  // size and time of the file that it was made of
    std::string uri;    // data:image/webp;base64,...; empty for a file that is no sound picture
  };
  const std::string& sheet(const std::filesystem::path& file);

  std::filesystem::path run_;
  ReportOptions options_;
  std::map<std::string, Sheet> sheets_;  // by file name
};

}  // namespace kiln
