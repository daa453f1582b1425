// Runs kiln's programs as a user would, and looks at what they print, return and leave behind.
#pragma once
#include <doctest/doctest.h>

#include <filesystem>
#include <string>
#include <vector>

namespace kiln::test {

/// A folder of its own, removed at the end.
class TempFolder {
 public:
  TempFolder();
  ~TempFolder();
  const std::filesystem::path& path() const { return path_; }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

struct Finished {
  int code = -1;      // exit code; 128 + signal where a signal ended it
  std::string out, err;
};

/// Runs a program of KILN_BIN_DIR, or of an absolute path, with arguments, in a folder. Extra environment as NAME=VALUE.
Finished run_program(const std::string& program, const std::vector<std::string>& arguments, const std::string& folder = ".",
                     const std::vector<std::string>& environment = {});
/// Starts it and returns its process number; output goes to `log`.
int start_program(const std::string& program, const std::vector<std::string>& arguments, const std::string& log,
                  const std::vector<std::string>& environment = {});
int wait_program(int process);  // exit code, as above

std::string file_text(const std::filesystem::path& p);

/// Draws `count` pictures of side `side`: a coloured disc with two dark eyes on white, no two alike. Returns the folder.
std::string draw_faces(const TempFolder& folder, int count, int side);

}  // namespace kiln::test
