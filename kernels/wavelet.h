// Two-dimensional wavelet transforms of channels-last pictures, one level: a picture into four bands, and bands into a picture.
//
// Along one axis every transform that kiln has, its inverse and both adjoints map N numbers to N numbers by a matrix with a narrow
// band: two neighbouring outputs read a window of up to five neighbouring inputs, and only the first and the last two pairs do it with
// weights of their own. So one kernel in either direction, given those weights (engine/wavelet.cpp makes them), serves them all.
#pragma once
#include "kernels/exec/api.h"

namespace kiln {

/// One axis. Bands are counted interleaved: low 0, high 0, low 1, high 1, ... Outputs 2i and 2i + 1 are
///     sum over k of weights[case(i)][0 or 1][k] * input[2 i + start + k],     k = 0 .. width - 1,
/// with case(i) = i for the first two pairs, 3 and 4 for the last two, 2 between (fewer than five pairs: each its own). Where the
/// input index lies outside of the axis the weight is zero.
struct WaveletAxis {
  int pairs = 0, start = 0, width = 2;  // N / 2; of the window; 2 or 5
  float weights[5][2][5] = {};
};

/// A picture [n, 2 rows.pairs, 2 columns.pairs, tiles * channels].
struct WaveletShape {
  int64_t n;
  int tiles, channels;
};

/// Where a band's number (picture n, row i, column j, tile g, channel c) lies: n * picture + i * row + j * pixel + g * tile + c,
/// counted in numbers.
struct WaveletStrides {
  int64_t picture, row;
  int pixel, tile;
};

/// The four bands of every tile: low / low; high along the height (1, "TR" in the public code's quadrant picture); high along the width
/// (2, "BL"); high along both (3, "BR").
struct WaveletBands {
  void* low;
  void* high;  // null: only the low band is written, or the others are zero
  WaveletStrides low_strides, high_strides;
  int64_t offset[3];  // of bands 1, 2, 3 from `high`
};

}  // namespace kiln

KILN_KERNEL_API(
    /// bands = picture, `rows` along the height and `columns` along the width. x: the picture, dense.
    void wavelet_to_bands(Stream stream, DType t, const WaveletShape& s, const WaveletAxis& rows, const WaveletAxis& columns,
                          const void* x, const WaveletBands& y);
    /// picture = bands. y: the picture, dense.
    void wavelet_to_picture(Stream stream, DType t, const WaveletShape& s, const WaveletAxis& rows, const WaveletAxis& columns,
                            const WaveletBands& x, void* y);)
