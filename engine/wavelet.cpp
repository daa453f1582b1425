#include "engine/wavelet.h"

#include <cmath>
#include <numbers>

#include "engine/error.h"
#include "kernels/wavelet.h"

namespace kiln {
namespace {

using Line = std::vector<double>;
constexpr double kRoot2 = std::numbers::sqrt2;

// ---- along an axis --------------------------------------------------------------------------------------------------------

/// Index p of a line of n numbers that is mirrored at its first and at its last one.
int64_t mirrored(int64_t p, int64_t n) {
  while (p < 0 || p >= n) p = p < 0 ? -p : 2 * (n - 1) - p;
  return p;
}

// bior2.2's filters around their centres, 2k for low and 2k + 1 for high.
constexpr double kAnalysisLow[] = {-0.125, 0.25, 0.75, 0.25, -0.125}, kAnalysisHigh[] = {0, 0.25, -0.5, 0.25, 0};
constexpr double kSynthesisLow[] = {0, 0.25, 0.5, 0.25, 0}, kSynthesisHigh[] = {0.125, 0.25, -0.75, 0.25, 0.125};

Line padded_line(const Line& x) {
  const int64_t n = int64_t(x.size());
  Line z(x.size());
  for (int64_t p = 0; p < n; p++)
    for (int64_t k = -2; k <= 2; k++)
      if (p + k >= 0 && p + k < n) z[size_t(p)] += kRoot2 * (p % 2 ? kAnalysisHigh : kAnalysisLow)[k + 2] * x[size_t(p + k)];
  return z;
}

Line padded_inverse(const Line& z) {
  const int64_t n = int64_t(z.size());
  Line x(z.size());
  for (int64_t p = 0; p < n; p++)
    for (int64_t k = -2; k <= 2; k++)
      if (p + k >= 0 && p + k < n) x[size_t(p + k)] += kRoot2 * (p % 2 ? kSynthesisHigh : kSynthesisLow)[k + 2] * z[size_t(p)];
  return x;
}

/// One lifting step: every second number, from `first` on, gets factor * (its left + its right neighbour).
void lift(Line& x, int64_t first, double factor) {
  const int64_t n = int64_t(x.size());
  for (int64_t p = first; p < n; p += 2) x[size_t(p)] += factor * (x[size_t(mirrored(p - 1, n))] + x[size_t(mirrored(p + 1, n))]);
}

void scale_bands(Line& x, double low, double high) {
  for (size_t p = 0; p < x.size(); p++) x[p] *= p % 2 ? high : low;
}

/// The matrix of a linear map of lines, row by row: m[out * n + in].
template <class Map>
Line matrix_of(int64_t n, Map map) {
  Line m(size_t(n * n));
  for (int64_t in = 0; in < n; in++) {
    Line unit(static_cast<size_t>(n));
    unit[size_t(in)] = 1;
    const Line column = map(unit);
    for (int64_t out = 0; out < n; out++) m[size_t(out * n + in)] = column[size_t(out)];
  }
  return m;
}

enum class Map : uint8_t { forward, inverse, forward_adjoint, inverse_adjoint };

/// The kernel's weights along an axis of n numbers. Ten numbers have all the rows that there are.
WaveletAxis axis_of(Wavelet w, Map map, int64_t n) {
  const bool adjoint = map == Map::forward_adjoint || map == Map::inverse_adjoint;
  const int64_t small = std::min<int64_t>(n, 10);
  const Line m = matrix_of(small, [&](const Line& x) {
    return map == Map::forward || map == Map::forward_adjoint ? wavelet_line(w, x) : wavelet_line_inverse(w, x);
  });
  WaveletAxis a;
  a.pairs = int(n / 2);
  const bool in_pairs = w == Wavelet::haar || w == Wavelet::lazy;
  a.width = in_pairs ? 2 : 5;
  // bior2.2 reads 2k - 2 .. 2k + 2 forward and for that one's adjoint, 2k - 1 .. 2k + 3 for the inverse and its adjoint.
  a.start = in_pairs ? 0 : map == Map::forward || map == Map::forward_adjoint ? -2 : -1;
  for (int64_t out = 0; out < small; out++)
    for (int64_t in = 0; in < small; in++) {
      const double weight = m[size_t(adjoint ? in * small + out : out * small + in)];
      const int64_t k = in - 2 * (out / 2) - a.start;
      KILN_ASSERT((k >= 0 && k < a.width) || std::abs(weight) < 1e-12);
      if (k >= 0 && k < a.width) a.weights[out / 2][out % 2][k] = float(weight);
    }
  return a;
}

// ---- one level ----------------------------------------------------------------------------------------------------------------

constexpr bool to_bands(Map m) { return m == Map::forward || m == Map::inverse_adjoint; }
constexpr Map adjoint_of(Map m) {
  return m == Map::forward ? Map::forward_adjoint : m == Map::forward_adjoint ? Map::forward : m == Map::inverse ? Map::inverse_adjoint : Map::inverse;
}

/// Bands side by side in the channels of one tensor [n, h, w, tiles * 4 * channels]; `low` alone has [n, h, w, tiles * channels].
WaveletBands bands_in_channels(const Tensor& t, const WaveletShape& s, bool low_only) {
  const int64_t pixel = t.shape()[3], row = t.shape()[2] * pixel;
  const WaveletStrides strides{t.shape()[1] * row, row, int(pixel), (low_only ? 1 : 4) * s.channels};
  return {t.data(), low_only ? nullptr : t.data(), strides, strides, {s.channels, 2 * s.channels, 3 * s.channels}};
}

void run(Wavelet w, Map map, const WaveletShape& s, const Tensor& picture, const WaveletBands& bands) {
  const int64_t h = picture.shape()[1], width = picture.shape()[2];
  KILN_ASSERT(h % 2 == 0 && width % 2 == 0 && picture.shape()[3] == int64_t(s.tiles) * s.channels);
  KILN_ASSERT(s.n * (h / 2) * (width / 2) * s.tiles < int64_t(1) << 31);
  const WaveletAxis rows = axis_of(w, map, h), columns = axis_of(w, map, width);
  const DType t = picture.dtype();
  if (to_bands(map))
    KILN_RUN(Work::pointwise, wavelet_to_bands(stream, t, s, rows, columns, picture.data(), bands));
  else
    KILN_RUN(Work::pointwise, wavelet_to_picture(stream, t, s, rows, columns, bands, picture.data()));
}

WaveletShape tiles_of(const Tensor& picture, int64_t tile) {
  KILN_ASSERT(picture.shape().rank() == 4 && picture.channels() % tile == 0);
  return {picture.shape()[0], int(picture.channels() / tile), int(tile)};
}

/// Transforms x in either direction, bands in the channels.
Tensor in_channels(const Tensor& x, Wavelet w, Map map, int64_t tile, bool low_only) {
  const Shape xs = x.shape();
  const int64_t bands = low_only ? 1 : 4;
  if (to_bands(map)) {
    const Tensor y(Shape{xs[0], xs[1] / 2, xs[2] / 2, bands * xs[3]}, x.dtype());
    const WaveletShape s = tiles_of(x, tile);
    run(w, map, s, x, bands_in_channels(y, s, low_only));
    return y;
  }
  KILN_ASSERT(xs[3] % (bands * tile) == 0);
  const Tensor y(Shape{xs[0], 2 * xs[1], 2 * xs[2], xs[3] / bands}, x.dtype());
  const WaveletShape s = tiles_of(y, tile);
  run(w, map, s, y, bands_in_channels(x, s, low_only));
  return y;
}

/// A linear op by what it and its adjoint do.
template <class Apply>
Var linear_op(const Var& x, Map map, Apply apply) {
  const bool record = recording({&x});
  Var y(apply(x.value, map), record);
  if (record)
    context().tape->push([=, xn = x.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (dy) xn->add(apply(dy, adjoint_of(map)));
    });
  return y;
}

// ---- the pyramid --------------------------------------------------------------------------------------------------------------

/// The quadrants of the top left h x w of a picture of quadrants; their low band there or in a tensor of its own.
WaveletBands quadrants(const Tensor& image, int64_t h, int64_t w, const Tensor& low) {
  const int64_t c = image.channels(), row = image.shape()[2] * c, half_row = (w / 2) * c;
  const WaveletStrides strides{image.shape()[1] * row, row, int(c), int(c)};
  const WaveletStrides own{(h / 2) * half_row, half_row, int(c), int(c)};
  // TR lies to the right, BL below.
  return {low ? low.data() : image.data(), image.data(), low ? own : strides, strides, {half_row, (h / 2) * row, (h / 2) * row + half_row}};
}

Tensor pyramid(const Tensor& x, Wavelet w, Map map, int levels) {
  const Shape s = x.shape();
  KILN_ASSERT(levels >= 0);
  if (levels == 0) return x;
  const WaveletShape one{s[0], 1, int(s[3])};
  const auto at = [&](int level) { return Shape{s[0], s[1] >> level, s[2] >> level, s[3]}; };
  Tensor y(s, x.dtype());
  if (to_bands(map)) {
    Tensor picture = x;
    for (int level = 0; level < levels; level++) {
      const Tensor low = level + 1 < levels ? Tensor(at(level + 1), x.dtype()) : Tensor();
      run(w, map, one, picture, quadrants(y, at(level)[1], at(level)[2], low));
      picture = low;
    }
    return y;
  }
  Tensor low;
  for (int level = levels - 1; level >= 0; level--) {
    const Tensor picture = level == 0 ? y : Tensor(at(level), x.dtype());
    run(w, map, one, picture, quadrants(x, at(level)[1], at(level)[2], low));
    low = picture;
  }
  return y;
}

}  // namespace

const char* name_of(Wavelet w) {
  switch (w) {
    case Wavelet::haar: return "haar";
    case Wavelet::bior22: return "bior2.2";
    case Wavelet::bior22_reflect: return "bior2.2-reflect";
    default: return "lazy";
  }
}

Wavelet wavelet_from_name(const std::string& name) {
  for (const Wavelet w : {Wavelet::haar, Wavelet::bior22, Wavelet::bior22_reflect})
    if (name == name_of(w)) return w;
  fail("the wavelet '{}' is not known; use haar, bior2.2 or bior2.2-reflect", name);
}

std::vector<double> wavelet_line(Wavelet w, const std::vector<double>& x) {
  KILN_ASSERT(x.size() >= 2 && x.size() % 2 == 0);
  if (w == Wavelet::lazy) return x;
  if (w == Wavelet::bior22) return padded_line(x);
  Line z = x;
  if (w == Wavelet::haar) {
    for (size_t p = 0; p < z.size(); p += 2) {
      z[p] = (x[p] + x[p + 1]) / kRoot2;
      z[p + 1] = (x[p] - x[p + 1]) / kRoot2;
    }
    return z;
  }
  lift(z, 1, -0.5);
  lift(z, 0, 0.25);
  scale_bands(z, kRoot2, -1 / kRoot2);
  return z;
}

std::vector<double> wavelet_line_inverse(Wavelet w, const std::vector<double>& bands) {
  KILN_ASSERT(bands.size() >= 2 && bands.size() % 2 == 0);
  if (w == Wavelet::lazy) return bands;
  if (w == Wavelet::bior22) return padded_inverse(bands);
  if (w == Wavelet::haar) return wavelet_line(w, bands);
  Line x = bands;
  scale_bands(x, 1 / kRoot2, -kRoot2);
  lift(x, 0, -0.25);
  lift(x, 1, 0.5);
  return x;
}

Var wavelet_split(const Var& x, Wavelet w, int64_t tile) {
  return linear_op(x, Map::forward, [=](const Tensor& t, Map m) { return in_channels(t, w, m, tile, false); });
}

Var wavelet_join(const Var& x, Wavelet w, int64_t tile) {
  return linear_op(x, Map::inverse, [=](const Tensor& t, Map m) { return in_channels(t, w, m, tile, false); });
}

Var wavelet_packet(const Var& x, Wavelet w, int levels) {
  Var y = x;
  for (int level = 0; level < levels; level++) y = wavelet_split(y, w, x.shape()[3]);
  return y;
}

Var wavelet_unpacket(const Var& x, Wavelet w, int levels) {
  Var y = x;
  KILN_ASSERT(x.shape()[3] % (int64_t(1) << (2 * levels)) == 0);
  for (int level = 0; level < levels; level++) y = wavelet_join(y, w, x.shape()[3] >> (2 * levels));
  return y;
}

Var wavelet_pyramid(const Var& x, Wavelet w, int levels) {
  return linear_op(x, Map::forward, [=](const Tensor& t, Map m) { return pyramid(t, w, m, levels); });
}

Var wavelet_unpyramid(const Var& x, Wavelet w, int levels) {
  return linear_op(x, Map::inverse, [=](const Tensor& t, Map m) { return pyramid(t, w, m, levels); });
}

Var low_band(const Var& x, Wavelet w, int levels) {
  Var y = x;
  for (int level = 0; level < levels; level++)
    y = linear_op(y, Map::forward, [=](const Tensor& t, Map m) { return in_channels(t, w, m, t.channels(), true); });
  return y;
}

Var from_low_band(const Var& x, Wavelet w, int levels) {
  Var y = x;
  for (int level = 0; level < levels; level++)
    y = linear_op(y, Map::inverse, [=](const Tensor& t, Map m) { return in_channels(t, w, m, t.channels(), true); });
  return y;
}

Var haar_rows(const Var& x, int64_t tile) {
  const int64_t rows = x.shape()[0];
  KILN_ASSERT(rows % (4 * tile) == 0);
  return linear_op(x, Map::inverse, [=](const Tensor& t, Map m) {
    const int64_t numbers = tile * (t.count() / rows), block = 4 * numbers;
    const WaveletShape s{rows / (4 * tile), 1, int(numbers)};
    const Tensor y(t.shape(), t.dtype());
    const Tensor &bands = to_bands(m) ? y : t, &pixels = to_bands(m) ? t : y;
    // One picture of a block a tile. A dense picture has pixel (a, b) at 2a + b: its axes are exchanged, and with them the high bands.
    const WaveletStrides strides{block, 0, 0, 0};
    run(Wavelet::haar, m, s, pixels.reshape(Shape{s.n, 2, 2, numbers}), {bands.data(), bands.data(), strides, strides, {2 * numbers, numbers, 3 * numbers}});
    return y;
  });
}

std::pair<double, double> low_band_range(Wavelet w, int levels, double low, double high) {
  // A low number of several levels is a weighted sum of pixels, the same along both axes away from the borders. The extremes put the
  // one or the other end of the interval wherever the product of two weights is positive.
  const int64_t n = int64_t(64) << levels;
  double positive = 0, negative = 0;
  for (int64_t in = 0; in < n; in++) {
    Line x(static_cast<size_t>(n));
    x[size_t(in)] = 1;
    for (int level = 0; level < levels; level++) {
      const Line z = wavelet_line(w, x);
      x.assign(z.size() / 2, 0);
      for (size_t k = 0; k < x.size(); k++) x[k] = z[2 * k];
    }
    const double weight = x[32];
    (weight > 0 ? positive : negative) += weight;
  }
  const double plus = positive * positive + negative * negative, minus = 2 * positive * negative;
  return {plus * low + minus * high, plus * high + minus * low};
}

}  // namespace kiln
