// The part of orthogonal regularisation that is no matrix product: what is done to the Gram matrix W W' before it meets W again.
#pragma once
#include "kernels/exec/api.h"

KILN_KERNEL_API(
    /// g [n, n] in place: the diagonal becomes 0 (off_diagonal) or g - 1, then everything is multiplied by `factor`, and by
    /// the number in device memory `loss_scale` unless it is null.
    void gram_residual(Stream stream, int n, bool off_diagonal, float factor, const float* loss_scale, float* g);)
