// The few calls of MPI that the engine makes, behind plain functions: no engine file includes an MPI header. They may be called
// from any thread; one at a time is inside of MPI. Nothing here waits inside of MPI: what is started is tested until it is done,
// so that other threads get their turn and a rank that waits takes no core from one that works. In a build without MPI
// built_in() is false and only launch() may be called.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace kiln::mpi {

bool built_in();

/// What mpirun (Open MPI's, MPICH's or Slurm's srun with PMI) told this process, before anything is initialised. size 0: it was
/// started by none.
struct Launch {
  int rank = 0, size = 0;
  int local_rank = 0, local_size = 1;  // on this machine
  bool bound_by_user = false;          // to processors, by an option of mpirun
};
Launch launch();

/// Joins the other processes, once in a process and on its main thread. Throws kiln::Error if MPI cannot be used by several
/// threads one after the other.
void start();
/// Leaves: on the main thread, when no other thread is in MPI any more.
void stop() noexcept;

int rank();
int size();
int local_rank();
int local_size();
std::string machine();  // the name of the computer

/// Ends all processes at once, with that exit code.
[[noreturn]] void end_all(int code) noexcept;

enum class Number { f32, f64 };
/// Starts adding up x [n] over all ranks, in place. Every rank starts the same sums in the same order.
void start_sum(void* x, int64_t n, Number type);
/// Moves what was started on, a little; true if all of it is done.
bool progress();
/// Waits until all of it is done.
void finish_sums();

// These wait until they are done. Every rank calls the same in the same order; they do not mix with the sums above.
void sum(void* x, int64_t n, Number type);
int64_t any_bits(int64_t bits);                       // or
void broadcast(void* data, size_t bytes);             // from rank 0
std::vector<std::string> gather(const std::string&);  // everybody's text, to everybody

/// A sign of life for the next rank (the last one's next is rank 0), from a thread that does nothing else.
struct Beat {
  int64_t count = 0;  // of collective operations that the sender has come to
  int64_t state = 0;
};
/// Not sent while the one before it is still on its way.
void send_beat(const Beat& beat);
/// The newest one of the rank before, if one has come since the last call.
bool receive_beat(Beat* beat);

}  // namespace kiln::mpi
