// The Laplacian pyramid of the sliced Wasserstein distance: see engine/swd.h for its definition.
#include <algorithm>

#include "engine/swd.h"

namespace kiln {
namespace {

using swd_detail::Plane;

int mirror(int i, int n) {
  if (i < 0) i = -i;
  return i < n ? i : 2 * n - 2 - i;
}

constexpr float kBinomial[5] = {1 / 16.f, 4 / 16.f, 6 / 16.f, 4 / 16.f, 1 / 16.f};

// dst[(h+1)/2, (w+1)/2, 3] of src[h, w, 3]: filter and keep the even pixels. Rows first, they lie in memory.
void down(const Plane& src, Plane& dst) {
  const int h = src.height, w = src.width;
  dst.height = (h + 1) / 2;
  dst.width = (w + 1) / 2;
  dst.pixels.resize(static_cast<size_t>(dst.height) * dst.width * 3);
  std::vector<float> row(static_cast<size_t>(w) * 3);
  for (int y = 0; y < dst.height; ++y) {
    const float* tap[5];
    for (int t = 0; t < 5; ++t) tap[t] = src.pixels.data() + static_cast<size_t>(mirror(2 * y + t - 2, h)) * w * 3;
    for (int i = 0; i < w * 3; ++i) {
      row[i] =
          kBinomial[0] * (tap[0][i] + tap[4][i]) + kBinomial[1] * (tap[1][i] + tap[3][i]) + kBinomial[2] * tap[2][i];
    }
    float* out = dst.pixels.data() + static_cast<size_t>(y) * dst.width * 3;
    for (int x = 0; x < dst.width; ++x) {
      const float* p[5];
      for (int t = 0; t < 5; ++t) p[t] = row.data() + mirror(2 * x + t - 2, w) * 3;
      for (int c = 0; c < 3; ++c) {
        out[x * 3 + c] =
            kBinomial[0] * (p[0][c] + p[4][c]) + kBinomial[1] * (p[1][c] + p[3][c]) + kBinomial[2] * p[2][c];
      }
    }
  }
}

// The coarse pixels behind fine pixel i of n, with their weights: the filter's taps that do not fall on a zero. One
// tap is added with weight 0 where there are only two, so that a caller's loop has a fixed length.
struct UpTaps {
  int index[3];
  float weight[3];
};

UpTaps up_taps(int i, int n) {
  UpTaps taps{{0, 0, 0}, {0, 0, 0}};
  int count = 0;
  for (int t = 0; t < 5; ++t) {
    const int j = mirror(i + t - 2, n);
    if (j % 2 == 0) {
      taps.index[count] = j / 2;
      taps.weight[count++] = 2 * kBinomial[t];
    }
  }
  return taps;
}

// dst += sign * up(src), dst twice as large as src (or one pixel less).
void add_up(const Plane& src, float sign, Plane& dst) {
  const int w = src.width;
  std::vector<UpTaps> columns(dst.width);
  for (int x = 0; x < dst.width; ++x) columns[x] = up_taps(x, dst.width);
  std::vector<float> row(static_cast<size_t>(w) * 3);
  for (int y = 0; y < dst.height; ++y) {
    const UpTaps taps = up_taps(y, dst.height);
    const float* r[3];
    for (int t = 0; t < 3; ++t) r[t] = src.pixels.data() + static_cast<size_t>(taps.index[t]) * w * 3;
    for (int i = 0; i < w * 3; ++i) {
      row[i] = sign * (taps.weight[0] * r[0][i] + taps.weight[1] * r[1][i] + taps.weight[2] * r[2][i]);
    }
    float* out = dst.pixels.data() + static_cast<size_t>(y) * dst.width * 3;
    for (int x = 0; x < dst.width; ++x) {
      const UpTaps& u = columns[x];
      const float *a = row.data() + u.index[0] * 3, *b = row.data() + u.index[1] * 3, *c = row.data() + u.index[2] * 3;
      for (int k = 0; k < 3; ++k) out[x * 3 + k] += u.weight[0] * a[k] + u.weight[1] * b[k] + u.weight[2] * c[k];
    }
  }
}

}  // namespace

namespace swd_detail {

std::vector<LevelShape> level_shapes(int height, int width, int min_level) {
  std::vector<LevelShape> shapes;
  while (std::min(height, width) >= min_level) {
    shapes.push_back({height, width});
    height = (height + 1) / 2;
    width = (width + 1) / 2;
  }
  return shapes;
}

void laplacian_pyramid(const uint8_t* picture, int height, int width, int min_level, std::vector<Plane>& out) {
  const size_t levels = level_shapes(height, width, min_level).size();
  out.resize(levels);
  out[0].height = height;
  out[0].width = width;
  out[0].pixels.assign(picture, picture + static_cast<size_t>(height) * width * 3);
  for (size_t i = 1; i < levels; ++i) {
    down(out[i - 1], out[i]);
    add_up(out[i], -1.f, out[i - 1]);
  }
}

Plane collapse(const std::vector<Plane>& pyramid) {
  Plane picture = pyramid.back();
  for (size_t i = pyramid.size() - 1; i-- > 0;) {
    Plane finer = pyramid[i];
    add_up(picture, 1.f, finer);
    picture = std::move(finer);
  }
  return picture;
}

}  // namespace swd_detail
}  // namespace kiln
