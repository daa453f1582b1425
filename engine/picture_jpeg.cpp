// JPEG by libjpeg-turbo. It reports errors by a callback that must not return: here a longjmp out of functions that own
// nothing (memory and state live in JpegReader, in their caller), so that nothing leaks.
#include <algorithm>
#include <csetjmp>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <memory>

#include <jpeglib.h>  // after cstdio: it needs FILE

#include <jerror.h>

#include "engine/picture_codec.h"

namespace kiln::codec {
namespace {

// A small progressive file can hold thousands of scans, each of which costs a pass over the whole picture.
constexpr int kMaxScans = 200;

struct JpegReader {
  jpeg_decompress_struct info{};
  jpeg_error_mgr errors{};
  jpeg_progress_mgr progress{};
  std::jmp_buf escape;
  char reason[JMSG_LENGTH_MAX] = "";

  JpegReader();
  ~JpegReader() { jpeg_destroy_decompress(&info); }
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;
};

JpegReader& reader_of(j_common_ptr info) { return *static_cast<JpegReader*>(info->client_data); }

[[noreturn]] void on_error(j_common_ptr info) {
  JpegReader& reader = reader_of(info);
  info->err->format_message(info, reader.reason);
  std::longjmp(reader.escape, 1);
}

// libjpeg goes on after damage, with grey where the picture was. For training, half a picture is a broken picture.
// "Extraneous bytes before marker" and odd markers are common in sound files and stay unsaid.
void on_message(j_common_ptr info, int level) {
  if (level >= 0) return;
  switch (info->err->msg_code) {
    case JWRN_JPEG_EOF:
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_ARITH_BAD_CODE:
    case JWRN_MUST_RESYNC: on_error(info);
  }
}

void on_progress(j_common_ptr info) {
  if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number <= kMaxScans) return;
  JpegReader& reader = reader_of(info);
  std::snprintf(reader.reason, sizeof reader.reason, "it has more than %d scans", kMaxScans);
  std::longjmp(reader.escape, 1);
}

JpegReader::JpegReader() {
  info.err = jpeg_std_error(&errors);
  errors.error_exit = on_error;
  errors.emit_message = on_message;
  errors.output_message = [](j_common_ptr) {};
  progress.progress_monitor = on_progress;
  info.client_data = this;
}

bool read_header(JpegReader& reader, Bytes file) {
  if (setjmp(reader.escape)) return false;
  jpeg_create_decompress(&reader.info);
  reader.info.progress = &reader.progress;
  jpeg_mem_src(&reader.info, file.data(), file.size());
  jpeg_save_markers(&reader.info, JPEG_APP0 + 1, 0xFFFF);  // EXIF
  jpeg_read_header(&reader.info, TRUE);
  return true;
}

// Adobe programs store CMYK upside down (255: no ink), and say that they wrote the file by an Adobe marker.
void cmyk_to_rgb(const uint8_t* cmyk, int width, bool adobe, uint8_t* rgb) {
  for (int x = 0; x < width; ++x, cmyk += 4, rgb += 3) {
    for (int c = 0; c < 3; ++c) {
      const unsigned light = adobe ? cmyk[c] : 255 - cmyk[c], key = adobe ? cmyk[3] : 255 - cmyk[3];
      rgb[c] = static_cast<uint8_t>((light * key + 127) / 255);
    }
  }
}

// `cmyk_row`: a row of width * 4 bytes, or null for a picture that libjpeg itself turns into RGB.
bool read_rows(JpegReader& reader, uint8_t* rgb, uint8_t* cmyk_row) {
  if (setjmp(reader.escape)) return false;
  jpeg_decompress_struct& info = reader.info;
  info.out_color_space = cmyk_row != nullptr ? JCS_CMYK : JCS_RGB;
  jpeg_start_decompress(&info);
  while (info.output_scanline < info.output_height) {
    uint8_t* row = rgb + size_t{info.output_scanline} * info.output_width * 3;
    JSAMPROW target = cmyk_row != nullptr ? cmyk_row : row;
    jpeg_read_scanlines(&info, &target, 1);
    if (cmyk_row != nullptr) cmyk_to_rgb(cmyk_row, static_cast<int>(info.output_width), info.saw_Adobe_marker, row);
  }
  jpeg_finish_decompress(&info);  // to the end marker: a file that lost its tail fails here at the latest
  return true;
}

void open(JpegReader& reader, Bytes file) {
  if (!read_header(reader, file)) throw Broken{reader.reason};
  check_size(reader.info.image_width, reader.info.image_height, file.size());
}

int orientation_of(const jpeg_decompress_struct& info) {
  for (jpeg_saved_marker_ptr marker = info.marker_list; marker != nullptr; marker = marker->next)
    if (marker->data_length >= 6 && std::memcmp(marker->data, "Exif\0\0", 6) == 0) return exif_orientation({marker->data, marker->data_length});
  return 1;
}

}  // namespace

int jpeg_orientation(Bytes file) {
  JpegReader reader;
  open(reader, file);
  return orientation_of(reader.info);
}

uint64_t jpeg_coefficient_bytes(Bytes file) {
  JpegReader reader;
  open(reader, file);
  const jpeg_decompress_struct& info = reader.info;
  if (!jpeg_has_multiple_scans(&reader.info)) return 0;
  uint64_t blocks = 0;  // of 8x8 coefficients: libjpeg's own counts are there only once it decodes
  const auto in_blocks = [](uint64_t side, int factor, int most) { return (side * uint64_t(factor) + uint64_t(most) * 8 - 1) / (uint64_t(most) * 8); };
  int most_h = 1, most_v = 1;
  for (int c = 0; c < info.num_components; ++c) {
    most_h = std::max(most_h, info.comp_info[c].h_samp_factor);
    most_v = std::max(most_v, info.comp_info[c].v_samp_factor);
  }
  for (int c = 0; c < info.num_components; ++c)
    blocks += in_blocks(info.image_width, info.comp_info[c].h_samp_factor, most_h) * in_blocks(info.image_height, info.comp_info[c].v_samp_factor, most_v);
  return blocks * 64 * sizeof(JCOEF);
}

PictureSize jpeg_size(Bytes file) {
  JpegReader reader;
  open(reader, file);
  return {static_cast<int>(reader.info.image_width), static_cast<int>(reader.info.image_height)};
}

Decoded decode_jpeg(Bytes file) {
  JpegReader reader;
  open(reader, file);
  const jpeg_decompress_struct& info = reader.info;
  Decoded result;
  result.orientation = orientation_of(info);
  result.picture.width = static_cast<int>(info.image_width);
  result.picture.height = static_cast<int>(info.image_height);
  result.picture.rgb.resize(size_t{info.image_width} * info.image_height * 3);
  const bool cmyk = info.jpeg_color_space == JCS_CMYK || info.jpeg_color_space == JCS_YCCK;
  std::vector<uint8_t> row(cmyk ? size_t{info.image_width} * 4 : 0);
  if (!read_rows(reader, result.picture.rgb.data(), cmyk ? row.data() : nullptr)) throw Broken{reader.reason};
  return result;
}

}  // namespace kiln::codec
