// Moving pictures. A video is a run of pictures of one size at a constant rate. MP4 and GIF are FFmpeg's libraries' work; a
// build without them (KILN_VIDEO=OFF) writes frames.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "engine/picture.h"

namespace kiln {

struct VideoOptions {
  double fps = 30;  // pictures a second, 1 to 240; GIF stores hundredths of a second: 50 at most
  int quality = 18;  // of MP4: H.264's constant rate factor, 0 (lossless) to 51; lower is better and larger
  std::string comment;  // kept in an MP4's metadata
};

enum class VideoFormat {
  mp4,    ///< H.264, 4:2:0, plays everywhere; MPEG-4 Part 2 where FFmpeg was built without x264
  gif,    ///< one palette of 256 colours for all pictures, dithered; endless
  frames  ///< a folder of 000000.png, 000001.png, ...
};
/// True where this build writes MP4 and GIF.
bool video_compiled_in();
/// What a name says: .mp4 (or .m4v, .mov), .gif; a name without an extension is a folder of frames. Throws Error for others, and
/// for those that this build cannot write.
VideoFormat video_format(const std::filesystem::path& path);

/// Writes a video. The file appears under its name when finish() has returned, whole; without that nothing is left (of a
/// folder: the frames so far). Holds no time: equal in, equal out on one machine.
class VideoWriter {
 public:
  /// Pictures will be width x height. MP4 stores even sizes only: an odd side gets its last row or column doubled.
  /// Throws Error: a name of no known kind, no such folder, a rate or quality out of range, an FFmpeg without the encoder.
  VideoWriter(const std::filesystem::path& path, int width, int height, const VideoOptions& options = {});
  ~VideoWriter();
  VideoWriter(const VideoWriter&) = delete;

  /// The next picture. A GIF's pictures are kept in memory until finish(), since their palette is that of all of them.
  /// Throws Error naming the path (full disk, ...).
  void add(const Picture& picture);
  /// At least one picture must have been added. Throws Error as add().
  void finish();

 private:
  struct Sink;  // one per format
  struct Frames;
  struct Encoded;
  std::unique_ptr<Sink> sink_;
};

}  // namespace kiln
