#include "engine/context.h"

#include "engine/backend/gpu_runtime.h"
#include "engine/error.h"
#include "engine/random.h"

namespace kiln {
namespace {
thread_local Context* current = nullptr;
}

const char* name_of(Work work) {
  switch (work) {
    case Work::convolution: return "convolution";
    case Work::matrix: return "matrix";
    case Work::pointwise: return "pointwise";
    case Work::reduction: return "reduction";
    case Work::optimiser: return "optimiser";
    case Work::data: return "data";
    case Work::ranks: return "ranks";
    default: return "?";
  }
}

Context::Context(Device d, bool plan, size_t memory_limit)
    : device(d), planning(plan), arena(std::make_shared<Arena>(d, plan, memory_limit)) {
  if (d == Device::gpu) {
    gpu_runtime::require();
    stream = gpu_runtime::stream();
  }
}

Context::~Context() = default;

Context& context() {
  KILN_ASSERT(current != nullptr);
  return *current;
}

Context* current_context() { return current; }

void wait_for_device() noexcept {
  if (current && current->device == Device::gpu && !current->planning) gpu_runtime::wait();
}

UseContext::UseContext(Context& c) : before_(current) { current = &c; }
UseContext::~UseContext() { current = before_; }

}  // namespace kiln
