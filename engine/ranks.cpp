#include "engine/ranks.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "engine/backend/gpu_runtime.h"
#include "engine/backend/mpi.h"
#include "engine/backend/nccl.h"
#include "engine/context.h"
#include "engine/file.h"
#include "engine/hash.h"

namespace kiln {

namespace {

enum State : int64_t { working, waiting, busy, leaving };

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

/// Of the program file: every machine must have the same.
std::string fingerprint_of_program() {
  const std::vector<uint8_t> bytes = read_file("/proc/self/exe", uint64_t(1) << 32);
  return fmt::format("{:016x}", hash_bytes(bytes.data(), bytes.size()));
}

}  // namespace

/// The training thread waits for other ranks.
class Ranks::Waiting {
 public:
  explicit Waiting(Ranks& r) : ranks_(r), before_(r.state_) {
    if (before_ == working) r.longest_work_ = std::max<int64_t>(r.longest_work_, int64_t(1e3 * seconds_since(r.work_began_)));
    r.count_++;
    r.state_ = waiting;
  }
  ~Waiting() {
    ranks_.state_ = before_;
    ranks_.traffic_.seconds_waiting += seconds_since(start_);
    ranks_.work_began_ = Clock::now();
  }
  Waiting(const Waiting&) = delete;

 private:
  Ranks& ranks_;
  const int64_t before_;
  const Clock::time_point start_ = Clock::now();
};

/// The training thread does what takes one rank much longer than another: it is given time, as long as its process lives.
class Ranks::Busy {
 public:
  explicit Busy(Ranks& r) : ranks_(r), before_(r.state_) { ranks_.state_ = busy; }
  ~Busy() { ranks_.state_ = before_; }
  Busy(const Busy&) = delete;

 private:
  Ranks& ranks_;
  const int64_t before_;
};

std::shared_ptr<Ranks> Ranks::join() {
  const mpi::Launch launch = mpi::launch();
  if (launch.size <= 1) return nullptr;
  if (!mpi::built_in()) {
    const std::string text = fmt::format("mpirun started {} processes, but this kiln was built without MPI: install libopenmpi-dev and build it again, "
                                         "or start it without mpirun", launch.size);
    if (launch.rank == 0) fail("{}", text);
    throw SharedError(text);
  }
  mpi::start();
  std::shared_ptr<Ranks> ranks(new Ranks());
  ranks->agree("its program", fingerprint_of_program(), false, "give every machine the same build");
  return ranks;
}

bool Ranks::launched() { return mpi::launch().size > 1; }
bool Ranks::speaks() { return mpi::launch().rank == 0; }

void Ranks::require_divides(int batch, int accumulate) const {
  const int unit = size_ * accumulate, below = batch / unit * unit;
  if (batch == below) return;
  fail("--batch {}: must be divisible by the {} ranks{}: give {}{}", batch, size_, accumulate > 1 ? fmt::format(" times --accumulate {}", accumulate) : "",
       below > 0 ? fmt::format("{} or ", below) : "", below + unit);
}

void Ranks::set_training(bool on) {
  state_ = on ? working : busy;
  work_began_ = Clock::now();
}

void Ranks::use_gpus() {
  together([&] {
    if (!nccl::built_in()) fail("--device gpu: this kiln was built without NCCL, which several GPUs need: install libnccl-dev and build it again, or start one process");
    const int gpus = gpu_runtime::count();
    if (local_size_ > gpus) fail("--device gpu: {} ranks on a machine with {} GPUs: start as many ranks on it as it has", local_size_, gpus);
  });
  const std::string id = from_root(root() ? nccl::make_id() : "");
  together([&] { nccl::start(id, rank_, size_); });
}

Ranks::Ranks() : rank_(mpi::rank()), size_(mpi::size()), local_rank_(mpi::local_rank()), local_size_(mpi::local_size()) {
  const std::vector<std::string> machines = mpi::gather(mpi::machine());
  for (int r = 0; r < size_; r++) names_.push_back(fmt::format("rank {} on {}", r, machines[size_t(r)]));
  gpu_runtime::choose(local_rank_);
  state_ = busy;
  watch_ = std::jthread([this](const std::stop_token& stop) { watch(stop); });
}

Ranks::~Ranks() {
  {
    Waiting wait(*this);
    mpi::any_bits(0);
  }
  watch_.request_stop();
  watch_.join();
  nccl::stop();
  mpi::stop();
}

void Ranks::end_all(const std::string& reason) const noexcept {
  std::fprintf(stderr, "%s: %s: %s\n", program_.c_str(), name(rank_).c_str(), reason.c_str());
  std::fflush(nullptr);
  mpi::end_all(2);
}

/// The rank before this one must give signs of life, and must come to where this one waits for it. Time is counted in turns of
/// this loop: a machine that was suspended, or a debugger that stopped all ranks, has cost one turn.
void Ranks::watch(const std::stop_token& stop) {
  constexpr double kTurn = 0.05, kTurnWithSums = 0.0005, kBeatEvery = 0.5;
  constexpr int kWorkFactor = 20;
  const int before = (rank_ + size_ - 1) % size_;
  double silent = 0, behind = 0, until_beat = 0, turn = kTurn;
  mpi::Beat last{-1, busy};
  while (!stop.stop_requested()) {
    std::this_thread::sleep_for(std::chrono::duration<double>(turn));
    // Sums go on while the training thread computes; MPI does nothing by itself.
    until_beat -= turn;
    turn = mpi::progress() ? kTurn : kTurnWithSums;
    if (until_beat > 0) continue;
    until_beat = kBeatEvery;
    mpi::send_beat({count_, state_});
    mpi::Beat beat;
    const bool came = mpi::receive_beat(&beat);
    silent = came ? 0 : silent + kBeatEvery;
    const bool moved = came && (beat.count != last.count || beat.state != working);
    if (came) last = beat;
    behind = moved || state_ != waiting || last.state != working ? 0 : behind + kBeatEvery;
    const double patience = patience_;
    if (patience <= 0) continue;
    if (silent > patience)
      end_all(fmt::format("{} has given no sign of life for {:.0f} s: it hangs, or its machine or network is gone", name(before), silent));
    const double longest = double(longest_work_) * 1e-3, work = std::max(3 * patience, kWorkFactor * longest);
    if (behind > work)
      end_all(fmt::format("{} lives but has not come to the next sum for {:.0f} s; work between two sums took this rank {:.1f} s at most",
                          name(before), behind, longest));
  }
}

/// Every rank throws the same.
void Ranks::tell(const std::string& error) {
  all_know_ = true;
  throw SharedError(error);
}

void Ranks::spread(const std::vector<std::string>& troubles) {
  std::vector<int> failed;
  bool same = true;
  for (int r = 0; r < size_; r++) {
    if (!troubles[size_t(r)].empty()) failed.push_back(r);
    same = same && troubles[size_t(r)] == troubles[0];
  }
  if (failed.empty()) return;
  const std::string& first = troubles[size_t(failed[0])];
  if (same) tell(first);
  tell(fmt::format("{}: {}{}", name(failed[0]), first,
                   failed.size() > 1 ? fmt::format(" (and {} more of {} ranks failed)", failed.size() - 1, size_) : ""));
}

void Ranks::together(const std::function<void()>& f) {
  const Busy scope(*this);
  std::string trouble;
  try {
    f();
  } catch (const std::exception& e) {
    trouble = *e.what() ? e.what() : "an error without a text";
  }
  const Waiting wait(*this);
  spread(mpi::gather(trouble));
}

void Ranks::in_turns(const std::function<void()>& f) {
  together([&] {
    if (local_rank_ == 0) f();
  });
  together([&] {
    if (local_rank_ != 0) f();
  });
}

void Ranks::alone(const std::function<void()>& f) {
  const Busy scope(*this);
  std::exception_ptr thrown;
  std::string trouble;
  if (root()) {
    Ranks* before = nullptr;
    Context* c = current_context();
    if (c) std::swap(before, c->ranks);
    try {
      f();
    } catch (const std::exception& e) {
      thrown = std::current_exception();
      trouble = *e.what() ? e.what() : "an error without a text";
    }
    if (c) c->ranks = before;
  }
  trouble = from_root(trouble);
  all_know_ = all_know_ || !trouble.empty();
  if (thrown) std::rethrow_exception(thrown);
  if (!trouble.empty()) throw SharedError(trouble);
}

void Ranks::agree(const std::string& what, const std::string& value, bool shown, const std::string& remedy) {
  const Waiting wait(*this);
  const std::vector<std::string> values = mpi::gather(value);
  for (int r = 1; r < size_; r++)
    if (values[size_t(r)] != values[0])
      tell(fmt::format("{}: {} is not that of {}{}: {}", name(r), what, name(0),
                                    shown ? fmt::format(" ({} and {})", values[size_t(r)], values[0]) : "", remedy));
}

void Ranks::agree_on_options(const std::string& text, const std::vector<std::string>& free) {
  using nlohmann::json;
  const Waiting wait(*this);
  const std::vector<std::string> texts = mpi::gather(text);
  const json ours = json::parse(texts[0]);
  for (int r = 1; r < size_; r++) {
    const json theirs = json::parse(texts[size_t(r)]);
    for (const auto& [key, value] : ours.items())
      if (std::find(free.begin(), free.end(), key) == free.end() && (!theirs.contains(key) || theirs.at(key) != value))
        tell(fmt::format("{}: its option '{}' is not that of {} ({} and {}): start all ranks with the same command", name(r), key,
                                      name(0), theirs.contains(key) ? theirs.at(key).dump() : "nothing", value.dump()));
  }
}

int64_t Ranks::any_bits(int64_t bits) {
  const Waiting wait(*this);
  return mpi::any_bits(bits);
}

std::string Ranks::from_root(const std::string& text) {
  const Waiting wait(*this);
  uint64_t bytes = text.size();
  mpi::broadcast(&bytes, sizeof bytes);
  std::string out = root() ? text : std::string(bytes, ' ');
  mpi::broadcast(out.data(), out.size());
  return out;
}

void Ranks::share(const std::vector<Tensor>& tensors) {
  const Waiting wait(*this);
  for (const Tensor& t : tensors) {
    if (t.device() == Device::cpu) {
      mpi::broadcast(t.data(), t.bytes());
      continue;
    }
    std::vector<char> bytes(t.bytes());
    if (root()) t.download(bytes.data());
    mpi::broadcast(bytes.data(), bytes.size());
    if (!root()) t.upload(bytes.data());
  }
}

void Ranks::require_equal(const std::vector<Tensor>& tensors, const std::string& what) {
  Hash64 hash;
  for (const Tensor& t : tensors) {
    std::vector<char> bytes;
    if (t.device() != Device::cpu) {
      bytes.resize(t.bytes());
      t.download(bytes.data());
    }
    hash.update(bytes.empty() ? t.data() : bytes.data(), t.bytes());
  }
  agree(what, fmt::format("{:016x}", hash.value()), false, "its processor, memory or libraries compute otherwise; leave its machine out");
}

std::string Ranks::Traffic::text(int ranks, double steps) const {
  const auto mb = [&](int64_t bytes) { return double(bytes) / steps / 1e6; };
  return fmt::format("{} ranks: a step adds up {:.2f} MB of gradients in {:.0f} sums and {:.3f} MB of norms and losses in {:.0f}; a ring all-reduce "
                     "sends {:.2f} MB for that from each rank", ranks, mb(gradient_bytes), double(gradient_sums) / steps, mb(other_bytes),
                     double(other_sums) / steps, mb(gradient_bytes + other_bytes) * 2 * (ranks - 1) / ranks);
}

// ---- sums -------------------------------------------------------------------------------------------------------------

namespace {
bool on_gpu() { return context().device == Device::gpu; }
}  // namespace

void Ranks::sum(const Tensor& x) {
  traffic_.other_sums++;
  traffic_.other_bytes += int64_t(x.bytes());
  if (context().planning) return;
  if (on_gpu()) return nccl::sum(x.f32(), x.count(), false, context().stream);
  const Booking booking(Work::ranks);
  const Waiting wait(*this);
  mpi::sum(x.f32(), x.count(), mpi::Number::f32);
}

void Ranks::sum_doubles(void* x, int64_t n) {
  traffic_.other_sums++;
  traffic_.other_bytes += n * 8;
  if (context().planning) return;
  if (on_gpu()) return nccl::sum(x, n, true, context().stream);
  const Booking booking(Work::ranks);
  const Waiting wait(*this);
  mpi::sum(x, n, mpi::Number::f64);
}

void Ranks::start_sum(float* x, int64_t n) {
  traffic_.gradient_sums++;
  traffic_.gradient_bytes += n * 4;
  if (context().planning) return;
  if (on_gpu()) return nccl::start_sum(x, n, context().stream);
  mpi::start_sum(x, n, mpi::Number::f32);
}

void Ranks::finish_sums() {
  if (context().planning) return;
  if (on_gpu()) return nccl::finish_sums(context().stream);
  const Booking booking(Work::ranks);
  const Waiting wait(*this);
  mpi::finish_sums();
}

void Ranks::progress() {
  if (!context().planning && !on_gpu()) mpi::progress();
}

}  // namespace kiln
