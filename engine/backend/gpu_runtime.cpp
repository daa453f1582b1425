#include "engine/backend/gpu_runtime.h"

#include "engine/error.h"

#if KILN_WITH_CUDA
#include <cuda_runtime.h>
#endif

namespace kiln::gpu_runtime {

#if KILN_WITH_CUDA

namespace {
void check(cudaError_t e, const char* what) {
  if (e != cudaSuccess) fail("{}: {}; is another program using the GPU? --device cpu works without it", what, cudaGetErrorString(e));
}
}  // namespace

bool compiled_in() { return true; }

bool available(std::string* why) {
  int n = 0;
  const cudaError_t e = cudaGetDeviceCount(&n);
  if (e == cudaSuccess && n > 0) return true;
  if (why) *why = e == cudaSuccess ? "no CUDA device was found" : cudaGetErrorString(e);
  return false;
}

void* allocate(size_t bytes) {
  void* p = nullptr;
  if (cudaMalloc(&p, bytes) == cudaSuccess) return p;
  (void)cudaGetLastError();
  return nullptr;
}

void release(void* p) { (void)cudaFree(p); }

void copy_to(void* device, const void* host, size_t bytes) {
  check(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice), "copying to the GPU");
}

void copy_from(void* host, const void* device, size_t bytes) {
  check(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost), "copying from the GPU");
}

void synchronise() { check(cudaDeviceSynchronize(), "waiting for the GPU"); }

bool has_bf16() {
  int major = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), "reading the GPU's properties");
  return major >= 8;
}

std::string describe() {
  cudaDeviceProp p{};
  check(cudaGetDeviceProperties(&p, 0), "reading the GPU's properties");
  return fmt::format("{}, {} MB", p.name, p.totalGlobalMem >> 20);
}

#else

bool compiled_in() { return false; }
bool available(std::string* why) {
  if (why) *why = "this kiln was built without CUDA";
  return false;
}
void* allocate(size_t) { return nullptr; }
void release(void*) {}
void copy_to(void*, const void*, size_t) { fail("this kiln was built without CUDA; use --device cpu"); }
void copy_from(void*, const void*, size_t) { fail("this kiln was built without CUDA; use --device cpu"); }
void synchronise() {}
bool has_bf16() { return false; }
std::string describe() { return "none"; }

#endif

}  // namespace kiln::gpu_runtime
