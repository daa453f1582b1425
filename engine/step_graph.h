// StepGraph: a training step as one CUDA graph. What varies from step to step lives in device memory (StepMemory), and the arena
// gives a step the same addresses every time; so the launches of one step are the launches of all.
#pragma once
#include <cstddef>
#include <functional>

namespace kiln {

class StepGraph {
 public:
  /// Steps that run as they are before one is captured: in them the libraries choose their algorithms and the arena grows.
  static constexpr int kWarmUp = 2;

  /// enforce_on_cpu: hold the CPU's steps to the rules below, too, as a GPU's capture does.
  explicit StepGraph(bool enforce_on_cpu = false) : enforce_on_cpu_(enforce_on_cpu) {}
  ~StepGraph();
  StepGraph(const StepGraph&) = delete;

  /// Runs a training step. On a GPU, from the third on: the step is captured, once, and the graph runs from then on; `step` is
  /// not called again, and the tensors that it left behind hold the new step's numbers. It is captured anew where something was
  /// allocated or freed since, because that memory may be the graph's. On the CPU, and while times are booked (Profile), `step` is
  /// called every time.
  ///
  /// The rules of a capture: the same work on the same addresses every time; nothing goes to or comes from the host; no memory is asked of
  /// the system. The first is what tests compare (kernels/exec/log.h), the second is asserted, the third throws kiln::Error.
  void run(const std::function<void()>& step);

  /// Forgets the graph and the warm-up.
  void reset();
  bool warm() const { return warm_steps_ >= kWarmUp; }

 private:
  void eager(const std::function<void()>& step);
  void guarded(const std::function<void()>& step);

  const bool enforce_on_cpu_;
  int warm_steps_ = 0;
  void* graph_ = nullptr;
  size_t in_use_ = 0;  // bytes of live tensors when the graph was made
};

}  // namespace kiln
