// Inside of video*.cpp: what a VideoWriter hands its pictures to.
#pragma once
#include "engine/video.h"

namespace kiln {

struct VideoWriter::Sink {
  Sink(std::filesystem::path p, int w, int h) : path(std::move(p)), width(w), height(h) {}
  virtual ~Sink() = default;
  virtual void add(const Picture& picture) = 0;
  virtual void finish() = 0;

  /// MP4 and GIF, in engine/video_ffmpeg.cpp. Throws Error as VideoWriter does.
  static std::unique_ptr<Sink> encoded(const std::filesystem::path& path, int width, int height, VideoFormat format, const VideoOptions& options);

  const std::filesystem::path path;
  const int width, height;
  int64_t count = 0;  // pictures so far
};

}  // namespace kiln
