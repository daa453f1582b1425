// ./emoji_faces: sample pictures for make demo.
#include "engine/picture.h"
#include "tests/program.h"

using namespace kiln;
using namespace kiln::test;
namespace fs = std::filesystem;

TEST_CASE("emoji_faces: help, mistakes, and pictures where the font is installed") {
  const TempFolder t;
  CHECK(run_program("emoji_faces", {"--help"}).code == 0);
  const Finished none = run_program("emoji_faces", {});
  CHECK(none.code == 2);
  const Finished font = run_program("emoji_faces", {t / "out", "--font", t / "no.ttf"});
  CHECK(font.code == 2);
  CHECK(font.err.find("no.ttf") != std::string::npos);
  if (!fs::exists("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")) {
    MESSAGE("the font is not installed: the pictures were not checked");
    return;
  }
  REQUIRE(run_program("emoji_faces", {t / "faces", "--size", "64"}).code == 0);
  int count = 0;
  for (const auto& e : fs::directory_iterator(t / "faces")) {
    const Picture p = read_picture(e.path());
    CHECK(p.width == 64);
    // White corners and a yellow or at least coloured middle.
    CHECK(p.rgb[0] > 240);
    double saturation = 0;
    for (size_t i = 0; i < p.rgb.size(); i += 3) saturation += std::abs(int(p.rgb[i]) - int(p.rgb[i + 2]));
    CHECK(saturation / (64 * 64) > 20);
    count++;
  }
  CHECK(count >= 80);
}
