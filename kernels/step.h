// What changes from one training step to the next, in device memory: the same launches with the same arguments are every step,
// so that a captured CUDA graph of a step is right for all of them.
//
// Dynamic loss scaling (Micikevicius et al. 2018, section 3.2) is decided here, with no look from the host: gradients come
// multiplied by the loss scale; a network whose gradients hold an infinity or a NaN is not updated in this step; at the step's
// end one overflow halves the scale, and `interval` steps without one double it.
#pragma once
#include "kernels/adam.h"
#include "kernels/exec/api.h"

namespace kiln {

struct LossScaleOptions {
  float first = 65536, least = 1, most = 16777216;
  int interval = 2000;  // good steps before the scale doubles
};

/// One struct of device memory a training.
struct StepState {
  uint64_t step;       // of the random numbers
  float loss_scale;    // 1 where gradients are not scaled
  int32_t good_steps;  // since the scale last changed
  int64_t overflows;   // steps with an update left out
  uint64_t reserved[5];
  OptimiserState network[6];
};
static_assert(sizeof(StepState) == 256);

}  // namespace kiln

KILN_KERNEL_API(
    /// check[0] = 0 if all n numbers are finite, else a NaN. scratch: 32 floats.
    void check_finite(Stream stream, int64_t n, const float* x, float* check, float* scratch);
    /// Ends a step: the loss scale by what the first `networks` checks say, if it `scaled` (then the checks go back to 0), and
    /// step += 1.
    void end_step(Stream stream, int networks, bool scaled, const LossScaleOptions& o, StepState* state);)
