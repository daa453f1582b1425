// emoji_faces: makes the demo's training set, about 100 round faces, from Noto Color Emoji.
//
// The font holds every emoji as a small PNG (table CBDT, 136 x 128 pixels); FreeType decodes it. Only discs
// with a face are taken, nearly all yellow: no hats, cats, ghosts or things, so that a small network learns one shape.
#include <ft2build.h>
#include FT_FREETYPE_H

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "engine/error.h"
#include "engine/picture.h"

namespace {

using kiln::fail;

constexpr const char* kDefaultFont = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf";

struct Range {
  unsigned first, last;
};

// Chosen by eye from Unicode's blocks of faces. Left out between them: an imp, cats, a robot, hands, a cowboy's hat, a
// clown, a person, an exploding head, a party, a ninja, a dotted line, lips and bubbles.
constexpr Range kFaces[] = {{0x1F600, 0x1F607}, {0x1F609, 0x1F637}, {0x1F641, 0x1F644}, {0x1F910, 0x1F915},
                            {0x1F917, 0x1F917}, {0x1F922, 0x1F925}, {0x1F927, 0x1F92E}, {0x1F970, 0x1F972},
                            {0x1F974, 0x1F976}, {0x1F978, 0x1F97A}, {0x1FAE0, 0x1FAE4}, {0x1FAE8, 0x1FAE8},
                            {0x2639, 0x263A}};

// Open the font, set the one size that it has.
struct Font {
  FT_Library library = nullptr;
  FT_Face face = nullptr;

  explicit Font(const std::string& path) {
    if (FT_Init_FreeType(&library) != 0) fail("FreeType does not start; check its installation");
    if (!std::filesystem::exists(path)) {
      fail("{}: no such font; install it (apt-get install fonts-noto-color-emoji) or name one with --font", path);
    }
    if (FT_New_Face(library, path.c_str(), 0, &face) != 0) {
      fail("{}: is not a font that FreeType reads; name NotoColorEmoji.ttf with --font", path);
    }
    if (!FT_HAS_COLOR(face) || face->num_fixed_sizes == 0 || FT_Select_Size(face, 0) != 0) {
      fail("{}: has no colour bitmaps; name the NotoColorEmoji.ttf with a CBDT table with --font", path);
    }
  }
  ~Font() {
    if (face != nullptr) FT_Done_Face(face);
    if (library != nullptr) FT_Done_FreeType(library);
  }
  Font(const Font&) = delete;
  Font& operator=(const Font&) = delete;

  // The emoji over white; empty if the font lacks it.
  kiln::Picture draw(unsigned code_point) const {
    const FT_UInt glyph = FT_Get_Char_Index(face, code_point);
    if (glyph == 0 || FT_Load_Glyph(face, glyph, FT_LOAD_COLOR) != 0) return {};
    const FT_Bitmap& bitmap = face->glyph->bitmap;
    if (bitmap.pixel_mode != FT_PIXEL_MODE_BGRA || bitmap.width == 0 || bitmap.rows == 0) return {};
    kiln::Picture picture{static_cast<int>(bitmap.width), static_cast<int>(bitmap.rows), {}};
    picture.rgb.reserve(size_t{bitmap.width} * bitmap.rows * 3);
    for (unsigned y = 0; y < bitmap.rows; ++y) {
      const uint8_t* bgra = bitmap.buffer + static_cast<ptrdiff_t>(y) * bitmap.pitch;
      for (unsigned x = 0; x < bitmap.width; ++x, bgra += 4) {
        for (int c = 2; c >= 0; --c)
          picture.rgb.push_back(static_cast<uint8_t>(bgra[c] + 255 - bgra[3]));  // premultiplied
      }
    }
    return picture;
  }
};

int write_faces(const std::filesystem::path& folder, const std::string& font_path, int size) {
  const Font font(font_path);
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) fail("{}: cannot make this folder: {}; choose another one", folder.string(), error.message());
  int written = 0;
  for (const Range& range : kFaces) {
    for (unsigned code_point = range.first; code_point <= range.last; ++code_point) {
      const kiln::Picture drawn = font.draw(code_point);
      if (drawn.rgb.empty()) continue;
      kiln::write_png(folder / fmt::format("{:x}.png", code_point), kiln::fit_picture(drawn, size, kiln::Fit::pad));
      ++written;
    }
  }
  if (written == 0) fail("{}: has none of the faces; name NotoColorEmoji.ttf with --font", font_path);
  return written;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Writes about 100 emoji faces from the Noto Color Emoji font as PNG pictures, a training set to try kiln on."};
  std::string folder, font = kDefaultFont;
  int size = 128;
  app.add_option("OUTDIR", folder, "folder for the pictures, made if it is not there")->required();
  app.add_option("--size", size, "width and height of a picture in pixels")
      ->check(CLI::Range(8, 1024))
      ->capture_default_str();
  app.add_option("--font", font, "the font file")->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  try {
    const int written = write_faces(folder, font, size);
    fmt::print("{}: {} faces of {}x{} pixels\n", folder, written, size, size);
    return 0;
  } catch (const kiln::Error& e) {
    fmt::print(stderr, "emoji_faces: {}\n", e.what());
  } catch (const std::exception& e) {
    fmt::print(stderr, "emoji_faces: {}\n", e.what());
  }
  return 2;
}
