// NSB-GAN's bands: against plain loops, there and back, what is measured of pictures, and which bands belong together.
#include "models/nsbgan_band.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "engine/picture.h"
#include "engine/picture_tensor.h"
#include "models/nsbgan_band_json.h"
#include "tests/op_test.h"

using namespace kiln;
using namespace kiln::nsbgan;
using namespace kiln::test;
namespace fs = std::filesystem;

namespace {

Band band(Domain domain, Wavelet wavelet, int levels, int size, double shift, double scale) { return {domain, wavelet, levels, size, shift, scale}; }

/// One channel of a picture on [0, 1], a low band of it by wavelet_line along both axes.
std::vector<std::vector<double>> low_of(std::vector<std::vector<double>> x, Wavelet w) {
  const auto half = [&](const std::vector<double>& line) {
    const std::vector<double> z = wavelet_line(w, line);
    std::vector<double> low;
    for (size_t k = 0; k < z.size(); k += 2) low.push_back(z[k]);
    return low;
  };
  for (auto& row : x) row = half(row);
  std::vector<std::vector<double>> out(x.size() / 2, std::vector<double>(x[0].size()));
  for (size_t j = 0; j < x[0].size(); j++) {
    std::vector<double> column;
    for (const auto& row : x) column.push_back(row[j]);
    column = half(column);
    for (size_t i = 0; i < column.size(); i++) out[i][j] = column[i];
  }
  return out;
}

}  // namespace

TEST_CASE("nsbgan_band: a band is the normalised low band of the picture on [0, 1]") {
  Fixture f;
  const int64_t n = 2, r = 16;
  const std::vector<float> values = hashed_signed("pictures", n * r * r * 3);
  const Var pictures(tensor_of(Shape{n, r, r, 3}, values));
  for (const Wavelet w : {Wavelet::haar, Wavelet::bior22, Wavelet::bior22_reflect}) {
    const Band b = band(Domain::wavelet, w, 2, int(r), 3, 10);
    const std::vector<float> got = band_of(pictures, b).value.to_vector();
    double worst = 0;
    for (int64_t i = 0; i < n; i++)
      for (int64_t c = 0; c < 3; c++) {
        std::vector<std::vector<double>> x(static_cast<size_t>(r), std::vector<double>(static_cast<size_t>(r)));
        for (int64_t y = 0; y < r; y++)
          for (int64_t k = 0; k < r; k++) x[size_t(y)][size_t(k)] = (double(values[size_t(((i * r + y) * r + k) * 3 + c)]) + 1) / 2;
        x = low_of(low_of(x, w), w);
        for (int64_t y = 0; y < r / 4; y++)
          for (int64_t k = 0; k < r / 4; k++)
            worst = std::max(worst, std::abs(2 * (x[size_t(y)][size_t(k)] + 3) / 10 - 1 - double(got[size_t(((i * r / 4 + y) * r / 4 + k) * 3 + c)])));
      }
    CHECK(worst < 1e-6);
  }
  // The control: means of 4 x 4 pixels, on [-1, 1] as they are.
  const std::vector<float> got = band_of(pictures, band(Domain::pixels, Wavelet::haar, 2, int(r), 0, 1)).value.to_vector();
  double mean = 0;
  for (int64_t y = 4; y < 8; y++)
    for (int64_t x = 8; x < 12; x++) mean += double(values[size_t((y * r + x) * 3 + 1)]) / 16;
  CHECK(got[size_t((1 * r / 4 + 2) * 3 + 1)] == doctest::Approx(mean).epsilon(1e-5));
}

TEST_CASE("nsbgan_band: a constant picture, normalisation there and back, the inverse's low band") {
  Fixture f;
  const int64_t r = 32;
  const Var grey(tensor_of(Shape{1, r, r, 3}, std::vector<float>(size_t(r * r * 3), 0.5f)));  // 0.75 on [0, 1]
  for (const Wavelet w : {Wavelet::haar, Wavelet::bior22_reflect}) {
    const Band b = band(Domain::wavelet, w, 2, int(r), 1, 5);
    for (const float v : band_of(grey, b).value.to_vector()) CHECK(v == doctest::Approx(2 * (0.75 * 4 + 1) / 5 - 1).epsilon(1e-5));
    for (const float v : picture_of_band(band_of(grey, b), b).value.to_vector()) CHECK(v == doctest::Approx(0.5).epsilon(1e-5));
  }
  // Zeros beyond the border make bior2.2's darker; the middle is exact.
  const Band zeros = band(Domain::wavelet, Wavelet::bior22, 2, int(r), 3, 10);
  const std::vector<float> back = picture_of_band(band_of(grey, zeros), zeros).value.to_vector();
  CHECK(back[0] < 0.3f);
  CHECK(back[size_t((r / 2 * r + r / 2) * 3)] == doctest::Approx(0.5).epsilon(1e-5));
  const Band pixels = band(Domain::pixels, Wavelet::haar, 3, int(r), 0, 1);
  for (const float v : picture_of_band(band_of(grey, pixels), pixels).value.to_vector()) CHECK(v == doctest::Approx(0.5).epsilon(1e-5));
  // A picture of a band alone has that band: haar and the reflecting one are exact inverses.
  const Var some(tensor_of(Shape{2, 8, 8, 3}, hashed_signed("bands", 2 * 8 * 8 * 3)));
  for (const Wavelet w : {Wavelet::haar, Wavelet::bior22_reflect}) {
    const Band b = band(Domain::wavelet, w, 2, int(r), 3, 10);
    CHECK(relative_error(band_of(picture_of_band(some, b), b).value.to_vector(), some.value.to_vector()) < 1e-5);
    CHECK(relative_error(normalise(denormalise(some, b), b).value.to_vector(), some.value.to_vector()) < 1e-6);
  }
}

TEST_CASE("nsbgan_band: gradients of the band and of its picture are the adjoints") {
  Fixture f;
  for (const Wavelet w : {Wavelet::haar, Wavelet::bior22, Wavelet::bior22_reflect}) {
    const Band b = band(Domain::wavelet, w, 2, 16, 3, 10);
    Tape tape;
    const Recording recording(tape);
    const auto gradient = [&](const Shape& from, const Shape& to, auto op) {
      const Var x(tensor_of(from, hashed_signed("x", from.count())), true);
      const Var y = op(x);
      CHECK(y.shape() == to);
      const std::vector<float> weights = hashed_signed("w", to.count());
      tape.backward_from({{y, tensor_of(to, weights)}});
      // The op is affine: <w, op(x + d) - op(x)> = <gradient, d>.
      const std::vector<float> d = hashed_signed("d", from.count());
      std::vector<float> moved = x.value.to_vector();
      for (size_t i = 0; i < d.size(); i++) moved[i] += d[i];
      const std::vector<float> there = op(Var(tensor_of(from, moved))).value.to_vector(), here = y.value.to_vector(), g = x.node->gradient().to_vector();
      double left = 0, right = 0;
      for (size_t i = 0; i < here.size(); i++) left += double(weights[i]) * (double(there[i]) - double(here[i]));
      for (size_t i = 0; i < d.size(); i++) right += double(g[i]) * double(d[i]);
      CHECK(left == doctest::Approx(right).epsilon(1e-4));
    };
    gradient(Shape{1, 16, 16, 3}, Shape{1, 4, 4, 3}, [&](const Var& x) { return band_of(x, b); });
    gradient(Shape{1, 4, 4, 3}, Shape{1, 16, 16, 3}, [&](const Var& x) { return picture_of_band(x, b); });
  }
}

TEST_CASE("nsbgan_band: shift and scale are measured of all pictures, and hold their bands") {
  Fixture f;
  const fs::path folder = fs::temp_directory_path() / "kiln_nsbgan_band";
  fs::remove_all(folder);
  fs::create_directories(folder);
  for (int k = 0; k < 5; k++) {
    Picture p{16, 16, std::vector<uint8_t>(16 * 16 * 3)};
    for (size_t i = 0; i < p.rgb.size(); i++) {
      const size_t x = i / 3 % 16, y = i / 48;
      p.rgb[i] = k == 3 ? ((x >= 8) != (y >= 8) ? 255 : 0) : uint8_t(40 * k + 3 * int(x));  // one with strong edges among flat ones
    }
    write_png(folder / (std::to_string(k) + ".png"), p);
  }
  DatasetOptions options;
  options.folder = folder;
  options.size = 16;
  const Dataset data(options);
  Tensor all;
  {
    std::vector<Picture> pictures;
    for (size_t i = 0; i < data.count(); i++) {
      pictures.push_back({16, 16, std::vector<uint8_t>(data.picture_bytes())});
      data.read(i, pictures.back().rgb.data());
    }
    all = to_tensor(pictures);
  }
  for (const Wavelet w : {Wavelet::haar, Wavelet::bior22, Wavelet::bior22_reflect}) {
    const Band b = measure(data, band(Domain::wavelet, w, 2, 16, 7, 99));
    double low = 1e9, high = -1e9;
    for (const float v : raw_band(Var(all), b).value.to_vector()) low = std::min(low, double(v)), high = std::max(high, double(v));
    CHECK(b.shift == std::floor(b.shift));
    CHECK(b.scale == std::floor(b.scale));
    CHECK(b.shift >= -low - 1e-4);
    CHECK(b.scale - b.shift >= high - 1e-4);
    if (w == Wavelet::haar) {
      CHECK(b.shift == 0);
      CHECK(b.scale == 4);  // white is in the set
    } else {
      CHECK(low < 0);
      CHECK(b.shift >= 1);
    }
  }
  const Band pixels = measure(data, band(Domain::pixels, Wavelet::haar, 2, 16, 7, 99));
  CHECK(pixels.shift == 0);
  CHECK(pixels.scale == 1);
  fs::remove_all(folder);
}

TEST_CASE("nsbgan_band: kept as JSON, told apart in words, checked") {
  const Band b = band(Domain::wavelet, Wavelet::bior22_reflect, 2, 64, 2, 9);
  CHECK(nlohmann::json(b).get<Band>() == b);
  const Band p = band(Domain::pixels, Wavelet::bior22, 1, 64, 0, 1);
  CHECK(nlohmann::json(p).get<Band>() == p);
  CHECK(b.text() == "bior2.2-reflect, 2 levels of 64 px: 16 px, 2 (x + 2) / 9 - 1");
  nlohmann::json broken = b;
  broken["wavelet"] = "db4";
  CHECK(contains(error_of([&] { broken.get<Band>(); }), "db4"));

  CHECK(mismatch(b, b).empty());
  Band other = b;
  other.wavelet = Wavelet::haar;
  CHECK(contains(mismatch(b, other), "--wavelet bior2.2-reflect"));
  other = b;
  other.levels = 3;
  CHECK(contains(mismatch(b, other), "--levels 2"));
  other = b;
  other.picture_size = 128;
  CHECK(mismatch(b, other).empty());  // decoders are convolutions: one of 256 px enlarges bands of 512, too
  other = b;
  other.scale = 8;
  CHECK(contains(mismatch(b, other), "--normalisation 2 9"));
  CHECK(contains(mismatch(b, p), "--domain wavelet"));
  Band q = p;
  q.wavelet = Wavelet::haar;  // says nothing of pixels
  CHECK(mismatch(p, q).empty());

  for (const auto& [levels, size] : {std::pair{0, 64}, std::pair{7, 1024}, std::pair{2, 66}, std::pair{3, 16}})
    CHECK(contains(error_of([&, l = levels, s = size] { check(band(Domain::wavelet, Wavelet::haar, l, s, 0, 4)); }), "--levels"));
}
