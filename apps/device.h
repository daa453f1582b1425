// What --device means, for every training program.
#pragma once
#include <string>

#include "engine/backend/gpu_runtime.h"
#include "engine/error.h"
#include "engine/ranks.h"
#include "engine/tensor.h"

namespace kiln {

/// auto is the GPU where one can be trained on. Where there is one that cannot, the run says why it does without. Throws
/// kiln::Error for gpu where there is none.
inline Device device_from(const std::string& name) {
  if (name == "gpu") gpu_runtime::require();
  if (name != "auto") return name == "gpu" ? Device::gpu : Device::cpu;
  using gpu_runtime::Trouble;
  const gpu_runtime::Facts& f = gpu_runtime::facts();
  if (f.trouble == Trouble::none && f.libraries) return Device::gpu;
  if (f.trouble != Trouble::none && !f.name.empty() && Ranks::speaks()) fmt::print("on the CPU: {}\n", gpu_runtime::describe(f));
  return Device::cpu;
}

}  // namespace kiln
