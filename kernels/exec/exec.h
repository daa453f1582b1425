// What every .cu file includes: one kernel source, two executors.
//
// nvcc compiles a .cu for the GPU, into namespace kiln::gpu; the host compiler compiles the same file (as C++) for the
// host executor, into namespace kiln::cpu. Both builds can be linked into one program, because everything in a .cu lies
// in a namespace of its own:
//
//   #include "kernels/exec/exec.h"
//
//   namespace kiln::KILN_EXEC {
//   __global__ void scale_kernel(int n, float factor, float* x) {
//     const int i = blockIdx.x * blockDim.x + threadIdx.x;
//     if (i < n) x[i] *= factor;
//   }
//   void scale(int n, float factor, float* x, void* stream) {
//     launch({(n + 255) / 256, 256, 0, stream}, scale_kernel, n, factor, x);
//   }
//   }  // namespace kiln::KILN_EXEC
//
// docs/executor.md lists the rules of the dialect that both compilers take. Here are its few words that are not CUDA's:
//
//   KILN_EXEC            gpu or cpu
//   KILN_HD, KILN_D      __host__ __device__, __device__ (nothing on the host)
//   SMEM(T, name, [n])   static shared memory: __shared__ T name[n]
//   DYN_SMEM(T, name)    the launch's dynamic shared memory, as T* name (16-byte aligned)
//   Launch, launch()     in place of <<<...>>>; an error is thrown, never left for the next call to find
//   allow_smem()         permits a kernel more than 48 KB of shared memory
#pragma once

#include "kernels/exec/half.h"

#if !defined(__CUDACC__)

#include "kernels/exec/host.h"
#define KILN_EXEC cpu
#define KILN_HD
#define KILN_ROLLED
#define KILN_D

#else

#include <cuda_runtime.h>

#include <cstddef>
#include <stdexcept>
#include <string>

#define KILN_EXEC gpu
#define KILN_HD __host__ __device__
/// Before a loop that a GPU is not to unroll: registers that run out are spilled to memory.
#define KILN_ROLLED _Pragma("unroll 1")
#define KILN_D __device__

#define SMEM(T, name, ...) __shared__ T name __VA_ARGS__
#define DYN_SMEM(T, name)                                            \
  extern __shared__ __align__(16) unsigned char name##_smem_bytes[]; \
  T* name = reinterpret_cast<T*>(name##_smem_bytes)

namespace kiln::gpu {

/// The shape of a launch. `stream` is a cudaStream_t, as a plain pointer so that both executors have the same type.
struct Launch {
  dim3 grid, block;
  std::size_t smem = 0;  // bytes of dynamic shared memory
  void* stream = nullptr;
  const char* file = __builtin_FILE();  // where the launch was written, for error texts
  int line = __builtin_LINE();
};

[[noreturn]] inline void launch_failed(const Launch& at, cudaError_t error) {
  const auto shape = [](const dim3& d) {
    return "(" + std::to_string(d.x) + "," + std::to_string(d.y) + "," + std::to_string(d.z) + ")";
  };
  throw std::runtime_error(
      std::string(at.file) + ":" + std::to_string(at.line) + ": kernel launch failed: " + cudaGetErrorString(error) +
      "; grid " + shape(at.grid) + ", block " + shape(at.block) + ", " + std::to_string(at.smem) +
      " bytes of dynamic shared memory; see nvidia-smi for other programs on the GPU, or use --device cpu");
}

/// Queues the kernel on the stream. Throws std::runtime_error if CUDA refuses the launch.
template <class... P, class... A>
void launch(const Launch& at, void (*kernel)(P...), A&&... args) {
  cudaLaunchConfig_t config{};
  config.gridDim = at.grid;
  config.blockDim = at.block;
  config.dynamicSmemBytes = at.smem;
  config.stream = static_cast<cudaStream_t>(at.stream);
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, static_cast<A&&>(args)...);
  if (error != cudaSuccess) {
    (void)cudaGetLastError();  // taken: the next check of somebody else must not find it
    launch_failed(at, error);
  }
}

/// Permits the kernel up to `bytes` of dynamic shared memory: a launch with more than 48 KB in all needs it.
template <class... P>
void allow_smem(void (*kernel)(P...), std::size_t bytes) {
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (error != cudaSuccess) {
    (void)cudaGetLastError();
    throw std::runtime_error("allow_smem(" + std::to_string(bytes) + " bytes): " + cudaGetErrorString(error));
  }
}

}  // namespace kiln::gpu

#endif
