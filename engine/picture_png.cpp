// PNG by libpng, both ways. As in picture_jpeg.cpp, whatever libpng's longjmp could skip is owned by the caller.
#include <png.h>

#include <csetjmp>
#include <cstring>
#include <memory>

#include "engine/error.h"
#include "engine/file.h"
#include "engine/picture_codec.h"

namespace kiln::codec {
namespace {

struct PngReader {
  Bytes file;
  size_t position = 0;
  char reason[200] = "";
  png_structp png = nullptr;
  png_infop info = nullptr;
  int channels = 0;
  bool interlaced = false;

  explicit PngReader(Bytes bytes);
  ~PngReader() { png_destroy_read_struct(&png, &info, nullptr); }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;
};

[[noreturn]] void on_read_error(png_structp png, png_const_charp text) {
  auto& reader = *static_cast<PngReader*>(png_get_error_ptr(png));
  std::snprintf(reader.reason, sizeof reader.reason, "%s", text);
  png_longjmp(png, 1);
}

void on_read(png_structp png, png_bytep target, size_t bytes) {
  auto& reader = *static_cast<PngReader*>(png_get_io_ptr(png));
  if (reader.file.size() - reader.position < bytes) png_error(png, "the file is cut short");
  std::memcpy(target, reader.file.data() + reader.position, bytes);
  reader.position += bytes;
}

void ignore_warning(png_structp, png_const_charp) {}

PngReader::PngReader(Bytes bytes) : file(bytes) {
  png = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, on_read_error, ignore_warning);
  if (png == nullptr) throw std::bad_alloc();
  info = png_create_info_struct(png);
  if (info == nullptr) throw std::bad_alloc();
}

bool read_header(PngReader& reader) {
  if (setjmp(png_jmpbuf(reader.png))) return false;
  png_set_read_fn(reader.png, &reader, on_read);
  png_read_info(reader.png, reader.info);
  return true;
}

// Whatever the file has (palette, grey, 1 to 16 bits, transparent colour) becomes 8-bit RGB or RGBA.
bool set_up_rows(PngReader& reader) {
  if (setjmp(png_jmpbuf(reader.png))) return false;
  png_set_expand(reader.png);
  png_set_scale_16(reader.png);  // rounds; png_set_strip_16 would cut
  png_set_gray_to_rgb(reader.png);
  reader.interlaced = png_set_interlace_handling(reader.png) > 1;
  png_read_update_info(reader.png, reader.info);
  reader.channels = png_get_channels(reader.png, reader.info);
  return true;
}

// `rgba`: the whole picture if it is interlaced, else one row; null when there is no alpha.
bool read_rows(PngReader& reader, uint8_t* rgb, uint8_t* rgba, Rgb background) {
  if (setjmp(png_jmpbuf(reader.png))) return false;
  const size_t width = png_get_image_width(reader.png, reader.info);
  const size_t height = png_get_image_height(reader.png, reader.info);
  for (int pass = reader.interlaced ? 7 : 1; pass > 0; --pass) {
    for (size_t y = 0; y < height; ++y) {
      uint8_t* target = rgb + y * width * 3;
      uint8_t* source = rgba == nullptr ? target : reader.interlaced ? rgba + y * width * 4 : rgba;
      png_read_row(reader.png, source, nullptr);
      if (rgba == nullptr || pass > 1) continue;
      for (size_t x = 0; x < width; ++x) blend(source + 4 * x, background, target + 3 * x);
    }
  }
  png_read_end(reader.png, reader.info);  // the end chunk: a file that lost its tail fails here
  return true;
}

void open(PngReader& reader) {
  if (!read_header(reader)) throw Broken{reader.reason};
  check_size(png_get_image_width(reader.png, reader.info), png_get_image_height(reader.png, reader.info),
             reader.file.size());
}

struct PngWriter {
  std::vector<uint8_t> out;
  png_structp png = nullptr;
  png_infop info = nullptr;
  ~PngWriter() { png_destroy_write_struct(&png, &info); }
};

void on_write(png_structp png, png_bytep data, size_t bytes) {
  auto& out = static_cast<PngWriter*>(png_get_io_ptr(png))->out;
  bool full = false;
  try {
    out.insert(out.end(), data, data + bytes);
  } catch (const std::bad_alloc&) {
    full = true;
  }
  if (full) png_error(png, "out of memory");  // no exception through C frames
}

bool write_all(PngWriter& writer, const Picture& picture, png_textp text, int texts) {
  if (setjmp(png_jmpbuf(writer.png))) return false;
  png_set_write_fn(writer.png, &writer, on_write, nullptr);
  png_set_IHDR(writer.png, writer.info, static_cast<png_uint_32>(picture.width),
               static_cast<png_uint_32>(picture.height), 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  if (texts > 0) png_set_text(writer.png, writer.info, text, texts);
  png_write_info(writer.png, writer.info);
  for (int y = 0; y < picture.height; ++y) png_write_row(writer.png, &picture.rgb[size_t(y) * picture.width * 3]);
  png_write_end(writer.png, nullptr);
  return true;
}

}  // namespace

PictureSize png_size(Bytes file) {
  PngReader reader(file);
  open(reader);
  return {static_cast<int>(png_get_image_width(reader.png, reader.info)),
          static_cast<int>(png_get_image_height(reader.png, reader.info))};
}

Decoded decode_png(Bytes file, Rgb background, PngText* text) {
  PngReader reader(file);
  open(reader);
  if (!set_up_rows(reader)) throw Broken{reader.reason};
  Decoded result;
  result.picture.width = static_cast<int>(png_get_image_width(reader.png, reader.info));
  result.picture.height = static_cast<int>(png_get_image_height(reader.png, reader.info));
  const size_t width = result.picture.width, height = result.picture.height;
  result.picture.rgb.resize(width * height * 3);
  std::vector<uint8_t> rgba(reader.channels == 4 ? width * 4 * (reader.interlaced ? height : 1) : 0);
  if (!read_rows(reader, result.picture.rgb.data(), rgba.empty() ? nullptr : rgba.data(), background)) {
    throw Broken{reader.reason};
  }
  png_uint_32 exif_bytes = 0;
  png_bytep exif = nullptr;
  if (png_get_eXIf_1(reader.png, reader.info, &exif_bytes, &exif) != 0 && exif != nullptr) {
    result.orientation = exif_orientation({exif, exif_bytes});
  }
  if (text != nullptr) {
    png_textp chunks = nullptr;
    int count = 0;
    png_get_text(reader.png, reader.info, &chunks, &count);
    for (int i = 0; i < count; ++i) text->emplace_back(chunks[i].key, chunks[i].text != nullptr ? chunks[i].text : "");
  }
  return result;
}

}  // namespace kiln::codec

namespace kiln {

std::vector<uint8_t> encode_png(const Picture& picture, const PngText& text) {
  KILN_ASSERT(picture.width > 0 && picture.height > 0);
  KILN_ASSERT(picture.rgb.size() == size_t(picture.width) * picture.height * 3);
  std::vector<png_text> chunks(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto& [key, value] = text[i];
    KILN_ASSERT(!key.empty() && key.size() <= 79);
    bool ascii = true;
    for (unsigned char c : value) ascii = ascii && c < 128;
    png_text& chunk = chunks[i] = {};
    chunk.compression = ascii ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE;
    chunk.key = const_cast<char*>(key.c_str());  // libpng only reads them
    chunk.text = const_cast<char*>(value.c_str());
    (ascii ? chunk.text_length : chunk.itxt_length) = value.size();
  }
  codec::PngWriter writer;
  writer.png = png_create_write_struct(
      PNG_LIBPNG_VER_STRING, nullptr, [](png_structp png, png_const_charp) { png_longjmp(png, 1); },
      codec::ignore_warning);
  if (writer.png == nullptr) throw std::bad_alloc();
  writer.info = png_create_info_struct(writer.png);
  if (writer.info == nullptr) throw std::bad_alloc();
  if (!codec::write_all(writer, picture, chunks.data(), static_cast<int>(chunks.size()))) throw std::bad_alloc();
  return std::move(writer.out);
}

void write_png(const std::filesystem::path& path, const Picture& picture, const PngText& text) {
  const std::vector<uint8_t> bytes = encode_png(picture, text);
  AtomicFile file(path, bytes.size());
  file.write(bytes.data(), bytes.size());
  file.commit();
}

PngText read_png_text(const std::filesystem::path& path) {
  const std::vector<uint8_t> bytes = read_file(path, uint64_t{1} << 31);
  PngText result;
  try {
    if (bytes.size() < 8 || png_sig_cmp(bytes.data(), 0, 8) != 0) throw codec::Broken{"it is not a PNG file"};
    codec::decode_png(bytes, {}, &result);
  } catch (const codec::Broken& broken) {
    fail("{}: cannot read its text: {}", path.string(), broken.reason);
  }
  return result;
}

}  // namespace kiln
