#include "engine/moving_shapes.h"

#include <algorithm>
#include <cmath>

#include "engine/error.h"
#include "engine/random.h"
#include "kernels/philox.h"

namespace kiln {
namespace {

constexpr double kTurn = 6.283185307179586;
constexpr uint8_t kColours[8][3] = {{230, 60, 50}, {60, 200, 80}, {70, 110, 240}, {240, 210, 60}, {220, 80, 210}, {70, 210, 220}, {240, 140, 40}, {235, 235, 235}};

/// Is (x, y), relative to the centre, in the shape of that radius?
bool inside(int kind, double x, double y, double radius) {
  if (kind == 0) return x * x + y * y < radius * radius;
  if (kind == 1) return std::max(std::abs(x), std::abs(y)) < 0.88 * radius;
  return y < 0.7 * radius && y > -1.1 * radius && std::abs(x) < (y + 1.1 * radius) * 0.58;  // point upwards
}

/// 0 .. 1 and back, evenly: a triangle wave of period 1.
double swing(double t) {
  const double u = t - std::floor(t);
  return u < 0.5 ? 2 * u : 2 - 2 * u;
}

}  // namespace

const std::vector<std::string>& shape_motions() {
  static const std::vector<std::string> names{"horizontal", "vertical", "diagonal", "circling"};
  return names;
}

PictureClip moving_shape(uint64_t seed, int64_t number, int motion, int frames, int size) {
  KILN_ASSERT(motion >= 0 && motion < int(shape_motions().size()) && frames >= 1 && size >= 4);
  const philox::Words a = philox::block({uint32_t(number), uint32_t(uint64_t(number) >> 32), site_id("shape"), 0}, uint32_t(seed), uint32_t(seed >> 32));
  const philox::Words b = philox::block({uint32_t(number), uint32_t(uint64_t(number) >> 32), site_id("shape"), 1}, uint32_t(seed), uint32_t(seed >> 32));
  const int kind = int(a.x % 3);
  const uint8_t* colour = kColours[a.y % 8];
  const double radius = size * (0.12 + 0.06 * philox::uniform(a.z)), room = size - 2 * radius;
  const double across = philox::uniform(a.w), phase = philox::uniform(b.x), period = 12 + 20 * philox::uniform(b.y);
  const double direction = b.z & 1 ? 1 : -1, orbit = (0.5 + 0.5 * philox::uniform(b.w)) * room / 2;

  PictureClip clip;
  for (int t = 0; t < frames; t++) {
    const double at = phase + direction * t / period;
    double x = radius + across * room, y = x;
    if (motion == 0) x = radius + swing(at) * room;
    if (motion == 1) y = radius + swing(at) * room;
    if (motion == 2) x = radius + swing(at) * room, y = b.z & 2 ? x : size - x;
    if (motion == 3) x = size / 2.0 + orbit * std::cos(kTurn * at), y = size / 2.0 + orbit * std::sin(kTurn * at);
    Picture p{size, size, std::vector<uint8_t>(size_t(size) * size_t(size) * 3)};
    for (int i = 0; i < size; i++)
      for (int j = 0; j < size; j++) {
        int covered = 0;  // of 16 points of the pixel
        for (int k = 0; k < 16; k++) covered += inside(kind, j + (k % 4 + 0.5) / 4 - x, i + (k / 4 + 0.5) / 4 - y, radius);
        for (int c = 0; c < 3; c++) p.rgb[(size_t(i) * size_t(size) + size_t(j)) * 3 + size_t(c)] = uint8_t((20 * (16 - covered) + colour[c] * covered + 8) / 16);
      }
    clip.push_back(std::move(p));
  }
  return clip;
}

}  // namespace kiln
