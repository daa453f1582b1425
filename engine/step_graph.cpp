#include "engine/step_graph.h"

#include "engine/backend/gpu_graph.h"
#include "engine/context.h"

namespace kiln {

StepGraph::~StepGraph() { reset(); }

void StepGraph::reset() {
  gpu_graph::release(graph_);
  graph_ = nullptr;
  warm_steps_ = 0;
}

/// A step under the rules of a capture.
void StepGraph::guarded(const std::function<void()>& step) {
  const Scoped<bool> capturing(&Context::capturing, true);
  const Arena::Closed closed(*context().arena);
  step();
}

void StepGraph::eager(const std::function<void()>& step) {
  const size_t reserved = context().arena->stats().reserved;
  step();
  // A step that still made the arena grow may not be the last one that does.
  if (warm_steps_ < kWarmUp - 1 || context().arena->stats().reserved == reserved) warm_steps_++;
}

void StepGraph::run(const std::function<void()>& step) {
  Context& c = context();
  if (c.device == Device::gpu && graph_ && c.arena->stats().in_use != in_use_) {
    gpu_graph::release(graph_);
    graph_ = nullptr;
  }
  if (!warm() || c.planning || (c.device == Device::gpu ? c.profile.on : !enforce_on_cpu_)) {
    eager(step);
  } else if (c.device == Device::cpu) {
    guarded(step);
  } else {
    if (!graph_) {
      gpu_graph::begin_capture(c.stream);
      try {
        guarded(step);
      } catch (...) {
        gpu_graph::abandon_capture(c.stream);
        throw;
      }
      graph_ = gpu_graph::end_capture(c.stream);
      in_use_ = c.arena->stats().in_use;
    }
    gpu_graph::launch(graph_, c.stream);
  }
}

}  // namespace kiln
