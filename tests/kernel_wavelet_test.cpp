// kernels/wavelet.h beside plain loops, with weights drawn at random: any band matrix of the kind that the header describes.
#include "kernels/wavelet.h"

#include "tests/kernel_test.h"

using namespace kiln;
using namespace kiln::test;

namespace {

/// Weights that are zero where the window leaves the axis, and nowhere else.
WaveletAxis random_axis(Random& random, int pairs, int width) {
  WaveletAxis a;
  a.pairs = pairs;
  a.width = width;
  a.start = width == 2 ? 0 : -random.integer(1, 2);
  const int cases = std::min(pairs, 5);
  for (int k = 0; k < cases; k++) {
    const int pair = k < 2 || pairs <= 5 ? k : k == 2 ? pairs / 2 : pairs - 5 + k;
    for (int out = 0; out < 2; out++)
      for (int tap = 0; tap < width; tap++) {
        const int at = 2 * pair + a.start + tap;
        if (at >= 0 && at < 2 * pairs) a.weights[k][out][tap] = float(random.normal());
      }
  }
  return a;
}

/// The axis as a matrix [out][in].
std::vector<Doubles> matrix(const WaveletAxis& a) {
  std::vector<Doubles> m(size_t(2 * a.pairs), Doubles(size_t(2 * a.pairs)));
  for (int i = 0; i < a.pairs; i++) {
    const int last = a.pairs - 1 - i;
    const int which = a.pairs <= 5 ? i : i < 2 ? i : last < 2 ? 4 - last : 2;
    for (int out = 0; out < 2; out++)
      for (int tap = 0; tap < a.width; tap++) {
        const int in = 2 * i + a.start + tap;
        if (in >= 0 && in < 2 * a.pairs) m[size_t(2 * i + out)][size_t(in)] = double(a.weights[which][out][tap]);
      }
  }
  return m;
}

struct Case {
  WaveletShape s;
  WaveletAxis rows, columns;
  int height() const { return 2 * rows.pairs; }
  int width() const { return 2 * columns.pairs; }
  int64_t numbers() const { return s.n * height() * width() * s.tiles * s.channels; }
  /// Of a picture.
  size_t pixel(int64_t n, int i, int j, int g, int c) const {
    return size_t((((n * height() + i) * width() + j) * s.tiles + g) * s.channels + c);
  }
  /// Of the number at interleaved position (i, j), where the bands lie side by side in the channels.
  size_t channel(int64_t n, int i, int j, int g, int c) const {
    const int band = (i % 2) + 2 * (j % 2);
    return size_t((((n * rows.pairs + i / 2) * columns.pairs + j / 2) * s.tiles + g) * 4 * s.channels + band * s.channels + c);
  }
  /// The same where they are the quadrants of a picture of one tile: high along the height to the right, high along the width below.
  size_t quadrant(int64_t n, int i, int j, int g, int c) const {
    return pixel(n, i / 2 + (j % 2) * rows.pairs, j / 2 + (i % 2) * columns.pairs, g, c);
  }
  /// Both axes applied to numbers that are read and written at these places.
  template <class In, class Out>
  Sums apply(const Doubles& x, In in, Out out, bool low_only) const {
    const auto r = matrix(rows), q = matrix(columns);
    Sums y(static_cast<size_t>(numbers()));
    for (int64_t n = 0; n < s.n; n++)
      for (int g = 0; g < s.tiles; g++)
        for (int c = 0; c < s.channels; c++)
          for (int i = 0; i < height(); i++)
            for (int j = 0; j < width(); j++)
              for (int a = std::max(0, i - 6); a < std::min(height(), i + 7); a++)
                for (int b = std::max(0, j - 6); b < std::min(width(), j + 7); b++) {
                  if (low_only && (a % 2 || b % 2)) continue;
                  const double weight = r[size_t(i)][size_t(a)] * q[size_t(j)][size_t(b)];
                  if (weight != 0) y[out(n, i, j, g, c)] += Sum(x[in(n, a, b, g, c)]) * weight;
                }
    return y;
  }
};

std::vector<Case> cases(Random& random) {
  std::vector<Case> all;
  const auto add = [&](int64_t n, int rows, int columns, int tiles, int channels, int width) {
    all.push_back({{n, tiles, channels}, random_axis(random, rows, width), random_axis(random, columns, width)});
  };
  for (const int width : {2, 5}) {
    add(1, 1, 1, 1, 1, width);
    add(2, 2, 3, 1, 3, width);
    add(1, 5, 4, 4, 3, width);
    add(2, 6, 9, 2, 8, width);
    add(1, 16, 7, 1, 16, width);
    add(1, random.integer(3, 12), random.integer(3, 12), random.integer(1, 5), random.integer(1, 20), width);
  }
  return all;
}

WaveletBands in_channels(const Case& k, void* data) {
  const int pixel = k.s.tiles * 4 * k.s.channels;
  const WaveletStrides strides{int64_t(k.rows.pairs) * k.columns.pairs * pixel, int64_t(k.columns.pairs) * pixel, pixel, 4 * k.s.channels};
  return {data, data, strides, strides, {k.s.channels, 2 * k.s.channels, 3 * k.s.channels}};
}

WaveletBands low_alone(const Case& k, void* data) {
  const int pixel = k.s.tiles * k.s.channels;
  const WaveletStrides strides{int64_t(k.rows.pairs) * k.columns.pairs * pixel, int64_t(k.columns.pairs) * pixel, pixel, k.s.channels};
  return {data, nullptr, strides, strides, {}};
}

WaveletBands in_quadrants(const Case& k, void* data) {
  const int64_t c = k.s.channels, row = k.width() * c;
  const WaveletStrides strides{k.height() * row, row, int(c), int(c)};
  return {data, data, strides, strides, {k.columns.pairs * c, k.rows.pairs * row, k.rows.pairs * row + k.columns.pairs * c}};
}

/// The numbers of the low bands, in the order of a tensor of their own.
template <class T>
std::vector<T> low_of(const Case& k, const std::vector<T>& bands) {
  std::vector<T> low;
  for (int64_t n = 0; n < k.s.n; n++)
    for (int i = 0; i < k.rows.pairs; i++)
      for (int j = 0; j < k.columns.pairs; j++)
        for (int g = 0; g < k.s.tiles; g++)
          for (int c = 0; c < k.s.channels; c++) low.push_back(bands[k.channel(n, 2 * i, 2 * j, g, c)]);
  return low;
}

}  // namespace

TEST_CASE("kernel: wavelet_to_bands") {
  Random random(11);
  for (const DType t : kFloatTypes)
    for (const Case& k : cases(random)) {
      CAPTURE(name_of_type(t));
      CAPTURE(k.rows.pairs);
      CAPTURE(k.columns.pairs);
      const Doubles x = random.normals(t, k.numbers());
      const auto pixel = [&](auto... at) { return k.pixel(at...); };
      const Sums channels = k.apply(x, pixel, [&](auto... at) { return k.channel(at...); }, false);
      const Sums quadrants = k.apply(x, pixel, [&](auto... at) { return k.quadrant(at...); }, false);
      for_each_executor([&](Run& run) {
        Buffer &in = run.in(t, x), &out = run.out(t, k.numbers()), &low = run.out(t, k.numbers() / 4);
        KILN_ON(run, wavelet_to_bands(run.stream(), t, k.s, k.rows, k.columns, in.data(), in_channels(k, out.data())));
        run.expect("bands in channels", out, channels);
        KILN_ON(run, wavelet_to_bands(run.stream(), t, k.s, k.rows, k.columns, in.data(), low_alone(k, low.data())));
        run.expect("the low band", low, low_of(k, channels));
        if (k.s.tiles > 1) return;
        Buffer& image = run.out(t, k.numbers());
        KILN_ON(run, wavelet_to_bands(run.stream(), t, k.s, k.rows, k.columns, in.data(), in_quadrants(k, image.data())));
        run.expect("quadrants", image, quadrants);
      });
    }
}

TEST_CASE("kernel: wavelet_to_picture") {
  Random random(12);
  for (const DType t : kFloatTypes)
    for (const Case& k : cases(random)) {
      CAPTURE(name_of_type(t));
      CAPTURE(k.rows.pairs);
      CAPTURE(k.columns.pairs);
      const Doubles x = random.normals(t, k.numbers());
      const auto pixel = [&](auto... at) { return k.pixel(at...); };
      const auto channel = [&](auto... at) { return k.channel(at...); };
      const Sums from_channels = k.apply(x, channel, pixel, false), from_low = k.apply(x, channel, pixel, true);
      const Sums from_quadrants = k.apply(x, [&](auto... at) { return k.quadrant(at...); }, pixel, false);
      for_each_executor([&](Run& run) {
        Buffer &in = run.in(t, x), &low = run.in(t, low_of(k, x)), &out = run.out(t, k.numbers()), &out2 = run.out(t, k.numbers());
        KILN_ON(run, wavelet_to_picture(run.stream(), t, k.s, k.rows, k.columns, in_channels(k, in.data()), out.data()));
        run.expect("from bands in channels", out, from_channels);
        KILN_ON(run, wavelet_to_picture(run.stream(), t, k.s, k.rows, k.columns, low_alone(k, low.data()), out2.data()));
        run.expect("from the low band", out2, from_low);
        if (k.s.tiles > 1) return;
        Buffer& out3 = run.out(t, k.numbers());
        KILN_ON(run, wavelet_to_picture(run.stream(), t, k.s, k.rows, k.columns, in_quadrants(k, in.data()), out3.data()));
        run.expect("from quadrants", out3, from_quadrants);
      });
    }
}
