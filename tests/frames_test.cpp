// Videos as every build writes them: frames in a folder, and words about the rest.
#include "engine/video.h"
#include "tests/program.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::test;
namespace fs = std::filesystem;

TEST_CASE("video: a name without an ending is a folder of PNG frames") {
  const TempFolder t;
  const auto drawn = [](int k) {
    Picture p{20, 10, std::vector<uint8_t>(20 * 10 * 3)};
    for (size_t i = 0; i < p.rgb.size(); i++) p.rgb[i] = uint8_t(i * size_t(k + 3));
    return p;
  };
  VideoWriter v(t / "frames", 20, 10);
  for (int k = 0; k < 3; k++) v.add(drawn(k));
  v.finish();
  for (int k = 0; k < 3; k++) CHECK(read_picture(t / fmt::format("frames/{:06}.png", k)).rgb == drawn(k).rgb);
  CHECK(!fs::exists(t / "frames/000003.png"));
}

TEST_CASE("video: names that are no video's are refused; without FFmpeg's libraries MP4 and GIF are, and the remedy is told") {
  const TempFolder t;
  CHECK(contains(error_of([&] { VideoWriter(t / "a.avi", 10, 10); }), ".mp4"));
  CHECK(video_format("frames") == VideoFormat::frames);
  for (const char* name : {"a.mp4", "a.GIF", "a.mov"}) {
    CAPTURE(std::string(name));
    const std::string error = error_of([&] { video_format(name); });
    if (video_compiled_in()) {
      CHECK(error == "");
      continue;
    }
    for (const char* word : {name, "libavcodec-dev", "libavformat-dev", "folder of PNG frames"}) CHECK(contains(error, word));
    CHECK(!contains(error, "\n"));
    CHECK(error_of([&] { VideoWriter(t / name, 10, 10); }) != "");
    CHECK(!fs::exists(t / name));
  }
}
