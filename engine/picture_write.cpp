// Pictures into files: JPEG by libjpeg-turbo, and the choice of a format by a file's name.
#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>

#include <jpeglib.h>  // after cstdio: it needs FILE

#include "engine/error.h"
#include "engine/file.h"
#include "engine/picture.h"

namespace kiln {
namespace {

/// libjpeg reports errors by a callback that must not return: here a longjmp out of a function that owns nothing.
struct JpegWriter {
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  std::jmp_buf escape;
  char reason[JMSG_LENGTH_MAX] = "";
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  ~JpegWriter() {
    jpeg_destroy_compress(&info);
    std::free(bytes);
  }
};

bool write_all(JpegWriter& writer, const Picture& picture, int quality) {
  if (setjmp(writer.escape)) return false;
  jpeg_compress_struct& j = writer.info;
  jpeg_create_compress(&j);
  jpeg_mem_dest(&j, &writer.bytes, &writer.size);
  j.image_width = JDIMENSION(picture.width);
  j.image_height = JDIMENSION(picture.height);
  j.input_components = 3;
  j.in_color_space = JCS_RGB;
  jpeg_set_defaults(&j);
  jpeg_set_quality(&j, quality, TRUE);
  if (quality >= 90) j.comp_info[0].h_samp_factor = j.comp_info[0].v_samp_factor = 1;  // colours at full resolution
  j.optimize_coding = TRUE;
  jpeg_start_compress(&j, TRUE);
  while (j.next_scanline < j.image_height) {
    JSAMPROW row = const_cast<JSAMPROW>(&picture.rgb[size_t(j.next_scanline) * size_t(picture.width) * 3]);
    jpeg_write_scanlines(&j, &row, 1);
  }
  jpeg_finish_compress(&j);
  return true;
}

}  // namespace

std::vector<uint8_t> encode_jpeg(const Picture& picture, int quality) {
  KILN_ASSERT(picture.rgb.size() == size_t(picture.width) * size_t(picture.height) * 3 && quality >= 1 && quality <= 100);
  JpegWriter writer;
  writer.info.err = jpeg_std_error(&writer.errors);
  writer.info.client_data = &writer;
  writer.errors.output_message = [](j_common_ptr) {};
  writer.errors.error_exit = [](j_common_ptr info) {
    auto& w = *static_cast<JpegWriter*>(info->client_data);
    info->err->format_message(info, w.reason);
    std::longjmp(w.escape, 1);
  };
  if (!write_all(writer, picture, quality)) fail("a picture of {}x{} pixels could not be written as JPEG: {}", picture.width, picture.height, writer.reason);
  return {writer.bytes, writer.bytes + writer.size};
}

PictureFormat picture_format(const std::filesystem::path& path) {
  std::string e = path.extension().string();
  std::transform(e.begin(), e.end(), e.begin(), [](unsigned char c) { return char(std::tolower(c)); });
  if (e == ".png") return PictureFormat::png;
  if (e == ".jpg" || e == ".jpeg") return PictureFormat::jpeg;
  if (e == ".webp") return PictureFormat::webp;
  fail("{}: a picture's name must end in .png, .jpg or .webp", path.string());
}

void write_picture(const std::filesystem::path& path, const Picture& picture, const PngText& text, int quality) {
  const PictureFormat format = picture_format(path);
  const std::vector<uint8_t> bytes = format == PictureFormat::png    ? encode_png(picture, text)
                                     : format == PictureFormat::jpeg ? encode_jpeg(picture, quality)
                                                                     : encode_webp(picture, float(quality));
  AtomicFile file(path, bytes.size());
  file.write(bytes.data(), bytes.size());
  file.commit();
}

}  // namespace kiln
