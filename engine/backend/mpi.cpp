#include "engine/backend/mpi.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <mutex>

#include "engine/error.h"

#if KILN_WITH_MPI
#include <mpi.h>
#endif

namespace kiln::mpi {

namespace {
int environment(std::initializer_list<const char*> names, int otherwise) {
  for (const char* name : names)
    if (const char* value = std::getenv(name)) return std::atoi(value);
  return otherwise;
}
}  // namespace

Launch launch() {
  Launch l;
  l.size = environment({"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}, 0);
  l.rank = environment({"OMPI_COMM_WORLD_RANK", "PMI_RANK"}, 0);
  l.local_size = environment({"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"}, 1);
  l.local_rank = environment({"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID"}, 0);
  // Open MPI tells its processes of a binding policy that the user chose, and of none that it chose itself.
  l.bound_by_user = std::getenv("OMPI_MCA_hwloc_base_binding_policy") || std::getenv("OMPI_MCA_rmaps_rank_file_physical");
  return l;
}

#if KILN_WITH_MPI

namespace {

constexpr int kBeatTag = 1;
constexpr size_t kRingBytes = 65536;  // from here on Open MPI goes around a ring

// MPI is one a process by nature.
std::timed_mutex inside;
MPI_Comm control = MPI_COMM_NULL, sums = MPI_COMM_NULL, beats = MPI_COMM_NULL;
int own_rank = 0, all = 1, own_local_rank = 0, all_local = 1;
std::vector<MPI_Request> started;
std::vector<std::vector<char>> copies;  // of what was started
Beat beat_on_its_way;
MPI_Request beat_request = MPI_REQUEST_NULL;

using Lock = std::lock_guard<std::timed_mutex>;

/// Tests until it is done; the longer it takes, the more rarely. A process that sleeps is woken before those that want the
/// processor all the time, and one that yields it is not: where there are more of them than processors, yielding is far slower.
template <class Done>
void wait_for(Done done) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  for (;;) {
    if (done()) return;
    const auto waited = Clock::now() - start;
    if (waited > std::chrono::microseconds(50)) usleep(waited < std::chrono::milliseconds(100) ? 10 : 500);
  }
}

void wait_for(MPI_Request request) {
  wait_for([&] {
    const Lock lock(inside);
    int done = 0;
    MPI_Test(&request, &done, MPI_STATUS_IGNORE);
    return done != 0;
  });
}

MPI_Datatype type_of(Number n) { return n == Number::f32 ? MPI_FLOAT : MPI_DOUBLE; }

/// MPI counts in int.
int as_int(int64_t n) {
  KILN_ASSERT(n >= 0 && n <= std::numeric_limits<int>::max());
  return int(n);
}

}  // namespace

bool built_in() { return true; }

void start() {
  int provided = 0;
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided) != MPI_SUCCESS) fail("MPI cannot be started; see what it said above");
  if (provided < MPI_THREAD_SERIALIZED) fail("this MPI serves one thread only, and kiln needs it from two in turn: use one that was built with threads");
  MPI_Comm_dup(MPI_COMM_WORLD, &control);
  MPI_Comm_dup(MPI_COMM_WORLD, &sums);
  MPI_Comm_dup(MPI_COMM_WORLD, &beats);
  MPI_Comm_rank(control, &own_rank);
  MPI_Comm_size(control, &all);
  MPI_Comm machine_only;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, own_rank, MPI_INFO_NULL, &machine_only);
  MPI_Comm_rank(machine_only, &own_local_rank);
  MPI_Comm_size(machine_only, &all_local);
  MPI_Comm_free(&machine_only);
}

void stop() noexcept {
  const Lock lock(inside);
  MPI_Finalize();
}

int rank() { return own_rank; }
int size() { return all; }
int local_rank() { return own_local_rank; }
int local_size() { return all_local; }

std::string machine() {
  char name[MPI_MAX_PROCESSOR_NAME];
  int n = 0;
  MPI_Get_processor_name(name, &n);
  return std::string(name, size_t(n));
}

void end_all(int code) noexcept {
  // A thread that hangs inside of MPI keeps nobody from ending.
  const bool locked = inside.try_lock_for(std::chrono::seconds(1));
  MPI_Abort(MPI_COMM_WORLD, code);
  if (locked) inside.unlock();
  _exit(code);
}

void start_sum(void* x, int64_t n, Number type) {
  const Lock lock(inside);
  // In pieces that MPI can count. The order of starts is all that ranks must have in common.
  const int64_t most = std::numeric_limits<int>::max() / 2;
  const size_t size = type == Number::f32 ? 4 : 8;
  for (int64_t first = 0; first < n; first += most) {
    const int64_t count = std::min(most, n - first);
    char* const to = static_cast<char*>(x) + size_t(first) * size;
    // Open MPI adds up large arrays in a ring, which sends the least, but not in place: then it sends log2(N) times all of it.
    const void* from = MPI_IN_PLACE;
    if (all >= 4 && size_t(count) * size >= kRingBytes) {
      copies.emplace_back(to, to + size_t(count) * size);
      from = copies.back().data();
    }
    started.push_back(MPI_REQUEST_NULL);
    MPI_Iallreduce(from, to, as_int(count), type_of(type), MPI_SUM, sums, &started.back());
  }
}

bool progress() {
  const Lock lock(inside);
  if (started.empty()) return true;
  int done = 0;
  MPI_Testall(as_int(int64_t(started.size())), started.data(), &done, MPI_STATUSES_IGNORE);
  if (done) {
    started.clear();
    copies.clear();
  }
  return done != 0;
}

void finish_sums() {
  wait_for([] { return progress(); });
}

void sum(void* x, int64_t n, Number type) {
  MPI_Request request;
  {
    const Lock lock(inside);
    MPI_Iallreduce(MPI_IN_PLACE, x, as_int(n), type_of(type), MPI_SUM, control, &request);
  }
  wait_for(request);
}

int64_t any_bits(int64_t bits) {
  MPI_Request request;
  {
    const Lock lock(inside);
    MPI_Iallreduce(MPI_IN_PLACE, &bits, 1, MPI_INT64_T, MPI_BOR, control, &request);
  }
  wait_for(request);
  return bits;
}

void broadcast(void* data, size_t bytes) {
  constexpr size_t most = size_t(1) << 30;
  for (size_t first = 0; first < bytes; first += most) {
    MPI_Request request;
    {
      const Lock lock(inside);
      MPI_Ibcast(static_cast<char*>(data) + first, as_int(int64_t(std::min(most, bytes - first))), MPI_BYTE, 0, control, &request);
    }
    wait_for(request);
  }
}

std::vector<std::string> gather(const std::string& text) {
  std::vector<int> lengths(static_cast<size_t>(all)), offsets(static_cast<size_t>(all), 0);
  const int own = as_int(int64_t(text.size()));
  MPI_Request request;
  {
    const Lock lock(inside);
    MPI_Iallgather(&own, 1, MPI_INT, lengths.data(), 1, MPI_INT, control, &request);
  }
  wait_for(request);
  int64_t total = lengths[0];
  for (size_t r = 1; r < lengths.size(); r++) {
    offsets[r] = as_int(total);
    total += lengths[r];
  }
  std::string together(size_t(as_int(total)), ' ');
  {
    const Lock lock(inside);
    MPI_Iallgatherv(text.data(), own, MPI_CHAR, together.data(), lengths.data(), offsets.data(), MPI_CHAR, control, &request);
  }
  wait_for(request);
  std::vector<std::string> out;
  for (size_t r = 0; r < lengths.size(); r++) out.push_back(together.substr(size_t(offsets[r]), size_t(lengths[r])));
  return out;
}

void send_beat(const Beat& beat) {
  const Lock lock(inside);
  int free = 1;
  if (beat_request != MPI_REQUEST_NULL) MPI_Test(&beat_request, &free, MPI_STATUS_IGNORE);
  if (!free) return;
  beat_on_its_way = beat;
  MPI_Isend(&beat_on_its_way, 2, MPI_INT64_T, (own_rank + 1) % all, kBeatTag, beats, &beat_request);
}

bool receive_beat(Beat* beat) {
  const Lock lock(inside);
  bool came = false;
  const int from = (own_rank + all - 1) % all;
  for (;;) {
    int there = 0;
    MPI_Iprobe(from, kBeatTag, beats, &there, MPI_STATUS_IGNORE);
    if (!there) return came;
    MPI_Recv(beat, 2, MPI_INT64_T, from, kBeatTag, beats, MPI_STATUS_IGNORE);
    came = true;
  }
}

#else

namespace {
[[noreturn]] void absent() { fail("this kiln was built without MPI"); }
}  // namespace

bool built_in() { return false; }
void start() { absent(); }
void stop() noexcept {}
int rank() { return 0; }
int size() { return 1; }
int local_rank() { return 0; }
int local_size() { return 1; }
std::string machine() { return ""; }
void end_all(int code) noexcept { _exit(code); }
void start_sum(void*, int64_t, Number) { absent(); }
bool progress() { return true; }
void finish_sums() {}
void sum(void*, int64_t, Number) { absent(); }
int64_t any_bits(int64_t) { absent(); }
void broadcast(void*, size_t) { absent(); }
std::vector<std::string> gather(const std::string&) { absent(); }
void send_beat(const Beat&) {}
bool receive_beat(Beat*) { return false; }

#endif

}  // namespace kiln::mpi
