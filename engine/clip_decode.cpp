// One clip, from its files to bytes.
#include <cstring>
#include <exception>

#include "engine/clip_scan.h"
#include "engine/error.h"
#include "engine/hash.h"
#include "engine/picture_codec.h"
#include "engine/video_read_codec.h"

namespace kiln::clips {
namespace {

using codec::Broken;

/// Collects fitted frames.
struct Frames {
  const ClipDatasetOptions& options;
  std::vector<uint8_t> bytes = {};
  int64_t count = 0;

  void add(const Picture& picture) {
    const Picture fitted = fit_picture(picture, options.size, options.fit, options.background);
    bytes.insert(bytes.end(), fitted.rgb.begin(), fitted.rgb.end());
    count++;
  }
};

/// The file's name without its folders.
std::string leaf(const std::string& path) { return path.substr(path.rfind('/') + 1); }

void decode_frames(const ClipDatasetOptions& options, const Candidate& c, Frames& to) {
  PictureSize first;
  for (const Part& part : c.parts) {
    try {
      const Picture p = codec::decode_or_broken(read_file(options.folder / part.name, codec::kMaxFileBytes), options.background);
      if (to.count == 0) first = {p.width, p.height};
      if (p.width != first.width || p.height != first.height)
        throw Broken{fmt::format("is {}x{} pixels, the first one {}x{}", p.width, p.height, first.width, first.height)};
      to.add(p);
    } catch (const Broken& broken) {
      throw Broken{fmt::format("its frame {}: {}", leaf(part.name), broken.reason)};
    }
  }
}

void decode_strip(const ClipDatasetOptions& options, const Candidate& c, Frames& to) {
  const Picture p = codec::decode_or_broken(read_file(options.folder / c.parts[0].name, codec::kMaxFileBytes), options.background);
  const int side = p.height, n = p.width / side;
  if (p.width % side != 0 || n < 2)
    throw Broken{fmt::format("it is {}x{} pixels, no strip: a strip is two or more squares wide; if the pictures of its folder are the frames of one "
                             "clip, say so (--pictures frames)", p.width, p.height)};
  Picture frame{side, side, std::vector<uint8_t>(size_t(side) * size_t(side) * 3)};
  for (int k = 0; k < n; k++) {
    for (int y = 0; y < side; y++)
      std::memcpy(&frame.rgb[size_t(y) * size_t(side) * 3], &p.rgb[(size_t(y) * size_t(p.width) + size_t(k) * size_t(side)) * 3], size_t(side) * 3);
    to.add(frame);
  }
}

}  // namespace

std::vector<uint8_t> decode(const ClipDatasetOptions& options, Candidate& c) {
  Frames frames{options};
  try {
    if (c.kind == Kind::frames) {
      decode_frames(options, c, frames);
    } else if (c.kind == Kind::strip) {
      decode_strip(options, c, frames);
    } else {
      const VideoInfo info = codec::read_video_or_broken(options.folder / c.parts[0].name, [&](Picture&& p) { frames.add(p); }, options.background);
      c.fps = info.fps;
      c.uneven = info.uneven;
    }
    c.frames = frames.count;
    c.hash = hash_bytes(frames.bytes.data(), frames.bytes.size());
    return std::move(frames.bytes);
  } catch (const Broken& broken) {
    c.reason = broken.reason;
  } catch (const std::bad_alloc&) {
    c.reason = "not enough memory to decode it";
    c.transient = true;
  } catch (const std::exception& e) {  // read_file
    const std::string prefix = options.folder.string(), text = e.what();
    c.reason = text.starts_with(prefix + "/") ? text.substr(prefix.size() + 1) : text;
    c.transient = true;
  }
  return {};
}

}  // namespace kiln::clips
