// What follows a convolution of a network that is only used, not trained: its batch norm is folded into the weights, so that
// a bias is left of it, and the noise injection before it becomes noise of one strength per channel.
#pragma once
#include "kernels/exec/api.h"

KILN_KERNEL_API(
    /// z = x + bias[c] + strength[c] * noise[r], x [rows, 2h]; y [rows, h] = z[:, :h] * sigmoid(z[:, h:]) * gate[r / pixels, :].
    /// noise [rows] and strength [2h] may be null, both together, and so may gate [rows / pixels, h]; pixels is the number of
    /// rows of a picture. bias, strength, noise and gate are f32.
    void biased_glu(Stream stream, DType t, int64_t rows, int h, const void* x, const float* bias, const float* noise,
                    const float* strength, int64_t pixels, const float* gate, void* y);)
