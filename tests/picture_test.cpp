#include "engine/picture.h"

#include <doctest/doctest.h>
#include <webp/mux.h>

#include <functional>
#include <random>

#include "engine/error.h"
#include "engine/file.h"
#include "engine/hash.h"
#include "tests/picture_fixtures.h"

using namespace kiln;
using namespace fixtures;

namespace {

Picture decode(const Bytes& file, Rgb background = {}) { return decode_picture(file, "some.pic", background); }

/// The text of the Error that it throws; "" if it throws none.
std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

Bytes with_exif(const Bytes& webp_file, const Bytes& block) {
  const WebPData image{webp_file.data(), webp_file.size()}, chunk{block.data(), block.size()};
  WebPData out;
  WebPMux* mux = WebPMuxCreate(&image, 0);
  WebPMuxSetChunk(mux, "EXIF", &chunk, 0);
  WebPMuxAssemble(mux, &out);
  Bytes result(out.bytes, out.bytes + out.size);
  WebPDataClear(&out);
  WebPMuxDelete(mux);
  return result;
}

/// What a picture with this EXIF orientation looks like upright, from the table in the EXIF standard: for each
/// orientation where the stored first row and first column are to be shown.
Picture turned(const Picture& p, int orientation) {
  const bool swap = orientation >= 5;
  Picture out{swap ? p.height : p.width, swap ? p.width : p.height, Bytes(p.rgb.size())};
  for (int row = 0; row < p.height; ++row) {
    for (int column = 0; column < p.width; ++column) {
      int x = 0, y = 0;
      const int right = p.width - 1 - column, below = p.height - 1 - row;
      switch (orientation) {
        case 1: x = column, y = row; break;    // row 0: top,    column 0: left
        case 2: x = right, y = row; break;     // row 0: top,    column 0: right
        case 3: x = right, y = below; break;   // row 0: bottom, column 0: right
        case 4: x = column, y = below; break;  // row 0: bottom, column 0: left
        case 5: x = row, y = column; break;    // row 0: left,   column 0: top
        case 6: x = below, y = column; break;  // row 0: right,  column 0: top
        case 7: x = below, y = right; break;   // row 0: right,  column 0: bottom
        case 8: x = row, y = right; break;     // row 0: left,   column 0: bottom
      }
      std::memcpy(&out.rgb[(size_t(y) * out.width + x) * 3], &p.rgb[(size_t(row) * p.width + column) * 3], 3);
    }
  }
  return out;
}

}  // namespace

TEST_CASE("hash: the published values of XXH64, however the bytes are cut") {
  CHECK(hash_bytes("", 0) == 0xEF46DB3751D8E999);
  CHECK(hash_bytes("abc", 3) == 0x44BC2CF5AD770999);
  const std::string text = "Nobody inspects the spammish repetition";
  CHECK(hash_bytes(text.data(), text.size()) == 0xFBCEA83C8A378BF1);
  Bytes data(1000);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint8_t>(i * 31);
  for (size_t step : {1, 7, 31, 32, 33, 100, 999}) {
    Hash64 hash;
    for (size_t i = 0; i < data.size(); i += step) hash.update(&data[i], std::min(step, data.size() - i));
    CHECK(hash.value() == hash_bytes(data.data(), data.size()));
  }
}

TEST_CASE("PNG: every kind of pixel") {
  const Picture p = sample(23, 17);
  CHECK(difference(decode(encode_png(p)), p) == 0);
  CHECK(difference(decode(png(23, 17, PNG_COLOR_TYPE_RGB, 8, p.rgb, true)), p) == 0);

  Bytes grey, rgb16, rgba, grey_alpha;
  Picture grey_out{23, 17, {}}, rgba_out{23, 17, {}}, grey_alpha_out{23, 17, {}};
  for (int i = 0; i < 23 * 17; ++i) {
    const uint8_t g = static_cast<uint8_t>(i), a = static_cast<uint8_t>(i * 5);
    grey.push_back(g);
    grey_alpha.insert(grey_alpha.end(), {g, a});
    for (int c = 0; c < 3; ++c) {
      const uint8_t v = p.rgb[i * 3 + c], background = c == 0 ? 200 : c == 1 ? 100 : 0;
      grey_out.rgb.push_back(g);
      const auto over = [&](int top) { return static_cast<uint8_t>((top * a + background * (255 - a)) / 255.0 + 0.5); };
      rgba.push_back(v);
      rgba_out.rgb.push_back(over(v));
      grey_alpha_out.rgb.push_back(over(g));
    }
    rgba.push_back(a);
  }
  CHECK(difference(decode(png(23, 17, PNG_COLOR_TYPE_GRAY, 8, grey)), grey_out) == 0);
  for (bool interlaced : {false, true}) {
    CAPTURE(interlaced);
    CHECK(difference(decode(png(23, 17, PNG_COLOR_TYPE_RGBA, 8, rgba, interlaced), {200, 100, 0}), rgba_out) == 0);
    CHECK(difference(decode(png(23, 17, PNG_COLOR_TYPE_GA, 8, grey_alpha, interlaced), {200, 100, 0}),
                     grey_alpha_out) == 0);
  }
  // Palette of 2 bits; its entry 1 is transparent. One row of the entries 0 1 2 3.
  CHECK(decode(png(4, 1, PNG_COLOR_TYPE_PALETTE, 2, {0x1B}), {1, 2, 3}).rgb ==
        Bytes{255, 0, 0, 1, 2, 3, 0, 0, 255, 9, 8, 7});
  CHECK(decode(png(8, 1, PNG_COLOR_TYPE_GRAY, 1, {0xA0})).rgb[0] == 255);
}

TEST_CASE("PNG: 16 bits are rounded to 8, not cut") {
  Bytes rows;
  for (int v = 0; v < 65536; ++v) rows.insert(rows.end(), {static_cast<uint8_t>(v >> 8), static_cast<uint8_t>(v)});
  const Picture p = decode(png(256, 256, PNG_COLOR_TYPE_GRAY, 16, rows));
  int wrong = 0;
  for (int v = 0; v < 65536; ++v) wrong += p.rgb[v * 3] != static_cast<int>(v / 257.0 + 0.5);
  CHECK(wrong == 0);
}

TEST_CASE("JPEG: baseline, progressive, grey") {
  const Picture p = sample(61, 45);
  for (bool progressive : {false, true}) {
    CAPTURE(progressive);
    CHECK(difference(decode(jpeg(p, {.progressive = progressive, .quality = 100})), p) <= 4);
  }
  Bytes grey(61 * 45);
  for (size_t i = 0; i < grey.size(); ++i) grey[i] = static_cast<uint8_t>(i / 12);
  const Picture g = decode(jpeg(61, 45, grey, {.in = JCS_GRAYSCALE, .stored = JCS_GRAYSCALE, .quality = 100}));
  int worst = 0;
  for (size_t i = 0; i < grey.size(); ++i) {
    CHECK(g.rgb[3 * i] == g.rgb[3 * i + 2]);
    worst = std::max(worst, std::abs(g.rgb[3 * i] - grey[i]));
  }
  CHECK(worst <= 3);
}

TEST_CASE("JPEG: CMYK and YCCK, as Adobe programs store it and plain") {
  const Picture p = sample(40, 30);
  for (bool adobe : {true, false}) {
    for (J_COLOR_SPACE stored : {JCS_CMYK, JCS_YCCK}) {
      if (!adobe && stored == JCS_YCCK) continue;  // only the Adobe marker can say YCCK
      Bytes ink;                                   // the least black that allows the colour; Adobe: 255 minus it
      for (size_t i = 0; i < p.rgb.size(); i += 3) {
        const int light = std::max({p.rgb[i], p.rgb[i + 1], p.rgb[i + 2]});
        for (int c = 0; c < 4; ++c) {
          const int v = c == 3 ? light : p.rgb[i + c] * 255 / light;
          ink.push_back(static_cast<uint8_t>(adobe ? v : 255 - v));
        }
      }
      CAPTURE(adobe);
      CAPTURE(stored);
      const Bytes file = jpeg(40, 30, ink, {.in = JCS_CMYK, .stored = stored, .adobe = adobe, .quality = 100});
      CHECK(difference(decode(file), p) <= 8);
    }
  }
}

TEST_CASE("WebP: lossy, lossless, alpha, first frame of an animation") {
  const Picture p = sample(50, 38);
  CHECK(difference(decode(webp(p, -1)), p) == 0);
  CHECK(difference(decode(webp(p, 95)), p) <= 16);
  Bytes rgba;
  for (int i = 0; i < 50 * 38; ++i) {
    rgba.insert(rgba.end(), &p.rgb[i * 3], &p.rgb[i * 3] + 3);
    rgba.push_back(i % 2 == 0 ? 255 : 0);
  }
  const Picture over = decode(webp_rgba(50, 38, rgba), {7, 8, 9});
  CHECK(std::memcmp(over.rgb.data(), p.rgb.data(), 3) == 0);
  CHECK(Bytes(&over.rgb[3], &over.rgb[6]) == Bytes{7, 8, 9});

  WebPAnimEncoder* encoder = WebPAnimEncoderNew(50, 38, nullptr);
  REQUIRE(encoder != nullptr);
  WebPConfig config;
  REQUIRE(WebPConfigPreset(&config, WEBP_PRESET_DEFAULT, 100));
  config.lossless = 1;
  for (int frame = 0; frame < 2; ++frame) {
    WebPPicture picture;
    REQUIRE(WebPPictureInit(&picture));
    picture.use_argb = 1, picture.width = 50, picture.height = 38;
    const Picture content = sample(50, 38, frame * 40);
    WebPPictureImportRGB(&picture, content.rgb.data(), 150);
    CHECK(WebPAnimEncoderAdd(encoder, &picture, frame * 100, &config));
    WebPPictureFree(&picture);
  }
  WebPData data;
  REQUIRE(WebPAnimEncoderAssemble(encoder, &data));
  CHECK(difference(decode(Bytes(data.bytes, data.bytes + data.size)), p) == 0);
  WebPDataClear(&data);
  WebPAnimEncoderDelete(encoder);
}

TEST_CASE("BMP and TGA") {
  const Picture p = sample(21, 13);
  CHECK(difference(decode(bmp(p)), p) == 0);
  CHECK(difference(decode(bmp(p, true)), p) == 0);
  CHECK(difference(decode(tga(p)), p) == 0);
  Picture flat = p;
  std::fill(flat.rgb.begin() + 30, flat.rgb.begin() + 600, uint8_t{77});
  CHECK(difference(decode(tga(flat, true)), flat) == 0);
  Bytes mirrored = tga(p);
  mirrored[17] |= 0x10;
  CHECK(difference(decode(mirrored), turned(p, 2)) == 0);
}

TEST_CASE("EXIF: all eight orientations, both byte orders, in JPEG, PNG and WebP") {
  const Picture p = sample(24, 16);
  for (int orientation = 1; orientation <= 8; ++orientation) {
    for (bool big_endian : {true, false}) {
      CAPTURE(orientation);
      CAPTURE(big_endian);
      const Picture expected = turned(p, orientation);
      const Bytes plain_jpeg = jpeg(p);
      CHECK(difference(decode(jpeg(p, {.exif = exif(orientation, big_endian, true)})),
                       turned(decode(plain_jpeg), orientation)) == 0);
      CHECK(difference(decode(png(24, 16, PNG_COLOR_TYPE_RGB, 8, p.rgb, false, exif(orientation, big_endian, false))),
                       expected) == 0);
      CHECK(difference(decode(with_exif(webp(p, -1), exif(orientation, big_endian, false))), expected) == 0);
    }
  }
  for (int nonsense : {0, 9, 65535})
    CHECK(difference(decode(jpeg(p, {.exif = exif(nonsense, true, true)})), decode(jpeg(p))) == 0);
}

TEST_CASE("the content decides, not the name") {
  const TempFolder folder;
  const Picture p = sample(9, 9);
  write_file(folder / "a.jpg", encode_png(p));
  CHECK(difference(read_picture(folder / "a.jpg"), p) == 0);
}

TEST_CASE("what is no picture is named, with the reason and the remedy") {
  const TempFolder folder;
  const auto reason = [&](const Bytes& bytes) {
    write_file(folder / "x.jpg", bytes);
    const std::string text = error_of([&] { read_picture(folder / "x.jpg"); });
    CHECK(text.starts_with((folder / "x.jpg").string() + ": "));
    CHECK(contains(text, "; remove it, or convert it"));
    return text;
  };
  const auto text = [](std::string_view s) { return Bytes(s.begin(), s.end()); };
  CHECK(contains(reason({}), "the file is empty"));
  CHECK(contains(reason(text("This is a shopping list, not a picture.\n")), "not a picture"));
  CHECK(contains(reason(Bytes(5000)), "only zeros"));
  CHECK(contains(reason(text("GIF89a......")), "GIF"));
  CHECK(contains(reason(text("<html><body>404</body></html>")), "web page"));
  CHECK(contains(reason(Bytes{0, 0, 0, 24, 'f', 't', 'y', 'p', 'h', 'e', 'i', 'c'}), "HEIC"));
  CHECK(contains(reason({'I', 'I', '*', 0, 8, 0, 0, 0}), "TIFF"));
  CHECK(contains(error_of([&] { read_picture(folder / "none.png"); }), "none.png: cannot open: No such file"));
  CHECK(contains(error_of([&] { read_picture(folder.path); }), "is a folder"));
}

TEST_CASE("headers that lie about the size are refused before anything is allocated") {
  const auto reason = [](const Bytes& b) { return error_of([&] { decode(b); }); };
  const auto patch = [](Bytes b, size_t at, std::initializer_list<uint8_t> with) {
    std::copy(with.begin(), with.end(), b.begin() + static_cast<std::ptrdiff_t>(at));
    return b;
  };
  const Picture p = sample(8, 8);
  Bytes j = jpeg(p);
  size_t sof = 0;
  while (j[sof] != 0xFF || j[sof + 1] != 0xC0) ++sof;
  CHECK(contains(reason(patch(j, sof + 5, {0xEA, 0x60, 0xEA, 0x60})), "60000x60000"));
  CHECK(contains(reason(patch(j, sof + 5, {0x40, 0, 0x40, 0})), "the file has only"));
  CHECK(contains(reason(patch(bmp(p), 18, {0x60, 0xEA, 0, 0, 0x60, 0xEA, 0, 0})), "60000x60000"));
  CHECK(contains(reason(patch(tga(p), 12, {0x60, 0xEA, 0x60, 0xEA})), "60000x60000"));
  CHECK(contains(reason(patch(tga(p), 12, {0, 4, 0, 4})), "cut short"));
  Bytes lying_png(encode_png(p));  // IHDR's CRC must be right for the claim to be believed at all
  const Bytes huge = png(60000, 1, PNG_COLOR_TYPE_GRAY, 1, Bytes(7500));
  std::copy(huge.begin(), huge.begin() + 33, lying_png.begin());
  CHECK(!reason(lying_png).empty());
  Bytes webp_file = webp(p, -1);  // VP8L: 14 bits width - 1, 14 bits height - 1 after the signature byte
  CHECK(contains(reason(patch(webp_file, 21, {0xFF, 0xFF, 0xFF, 0x0F})), "16384x16384"));
  CHECK(contains(reason(patch(bmp(p), 18, {0, 0, 0, 0})), "0x8"));
}

TEST_CASE("cut short anywhere: no format returns a picture with a part missing") {
  const Picture p = sample(40, 40);
  Picture noise = p;
  std::mt19937 random(3);
  for (uint8_t& v : noise.rgb) v = static_cast<uint8_t>(random());
  const std::pair<const char*, Bytes> files[] = {{"jpeg", jpeg(noise)},
                                                 {"progressive", jpeg(noise, {.progressive = true})},
                                                 {"png", encode_png(noise)},
                                                 {"webp", webp(noise, 80)},
                                                 {"lossless webp", webp(noise, -1)},
                                                 {"bmp", bmp(noise)},
                                                 {"tga", tga(noise)},
                                                 {"run-length tga", tga(p, true)}};
  for (const auto& [name, file] : files) {
    REQUIRE(decode(file).width == 40);
    int accepted = 0;
    for (size_t n = 0; n<file.size(); n += n + 40> file.size() ? 1 : 17) {
      accepted += error_of([&] { decode(Bytes(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(n))); }).empty();
    }
    CAPTURE(name);
    CHECK(accepted == 0);
  }
  // A repair tool may have closed the end: the data stops before the picture does.
  for (bool progressive : {false, true}) {
    Bytes file = jpeg(noise, {.progressive = progressive});
    file.resize(file.size() * 2 / 3);
    file.insert(file.end(), {0xFF, 0xD9});
    CHECK(error_of([&] { decode(file); }) != "");
  }
  // All pixels there, the EXIF block behind them not: the picture might lie on its side.
  const Bytes turned_webp = with_exif(webp(noise, 80), exif(6, true, false));
  CHECK(error_of([&] { decode(turned_webp); }).empty());
  CHECK(contains(error_of([&] { decode(Bytes(turned_webp.begin(), turned_webp.end() - 10)); }), "cut short"));
}

TEST_CASE("damaged bytes end in a picture or an Error, never anything else") {
  const Picture p = sample(30, 20);
  std::mt19937 random(5);
  for (const Bytes& file :
       {jpeg(p), jpeg(p, {.progressive = true}), encode_png(p), webp(p, 80), webp(p, -1), bmp(p), tga(p, true)}) {
    for (int i = 0; i < 300; ++i) {
      Bytes broken = file;
      for (unsigned k = 0; k < 1 + random() % 8; ++k) broken[random() % broken.size()] = static_cast<uint8_t>(random());
      error_of([&] { decode(broken); });
    }
  }
}
