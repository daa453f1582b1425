// Wavelet transforms of pictures: the wavelets along one axis, and the ops in two dimensions. NSB-GAN's sampler works on the low
// band, its decoders supply the others (docs/nsbgan.md).
//
// One level splits a picture [n, h, w, c], h and w even, into four bands of half the size: TL low / low, TR high along the height,
// BL high along the width, BR high along both (the public code's quadrants; TR and BL are the other way round in most pictures of
// wavelet transforms). Each channel is transformed by itself. Along an axis, with values x[0 .. N-1]:
//
//   haar             low[k] = (x[2k] + x[2k+1]) / sqrt 2, high[k] = (x[2k] - x[2k+1]) / sqrt 2. Orthonormal: the inverse is the adjoint.
//   bior2.2          LeGall's 5/3 with zeros beyond both ends, as NSB-GAN's public code pads: low = sqrt 2 (-1/8, 1/4, 3/4, 1/4, -1/8)
//                    around 2k, high = sqrt 2 (1/4, -1/2, 1/4) around 2k + 1. Exact inside; one level spoils one number at each end.
//   bior2.2-reflect  the same filters on the values mirrored at the first and the last one, by lifting as in JPEG 2000:
//                    d = x[2k+1] - (x[2k] + x[2k+2]) / 2, s = x[2k] + (d[k-1] + d[k]) / 4, low = sqrt 2 s, high = -d / sqrt 2. Undone step by
//                    step: exact everywhere.
//
//   lazy             low[k] = x[2k], high[k] = x[2k+1]: the phases as they are, no filter. Not a choice for users.
//
// A constant c has the low band 2c per level (lazy: c). Filters, borders and signs are PyWavelets' haar and bior2.2; its name for the
// mirroring is `reflect`, and its bands are longer than n by what the filters overhang.
#pragma once
#include <string>
#include <vector>

#include "engine/tape.h"

namespace kiln {

enum class Wavelet : uint8_t { haar, bior22, bior22_reflect, lazy };
const char* name_of(Wavelet w);                      // "haar", "bior2.2", "bior2.2-reflect", "lazy"
Wavelet wavelet_from_name(const std::string& name);  // of the first three; throws kiln::Error

/// One level along an axis of N numbers, N even and at least 2, in double precision: the definition of everything below. Bands are
/// interleaved: low 0, high 0, low 1, high 1, ...
std::vector<double> wavelet_line(Wavelet w, const std::vector<double>& x);
std::vector<double> wavelet_line_inverse(Wavelet w, const std::vector<double>& bands);

// ---- ops ------------------------------------------------------------------------------------------------------------------
// Of pictures and their bands in any floating type; backward is the exact adjoint, borders included. Sizes that a level halves must
// be even (asserted).

/// One level of every `tile` neighbouring channels: x [n, h, w, g * tile] -> [n, h/2, w/2, 4 g tile]. Tile k becomes tiles
/// 4k .. 4k + 3: its TL, TR, BL, BR.
Var wavelet_split(const Var& x, Wavelet w, int64_t tile);
/// The inverse (of bior2.2: up to its borders): [n, h, w, 4 g tile] -> [n, 2h, 2w, g * tile].
Var wavelet_join(const Var& x, Wavelet w, int64_t tile);

/// The four phases of a picture's pixels: [n, h, w, c] -> [n, h/2, w/2, 4c], pixel (2i + a, 2j + b) in block a + 2b of the channels.
inline Var space_to_depth(const Var& x) { return wavelet_split(x, Wavelet::lazy, x.shape()[3]); }
/// The inverse, sub-pixel convolution's last step (Shi et al. 2016): [n, h, w, 4c] -> [n, 2h, 2w, c]. PyTorch's PixelShuffle has
/// channel 4k + 2a + b where this has (a + 2b) c + k.
inline Var depth_to_space(const Var& x) { return wavelet_join(x, Wavelet::lazy, x.shape()[3] / 4); }

/// The packet of `levels` levels, every band split again: x [n, h, w, c] -> [n, h / 2^L, w / 2^L, 4^L c], tile by tile in nested
/// order, the first level outermost, c channels in each. Tile 0 is the low band; the tiles of a pyramid's quadrant are neighbours.
Var wavelet_packet(const Var& x, Wavelet w, int levels);
Var wavelet_unpacket(const Var& x, Wavelet w, int levels);

/// The pyramid of `levels` levels, the low band split again, as a picture of quadrants [n, h, w, c]: TL, TR, BL, BR are its top left,
/// top right, bottom left and bottom right, TL holding the levels below.
Var wavelet_pyramid(const Var& x, Wavelet w, int levels);
Var wavelet_unpyramid(const Var& x, Wavelet w, int levels);

/// The pyramid's last low band alone: [n, h, w, c] -> [n, h / 2^L, w / 2^L, c].
Var low_band(const Var& x, Wavelet w, int levels);
/// The inverse pyramid of a low band, all other bands zero: [n, h, w, c] -> [n, 2^L h, 2^L w, c].
Var from_low_band(const Var& x, Wavelet w, int levels);

/// The inverse Haar transform of rows, for weights (engine/wavelet_conv.h): x [4 g tile, ...], of which rows 4 k tile .. 4 (k + 1) tile - 1
/// are the four bands of tile k, to the same shape, rows (4 k + a + 2 b) tile .. being pixel (a, b) of its block.
Var haar_rows(const Var& x, int64_t tile);

/// What the low band's numbers can be, lowest and highest, for pictures on [low, high]: [-3.28, 7.28] for two levels of bior2.2 on [0, 1].
std::pair<double, double> low_band_range(Wavelet w, int levels, double low, double high);

}  // namespace kiln
