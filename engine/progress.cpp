#include "engine/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>

namespace kiln {
namespace {
volatile std::sig_atomic_t interrupt_count = 0;
extern "C" void on_interrupt(int signal) {
  interrupt_count = interrupt_count + 1;
  if (interrupt_count > 1) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
}
}  // namespace

bool interrupted() { return interrupt_count > 0; }

void watch_interrupts() {
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGUSR1, &action, nullptr);
  std::signal(SIGXFSZ, SIG_IGN);  // a file size limit is then an error of the write, with a message
}

std::string duration_text(double seconds) {
  const int64_t s = seconds < 0 ? 0 : int64_t(seconds + 0.5);
  if (s >= 3600) return fmt::format("{}h{:02}m", s / 3600, s % 3600 / 60);
  if (s >= 60) return fmt::format("{}m{:02}s", s / 60, s % 60);
  return fmt::format("{}s", s);
}

ProgressLine::ProgressLine(bool speaks) : speaks_(speaks), terminal_(isatty(STDOUT_FILENO) != 0) {}

ProgressLine::~ProgressLine() {
  if (open_) std::fputc('\n', stdout);
}

void ProgressLine::show(const std::string& line, bool important) {
  if (!speaks_) return;
  if (terminal_) {
    const size_t pad = width_ > line.size() ? width_ - line.size() : 0;
    std::fprintf(stdout, "\r%s%*s", line.c_str(), int(pad), "");
    width_ = line.size();
    open_ = true;
  } else {
    if (!important && since_start_.seconds() - last_ < 10) return;
    std::fprintf(stdout, "%s\n", line.c_str());
    last_ = since_start_.seconds();
  }
  std::fflush(stdout);
}

void ProgressLine::print(const std::string& line) {
  if (!speaks_) return;
  if (open_) std::fputc('\n', stdout);
  open_ = false;
  width_ = 0;
  std::fprintf(stdout, "%s\n", line.c_str());
  std::fflush(stdout);
}

}  // namespace kiln
