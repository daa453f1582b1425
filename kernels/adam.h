// Adam (Kingma & Ba 2015) and the exponential moving average of all parameters of a network, in one pass over flat buffers.
#pragma once
#include "kernels/exec/api.h"

namespace kiln {
struct AdamOptions {
  float lr = 2e-4f, beta1 = 0.5f, beta2 = 0.999f, eps = 1e-8f;
};
struct EmaOptions {
  float decay = 0.999f;
  bool warm_up = true;  // decay = min(decay, (1 + t) / (10 + t)) at update t = 1, 2, ...
  int64_t start = 0;    // at updates before this one decay = 0: the average is the value
};
/// What an optimiser keeps from update to update, in device memory: a captured step advances it itself.
struct OptimiserState {
  int64_t updates;  // done
  // Of the last update: lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t), the average's decay, and what gradients are multiplied with
  // before use, 0 where the update was left out.
  float rate, correction, decay, unscale;
  float check;  // 0, or a NaN where the gradients are not finite (kernels/step.h)
  int32_t overflowed;  // not 0 where a check since the end of the last step was a NaN: a step may hold several updates
};
static_assert(sizeof(OptimiserState) == 32);
}  // namespace kiln

KILN_KERNEL_API(
    /// state->updates += 1, then one Adam step with bias correction for that update, and ema = d * ema + (1 - d) * value where
    /// ema is not null. All buffers hold n floats. loss_scale: one number in device memory that the gradients are to be divided
    /// by, or null; with it, a state whose check is not 0 changes nothing, the number of updates included.
    void adam_update(Stream stream, int64_t n, const AdamOptions& o, const EmaOptions& e, const float* loss_scale,
                     OptimiserState* state, float* value, const float* grad, float* m, float* v, float* ema);
    /// average = d * average + (1 - d) * value with the d of the last adam_update (batch-norm statistics); nothing if that was
    /// left out.
    void ema_update(Stream stream, int64_t n, const OptimiserState* state, const float* value, float* average);)
