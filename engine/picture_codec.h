// Inside of picture*.cpp: one decoder per file format, and what they share. Beside them only dataset.cpp, which lists reasons
// without the remedy, and the fuzzer include this.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "engine/picture.h"

namespace kiln::codec {

using Bytes = std::span<const uint8_t>;

/// Why a file could not be decoded, without its name; decode_picture adds name and remedy.
struct Broken {
  std::string reason;
};

/// Throws Broken for sizes that no honest file of `file_bytes` has.
void check_size(int64_t width, int64_t height, size_t file_bytes);

/// One pixel of straight alpha over the background, rounded.
inline void blend(const uint8_t* rgba, Rgb background, uint8_t* rgb) {
  const unsigned a = rgba[3], b = 255 - a;
  rgb[0] = static_cast<uint8_t>((rgba[0] * a + background.r * b + 127) / 255);
  rgb[1] = static_cast<uint8_t>((rgba[1] * a + background.g * b + 127) / 255);
  rgb[2] = static_cast<uint8_t>((rgba[2] * a + background.b * b + 127) / 255);
}

constexpr uint64_t kMaxFileBytes = (uint64_t{1} << 31) - 1;

/// decode_picture and picture_size, but they throw Broken.
Picture decode_or_broken(Bytes file, Rgb background);
PictureSize size_or_broken(Bytes file);

/// About the most bytes that decode_or_broken takes beside the file, told from its header. Throws Broken.
uint64_t decoding_bytes(Bytes file);

/// What a decoder returns: the picture as stored, and its EXIF orientation, 1 to 8 (1: as it is).
struct Decoded {
  Picture picture;
  int orientation = 1;
};

/// The orientation in a TIFF block ("II*\0..." or "MM\0*...", with or without "Exif\0\0" before it); 1 if it has none.
int exif_orientation(Bytes exif);

// The size a header claims, checked; then the decoders. All throw Broken, and std::bad_alloc.
PictureSize jpeg_size(Bytes file);
PictureSize png_size(Bytes file);
PictureSize webp_size(Bytes file);
PictureSize bmp_size(Bytes file);
PictureSize tga_size(Bytes file);

/// Of decoding_bytes, what a JPEG takes beside the pixels: the coefficients of a progressive one.
uint64_t jpeg_coefficient_bytes(Bytes file);
int jpeg_orientation(Bytes file);  // of its EXIF block, 1 to 8
bool webp_has_alpha(Bytes file);

bool looks_like_tga(Bytes file);  // it has no magic number: a header in which every field makes sense

Decoded decode_jpeg(Bytes file);
Decoded decode_png(Bytes file, Rgb background, PngText* text = nullptr);
Decoded decode_webp(Bytes file, Rgb background);
Decoded decode_bmp(Bytes file, Rgb background);
Decoded decode_tga(Bytes file, Rgb background);

/// Scales rgb of width x height, rows `stride` bytes apart, to out_width x out_height, rows out_stride bytes apart.
void resize_rgb(const uint8_t* rgb, int width, int height, size_t stride, uint8_t* out, int out_width, int out_height,
                size_t out_stride);

}  // namespace kiln::codec
