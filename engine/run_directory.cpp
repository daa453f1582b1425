#include "engine/run_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "engine/error.h"
#include "engine/file.h"

namespace kiln {
namespace fs = std::filesystem;
namespace {

void make_folder(const fs::path& p) {
  std::error_code e;
  fs::create_directories(p, e);
  if (e) fail("{}: cannot make the folder: {}; name another with --out", p.string(), e.message());
}

std::string number(int64_t step) { return fmt::format("{:06}", step); }

}  // namespace

RunDirectory RunDirectory::create(const fs::path& path) {
  std::error_code e;
  if (fs::exists(path / "config.json", e) || fs::exists(path / "log.jsonl", e))
    fail("{}: holds another run; go on with it by --resume, or name another folder with --out", path.string());
  if (fs::exists(path, e) && !fs::is_directory(path, e)) fail("{}: is not a folder; name another with --out", path.string());
  RunDirectory d(path);
  for (const fs::path& folder : {path, path / "samples", path / "checkpoints"}) {
    if (!fs::exists(folder, e)) d.made_.push_back(folder);
    make_folder(folder);
  }
  return d;
}

void RunDirectory::withdraw() const {
  std::error_code e;  // what cannot be removed stays
  fs::remove(path_ / "config.json", e);
  fs::remove(path_ / "samples" / "real.png", e);
  for (auto folder = made_.rbegin(); folder != made_.rend(); ++folder) fs::remove(*folder, e);  // only if it is empty
}

RunDirectory RunDirectory::open(const fs::path& path) {
  std::error_code e;
  if (!fs::exists(path / "config.json", e)) fail("{}: there is no run to resume here; start one without --resume", path.string());
  make_folder(path / "samples");
  make_folder(path / "checkpoints");
  return RunDirectory(path);
}

void RunDirectory::claim() {
  // A lock on the folder itself leaves no file behind and ends with the process. Where a file system has no locks, the run
  // goes on without.
  const int fd = ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0) {
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      ::close(fd);
      fail("{}: another process is training in this run; wait for it, or name another folder with --out", path_.string());
    }
    lock_ = std::shared_ptr<void>(nullptr, [fd](void*) { ::close(fd); });
  }
  for (const fs::path& folder : {path_, path_ / "samples", path_ / "checkpoints"}) remove_leftovers(folder, 0);
}

fs::path RunDirectory::sample(int64_t step, const std::string& suffix) const {
  return path_ / "samples" / (number(step) + suffix + ".png");
}
fs::path RunDirectory::checkpoint(int64_t step) const { return path_ / "checkpoints" / (number(step) + ".safetensors"); }

std::vector<int64_t> RunDirectory::checkpoints() const {
  std::vector<int64_t> steps;
  std::error_code e;
  for (const auto& entry : fs::directory_iterator(path_ / "checkpoints", e)) {
    const std::string stem = entry.path().stem().string();
    if (entry.path().extension() != ".safetensors" || stem.empty() || stem.size() > 15) continue;
    if (!std::all_of(stem.begin(), stem.end(), [](char c) { return c >= '0' && c <= '9'; })) continue;
    steps.push_back(std::stoll(stem));
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

void RunDirectory::prune(int keep, std::optional<int64_t> best) const {
  if (keep <= 0) return;
  const std::vector<int64_t> steps = checkpoints();
  for (size_t i = 0; i + size_t(keep) < steps.size(); i++) {
    if (best && steps[i] == *best) continue;
    std::error_code e;
    fs::remove(checkpoint(steps[i]), e);  // one too many does no harm
  }
}

void RunDirectory::log(const std::string& json_object) {
  append_text(path_ / "log.jsonl", json_object + '\n');
}

void RunDirectory::trim_log(int64_t step) {
  std::ifstream f(path_ / "log.jsonl");
  if (!f) return;
  std::string line, kept;
  while (std::getline(f, line)) {
    const auto j = nlohmann::json::parse(line, nullptr, false);
    if (j.is_discarded()) continue;  // the line that a kill cut short
    if (j.contains("step") && j["step"].is_number() && j["step"].get<int64_t>() > step) continue;
    if (j.contains("at_stop")) continue;  // measured because the run stopped there: an unbroken one would not have
    kept += line + '\n';
  }
  f.close();
  write_text("log.jsonl", kept);
}

void RunDirectory::write_text(const std::string& name, const std::string& text) const {
  AtomicFile f(path_ / name, text.size());
  f.write(text.data(), text.size());
  f.commit();
}

std::string RunDirectory::read_text(const std::string& name) const {
  const std::vector<uint8_t> bytes = read_file(path_ / name, 1 << 26);
  return {bytes.begin(), bytes.end()};
}

}  // namespace kiln
