// Video files in: every frame of a file's first video stream as a picture. FFmpeg's libraries' work, as writing is (engine/video.h).
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string_view>

#include "engine/picture.h"

namespace kiln {

/// True for the names that are taken for videos: .mp4 .m4v .mov .mkv .webm .avi .gif, in any case. Whether one can be read,
/// video_compiled_in() says, and the file's bytes.
bool is_video_name(std::string_view name);

struct VideoInfo {
  int width = 0, height = 0;  // of every frame, turned and with square pixels
  int64_t frames = 0;
  double fps = 0;       // mean of the time stamps; 0 where there are none
  bool uneven = false;  // the longest time between two frames is over 1.6 times the shortest (rounding of time stamps stays below)
};

/// Reads MP4, MOV, Matroska, WebM, AVI and GIF files (their bytes decide which) and hands over every frame in the order that they
/// are shown in, as it is stored: time stamps neither repeat nor drop any. Colours become sRGB by what the file says of them (BT.709 from
/// 720 lines on and BT.601 below where it says nothing); alpha goes over `background`; a phone's rotation is applied; pixels that are not
/// square are made so by width. Nothing but that file is opened, whatever it refers to.
/// Throws Error "PATH: reason; remedy" for what cannot be opened, is none of these, is damaged or cut short anywhere, changes its size on
/// the way, or in a build without FFmpeg's libraries. What `frame` throws passes through.
VideoInfo read_video(const std::filesystem::path& path, const std::function<void(Picture&&)>& frame, Rgb background = {});

}  // namespace kiln
