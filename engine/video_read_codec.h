// Inside of video_read*.cpp and clip_decode.cpp: reading a video, with reasons that do not name the file.
#pragma once
#include "engine/video_read.h"

namespace kiln::codec {

/// read_video, but it throws codec::Broken for what is wrong with the file.
VideoInfo read_video_or_broken(const std::filesystem::path& path, const std::function<void(Picture&&)>& frame, Rgb background);

}  // namespace kiln::codec
