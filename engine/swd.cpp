#include "engine/swd.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "engine/error.h"

namespace kiln {
namespace {

using swd_detail::level_shapes;
using swd_detail::LevelShape;
using swd_detail::Plane;

// ---- random numbers -------------------------------------------------------------------------------------------------

enum Purpose : uint64_t { kCorner = 1, kDirection = 2, kSplit = 3 };

uint64_t mix(uint64_t x) {  // splitmix64's finaliser
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

uint64_t bits(uint64_t seed, Purpose purpose, uint64_t a, uint64_t b) {
  return mix(mix(mix(mix(seed) ^ purpose) ^ a) ^ b);
}

// Uniform in [0, n), n < 2^32, from the upper 32 bits.
int64_t below(uint64_t random, int64_t n) {
  return static_cast<int64_t>(((random >> 32) * static_cast<uint64_t>(n)) >> 32);
}

// Uniform in (0, 1]: the logarithm of it is finite.
double unit(uint64_t random) { return (static_cast<double>(random >> 11) + 1) * 0x1p-53; }

// ---- descriptors ----------------------------------------------------------------------------------------------------

// Descriptors lie in tiles of kTile, a tile being [patch*patch*3, kTile]: the projection then multiplies whole vectors
// of descriptors by one number of a direction, and a tile (37 KB) stays in the cache under all directions.
constexpr int kTile = 64;

struct Descriptors {
  int64_t count = 0;                       // per level
  std::vector<std::vector<float>> levels;  // tiles; places past count hold 0
};

// Pictures of an array [*, height, width, 3].
PictureReader reader_of(const uint8_t* pictures, int height, int width) {
  const size_t bytes = static_cast<size_t>(height) * width * 3;
  return [=](int64_t i, uint8_t* to) { std::memcpy(to, pictures + i * bytes, bytes); };
}

constexpr int64_t kPicturesAtOnce = 64;

// The patches of the slot-th picture's level into their tiles; adds the values' sums and sums of squares by channel.
void cut_patches(const Plane& plane, int level, int64_t slot, int patches, const SwdOptions& options, float* tiles,
                 double* sum) {
  const int length = options.patch * options.patch * 3;
  for (int p = 0; p < patches; ++p) {
    const auto corner = swd_detail::patch_corner(options, level, slot, p, plane.height, plane.width);
    const int64_t at = slot * patches + p;
    float* to = tiles + at / kTile * length * kTile + at % kTile;
    for (int y = 0; y < options.patch; ++y) {
      const float* from = plane.pixels.data() + (static_cast<size_t>(corner.y + y) * plane.width + corner.x) * 3;
      for (int x = 0; x < options.patch; ++x) {
        for (int c = 0; c < 3; ++c, ++from, to += kTile) {
          *to = *from;
          sum[c] += *from;
          sum[3 + c] += static_cast<double>(*from) * *from;
        }
      }
    }
  }
}

// Descriptors of a set, normalised by its own moments. order: which pictures make the set; corners go by the place in
// `order`.
Descriptors extract(const PictureReader& read, const std::vector<int64_t>& order, int height, int width, int patches,
                    const SwdOptions& options) {
  const auto shapes = level_shapes(height, width, options.min_level);
  const int levels = static_cast<int>(shapes.size());
  const int length = options.patch * options.patch * 3;
  const int64_t n = static_cast<int64_t>(order.size());
  Descriptors d;
  d.count = n * patches;
  const int64_t tiles = (d.count + kTile - 1) / kTile;
  d.levels.resize(levels);
  for (auto& level : d.levels) level.assign(static_cast<size_t>(tiles) * length * kTile, 0.f);

  // Per picture, level and channel: sum and sum of squares. Added picture by picture below, so that the number of
  // threads leaves no trace.
  std::vector<double> sums(static_cast<size_t>(n) * levels * 6, 0.0);
  const size_t bytes = static_cast<size_t>(height) * width * 3;
  std::vector<uint8_t> pictures(static_cast<size_t>(std::min(n, kPicturesAtOnce)) * bytes);
  for (int64_t begin = 0; begin < n; begin += kPicturesAtOnce) {
    const int64_t end = std::min(n, begin + kPicturesAtOnce);
    for (int64_t slot = begin; slot < end; ++slot) read(order[slot], pictures.data() + (slot - begin) * bytes);
#pragma omp parallel
    {
      std::vector<Plane> pyramid;
#pragma omp for schedule(dynamic) nowait
      for (int64_t slot = begin; slot < end; ++slot) {
        swd_detail::laplacian_pyramid(pictures.data() + (slot - begin) * bytes, height, width, options.min_level,
                                      pyramid);
        for (int level = 0; level < levels; ++level)
          cut_patches(pyramid[level], level, slot, patches, options, d.levels[level].data(),
                      sums.data() + (slot * levels + level) * 6);
      }
    }
  }

  std::vector<float> mean(static_cast<size_t>(levels) * 3), scale(mean.size());
  for (int level = 0; level < levels; ++level) {
    for (int c = 0; c < 3; ++c) {
      double s = 0, q = 0;
      for (int64_t slot = 0; slot < n; ++slot) {
        s += sums[(slot * levels + level) * 6 + c];
        q += sums[(slot * levels + level) * 6 + 3 + c];
      }
      const double values = static_cast<double>(d.count) * options.patch * options.patch;
      const double deviation = std::sqrt(std::max(0.0, q / values - s / values * (s / values)));
      mean[level * 3 + c] = static_cast<float>(s / values);
      scale[level * 3 + c] = deviation < 1e-3 ? 0.f : static_cast<float>(1 / deviation);
    }
  }
#pragma omp parallel for collapse(2)
  for (int level = 0; level < levels; ++level) {
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int valid = static_cast<int>(std::min<int64_t>(kTile, d.count - tile * kTile));
      for (int k = 0; k < length; ++k) {
        const float m = mean[level * 3 + k % 3], f = scale[level * 3 + k % 3];
        float* v = d.levels[level].data() + (tile * length + k) * kTile;
        for (int i = 0; i < valid; ++i) v[i] = (v[i] - m) * f;
      }
    }
  }
  return d;
}

// ---- projection and distance ----------------------------------------------------------------------------------------

constexpr int kGroup = 16;  // directions that one thread takes at a time
constexpr int kBlock = 4;   // directions x lanes of the inner product: what the registers hold
constexpr int kLanes = 32;

// out[i] [count] = descriptors . directions[i] [length], for `many` directions (at most kGroup). Each product is one
// sum in the order of the patch, whatever the blocks are.
void project(const float* tiles, int64_t count, int length, const float* directions, int many, float* out) {
  for (int64_t first = 0; first < count; first += kTile) {
    const float* tile = tiles + first * length;
    const int valid = static_cast<int>(std::min<int64_t>(kTile, count - first));
    for (int j = 0; j < many; j += kBlock) {
      const float* row[kBlock];  // past the last direction: the last again, computed and not stored
      for (int r = 0; r < kBlock; ++r) row[r] = directions + static_cast<int64_t>(std::min(j + r, many - 1)) * length;
      for (int lane = 0; lane < valid; lane += kLanes) {
        float sum[kBlock][kLanes] = {};
        for (int k = 0; k < length; ++k) {
          const float* v = tile + k * kTile + lane;
          for (int r = 0; r < kBlock; ++r) {
            for (int i = 0; i < kLanes; ++i) sum[r][i] += row[r][k] * v[i];
          }
        }
        const int keep = std::min(kLanes, valid - lane);
        for (int r = 0; r < std::min(kBlock, many - j); ++r) {
          std::memcpy(out + (j + r) * count + first + lane, sum[r], keep * sizeof(float));
        }
      }
    }
  }
}

void project_sorted(const float* tiles, int64_t count, int length, const float* directions, int many, float* out,
                    uint32_t* scratch) {
  project(tiles, count, length, directions, many, out);
  for (int j = 0; j < many; ++j) swd_detail::sort_floats(out + j * count, count, scratch);
}

// Eight partial sums in a fixed pattern: vectors, and yet one order of addition.
double mean_abs_difference(const float* a, const float* b, int64_t n) {
  double part[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int l = 0; l < 8; ++l) part[l] += std::fabs(static_cast<double>(a[i + l]) - b[i + l]);
  }
  double sum = 0;
  for (; i < n; ++i) sum += std::fabs(static_cast<double>(a[i]) - b[i]);
  for (double p : part) sum += p;
  return sum / static_cast<double>(n);
}

// Runs body(level, first direction, how many, buffer a, buffer b, scratch) over all levels and groups of directions;
// the buffers hold kGroup x count. One parallel region for everything: on a busy machine each barrier costs.
template <class F>
void for_direction_groups(size_t levels, int directions, int64_t count, F body) {
  const int groups = (directions + kGroup - 1) / kGroup;
#pragma omp parallel
  {
    std::vector<float> a(static_cast<size_t>(kGroup) * count), b(a.size());
    std::vector<uint32_t> scratch(2 * count);
#pragma omp for collapse(2) schedule(dynamic) nowait
    for (size_t level = 0; level < levels; ++level) {
      for (int group = 0; group < groups; ++group) {
        const int first = group * kGroup;
        body(level, first, std::min(kGroup, directions - first), a.data(), b.data(), scratch.data());
      }
    }
  }
}

double mean_of(const std::vector<double>& v) {
  return std::accumulate(v.begin(), v.end(), 0.0) / static_cast<double>(v.size());
}

SwdResult finish(std::vector<double> per_level) {
  SwdResult result;
  result.per_level = std::move(per_level);
  for (double& v : result.per_level) v *= 1e3;
  result.mean = mean_of(result.per_level);
  return result;
}

// Per level the mean over its directions: each is [levels, directions].
std::vector<double> level_means(const std::vector<double>& each, size_t levels) {
  std::vector<double> means;
  const int64_t directions = static_cast<int64_t>(each.size() / levels);
  for (size_t level = 0; level < levels; ++level) {
    const double* row = each.data() + level * directions;
    means.push_back(std::accumulate(row, row + directions, 0.0) / static_cast<double>(directions));
  }
  return means;
}

using Levels = std::vector<std::vector<float>>;

// Distance of two sets of descriptors; where keep_a and keep_b are given, their sorted projections too.
SwdResult distance(const Descriptors& a, const Descriptors& b, const Levels& directions, int length,
                   Levels* keep_a = nullptr, Levels* keep_b = nullptr) {
  const int64_t count = a.count;
  const size_t levels = directions.size();
  const int many = static_cast<int>(directions[0].size() / length);
  if (keep_a) {
    keep_a->assign(levels, std::vector<float>(static_cast<size_t>(many) * count));
    keep_b->assign(levels, std::vector<float>(static_cast<size_t>(many) * count));
  }
  std::vector<double> each(levels * many);
  for_direction_groups(levels, many, count,
                       [&](size_t level, int first, int group, float* pa, float* pb, uint32_t* scratch) {
                         if (keep_a) {
                           pa = (*keep_a)[level].data() + first * count;
                           pb = (*keep_b)[level].data() + first * count;
                         }
                         const float* v = directions[level].data() + static_cast<int64_t>(first) * length;
                         project_sorted(a.levels[level].data(), count, length, v, group, pa, scratch);
                         project_sorted(b.levels[level].data(), count, length, v, group, pb, scratch);
                         for (int j = 0; j < group; ++j) {
                           each[level * many + first + j] = mean_abs_difference(pa + j * count, pb + j * count, count);
                         }
                       });
  return finish(level_means(each, levels));
}

void check(const SwdOptions& o, int height, int width) {
  if (o.patch < 1 || o.patches_per_image < 1 || o.directions < 1 || o.max_descriptors < 1 || o.pictures < 1 ||
      o.splits < 1) {
    fail("SWD: patch, patches_per_image, directions, max_descriptors, pictures and splits must be 1 or more");
  }
  // 3 is the least side on which the filter's mirrored border is defined.
  if (o.min_level < std::max(o.patch, 3)) {
    fail("SWD: min_level {} is too small for patches of {} pixels; set it to {} or more", o.min_level, o.patch,
         std::max(o.patch, 3));
  }
  if (std::min(height, width) < o.min_level) {
    fail(
        "SWD: pictures of {}x{} pixels are smaller than the smallest pyramid level, {}; leave SWD off or lower "
        "min_level",
        width, height, o.min_level);
  }
}

int patches_for(int64_t pictures, const SwdOptions& o) {
  return static_cast<int>(std::clamp<int64_t>(o.max_descriptors / pictures, 1, o.patches_per_image));
}

Levels all_directions(const SwdOptions& options, int height, int width) {
  Levels directions;
  const int levels = static_cast<int>(level_shapes(height, width, options.min_level).size());
  for (int level = 0; level < levels; ++level) directions.push_back(swd_detail::unit_directions(options, level));
  return directions;
}

std::vector<int64_t> range(int64_t first, int64_t count) {
  std::vector<int64_t> v(count);
  std::iota(v.begin(), v.end(), first);
  return v;
}

}  // namespace

// ---- the pieces -----------------------------------------------------------------------------------------------------

namespace swd_detail {

Corner patch_corner(const SwdOptions& options, int level, int64_t slot, int patch_index, int height, int width) {
  const uint64_t patch = static_cast<uint64_t>(slot) << 32 | static_cast<uint32_t>(patch_index);
  const uint64_t random = bits(options.seed, kCorner, static_cast<uint64_t>(level), patch);
  // Two independent draws of 32 bits: the upper half as it is, the lower one shifted up.
  return {static_cast<int>(below(random, height - options.patch + 1)),
          static_cast<int>(below(random << 32, width - options.patch + 1))};
}

std::vector<float> unit_directions(const SwdOptions& options, int level) {
  const int length = options.patch * options.patch * 3;
  std::vector<float> directions(static_cast<size_t>(options.directions) * length);
  std::vector<double> v(length);
  for (int j = 0; j < options.directions; ++j) {
    double norm = 0;
    for (int k = 0; k < length; ++k) {  // Box and Muller, one of the two
      const uint64_t at = 2 * (static_cast<uint64_t>(j) * length + k);
      const double radius = std::sqrt(-2 * std::log(unit(bits(options.seed, kDirection, level, at))));
      v[k] = radius * std::cos(6.283185307179586 * unit(bits(options.seed, kDirection, level, at + 1)));
      norm += v[k] * v[k];
    }
    norm = std::sqrt(norm);
    for (int k = 0; k < length; ++k) directions[static_cast<size_t>(j) * length + k] = static_cast<float>(v[k] / norm);
  }
  return directions;
}

// Radix sort, three passes of 11 bits: ten times as fast as comparisons at the thousands of values met here.
void sort_floats(float* values, int64_t n, uint32_t* scratch) {
  constexpr int kBits = 11, kBins = 1 << kBits;
  uint32_t *from = scratch, *to = scratch + n;
  uint32_t start[3][kBins] = {};  // 32 bits: all three tables stay in the nearest cache
  for (int64_t i = 0; i < n; ++i) {
    // IEEE floats order like integers once negative ones have all bits flipped and the others their sign bit.
    uint32_t u;
    std::memcpy(&u, values + i, 4);
    u ^= u >> 31 ? 0xffffffffu : 0x80000000u;
    from[i] = u;
    ++start[0][u & (kBins - 1)];
    ++start[1][u >> kBits & (kBins - 1)];
    ++start[2][u >> 2 * kBits];
  }
  for (auto& bins : start) {
    uint32_t sum = 0;
    for (uint32_t& bin : bins) sum += std::exchange(bin, sum);
  }
  for (int pass = 0; pass < 3; ++pass) {
    for (int64_t i = 0; i < n; ++i) to[start[pass][from[i] >> pass * kBits & (kBins - 1)]++] = from[i];
    std::swap(from, to);
  }
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t u = from[i] ^ (from[i] >> 31 ? 0x80000000u : 0xffffffffu);
    std::memcpy(values + i, &u, 4);
  }
}

}  // namespace swd_detail

double wasserstein1(std::vector<float> a, std::vector<float> b) {
  if (a.size() != b.size() || a.empty()) {
    fail("Wasserstein-1 needs two samples of one size, 1 or more; got {} and {} values", a.size(), b.size());
  }
  const int64_t n = static_cast<int64_t>(a.size());
  std::vector<uint32_t> scratch(2 * a.size());
  swd_detail::sort_floats(a.data(), n, scratch.data());
  swd_detail::sort_floats(b.data(), n, scratch.data());
  return mean_abs_difference(a.data(), b.data(), n);
}

SwdResult swd(const uint8_t* a, int64_t na, const uint8_t* b, int64_t nb, int height, int width,
              const SwdOptions& options) {
  check(options, height, width);
  const int64_t n = std::min(na, nb);
  if (n < 1) fail("SWD: a set without pictures ({} and {})", na, nb);
  const int patches = patches_for(n, options);
  const auto order = range(0, n);
  return distance(extract(reader_of(a, height, width), order, height, width, patches, options),
                  extract(reader_of(b, height, width), order, height, width, patches, options), all_directions(options, height, width),
                  options.patch * options.patch * 3);
}

// ---- the reference --------------------------------------------------------------------------------------------------

SwdReference::SwdReference(const uint8_t* reals, int64_t count, int height, int width, const SwdOptions& options)
    : SwdReference(reader_of(reals, height, width), count, height, width, options) {}

SwdReference::SwdReference(const PictureReader& reals, int64_t count, int height, int width, const SwdOptions& options)
    : count_(count), height_(height), width_(width), options_(options) {
  check(options, height, width);
  if (count < 2) fail("SWD: {} real pictures; two halves need 2 or more", count);
  pictures_ = std::min<int64_t>(options.pictures, count / 2);
  patches_ = patches_for(pictures_, options);
  directions_ = all_directions(options, height, width);
  const int length = options.patch * options.patch * 3;

  std::vector<double> means;
  baseline_.per_level.assign(directions_.size(), 0.0);
  for (int split = 0; split < options.splits; ++split) {
    auto order = range(0, count);
    for (int64_t i = count - 1; i > 0; --i) {  // Fisher and Yates
      std::swap(order[i], order[below(bits(options.seed, kSplit, split, i), i + 1)]);
    }
    const std::vector<int64_t> first(order.begin(), order.begin() + pictures_);
    const std::vector<int64_t> second(order.begin() + pictures_, order.begin() + 2 * pictures_);
    const auto a = extract(reals, first, height, width, patches_, options);
    const auto b = extract(reals, second, height, width, patches_, options);
    const bool keep = split == 0;
    const auto result = distance(a, b, directions_, length, keep ? &half_[0] : nullptr, keep ? &half_[1] : nullptr);
    for (size_t i = 0; i < result.per_level.size(); ++i) baseline_.per_level[i] += result.per_level[i] / options.splits;
    means.push_back(result.mean);
  }
  baseline_.mean = mean_of(means);
  double squares = 0;
  for (double m : means) squares += (m - baseline_.mean) * (m - baseline_.mean);
  if (options.splits > 1) baseline_spread_ = std::sqrt(squares / (options.splits - 1));
}

SwdResult SwdReference::compare(const uint8_t* fakes, int64_t count) const {
  return compare(reader_of(fakes, height_, width_), count);
}

SwdResult SwdReference::compare(const PictureReader& fakes, int64_t count) const {
  if (count < pictures_) {
    fail(
        "SWD: {} fakes, but the reference compares {} pictures a side; generate that many, or build it with "
        "pictures={}",
        count, pictures_, count);
  }
  const int length = options_.patch * options_.patch * 3;
  const int64_t groups = count / pictures_;
  const size_t levels = directions_.size();
  std::vector<double> per_level(levels, 0.0), each(levels * options_.directions);
  for (int64_t g = 0; g < groups; ++g) {
    const auto d = extract(fakes, range(g * pictures_, pictures_), height_, width_, patches_, options_);
    for_direction_groups(levels, options_.directions, d.count,
                         [&](size_t level, int first, int many, float* p, float*, uint32_t* scratch) {
                           const float* v = directions_[level].data() + static_cast<int64_t>(first) * length;
                           project_sorted(d.levels[level].data(), d.count, length, v, many, p, scratch);
                           for (int j = 0; j < many; ++j) {
                             const float *fake = p + j * d.count, *a = half_[0][level].data() + (first + j) * d.count,
                                         *b = half_[1][level].data() + (first + j) * d.count;
                             each[level * options_.directions + first + j] =
                                 (mean_abs_difference(fake, a, d.count) + mean_abs_difference(fake, b, d.count)) / 2;
                           }
                         });
    const auto means = level_means(each, levels);
    for (size_t level = 0; level < levels; ++level) per_level[level] += means[level] / static_cast<double>(groups);
  }
  return finish(std::move(per_level));
}

SwdResult SwdReference::compare(const float* fakes, int64_t count) const {
  const int64_t size = static_cast<int64_t>(height_) * width_ * 3;
  const int64_t n = std::max<int64_t>(count, 0) * size;
  std::vector<uint8_t> rounded(n);
  int64_t bad = n;  // place of the first NaN
#pragma omp parallel for reduction(min : bad)
  for (int64_t i = 0; i < n; ++i) {
    if (std::isnan(fakes[i])) bad = std::min(bad, i);
    // The comparison is written so that a NaN takes a defined branch.
    const float v = fakes[i] > -1.f ? std::min(fakes[i], 1.f) : -1.f;
    rounded[i] = static_cast<uint8_t>(v * 127.5f + 128.f);
  }
  if (bad < n) fail("SWD: picture {} of the fakes holds NaN", bad / size);
  return compare(rounded.data(), count);
}

std::vector<int> SwdReference::levels() const {
  std::vector<int> sides;
  for (const LevelShape& s : level_shapes(height_, width_, options_.min_level)) sides.push_back(std::min(s.height, s.width));
  return sides;
}

int64_t SwdReference::bytes() const {
  int64_t floats = 0;
  for (const auto& level : directions_) floats += static_cast<int64_t>(level.size());
  for (const auto& half : half_) {
    for (const auto& level : half) floats += static_cast<int64_t>(level.size());
  }
  return floats * static_cast<int64_t>(sizeof(float));
}

SwdReference::Memory SwdReference::plan(int64_t count, int height, int width, int threads, const SwdOptions& o) {
  if (count < 2) return {};
  const int64_t levels = static_cast<int64_t>(level_shapes(height, width, o.min_level).size());
  const int64_t pictures = std::min<int64_t>(o.pictures, count / 2), length = int64_t{o.patch} * o.patch * 3;
  const int64_t descriptors = pictures * patches_for(pictures, o), f = sizeof(float);
  const int64_t bytes = int64_t{height} * width * 3;
  Memory m;
  m.held = levels * o.directions * (length + 2 * descriptors) * f;
  const int64_t clouds = levels * (descriptors + kTile) * length * f;  // of one set
  // Per thread two groups of projections and the sort's scratch, or a pyramid; and the pictures being read.
  const int64_t working = threads * std::max((2 * kGroup + 2) * descriptors * f, bytes * f * 2) + std::min(pictures, kPicturesAtOnce) * bytes;
  m.building = m.held + 2 * clouds + working;
  m.comparing = m.held + clouds + working;
  return m;
}

std::string SwdReference::description() const {
  std::string sides;
  for (int side : levels()) sides += fmt::format(" {}", side);
  return fmt::format(
      "SWD x1e3 on Laplacian levels{}: {} pictures a side (of {} real), {} patches {}x{}x3 each per level = {} "
      "descriptors, "
      "{} directions, seed {}; value: fakes against two disjoint real sets, mean; baseline: real against real, mean of "
      "{} "
      "splits; {:.1f} MB",
      sides, pictures_, count_, patches_, options_.patch, options_.patch, pictures_ * patches_, options_.directions,
      options_.seed, options_.splits, static_cast<double>(bytes()) * 1e-6);
}

}  // namespace kiln
