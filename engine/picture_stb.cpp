// BMP, TGA and scaling by stb, the one file that compiles it.
//
// stb_image reads past the end of a short file as zeros, so the length that a header implies is checked here first;
// then whatever it decodes was really there.
#include <cstring>
#include <memory>

#include "engine/picture_codec.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_BMP
#define STBI_ONLY_TGA
#define STBI_NO_STDIO
#define STBI_ASSERT(x)  // its assertions fire on damaged files; what it does then is safe, and the result is an error
#include <stb/stb_image.h>
#define STB_IMAGE_RESIZE_IMPLEMENTATION
#define STB_IMAGE_RESIZE_STATIC
#include <stb/stb_image_resize.h>
#pragma GCC diagnostic pop

namespace kiln::codec {
namespace {

constexpr const char* kCut = "the file is cut short";

unsigned u16(Bytes file, size_t at) { return at + 2 <= file.size() ? file[at] | unsigned{file[at + 1]} << 8 : 0; }
int64_t s32(Bytes file, size_t at) { return static_cast<int32_t>(u16(file, at) | u16(file, at + 2) << 16); }

Decoded decode_stb(Bytes file, Rgb background, bool alpha_may_be_junk) {
  int width = 0, height = 0, channels = 0;
  struct Free {
    void operator()(stbi_uc* p) const { stbi_image_free(p); }
  };
  // Files are at most 2 GiB - 1 (kMaxFileBytes), so that the length fits.
  const std::unique_ptr<stbi_uc, Free> rgba(
      stbi_load_from_memory(file.data(), static_cast<int>(file.size()), &width, &height, &channels, 4));
  if (!rgba) throw Broken{stbi_failure_reason() != nullptr ? stbi_failure_reason() : "damaged"};
  Decoded result;
  result.picture = {width, height, {}};
  const size_t pixels = size_t(width) * height;
  result.picture.rgb.resize(pixels * 3);
  bool transparent = alpha_may_be_junk;  // all of it: then the alpha bytes are padding that nobody set
  for (size_t i = 0; transparent && i < pixels; ++i) transparent = rgba.get()[4 * i + 3] == 0;
  for (size_t i = 0; i < pixels; ++i) {
    if (transparent) rgba.get()[4 * i + 3] = 255;
    blend(&rgba.get()[4 * i], background, &result.picture.rgb[3 * i]);
  }
  return result;
}

struct BmpHeader {
  int64_t width, height, offset, header_bytes, row_bytes;
  unsigned bits;
};

BmpHeader bmp_header(Bytes file) {
  if (file.size() < 26) throw Broken{kCut};
  BmpHeader h{};
  h.offset = s32(file, 10);
  h.header_bytes = s32(file, 14);
  const bool old = h.header_bytes == 12;
  if (!old && (h.header_bytes < 40 || h.header_bytes > 124)) throw Broken{"its BMP header is of no known kind"};
  if (file.size() < static_cast<size_t>(14 + h.header_bytes)) throw Broken{kCut};
  h.width = old ? u16(file, 18) : s32(file, 18);
  h.height = old ? u16(file, 20) : std::abs(s32(file, 22));
  h.bits = u16(file, old ? 24 : 28);
  const int64_t compression = old ? 0 : s32(file, 30);
  if (compression != 0 && compression != 3) throw Broken{"it is a compressed BMP, which kiln does not read"};
  check_size(h.width, h.height, file.size());
  h.row_bytes = (h.width * h.bits + 31) / 32 * 4;
  // The padding of the last row may be missing: some programs leave it out.
  const int64_t needed = h.offset + h.row_bytes * (h.height - 1) + (h.width * h.bits + 7) / 8;
  if (h.offset < 14 + h.header_bytes) throw Broken{"the BMP header is damaged"};
  if (static_cast<int64_t>(file.size()) < needed) throw Broken{kCut};
  return h;
}

// stb_image looks up colours beyond the end of a short palette in memory that nobody set.
void check_bmp_palette(Bytes file, const BmpHeader& h) {
  const int64_t colours = (h.offset - 14 - h.header_bytes) / (h.header_bytes == 12 ? 3 : 4);
  if (h.bits != 1 && h.bits != 4 && h.bits != 8) throw Broken{"its number of bits a pixel is unknown"};
  for (int64_t y = 0; y < h.height; ++y) {
    for (int64_t x = 0; x < h.width; ++x) {
      const int64_t bit = x * h.bits;
      const unsigned byte = file[h.offset + y * h.row_bytes + bit / 8];
      if (static_cast<int64_t>(byte >> (8 - h.bits - bit % 8) & ((1u << h.bits) - 1)) >= colours) {
        throw Broken{"a pixel has a colour that the palette lacks"};
      }
    }
  }
}

struct TgaHeader {
  int64_t width, height, offset, colours, colour_bytes;
  unsigned type, bits, flags, colour_map;
};

TgaHeader tga_header(Bytes file) {
  if (file.size() < 18) throw Broken{kCut};
  TgaHeader h{};
  h.colour_map = file[1];
  h.type = file[2];
  h.colours = u16(file, 5);
  h.colour_bytes = (file[7] + 7) / 8;
  h.width = u16(file, 12);
  h.height = u16(file, 14);
  h.bits = file[16];
  h.flags = file[17];
  h.offset = 18 + file[0] + (h.colour_map == 1 ? h.colours * h.colour_bytes : 0);
  return h;
}

void check_tga_data(Bytes file, const TgaHeader& h) {
  const int64_t size = static_cast<int64_t>(file.size()), pixel = (h.bits + 7) / 8, pixels = h.width * h.height;
  int64_t at = h.offset;
  if (h.type < 8) {
    if (size < at + pixels * pixel) throw Broken{kCut};
    return;
  }
  for (int64_t done = 0; done < pixels;) {  // run lengths: each packet is a count byte and one or `count` pixels
    if (at >= size) throw Broken{kCut};
    const unsigned packet = file[at];
    const int64_t count = (packet & 127) + 1;
    at += 1 + pixel * (packet >= 128 ? 1 : count);
    done += count;
  }
  if (at > size) throw Broken{kCut};
}

}  // namespace

PictureSize bmp_size(Bytes file) {
  const BmpHeader h = bmp_header(file);
  return {static_cast<int>(h.width), static_cast<int>(h.height)};
}

Decoded decode_bmp(Bytes file, Rgb background) {
  const BmpHeader h = bmp_header(file);
  if (h.bits < 16) check_bmp_palette(file, h);
  return decode_stb(file, background, false);  // stb_image itself repairs junk alpha in BMP
}

bool looks_like_tga(Bytes file) {
  if (file.size() < 18) return false;
  const TgaHeader h = tga_header(file);
  const unsigned kind = h.type & 7, map = file[7];
  if (h.colour_map > 1 || h.type > 11 || (h.type & 4) != 0 || kind == 0) return false;
  if ((kind == 1) != (h.colour_map == 1)) return false;
  if (h.colour_map == 1 && (h.colours == 0 || (map != 15 && map != 16 && map != 24 && map != 32))) return false;
  if (h.colour_map == 0 && (h.colours != 0 || map != 0) && kind == 1) return false;
  const bool bits_known = kind == 2   ? h.bits == 15 || h.bits == 16 || h.bits == 24 || h.bits == 32
                          : kind == 1 ? h.bits == 8 || h.bits == 16
                                      : h.bits == 8 || h.bits == 16;
  return bits_known && (h.flags & 0xC0) == 0 && h.width > 0 && h.height > 0;
}

PictureSize tga_size(Bytes file) {
  const TgaHeader h = tga_header(file);
  check_size(h.width, h.height, file.size());
  check_tga_data(file, h);
  return {static_cast<int>(h.width), static_cast<int>(h.height)};
}

Decoded decode_tga(Bytes file, Rgb background) {
  tga_size(file);
  const TgaHeader h = tga_header(file);
  if (h.colour_map == 1 && u16(file, 3) != 0)
    throw Broken{"its colour map does not begin at 0, which kiln does not read"};
  Decoded result = decode_stb(file, background, (h.flags & 15) == 0);
  if ((h.flags & 16) != 0) result.orientation = 2;  // rows from right to left, which stb_image does not know
  return result;
}

void resize_rgb(const uint8_t* rgb, int width, int height, size_t stride, uint8_t* out, int out_width, int out_height,
                size_t out_stride) {
  const int done = stbir_resize_uint8_generic(
      rgb, width, height, static_cast<int>(stride), out, out_width, out_height, static_cast<int>(out_stride), 3,
      STBIR_ALPHA_CHANNEL_NONE, 0, STBIR_EDGE_CLAMP, STBIR_FILTER_CATMULLROM, STBIR_COLORSPACE_LINEAR, nullptr);
  if (done == 0) throw std::bad_alloc();  // its only failure with arguments like these
}

}  // namespace kiln::codec
