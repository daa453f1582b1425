#include "engine/video.h"

#include <algorithm>
#include <cctype>

#include "engine/error.h"
#include "engine/video_sink.h"

namespace kiln {

VideoFormat video_format(const std::filesystem::path& path) {
  std::string e = path.extension().string();
  std::transform(e.begin(), e.end(), e.begin(), [](unsigned char c) { return char(std::tolower(c)); });
  if (e.empty()) return VideoFormat::frames;
  const bool mp4 = e == ".mp4" || e == ".m4v" || e == ".mov";
  if (!mp4 && e != ".gif") fail("{}: a video's name must end in .mp4 or .gif; a name without an ending is a folder of frames", path.string());
  if (!video_compiled_in())
    fail("{}: this kiln was built without FFmpeg's libraries, which write MP4 and GIF; install libavcodec-dev libavfilter-dev "
         "libavformat-dev libavutil-dev and build kiln again, or give a name without an ending: a folder of PNG frames",
         path.string());
  return mp4 ? VideoFormat::mp4 : VideoFormat::gif;
}

struct VideoWriter::Frames : Sink {
  Frames(const std::filesystem::path& p, int w, int h) : Sink(p, w, h) {
    std::error_code error;
    std::filesystem::create_directories(p, error);
    if (!std::filesystem::is_directory(p)) fail("{}: cannot make the folder: {}", p.string(), error ? error.message() : "there is a file of that name");
  }
  void add(const Picture& picture) override { write_png(path / fmt::format("{:06}.png", count), picture); }
  void finish() override {}
};

VideoWriter::VideoWriter(const std::filesystem::path& path, int width, int height, const VideoOptions& options) {
  KILN_ASSERT(width > 0 && height > 0);
  const VideoFormat format = video_format(path);
  if (format == VideoFormat::frames)
    sink_ = std::make_unique<Frames>(path, width, height);
  else
    sink_ = Sink::encoded(path, width, height, format, options);
}
VideoWriter::~VideoWriter() = default;

void VideoWriter::add(const Picture& picture) {
  KILN_ASSERT(picture.width == sink_->width && picture.height == sink_->height);
  sink_->add(picture);
  sink_->count++;
}

void VideoWriter::finish() {
  KILN_ASSERT(sink_->count > 0);
  sink_->finish();
}

}  // namespace kiln
