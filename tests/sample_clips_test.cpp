// ./sample_clips: sets of clips that ClipDataset reads back.
#include <cmath>

#include "engine/clip_dataset.h"
#include "engine/moving_shapes.h"
#include "tests/picture_fixtures.h"
#include "tests/program.h"
#include "tests/support.h"

using namespace kiln;
using kiln::test::contains;
using kiln::test::Finished;
using kiln::test::run_program;
namespace fs = std::filesystem;

namespace {

ClipDataset open_clips(const std::string& folder, int frames, int size) {
  ClipDatasetOptions o;
  o.folder = folder;
  o.frames = frames;
  o.size = size;
  o.classes = true;
  o.strict = true;
  return ClipDataset(o);
}

void run_well(const std::vector<std::string>& arguments) {
  const Finished f = run_program("sample_clips", arguments);
  CAPTURE(f.err);
  REQUIRE(f.code == 0);
}

/// A sheet of 832 x 1344 pixels, clear but for a bar of a colour in every cell, at a place that says the cell's column.
fixtures::Bytes bar_sheet(int height_of_bar, std::array<uint8_t, 3> colour) {
  fixtures::Bytes rows;
  for (int y = 0; y < 1344; y++)
    for (int x = 0; x < 832; x++) {
      const bool bar = x % 64 >= x / 64 * 4 && x % 64 < x / 64 * 4 + 4 && y % 64 < height_of_bar;
      rows.insert(rows.end(), {colour[0], colour[1], colour[2], uint8_t(bar ? 255 : 0)});
    }
  return fixtures::png(832, 1344, PNG_COLOR_TYPE_RGB_ALPHA, 8, rows);
}

}  // namespace

TEST_CASE("sample_clips: shapes in every format, in class folders, the same for the same seed") {
  const kiln::test::TempFolder t;
  CHECK(run_program("sample_clips", {"--help"}).code == 0);
  run_well({"shapes", t / "strips", "--count", "6", "--frames", "9", "--size", "24", "--motions", "3"});
  run_well({"shapes", t / "frames", "--count", "6", "--frames", "9", "--size", "24", "--motions", "3", "--as", "frames"});
  const ClipDataset strips = open_clips(t / "strips", 9, 24), frames = open_clips(t / "frames", 9, 24);
  CHECK(strips.count() == 6);
  CHECK(strips.classes().names == std::vector<std::string>{"diagonal", "horizontal", "vertical"});
  CHECK(strips.classes().counts == std::vector<int64_t>{2, 2, 2});
  CHECK(strips.fingerprint() == frames.fingerprint());
  CHECK(strips.pictures(2, 3, 1, 1)[0].rgb == moving_shape(1, 0, 0, 9, 24)[3].rgb);  // horizontal/00000
  run_well({"shapes", t / "other", "--count", "6", "--frames", "9", "--size", "24", "--motions", "3", "--seed", "2"});
  CHECK(open_clips(t / "other", 9, 24).fingerprint() != strips.fingerprint());
  if (video_compiled_in())
    for (const std::string as : {"gif", "mp4"}) {
      run_well({"shapes", t / as, "--count", "4", "--frames", "5", "--size", "32", "--as", as});
      const ClipDataset d = open_clips(t / as, 5, 32);
      CHECK(d.count() == 4);
      CHECK(d.fps_of(0) == doctest::Approx(8));
    }
  // A folder that is not empty is left alone.
  const Finished again = run_program("sample_clips", {"shapes", t / "strips"});
  CHECK(again.code == 2);
  CHECK(contains(again.err, "not empty"));
}

TEST_CASE("sample_clips: sprites are laid over each other cell by cell; what is missing is named") {
  const kiln::test::TempFolder t;
  const Finished none = run_program("sample_clips", {"sprites", t / "no", t / "out"});
  CHECK(none.code == 2);
  CHECK(contains(none.err, "body"));
  const char* layers[] = {"body", "bottomwear", "topwear", "hair"};
  for (int l = 0; l < 4; l++) {
    for (int k = 0; k < 6; k++) {
      // Each layer's bar is shorter than that of the one below; its colour says layer and choice.
      fixtures::write_file(t.path() / "sheets" / layers[l] / fmt::format("{}.png", k), bar_sheet(64 - 16 * l, {uint8_t(l * 60 + 10), uint8_t(k * 40 + 10), 99}));
    }
  }
  run_well({"sprites", t / "sheets", t / "out", "--count", "40", "--seed", "5"});
  const ClipDataset d = open_clips(t / "out", 8, 64);
  CHECK(d.count() == 40);
  CHECK(d.classes().names.size() >= 7);
  for (size_t i = 0; i < d.count(); i++) {
    CAPTURE(d.names()[i]);
    const std::string label = d.classes().names[size_t(d.labels()[i])];
    const std::string parts = fs::path(d.names()[i]).stem().string();
    REQUIRE(parts.size() == 4);
    const std::vector<Picture> clip = d.pictures(i, 0, 8, 1);
    for (int k = 0; k < 8; k++) {
      const int column = label.starts_with("walk") ? k + 1 : label.starts_with("spellcast") ? std::min(k, 6) : std::min(k, 5);
      for (int l = 0; l < 4; l++) {  // the lowest row of each layer that shows
        const uint8_t* p = &clip[size_t(k)].rgb[size_t((64 - 16 * l - 1) * 64 + column * 4) * 3];
        CHECK(p[0] == l * 60 + 10);
        CHECK(p[1] == (parts[size_t(l)] - '0') * 40 + 10);
      }
      CHECK(clip[size_t(k)].rgb[size_t(column * 4 + 4) * 3 + 2] == 255);  // beside the bar: the white ground
    }
  }
  // An uneven sheet is refused.
  fs::copy_file(t / "out/" + d.names()[0], t / "sheets/hair/3.png", fs::copy_options::overwrite_existing);
  const Finished uneven = run_program("sample_clips", {"sprites", t / "sheets", t / "out2"});
  CHECK(uneven.code == 2);
  CHECK(contains(uneven.err, "832x1344"));
}
