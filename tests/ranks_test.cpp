// Several ranks train as one process does: the same pictures, the same numbers, one set of files.
#include "engine/ranks.h"

#include <sched.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include "engine/picture_source.h"
#include "models/fastgan_training.h"
#include "tests/ranks_runs.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::test;
namespace fs = std::filesystem;

namespace {

/// Free-running training of a GAN makes much of little: at the usual learning rate one process with one thread and one with two
/// are as far apart after ten steps as this allows, and further. The bound is relative to the learning rate; the growth is not.
constexpr double kRate = 2e-5;
constexpr int kSteps = 10;

std::vector<std::string> training(const std::string& data, const std::string& out, std::vector<std::string> more) {
  std::vector<std::string> a{data,      "--out", out,          "--size", "32",  "--ngf",          "4", "--ndf",          "4", "--batch", "8", "--no-cache",
                             "--grid",  "2",     "--steps",    "10",     "--log-every", "1",      "--sample-every", "0", "--metric-every", "0",
                             "--lr",    "2e-5",  "--device",   "cpu"};
  a.insert(a.end(), more.begin(), more.end());
  return a;
}

const std::string kLast = "/checkpoints/000010.safetensors";

void check_equal_trainings(const std::string& a, const std::string& b, double rate = kRate) {
  CHECK(largest_loss_difference(a, b) < 1e-3);
  for (const char* network : {"G.", "D.", "ema."}) {
    const Distance d = distance(a + kLast, b + kLast, network, 0.1 * rate * kSteps);
    MESSAGE(std::string(network) << " largest " << d.largest << ", beyond 0.1 x lr x steps " << d.beyond);
    CHECK(d.beyond <= 0.001);
    CHECK(d.buffers < 1e-3);
  }
  // The weights moved by more than they may differ.
  CHECK(distance(a + "/checkpoints/000001.safetensors", a + kLast, "G.", 0.1 * rate * kSteps).beyond > 0.5);
}

std::set<std::string> files_of(const std::string& run) {
  std::set<std::string> out;
  for (const auto& e : fs::recursive_directory_iterator(run))
    if (e.is_regular_file()) out.insert(e.path().lexically_relative(run).string());
  return out;
}

}  // namespace

TEST_CASE("ranks: the processors of a machine are shared evenly, unless the user bound them") {
  const std::vector<int> all{0, 1, 2, 3, 4, 5, 6, 7};
  // mpirun's own choice: one core each.
  CHECK(share_cpus({0}, all, 0, 2, false).cpus == std::vector<int>{0, 1, 2, 3});
  CHECK(share_cpus({1}, all, 1, 2, false).cpus == std::vector<int>{4, 5, 6, 7});
  CHECK(share_cpus({1}, all, 1, 2, false).threads == 4);
  // Three do not divide eight; nobody gets another's.
  std::set<int> taken;
  for (int r = 0; r < 3; r++)
    for (const int c : share_cpus(all, all, r, 3, false).cpus) CHECK(taken.insert(c).second);
  CHECK(taken.size() == 6);
  // More ranks than processors.
  CHECK(share_cpus({0}, {0, 1}, 3, 4, false).threads == 1);
  CHECK(share_cpus({0}, {0, 1}, 3, 4, false).cpus == std::vector<int>{0, 1});
  // Only part of the machine is ours.
  CHECK(share_cpus({4}, {4, 5, 6, 7}, 1, 2, false).cpus == std::vector<int>{6, 7});
  // The user's choice: a core each, a socket shared by two, nothing.
  CHECK(share_cpus({2}, all, 2, 4, true).threads == 1);
  CHECK(share_cpus({0, 1, 2, 3}, all, 0, 4, true).threads == 2);
  CHECK(share_cpus(all, all, 1, 2, true).threads == 4);
  for (int r : {0, 1}) CHECK(share_cpus(all, all, r, 2, true).cpus.empty());
}

TEST_CASE("ranks: every rank has its share of every batch, and an epoch shows each picture once") {
  constexpr int64_t kPictures = 24;
  for (const int ranks : {1, 2, 3, 4})
    for (const int parts : {1, 2}) {
      CAPTURE(ranks);
      CAPTURE(parts);
      BatchOrder whole(7, kPictures, 24);
      for (int64_t step = 0; step < 4; step++) {
        const std::vector<int32_t> all = whole.indices(step);
        CHECK(std::set<int32_t>(all.begin(), all.end()).size() == kPictures);  // the batch is the epoch
        std::vector<int32_t> gathered(all.size(), -1);
        for (int r = 0; r < ranks; r++) {
          const BatchShare share{r, ranks, parts};
          BatchOrder own(7, kPictures, 24, share);
          const std::vector<int32_t> mine = own.indices(step);
          REQUIRE(mine.size() == all.size() / size_t(ranks));
          CHECK(own.count() == int64_t(mine.size()));
          for (size_t i = 0; i < mine.size(); i++) {
            const size_t at = size_t(share.place(int64_t(i), 24));
            CHECK(gathered[at] == -1);
            gathered[at] = mine[i];
          }
        }
        CHECK(gathered == all);
      }
    }
  // An epoch that ends inside of a batch: over eleven batches of five, every picture five times.
  std::vector<int> shown(11, 0);
  for (int64_t step = 0; step < 11; step++)
    for (int r = 0; r < 5; r++)
      for (const int32_t i : BatchOrder(3, 11, 5, {r, 5, 1}).indices(step)) shown[size_t(i)]++;
  CHECK(shown == std::vector<int>(11, 5));
}

TEST_CASE("ranks: 2 and 4 ranks train as one process, on the same draws, and write the same files once") {
  if (!has_ranks()) return;
  const TempFolder t;
  const std::string faces = draw_faces(t, 11, 32);
  for (const std::string parts : {"1", "2"}) {
    CAPTURE(parts);
    const std::vector<std::string> more{"--accumulate", parts, "--checkpoint-every", "1", "--keep", "0", "--sample-every", "5", "--metric-every", "5"};
    const std::string one = t / ("one" + parts);
    REQUIRE(run_program("fastgan_train", training(faces, one, more)).code == 0);
    for (const int n : {2, 4}) {
      CAPTURE(n);
      const std::string run = t / ("run" + parts + std::to_string(n));
      const Finished f = run_ranks(n, "fastgan_train", training(faces, run, more));
      CAPTURE(f.err);
      REQUIRE(f.code == 0);
      CHECK(contains(f.out, fmt::format("{} ranks, each with 1 threads", n)));
      CHECK(std::count(f.out.begin(), f.out.end(), '\n') < 40);
      check_equal_trainings(one, run);
      CHECK(files_of(one) == files_of(run));
      CHECK(timeless_log(one).size() == timeless_log(run).size());
    }
  }
}

TEST_CASE("ranks: two ranks share the processors that mpirun has, unless OMP_NUM_THREADS says otherwise") {
  if (!has_ranks()) return;
  const TempFolder t;
  const std::string faces = draw_faces(t, 11, 32);
  cpu_set_t set;
  REQUIRE(sched_getaffinity(0, sizeof set, &set) == 0);
  const int each = std::max(1, CPU_COUNT(&set) / 2);
  std::vector<std::string> a{"-np", "2", "env", "-u", "OMP_NUM_THREADS", std::string(KILN_BIN_DIR) + "/fastgan_train"};
  for (const std::string& s : training(faces, t / "a", {"--steps", "1"})) a.push_back(s);
  const Finished f = run_mpirun(a);
  CAPTURE(f.err);
  REQUIRE(f.code == 0);
  CHECK(contains(f.out, fmt::format("2 ranks, each with {} threads", each)));
  const Finished g = run_ranks(2, "fastgan_train", training(faces, t / "b", {"--steps", "1", "--threads", "3"}));
  CHECK(contains(g.out, "2 ranks, each with 3 threads"));
}

TEST_CASE("ranks: the same run twice is the same bits") {
  if (!has_ranks()) return;
  const TempFolder t;
  const std::string faces = draw_faces(t, 11, 32);
  for (const char* run : {"a", "b"}) REQUIRE(run_ranks(2, "fastgan_train", training(faces, t / run, {})).code == 0);
  CHECK(file_text(t / ("a" + kLast)) == file_text(t / ("b" + kLast)));
}

TEST_CASE("ranks: a run goes on with another number of ranks") {
  if (!has_ranks()) return;
  const TempFolder t;
  const std::string faces = draw_faces(t, 11, 32), run = t / "run", one = t / "one";
  const std::vector<std::string> more{"--checkpoint-every", "1", "--keep", "0"};
  REQUIRE(run_program("fastgan_train", training(faces, one, more)).code == 0);
  const auto resumed = [&](const char* steps) {
    std::vector<std::string> a = more;
    a.insert(a.end(), {"--resume", "--steps", steps});
    return training(faces, run, a);
  };
  std::vector<std::string> first = more;
  first.insert(first.end(), {"--steps", "3"});
  REQUIRE(run_ranks(2, "fastgan_train", training(faces, run, first)).code == 0);
  REQUIRE(run_ranks(4, "fastgan_train", resumed("6")).code == 0);
  REQUIRE(run_program("fastgan_train", resumed("8")).code == 0);
  REQUIRE(run_ranks(2, "fastgan_train", resumed("10")).code == 0);
  check_equal_trainings(one, run);
}

TEST_CASE("ranks: without the pictures of all ranks, batch norm is each rank's own, and all still agree") {
  if (!has_ranks()) return;
  const TempFolder t;
  const std::string faces = draw_faces(t, 11, 32), one = t / "one", run = t / "run";
  const std::vector<std::string> more{"--checkpoint-every", "1", "--keep", "0"};
  REQUIRE(run_program("fastgan_train", training(faces, one, more)).code == 0);
  std::vector<std::string> off = more;
  off.insert(off.end(), {"--sync-norm", "off"});
  const Finished f = run_ranks(2, "fastgan_train", training(faces, run, off));  // every checkpoint compares the ranks' weights
  CAPTURE(f.err);
  REQUIRE(f.code == 0);
  CHECK(distance(one + kLast, run + kLast, "G.", 0.1 * kRate * kSteps).beyond > 0.01);  // another training
}

TEST_CASE("ranks: 16-bit storage trains on several ranks, with one loss scale") {
  if (!has_ranks()) return;
  const TempFolder t;
  const std::string faces = draw_faces(t, 11, 32);
  const std::vector<std::string> f16{"--precision", "f16"};
  REQUIRE(run_program("fastgan_train", training(faces, t / "one", f16)).code == 0);
  const Finished f = run_ranks(2, "fastgan_train", training(faces, t / "two", f16));
  CAPTURE(f.err);
  REQUIRE(f.code == 0);
  CHECK(largest_loss_difference(t / "one", t / "two") < 0.05);
}

TEST_CASE("ranks: what cannot train together is refused at the start, by rank") {
  if (!has_ranks()) return;
  const TempFolder t;
  const std::string faces = draw_faces(t, 11, 32), out = t / "run";
  const auto refused = [&](const std::vector<std::string>& mpirun, const std::vector<std::string>& words) {
    const Finished f = run_mpirun(mpirun);
    CAPTURE(f.err);
    CHECK(f.code == 2);
    for (const std::string& w : words) {
      CAPTURE(w);
      CHECK(contains(f.err, w));
    }
    // One line of one rank; mpirun adds its own, before or after.
    const size_t at = f.err.find("fastgan_train: ");
    REQUIRE(at != std::string::npos);
    CHECK((at == 0 || f.err[at - 1] == '\n'));
    CHECK(contains(f.err.substr(at, f.err.find('\n', at) - at), words[0]));
    CHECK(f.err.find("fastgan_train: ", at + 1) == std::string::npos);
    CHECK(!fs::exists(out + "/checkpoints/000010.safetensors"));
  };
  const auto two = [&](std::vector<std::string> a, const std::vector<std::string>& b) {
    a.push_back(":");
    a.insert(a.end(), b.begin(), b.end());
    return a;
  };
  const std::vector<std::string> plain = ranks_of(1, "fastgan_train", training(faces, out, {}));
  // Another option on one rank.
  refused(two(plain, ranks_of(1, "fastgan_train", training(faces, out, {"--beta1", "0.4"}))), {"rank 1 on ", "option 'beta1'", "0.4"});
  // Another set of pictures.
  const TempFolder other;
  const std::string others = draw_faces(other, 10, 32);
  refused(two(plain, ranks_of(1, "fastgan_train", training(others, out, {}))), {"rank 1 on ", "its set of pictures", "10 pictures", "11 pictures"});
  // Another build: the same program with a byte behind its end.
  const std::string build = t / "fastgan_train";
  fs::copy_file(std::string(KILN_BIN_DIR) + "/fastgan_train", build);
  std::ofstream(build, std::ios::app | std::ios::binary) << '\n';
  refused(two(plain, ranks_of(1, build, training(faces, out, {}))), {"rank 1 on ", "its program is not that of rank 0", "same build"});
  // Mistakes that all make: one line, no rank.
  refused(ranks_of(2, "fastgan_train", training(faces, out, {"--batch", "7"})), {"--batch 7: must be divisible by the 2 ranks: give 6 or 8"});
  refused(ranks_of(2, "fastgan_train", training(faces, out, {"--lr", "x"})), {"--lr", "--help"});
  // A mistake of one only.
  refused(two(plain, ranks_of(1, "fastgan_train", training(faces, out, {"--lr", "5"}))), {"rank 1 on ", "--lr 5"});
  // The root's folder.
  fs::create_directories(out);
  std::ofstream(out + "/config.json") << "{}";
  refused(ranks_of(2, "fastgan_train", training(faces, out, {})), {"holds another run"});
}

TEST_CASE("ranks: help is printed once; programs that work in one process say so") {
  if (!has_ranks()) return;
  const Finished help = run_ranks(3, "fastgan_train", {"--help"});
  CHECK(help.code == 0);
  const size_t at = help.out.find("Trains FastGAN");
  CHECK(at != std::string::npos);
  CHECK(help.out.find("Trains FastGAN", at + 1) == std::string::npos);
  const Finished sample = run_ranks(2, "fastgan_sample", {"nothing.safetensors"});
  CHECK(sample.code == 2);
  CHECK(contains(sample.err, "fastgan_sample: works in one process: start it without mpirun"));
}

TEST_CASE("ranks: what Open MPI sends for a step is what a ring all-reduce must") {
  if (!has_ranks()) return;
  const TempFolder t;
  const std::string faces = draw_faces(t, 11, 32);
  for (const int n : {2, 4}) {
    CAPTURE(n);
    std::vector<std::string> a{"--mca", "pml_monitoring_enable", "2", "--mca", "pml_monitoring_enable_output", "3", "--mca", "pml_monitoring_filename", t / ("sent" + std::to_string(n))};
    for (const std::string& s : ranks_of(n, "fastgan_train", training(faces, t / std::to_string(n), {"--profile"}))) a.push_back(s);
    const Finished f = run_mpirun(a);
    CAPTURE(f.err);
    REQUIRE(f.code == 0);
    // What the last rank sent by collective operations: "I <from> <to> <bytes> bytes <messages> msgs sent". It has no part in
    // handing out the root's weights but as one that may pass them on.
    double bytes = 0;
    std::ifstream sent(t / fmt::format("sent{}.{}.prof", n, n - 1));
    for (std::string line; std::getline(sent, line);)
      if (line.starts_with("I\t")) bytes += std::atof(line.c_str() + line.find('\t', line.find('\t', 2) + 1));
    const size_t at = f.out.find("sends ");
    REQUIRE(at != std::string::npos);
    const double bound = std::atof(f.out.c_str() + at + 6) * 1e6 * kSteps;
    MESSAGE(n << " ranks: sent " << bytes << " bytes, a ring's bound is " << bound);
    CHECK(bytes > 0.9 * bound);
    CHECK(bytes < 1.25 * bound);
  }
}

TEST_CASE("ranks: a dry run tells what a step adds up: every gradient once") {
  if (!has_ranks()) return;
  const Finished f = run_ranks(4, "fastgan_train", {"--dry-run", "--size", "32", "--ngf", "4", "--ndf", "4", "--batch", "8", "--device", "cpu"});
  CAPTURE(f.out);
  CHECK(f.code == 0);
  double parameters = 0;
  {
    Context context(Device::cpu, true);
    UseContext use(context);
    fastgan::Config c;
    c.size = 32;
    c.ngf = c.ndf = 4;
    const fastgan::Model model(c);
    parameters = double(model.g_params.parameter_count() + model.d_params.parameter_count());
  }
  const size_t at = f.out.find("4 ranks: a step adds up ");
  REQUIRE(at != std::string::npos);
  const double megabytes = std::atof(f.out.c_str() + at + 24);
  CHECK(megabytes * 1e6 >= 4 * parameters - 5000);
  CHECK(megabytes * 1e6 < 4.1 * parameters + 5000);  // tensors start at cache lines
  CHECK(contains(f.out, "the memory below is each rank's"));
}

TEST_CASE("ranks: a build without MPI says so in one line") {
  const TempFolder t;
  const Finished f = run_program("fastgan_train", {t / "nothing"}, ".", {"OMPI_COMM_WORLD_SIZE=2", "OMPI_COMM_WORLD_RANK=0"});
  if (has_ranks()) return;
  CHECK(f.code == 2);
  CHECK(contains(f.err, "mpirun started 2 processes, but this kiln was built without MPI"));
  CHECK(std::count(f.err.begin(), f.err.end(), '\n') == 1);
}

namespace {

/// Tiny pictures in two class folders.
std::string draw_classes(const TempFolder& folder) {
  const fs::path to = folder.path() / "classes";
  fs::create_directories(to);
  for (const char* name : {"left", "right"}) fs::create_directories(to / name);
  const std::string faces = draw_faces(folder, 12, 32);
  int k = 0;
  for (const auto& e : std::set<fs::path>(fs::directory_iterator(faces), fs::directory_iterator())) fs::copy_file(e, to / (k++ % 2 ? "left" : "right") / e.filename());
  return to.string();
}

}  // namespace

// Some biases of BigGAN's residual sums are taken away again by the batch norm after them: their gradient is rounding, of which
// Adam makes steps of full size, and running means follow them. At this width they are few enough not to matter.
TEST_CASE("ranks: BigGAN on 2 and 4 ranks trains as one process, with orthogonal regularisation and several D steps, too") {
  if (!has_ranks()) return;
  const TempFolder t;
  const std::string data = draw_classes(t);
  for (const bool more : {false, true}) {
    CAPTURE(more);
    const auto arguments = [&](const std::string& out) {
      std::vector<std::string> a{data, "--out", out, "--size", "32", "--width", "16", "--batch", "8", "--no-cache", "--grid", "2", "--steps", "10", "--log-every", "1",
                                 "--sample-every", "0", "--metric-every", "0", "--checkpoint-every", "1", "--keep", "0", "--lr", "5e-6", "--device", "cpu"};
      if (more) a.insert(a.end(), {"--accumulate", "2", "--d-steps", "2", "--ortho", "1e-4", "--augment", "color,translation"});
      return a;
    };
    const std::string one = t / (more ? "one2" : "one");
    const Finished f = run_program("biggan_train", arguments(one));
    CAPTURE(f.err);
    REQUIRE(f.code == 0);
    for (const int n : {2, 4}) {
      CAPTURE(n);
      const std::string run = one + "-" + std::to_string(n);
      const Finished g = run_ranks(n, "biggan_train", arguments(run));
      CAPTURE(g.err);
      REQUIRE(g.code == 0);
      check_equal_trainings(one, run, 5e-6);
    }
  }
}
