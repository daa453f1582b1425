// ./fastgan_train under kill -9, on a full disk and with a file size limit: what was saved stays whole, and the run goes on
// to the very bytes of an unbroken one.
#include <poll.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

#include <climits>
#include <csignal>
#include <fstream>
#include <random>
#include <thread>

#include "engine/run_directory.h"
#include "engine/safetensors.h"
#include "tests/training_runs.h"

using namespace kiln;
using namespace kiln::test;
namespace fs = std::filesystem;

namespace {

/// As small as FastGAN gets, and something is written at every step.
std::vector<std::string> smallest(const std::string& data, const std::string& out, std::vector<std::string> more = {}) {
  std::vector<std::string> a{data, "--out", out, "--size", "32", "--ngf", "2", "--ndf", "2", "--nz", "8", "--batch", "2", "--no-cache",
                             "--grid", "1", "--log-every", "1", "--sample-every", "3", "--metric-every", "2", "--checkpoint-every", "1",
                             "--keep", "2"};
  a.insert(a.end(), more.begin(), more.end());
  return a;
}

/// All files below a folder with their bytes; of the log, what does not depend on the clock; config.json left out.
std::vector<std::string> contents(const std::string& run) {
  std::vector<std::string> all = timeless_log(run);
  std::vector<fs::path> files;
  for (const auto& e : fs::recursive_directory_iterator(run))
    if (e.is_regular_file()) files.push_back(e.path());
  std::sort(files.begin(), files.end());
  for (const fs::path& p : files) {
    const std::string name = p.lexically_relative(run).string();
    // Those three name commands, times and the run's folder.
    if (name != "log.jsonl" && name != "config.json" && name != "report.html") all.push_back(name + ": " + file_text(p));
  }
  return all;
}

/// Checks all checkpoints of a run, every byte of them. Returns the newest one's step, -1 if there is none.
int64_t newest_whole_checkpoint(const std::string& run) {
  int64_t newest = -1;
  if (!fs::exists(run + "/config.json")) return newest;
  const RunDirectory directory = RunDirectory::open(run);
  for (const int64_t step : directory.checkpoints()) {
    CHECK_NOTHROW(SafetensorsFile(directory.checkpoint(step)));
    newest = step;
  }
  return newest;
}

int64_t newest_step(const std::string& run) {
  if (!fs::exists(run + "/config.json")) return -1;
  const std::vector<int64_t> steps = RunDirectory::open(run).checkpoints();
  return steps.empty() ? -1 : steps.back();
}

size_t hidden_files(const std::string& folder) {
  size_t n = 0;
  for (const auto& e : fs::recursive_directory_iterator(folder)) n += e.path().filename().string().starts_with('.');
  return n;
}

/// A file system of a few megabytes in memory, where one may be mounted.
class SmallDisk {
 public:
  SmallDisk(const std::string& folder, const char* size) : path_(folder) {
    fs::create_directories(folder);
    mounted_ = mount("tmpfs", folder.c_str(), "tmpfs", 0, (std::string("size=") + size).c_str()) == 0;
    if (!mounted_) MESSAGE("no file system may be mounted here: only the file size limit is tested");
  }
  ~SmallDisk() {
    if (mounted_) umount2(path_.c_str(), MNT_DETACH);
  }
  bool mounted() const { return mounted_; }
  /// Fills what is free to the last byte.
  void fill() const {
    std::ofstream f(path_ + "/filler", std::ios::binary | std::ios::app);
    const std::string block(4096, 'x');
    while (f.write(block.data(), 4096) && f.flush()) {
    }
  }
  void free() const { fs::remove(path_ + "/filler"); }

 private:
  std::string path_;
  bool mounted_ = false;
};

/// A limit on the size of files for the programs that are started in its scope.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() { setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

/// Waits until so many things have happened to files in a folder: made, opened, written to, renamed.
void await_changes(const std::string& folder, int changes) {
  const int queue = inotify_init1(IN_CLOEXEC);
  REQUIRE(queue >= 0);
  REQUIRE(inotify_add_watch(queue, folder.c_str(), IN_CREATE | IN_OPEN | IN_MODIFY | IN_MOVED_FROM | IN_MOVED_TO) >= 0);
  alignas(inotify_event) char buffer[sizeof(inotify_event) + NAME_MAX + 1];  // takes one event at least, three at most
  while (changes > 0) {
    pollfd waiting{queue, POLLIN, 0};
    REQUIRE(poll(&waiting, 1, 30'000) == 1);
    const ssize_t got = read(queue, buffer, sizeof buffer);
    REQUIRE(got > 0);
    for (ssize_t at = 0; at < got; changes--) at += ssize_t(sizeof(inotify_event)) + reinterpret_cast<inotify_event*>(buffer + at)->len;
  }
  close(queue);
}

void wait_for(const std::string& file, const std::string& text) {
  for (int i = 0; i < 3000 && file_text(file).find(text) == std::string::npos; i++)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
}

}  // namespace

TEST_CASE("fastgan_train: killed at 50 random moments, it goes on each time, and ends as an unbroken run") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 8, 32), run = t / "run";
  std::mt19937 random(1);  // moments, not results, depend on it
  int64_t newest = -1;
  int kills = 0;
  for (int i = 0; i < 50; i++) {
    std::vector<std::string> arguments = smallest(faces, run, {"--steps", "100000"});
    if (fs::exists(run + "/config.json")) arguments.push_back("--resume");
    const int process = start_program("fastgan_train", arguments, t / "log");
    // In turn: at a moment from before main to some steps after the start; once it has trained, however slow the machine is;
    // just as it writes a checkpoint, which takes a hundredth of the time and is where a kill could do harm.
    if (i % 3 == 0) {
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 500'000));
    } else {
      for (int k = 0; k < 3000 && newest_step(run) <= newest; k++) std::this_thread::sleep_for(std::chrono::milliseconds(10));
      REQUIRE(newest_step(run) > newest);
      if (i % 3 == 1)
        std::this_thread::sleep_for(std::chrono::microseconds(random() % 100'000));
      else
        await_changes(run + "/checkpoints", 1 + int(random() % 10));
    }
    kill(process, SIGKILL);
    kills += wait_program(process) == 128 + SIGKILL;
    CAPTURE(file_text(t / "log.err"));
    CHECK(file_text(t / "log.err").empty());
    const int64_t now = newest_whole_checkpoint(run);
    CHECK(now >= newest);
    newest = now;
  }
  MESSAGE("killed " << kills << " times; the newest checkpoint is of step " << newest);
  CHECK(kills == 50);
  CHECK(newest > 20);  // the kills fell into training, not only into the start

  // What a kill leaves between naming a file and giving it its last name, or where files cannot be nameless.
  const std::string leftover = run + "/checkpoints/.999999.safetensors.123-0.tmp";
  std::ofstream(leftover) << "half a checkpoint";
  std::ofstream(run + "/.notes.tmp") << "the user's own";
  const std::string steps = std::to_string(newest + 4);
  const Finished last = run_program("fastgan_train", smallest(faces, run, {"--steps", steps, "--resume"}));
  CAPTURE(last.err);
  REQUIRE(last.code == 0);
  CHECK(last.out.find("going on from step " + std::to_string(newest)) != std::string::npos);
  CHECK(!fs::exists(leftover));
  CHECK(fs::remove(run + "/.notes.tmp"));
  CHECK(hidden_files(run) == 0);
  REQUIRE(run_program("fastgan_train", smallest(faces, t / "unbroken", {"--steps", steps})).code == 0);
  CHECK(contents(run) == contents(t / "unbroken"));
}

TEST_CASE("fastgan_train: a run stopped before its first checkpoint begins again; two cannot train in one folder") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 8, 32), run = t / "run";
  const auto with = [&](const std::string& out, std::vector<std::string> more) {
    more.insert(more.end(), {"--checkpoint-every", "100000", "--metric-every", "0"});
    return smallest(faces, out, more);
  };
  const int process = start_program("fastgan_train", with(run, {"--steps", "100000"}), t / "log");
  wait_for(run + "/log.jsonl", "\"step\":3");
  refuses(with(run, {"--steps", "100000", "--resume"}), {run, "another process", "--out"});
  kill(process, SIGKILL);
  wait_program(process);
  CHECK(newest_whole_checkpoint(run) == -1);
  for (const auto& e : fs::directory_iterator(run + "/samples"))
    if (e.path().filename() != "real.png") fs::remove(e.path());  // grids of steps that the second run does not reach
  const Finished again = run_program("fastgan_train", with(run, {"--steps", "4", "--resume"}));
  CAPTURE(again.err);
  REQUIRE(again.code == 0);
  CHECK(again.out.find("begins again") != std::string::npos);
  REQUIRE(run_program("fastgan_train", with(t / "unbroken", {"--steps", "4"})).code == 0);
  CHECK(contents(run) == contents(t / "unbroken"));
}

TEST_CASE("fastgan_train: a full disk stops it with a message, the last checkpoint is whole, and with space it goes on") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 8, 32), disk_path = t / "disk", run = disk_path + "/run";
  const SmallDisk disk(disk_path, "8m");
  if (!disk.mounted()) return;
  const std::vector<std::string> once{"--steps", "2", "--sample-every", "0", "--metric-every", "0"};
  const auto more = [&](std::vector<std::string> a) {
    a.insert(a.end(), {"--steps", "100000", "--metric-every", "0", "--resume"});
    return smallest(faces, run, a);
  };
  REQUIRE(run_program("fastgan_train", smallest(faces, run, once)).code == 0);
  REQUIRE(newest_whole_checkpoint(run) == 2);

  std::vector<std::string> words;
  SUBCASE("at a checkpoint") {
    // All are kept, until no more fit.
    const Finished f = run_program("fastgan_train", more({"--keep", "0", "--sample-every", "0"}));
    CAPTURE(f.err);
    CHECK(f.code == 2);
    CHECK(std::count(f.err.begin(), f.err.end(), '\n') == 1);
    for (const char* word : {".safetensors: cannot write: No space left on device", "free some disk space", "is saved", "--resume"}) CHECK(f.err.find(word) != std::string::npos);
    CHECK(newest_whole_checkpoint(run) > 2);
    CHECK(hidden_files(run) == 0);
    for (const int64_t step : RunDirectory::open(run).checkpoints())  // the space is freed by hand
      if (step != newest_whole_checkpoint(run)) fs::remove(RunDirectory::open(run).checkpoint(step));
  }
  SUBCASE("at a line of the log, or at a grid") {
    std::string every, file;
    SUBCASE("the log") every = "0", file = "log.jsonl";
    SUBCASE("a grid") every = "1", file = ".png";
    const int process =
        start_program("fastgan_train", more({"--checkpoint-every", "100000", "--sample-every", every, "--log-every", every == "0" ? "1" : "100000"}), t / "log");
    wait_for(t / "log", "step ");
    disk.fill();
    CHECK(wait_program(process) == 2);
    const std::string err = file_text(t / "log.err");
    CAPTURE(err);
    CHECK(std::count(err.begin(), err.end(), '\n') == 1);
    for (const std::string& word : {file + ": cannot write: No space left on device", std::string("free some disk space"), std::string("step 2 is saved"), std::string("--resume")}) CHECK(err.find(word) != std::string::npos);
    for (const std::string& line : timeless_log(run)) CHECK(line.ends_with('}'));  // whole lines only: each was parsed
    CHECK(newest_whole_checkpoint(run) == 2);
    CHECK(hidden_files(run) == 0);
    disk.free();
  }
  const std::string steps = std::to_string(newest_whole_checkpoint(run) + 3);
  const std::vector<std::string> to_the_end{"--steps", steps, "--sample-every", "0", "--metric-every", "0", "--log-every", "1", "--keep", "2", "--checkpoint-every", "1"};
  std::vector<std::string> resumed = to_the_end;
  resumed.push_back("--resume");
  const Finished f = run_program("fastgan_train", smallest(faces, run, resumed));
  CAPTURE(f.err);
  REQUIRE(f.code == 0);
  REQUIRE(run_program("fastgan_train", smallest(faces, t / "unbroken", to_the_end)).code == 0);
  const std::string checkpoint = "/checkpoints/000000.safetensors";
  const std::string name = checkpoint.substr(0, checkpoint.size() - 12 - steps.size()) + steps + ".safetensors";
  CHECK(file_text(run + name) == file_text(t / ("unbroken" + name)));
}

TEST_CASE("fastgan_train: a disk that is full from the start, and a file size limit, are named") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 8, 32), run = t / "run";
  {
    const FileSizeLimit limit(100'000);  // grids are smaller, checkpoints larger
    refuses(smallest(faces, run, {"--steps", "3"}), {"000001.safetensors: cannot write: File too large", "ulimit -f"});
    CHECK(fs::is_empty(run + "/checkpoints"));
  }
  REQUIRE(run_program("fastgan_train", smallest(faces, run, {"--steps", "3", "--resume"})).code == 0);
  {
    const FileSizeLimit limit(100'000);
    refuses(smallest(faces, run, {"--steps", "5", "--resume"}), {"000004.safetensors", "step 3 is saved", "--resume"});
  }
  CHECK(newest_whole_checkpoint(run) == 3);
  const SmallDisk disk(t / "disk", "1m");
  if (!disk.mounted()) return;
  disk.fill();
  refuses(smallest(faces, t / "disk/run", {"--steps", "3"}), {t / "disk/run", "No space left on device"});
}
