// Ranks that die, hang or meet an error: all end within seconds, by name and reason, and the last checkpoint is good.
#include <csignal>
#include <random>
#include <thread>

#include "engine/checkpoint.h"
#include "engine/progress.h"
#include "engine/run_directory.h"
#include "tests/ranks_runs.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::test;

namespace {

#ifndef KILN_RANKS_PROBE
#define KILN_RANKS_PROBE ""
#endif

void probe(const char* which, const std::vector<int>& counts) {
  for (const int n : counts) {
    CAPTURE(n);
    const Finished f = run_ranks(n, KILN_RANKS_PROBE, {which});
    CAPTURE(f.err);
    CHECK(f.code == 0);
  }
}

/// Runs that end badly must end soon, and say who and why.
void ends(const char* which, double most_seconds, const std::vector<std::string>& words) {
  const Stopwatch clock;
  const Finished f = run_ranks(3, KILN_RANKS_PROBE, {which});
  CAPTURE(f.err);
  CHECK(clock.seconds() < most_seconds);
  CHECK(f.code == 2);
  CHECK(contains(f.err, "ranks_probe: rank "));
  for (const std::string& w : words) {
    CAPTURE(w);
    CHECK(contains(f.err, w));
  }
}

/// The newest checkpoint of a run, read to its last byte; -1 if there is none.
int64_t newest_whole(const std::string& run) {
  const RunDirectory d = RunDirectory::open(run);
  const std::vector<int64_t> steps = d.checkpoints();
  for (const int64_t step : steps) {
    const SafetensorsFile file(d.checkpoint(step));  // its hashes are checked
    CHECK(metadata_integer(file, "step") == step);
  }
  return steps.empty() ? -1 : steps.back();
}

/// Waits a little for a process to be gone, or dead and not yet asked after.
bool gone(int process) {
  for (int tries = 0; tries < 200; tries++) {
    const std::string stat = file_text("/proc/" + std::to_string(process) + "/stat");
    const size_t end = stat.rfind(')');
    if (end == std::string::npos || end + 2 >= stat.size() || stat[end + 2] == 'Z' || stat[end + 2] == 'X') return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

/// One run of three ranks, one of which gets a signal at a moment of its own; it must end soon, name the rank, and go on from its
/// last checkpoint afterwards.
void strike(const std::string& faces, const std::string& run, int rank, int signal, double after_seconds, bool resume) {
  CAPTURE(rank);
  CAPTURE(signal);
  CAPTURE(after_seconds);
  std::vector<std::string> a{faces, "--out", run, "--size", "32", "--ngf", "4", "--ndf", "4", "--batch", "6", "--no-cache", "--grid", "2", "--log-every", "1",
                             "--sample-every", "5", "--metric-every", "0", "--checkpoint-every", "2", "--steps", "100000", "--device", "cpu", "--patience", "2"};
  if (resume) a.push_back("--resume");
  const std::string log = run + ".out";
  const int64_t before = resume ? newest_whole(run) : -1;
  const int mpirun = start_mpirun(ranks_of(3, "fastgan_train", a), log);
  const std::vector<int> ranks = processes_of(mpirun, 3);
  std::this_thread::sleep_for(std::chrono::duration<double>(after_seconds));
  const Stopwatch clock;
  CHECK(kill(ranks[size_t(rank)], signal) == 0);
  const int code = wait_program(mpirun);
  const double seconds = clock.seconds();
  const std::string err = file_text(log + ".err");
  CAPTURE(err);
  CHECK(code != 0);
  CHECK(seconds < 20);
  if (signal == SIGSTOP)
    CHECK(contains(err, fmt::format("rank {} on ", rank)));
  else
    CHECK(contains(err, fmt::format("process rank {} with PID", rank)));
  CHECK(contains(err, signal == SIGSTOP ? "no sign of life" : "signal"));
  for (const int process : ranks) CHECK(gone(process));
  if (std::filesystem::exists(run + "/config.json")) CHECK(newest_whole(run) >= before);
}

}  // namespace

TEST_CASE("ranks: sums, batch norm across ranks with its gradients and in evaluation, buckets of gradients, overflows") {
  if (!has_ranks()) return;
  probe("sums", {2, 3, 4});
  probe("norm", {2, 4});
  probe("buckets", {2, 4});
  probe("overflow", {2});
}

TEST_CASE("ranks: a rank that hangs, meets an error or drifts ends all, by name and reason") {
  if (!has_ranks()) return;
  ends("hang", 30, {"rank 1 on ", "lives but has not come to the next sum"});
  ends("error", 10, {"rank 1 on ", "the disk of this rank is on fire"});
  ends("drift", 10, {"rank 1 on ", "its copy of the weights is not that of rank 0"});
}

TEST_CASE("ranks: a rank that is killed, and one that is stopped, end the run, and it goes on from its checkpoint") {
  if (!has_ranks()) return;
  const TempFolder t;
  const std::string faces = draw_faces(t, 11, 32), run = t / "run";
  strike(faces, run, 1, SIGKILL, 3, false);
  strike(faces, run, 2, SIGSTOP, 3, std::filesystem::exists(run + "/config.json"));
  REQUIRE(newest_whole(run) > 0);
  const std::string steps = std::to_string(newest_whole(run) + 2);
  const Finished f = run_ranks(2, "fastgan_train", {faces, "--out", run, "--resume", "--steps", steps});
  CAPTURE(f.err);
  CHECK(f.code == 0);
}

TEST_CASE("ranks: an error of the root while it writes ends all, and names what is saved") {
  if (!has_ranks()) return;
  const TempFolder t;
  const std::string faces = draw_faces(t, 11, 32), run = t / "run";
  std::vector<std::string> a{faces, "--out", run, "--size", "32", "--ngf", "4", "--ndf", "4", "--batch", "4", "--no-cache", "--grid", "2", "--log-every", "1",
                             "--sample-every", "0", "--metric-every", "0", "--checkpoint-every", "2", "--device", "cpu", "--steps"};
  const auto with = [&](std::vector<std::string> more) {
    std::vector<std::string> b = a;
    b.insert(b.end(), more.begin(), more.end());
    return b;
  };
  REQUIRE(run_ranks(2, "fastgan_train", with({"2"})).code == 0);
  // A file size limit of 8 MiB, that the log and MPI's shared memory fit under and a checkpoint does not.
  std::vector<std::string> limited{"-np", "2", "sh", "-c", "ulimit -f 16384; exec \"$0\" \"$@\"", std::string(KILN_BIN_DIR) + "/fastgan_train"};
  for (const std::string& s : with({"9", "--resume"})) limited.push_back(s);
  const Finished f = run_mpirun(limited);
  CAPTURE(f.err);
  CHECK(f.code == 2);
  CHECK(contains(f.err, "000004.safetensors: cannot write: File too large"));
  CHECK(contains(f.err, "step 2 is saved"));
  CHECK(newest_whole(run) == 2);
}

TEST_CASE("ranks-long: twenty kills and stops at random moments") {
  if (!has_ranks()) return;
  const TempFolder t;
  const std::string faces = draw_faces(t, 11, 32), run = t / "run";
  std::mt19937 random(20);
  for (int k = 0; k < 20; k++) {
    CAPTURE(k);
    const int rank = int(random() % 3);
    const double after = 0.2 + 4.0 * double(random() % 1000) / 1000;
    strike(faces, run, rank, k % 4 == 3 ? SIGSTOP : SIGKILL, after, std::filesystem::exists(run + "/config.json"));
  }
  MESSAGE("after twenty strikes the run is at step " << newest_whole(run));
  CHECK(newest_whole(run) > 0);
}
