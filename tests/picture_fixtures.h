// Files for the tests of pictures and data sets, made on the spot: no picture lies in the repository.
#pragma once
#include <png.h>
#include <unistd.h>
#include <webp/encode.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <jpeglib.h>  // after cstdio: it needs FILE

#include "engine/picture.h"

namespace fixtures {

namespace fs = std::filesystem;
using Bytes = std::vector<uint8_t>;
using kiln::Picture;

/// A folder that is gone when the test ends.
struct TempFolder {
  fs::path path;
  TempFolder() {
    std::string name = (fs::temp_directory_path() / "kiln-test-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) std::abort();
    path = name;
  }
  ~TempFolder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  fs::path operator/(const fs::path& name) const { return path / name; }
};

inline void write_file(const fs::path& path, const Bytes& bytes) {
  fs::create_directories(path.parent_path());
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!out.flush()) std::abort();
}

inline void write_file(const fs::path& path, std::string_view text) {
  write_file(path, Bytes(text.begin(), text.end()));
}

inline Bytes read_all(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return Bytes(std::istreambuf_iterator<char>(in), {});
}

/// No two rows, columns or corners alike, so that a turn or a mirror shows; smooth, so that JPEG keeps it.
inline Picture sample(int width, int height, int seed = 0) {
  Picture p{width, height, {}};
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      p.rgb.push_back(static_cast<uint8_t>(x * 200 / width + seed % 50));
      p.rgb.push_back(static_cast<uint8_t>(y * 250 / height));
      p.rgb.push_back(static_cast<uint8_t>((x + y) * 120 / (width + height) + 60 + seed / 50));
    }
  }
  return p;
}

/// The largest difference of any value; 256 if the sizes differ.
inline int difference(const Picture& a, const Picture& b) {
  if (a.width != b.width || a.height != b.height || a.rgb.size() != b.rgb.size()) return 256;
  int worst = 0;
  for (size_t i = 0; i < a.rgb.size(); ++i) worst = std::max(worst, std::abs(int{a.rgb[i]} - int{b.rgb[i]}));
  return worst;
}

/// Rows of raw samples as the PNG type wants them (16 bits: big-endian).
inline Bytes png(int width, int height, int color_type, int depth, const Bytes& rows, bool interlaced = false,
                 const Bytes& exif = {}) {
  Bytes out;
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(png);
  png_set_write_fn(
      png, &out,
      [](png_structp p, png_bytep data, size_t n) {
        auto* target = static_cast<Bytes*>(png_get_io_ptr(p));
        target->insert(target->end(), data, data + n);
      },
      nullptr);
  png_set_IHDR(png, info, static_cast<png_uint_32>(width), static_cast<png_uint_32>(height), depth, color_type,
               interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
               PNG_FILTER_TYPE_DEFAULT);
  png_color palette[4] = {{255, 0, 0}, {0, 255, 0}, {0, 0, 255}, {9, 8, 7}};
  png_byte alpha[2] = {255, 0};
  if (color_type == PNG_COLOR_TYPE_PALETTE) {
    png_set_PLTE(png, info, palette, 4);
    png_set_tRNS(png, info, alpha, 2, nullptr);
  }
  if (!exif.empty()) {
    png_set_eXIf_1(png, info, static_cast<png_uint_32>(exif.size()), const_cast<png_bytep>(exif.data()));
  }
  std::vector<png_bytep> pointers;
  const size_t stride = rows.size() / static_cast<size_t>(height);
  for (int y = 0; y < height; ++y) pointers.push_back(const_cast<png_bytep>(rows.data() + y * stride));
  png_set_rows(png, info, pointers.data());
  png_write_png(png, info, PNG_TRANSFORM_IDENTITY, nullptr);
  png_destroy_write_struct(&png, &info);
  return out;
}

struct JpegKind {
  J_COLOR_SPACE in = JCS_RGB, stored = JCS_YCbCr;
  bool progressive = false, adobe = false;
  int quality = 95;
  Bytes exif = {};  ///< with "Exif\0\0"
};

/// pixels: rows of as many samples as kind.in has.
inline Bytes jpeg(int width, int height, const Bytes& pixels, const JpegKind& kind = {}) {
  jpeg_compress_struct info;
  jpeg_error_mgr errors;
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* memory = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &memory, &size);
  info.image_width = static_cast<JDIMENSION>(width);
  info.image_height = static_cast<JDIMENSION>(height);
  info.input_components = static_cast<int>(pixels.size() / static_cast<size_t>(width) / static_cast<size_t>(height));
  info.in_color_space = kind.in;
  jpeg_set_defaults(&info);
  jpeg_set_colorspace(&info, kind.stored);
  jpeg_set_quality(&info, kind.quality, TRUE);
  for (int c = 0; c < info.num_components; ++c) info.comp_info[c].h_samp_factor = info.comp_info[c].v_samp_factor = 1;
  info.write_Adobe_marker = kind.adobe;
  if (kind.progressive) jpeg_simple_progression(&info);
  jpeg_start_compress(&info, TRUE);
  if (!kind.exif.empty()) {
    jpeg_write_marker(&info, JPEG_APP0 + 1, kind.exif.data(), static_cast<unsigned>(kind.exif.size()));
  }
  const size_t stride = static_cast<size_t>(width) * static_cast<size_t>(info.input_components);
  while (info.next_scanline < info.image_height) {
    JSAMPROW row = const_cast<JSAMPROW>(pixels.data() + info.next_scanline * stride);
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  Bytes out(memory, memory + size);
  jpeg_destroy_compress(&info);
  std::free(memory);
  return out;
}

inline Bytes jpeg(const Picture& p, const JpegKind& kind = {}) { return jpeg(p.width, p.height, p.rgb, kind); }

/// A TIFF block that holds an orientation; big-endian ("MM") or little-endian ("II").
inline Bytes exif(int orientation, bool big_endian, bool prefix) {
  Bytes out;
  if (prefix) out = {'E', 'x', 'i', 'f', 0, 0};
  const auto put = [&](unsigned value, int bytes) {
    for (int i = 0; i < bytes; ++i) out.push_back(static_cast<uint8_t>(value >> 8 * (big_endian ? bytes - 1 - i : i)));
  };
  put(big_endian ? 0x4D4D : 0x4949, 2);  // MM or II
  put(42, 2), put(8, 4), put(1, 2);     // one entry
  put(0x112, 2), put(3, 2), put(1, 4);  // orientation, SHORT, 1 value
  put(static_cast<unsigned>(orientation), 2), put(0, 2), put(0, 4);
  return out;
}

/// Straight RGBA rows, lossless.
inline Bytes webp_rgba(int width, int height, const Bytes& rgba) {
  WebPConfig config;
  WebPPicture picture;
  if (!WebPConfigInit(&config) || !WebPPictureInit(&picture)) std::abort();
  config.lossless = 1;
  config.exact = 1;  // keep the colour under full transparency
  picture.use_argb = 1;
  picture.width = width;
  picture.height = height;
  WebPPictureImportRGBA(&picture, rgba.data(), width * 4);
  WebPMemoryWriter writer;
  WebPMemoryWriterInit(&writer);
  picture.writer = WebPMemoryWrite;
  picture.custom_ptr = &writer;
  if (!WebPEncode(&config, &picture)) std::abort();
  Bytes out(writer.mem, writer.mem + writer.size);
  WebPMemoryWriterClear(&writer);
  WebPPictureFree(&picture);
  return out;
}

inline Bytes webp(const Picture& p, float quality) {
  uint8_t* memory = nullptr;
  const size_t size = quality < 0 ? WebPEncodeLosslessRGB(p.rgb.data(), p.width, p.height, p.width * 3, &memory)
                                  : WebPEncodeRGB(p.rgb.data(), p.width, p.height, p.width * 3, quality, &memory);
  Bytes out(memory, memory + size);
  WebPFree(memory);
  return out;
}

/// 24 bits, rows from below, as most programs write it; `top_down`: negative height.
inline Bytes bmp(const Picture& p, bool top_down = false) {
  const int stride = (p.width * 3 + 3) / 4 * 4;
  Bytes out = {'B', 'M'};
  const auto put = [&](uint32_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) out.push_back(static_cast<uint8_t>(value >> 8 * i));
  };
  put(static_cast<uint32_t>(54 + stride * p.height), 4), put(0, 4), put(54, 4), put(40, 4);
  put(static_cast<uint32_t>(p.width), 4), put(static_cast<uint32_t>(top_down ? -p.height : p.height), 4);
  put(1, 2), put(24, 2), put(0, 4), put(0, 4), put(0, 4), put(0, 4), put(0, 4), put(0, 4);
  for (int i = 0; i < p.height; ++i) {
    const int y = top_down ? i : p.height - 1 - i;
    const size_t begin = out.size();
    for (int x = 0; x < p.width; ++x) {
      for (int c = 2; c >= 0; --c) out.push_back(p.rgb[(static_cast<size_t>(y) * p.width + x) * 3 + c]);
    }
    out.resize(begin + static_cast<size_t>(stride));
  }
  return out;
}

/// 24 bits, rows from the top; run_lengths: every pixel as a packet of its own or of a run.
inline Bytes tga(const Picture& p, bool run_lengths = false) {
  Bytes out = {0, 0, static_cast<uint8_t>(run_lengths ? 10 : 2), 0, 0, 0, 0, 0, 0, 0, 0, 0};
  for (int v : {p.width, p.height}) out.insert(out.end(), {static_cast<uint8_t>(v), static_cast<uint8_t>(v >> 8)});
  out.insert(out.end(), {24, 0x20});
  for (size_t i = 0; i < p.rgb.size(); i += 3) {
    if (run_lengths) {
      uint8_t run = 0;
      while (run < 127 && i + 6 <= p.rgb.size() && std::memcmp(&p.rgb[i], &p.rgb[i + 3], 3) == 0) ++run, i += 3;
      out.push_back(run > 0 ? 0x80 | run : 0);
    }
    out.insert(out.end(), {p.rgb[i + 2], p.rgb[i + 1], p.rgb[i]});
  }
  return out;
}

}  // namespace fixtures
