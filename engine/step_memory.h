// StepMemory: the one struct of device memory that a training step reads and advances by itself (kernels/step.h).
#pragma once
#include "engine/tensor.h"
#include "kernels/step.h"

namespace kiln {

class StepMemory {
 public:
  /// Step 0, and the loss scale that a training with the context's storage type begins with: scaled for f16 only, whose
  /// smallest numbers are within reach of gradients.
  StepMemory();

  /// The loss scale for Tape::backward and ParameterSet::adam_step, or null where there is none.
  const float* loss_scale() const { return scaled_ ? &state_.as<StepState>()->loss_scale : nullptr; }
  bool scaled() const { return scaled_; }
  Tensor step() const { return state_.slice(0, Shape{2}); }  // for Philox::keep_step_in
  Tensor network(int k) const;                               // for ParameterSet::keep_state_in
  /// Counts the step up, and moves the loss scale by what the first `networks` optimisers found.
  void end_step(int networks);

  Tensor whole() const { return state_; }                    // all of it
  StepState read() const;  // waits for the device
  void write(const StepState& s);

  LossScaleOptions options;

 private:
  bool scaled_;
  Tensor state_;
};

}  // namespace kiln
