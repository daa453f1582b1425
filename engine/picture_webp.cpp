// WebP by libwebp; libwebpdemux finds the EXIF block and the first frame of an animation.
#include <webp/decode.h>
#include <webp/demux.h>
#include <webp/encode.h>

#include <memory>

#include "engine/error.h"
#include "engine/picture_codec.h"

namespace kiln::codec {
namespace {

const char* describe(VP8StatusCode status) {
  switch (status) {
    case VP8_STATUS_OUT_OF_MEMORY: return "not enough memory to decode it";
    case VP8_STATUS_UNSUPPORTED_FEATURE: return "it uses a WebP feature that libwebp does not know";
    case VP8_STATUS_SUSPENDED:
    case VP8_STATUS_NOT_ENOUGH_DATA: return "the file is cut short";
    default: return "the WebP data is damaged";
  }
}

WebPBitstreamFeatures features_of(Bytes file) {
  WebPBitstreamFeatures features;
  const VP8StatusCode status = WebPGetFeatures(file.data(), file.size(), &features);
  if (status != VP8_STATUS_OK) throw Broken{describe(status)};
  check_size(features.width, features.height, file.size());
  return features;
}

struct DemuxDelete {
  void operator()(WebPDemuxer* demuxer) const { WebPDemuxDelete(demuxer); }
  void operator()(WebPAnimDecoder* decoder) const { WebPAnimDecoderDelete(decoder); }
};

void blend_all(const uint8_t* rgba, Rgb background, Picture& picture) {
  for (size_t i = 0, n = picture.rgb.size() / 3; i < n; ++i) blend(rgba + 4 * i, background, &picture.rgb[3 * i]);
}

void decode_first_frame(Bytes file, Rgb background, Picture& picture) {
  WebPAnimDecoderOptions options;
  WebPAnimDecoderOptionsInit(&options);
  options.color_mode = MODE_RGBA;
  const WebPData data{file.data(), file.size()};
  const std::unique_ptr<WebPAnimDecoder, DemuxDelete> decoder(WebPAnimDecoderNew(&data, &options));
  uint8_t* rgba = nullptr;
  int timestamp = 0;
  if (!decoder || !WebPAnimDecoderGetNext(decoder.get(), &rgba, &timestamp)) {
    throw Broken{"the first frame of the WebP animation is damaged or cut short"};
  }
  blend_all(rgba, background, picture);
}

}  // namespace

PictureSize webp_size(Bytes file) {
  const WebPBitstreamFeatures features = features_of(file);
  return {features.width, features.height};
}

bool webp_has_alpha(Bytes file) { return features_of(file).has_alpha != 0; }

Decoded decode_webp(Bytes file, Rgb background) {
  const WebPBitstreamFeatures features = features_of(file);
  Decoded result;
  Picture& picture = result.picture;
  picture.width = features.width;
  picture.height = features.height;
  const size_t pixels = size_t(features.width) * features.height;
  picture.rgb.resize(pixels * 3);
  if (features.has_animation) {
    decode_first_frame(file, background, picture);
  } else {
    std::vector<uint8_t> rgba(features.has_alpha ? pixels * 4 : 0);
    WebPDecoderConfig config;
    WebPInitDecoderConfig(&config);
    config.output.colorspace = features.has_alpha ? MODE_RGBA : MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = features.has_alpha ? rgba.data() : picture.rgb.data();
    config.output.u.RGBA.stride = features.width * (features.has_alpha ? 4 : 3);
    config.output.u.RGBA.size = features.has_alpha ? rgba.size() : picture.rgb.size();
    const VP8StatusCode status = WebPDecode(file.data(), file.size(), &config);
    if (status != VP8_STATUS_OK) throw Broken{describe(status)};
    if (features.has_alpha) blend_all(rgba.data(), background, picture);
  }

  const WebPData data{file.data(), file.size()};
  const std::unique_ptr<WebPDemuxer, DemuxDelete> demuxer(WebPDemux(&data));
  // The picture chunk may be whole while the file is not: what follows it (EXIF) is then missing.
  if (!demuxer) throw Broken{describe(VP8_STATUS_NOT_ENOUGH_DATA)};
  WebPChunkIterator chunk;
  if (WebPDemuxGetChunk(demuxer.get(), "EXIF", 1, &chunk)) {
    result.orientation = exif_orientation({chunk.chunk.bytes, chunk.chunk.size});
    WebPDemuxReleaseChunkIterator(&chunk);
  }
  return result;
}

}  // namespace kiln::codec

namespace kiln {

std::vector<uint8_t> encode_webp(const Picture& picture, float quality) {
  KILN_ASSERT(picture.rgb.size() == size_t(picture.width) * picture.height * 3 && quality >= 0 && quality <= 100);
  uint8_t* bytes = nullptr;
  const size_t size = WebPEncodeRGB(picture.rgb.data(), picture.width, picture.height, picture.width * 3, quality, &bytes);
  const std::unique_ptr<uint8_t, decltype(&WebPFree)> owner(bytes, WebPFree);
  if (size == 0)
    fail("a picture of {}x{} pixels could not be written as WebP: sides of at most 16383 pixels, and memory, are needed",
         picture.width, picture.height);
  return {bytes, bytes + size};
}

}  // namespace kiln
