// Numbers about clips: against their definitions, and whether they see what they should.
#include "engine/clip_metrics.h"

#include <cmath>

#include "engine/clip_grid.h"
#include "engine/error.h"
#include "engine/moving_shapes.h"
#include "tests/clip_fixtures.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::test;

namespace {

/// Moving shapes as bytes, the numbers first, first + 1, ...; `still`: every clip is its first frame throughout.
struct Shapes {
  std::vector<uint8_t> bytes;
  int64_t count;
  int frames, size;
  Shapes(int64_t n, int64_t first, int t, int side, bool still = false) : count(n), frames(t), size(side) {
    for (int64_t i = 0; i < n; i++) {
      const PictureClip clip = moving_shape(3, first + i, int(i % 2), t, side);
      for (int k = 0; k < t; k++) bytes.insert(bytes.end(), clip[still ? 0 : size_t(k)].rgb.begin(), clip[still ? 0 : size_t(k)].rgb.end());
    }
  }
  ClipBytes clips() const { return clips_in_memory(bytes.data(), count, frames, size, size); }
};

ClipSwdOptions few() {
  ClipSwdOptions o;
  o.swd.directions = 64;
  o.swd.patches_per_image = 32;
  return o;
}

}  // namespace

TEST_CASE("clip metrics: motion energy and diversities are what they are defined as") {
  const Fixture fixture;
  // Two clips of three frames of one pixel.
  const std::vector<float> v{0.0f, 0.5f, -0.5f, 0.5f, 0.0f, 0.5f, -1.0f, 1.0f, 0.0f,   // clip 0
                             0.2f, 0.2f, 0.2f, 0.2f, 0.2f, 0.2f, 0.2f, 0.2f, 0.2f};  // clip 1: a still
  const ClipMotion m = clip_motion(tensor_of(Shape{2, 3, 1, 1, 3}, v));
  // Steps of clip 0: 0.5, 0.5, 1 and 1.5, 1, 0.5: their mean is 5 / 6.
  CHECK(m.energy == doctest::Approx(5.0 / 6 / 2));
  const double means[3] = {-0.5 / 3, 0.5, 0.0};
  double apart = 0, between = 0;
  for (int t = 0; t < 3; t++)
    for (int c = 0; c < 3; c++) apart += std::pow(double(v[size_t(t * 3 + c)]) - means[c], 2);
  CHECK(m.frame_diversity == doctest::Approx(std::sqrt(apart / 9) / 2).epsilon(1e-5));
  for (int c = 0; c < 3; c++) between += std::pow((means[c] - 0.2) / 2, 2);
  CHECK(m.clip_diversity == doctest::Approx(std::sqrt(between / 3)).epsilon(1e-5));

  const Shapes moving(20, 0, 8, 24), still(20, 0, 8, 24, true);
  const ClipMotion a = clip_motion(moving.clips()), b = clip_motion(still.clips());
  CHECK(a.energy > 0.02);
  CHECK(a.frame_diversity > 0.05);
  CHECK(b.energy == 0);
  CHECK(b.frame_diversity < 1e-6);
  CHECK(b.clip_diversity > a.clip_diversity);  // a mean of moving frames is smeared
  std::vector<float> scaled;
  for (uint8_t byte : moving.bytes) scaled.push_back(float(byte / 127.5 - 1));
  CHECK(clip_motion(tensor_of(Shape{20, 8, 24, 24, 3}, scaled)).energy == doctest::Approx(a.energy).epsilon(1e-5));
}

TEST_CASE("clip metrics: the distance sees stills in the motion, other shapes in the frames, and is at its floor for the same kind") {
  const Shapes real(96, 0, 8, 32), same(48, 1000, 8, 32), still(48, 1000, 8, 32, true);
  const ClipSwdReference reference(real.clips(), few());
  CHECK(reference.clips() <= 48);
  const ClipSwd good = reference.compare(same.clips()), stopped = reference.compare(still.clips()), floor = reference.baseline();
  MESSAGE("floor " << floor.frames.mean << " " << floor.steps.mean << " " << floor.spans.mean << "; same kind " << good.frames.mean << " " << good.steps.mean << " "
                   << good.spans.mean << "; stills " << stopped.frames.mean << " " << stopped.steps.mean << " " << stopped.spans.mean);
  CHECK(good.mean() < 2 * floor.mean());
  CHECK(stopped.steps.mean > 3 * good.steps.mean);
  CHECK(stopped.spans.mean > 3 * good.spans.mean);
  CHECK(stopped.frames.mean < 2 * good.frames.mean);
  // Noise instead of frames.
  Shapes noise = same;
  uint32_t state = 1;
  for (uint8_t& b : noise.bytes) b = uint8_t((state = state * 1664525u + 1013904223u) >> 24);
  CHECK(reference.compare(noise.clips()).frames.mean > 3 * good.frames.mean);
  CHECK(contains(reference.description(), "no network"));
  const Shapes longer(4, 0, 9, 32), one(40, 0, 1, 32);
  CHECK(contains(error_of([&] { reference.compare(longer.clips()); }), "9 frames"));
  CHECK(contains(error_of([&] { ClipSwdReference(one.clips(), few()); }), "no motion"));
}

TEST_CASE("clip metrics: nearest clips and coverage") {
  const Shapes real(40, 0, 6, 32), fresh(10, 500, 6, 32);
  const FeatureSet r = clip_descriptors(real.clips(), 8);
  REQUIRE(r.dimensions == 6 * 8 * 8 * 3);
  double sum = 0;  // the first number: the mean of a block of 4 x 4
  for (int y = 0; y < 4; y++)
    for (int x = 0; x < 4; x++) sum += real.bytes[size_t(y * 32 + x) * 3];
  CHECK(r.values[0] == doctest::Approx(sum / 16));
  FeatureSet copies = r.part(5, 10);  // ten real clips
  ClipCoverage c = clip_coverage(r, copies);
  for (int64_t i = 0; i < 10; i++) CHECK(c.index[size_t(i)] == 5 + i);
  CHECK(c.nearest < 1e-3);
  CHECK(c.coverage == doctest::Approx(0.25));
  CHECK(c.by_chance == doctest::Approx(1 - std::pow(1 - 1.0 / 40, 10)));
  c = clip_coverage(r, clip_descriptors(fresh.clips(), 8));
  CHECK(c.nearest > 3);
  CHECK(c.nearest < 2 * c.real_nearest);
  copies.values.assign(copies.values.size(), 0.f);  // collapse: all alike
  c = clip_coverage(r, copies);
  CHECK(c.coverage == doctest::Approx(1.0 / 40));
}

TEST_CASE("clip metrics: windows of a data set, evenly spread") {
  const fixtures::TempFolder t;
  fixtures::write_frames(t / "a", 1, 12);
  fixtures::write_frames(t / "b", 2, 5);
  ClipDatasetOptions o = fixtures::clip_options(t.path, 3, 24);
  o.stride = 2;
  const ClipDataset d(o);
  const ClipBytes w = clip_windows(d, 4);
  REQUIRE(w.count == 5);  // a: 0, 2, 4, 7; b has one window
  const std::pair<int, int> expected[] = {{1, 0}, {2, 0}, {1, 2}, {1, 4}, {1, 7}};
  std::vector<uint8_t> bytes(w.bytes());
  for (int64_t i = 0; i < w.count; i++) {
    w.read(i, bytes.data());
    for (int k = 0; k < 3; k++) {
      const Picture p = fixtures::clip_frame(expected[i].first, expected[i].second + 2 * k);
      CHECK(std::equal(p.rgb.begin(), p.rgb.end(), bytes.begin() + std::ptrdiff_t(size_t(k) * p.rgb.size())));
    }
  }
}

TEST_CASE("clip grid: sheets, strips and videos show every clip in its place") {
  const Fixture fixture;
  const fixtures::TempFolder t;
  std::vector<PictureClip> clips;
  for (int i = 0; i < 3; i++) {
    clips.emplace_back();
    for (int k = 0; k < 4 + i; k++) clips.back().push_back(fixtures::clip_frame(i, k, 10, 8));
  }
  ClipGridOptions o;
  o.columns = 2;
  o.scale = 2;
  write_clip_grid(t / "grid", clips, o);  // frames
  for (int k = 0; k < 6; k++) {
    const Picture p = read_picture(t / fmt::format("grid/{:06}.png", k));
    CHECK(p.width == 2 * 20 + 3 * 2);
    CHECK(p.height == 2 * 16 + 3 * 2);
    const uint8_t* second = &p.rgb[size_t((2 * p.width) + 2 + 20 + 2) * 3];  // first pixel of clip 1, which has 5 frames
    CHECK(second[0] == std::min(k, 4) * 4);
    CHECK(second[1] == 9);
    CHECK(second[3] == second[0]);  // twice as large
  }
  CHECK(!fixtures::fs::exists(t / "grid/000006.png"));
  const Picture sheet = clip_sheet(clips);
  CHECK(sheet.width == 6 * 12 + 2);
  CHECK(sheet.height == 3 * 10 + 2);
  CHECK(sheet.rgb[size_t((2 * sheet.width) + 2 + 12) * 3] == 4);  // clip 0, frame 1
  CHECK(clip_sheet(clips, 3).rgb[size_t((2 * (3 * 12 + 2)) + 2 + 2 * 12) * 3] == 12);  // clip 0, its last frame
  const Picture strip = clip_strip(clips[1]);
  CHECK(strip.width == 50);
  CHECK(strip.rgb[size_t(3 * 50 + 40) * 3] == 16);
  std::vector<float> v;
  for (int i = 0; i < 2 * 3 * 2 * 2 * 3; i++) v.push_back(float(i / 12) / 127.5f - 1);
  const std::vector<PictureClip> back = to_picture_clips(tensor_of(Shape{2, 3, 2, 2, 3}, v));
  REQUIRE(back.size() == 2);
  CHECK(back[1][2].rgb == std::vector<uint8_t>(12, 5));
  if (!video_compiled_in()) return;
  write_clip_grid(t / "grid.gif", clips, o);
  write_clip_grid(t / "grid.mp4", clips, o);
  CHECK(fixtures::fs::file_size(t / "grid.gif") > 100);
}

TEST_CASE("moving shapes: every motion moves as its name says, stays inside, and is the number's own") {
  for (int motion = 0; motion < 4; motion++) {
    CAPTURE(shape_motions()[size_t(motion)]);
    double across = 0, along = 0;
    for (int64_t i = 0; i < 10; i++) {
      const PictureClip clip = moving_shape(1, i, motion, 12, 32);
      CHECK(clip[5].rgb == moving_shape(1, i, motion, 12, 32)[5].rgb);
      CHECK(clip[5].rgb != moving_shape(2, i, motion, 12, 32)[5].rgb);
      double px = 0, py = 0;
      for (size_t t = 0; t < clip.size(); t++) {
        double x = 0, y = 0, n = 0;
        for (int k = 0; k < 32 * 32; k++) {
          const uint8_t* p = &clip[t].rgb[size_t(k) * 3];
          const double w = std::max({p[0], p[1], p[2]}) - 20;
          x += w * (k % 32), y += w * (k / 32), n += w;
        }
        REQUIRE(n > 0);
        x /= n, y /= n;
        CHECK(x > 3);
        CHECK(x < 29);
        CHECK(y > 3);
        CHECK(y < 29);
        if (t > 0) across += std::abs(x - px), along += std::abs(y - py);
        px = x, py = y;
      }
    }
    if (motion == 0) CHECK(along < 0.02 * across);
    if (motion == 1) CHECK(across < 0.02 * along);
    if (motion >= 2) CHECK(std::abs(across - along) < 0.35 * across);
  }
}
