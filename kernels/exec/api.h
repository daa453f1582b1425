// What a kernel's header needs and nothing more: the storage types, the stream handle, and the macro that declares a
// launcher once for each executor. No CUDA header, no engine header: any C++ file may include a kernel's header.
#pragma once
#include <cstddef>
#include <cstdint>

namespace kiln {

/// Storage types of tensors. Arithmetic is always done in f32 (or f64 where sums are long).
enum class DType : uint8_t { f32, f16, bf16, u8, i32 };

/// A cudaStream_t on the GPU; unused on the CPU.
using Stream = void*;

}  // namespace kiln

/// Declares kernel launchers in both executors: kiln::cpu (always built) and kiln::gpu (built where nvcc is found).
/// Both builds of a .cu live in one binary; an op picks one by its tensors' device. A third namespace, kiln::traffic, has
/// the same functions once more: they run nothing and note what the launcher would move (kernels/traffic.h).
#define KILN_KERNEL_API(...) \
  namespace kiln::cpu {      \
  __VA_ARGS__                \
  }                          \
  namespace kiln::gpu {      \
  __VA_ARGS__                \
  }                          \
  namespace kiln::traffic {  \
  __VA_ARGS__                \
  }
