// Losses with their gradients. Values are single floats in device memory.
#pragma once
#include "kernels/exec/api.h"

KILN_KERNEL_API(
    /// Hinge loss of a discriminator's logits (Lim & Ye 2017) with a margin per logit, m = margin_low + (1 - margin_low) u:
    /// value = mean(relu(m - sign * logit)), mean_logit = mean(logit), gradient = d value / d logit.
    /// sign +1 for real pictures, -1 for fakes. u: [n] uniforms, or null for m = 1.
    void hinge_loss(Stream stream, DType t, int64_t n, float sign, float margin_low, const void* logits, const float* u,
                    float* value, float* mean_logit, float* gradient);
    /// Binary cross-entropy of a relativistic discriminator (Jolicoeur-Martineau 2019): of x = logits - mean[0], where mean is that of the
    /// other side's logits: value = mean(softplus(-sign x)), sign +1 where they are to lie above it. gradient [n] = d value / d logit,
    /// d_mean[0] = d value / d mean.
    void relativistic_loss(Stream stream, DType t, int64_t n, float sign, const void* logits, const float* mean, float* value,
                           float* gradient, float* d_mean);
    /// value = factor * mean(x).
    void mean_value(Stream stream, DType t, int64_t n, float factor, const void* x, float* value);
    /// value = sum over pictures of mean over a picture of |x - y|^power (power 1 or 2). scratch: 32 floats.
    void difference_loss(Stream stream, DType t, int64_t n, int64_t per_picture, int power, const void* x, const void* y,
                         float* value, float* scratch);
    /// value = sum of x[i]^2. scratch: 32 floats.
    void square_sum(Stream stream, int64_t n, const float* x, float* value, float* scratch);
    /// dx = seed * d difference_loss / dx; seed is one number in device memory.
    void difference_backward(Stream stream, DType t, int64_t n, int64_t per_picture, int power, const void* x, const void* y,
                             const float* seed, void* dx);
    /// y = seed[0] * x, x f32 and y of type t.
    void scale_by(Stream stream, DType t, int64_t n, const float* seed, const float* x, void* y);
    /// y = factor * seed[0].
    void broadcast(Stream stream, DType t, int64_t n, float factor, const float* seed, void* y);)
