// Wavelets: the ops against plain loops and finite differences, against PyWavelets, at their borders, and on photographs.
#include "engine/wavelet.h"

#include <cstdlib>
#include <filesystem>

#include "engine/picture_tensor.h"
#include "kernels/pointwise.h"
#include "tests/op_test.h"

using namespace kiln;
using namespace kiln::test;

namespace {

constexpr Wavelet kAll[] = {Wavelet::haar, Wavelet::bior22, Wavelet::bior22_reflect};
using Line = std::vector<double>;

/// Section by section from the definitions in engine/wavelet.h, by filters and explicit borders: no lifting here.
Line filtered(Wavelet w, const Line& x) {
  const int n = int(x.size());
  const double r = std::sqrt(2.0);
  const auto at = [&](int p) {
    if (p >= 0 && p < n) return x[size_t(p)];
    if (w == Wavelet::bior22) return 0.0;
    while (p < 0 || p >= n) p = p < 0 ? -p : 2 * (n - 1) - p;
    return x[size_t(p)];
  };
  Line z;
  if (w == Wavelet::lazy) return x;
  for (int p = 0; p < n; p += 2) {
    if (w == Wavelet::haar) {
      z.push_back((at(p) + at(p + 1)) / r);
      z.push_back((at(p) - at(p + 1)) / r);
    } else {
      z.push_back(r * (-at(p - 2) / 8 + at(p - 1) / 4 + at(p) * 3 / 4 + at(p + 1) / 4 - at(p + 2) / 8));
      z.push_back(r * (at(p) / 4 - at(p + 1) / 2 + at(p + 2) / 4));
    }
  }
  return z;
}

/// Applies a line map along the height and the width of every tile; bands to channels, or back.
template <class Map>
Array in_two_dimensions(const Array& x, int64_t tile, bool split, Map map) {
  const int64_t g = split ? x.shape[3] / tile : x.shape[3] / tile / 4;
  const int64_t h = split ? x.shape[1] : 2 * x.shape[1], w = split ? x.shape[2] : 2 * x.shape[2];
  Array y(split ? Shape{x.shape[0], h / 2, w / 2, 4 * g * tile} : Shape{x.shape[0], h, w, g * tile});
  for (int64_t n = 0; n < x.shape[0]; n++)
    for (int64_t k = 0; k < g; k++)
      for (int64_t c = 0; c < tile; c++) {
        const auto pixel = [&](const Array& a, int64_t i, int64_t j) { return a.at(n, i, j, k * tile + c); };
        const auto band = [&](int64_t i, int64_t j) { return (4 * k + i % 2 + 2 * (j % 2)) * tile + c; };
        std::vector<Line> plane(static_cast<size_t>(h), Line(static_cast<size_t>(w)));
        for (int64_t i = 0; i < h; i++)
          for (int64_t j = 0; j < w; j++) plane[size_t(i)][size_t(j)] = split ? pixel(x, i, j) : x.at(n, i / 2, j / 2, band(i, j));
        for (Line& row : plane) row = map(row);
        for (int64_t j = 0; j < w; j++) {
          Line column;
          for (const Line& row : plane) column.push_back(row[size_t(j)]);
          column = map(column);
          for (int64_t i = 0; i < h; i++) plane[size_t(i)][size_t(j)] = column[size_t(i)];
        }
        for (int64_t i = 0; i < h; i++)
          for (int64_t j = 0; j < w; j++)
            (split ? y.at(n, i / 2, j / 2, band(i, j)) : y.at(n, i, j, k * tile + c)) = plane[size_t(i)][size_t(j)];
      }
  return y;
}

Array split_reference(const Array& x, Wavelet w, int64_t tile) {
  return in_two_dimensions(x, tile, true, [w](const Line& l) { return filtered(w, l); });
}
Array join_reference(const Array& x, Wavelet w, int64_t tile) {
  return in_two_dimensions(x, tile, false, [w](const Line& l) { return wavelet_line_inverse(w, l); });
}

double dot(const Tensor& a, const Tensor& b) {
  const std::vector<float> x = a.to_vector(), y = b.to_vector();
  double s = 0;
  for (size_t i = 0; i < x.size(); i++) s += double(x[i]) * double(y[i]);
  return s;
}

/// |<A x, y> - <x, A'y>| / (|A x| |y|), A' being what backward does.
double adjoint_error(const std::function<Var(const Var&)>& op, const Shape& shape, const std::string& name) {
  Tape tape;
  Recording recording(tape);
  const Var x(to_tensor(random_array(name + ".x", shape)), true), ax = op(x);
  const Tensor y = to_tensor(random_array(name + ".y", ax.shape()));
  tape.backward_from({{ax, y}});
  const double left = dot(ax.value, y), right = dot(x.value, x.node->gradient());
  return std::abs(left - right) / std::sqrt(dot(ax.value, ax.value) * dot(y, y));
}

Tensor constant(const Shape& s, float value) { return from_vector(s, std::vector<float>(size_t(s.count()), value)); }

}  // namespace

TEST_CASE("op: wavelets: lines by lifting equal the filters, and are undone") {
  for (const Wavelet w : kAll)
    for (const int n : {2, 4, 6, 8, 10, 34}) {
      CAPTURE(name_of(w));
      CAPTURE(n);
      Line x;
      for (const float v : hashed_signed("line", n)) x.push_back(double(v));
      const Line z = wavelet_line(w, x), want = filtered(w, x), back = wavelet_line_inverse(w, z);
      for (int i = 0; i < n; i++) {
        CHECK(z[size_t(i)] == doctest::Approx(want[size_t(i)]).epsilon(1e-12));
        if (w != Wavelet::bior22 || (i > 1 && i < n - 1)) CHECK(back[size_t(i)] == doctest::Approx(x[size_t(i)]).epsilon(1e-12));
      }
      if (w != Wavelet::bior22 || n < 6) continue;
      // What zero padding spoils.
      CHECK(back[0] == doctest::Approx(0.875 * x[0]));
      CHECK(back[1] == doctest::Approx(x[1] - 0.0625 * x[0]));
      CHECK(back[size_t(n - 1)] == doctest::Approx(0.875 * x[size_t(n - 1)] + 0.0625 * x[size_t(n - 2)]));
    }
}

TEST_CASE("op: wavelets: names") {
  for (const Wavelet w : kAll) CHECK(wavelet_from_name(name_of(w)) == w);
  CHECK(error_of([] { wavelet_from_name("lazy"); }).starts_with("the wavelet 'lazy' is not known"));
  CHECK(error_of([] { wavelet_from_name("db4"); }) == "the wavelet 'db4' is not known; use haar, bior2.2 or bior2.2-reflect");
}

TEST_CASE("op: wavelet_split and wavelet_join") {
  Fixture fixture;
  struct Case {
    Shape shape;
    int64_t tile;
  };
  for (const Wavelet w : {Wavelet::haar, Wavelet::bior22, Wavelet::bior22_reflect, Wavelet::lazy})
    for (const Case& k : std::initializer_list<Case>{{{2, 8, 12, 3}, 3}, {{1, 2, 4, 8}, 2}, {{1, 14, 6, 6}, 3}, {{1, 4, 10, 16}, 16}}) {
      const std::string name = fmt::format("{} {} in tiles of {}", name_of(w), k.shape.text(), k.tile);
      check_op({"split " + name, {random_array("x", k.shape)}, {}, [&](const std::vector<Var>& v) { return wavelet_split(v[0], w, k.tile); },
                [&](const std::vector<Array>& v) { return split_reference(v[0], w, k.tile); }});
      const Shape bands{k.shape[0], k.shape[1] / 2, k.shape[2] / 2, 4 * k.shape[3]};
      check_op({"join " + name, {random_array("x", bands)}, {}, [&](const std::vector<Var>& v) { return wavelet_join(v[0], w, k.tile); },
                [&](const std::vector<Array>& v) { return join_reference(v[0], w, k.tile); }});
    }
}

TEST_CASE("op: wavelets: every transform's backward is its adjoint, by dot products") {
  Fixture fixture;
  const Shape picture{2, 32, 48, 3};
  for (const Wavelet w : kAll)
    for (const int levels : {1, 2, 3}) {
      CAPTURE(name_of(w));
      CAPTURE(levels);
      const int64_t side = int64_t(1) << levels;
      const Shape packet{2, 32 / side, 48 / side, 3 * side * side}, low{2, 32 / side, 48 / side, 3};
      CHECK(adjoint_error([&](const Var& x) { return wavelet_packet(x, w, levels); }, picture, "packet") < 1e-6);
      CHECK(adjoint_error([&](const Var& x) { return wavelet_unpacket(x, w, levels); }, packet, "unpacket") < 1e-6);
      CHECK(adjoint_error([&](const Var& x) { return wavelet_pyramid(x, w, levels); }, picture, "pyramid") < 1e-6);
      CHECK(adjoint_error([&](const Var& x) { return wavelet_unpyramid(x, w, levels); }, picture, "unpyramid") < 1e-6);
      CHECK(adjoint_error([&](const Var& x) { return low_band(x, w, levels); }, picture, "low") < 1e-6);
      CHECK(adjoint_error([&](const Var& x) { return from_low_band(x, w, levels); }, low, "from_low") < 1e-6);
    }
  // And of bior2.2 the adjoint is not the inverse, nor is the inverse's adjoint the transform.
  const Tensor x = to_tensor(random_array("x", picture));
  Tape tape;
  Recording recording(tape);
  const Var v(x, true), z = wavelet_split(v, Wavelet::bior22, 3);
  tape.backward_from({{z, z.value}});
  CHECK(relative_error(v.node->gradient().to_vector(), x.to_vector()) > 0.3);
}

TEST_CASE("op: wavelets: there and back") {
  Fixture fixture;
  const Tensor x = to_tensor(random_array("x", Shape{1, 64, 96, 3}));
  const auto error = [&](const Var& y) { return relative_error(y.value.to_vector(), x.to_vector()); };
  for (const Wavelet w : {Wavelet::haar, Wavelet::bior22_reflect})
    for (const int levels : {1, 2, 3, 4}) {
      CAPTURE(name_of(w));
      CAPTURE(levels);
      CHECK(error(wavelet_unpacket(wavelet_packet(Var(x), w, levels), w, levels)) < 3e-6);
      CHECK(error(wavelet_unpyramid(wavelet_pyramid(Var(x), w, levels), w, levels)) < 3e-6);
    }
  // Zero padding: L levels of the pyramid spoil 2^L rows and columns at the top and left and 2^L - 1 at the bottom and right.
  for (const int levels : {1, 2, 3}) {
    const std::vector<float> want = x.to_vector(),
                             got = wavelet_unpyramid(wavelet_pyramid(Var(x), Wavelet::bior22, levels), Wavelet::bior22, levels).value.to_vector();
    const int64_t side = int64_t(1) << levels;
    double inside = 0, last_row = 0;
    for (int64_t i = 0; i < 64; i++)
      for (int64_t j = 0; j < 96; j++)
        for (int64_t c = 0; c < 3; c++) {
          const size_t at = size_t((i * 96 + j) * 3 + c);
          const double d = std::abs(double(got[at]) - double(want[at]));
          if (i >= side && i < 64 - (side - 1) && j >= side && j < 96 - (side - 1)) inside = std::max(inside, d);
          if (i == 63) last_row = std::max(last_row, d);
        }
    CHECK(inside < 1e-5);
    CHECK(last_row > 0.05);
  }
}

TEST_CASE("op: wavelets: the borders of a constant picture, zero padding") {
  Fixture fixture;
  const Var one(constant(Shape{1, 64, 64, 1}, 1));
  const auto at = [](const Tensor& t, int64_t i, int64_t j, int64_t c = 0) {
    return double(t.to_vector()[size_t((i * t.shape()[2] + j) * t.shape()[3] + c)]);
  };
  const Tensor z = wavelet_split(one, Wavelet::bior22, 1).value;  // low: 2 inside, 0.875 and 1.125 of it at the ends of an axis
  CHECK(at(z, 16, 16) == doctest::Approx(2));
  CHECK(at(z, 0, 16) == doctest::Approx(2 * 0.875));
  CHECK(at(z, 31, 16) == doctest::Approx(2 * 1.125));
  CHECK(at(z, 16, 0) == doctest::Approx(2 * 0.875));
  CHECK(at(z, 31, 16, 1) == doctest::Approx(-0.5));  // TR's last row
  CHECK(at(z, 16, 31, 2) == doctest::Approx(-0.5));  // BL's last column
  CHECK(at(z, 16, 31, 1) == doctest::Approx(0));
  const Tensor two = wavelet_unpyramid(wavelet_pyramid(one, Wavelet::bior22, 2), Wavelet::bior22, 2).value;
  const double left[] = {.766, .855, .945, .973, 1}, right[] = {1, .961, .922, .898};
  for (int k = 0; k < 5; k++) CHECK(at(two, 32, k) == doctest::Approx(left[k]).epsilon(1e-3));
  for (int k = 0; k < 4; k++) CHECK(at(two, 32, 60 + k) == doctest::Approx(right[k]).epsilon(1e-3));
  const Tensor three = wavelet_unpyramid(wavelet_pyramid(one, Wavelet::bior22, 3), Wavelet::bior22, 3).value;
  CHECK(at(three, 32, 0) == doctest::Approx(.668).epsilon(2e-3));
  for (const Wavelet w : kAll) CHECK(at(low_band(one, w, 3).value, 4, 4) == doctest::Approx(8));
}

TEST_CASE("op: wavelets: what a low band can be") {
  const auto [low, high] = low_band_range(Wavelet::bior22, 2, 0, 1);
  CHECK(low == doctest::Approx(-3.28).epsilon(2e-3));
  CHECK(high == doctest::Approx(7.28).epsilon(2e-3));
  const auto [a, b] = low_band_range(Wavelet::haar, 2, -1, 1);
  CHECK(a == doctest::Approx(-4));
  CHECK(b == doctest::Approx(4));
}

TEST_CASE("op: wavelets: a low band alone is interpolated") {
  Fixture fixture;
  const Tensor low = to_tensor(random_array("low", Shape{1, 8, 8, 1}));
  const std::vector<float> l = low.to_vector(), haar = from_low_band(Var(low), Wavelet::haar, 1).value.to_vector(),
                           bior = from_low_band(Var(low), Wavelet::bior22, 1).value.to_vector();
  for (size_t i = 0; i < 14; i++)
    for (size_t j = 0; j < 14; j++) {
      const auto at = [&](size_t a, size_t b) { return double(l[a * 8 + b]); };
      CHECK(double(haar[i * 16 + j]) == doctest::Approx(at(i / 2, j / 2) / 2));
      // Linear, with even pixels where the low band's numbers are.
      const size_t i0 = i / 2, j0 = j / 2, i1 = (i + 1) / 2, j1 = (j + 1) / 2;
      CHECK(double(bior[i * 16 + j]) == doctest::Approx((at(i0, j0) + at(i0, j1) + at(i1, j0) + at(i1, j1)) / 8));
    }
}

TEST_CASE("op: wavelets: the pyramid's quadrants are the packet's tiles") {
  Fixture fixture;
  const Var x(to_tensor(random_array("x", Shape{1, 16, 24, 3})));
  const std::vector<float> image = wavelet_pyramid(x, Wavelet::bior22, 2).value.to_vector(),
                           tiles = wavelet_packet(x, Wavelet::bior22, 2).value.to_vector(),
                           low = low_band(x, Wavelet::bior22, 2).value.to_vector();
  for (size_t i = 0; i < 4; i++)
    for (size_t j = 0; j < 6; j++)
      for (size_t c = 0; c < 3; c++) {
        const float* tile = &tiles[(i * 6 + j) * 48];
        CHECK(image[(i * 24 + j) * 3 + c] == tile[c]);                // TL
        CHECK(image[(i * 24 + j + 6) * 3 + c] == tile[3 + c]);        // TR
        CHECK(image[((i + 4) * 24 + j) * 3 + c] == tile[6 + c]);      // BL
        CHECK(image[((i + 4) * 24 + j + 6) * 3 + c] == tile[9 + c]);  // BR
        CHECK(low[(i * 6 + j) * 3 + c] == tile[c]);
      }
}

TEST_CASE("op: wavelets: 16-bit pictures") {
  Fixture fixture;
  const Tensor x = to_tensor(random_array("x", Shape{1, 16, 16, 3}));
  for (const DType t : {DType::f16, DType::bf16}) {
    const Tensor half(x.shape(), t);
    KILN_RUN(Work::pointwise, cast(stream, DType::f32, t, x.count(), x.data(), half.data()));
    const Tensor y = wavelet_split(Var(half), Wavelet::bior22, 3).value;
    CHECK(y.dtype() == t);
    CHECK(relative_error(to_array(y), split_reference(to_array(half), Wavelet::bior22, 3)) < (t == DType::f16 ? 5e-4 : 4e-3));
  }
}

TEST_CASE("golden: wavelets against PyWavelets") {
  Fixture fixture;
  const SafetensorsFile file(std::string(KILN_SOURCE_DIR) + "/tests/golden/wavelet.safetensors");
  const Var x(from_vector(Shape{2, 24, 40, 3}, hashed_signed("wavelet.x", 2 * 24 * 40 * 3)));
  for (const Wavelet w : kAll) {
    const std::string mode = name_of(w);
    CAPTURE(mode);
    const Var packet = wavelet_packet(x, w, 2);
    CHECK(golden_error(file, mode + ".packet", packet.value.to_vector()) < 1e-6);
    CHECK(golden_error(file, mode + ".pyramid", wavelet_pyramid(x, w, 3).value.to_vector()) < 1e-6);
    CHECK(golden_error(file, mode + ".back", wavelet_unpacket(packet, w, 2).value.to_vector()) < 1e-6);
  }
}

// Photographs are the user's to bring: KILN_TEST_PICTURES names a folder of them, of any size.
TEST_CASE("op: wavelets: photographs there and back") {
  const char* folder = std::getenv("KILN_TEST_PICTURES");
  if (!folder) {
    MESSAGE("KILN_TEST_PICTURES is not set: no photographs");
    return;
  }
  Fixture fixture;
  int count = 0;
  double worst[3] = {}, worst_inside = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    const std::string extension = entry.path().extension().string();
    if (extension != ".png" && extension != ".jpg") continue;
    Picture p = read_picture(entry.path());
    const int w = p.width / 16 * 16, h = p.height / 16 * 16;
    if (w < 32 || h < 32) continue;
    Picture cropped{w, h, {}};
    for (int i = 0; i < h; i++)
      cropped.rgb.insert(cropped.rgb.end(), p.rgb.begin() + int64_t(i) * p.width * 3, p.rgb.begin() + (int64_t(i) * p.width + w) * 3);
    const Var x(to_tensor(std::vector<Picture>{cropped}));
    count++;
    for (int k = 0; k < 3; k++) {
      const Wavelet wavelet = kAll[k];
      const Tensor back = wavelet_unpyramid(wavelet_pyramid(x, wavelet, 4), wavelet, 4).value;
      const std::vector<float> a = back.to_vector(), b = x.value.to_vector();
      for (int64_t i = 0; i < h; i++)
        for (int64_t j = 0; j < w * 3; j++) {
          const double d = std::abs(double(a[size_t(i * w * 3 + j)]) - double(b[size_t(i * w * 3 + j)]));
          worst[k] = std::max(worst[k], d);
          if (wavelet == Wavelet::bior22 && i >= 16 && i < h - 15 && j >= 48 && j < (w - 15) * 3) worst_inside = std::max(worst_inside, d);
        }
      if (wavelet == Wavelet::bior22) continue;
      CHECK(to_pictures(back)[0].rgb == cropped.rgb);  // every byte comes back
    }
  }
  REQUIRE(count > 0);
  MESSAGE(count << " photographs, four levels, largest error on [-1, 1]: haar " << worst[0] << ", bior2.2-reflect " << worst[2] << ", bior2.2 "
                << worst[1] << " at its borders and " << worst_inside << " inside");
  CHECK(worst[0] < 1e-5);
  CHECK(worst[2] < 1e-5);
  CHECK(worst_inside < 1e-5);
}
