// PSNR, SSIM and interpolation against plain loops and numbers that scikit-image and Pillow give.
#include "engine/psnr_ssim.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::test;

namespace {

Picture hashed_picture(const std::string& name, int w, int h, double noise = 0, const Picture* on = nullptr) {
  Picture p{w, h, std::vector<uint8_t>(size_t(w) * size_t(h) * 3)};
  const std::vector<float> u = hashed_uniform(name, int64_t(p.rgb.size()));
  for (size_t i = 0; i < u.size(); i++)
    p.rgb[i] = on ? uint8_t(std::clamp(std::floor(double(on->rgb[i]) + noise * (double(u[i]) - 0.5)), 0.0, 255.0)) : uint8_t(255.99 * double(u[i]));
  return p;
}

/// Windows one at a time, from the definition.
double plain_ssim(const Picture& a, const Picture& b) {
  double g[11][11], sum = 0, total = 0;
  for (int i = 0; i < 11; i++)
    for (int j = 0; j < 11; j++) sum += g[i][j] = std::exp(-((i - 5) * (i - 5) + (j - 5) * (j - 5)) / 4.5);
  int64_t windows = 0;
  for (int c = 0; c < 3; c++)
    for (int y = 0; y + 11 <= a.height; y++)
      for (int x = 0; x + 11 <= a.width; x++) {
        const auto at = [&](const Picture& p, int i, int j) { return double(p.rgb[(size_t(y + i) * size_t(p.width) + size_t(x + j)) * 3 + size_t(c)]); };
        double ma = 0, mb = 0, va = 0, vb = 0, v = 0;
        for (int i = 0; i < 11; i++)
          for (int j = 0; j < 11; j++) ma += g[i][j] / sum * at(a, i, j), mb += g[i][j] / sum * at(b, i, j);
        for (int i = 0; i < 11; i++)
          for (int j = 0; j < 11; j++) {
            const double da = at(a, i, j) - ma, db = at(b, i, j) - mb;
            va += g[i][j] / sum * da * da, vb += g[i][j] / sum * db * db, v += g[i][j] / sum * da * db;
          }
        const double c1 = 6.5025, c2 = 58.5225;
        total += (2 * ma * mb + c1) * (2 * v + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2));
        windows++;
      }
  return total / double(windows);
}

}  // namespace

TEST_CASE("psnr_ssim: PSNR is its formula") {
  Picture a{2, 1, {0, 10, 20, 30, 40, 50}}, b = a;
  CHECK(psnr(a, b) == 100);
  b.rgb = {3, 10, 20, 30, 36, 50};
  CHECK(psnr(a, b) == doctest::Approx(10 * std::log10(255.0 * 255 * 6 / 25)));
  a.rgb.assign(6, 0);
  b.rgb.assign(6, 255);
  CHECK(psnr(a, b) == doctest::Approx(0));
}

TEST_CASE("psnr_ssim: SSIM is the mean over windows, as scikit-image has it") {
  const Picture a = hashed_picture("ssim.a", 23, 17), b = hashed_picture("ssim.b", 23, 17, 80, &a), c = hashed_picture("ssim.c", 23, 17);
  CHECK(ssim(a, a) == doctest::Approx(1));
  CHECK(ssim(a, b) == doctest::Approx(plain_ssim(a, b)).epsilon(1e-10));
  CHECK(ssim(a, c) == doctest::Approx(plain_ssim(a, c)).epsilon(1e-10));
  CHECK(ssim(a, b) > ssim(a, c));
  // skimage.metrics.structural_similarity(a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=2)
  CHECK(ssim(a, b) == doctest::Approx(0.9512219968655949).epsilon(1e-6));
  CHECK(ssim(a, c) == doctest::Approx(0.03748581397547912).epsilon(1e-5));
  CHECK(contains(error_of([&] { ssim(Picture{10, 20, std::vector<uint8_t>(600)}, Picture{10, 20, std::vector<uint8_t>(600)}); }), "11 pixels"));
}

TEST_CASE("psnr_ssim: interpolation keeps what it must") {
  Fixture f;
  // A plane is met exactly inside by both, at either site; a constant everywhere.
  std::vector<float> plane, flat(size_t(6) * 5 * 2, 0.25f);
  for (int i = 0; i < 6; i++)
    for (int j = 0; j < 5; j++)
      for (int c = 0; c < 2; c++) plane.push_back(float(2 * i - 3 * j + c));
  for (const Interpolation kind : {Interpolation::bilinear, Interpolation::bicubic})
    for (const Sites sites : {Sites::areas, Sites::corners})
      for (const int factor : {2, 4}) {
        const Tensor y = interpolate(from_vector(Shape{1, 6, 5, 2}, plane), factor, kind, sites);
        REQUIRE(y.shape() == Shape{1, 6 * factor, 5 * factor, 2});
        const std::vector<float> v = y.to_vector();
        const double shift = sites == Sites::areas ? 0.5 / factor - 0.5 : 0;
        for (int i = 2 * factor; i < 4 * factor; i++)
          for (int j = 2 * factor; j < 3 * factor; j++)
            for (int c = 0; c < 2; c++) {
              const double want = 2 * (double(i) / factor + shift) - 3 * (double(j) / factor + shift) + c;
              CHECK(double(v[size_t((i * 5 * factor + j) * 2 + c)]) == doctest::Approx(want).epsilon(1e-5));
            }
        for (const float x : interpolate(from_vector(Shape{1, 6, 5, 2}, flat), factor, kind, sites).to_vector()) CHECK(x == doctest::Approx(0.25));
      }
  // Pillow's BICUBIC (away from borders) of the row 0 0 1 0 0 0, twice as wide, in the middle
  const std::vector<float> bump = interpolate(from_vector(Shape{1, 1, 6, 1}, {0, 0, 1, 0, 0, 0}), 2, Interpolation::bicubic, Sites::areas).to_vector();
  const double want[] = {-0.0234375, -0.0703125, 0.2265625, 0.8671875, 0.8671875, 0.2265625, -0.0703125, -0.0234375};
  for (size_t i = 0; i < 8; i++) CHECK(bump[i + 1] == doctest::Approx(want[i]).epsilon(1e-6));
}
