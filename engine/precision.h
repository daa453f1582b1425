// The storage type of a network's activations: what --precision means on each device.
#pragma once
#include <string>

#include "engine/tensor.h"

namespace kiln {

/// "f32", "bf16", "f16", or "auto": bf16 on GPUs that have it (compute capability 8.0 and later), f16 on older ones, f32 on
/// the CPU. Throws kiln::Error for any other word.
DType precision_from_name(const std::string& name, Device device);

/// Throws kiln::Error, naming --precision and the remedy, where the device has no arithmetic for the type. f16 on the CPU is
/// allowed: slow, for looking into what a GPU will do.
void require_precision(DType t, Device device);

}  // namespace kiln
