// The few CUDA runtime calls that the engine makes, behind plain functions: no engine file includes a CUDA header.
// In a build without CUDA there is no GPU: available() is false and nothing else may be called.
#pragma once
#include <cstddef>
#include <string>

namespace kiln::gpu_runtime {

bool compiled_in();
/// True if a CUDA device can be used; `why` gets the reason if not, in words for the user.
bool available(std::string* why = nullptr);
void* allocate(size_t bytes);  // null if the device has no more
void release(void* p);
void copy_to(void* device, const void* host, size_t bytes);
void copy_from(void* host, const void* device, size_t bytes);
void synchronise();
/// True if the GPU multiplies bf16 numbers: compute capability 8.0 or later.
bool has_bf16();
std::string describe();  // "NVIDIA GeForce RTX 2080 Ti, 11264 MB"

}  // namespace kiln::gpu_runtime
