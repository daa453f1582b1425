#include "tests/ranks_runs.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "engine/safetensors.h"
#include "tests/support.h"

namespace kiln::test {

#ifndef KILN_MPIEXEC
#define KILN_MPIEXEC ""
#endif

bool has_ranks() {
  if (std::strlen(KILN_MPIEXEC) == 0) MESSAGE("skipped: this kiln was built without MPI");
  return std::strlen(KILN_MPIEXEC) > 0 && test_device() == Device::cpu;
}

namespace {
/// For Open MPI: a container's only user is root, and tests start more ranks than there are processors.
const std::vector<std::string> kEnvironment{"OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1", "OMPI_MCA_rmaps_base_oversubscribe=1",
                                            "OMPI_MCA_btl_vader_single_copy_mechanism=none", "OMP_NUM_THREADS=1"};
}  // namespace

std::vector<std::string> ranks_of(int count, const std::string& program, const std::vector<std::string>& arguments) {
  std::vector<std::string> a{"-np", std::to_string(count), program.find('/') == std::string::npos ? std::string(KILN_BIN_DIR) + "/" + program : program};
  a.insert(a.end(), arguments.begin(), arguments.end());
  return a;
}

Finished run_mpirun(const std::vector<std::string>& arguments) { return run_program(KILN_MPIEXEC, arguments, ".", kEnvironment); }

Finished run_ranks(int count, const std::string& program, const std::vector<std::string>& arguments) {
  return run_mpirun(ranks_of(count, program, arguments));
}

int start_mpirun(const std::vector<std::string>& arguments, const std::string& log) {
  return start_program(KILN_MPIEXEC, arguments, log, kEnvironment);
}

std::vector<int> processes_of(int process, int count) {
  for (int tries = 0; tries < 3000; tries++) {
    std::map<int, int> by_rank;
    std::ifstream children("/proc/" + std::to_string(process) + "/task/" + std::to_string(process) + "/children");
    for (int child = 0; children >> child;) {
      const std::string environment = file_text("/proc/" + std::to_string(child) + "/environ");
      const std::string key = std::string("\0OMPI_COMM_WORLD_RANK=", 22);
      const size_t at = environment.find(key);
      if (at != std::string::npos) by_rank[std::atoi(environment.c_str() + at + key.size())] = child;
    }
    if (int(by_rank.size()) == count) {
      std::vector<int> out;
      for (const auto& [rank, child] : by_rank) out.push_back(child);
      return out;
    }
    usleep(10000);
  }
  FAIL("mpirun did not start its processes");
  return {};
}

namespace {
std::vector<float> floats(const TensorView& view) {
  std::vector<float> v(view.bytes / 4);
  std::memcpy(v.data(), view.data, view.bytes);
  return v;
}
}  // namespace

Distance distance(const std::string& a, const std::string& b, const std::string& prefix, double limit, const std::vector<std::string>& except) {
  const SafetensorsFile one(a), two(b);
  Distance d;
  int64_t count = 0, beyond = 0;
  for (const TensorView& view : one.tensors()) {
    if (!view.name.starts_with(prefix)) continue;
    if (std::any_of(except.begin(), except.end(), [&](const std::string& end) { return view.name.ends_with(end); })) continue;
    const bool weights = !view.name.ends_with(".u") && !view.name.ends_with(".v") && view.name.find(".running_") == std::string::npos;
    const std::vector<float> x = floats(view), y = floats(two.at(view.name));
    REQUIRE(x.size() == y.size());
    for (size_t i = 0; i < x.size(); i++) {
      const double difference = std::abs(double(x[i]) - double(y[i]));
      double& largest = weights ? d.largest : d.buffers;
      if (!(difference <= largest)) largest = difference;
      beyond += weights && !(difference <= limit);
    }
    if (!weights) continue;
    count += int64_t(x.size());
  }
  REQUIRE(count > 0);
  d.beyond = double(beyond) / double(count);
  return d;
}

double largest_loss_difference(const std::string& run_a, const std::string& run_b) {
  const std::vector<std::string> a = timeless_log(run_a), b = timeless_log(run_b);
  REQUIRE(a.size() == b.size());
  double most = 0;
  int compared = 0;
  for (size_t i = 0; i < a.size(); i++) {
    const nlohmann::json x = nlohmann::json::parse(a[i]), y = nlohmann::json::parse(b[i]);
    REQUIRE(x.at("step") == y.at("step"));
    for (const auto& [key, value] : x.items())
      if (key.starts_with("loss_") || key.starts_with("logit_") || key.starts_with("recon_")) {
        const double d = std::abs(value.get<double>() - y.at(key).get<double>());
        if (!(d <= most)) most = d;
        compared++;
      }
  }
  REQUIRE(compared > 0);
  return most;
}

}  // namespace kiln::test
