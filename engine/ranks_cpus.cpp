// How the processors of a machine are shared among the ranks on it.
#include <omp.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <string>

#include "engine/backend/mpi.h"
#include "engine/ranks.h"

namespace kiln {

CpuShare share_cpus(const std::vector<int>& own, const std::vector<int>& launcher, int local_rank, int local_size, bool chosen) {
  std::set<int> all(launcher.begin(), launcher.end());
  all.insert(own.begin(), own.end());
  const int each = std::max(1, int(all.size()) / std::max(1, local_size));
  CpuShare share;
  if (chosen) {
    // Several ranks may be bound to the same socket, or to nothing.
    share.threads = std::clamp(each, 1, std::max(1, int(own.size())));
    return share;
  }
  share.threads = each;
  if (int(all.size()) < local_size) {
    share.cpus.assign(all.begin(), all.end());  // more ranks than processors: the system may choose
  } else {
    auto first = std::next(all.begin(), local_rank * each);
    share.cpus.assign(first, std::next(first, each));
  }
  return share;
}

namespace {

std::vector<int> cpus_of(pid_t process) {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> out;
  if (sched_getaffinity(process, sizeof set, &set) != 0) return out;
  for (int i = 0; i < CPU_SETSIZE; i++)
    if (CPU_ISSET(i, &set)) out.push_back(i);
  return out;
}

}  // namespace

void take_cpu_share() {
  const mpi::Launch launch = mpi::launch();
  if (launch.size <= 1 || std::getenv("OMP_NUM_THREADS")) return;
  const CpuShare share = share_cpus(cpus_of(0), cpus_of(getppid()), launch.local_rank, launch.local_size, launch.bound_by_user);
  if (!share.cpus.empty()) {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (const int i : share.cpus) CPU_SET(i, &set);
    sched_setaffinity(0, sizeof set, &set);  // if it is refused, the ranks share as the system likes
  }
  setenv("OMP_NUM_THREADS", std::to_string(share.threads).c_str(), 1);  // for a program that starts itself again
  omp_set_num_threads(share.threads);
}

}  // namespace kiln
