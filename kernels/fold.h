// Nearest 2x upsampling followed by a 3x3 convolution (padding 1) is one 4x4 transposed convolution of stride 2, padding 1,
// with box-summed weights: along each axis K = (w2, w1 + w2, w0 + w1, w0). 16 products in place of 36, and the upsampled
// picture is never stored. Equal to rounding. And the weights of two ways with fewer products, for CPUs.
#pragma once
#include "kernels/exec/api.h"

KILN_KERNEL_API(
    /// w [o, 3, 3, i] -> k [o, 4, 4, i], both of type t; sums in f32.
    void upsample_fold(Stream stream, DType t, int o, int i, const void* w, void* k);
    /// The adjoint, in f32: dw [o, 3, 3, i] from dk [o, 4, 4, i].
    void upsample_fold_backward(Stream stream, int o, int i, const float* dk, float* dw);

    /// A 3x3 convolution (padding 1) followed by 2x2 average pooling as one 4x4 convolution of stride 2, padding 1:
    /// w [o, 3, 3, i] -> k [o, 4, 4, i], along each axis K = (w0, w0 + w1, w1 + w2, w2) / 2. Both of type t.
    void pool_fold(Stream stream, DType t, int o, int i, const void* w, void* k);
    void pool_fold_backward(Stream stream, int o, int i, const float* dk, float* dw);
    /// The weight of the convolution's adjoint: a [i, 3, 3, o] = factor * w [o, 3, 3, i] with both kernel axes mirrored. Its own
    /// adjoint is itself, with o and i exchanged.
    void adjoint_weights(Stream stream, int o, int i, float factor, const float* w, float* a);

    /// w [o, 3, 3, i] -> u [9, o, i], the weights of the nine products of engine/upsample_conv.h: product 3 v + h has the sum
    /// over all taps (0), minus tap 0 (1) or tap 2 (2) along the vertical (v) and the horizontal (h).
    void upsample_products(Stream stream, int o, int i, const float* w, float* u);
    /// The adjoint: dw [o, 3, 3, i] from du [9, o, i].
    void upsample_products_backward(Stream stream, int o, int i, const float* du, float* dw);

    /// w [o, 3, 3, i] -> u [16, o, i], the weights of Winograd's F(2x2, 3x3) (engine/winograd.h): u = G w G', G = (1 0 0; 1/2 1/2
    /// 1/2; 1/2 -1/2 1/2; 0 0 1), product 4 v + h for row v and column h.
    void winograd_weights(Stream stream, int o, int i, const float* w, float* u);
    /// The adjoint: dw [o, 3, 3, i] from du [16, o, i].
    void winograd_weights_backward(Stream stream, int o, int i, const float* du, float* dw);)
