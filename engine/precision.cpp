#include "engine/precision.h"

#include "engine/backend/gpu_runtime.h"
#include "engine/convolution.h"
#include "engine/error.h"

namespace kiln {

DType precision_from_name(const std::string& name, Device device) {
  if (name == "auto") return device == Device::cpu ? DType::f32 : gpu_runtime::has_bf16() ? DType::bf16 : DType::f16;
  for (const DType t : {DType::f32, DType::bf16, DType::f16})
    if (name == name_of(t)) return t;
  fail("--precision {}: is not known; use auto, f32, bf16 or f16", name);
}

void require_precision(DType t, Device device) {
  if (t != DType::bf16) return;
  if (device == Device::cpu && !cpu_has_bf16())
    fail("--precision bf16: this CPU has no bf16 arithmetic (AVX512_BF16 or AMX), and without it bf16 is slower than f32; use --precision f32");
  if (device == Device::gpu && !gpu_runtime::has_bf16())
    fail("--precision bf16: this GPU has no bf16 arithmetic (compute capability 8.0 or later has); use --precision f16 or f32");
}

}  // namespace kiln
