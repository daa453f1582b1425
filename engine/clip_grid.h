// Clips to look at: side by side in one video, and frame by frame on one sheet.
#pragma once
#include <filesystem>
#include <vector>

#include "engine/picture.h"
#include "engine/tensor.h"
#include "engine/video.h"

namespace kiln {

/// The pictures of a clip, all of one size.
using PictureClip = std::vector<Picture>;

/// Clips [n, t, h, w, 3], nominally on [-1, 1], as pictures (to_pictures).
std::vector<PictureClip> to_picture_clips(const Tensor& clips);

struct ClipGridOptions {
  int columns = 4;  ///< clips a row of the video
  int gap = 2;      ///< pixels between and around them
  Rgb background;
  int scale = 1;    ///< every pixel becomes scale x scale: small clips are hard to see
};

/// Writes a video of the kind that its name says (MP4, GIF, a folder of frames) in which all clips play at once; one that is shorter
/// holds its last frame. clips not empty, all of one size. Throws kiln::Error as VideoWriter does.
void write_clip_grid(const std::filesystem::path& path, const std::vector<PictureClip>& clips, const ClipGridOptions& grid = {},
                     const VideoOptions& video = {});

/// A sheet: a row a clip, its frames from left to right. most > 0: that many frames a row at most, evenly spread over the clip, first and
/// last among them.
Picture clip_sheet(const std::vector<PictureClip>& clips, int most = 0, const ClipGridOptions& grid = {});

/// A clip's frames side by side without a gap, square or not: the strip that ClipDataset reads where they are square.
Picture clip_strip(const PictureClip& clip);

}  // namespace kiln
