#include "engine/clip_grid.h"

#include <algorithm>

#include "engine/error.h"
#include "engine/picture_tensor.h"

namespace kiln {
namespace {

Picture enlarged(const Picture& p, int scale) {
  if (scale == 1) return p;
  Picture out{p.width * scale, p.height * scale, {}};
  out.rgb.reserve(p.rgb.size() * size_t(scale) * size_t(scale));
  for (int y = 0; y < out.height; y++)
    for (int x = 0; x < out.width; x++) {
      const uint8_t* from = &p.rgb[(size_t(y / scale) * size_t(p.width) + size_t(x / scale)) * 3];
      out.rgb.insert(out.rgb.end(), from, from + 3);
    }
  return out;
}

}  // namespace

std::vector<PictureClip> to_picture_clips(const Tensor& clips) {
  const Shape s = clips.shape();
  KILN_ASSERT(s.rank() == 5 && s[4] == 3);
  std::vector<Picture> all = to_pictures(clips.reshape(Shape{s[0] * s[1], s[2], s[3], 3}));
  std::vector<PictureClip> out(static_cast<size_t>(s[0]));
  for (size_t i = 0; i < all.size(); i++) out[i / size_t(s[1])].push_back(std::move(all[i]));
  return out;
}

void write_clip_grid(const std::filesystem::path& path, const std::vector<PictureClip>& clips, const ClipGridOptions& grid, const VideoOptions& video) {
  KILN_ASSERT(!clips.empty() && grid.columns >= 1 && grid.scale >= 1);
  size_t frames = 0;
  for (const PictureClip& c : clips) {
    KILN_ASSERT(!c.empty());
    frames = std::max(frames, c.size());
  }
  std::unique_ptr<VideoWriter> writer;
  for (size_t t = 0; t < frames; t++) {
    std::vector<Picture> now;
    for (const PictureClip& c : clips) now.push_back(enlarged(c[std::min(t, c.size() - 1)], grid.scale));
    const Picture sheet = make_grid(now, std::min(grid.columns, int(clips.size())), grid.gap, grid.background);
    if (!writer) writer = std::make_unique<VideoWriter>(path, sheet.width, sheet.height, video);
    writer->add(sheet);
  }
  writer->finish();
}

Picture clip_sheet(const std::vector<PictureClip>& clips, int most, const ClipGridOptions& grid) {
  KILN_ASSERT(!clips.empty() && !clips[0].empty() && grid.scale >= 1);
  size_t longest = 0;
  for (const PictureClip& c : clips) longest = std::max(longest, c.size());
  const size_t columns = most > 0 ? std::min(longest, size_t(most)) : longest;
  std::vector<Picture> cells;
  for (const PictureClip& c : clips) {
    const size_t shown = most > 0 ? std::min(c.size(), columns) : c.size();
    for (size_t k = 0; k < columns; k++) {
      if (k < shown) {
        cells.push_back(enlarged(c[shown == 1 ? 0 : k * (c.size() - 1) / (shown - 1)], grid.scale));
      } else {  // a shorter clip leaves its row empty
        Picture blank{cells[0].width, cells[0].height, {}};
        for (int i = 0; i < blank.width * blank.height; i++) blank.rgb.insert(blank.rgb.end(), {grid.background.r, grid.background.g, grid.background.b});
        cells.push_back(std::move(blank));
      }
    }
  }
  return make_grid(cells, int(columns), grid.gap, grid.background);
}

Picture clip_strip(const PictureClip& clip) { return make_grid(clip, int(clip.size()), 0); }

}  // namespace kiln
