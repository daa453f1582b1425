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
};
}  // namespace kiln

KILN_KERNEL_API(
    /// steps[0] += 1, then one Adam step with bias correction for update steps[0], and ema = d * ema + (1 - d) * value where
    /// ema is not null. All buffers hold n floats. coefficients: 4 floats of scratch in device memory.
    void adam_update(Stream stream, int64_t n, const AdamOptions& o, const EmaOptions& e, int64_t* steps, float* value,
                     const float* grad, float* m, float* v, float* ema, float* coefficients);
    /// average = d * average + (1 - d) * value with the d of the last adam_update (batch-norm statistics).
    void ema_update(Stream stream, int64_t n, const float* coefficients, const float* value, float* average);)
