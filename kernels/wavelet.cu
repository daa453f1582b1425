#include "kernels/wavelet.h"

#include "kernels/exec/primitives.h"

namespace kiln::KILN_EXEC {
namespace {

/// A block of 2x2 pixels of one tile, and the four band numbers that stand for it.
struct Place {
  int64_t n;
  int i, j, g;
};
/// Number r of them, in 32 bits: engine/wavelet.cpp asserts that there are fewer than 2^31.
KILN_HD Place place(int64_t r, int rows, int columns, int tiles) {
  const uint32_t all = uint32_t(r), block = all / uint32_t(tiles), line = block / uint32_t(columns), n = line / uint32_t(rows);
  return {int64_t(n), int(line - n * uint32_t(rows)), int(block - line * uint32_t(columns)), int(all - block * uint32_t(tiles))};
}

KILN_HD int which(const WaveletAxis& a, int i) {
  if (i < 2) return i;
  const int from_end = i - (a.pairs > 5 ? a.pairs - 5 : 0);
  return from_end > 2 ? from_end : 2;
}

/// Outside of the axis the weight is zero: any number will do.
KILN_HD int inside(int p, int pairs) { return p < 0 ? 0 : p < 2 * pairs ? p : 2 * pairs - 1; }

KILN_HD int64_t offset_of(const WaveletStrides& s, const Place& p, int i, int j) { return p.n * s.picture + i * s.row + int64_t(j) * s.pixel + int64_t(p.g) * s.tile; }

/// W: the windows' width.
template <class T, int W>
struct ToBands {
  WaveletShape s;
  WaveletAxis rows, columns;
  const T* x;
  WaveletBands y;
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {
    const Place p = place(r, rows.pairs, columns.pairs, s.tiles);
    const int ci = which(rows, p.i), cj = which(columns, p.j), pixel = s.tiles * s.channels;
    Pack<P> ll(0.f), lh(0.f), hl(0.f), hh(0.f);
    KILN_ROLLED  // five rows at once take more registers than there are
    for (int a = 0; a < W; a++) {
      const int i = inside(2 * p.i + rows.start + a, rows.pairs);
      const T* line = x + ((p.n * 2 * rows.pairs + i) * 2 * columns.pairs) * pixel + p.g * s.channels + c;
      Pack<P> low(0.f), high(0.f);
      for (int b = 0; b < W; b++) {
        const Pack<P> v = load<P>(line + int64_t(inside(2 * p.j + columns.start + b, columns.pairs)) * pixel);
        low += v * columns.weights[cj][0][b];
        high += v * columns.weights[cj][1][b];
      }
      const float to_low = rows.weights[ci][0][a], to_high = rows.weights[ci][1][a];
      ll += low * to_low;
      lh += low * to_high;
      hl += high * to_low;
      hh += high * to_high;
    }
    store<P>((T*)y.low + offset_of(y.low_strides, p, p.i, p.j) + c, ll);
    if (!y.high) return;
    T* to = (T*)y.high + offset_of(y.high_strides, p, p.i, p.j) + c;
    store<P>(to + y.offset[0], lh);
    store<P>(to + y.offset[1], hl);
    store<P>(to + y.offset[2], hh);
  }
};

template <class T, int W>
struct ToPicture {
  WaveletShape s;
  WaveletAxis rows, columns;
  WaveletBands x;
  T* y;
  /// The number at interleaved position (i, j).
  template <int P>
  KILN_HD Pack<P> band(const Place& p, int i, int j, int c) const {
    const int which_band = (i & 1) + 2 * (j & 1);
    if (which_band == 0) return load<P>((const T*)x.low + offset_of(x.low_strides, p, i >> 1, j >> 1) + c);
    if (!x.high) return Pack<P>(0.f);
    return load<P>((const T*)x.high + offset_of(x.high_strides, p, i >> 1, j >> 1) + x.offset[which_band - 1] + c);
  }
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {
    const Place p = place(r, rows.pairs, columns.pairs, s.tiles);
    const int ci = which(rows, p.i), cj = which(columns, p.j), pixel = s.tiles * s.channels;
    Pack<P> y00(0.f), y01(0.f), y10(0.f), y11(0.f);
    KILN_ROLLED  // five rows at once take more registers than there are
    for (int a = 0; a < W; a++) {
      const int i = inside(2 * p.i + rows.start + a, rows.pairs);
      Pack<P> left(0.f), right(0.f);
      for (int b = 0; b < W; b++) {
        const Pack<P> v = band<P>(p, i, inside(2 * p.j + columns.start + b, columns.pairs), c);
        left += v * columns.weights[cj][0][b];
        right += v * columns.weights[cj][1][b];
      }
      const float to_upper = rows.weights[ci][0][a], to_lower = rows.weights[ci][1][a];
      y00 += left * to_upper;
      y01 += right * to_upper;
      y10 += left * to_lower;
      y11 += right * to_lower;
    }
    const int64_t line = int64_t(2) * columns.pairs * pixel;
    const Place q = place(r, rows.pairs, columns.pairs, s.tiles);  // again: kept over the loop it would cost registers
    T* to = y + (q.n * 2 * rows.pairs + 2 * q.i) * line + int64_t(2 * q.j) * pixel + q.g * s.channels + c;
    store<P>(to, y00);
    store<P>(to + pixel, y01);
    store<P>(to + line, y10);
    store<P>(to + line + pixel, y11);
  }
};

/// Calls body with the width of both axes' windows.
template <class Body>
void with_width(const WaveletAxis& rows, const WaveletAxis& columns, Body body) {
  if (rows.width == 2 && columns.width == 2) return body.template operator()<2>();
  return body.template operator()<5>();
}

int64_t blocks(const WaveletShape& s, const WaveletAxis& rows, const WaveletAxis& columns) {
  return s.n * rows.pairs * columns.pairs * s.tiles;
}

}  // namespace

void wavelet_to_bands(Stream stream, DType t, const WaveletShape& s, const WaveletAxis& rows, const WaveletAxis& columns, const void* x,
                      const WaveletBands& y) {
  with_dtype(t, [&]<class T>() {
    with_width(rows, columns, [&]<int W>() {
      map_rows<T>(stream, blocks(s, rows, columns), s.channels, ToBands<T, W>{s, rows, columns, (const T*)x, y});
    });
  });
}

void wavelet_to_picture(Stream stream, DType t, const WaveletShape& s, const WaveletAxis& rows, const WaveletAxis& columns,
                        const WaveletBands& x, void* y) {
  with_dtype(t, [&]<class T>() {
    with_width(rows, columns, [&]<int W>() {
      map_rows<T>(stream, blocks(s, rows, columns), s.channels, ToPicture<T, W>{s, rows, columns, x, (T*)y});
    });
  });
}

}  // namespace kiln::KILN_EXEC
