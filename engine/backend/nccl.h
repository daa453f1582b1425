// Sums over the GPUs of several processes by NCCL, behind plain functions. In a build without NCCL built_in() is false and nothing
// else may be called. All throw kiln::Error with what NCCL said.
#pragma once
#include <cstdint>
#include <string>

#include "kernels/exec/api.h"

namespace kiln::nccl {

bool built_in();

/// What the ranks of one communicator have in common: made by one of them, told to the others.
std::string make_id();
/// Joins the others on this process's GPU; returns when all have. Once in a process.
void start(const std::string& id, int rank, int size);
void stop() noexcept;

/// Adds up x [n] in device memory over all ranks, in place, in the stream's order.
void sum(void* x, int64_t n, bool f64, Stream stream);
/// The same beside the stream: it begins when what the stream was given so far is done, and what the stream is given next does not
/// wait for it. May be captured together with the stream.
void start_sum(float* x, int64_t n, Stream stream);
/// What the stream is given from here on waits for all that was started.
void finish_sums(Stream stream);

}  // namespace kiln::nccl
