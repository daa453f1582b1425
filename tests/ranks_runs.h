// What the tests of several ranks share: programs under mpirun, and trainings compared number by number.
#pragma once
#include <string>
#include <vector>

#include "tests/training_runs.h"

namespace kiln::test {

/// False, with a message, where this kiln was built without MPI, or where the tests run on a GPU (there is one).
bool has_ranks();
/// A command line of mpirun for `count` ranks of a program of KILN_BIN_DIR, or of a path, each with one thread.
std::vector<std::string> ranks_of(int count, const std::string& program, const std::vector<std::string>& arguments);
Finished run_ranks(int count, const std::string& program, const std::vector<std::string>& arguments);
/// mpirun with these arguments.
Finished run_mpirun(const std::vector<std::string>& arguments);
int start_mpirun(const std::vector<std::string>& arguments, const std::string& log);
/// The processes that mpirun number `process` has started, in order of their ranks, once there are `count` of them that have
/// come as far as to run the program.
std::vector<int> processes_of(int process, int count);

/// How far two checkpoints are apart, over the tensors whose names begin with a prefix and end with none of `except`. Weights are what
/// Adam moves; singular vectors and running statistics are not, and know no learning rate.
struct Distance {
  double largest = 0, beyond = 0;  // of weights; share of them that are more than `limit` apart
  double buffers = 0;              // largest of all else
};
Distance distance(const std::string& a, const std::string& b, const std::string& prefix, double limit,
                  const std::vector<std::string>& except = {});
/// The largest difference of any loss or logit in two logs, line by line; the lines must be of the same steps.
double largest_loss_difference(const std::string& run_a, const std::string& run_b);

}  // namespace kiln::test
