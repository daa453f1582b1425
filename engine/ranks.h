// The processes that train one network together: `mpirun -np N ./fastgan_train DIR` starts N of them, on one machine or on many.
// Every one (a rank) has all weights, computes its share of every batch, and adds its gradients to those of the others; so all
// make the same update and their weights stay equal, bit for bit. Rank 0 is the root: it alone writes files and prints.
//
// MPI carries everything on the CPU, NCCL what lies in a GPU's memory. A rank that dies, hangs or meets an error ends all of them.
#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "engine/error.h"
#include "engine/tensor.h"

namespace kiln {

/// An error that every rank has been told of: all throw it at the same place, and the root prints it.
class SharedError : public Error {
 public:
  using Error::Error;
};

class Ranks {
 public:
  /// Joins the ranks that mpirun started together with this process; null if it was started without mpirun, or alone. Once in a
  /// process, on the thread that trains. Throws kiln::Error: this kiln was built without MPI, another build on one of the ranks.
  static std::shared_ptr<Ranks> join();
  /// True if mpirun started this process and others.
  static bool launched();
  /// True in the one process that prints what all have to say; also without mpirun.
  static bool speaks();
  /// Waits for the others to leave, too.
  ~Ranks();
  Ranks(const Ranks&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  bool root() const { return rank_ == 0; }
  int local_size() const { return local_size_; }  // ranks on this machine
  const std::string& name(int rank) const { return names_[size_t(rank)]; }  // "rank 2 on node7"

  /// Throws kiln::Error with the remedy if a batch in `accumulate` parts cannot be shared evenly.
  void require_divides(int batch, int accumulate) const;

  // ---- between steps: every rank calls the same, in the same order ----------------------------------------------------

  /// Every rank runs f. If it throws anywhere, all throw a SharedError that names the rank (unless all met the same).
  void together(const std::function<void()>& f);
  /// The same, on each machine one rank first and then the others: for what the first leaves in a file that the others use.
  void in_turns(const std::function<void()>& f);
  /// The root runs f with no ranks in its context; the others wait. What f throws, the root throws, and the others a SharedError.
  void alone(const std::function<void()>& f);
  /// Throws a SharedError that names the ranks whose `value` is not the root's: "rank 2 on node7: WHAT is not that of rank 0 on
  /// node1: REMEDY", with both values where they are `shown`.
  void agree(const std::string& what, const std::string& value, bool shown, const std::string& remedy);
  /// The same for the members of two flat JSON objects, by name, but for those in `free`.
  void agree_on_options(const std::string& json, const std::vector<std::string>& free);
  /// The bits that are set on any rank.
  int64_t any_bits(int64_t bits);
  std::string from_root(const std::string& text);
  /// The root's numbers to all.
  void share(const std::vector<Tensor>& tensors);
  /// Throws a SharedError if these are not the root's, bit for bit.
  void require_equal(const std::vector<Tensor>& tensors, const std::string& what);

  // ---- in a step ------------------------------------------------------------------------------------------------------

  /// Sums over all ranks, in place, in the order of the context's device. Equal bits on every rank.
  void sum(const Tensor& x);              // f32
  void sum_doubles(void* x, int64_t n);   // f64 in the device's memory
  /// The same while other work goes on, of x [n] f32; finish_sums() before the numbers are used, or changed.
  void start_sum(float* x, int64_t n);
  void finish_sums();
  /// On a CPU: moves the sums that were started on. Another thread does the same now and then.
  void progress();

  /// What this rank has given to sums so far, in planning too; a ring all-reduce sends 2 (N - 1) / N of the bytes.
  struct Traffic {
    int64_t gradient_sums = 0, gradient_bytes = 0;  // start_sum
    int64_t other_sums = 0, other_bytes = 0;        // sum, sum_doubles: norms and losses
    double seconds_waiting = 0;                     // of the training thread, for other ranks
    std::string text(int ranks, double steps) const;  // a step's, for people
  };
  const Traffic& traffic() const { return traffic_; }

  /// Throws a SharedError if the GPUs of the ranks cannot add up: no NCCL, more ranks than GPUs. Call once before sums on GPUs.
  void use_gpus();

  // ---- faults -----------------------------------------------------------------------------------------------------------

  /// Between these, every rank is expected to come to the next sum in about the same time.
  void set_training(bool on);

  /// Seconds without a sign of life after which a rank counts as dead and all end; 0: never.
  void set_patience(double seconds) { patience_ = seconds; }
  /// True once an error was made known to all: it needs no end_all.
  bool all_know() const { return all_know_; }
  /// Says which rank this is and why, and ends all ranks with exit code 2. For an error that the others do not know of.
  [[noreturn]] void end_all(const std::string& reason) const noexcept;
  void set_program(const std::string& name) { program_ = name; }  // what such a line begins with

  /// Bytes of gradients that are added up at a time.
  int64_t bucket_bytes = 4 << 20;

 private:
  Ranks();
  void watch(const std::stop_token& stop);
  [[noreturn]] void tell(const std::string& error);
  void spread(const std::vector<std::string>& troubles);
  class Waiting;
  class Busy;

  int rank_ = 0, size_ = 1, local_rank_ = 0, local_size_ = 1;
  std::vector<std::string> names_;
  std::string program_ = "kiln";
  bool all_know_ = false;
  Traffic traffic_;
  std::chrono::steady_clock::time_point work_began_;
  // What the watching thread tells the next rank: operations come to, and what the training thread does.
  std::atomic<int64_t> count_{0}, state_{0}, longest_work_{0};  // longest_work_ in milliseconds
  std::atomic<double> patience_{10};
  std::jthread watch_;
};

/// How many processors of a machine a rank takes, and which.
struct CpuShare {
  std::vector<int> cpus;  // to be bound to; empty: as it is
  int threads = 1;
};
/// own: those that this process is bound to; launcher: those of its parent, mpirun; chosen: the user chose the binding. mpirun's own
/// choice is one core a rank or one socket, whatever the number of ranks: ranks then share what the launcher has, evenly.
CpuShare share_cpus(const std::vector<int>& own, const std::vector<int>& launcher, int local_rank, int local_size, bool chosen);
/// Call before the first parallel loop: under mpirun, sets the number of OpenMP's threads and the processors of this process by
/// share_cpus. Leaves all as it is where OMP_NUM_THREADS is set, and without mpirun.
void take_cpu_share();

}  // namespace kiln
