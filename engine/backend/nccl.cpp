#include "engine/backend/nccl.h"

#include "engine/error.h"

#if KILN_WITH_NCCL
#include <cuda_runtime.h>
#include <nccl.h>

#include <cstring>
#endif

namespace kiln::nccl {

#if KILN_WITH_NCCL

namespace {

// One communicator a process, as one GPU.
ncclComm_t communicator = nullptr;
cudaStream_t beside = nullptr;
cudaEvent_t before = nullptr, after = nullptr;
bool pending = false;

void check(ncclResult_t r, const char* what) {
  if (r == ncclSuccess) return;
  const char* last = ncclGetLastError(communicator);
  fail("NCCL failed while {}: {}{}{}; NCCL_DEBUG=INFO tells more", what, ncclGetErrorString(r), last && *last ? ": " : "", last ? last : "");
}

void check(cudaError_t e, const char* what) {
  if (e == cudaSuccess) return;
  (void)cudaGetLastError();
  fail("the GPU failed while {}: {}", what, cudaGetErrorString(e));
}

}  // namespace

bool built_in() { return true; }

std::string make_id() {
  ncclUniqueId id;
  check(ncclGetUniqueId(&id), "making an id");
  return std::string(id.internal, sizeof id.internal);
}

void start(const std::string& text, int rank, int size) {
  ncclUniqueId id;
  KILN_ASSERT(text.size() == sizeof id.internal && !communicator);
  std::memcpy(id.internal, text.data(), text.size());
  check(ncclCommInitRank(&communicator, size, id, rank), "joining the other GPUs");
  check(cudaStreamCreateWithFlags(&beside, cudaStreamNonBlocking), "making a stream");
  check(cudaEventCreateWithFlags(&before, cudaEventDisableTiming), "making an event");
  check(cudaEventCreateWithFlags(&after, cudaEventDisableTiming), "making an event");
}

void stop() noexcept {
  if (!communicator) return;
  (void)cudaDeviceSynchronize();
  (void)ncclCommDestroy(communicator);
  communicator = nullptr;
}

void sum(void* x, int64_t n, bool f64, Stream stream) {
  check(ncclAllReduce(x, x, size_t(n), f64 ? ncclFloat64 : ncclFloat32, ncclSum, communicator, static_cast<cudaStream_t>(stream)), "adding up");
}

void start_sum(float* x, int64_t n, Stream stream) {
  // An event may be recorded again at once: a wait is for the record before it.
  check(cudaEventRecord(before, static_cast<cudaStream_t>(stream)), "adding up");
  check(cudaStreamWaitEvent(beside, before, 0), "adding up");
  sum(x, n, false, beside);
  pending = true;
}

void finish_sums(Stream stream) {
  if (!pending) return;
  check(cudaEventRecord(after, beside), "adding up");
  check(cudaStreamWaitEvent(static_cast<cudaStream_t>(stream), after, 0), "adding up");
  pending = false;
}

#else

namespace {
[[noreturn]] void absent() { fail("this kiln was built without NCCL"); }
}  // namespace

bool built_in() { return false; }
std::string make_id() { absent(); }
void start(const std::string&, int, int) { absent(); }
void stop() noexcept {}
void sum(void*, int64_t, bool, Stream) { absent(); }
void start_sum(float*, int64_t, Stream) { absent(); }
void finish_sums(Stream) {}

#endif

}  // namespace kiln::nccl
