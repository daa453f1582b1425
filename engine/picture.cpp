#include "engine/picture.h"

#include <libexif/exif-data.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "engine/error.h"
#include "engine/file.h"
#include "engine/picture_codec.h"

namespace kiln {
namespace codec {
namespace {

constexpr uint64_t kFreePixels = 4'000'000, kPixelsPerByte = 4096;

enum class Kind { jpeg, png, webp, bmp, tga };

bool has(Bytes file, size_t at, std::string_view magic) {
  return file.size() >= at + magic.size() && std::memcmp(file.data() + at, magic.data(), magic.size()) == 0;
}

Kind kind_of(Bytes file) {
  using namespace std::string_view_literals;
  if (file.empty()) throw Broken{"the file is empty"};
  if (has(file, 0, "\xFF\xD8\xFF"sv)) return Kind::jpeg;
  if (has(file, 0, "\x89PNG\r\n\x1A\n"sv)) return Kind::png;
  if (has(file, 0, "RIFF"sv) && has(file, 8, "WEBP"sv)) return Kind::webp;
  if (has(file, 0, "BM"sv)) return Kind::bmp;
  // Names for what people do have in such folders: they know then what to convert.
  if (has(file, 0, "GIF8"sv)) throw Broken{"it is a GIF, which kiln does not read as a picture"};
  if (has(file, 0, "II*\0"sv) || has(file, 0, "MM\0*"sv)) throw Broken{"it is a TIFF or raw camera file"};
  if (has(file, 4, "ftypavif"sv)) throw Broken{"it is an AVIF file"};
  if (has(file, 4, "ftyphe"sv) || has(file, 4, "ftypmif1"sv)) throw Broken{"it is a HEIC file"};
  if (has(file, 4, "ftyp"sv)) throw Broken{"it is a video"};
  if (has(file, 0, "8BPS"sv)) throw Broken{"it is a Photoshop file"};
  if (has(file, 0, "<svg"sv) || has(file, 0, "<?xml"sv)) throw Broken{"it is an SVG or XML file"};
  if (has(file, 0, "<!DOCTYPE"sv) || has(file, 0, "<html"sv)) throw Broken{"it is a web page"};
  if (has(file, 0, "%PDF"sv)) throw Broken{"it is a PDF"};
  if (looks_like_tga(file)) return Kind::tga;
  if (std::all_of(file.begin(), file.end(), [](uint8_t b) { return b == 0; })) throw Broken{"it holds only zeros"};
  throw Broken{"it is not a picture of a kind that kiln reads"};
}

[[noreturn]] void fail_broken(std::string_view name, const Broken& broken) {
  fail("{}: {}; remove it, or convert it to a sound PNG or JPEG", name, broken.reason);
}

Decoded decode(Bytes file, Rgb background) {
  switch (kind_of(file)) {
    case Kind::jpeg: return decode_jpeg(file);
    case Kind::png: return decode_png(file, background);
    case Kind::webp: return decode_webp(file, background);
    case Kind::bmp: return decode_bmp(file, background);
    default: return decode_tga(file, background);
  }
}

// EXIF orientation: 2 mirror, 3 turn by 180, 4 flip, 5 transpose, 6 turn right, 7 anti-transpose, 8 turn left.
Picture upright(Picture picture, int orientation) {
  if (orientation <= 1) return picture;
  const bool swap = orientation >= 5;
  const int w = picture.width, h = picture.height;
  Picture out{swap ? h : w, swap ? w : h, std::vector<uint8_t>(picture.rgb.size())};
  const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool from_below = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  uint8_t* target = out.rgb.data();
  for (int y = 0; y < out.height; ++y) {
    for (int x = 0; x < out.width; ++x, target += 3) {
      int sx = swap ? y : x, sy = swap ? x : y;
      if (from_right) sx = w - 1 - sx;
      if (from_below) sy = h - 1 - sy;
      std::memcpy(target, &picture.rgb[(size_t(sy) * w + sx) * 3], 3);
    }
  }
  return out;
}

}  // namespace

PictureSize size_or_broken(Bytes file) {
  switch (kind_of(file)) {
    case Kind::jpeg: return jpeg_size(file);
    case Kind::png: return png_size(file);
    case Kind::webp: return webp_size(file);
    case Kind::bmp: return bmp_size(file);
    default: return tga_size(file);
  }
}

uint64_t decoding_bytes(Bytes file) {
  const uint64_t pixels = size_or_broken(file).pixels();
  switch (kind_of(file)) {
    case Kind::jpeg: {  // a picture is turned, into a second one, when libjpeg has given up its memory
      const uint64_t decoded = pixels * 3 + jpeg_coefficient_bytes(file);
      return jpeg_orientation(file) > 1 ? std::max(decoded, pixels * 6) : decoded;
    }
    case Kind::png: return pixels * 3;
    case Kind::webp: return pixels * (webp_has_alpha(file) ? 8 : 4);  // and what libwebp keeps of it
    default: return pixels * 7;  // stb_image's RGBA beside our RGB
  }
}

Picture decode_or_broken(Bytes file, Rgb background) {
  Decoded decoded = decode(file, background);
  return upright(std::move(decoded.picture), decoded.orientation);
}

void check_size(int64_t width, int64_t height, size_t file_bytes) {
  if (width <= 0 || height <= 0) throw Broken{fmt::format("its header says {}x{} pixels", width, height)};
  if (width > int64_t(kMaxPicturePixels) || height > int64_t(kMaxPicturePixels) ||
      uint64_t(width) * height > kMaxPicturePixels) {
    throw Broken{fmt::format("its header says {}x{} pixels; at most {} megapixels are read", width, height,
                             kMaxPicturePixels / 1'000'000)};
  }
  const uint64_t pixels = uint64_t(width) * height;
  if (pixels > kFreePixels && pixels / kPixelsPerByte > file_bytes) {
    throw Broken{
        fmt::format("its header says {}x{} pixels, but the file has only {}", width, height, human_bytes(file_bytes))};
  }
}

int exif_orientation(Bytes exif) {
  static constexpr char kPrefix[] = {'E', 'x', 'i', 'f', 0, 0};
  std::vector<uint8_t> block;  // libexif wants the prefix, which only JPEG has
  if (exif.size() < 6 || std::memcmp(exif.data(), kPrefix, 6) != 0) block.assign(kPrefix, kPrefix + 6);
  block.insert(block.end(), exif.begin(), exif.end());
  struct Unref {
    void operator()(ExifData* data) const { exif_data_unref(data); }
  };
  const std::unique_ptr<ExifData, Unref> data(
      exif_data_new_from_data(block.data(), static_cast<unsigned>(std::min<size_t>(block.size(), 1 << 20))));
  if (!data) return 1;
  const ExifEntry* entry = exif_content_get_entry(data->ifd[EXIF_IFD_0], EXIF_TAG_ORIENTATION);
  if (entry == nullptr || entry->format != EXIF_FORMAT_SHORT || entry->components < 1) return 1;
  const int value = exif_get_short(entry->data, exif_data_get_byte_order(data.get()));
  return value >= 1 && value <= 8 ? value : 1;
}

}  // namespace codec

Picture decode_picture(std::span<const uint8_t> file, std::string_view name, Rgb background) {
  try {
    return codec::decode_or_broken(file, background);
  } catch (const codec::Broken& broken) {
    codec::fail_broken(name, broken);
  }
}

Picture read_picture(const std::filesystem::path& path, Rgb background) {
  return decode_picture(read_file(path, codec::kMaxFileBytes), path.string(), background);
}

PictureSize picture_size(std::span<const uint8_t> file, std::string_view name) {
  try {
    return codec::size_or_broken(file);
  } catch (const codec::Broken& broken) {
    codec::fail_broken(name, broken);
  }
}

Fit fit_from_name(std::string_view name) {
  for (Fit fit : {Fit::crop, Fit::squash, Fit::pad}) {
    if (name == fit_name(fit)) return fit;
  }
  fail("unknown fit \"{}\": use crop, squash or pad", name);
}

const char* fit_name(Fit fit) { return fit == Fit::crop ? "crop" : fit == Fit::squash ? "squash" : "pad"; }

Picture fit_picture(const Picture& picture, int size, Fit fit, Rgb background) {
  const int w = picture.width, h = picture.height;
  KILN_ASSERT(size >= 1 && w >= 1 && h >= 1 && picture.rgb.size() == size_t(w) * h * 3);
  // The part of the picture that is taken, and the part of the square that it fills.
  int from_x = 0, from_y = 0, from_w = w, from_h = h, to_w = size, to_h = size;
  if (fit == Fit::crop) {
    from_w = from_h = std::min(w, h);
    from_x = (w - from_w) / 2, from_y = (h - from_h) / 2;
  } else if (fit == Fit::pad) {
    const double scale = static_cast<double>(size) / std::max(w, h);
    to_w = std::max(1, static_cast<int>(std::lround(w * scale)));
    to_h = std::max(1, static_cast<int>(std::lround(h * scale)));
  }
  Picture out{size, size, std::vector<uint8_t>(size_t(size) * size * 3)};
  if (to_w < size || to_h < size) {
    for (size_t i = 0; i < out.rgb.size(); i += 3) {
      out.rgb[i] = background.r, out.rgb[i + 1] = background.g, out.rgb[i + 2] = background.b;
    }
  }
  const size_t stride = size_t(w) * 3, out_stride = size_t(size) * 3;
  const uint8_t* source = &picture.rgb[from_y * stride + size_t(from_x) * 3];
  uint8_t* target = &out.rgb[(size - to_h) / 2 * out_stride + size_t((size - to_w) / 2) * 3];
  if (from_w == to_w && from_h == to_h) {  // exactly the size: no filter may touch it
    for (int y = 0; y < to_h; ++y) std::memcpy(target + y * out_stride, source + y * stride, size_t(to_w) * 3);
  } else {
    codec::resize_rgb(source, from_w, from_h, stride, target, to_w, to_h, out_stride);
  }
  return out;
}

Picture shrink_picture(const Picture& picture, int longest) {
  const int w = picture.width, h = picture.height;
  KILN_ASSERT(longest >= 1 && w >= 1 && h >= 1 && picture.rgb.size() == size_t(w) * h * 3);
  if (std::max(w, h) <= longest) return picture;
  const double scale = static_cast<double>(longest) / std::max(w, h);
  Picture out{std::max(1, static_cast<int>(std::lround(w * scale))), std::max(1, static_cast<int>(std::lround(h * scale))), {}};
  out.rgb.resize(size_t(out.width) * out.height * 3);
  codec::resize_rgb(picture.rgb.data(), w, h, size_t(w) * 3, out.rgb.data(), out.width, out.height, size_t(out.width) * 3);
  return out;
}

Picture make_grid(const std::vector<Picture>& pictures, int columns, int gap, Rgb background) {
  KILN_ASSERT(!pictures.empty() && columns >= 1 && gap >= 0);
  const int w = pictures[0].width, h = pictures[0].height;
  const int rows = (static_cast<int>(pictures.size()) + columns - 1) / columns;
  Picture out{columns * (w + gap) + gap, rows * (h + gap) + gap, {}};
  out.rgb.resize(size_t(out.width) * out.height * 3);
  for (size_t i = 0; i < out.rgb.size(); i += 3) {
    out.rgb[i] = background.r, out.rgb[i + 1] = background.g, out.rgb[i + 2] = background.b;
  }
  for (size_t i = 0; i < pictures.size(); ++i) {
    KILN_ASSERT(pictures[i].width == w && pictures[i].height == h);
    const size_t x = gap + (i % columns) * (w + gap), y = gap + (i / columns) * (h + gap);
    for (int row = 0; row < h; ++row) {
      std::memcpy(&out.rgb[((y + row) * out.width + x) * 3], &pictures[i].rgb[size_t(row) * w * 3], size_t(w) * 3);
    }
  }
  return out;
}

}  // namespace kiln
