// The ops of networks that make large pictures of small ones. Same conventions as engine/ops.h.
#pragma once
#include "engine/ops_conditional.h"

namespace kiln {

/// A parameter as a convolution or linear() reads it, in the context's storage type; what arrives at it in backward, f32, is added to the
/// parameter's gradient. Constant where weights are frozen.
Var stored_parameter(Param& p);
/// The same numbers in another floating type, gradient included.
Var cast_to(const Var& x, DType t);
/// x + bias [c], times slope where that is negative: slope 0 is ReLU, 1 linear, anything between leaky. Overwrites x where nobody else
/// holds it: hand a temporary over.
Var bias_slope(Var x, Param& bias, float slope);
/// Twice the size, bilinear between fixed corners (align_corners): [n, h, w, c] -> [n, 2h, 2w, c].
Var upsample_bilinear2x(const Var& x);
/// `groups` convolutions side by side, each of its own channels: x [n, h, w, groups * c], weight [groups * oc, kh, kw, c] ->
/// [n, (h + 2 pad - kh) / stride + 1, ..., groups * oc].
Var grouped_conv2d(const Var& x, const Var& weight, int groups, int stride, int pad);

/// The mean of logits over the whole batch: all ranks' pictures. [1] f32.
Var mean_logit(const Var& logits);
/// Relativistic average loss (kernels/loss.h), a single number: logits of one side against the mean of the other's; sign +1 where they
/// are to lie above it. The gradient goes to the mean too where it wants one.
Var relativistic_loss(const Var& logits, const Var& mean, float sign);

}  // namespace kiln
