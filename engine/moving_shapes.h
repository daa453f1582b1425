// A set of clips that needs no files: one coloured shape that moves on a dark ground. To try video networks on, and to test them.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "engine/clip_grid.h"

namespace kiln {

/// The classes, which are ways to move: "horizontal", "vertical", "diagonal", "circling".
const std::vector<std::string>& shape_motions();

/// Clip `number` of the endless set of that seed: a disc, square or triangle, of one of eight colours, any place, size and speed; it
/// swings between the edges or circles. Its period is 12 to 32 frames at any size. frames pictures of size x size pixels, edges smoothed.
PictureClip moving_shape(uint64_t seed, int64_t number, int motion, int frames, int size);

}  // namespace kiln
