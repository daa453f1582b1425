#include "tests/program.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "engine/picture.h"
#include "tests/support.h"

namespace kiln::test {
namespace fs = std::filesystem;

TempFolder::TempFolder() {
  std::string name = (fs::temp_directory_path() / "kiln-test-XXXXXX").string();
  REQUIRE(mkdtemp(name.data()) != nullptr);
  path_ = name;
}

TempFolder::~TempFolder() {
  std::error_code e;
  fs::remove_all(path_, e);
}

std::string file_text(const fs::path& p) {
  std::ifstream f(p, std::ios::binary);
  std::stringstream s;
  s << f.rdbuf();
  return s.str();
}

static int spawn(const std::string& program, const std::vector<std::string>& arguments, const std::string& folder,
                 const std::vector<std::string>& environment, const std::string& out, const std::string& err) {
  const std::string path = program.starts_with('/') ? program : std::string(KILN_BIN_DIR) + "/" + program;
  REQUIRE(fs::exists(path));
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    if (chdir(folder.c_str()) != 0) _exit(126);
    const int o = open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), e = open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(o, STDOUT_FILENO);
    dup2(e, STDERR_FILENO);
    for (const std::string& v : environment) putenv(const_cast<char*>(v.c_str()));
    std::vector<char*> argv{const_cast<char*>(path.c_str())};
    for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
    argv.push_back(nullptr);
    execv(path.c_str(), argv.data());
    _exit(127);
  }
  return child;
}

int wait_program(int process) {
  int status = 0;
  REQUIRE(waitpid(process, &status, 0) == process);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

Finished run_program(const std::string& program, const std::vector<std::string>& arguments, const std::string& folder,
                     const std::vector<std::string>& environment) {
  const TempFolder t;
  Finished f;
  f.code = wait_program(spawn(program, arguments, folder, environment, t / "out", t / "err"));
  f.out = file_text(t / "out");
  f.err = file_text(t / "err");
  return f;
}

int start_program(const std::string& program, const std::vector<std::string>& arguments, const std::string& log,
                  const std::vector<std::string>& environment) {
  return spawn(program, arguments, ".", environment, log, log + ".err");
}

std::string draw_faces(const TempFolder& folder, int count, int side) {
  const fs::path to = folder.path() / "faces";
  fs::create_directories(to);
  for (int k = 0; k < count; k++) {
    const auto u = [&](int i) { return double(hash_uniform("face", uint64_t(k * 16 + i))); };
    const double cx = side * (0.42 + 0.16 * u(0)), cy = side * (0.42 + 0.16 * u(1)), r = side * (0.28 + 0.1 * u(2));
    const double colour[3] = {200 + 55 * u(3), 140 + 80 * u(4), 20 + 120 * u(5)};
    Picture p{side, side, std::vector<uint8_t>(size_t(side) * size_t(side) * 3, 255)};
    for (int y = 0; y < side; y++)
      for (int x = 0; x < side; x++) {
        const double dx = x + 0.5 - cx, dy = y + 0.5 - cy;
        if (dx * dx + dy * dy > r * r) continue;
        const double ex = std::abs(dx) - 0.4 * r, ey = dy + 0.2 * r;
        const bool eye = ex * ex + ey * ey < 0.04 * r * r;
        for (int c = 0; c < 3; c++) p.rgb[size_t((y * side + x) * 3 + c)] = eye ? uint8_t(30) : uint8_t(colour[c]);
      }
    write_png(to / ("face" + std::to_string(100 + k) + ".png"), p);
  }
  return to.string();
}

}  // namespace kiln::test
