// Sliced Wasserstein distance: the pieces beside plain loops and known values, then what a training log relies on.
#include "engine/swd.h"

#include <doctest/doctest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "engine/error.h"

using namespace kiln;
using Pictures = std::vector<uint8_t>;

namespace {

// Uniform in [0,1) from mt19937's integers: the standard fixes these, not what its distributions make of them.
struct Random {
  std::mt19937 engine;
  explicit Random(uint32_t seed) : engine(seed) {}
  double operator()() { return engine() * 0x1p-32; }
  double gauss() { return std::sqrt(-2 * std::log(1 - (*this)())) * std::cos(6.283185307179586 * (*this)()); }
};

uint8_t level(double v) { return static_cast<uint8_t>(std::clamp(v, 0.0, 255.0) + 0.5); }

// A population to draw from: a tinted ground, waves of all scales with amplitude 1/frequency as in photographs, and a
// few rectangles for edges.
Pictures draw(int count, int side, uint32_t seed) {
  Random random(seed);
  Pictures out;
  for (int n = 0; n < count; ++n) {
    std::vector<double> p(static_cast<size_t>(side) * side * 3);
    double ground[3];
    for (double& g : ground) g = 90 + 70 * random();
    for (size_t i = 0; i < p.size(); ++i) p[i] = ground[i % 3];
    for (int wave = 0; wave < 24; ++wave) {
      const double cycles = std::exp2(5 * random()), turn = 6.283 * random(), phase = 6.283 * random();
      const double fx = 6.283 * cycles * std::cos(turn) / 64, fy = 6.283 * cycles * std::sin(turn) / 64;
      double amplitude[3];
      for (double& a : amplitude) a = 30 / cycles * (0.5 + random());
      for (int y = 0; y < side; ++y) {
        for (int x = 0; x < side; ++x) {
          const double v = std::sin(fx * x + fy * y + phase);
          for (int c = 0; c < 3; ++c) p[(static_cast<size_t>(y) * side + x) * 3 + c] += amplitude[c] * v;
        }
      }
    }
    for (int box = 0; box < 4; ++box) {
      const int x0 = static_cast<int>(random() * side), y0 = static_cast<int>(random() * side);
      const int x1 = std::min(side, x0 + 2 + static_cast<int>(random() * side / 2));
      const int y1 = std::min(side, y0 + 2 + static_cast<int>(random() * side / 2));
      double step[3];
      for (double& s : step) s = 60 * (random() - 0.5);
      for (int y = y0; y < y1; ++y) {
        for (int x = x0; x < x1; ++x) {
          for (int c = 0; c < 3; ++c) p[(static_cast<size_t>(y) * side + x) * 3 + c] += step[c];
        }
      }
    }
    for (double v : p) out.push_back(level(v));
  }
  return out;
}

Pictures blurred(const Pictures& a, int side) {
  Pictures out(a.size());
  const int rows = static_cast<int>(a.size()) / (side * 3);
  for (int row = 0; row < rows; ++row) {
    for (int x = 0; x < side; ++x) {
      for (int c = 0; c < 3; ++c) {
        double sum = 0;
        for (int dy = -1; dy <= 1; ++dy) {
          for (int dx = -1; dx <= 1; ++dx) {
            const int y = std::clamp(row % side + dy, 0, side - 1), xx = std::clamp(x + dx, 0, side - 1);
            sum += (2 - std::abs(dy)) * (2 - std::abs(dx)) *
                   a[(static_cast<size_t>(row / side * side + y) * side + xx) * 3 + c];
          }
        }
        out[(static_cast<size_t>(row) * side + x) * 3 + c] = level(sum / 16);
      }
    }
  }
  return out;
}

Pictures white_noise(int count, int side, uint32_t seed) {
  Random random(seed);
  Pictures out(static_cast<size_t>(count) * side * side * 3);
  for (auto& v : out) v = static_cast<uint8_t>(random() * 256);
  return out;
}

SwdOptions small() {
  SwdOptions o;
  o.directions = 64;
  o.max_descriptors = 2048;
  return o;
}

std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// ---- the definition once more, in plain double loops: every tap of the 5x5 filter, zeros and all
// ----------------------

struct Slow {
  int h, w;
  std::vector<double> v;  // [h, w, 3]
  double& at(int y, int x, int c) { return v[(static_cast<size_t>(y) * w + x) * 3 + c]; }
};

Slow slow_filter(Slow& in) {
  const double f[5] = {1 / 16., 4 / 16., 6 / 16., 4 / 16., 1 / 16.};
  const auto fold = [](int i, int n) { return i < 0 ? -i : i >= n ? 2 * (n - 1) - i : i; };
  Slow out{in.h, in.w, std::vector<double>(in.v.size(), 0.0)};
  for (int y = 0; y < in.h; ++y)
    for (int x = 0; x < in.w; ++x)
      for (int c = 0; c < 3; ++c)
        for (int i = 0; i < 5; ++i)
          for (int j = 0; j < 5; ++j) {
            out.at(y, x, c) += f[i] * f[j] * in.at(fold(y + i - 2, in.h), fold(x + j - 2, in.w), c);
          }
  return out;
}

std::vector<Slow> slow_pyramid(const uint8_t* picture, int h, int w, int min_level) {
  std::vector<Slow> out{{h, w, std::vector<double>(picture, picture + static_cast<size_t>(h) * w * 3)}};
  for (;;) {
    Slow& fine = out.back();
    Slow filtered = slow_filter(fine);
    Slow coarse{(fine.h + 1) / 2, (fine.w + 1) / 2, {}};
    if (std::min(coarse.h, coarse.w) < min_level) return out;
    Slow stuffed{fine.h, fine.w, std::vector<double>(fine.v.size(), 0.0)};
    for (int y = 0; y < coarse.h; ++y)
      for (int x = 0; x < coarse.w; ++x)
        for (int c = 0; c < 3; ++c) {
          coarse.v.push_back(filtered.at(2 * y, 2 * x, c));
          stuffed.at(2 * y, 2 * x, c) = filtered.at(2 * y, 2 * x, c);
        }
    const Slow up = slow_filter(stuffed);
    for (size_t i = 0; i < fine.v.size(); ++i) fine.v[i] -= 4 * up.v[i];
    out.push_back(coarse);
  }
}

std::vector<double> slow_swd(const Pictures& a, const Pictures& b, int n, int h, int w, const SwdOptions& o) {
  std::vector<double> result;
  const int length = o.patch * o.patch * 3;
  const size_t levels = slow_pyramid(a.data(), h, w, o.min_level).size();
  for (size_t l = 0; l < levels; ++l) {
    std::vector<std::vector<double>> cloud[2];
    for (int set = 0; set < 2; ++set) {
      for (int i = 0; i < n; ++i) {
        auto plane = slow_pyramid((set ? b : a).data() + static_cast<size_t>(i) * h * w * 3, h, w, o.min_level)[l];
        for (int p = 0; p < o.patches_per_image; ++p) {
          const auto corner = swd_detail::patch_corner(o, static_cast<int>(l), i, p, plane.h, plane.w);
          std::vector<double> d;
          for (int y = 0; y < o.patch; ++y)
            for (int x = 0; x < o.patch; ++x)
              for (int c = 0; c < 3; ++c) d.push_back(plane.at(corner.y + y, corner.x + x, c));
          cloud[set].push_back(d);
        }
      }
      for (int c = 0; c < 3; ++c) {
        const double values = static_cast<double>(cloud[set].size()) * length / 3;
        double mean = 0, var = 0;
        for (auto& d : cloud[set])
          for (int k = c; k < length; k += 3) mean += d[k] / values;
        for (auto& d : cloud[set])
          for (int k = c; k < length; k += 3) var += (d[k] - mean) * (d[k] - mean) / values;
        for (auto& d : cloud[set])
          for (int k = c; k < length; k += 3) d[k] = (d[k] - mean) / std::sqrt(var);
      }
    }
    const auto directions = swd_detail::unit_directions(o, static_cast<int>(l));
    double total = 0;
    for (int j = 0; j < o.directions; ++j) {
      std::vector<double> line[2];
      for (int set = 0; set < 2; ++set) {
        for (auto& d : cloud[set]) {
          double dot = 0;
          for (int k = 0; k < length; ++k) dot += d[k] * directions[static_cast<size_t>(j) * length + k];
          line[set].push_back(dot);
        }
        std::sort(line[set].begin(), line[set].end());
      }
      for (size_t i = 0; i < line[0].size(); ++i) {
        total += std::fabs(line[0][i] - line[1][i]) / static_cast<double>(line[0].size());
      }
    }
    result.push_back(1e3 * total / o.directions);
  }
  return result;
}

}  // namespace

// ---- pieces ---------------------------------------------------------------------------------------------------------

TEST_CASE("swd: Wasserstein-1 on the line has its known values") {
  CHECK(wasserstein1({3, 0, 1}, {6, 8, 5}) == doctest::Approx(5));  // a shift
  CHECK(wasserstein1({-1, 4}, {4, -1}) == 0);                       // one set in two orders
  CHECK(wasserstein1({0, 0, 0, 0}, {1, -1, 2, -2}) == doctest::Approx(1.5));
  // Crossing pairs: matching in the given order would cost (10 + 10) / 2.
  CHECK(wasserstein1({0, 10}, {10, 0.5f}) == doctest::Approx(0.25));

  std::vector<float> point, uniform, twice;  // a point in the middle of [0,1]: 1/4. U(0,1) against U(0,2): 1/2
  for (int i = 0; i < 1000; ++i) {
    point.push_back(0.5f);
    uniform.push_back((static_cast<float>(i) + 0.5f) / 1000);
    twice.push_back(2 * uniform.back());
  }
  std::reverse(uniform.begin(), uniform.end());
  CHECK(wasserstein1(point, uniform) == doctest::Approx(0.25).epsilon(1e-5));
  CHECK(wasserstein1(uniform, twice) == doctest::Approx(0.5).epsilon(1e-5));

  Random random(3);  // N(0,1) against N(0,1.5): 0.5 E|z| = 0.5 sqrt(2/pi)
  std::vector<float> narrow, wide;
  for (int i = 0; i < 200000; ++i) {
    narrow.push_back(static_cast<float>(random.gauss()));
    wide.push_back(static_cast<float>(1.5 * random.gauss()));
  }
  CHECK(wasserstein1(narrow, wide) == doctest::Approx(0.5 * std::sqrt(2 / 3.14159265)).epsilon(0.02));

  CHECK(has(error_of([] { wasserstein1({1, 2}, {1}); }), "2 and 1"));
  CHECK(has(error_of([] { wasserstein1({}, {}); }), "0 and 0"));
}

TEST_CASE("swd: radix sort orders floats of every kind") {
  Random random(1);
  for (int n : {1, 2, 3, 63, 1000, 5000}) {
    std::vector<float> v(n);
    for (auto& f : v) f = static_cast<float>(random.gauss() * std::exp2(80 * random() - 40));
    for (float special : {0.f, -0.f, 1e-42f, -1e-42f, 3e38f, -3e38f, 1.f, 1.f}) {
      if (random() < 0.7) v[static_cast<size_t>(random() * n)] = special;
    }
    auto expected = v;
    std::sort(expected.begin(), expected.end());
    std::vector<uint32_t> scratch(2 * v.size());
    swd_detail::sort_floats(v.data(), n, scratch.data());
    CHECK(v == expected);
  }
}

TEST_CASE("swd: the pyramid gives the picture back, and its levels are those of the plain loops") {
  const int sizes[][2] = {{64, 64}, {32, 48}, {21, 34}, {50, 23}, {16, 16}};
  for (const auto& size : sizes) {
    const int h = size[0], w = size[1];
    CAPTURE(h);
    CAPTURE(w);
    const Pictures noise = white_noise(1, 64, static_cast<uint32_t>(h));
    std::vector<swd_detail::Plane> pyramid;
    swd_detail::laplacian_pyramid(white_noise(1, 64, 1).data(), 64, 64, 16, pyramid);  // reused memory leaves no trace
    swd_detail::laplacian_pyramid(noise.data(), h, w, 10, pyramid);
    auto slow = slow_pyramid(noise.data(), h, w, 10);
    REQUIRE(pyramid.size() == slow.size());
    CHECK(std::min(slow.back().h, slow.back().w) >= 10);
    for (size_t l = 0; l < slow.size(); ++l) {
      REQUIRE(pyramid[l].height == slow[l].h);
      REQUIRE(pyramid[l].pixels.size() == slow[l].v.size());
      double worst = 0;
      for (size_t i = 0; i < slow[l].v.size(); ++i)
        worst = std::max(worst, std::fabs(slow[l].v[i] - pyramid[l].pixels[i]));
      CHECK(worst < 1e-4);
    }
    const auto back = swd_detail::collapse(pyramid);
    REQUIRE(back.pixels.size() == static_cast<size_t>(h) * w * 3);
    double worst = 0;
    for (size_t i = 0; i < back.pixels.size(); ++i)
      worst = std::max<double>(worst, std::fabs(back.pixels[i] - noise[i]));
    CHECK(worst < 1e-4);
  }
}

TEST_CASE("swd: a flat picture has nothing above the low-pass") {
  const Pictures flat(40 * 40 * 3, 201);
  std::vector<swd_detail::Plane> pyramid;
  swd_detail::laplacian_pyramid(flat.data(), 40, 40, 16, pyramid);
  REQUIRE(pyramid.size() == 2);
  for (float v : pyramid[0].pixels) CHECK(v == 0);
  for (float v : pyramid[1].pixels) CHECK(v == 201);
}

TEST_CASE("swd: patch corners are uniform over all places, and go by the seed") {
  SwdOptions o, other;
  other.seed = 2;
  const int h = 16, w = 11;  // 10 x 5 places
  std::vector<int> hits(50);
  int equal = 0;
  for (int slot = 0; slot < 50; ++slot) {
    for (int p = 0; p < 100; ++p) {
      const auto c = swd_detail::patch_corner(o, 0, slot, p, h, w);
      REQUIRE((c.y >= 0 && c.y < 10 && c.x >= 0 && c.x < 5));
      ++hits[c.y * 5 + c.x];
      const auto d = swd_detail::patch_corner(other, 0, slot, p, h, w);
      equal += c.y == d.y && c.x == d.x;
    }
  }
  double chi = 0;  // 49 degrees of freedom: 99.9% lie below 85
  for (int n : hits) chi += (n - 100.0) * (n - 100.0) / 100;
  CHECK(chi < 85);
  CHECK(equal < 200);  // 100 expected by chance
}

TEST_CASE("swd: directions are unit vectors spread over the sphere") {
  SwdOptions o;
  o.directions = 400;
  const auto v = swd_detail::unit_directions(o, 0);
  REQUIRE(v.size() == 400u * 147);
  double sum = 0, fourth = 0;
  for (int j = 0; j < 400; ++j) {
    double norm = 0;
    for (int k = 0; k < 147; ++k) {
      const double x = v[static_cast<size_t>(j) * 147 + k];
      norm += x * x;
      sum += x;
      fourth += x * x * x * x * 147 * 147;
    }
    CHECK(norm == doctest::Approx(1).epsilon(1e-6));
  }
  CHECK(std::fabs(sum) < 4 * std::sqrt(400.0));                                   // 400 variances of 1
  CHECK(fourth / (400 * 147) == doctest::Approx(3.0 * 147 / 149).epsilon(0.05));  // uniform on the sphere
  CHECK(swd_detail::unit_directions(o, 1)[0] != v[0]);                            // each level its own
  o.directions = 7;
  const auto fewer = swd_detail::unit_directions(o, 0);
  CHECK(std::equal(fewer.begin(), fewer.end(), v.begin()));
}

// ---- the distance ---------------------------------------------------------------------------------------------------

TEST_CASE("swd: equals the definition in plain double loops") {
  // Sizes that fill neither a tile, nor a block of lanes, nor a group of directions.
  for (int directions : {1, 19, 33}) {
    SwdOptions o;
    o.patch = 5;
    o.patches_per_image = 23;
    o.directions = directions;
    o.min_level = 9;
    const int h = 21, w = 34, n = 3;
    const Pictures a = draw(2, 64, 1), b = white_noise(2, 64, 2);
    const auto fast = swd(a.data(), n, b.data(), n, h, w, o);
    const auto slow = slow_swd(a, b, n, h, w, o);
    REQUIRE(fast.per_level.size() == 2);
    REQUIRE(slow.size() == 2);
    for (size_t l = 0; l < slow.size(); ++l) CHECK(fast.per_level[l] == doctest::Approx(slow[l]).epsilon(1e-5));
    CHECK(fast.mean == doctest::Approx((slow[0] + slow[1]) / 2).epsilon(1e-5));
  }
}

TEST_CASE("swd: equal sets have distance 0, and the distance is symmetric") {
  const Pictures a = draw(12, 32, 1), b = draw(12, 32, 2);
  const auto self = swd(a.data(), 12, a.data(), 12, 32, 32, small());
  REQUIRE(self.per_level.size() == 2);
  for (double v : self.per_level) CHECK(v == 0);
  const auto ab = swd(a.data(), 12, b.data(), 12, 32, 32, small()),
             ba = swd(b.data(), 12, a.data(), 12, 32, 32, small());
  CHECK(ab.per_level == ba.per_level);
  CHECK(ab.mean > 0);
}

TEST_CASE("swd: sets of unequal size are compared at the smaller one's") {
  const Pictures a = draw(9, 32, 1), b = draw(14, 32, 2);
  const auto cut = swd(a.data(), 9, b.data(), 9, 32, 32, small());
  CHECK(swd(a.data(), 9, b.data(), 14, 32, 32, small()).per_level == cut.per_level);
  CHECK(swd(b.data(), 14, a.data(), 9, 32, 32, small()).per_level == cut.per_level);
}

TEST_CASE("swd: each fault shows in the level that it is in") {
  const int n = 100, side = 64;
  SwdOptions o;
  o.directions = 32;
  o.max_descriptors = 6400;
  static const Pictures fresh = draw(n, side, 2);  // once for all parts below
  static const SwdReference reference(draw(2 * n, side, 1).data(), 2 * n, side, side, o);
  static const SwdResult clean = reference.compare(fresh.data(), n);
  REQUIRE(reference.levels() == std::vector<int>{64, 32, 16});
  const auto rise = [&](const Pictures& fakes) {
    auto r = reference.compare(fakes.data(), n).per_level;
    for (size_t l = 0; l < r.size(); ++l) r[l] -= clean.per_level[l];
    return r;
  };

  SUBCASE("blur: most in the finest level, nothing in the low-pass") {
    const auto r = rise(blurred(fresh, side));
    CHECK(r[0] > clean.per_level[0]);
    CHECK(r[0] > 4 * std::fabs(r[1]));
    CHECK(std::fabs(r[2]) < 0.05 * clean.per_level[2]);
    CHECK(rise(blurred(blurred(fresh, side), side))[0] > r[0]);
  }
  SUBCASE("fine noise: the same") {
    Pictures noisy = fresh;
    Random random(5);
    for (auto& v : noisy) v = level(v + 6 * random.gauss());
    const auto r = rise(noisy);
    CHECK(r[0] > clean.per_level[0]);
    CHECK(r[0] > 4 * std::fabs(r[1]));
    CHECK(std::fabs(r[2]) < 0.05 * clean.per_level[2]);
  }
  SUBCASE("half of the pictures dark, half bright: only the low-pass") {
    Pictures flicker = fresh;
    const int picture = side * side * 3;
    for (size_t i = 0; i < flicker.size(); ++i) flicker[i] = level(flicker[i] + (i / picture % 2 ? 45 : -45));
    const auto r = rise(flicker);
    CHECK(r[2] > clean.per_level[2]);
    CHECK(std::fabs(r[0]) < 0.05 * clean.per_level[0]);
    CHECK(std::fabs(r[1]) < 0.05 * clean.per_level[1]);
  }
  SUBCASE("one brightness for all pictures: by definition unseen") {
    Pictures middle = fresh, brighter = fresh;  // away from 0 and 255, so that nothing is clipped
    for (auto& v : middle) v = static_cast<uint8_t>(40 + v / 2);
    for (size_t i = 0; i < brighter.size(); ++i) brighter[i] = static_cast<uint8_t>(middle[i] + 30);
    const auto r = rise(middle), s = rise(brighter);
    for (int l = 0; l < 3; ++l) CHECK(std::fabs(r[l] - s[l]) < 0.01);
  }
  SUBCASE("white noise: huge everywhere") {
    const auto r = reference.compare(white_noise(n, side, 9).data(), n);
    for (int l = 0; l < 3; ++l) CHECK(r.per_level[l] > 3 * reference.baseline().per_level[l]);
  }
  SUBCASE("two pictures again and again: the low-pass most") {
    Pictures collapsed;
    for (int i = 0; i < n; ++i) {
      const auto from = fresh.begin() + i % 2 * side * side * 3;
      collapsed.insert(collapsed.end(), from, from + side * side * 3);
    }
    const auto r = rise(collapsed);
    CHECK(r[2] > clean.per_level[2]);
    CHECK(r[2] > 2 * r[0]);
  }
  SUBCASE("flat pictures: finite, and beyond every other fault") {
    const auto r = reference.compare(Pictures(fresh.size(), 128).data(), n);
    for (double v : r.per_level) CHECK((v > 400 && v < 1000));
    const Pictures flat(fresh.size(), 90);
    CHECK(swd(flat.data(), n, flat.data(), n, side, side, small()).mean == 0);
  }
}

TEST_CASE("swd: the baseline is what fresh pictures of the same kind reach") {
  const int n = 40, side = 32, trials = 12;
  double value = 0, baseline = 0, copies = 0, halves = 0;
  for (int t = 0; t < trials; ++t) {
    const Pictures real = draw(n, side, 100 + t), fresh = draw(n / 2, side, 200 + t);
    SwdOptions o = small();
    o.seed = t;
    const SwdReference reference(real.data(), n, side, side, o);
    REQUIRE(reference.pictures() == n / 2);
    CHECK(reference.baseline_spread() > 0);
    CHECK(reference.baseline_spread() < reference.baseline().mean / 3);
    value += reference.compare(fresh.data(), n / 2).mean / trials;
    baseline += reference.baseline().mean / trials;
    copies += reference.compare(real.data(), n / 2).mean / trials;
    halves += swd(real.data(), n / 2, real.data() + real.size() / 2, n / 2, side, side, o).mean / trials;
  }
  MESSAGE("value " << value << ", baseline " << baseline << ", of copies " << copies);
  CHECK(value == doctest::Approx(baseline).epsilon(0.05));
  CHECK(halves == doctest::Approx(baseline).epsilon(0.05));
  CHECK(copies < 0.9 * baseline);  // pictures of the training set are nearer than honest ones

  // The bias that the protocol is about: with a quarter of the pictures the same truth seems farther away.
  SwdOptions few = small();
  few.pictures = 5;
  const Pictures real = draw(n, side, 100);
  CHECK(SwdReference(real.data(), n, side, side, few).baseline().mean > 1.3 * baseline);
}

TEST_CASE("swd: a value is the mean over both real sets, a baseline the mean over the splits") {
  // Of two real pictures each set holds one, whatever the split: one set is at distance 0 of its own picture.
  const int side = 32;
  const size_t picture = side * side * 3;
  const Pictures real = draw(2, side, 1);
  const SwdReference reference(real.data(), 2, side, side, small());
  const auto apart = swd(real.data(), 1, real.data() + picture, 1, side, side, small());
  const auto first = reference.compare(real.data(), 1), second = reference.compare(real.data() + picture, 1);
  REQUIRE(apart.mean > 0);
  for (size_t l = 0; l < apart.per_level.size(); ++l) {
    CHECK(first.per_level[l] == doctest::Approx(apart.per_level[l] / 2).epsilon(1e-12));
    CHECK(second.per_level[l] == doctest::Approx(apart.per_level[l] / 2).epsilon(1e-12));
    CHECK(reference.baseline().per_level[l] == doctest::Approx(apart.per_level[l]).epsilon(1e-12));
  }
  CHECK(reference.baseline().mean == doctest::Approx(apart.mean).epsilon(1e-12));
  CHECK(reference.baseline_spread() < 1e-9);

  const Pictures many = draw(12, side, 2);
  const SwdReference larger(many.data(), 12, side, side, small());
  const auto& b = larger.baseline();
  CHECK(b.mean == doctest::Approx((b.per_level[0] + b.per_level[1]) / 2).epsilon(1e-12));
}

TEST_CASE("swd: several groups of fakes are averaged, a rest is left out") {
  const int side = 32, k = 10;
  const size_t picture = side * side * 3;
  const Pictures real = draw(2 * k, side, 1), fakes = draw(2 * k + 3, side, 2);
  const SwdReference reference(real.data(), 2 * k, side, side, small());
  const auto first = reference.compare(fakes.data(), k), second = reference.compare(fakes.data() + k * picture, k);
  const auto both = reference.compare(fakes.data(), 2 * k + 3);
  CHECK(reference.compare(fakes.data(), 2 * k - 1).mean == first.mean);
  for (size_t l = 0; l < both.per_level.size(); ++l) {
    CHECK(both.per_level[l] == doctest::Approx((first.per_level[l] + second.per_level[l]) / 2).epsilon(1e-12));
  }
}

TEST_CASE("swd: pictures in [-1,1] are rounded to bytes") {
  const int side = 32, k = 6;
  const Pictures real = draw(2 * k, side, 1), fakes = draw(k, side, 2);
  const SwdReference reference(real.data(), 2 * k, side, side, small());
  const auto expected = reference.compare(fakes.data(), k);
  std::vector<float> f;
  for (uint8_t v : fakes) f.push_back(static_cast<float>(v) / 127.5f - 1 + (v % 2 ? 0.003f : -0.003f));
  CHECK(reference.compare(f.data(), k).per_level == expected.per_level);

  auto wild = f;  // beyond the range: as if clamped
  auto clamped = fakes;
  for (size_t i = 0; i < 5000; i += 2) wild[i] = 7, clamped[i] = 255;
  for (size_t i = 1; i < 5000; i += 2) wild[i] = -INFINITY, clamped[i] = 0;
  CHECK(reference.compare(wild.data(), k).per_level == reference.compare(clamped.data(), k).per_level);

  f[4 * side * side * 3 + 17] = NAN;
  CHECK(has(error_of([&] { reference.compare(f.data(), k); }), "picture 4 of the fakes holds NaN"));
}

TEST_CASE("swd: results depend on the seed and not on the number of threads") {
  const int n = 21, side = 32;
  const Pictures real = draw(2 * n, side, 1), fakes = draw(n, side, 2);
  const int before = omp_get_max_threads();
  std::vector<SwdResult> values, baselines, plain;
  for (int threads : {1, 2, 3, 2}) {
    omp_set_num_threads(threads);
    const SwdReference reference(real.data(), 2 * n, side, side, small());
    values.push_back(reference.compare(fakes.data(), n));
    baselines.push_back(reference.baseline());
    plain.push_back(swd(real.data(), n, fakes.data(), n, side, side, small()));
  }
  omp_set_num_threads(before);
  for (size_t i = 1; i < values.size(); ++i) {
    CHECK(values[i].per_level == values[0].per_level);
    CHECK(values[i].mean == values[0].mean);
    CHECK(baselines[i].per_level == baselines[0].per_level);
    CHECK(plain[i].per_level == plain[0].per_level);
  }
  SwdOptions other = small();
  other.seed = 2;
  const SwdReference reference(real.data(), 2 * n, side, side, other);
  CHECK(reference.compare(fakes.data(), n).mean != values[0].mean);
  CHECK(reference.compare(fakes.data(), n).mean == doctest::Approx(values[0].mean).epsilon(0.3));
}

TEST_CASE("swd: counts, memory and the log's line") {
  const int side = 32;
  const Pictures real = draw(31, side, 1);
  SwdOptions o;
  o.directions = 48;
  o.max_descriptors = 1000;
  const SwdReference reference(real.data(), 31, side, side, o);
  CHECK(reference.pictures() == 15);
  CHECK(reference.bytes() == 4 * (2 * 2 * 48 * 15 * 66 + 2 * 48 * 147));  // 1000 / 15 = 66 patches
  CHECK(reference.description() ==
        "SWD x1e3 on Laplacian levels 32 16: 15 pictures a side (of 31 real), 66 patches 7x7x3 each per level = 990 "
        "descriptors, 48 directions, seed 1; value: fakes against two disjoint real sets, mean; baseline: real against "
        "real, mean of 4 splits; 0.8 MB");
  o.pictures = 6;
  o.patches_per_image = 20;
  const SwdReference fewer(real.data(), 31, side, side, o);
  CHECK(fewer.pictures() == 6);
  CHECK(has(fewer.description(), "20 patches 7x7x3 each per level = 120 descriptors"));
}

TEST_CASE("swd: errors say what and what to do") {
  const Pictures p = draw(4, 32, 1);
  const auto reference = [&](int count, int side, SwdOptions o) { SwdReference(p.data(), count, side, side, o); };
  CHECK(has(error_of([&] { reference(1, 32, {}); }), "1 real pictures; two halves need 2"));
  CHECK(has(error_of([&] { reference(4, 8, {}); }), "pictures of 8x8 pixels are smaller"));
  CHECK(has(error_of([&] { swd(p.data(), 1, p.data(), 1, 32, 12); }), "12x32"));
  CHECK(has(error_of([&] { swd(p.data(), 1, p.data(), 0, 32, 32); }), "without pictures (1 and 0)"));
  SwdOptions o;
  o.patch = 17;
  CHECK(has(error_of([&] { reference(4, 32, o); }), "set it to 17 or more"));
  o = {};
  o.directions = 0;
  CHECK(has(error_of([&] { reference(4, 32, o); }), "must be 1 or more"));
  const SwdReference good(p.data(), 4, 32, 32, small());
  CHECK(has(error_of([&] { good.compare(p.data(), 1); }), "1 fakes, but the reference compares 2 pictures a side"));
}
