// The progress line: rewritten in place on a terminal, plain lines now and then elsewhere.
#pragma once
#include <chrono>
#include <string>

namespace kiln {

/// Seconds since construction.
class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

std::string duration_text(double seconds);  // "1h02m", "3m20s", "12s"

class ProgressLine {
 public:
  /// Without `speaks`, nothing is ever printed.
  explicit ProgressLine(bool speaks = true);
  /// Shows the line on a terminal; elsewhere prints it if `important` or if ten seconds have passed since the last.
  void show(const std::string& line, bool important = false);
  /// A line that stays: a message between progress lines.
  void print(const std::string& line);
  ~ProgressLine();

 private:
  bool speaks_, terminal_, open_ = false;
  size_t width_ = 0;
  Stopwatch since_start_;
  double last_ = -1e9;
};

/// From SIGINT, SIGTERM or SIGUSR1, which mpirun hands on to its processes: true once one has come. The first asks the program to
/// finish its step and save; a second ends it at once. Installed by watch_interrupts(), which also turns the signal of a file size limit into an error of the write.
bool interrupted();
void watch_interrupts();

}  // namespace kiln
