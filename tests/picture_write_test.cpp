// Pictures written by the kind that a name says, and read back.
#include "engine/error.h"
#include "engine/file.h"
#include "engine/picture.h"
#include "tests/program.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::test;

namespace {

/// Smooth colours: what lossy formats keep well.
Picture smooth(int w, int h) {
  Picture p{w, h, {}};
  for (int y = 0; y < h; y++)
    for (int x = 0; x < w; x++) {
      p.rgb.push_back(uint8_t(255 * x / w));
      p.rgb.push_back(uint8_t(255 * y / h));
      p.rgb.push_back(uint8_t(128 + 100 * std::sin(x * 0.1)));
    }
  return p;
}

double mean_difference(const Picture& a, const Picture& b) {
  REQUIRE(a.rgb.size() == b.rgb.size());
  double sum = 0;
  for (size_t i = 0; i < a.rgb.size(); i++) sum += std::abs(int(a.rgb[i]) - int(b.rgb[i]));
  return sum / double(a.rgb.size());
}

}  // namespace

TEST_CASE("picture writing: every format holds the picture; quality trades size; names decide") {
  const TempFolder t;
  const Picture p = smooth(101, 67);
  for (const char* name : {"a.png", "a.PNG", "a.jpg", "a.JPEG", "a.webp"}) {
    CAPTURE(name);
    write_picture(t / name, p);
    const Picture q = read_picture(t / name);
    CHECK(q.width == 101);
    CHECK(mean_difference(p, q) <= (picture_format(name) == PictureFormat::png ? 0.0 : 2.5));
  }
  CHECK(file_text(t / "a.jpg").starts_with("\xFF\xD8"));
  CHECK(file_text(t / "a.webp").substr(8, 4) == "WEBP");
  for (const char* name : {"b.jpg", "b.webp"}) {
    write_picture(t / name, p, {}, 20);
    const std::string a = file_text(t / (std::string("a") + (name + 1)));
    CHECK(file_text(t / name).size() < a.size());
  }
  write_picture(t / "t.png", p, {{"seed", "7"}});
  CHECK(read_png_text(t / "t.png") == PngText{{"seed", "7"}});
}

TEST_CASE("picture writing: mistakes name the path or the size") {
  const TempFolder t;
  CHECK(contains(error_of([&] { write_picture(t / "a.tiff", smooth(4, 4)); }), "a.tiff"));
  CHECK(contains(error_of([&] { write_picture(t / "none/a.jpg", smooth(4, 4)); }), "none/a.jpg"));
  CHECK(contains(error_of([&] { encode_webp(smooth(16384, 1), 50); }), "16384x1"));
  CHECK(contains(error_of([&] { encode_jpeg(smooth(65501, 1), 50); }), "65501x1"));
}
