// Spectral normalisation (Miyato et al. 2018) of all layers of a network at once: a few launches, whatever their number.
//
// Each layer's weight is a matrix W [rows, cols] = [C_out, kh * kw * C_in] inside one flat buffer; u [rows], v [cols].
//   power iteration   v = n(W' u), then u = n(W v), both stored; n(a) = a / max(|a|, 1e-12)
//   sigma = u' W v with the current W; the layer uses W / sigma
//   gradient          with A = dL / d(W / sigma), u and v constants:  dW = (A - <A, W / sigma> u v') / sigma
#pragma once
#include "kernels/exec/api.h"

namespace kiln {

/// One layer. Offsets count floats from the start of the flat buffers; the work lists below are made of these.
struct SpectralLayer {
  int64_t w;        // in the parameters and their gradients
  int64_t packed;   // in the normalised weights and their gradients, which hold nothing but these matrices
  int64_t u, v;     // in the saved vectors
  int64_t partial;  // in the scratch buffer: row_chunks * cols floats for W'u, rows for Wv
  int32_t rows, cols, row_chunks, pad;
};

/// One block's share of a layer.
struct SpectralTile {
  int32_t layer, row, col, last;  // first row and column; last = tiles of this layer in the same list
};

constexpr int kSpectralRows = 64;     // rows a tile of W'u adds up
constexpr int kSpectralCols = 1024;   // columns of such a tile
constexpr int kSpectralDotRows = 16;  // rows of a tile in the passes that walk along rows

/// Device memory of a network's spectral normalisation. Tables are built once, by engine/spectral.
struct SpectralTables {
  const SpectralLayer* layers;
  const SpectralTile* column_tiles;  // kSpectralRows x kSpectralCols
  const SpectralTile* row_tiles;     // kSpectralDotRows x all columns
  int32_t n_layers, n_column_tiles, n_row_tiles;
  float* scratch;
  int32_t* counters;  // one a layer, zero between launches
  int64_t elements = 0;  // of all matrices together
};

}  // namespace kiln

KILN_KERNEL_API(
    /// Power iteration (if `iterate`), then sigma [n_layers] and packed = W / sigma, stored as `type`. u and v are read and, if
    /// `iterate`, overwritten. Three launches; two without the iteration.
    void spectral_normalise(Stream stream, const SpectralTables& t, const float* params, float* u, float* v, bool iterate,
                            float* sigma, DType type, void* packed);
    /// grads += (A - <A, W / sigma> u v') / sigma, A = packed_grads, with the u, v and sigma of the same forward.
    /// Two launches. scratch of the tables is used.
    void spectral_backward(Stream stream, const SpectralTables& t, const float* params, const float* packed_grads,
                           const float* u, const float* v, const float* sigma, float* grads);)
