#include "engine/backend/gpu_runtime.h"

#include <algorithm>
#include <cstring>

#include "engine/error.h"
#include "kernels/pointwise.h"

#if KILN_WITH_CUDA
#include <cuda_runtime.h>
#endif

namespace kiln::gpu_runtime {
namespace {

constexpr int kOldest = 75;  // compute capability 7.5: Turing

int chosen = 0;  // the GPU that this process uses

/// CUDA's error numbers (cudaError_t) that have a meaning to a user, so that a build without CUDA can be tested with
/// them, too.
enum CudaError : int {
  kSuccess = 0,
  kMemoryAllocation = 2,
  kStubLibrary = 34,
  kInsufficientDriver = 35,
  kDevicesUnavailable = 46,
  kInvalidDeviceFunction = 98,
  kNoDevice = 100,
  kNoKernelImage = 209,
  kUnsupportedPtx = 222,
  kDriverMismatch = 803,
  kCompatNotSupported = 804
};
#if KILN_WITH_CUDA
static_assert(kSuccess == int(cudaSuccess) && kMemoryAllocation == int(cudaErrorMemoryAllocation) &&
              kStubLibrary == int(cudaErrorStubLibrary) && kInsufficientDriver == int(cudaErrorInsufficientDriver) &&
              kDevicesUnavailable == int(cudaErrorDevicesUnavailable) &&
              kInvalidDeviceFunction == int(cudaErrorInvalidDeviceFunction) && kNoDevice == int(cudaErrorNoDevice) &&
              kNoKernelImage == int(cudaErrorNoKernelImageForDevice) &&
              kUnsupportedPtx == int(cudaErrorUnsupportedPtxVersion) &&
              kDriverMismatch == int(cudaErrorSystemDriverMismatch) &&
              kCompatNotSupported == int(cudaErrorCompatNotSupportedOnDevice));
#endif

std::string version_text(int v) { return fmt::format("{}.{}", v / 1000, v % 1000 / 10); }

}  // namespace

std::string describe(const Facts& f) {
  switch (f.trouble) {
    case Trouble::none: return "";
    case Trouble::no_cuda: return "this kiln was built without CUDA: install the CUDA toolkit and cuDNN and build it again";
    case Trouble::no_libraries:
      return "this kiln was built without cuDNN, so that it can only test its kernels on a GPU: install cuDNN 9 and build it again";
    case Trouble::no_driver: return "no NVIDIA driver is installed: install the driver of your card";
    case Trouble::old_driver:
      return fmt::format("the NVIDIA driver is too old: it is made for CUDA {}, this kiln for {}: update the driver", version_text(f.driver),
                         version_text(f.runtime));
    case Trouble::mixed_driver:
      return "the NVIDIA driver's parts are of different versions, as after an update: restart the machine";
    case Trouble::no_device: return "the NVIDIA driver shows no GPU: see nvidia-smi, and the variable CUDA_VISIBLE_DEVICES";
    case Trouble::old_gpu:
      return fmt::format("{} is of compute capability {}.{}, and kiln needs {}.{} (RTX 20 series) or later", f.name, f.major, f.minor,
                         kOldest / 10, kOldest % 10);
    case Trouble::no_code:
      return fmt::format("this kiln holds no code for {} ({}): build it again with CMAKE_CUDA_ARCHITECTURES={}{}", f.name, f.detail, f.major,
                         f.minor);
    case Trouble::busy: return fmt::format("{} is taken by another program (nvidia-smi lists them): wait for it or stop it", f.name);
    case Trouble::no_memory:
      return fmt::format("{} has no memory left, other programs hold it (nvidia-smi lists them): stop one", f.name);
    case Trouble::other: return fmt::format("the GPU cannot be used ({})", f.detail);
  }
  return "";
}

Trouble trouble_of(int error, int driver) {
  switch (error) {
    case kSuccess: return Trouble::none;
    case kStubLibrary: return Trouble::no_driver;
    case kInsufficientDriver: return driver == 0 ? Trouble::no_driver : Trouble::old_driver;
    case kUnsupportedPtx:
    case kCompatNotSupported: return Trouble::old_driver;
    case kDriverMismatch: return Trouble::mixed_driver;
    case kNoDevice: return driver == 0 ? Trouble::no_driver : Trouble::no_device;
    case kDevicesUnavailable: return Trouble::busy;
    case kMemoryAllocation: return Trouble::no_memory;
    case kInvalidDeviceFunction:
    case kNoKernelImage: return Trouble::no_code;
    default: return Trouble::other;
  }
}

std::string failure(int error, const std::string& said, const std::string& doing, const Memory& m) {
  if (error == kMemoryAllocation)
    return fmt::format(
        "out of memory on the gpu while {}: {} of its {} MB are free (nvidia-smi lists who holds the rest); use a "
        "smaller --batch, --size or "
        "width, stop the other programs, or use --device cpu",
        doing, m.free >> 20, m.total >> 20);
  if (error == kDevicesUnavailable)
    return fmt::format(
        "the GPU was refused while {}: another program has taken it (nvidia-smi lists them); wait for it or stop it, "
        "or use --device cpu",
        doing);
  return fmt::format(
      "the GPU failed while {}: {}; start again from the last checkpoint with --resume, and with --device cpu if it "
      "fails again",
      doing, said);
}

std::string out_of_memory(size_t wanted, size_t ours, const Memory& m) {
  const size_t used = m.total - std::min(m.free, m.total), others = used - std::min(ours, used);
  return fmt::format(
      "out of memory on the gpu: {} MB more are needed, and {} of its {} MB are free; this run holds {} MB, the driver and other programs "
      "about {} MB (nvidia-smi lists them); use a smaller --batch, --size or width, more --accumulate, or --device cpu",
      wanted >> 20, m.free >> 20, m.total >> 20, ours >> 20, others >> 20);
}

void choose(int index) { chosen = index; }

bool available(std::string* why) {
  const Facts& f = facts();
  if (f.trouble != Trouble::none && why) *why = describe(f);
  return f.trouble == Trouble::none;
}

void require() {
  Facts f = facts();
  if (f.trouble == Trouble::none && !f.libraries) f.trouble = Trouble::no_libraries;
  if (f.trouble != Trouble::none) fail("--device gpu: {}; or use --device cpu", describe(f));
}

#if KILN_WITH_CUDA

void check(int error, const char* doing) {
  if (error == kSuccess) return;
  (void)cudaGetLastError();
  Memory m;
  if (cudaMemGetInfo(&m.free, &m.total) != cudaSuccess) (void)cudaGetLastError();
  throw Error(failure(error, cudaGetErrorString(cudaError_t(error)), doing, m));
}

namespace {

/// Asks CUDA, up to a first kernel.
Facts look() {
  Facts f;
#if KILN_GPU_LIBRARIES
  f.libraries = true;
#endif
  (void)cudaDriverGetVersion(&f.driver);  // 0 where there is no driver
  (void)cudaRuntimeGetVersion(&f.runtime);
  const auto failed = [&](cudaError_t e) {
    (void)cudaGetLastError();
    f.trouble = trouble_of(int(e), f.driver);
    f.detail = cudaGetErrorString(e);
    return f.trouble != Trouble::none;
  };
  int n = 0;
  if (failed(cudaGetDeviceCount(&n))) return f;
  if (n == 0) {
    f.trouble = Trouble::no_device;
    return f;
  }
  const int device = chosen < n ? chosen : 0;
  cudaDeviceProp p{};
  if (failed(cudaGetDeviceProperties(&p, device))) return f;
  f.name = p.name;
  f.major = p.major;
  f.minor = p.minor;
  if (p.major * 10 + p.minor < kOldest) {
    f.trouble = Trouble::old_gpu;
    return f;
  }
  void* probe = nullptr;
  if (failed(cudaSetDevice(device)) || failed(cudaMalloc(&probe, 256))) return f;
  if (failed(cudaMemGetInfo(&f.free, &f.total))) return f;
  try {
    gpu::fill(nullptr, DType::f32, 1, 0.f, probe);
    failed(cudaDeviceSynchronize());
  } catch (const std::exception& e) {
    f.trouble = Trouble::no_code;
    f.detail = e.what();
  }
  (void)cudaFree(probe);
  return f;
}

/// Page-locked memory that small copies to the device go through, so that they need not wait: a ring of slots, each free again
/// when the copy from it is done.
class Staging {
 public:
  static constexpr size_t kSlot = 4096, kSlots = 64;

  Staging() {
    check(cudaHostAlloc(&memory_, kSlot * kSlots, cudaHostAllocDefault), "taking page-locked memory");
    for (cudaEvent_t& e : done_) check(cudaEventCreateWithFlags(&e, cudaEventDisableTiming), "making an event");
  }
  void copy(void* device, const void* host, size_t bytes, cudaStream_t s) {
    const size_t i = next_++ % kSlots;
    if (next_ > kSlots) check(cudaEventSynchronize(done_[i]), "waiting for a copy");
    char* slot = static_cast<char*>(memory_) + i * kSlot;
    std::memcpy(slot, host, bytes);
    check(cudaMemcpyAsync(device, slot, bytes, cudaMemcpyHostToDevice, s), "copying to it");
    check(cudaEventRecord(done_[i], s), "copying to it");
  }

 private:
  void* memory_ = nullptr;
  cudaEvent_t done_[kSlots] = {};
  size_t next_ = 0;
};

cudaStream_t own_stream() { return static_cast<cudaStream_t>(stream()); }

}  // namespace

const Facts& facts() {
  static const Facts f = look();
  return f;
}

int count() {
  int n = 0;
  if (cudaGetDeviceCount(&n) != cudaSuccess) {
    (void)cudaGetLastError();
    return 0;
  }
  return n;
}

Stream stream() {
  static const cudaStream_t s = [] {
    cudaStream_t made = nullptr;
    check(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking), "making a stream");
    return made;
  }();
  return s;
}

void* allocate(size_t bytes) {
  void* p = nullptr;
  if (cudaMalloc(&p, bytes) == cudaSuccess) return p;
  (void)cudaGetLastError();
  return nullptr;
}

void release(void* p) { (void)cudaFree(p); }

void copy_to(void* device, const void* host, size_t bytes) {
  if (bytes <= Staging::kSlot) {
    static thread_local Staging staging;
    staging.copy(device, host, bytes, own_stream());
    return;
  }
  check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, own_stream()), "copying to it");
  synchronise();
}

void copy_from(void* host, const void* device, size_t bytes) {
  check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, own_stream()), "copying from it");
  synchronise();
}

void synchronise() { check(cudaStreamSynchronize(own_stream()), "computing"); }
void wait() noexcept { (void)cudaStreamSynchronize(own_stream()); }

bool has_bf16() { return facts().trouble == Trouble::none && facts().major >= 8; }

std::string describe() { return fmt::format("{}, {} MB", facts().name, facts().total >> 20); }

Memory memory() {
  Memory m;
  check(cudaMemGetInfo(&m.free, &m.total), "asking for its memory");
  return m;
}

Timer::Timer(void* stream) : stream_(stream) {
  cudaEvent_t begin = nullptr, end = nullptr;
  check(cudaEventCreate(&begin), "making a timer");
  begin_ = begin;
  check(cudaEventCreate(&end), "making a timer");
  end_ = end;
  check(cudaEventRecord(begin, static_cast<cudaStream_t>(stream_)), "starting a timer");
}

Timer::~Timer() {
  for (void* e : {begin_, end_})
    if (e) (void)cudaEventDestroy(static_cast<cudaEvent_t>(e));
}

double Timer::stop() {
  const auto end = static_cast<cudaEvent_t>(end_);
  check(cudaEventRecord(end, static_cast<cudaStream_t>(stream_)), "stopping a timer");
  check(cudaEventSynchronize(end), "waiting for the GPU");
  float ms = 0;
  check(cudaEventElapsedTime(&ms, static_cast<cudaEvent_t>(begin_), end), "reading a timer");
  return double(ms);
}

#else

namespace {
[[noreturn]] void absent() { fail("this kiln was built without CUDA; use --device cpu"); }
}  // namespace

const Facts& facts() {
  static const Facts f = [] {
    Facts none;
    none.trouble = Trouble::no_cuda;
    return none;
  }();
  return f;
}
int count() { return 0; }
Stream stream() { absent(); }
void check(int, const char*) { absent(); }
void* allocate(size_t) { return nullptr; }
void release(void*) {}
void copy_to(void*, const void*, size_t) { absent(); }
void copy_from(void*, const void*, size_t) { absent(); }
void synchronise() {}
bool has_bf16() { return false; }
void wait() noexcept {}
Timer::Timer(void* stream) : stream_(stream) {}
Timer::~Timer() = default;
double Timer::stop() { fail("this kiln was built without CUDA; use --device cpu"); }
std::string describe() { return "none"; }
Memory memory() { return {}; }

#endif

}  // namespace kiln::gpu_runtime
