#include <doctest/doctest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <csignal>

#include "engine/error.h"
#include "engine/picture.h"
#include "tests/picture_fixtures.h"

using namespace kiln;
using namespace fixtures;

namespace {

Picture solid(int width, int height, uint8_t r, uint8_t g, uint8_t b) {
  Picture p{width, height, {}};
  for (int i = 0; i < width * height; ++i) p.rgb.insert(p.rgb.end(), {r, g, b});
  return p;
}

const uint8_t* at(const Picture& p, int x, int y) { return &p.rgb[(size_t(y) * p.width + x) * 3]; }

/// Catmull-Rom in double precision, one axis at a time, as Pillow defines BICUBIC.
Picture reference(const Picture& p, int size) {
  const auto kernel = [](double x) {
    x = std::fabs(x);
    return x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
  };
  const auto weights = [&](int in, int o, std::vector<double>& w) {
    const double scale = double(in) / size, wide = std::max(scale, 1.0), centre = (o + 0.5) * scale;
    w.assign(in, 0);
    double sum = 0;
    for (int i = int(centre - 2 * wide) - 1; i <= int(centre + 2 * wide) + 1; ++i) {
      const double k = kernel((i + 0.5 - centre) / wide);
      w[std::clamp(i, 0, in - 1)] += k;  // the edge is repeated
      sum += k;
    }
    for (double& k : w) k /= sum;
  };
  Picture out{size, size, Bytes(size_t(size) * size * 3)};
  std::vector<double> wx, wy;
  for (int y = 0; y < size; ++y) {
    weights(p.height, y, wy);
    for (int x = 0; x < size; ++x) {
      weights(p.width, x, wx);
      for (int c = 0; c < 3; ++c) {
        double sum = 0;
        for (int j = 0; j < p.height; ++j) {
          for (int i = 0; wy[j] != 0 && i < p.width; ++i) sum += wy[j] * wx[i] * at(p, i, j)[c];
        }
        out.rgb[(size_t(y) * size + x) * 3 + c] = static_cast<uint8_t>(std::clamp(std::lround(sum), 0l, 255l));
      }
    }
  }
  return out;
}

}  // namespace

TEST_CASE("fit: the filter is Catmull-Rom, widened for shrinking") {
  for (auto [w, h] : {std::pair{40, 30}, {7, 9}, {97, 64}, {16, 16}, {1, 1}, {1, 50}}) {
    for (int size : {1, 5, 16, 33}) {
      CAPTURE(w);
      CAPTURE(h);
      CAPTURE(size);
      const Picture p = sample(w, h);
      CHECK(difference(fit_picture(p, size, Fit::squash), reference(p, size)) <= 1);
    }
  }
}

TEST_CASE("fit: shrinking does not alias") {
  Picture checks = solid(256, 256, 0, 0, 0);
  for (int i = 0; i < 256 * 256; ++i) {
    if ((i % 256 + i / 256) % 2 == 0) std::fill_n(&checks.rgb[i * 3], 3, uint8_t{255});
  }
  for (uint8_t v : fit_picture(checks, 50, Fit::squash).rgb) CHECK(std::abs(v - 128) <= 3);
}

TEST_CASE("fit: crop takes the centre, pad keeps everything, squash fills") {
  Picture wide = solid(300, 100, 255, 0, 0);
  for (int y = 0; y < 100; ++y)
    std::memcpy(&wide.rgb[(size_t(y) * 300 + 100) * 3], solid(100, 1, 0, 255, 0).rgb.data(), 300);
  CHECK(difference(fit_picture(wide, 100, Fit::crop), solid(100, 100, 0, 255, 0)) == 0);
  const Picture crop = fit_picture(wide, 30, Fit::crop);
  CHECK(difference(crop, solid(30, 30, 0, 255, 0)) == 0);

  const Picture pad = fit_picture(wide, 90, Fit::pad, {1, 2, 3});
  CHECK(Bytes(at(pad, 45, 29), at(pad, 45, 29) + 3) == Bytes{1, 2, 3});
  CHECK(Bytes(at(pad, 45, 60), at(pad, 45, 60) + 3) == Bytes{1, 2, 3});
  CHECK(Bytes(at(pad, 45, 30), at(pad, 45, 30) + 3) == Bytes{0, 255, 0});
  CHECK(Bytes(at(pad, 10, 59), at(pad, 10, 59) + 3) == Bytes{255, 0, 0});

  const Picture squash = fit_picture(wide, 90, Fit::squash);
  CHECK(Bytes(at(squash, 5, 0), at(squash, 5, 0) + 3) == Bytes{255, 0, 0});
  CHECK(Bytes(at(squash, 45, 89), at(squash, 45, 89) + 3) == Bytes{0, 255, 0});

  CHECK(fit_picture(solid(5000, 1, 9, 9, 9), 16, Fit::pad, {}).rgb[0] == 255);
  const Picture same = sample(64, 64);
  for (Fit fit : {Fit::crop, Fit::squash, Fit::pad}) CHECK(difference(fit_picture(same, 64, fit), same) == 0);
}

TEST_CASE("fit: names") {
  for (Fit fit : {Fit::crop, Fit::squash, Fit::pad}) CHECK(fit_from_name(fit_name(fit)) == fit);
  CHECK_THROWS_WITH_AS(fit_from_name("stretch"), "unknown fit \"stretch\": use crop, squash or pad", Error);
}

TEST_CASE("grid") {
  const std::vector<Picture> five(5, solid(4, 3, 10, 20, 30));
  const Picture grid = make_grid(five, 3, 2, {0, 0, 0});
  CHECK(grid.width == 3 * 4 + 4 * 2);
  CHECK(grid.height == 2 * 3 + 3 * 2);
  int filled = 0;
  for (size_t i = 0; i < grid.rgb.size(); i += 3) filled += grid.rgb[i] == 10;
  CHECK(filled == 5 * 12);
  CHECK(*at(grid, 2, 2) == 10);
  CHECK(*at(grid, 1, 2) == 0);
  CHECK(*at(grid, 14, 7) == 0);  // the sixth place
}

TEST_CASE("write_png: the same picture and text come back, equal in gives equal out") {
  const TempFolder folder;
  const Picture p = sample(33, 21);
  const PngText text = {
      {"Software", "kiln"}, {"kiln.seed", "17"}, {"Title", "Grüße, 窯"}, {"Long", std::string(5000, 'x')}};
  write_png(folder / "a.png", p, text);
  write_png(folder / "b.png", p, text);
  CHECK(read_all(folder / "a.png") == read_all(folder / "b.png"));
  CHECK(difference(read_picture(folder / "a.png"), p) == 0);
  PngText back = read_png_text(folder / "a.png");
  CHECK(back.size() == text.size());
  for (const auto& pair : text) CHECK(std::find(back.begin(), back.end(), pair) != back.end());
  write_file(folder / "c.png", "no");
  CHECK_THROWS_AS(read_png_text(folder / "c.png"), Error);
  write_png(folder / "a.png", sample(5, 5));  // replaces
  CHECK(read_picture(folder / "a.png").width == 5);
  int files = 0;
  for (const auto& entry : fs::directory_iterator(folder.path)) files += entry.is_regular_file();
  CHECK(files == 3);  // and nothing temporary
}

TEST_CASE("write_png: what cannot be written is named, and what was there stays") {
  const TempFolder folder;
  const auto error_of = [](const fs::path& path, const Picture& p) -> std::string {
    try {
      write_png(path, p);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  const Picture small = sample(8, 8);
  std::string text = error_of(folder / "none" / "a.png", small);
  CHECK(text.starts_with((folder / "none" / "a.png").string()));
  CHECK(text.find("make its folder first") != std::string::npos);

  Picture noise = sample(200, 200);
  for (size_t i = 0; i < noise.rgb.size(); ++i) noise.rgb[i] = static_cast<uint8_t>(i * i * 31 >> 5);
  write_png(folder / "a.png", small);
  // A limit on file size stands for a full disk: write() fails in the middle in the same way.
  rlimit old_limit;
  getrlimit(RLIMIT_FSIZE, &old_limit);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit = old_limit;
  limit.rlim_cur = 4096;
  setrlimit(RLIMIT_FSIZE, &limit);
  text = error_of(folder / "a.png", noise);
  setrlimit(RLIMIT_FSIZE, &old_limit);
  std::signal(SIGXFSZ, old_handler);
  CHECK(text.starts_with((folder / "a.png").string() + ": cannot write: File too large (needs "));
  CHECK(difference(read_picture(folder / "a.png"), small) == 0);
  int files = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(folder.path)) ++files;
  CHECK(files == 1);
}
