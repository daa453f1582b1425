#include "engine/psnr_ssim.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "engine/error.h"

namespace kiln {
namespace {

constexpr int kWindow = kSsimWindow;

void require_same(const Picture& a, const Picture& b) { KILN_ASSERT(a.width == b.width && a.height == b.height && a.rgb.size() == b.rgb.size()); }

std::array<double, kWindow> gaussian() {
  std::array<double, kWindow> g{};
  double sum = 0;
  for (int i = 0; i < kWindow; i++) sum += g[size_t(i)] = std::exp(-0.5 * (i - 5) * (i - 5) / (1.5 * 1.5));
  for (double& v : g) v /= sum;
  return g;
}

/// Weighted means of all windows inside: [h, w] -> [h - 10, w - 10].
std::vector<double> blurred(const std::vector<double>& x, int h, int w) {
  static const std::array<double, kWindow> g = gaussian();
  const int oh = h - kWindow + 1, ow = w - kWindow + 1;
  std::vector<double> rows(size_t(h) * size_t(ow)), y(size_t(oh) * size_t(ow));
  for (int i = 0; i < h; i++)
    for (int j = 0; j < ow; j++) {
      double s = 0;
      for (int k = 0; k < kWindow; k++) s += g[size_t(k)] * x[size_t(i) * size_t(w) + size_t(j + k)];
      rows[size_t(i) * size_t(ow) + size_t(j)] = s;
    }
  for (int i = 0; i < oh; i++)
    for (int j = 0; j < ow; j++) {
      double s = 0;
      for (int k = 0; k < kWindow; k++) s += g[size_t(k)] * rows[size_t(i + k) * size_t(ow) + size_t(j)];
      y[size_t(i) * size_t(ow) + size_t(j)] = s;
    }
  return y;
}

/// Which inputs an output reads along an axis, and how much of each; indices clamped to the picture.
struct Taps {
  std::array<int, 4> index{};
  std::array<double, 4> weight{};
};

double catmull_rom(double d) {
  d = std::fabs(d);
  return d < 1 ? (1.5 * d - 2.5) * d * d + 1 : d < 2 ? ((-0.5 * d + 2.5) * d - 4) * d + 2 : 0;
}

std::vector<Taps> taps_of(int n, int factor, Interpolation kind, Sites sites) {
  std::vector<Taps> all(size_t(n) * size_t(factor));
  for (size_t o = 0; o < all.size(); o++) {
    const double at = sites == Sites::areas ? (double(o) + 0.5) / factor - 0.5 : double(o) / factor, first = std::floor(at) - 1;
    for (int k = 0; k < 4; k++) {
      const double d = at - (first + k);
      all[o].index[size_t(k)] = std::clamp(int(first) + k, 0, n - 1);
      all[o].weight[size_t(k)] = kind == Interpolation::bicubic ? catmull_rom(d) : std::max(0.0, 1 - std::fabs(d));
    }
  }
  return all;
}

}  // namespace

double psnr(const Picture& a, const Picture& b) {
  require_same(a, b);
  double sum = 0;
  for (size_t i = 0; i < a.rgb.size(); i++) sum += (double(a.rgb[i]) - b.rgb[i]) * (double(a.rgb[i]) - b.rgb[i]);
  return sum == 0 ? 100 : std::min(100.0, 10 * std::log10(255.0 * 255.0 * double(a.rgb.size()) / sum));
}

double ssim(const Picture& a, const Picture& b) {
  require_same(a, b);
  const int h = a.height, w = a.width;
  if (h < kWindow || w < kWindow) fail("SSIM's windows are {} pixels wide; a picture of {} x {} has none", kWindow, w, h);
  constexpr double c1 = 0.01 * 255 * 0.01 * 255, c2 = 0.03 * 255 * 0.03 * 255;
  std::array<double, 3> means{};  // added up in one order
#pragma omp parallel for
  for (int channel = 0; channel < 3; channel++) {
    const size_t n = size_t(h) * size_t(w);
    std::vector<double> x(n), y(n), xx(n), yy(n), xy(n);
    for (size_t i = 0; i < n; i++) {
      x[i] = a.rgb[3 * i + size_t(channel)];
      y[i] = b.rgb[3 * i + size_t(channel)];
      xx[i] = x[i] * x[i];
      yy[i] = y[i] * y[i];
      xy[i] = x[i] * y[i];
    }
    x = blurred(x, h, w);
    y = blurred(y, h, w);
    xx = blurred(xx, h, w);
    yy = blurred(yy, h, w);
    xy = blurred(xy, h, w);
    double sum = 0;
    for (size_t i = 0; i < x.size(); i++) {
      const double vx = xx[i] - x[i] * x[i], vy = yy[i] - y[i] * y[i], v = xy[i] - x[i] * y[i];
      sum += (2 * x[i] * y[i] + c1) * (2 * v + c2) / ((x[i] * x[i] + y[i] * y[i] + c1) * (vx + vy + c2));
    }
    means[size_t(channel)] = sum / double(x.size());
  }
  return (means[0] + means[1] + means[2]) / 3;
}

Tensor interpolate(const Tensor& x, int factor, Interpolation kind, Sites sites) {
  KILN_ASSERT(x.shape().rank() == 4 && x.dtype() == DType::f32 && factor >= 1);
  const int n = int(x.shape()[0]), h = int(x.shape()[1]), w = int(x.shape()[2]), c = int(x.shape()[3]);
  const std::vector<Taps> rows = taps_of(h, factor, kind, sites), columns = taps_of(w, factor, kind, sites);
  const std::vector<float> in = x.to_vector();
  const int oh = h * factor, ow = w * factor;
  std::vector<float> out(size_t(n) * size_t(oh) * size_t(ow) * size_t(c));
#pragma omp parallel for collapse(2)
  for (int k = 0; k < n; k++)
    for (int i = 0; i < oh; i++) {
      // The line first, all its columns afterwards.
      std::vector<double> line(size_t(w) * size_t(c), 0.0);
      for (size_t t = 0; t < 4; t++) {
        const float* from = in.data() + (size_t(k) * size_t(h) + size_t(rows[size_t(i)].index[t])) * size_t(w) * size_t(c);
        for (size_t j = 0; j < line.size(); j++) line[j] += rows[size_t(i)].weight[t] * double(from[j]);
      }
      float* to = out.data() + (size_t(k) * size_t(oh) + size_t(i)) * size_t(ow) * size_t(c);
      for (int j = 0; j < ow; j++)
        for (int ch = 0; ch < c; ch++) {
          double s = 0;
          for (size_t t = 0; t < 4; t++) s += columns[size_t(j)].weight[t] * line[size_t(columns[size_t(j)].index[t]) * size_t(c) + size_t(ch)];
          to[size_t(j) * size_t(c) + size_t(ch)] = float(s);
        }
    }
  return from_vector(Shape{n, oh, ow, c}, out);
}

}  // namespace kiln
