// Wavelet transforms folded into the convolutions beside them. Haar's transform mixes the four pixels of a block with fixed numbers, and
// nothing lies between it and the convolution; so the numbers can be mixed into the weight, once, in place of the picture. Exact but for
// rounding, borders included: beyond the picture both see zeros. The weight that is trained is the convolution's own; its gradient comes
// back through the same mixing, and nothing of the transformed picture is stored.
#pragma once
#include "engine/wavelet.h"

namespace kiln {

/// conv2d(wavelet_packet(x, haar, levels), weight, 1, k / 2) as one convolution of x with a kernel of 2^levels k and stride 2^levels.
/// x [n, h, w, c], h and w divisible by 2^levels; weight [oc, k, k, 4^levels c], k odd -> [n, h / 2^levels, w / 2^levels, oc].
Var wavelet_conv(const Var& x, const Var& weight, int levels = 1);

/// wavelet_unpacket(conv2d(x, weight, 1, k / 2) + bias, haar, levels) as one convolution with mixed filters and biases, whose channels
/// are then laid out as pixels. x [n, h, w, ic], weight [4^levels c, k, k, ic], k odd, bias f32 [4^levels c] or empty ->
/// [n, 2^levels h, 2^levels w, c]. (An activation between convolution and transform is nothing that can be folded.)
Var conv_wavelet_unpacket(const Var& x, const Var& weight, const Var& bias, int levels = 1);

}  // namespace kiln
