// Small folders of clips, for tests of what reads them.
#pragma once
#include "engine/clip_dataset.h"
#include "engine/video.h"
#include "tests/picture_fixtures.h"

namespace fixtures {

/// Frame k of clip number `clip`: a picture that says both.
inline kiln::Picture clip_frame(int clip, int k, int width = 24, int height = 24) {
  kiln::Picture p{width, height, {}};
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      p.rgb.push_back(static_cast<uint8_t>(k * 4));
      p.rgb.push_back(static_cast<uint8_t>(clip * 9));
      p.rgb.push_back(static_cast<uint8_t>(x * 200 / width));
    }
  return p;
}

/// A folder of PNG frames 1.png, 2.png, ..., 10.png: their names' bytes are not their order.
inline void write_frames(const fs::path& folder, int clip, int frames, int width = 24, int height = 24) {
  for (int k = 0; k < frames; ++k) write_file(folder / (std::to_string(k + 1) + ".png"), encode_png(clip_frame(clip, k, width, height)));
}

/// A strip of square frames.
inline kiln::Picture strip(int clip, int frames, int side = 24) {
  kiln::Picture p{side * frames, side, Bytes(static_cast<size_t>(side) * side * frames * 3)};
  for (int k = 0; k < frames; ++k) {
    const kiln::Picture one = clip_frame(clip, k, side, side);
    for (int y = 0; y < side; ++y)
      std::copy_n(&one.rgb[static_cast<size_t>(y) * side * 3], side * 3, &p.rgb[(static_cast<size_t>(y) * side * frames + static_cast<size_t>(k) * side) * 3]);
  }
  return p;
}

inline void write_video(const fs::path& path, int clip, int frames, int width = 24, int height = 24) {
  kiln::VideoOptions options;
  options.fps = 10;
  options.quality = 0;
  fs::create_directories(path.parent_path());
  kiln::VideoWriter v(path, width, height, options);
  for (int k = 0; k < frames; ++k) v.add(clip_frame(clip, k, width, height));
  v.finish();
}

inline kiln::ClipDatasetOptions clip_options(const fs::path& folder, int frames, int size = 16) {
  kiln::ClipDatasetOptions o;
  o.folder = folder;
  o.size = size;
  o.frames = frames;
  return o;
}

/// All frames of all clips.
inline Bytes all_frames(const kiln::ClipDataset& d) {
  Bytes out;
  for (size_t i = 0; i < d.count(); ++i) {
    Bytes clip(static_cast<size_t>(d.frames_of(i)) * d.frame_bytes());
    d.read(i, 0, d.frames_of(i), 1, clip.data());
    out.insert(out.end(), clip.begin(), clip.end());
  }
  return out;
}

}  // namespace fixtures
