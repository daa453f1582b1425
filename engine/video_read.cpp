#include "engine/video_read.h"

#include <algorithm>
#include <array>
#include <string>

#include "engine/error.h"
#include "engine/picture_codec.h"
#include "engine/video_read_codec.h"

namespace kiln {

bool is_video_name(std::string_view name) {
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return false;
  std::string e(name.substr(dot));
  for (char& c : e)
    if (c >= 'A' && c <= 'Z') c = char(c - 'A' + 'a');
  constexpr std::array<std::string_view, 7> known{".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif"};
  return std::find(known.begin(), known.end(), e) != known.end();
}

VideoInfo read_video(const std::filesystem::path& path, const std::function<void(Picture&&)>& frame, Rgb background) {
  try {
    return codec::read_video_or_broken(path, frame, background);
  } catch (const codec::Broken& broken) {
    fail("{}: {}; check the file in a player, convert it anew or remove it", path.string(), broken.reason);
  }
}

}  // namespace kiln
