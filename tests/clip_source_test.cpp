// Which windows a step shows, on memory and on a file, for one rank and for several.
#include "engine/clip_source.h"

#include <algorithm>
#include <set>

#include "engine/error.h"
#include "tests/clip_fixtures.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::test;
using fixtures::clip_frame;

namespace {

/// Five clips of 6 to 14 frames in two classes.
struct Clips {
  fixtures::TempFolder folder, cache;
  Clips() {
    for (int i = 0; i < 5; i++) fixtures::write_frames(folder / (i < 2 ? "left" : "right") / std::to_string(i), i, 6 + 2 * i);
  }
  std::shared_ptr<const ClipDataset> open(int frames, int stride, uint64_t max_bytes = 1 << 30) const {
    ClipDatasetOptions o = fixtures::clip_options(folder.path, frames, 24);
    o.stride = stride;
    o.classes = true;
    o.cache_folder = cache.path;
    o.max_bytes = max_bytes;
    return std::make_shared<const ClipDataset>(o);
  }
};

}  // namespace

TEST_CASE("clip source: an epoch shows every clip once, at any first frame that fits; a step depends on the step alone") {
  const Clips clips;
  const auto data = clips.open(3, 2);
  ClipOrder order(*data, 3, 5, data->span());
  std::set<int64_t> firsts[5];
  for (int64_t step = 0; step < 300; step++) {
    std::set<int32_t> shown;
    for (const auto& [clip, first] : order.windows(step)) {
      shown.insert(clip);
      firsts[clip].insert(first);
    }
    CHECK(shown.size() == 5);
  }
  for (int i = 0; i < 5; i++) {  // 6 + 2 i frames, a span of 5
    CHECK(firsts[i].size() == size_t(2 + 2 * i));
    CHECK(*firsts[i].rbegin() == 1 + 2 * i);
  }
  ClipOrder fresh(*data, 3, 5, data->span()), other(*data, 4, 5, data->span());
  CHECK(fresh.windows(250) == order.windows(250));
  CHECK(other.windows(250) != order.windows(250));
}

TEST_CASE("clip source: ranks' shares are the whole batch") {
  const Clips clips;
  const auto data = clips.open(3, 1);
  for (int parts : {1, 2}) {
    ClipOrder whole(*data, 7, 8, data->span());
    for (int64_t step : {0, 5}) {
      const std::vector<ClipOrder::Window> all = whole.windows(step);
      for (int rank = 0; rank < 2; rank++) {
        const BatchShare share{rank, 2, parts};
        ClipOrder order(*data, 7, 8, data->span(), share);
        const std::vector<ClipOrder::Window> mine = order.windows(step);
        REQUIRE(mine.size() == 4);
        for (size_t i = 0; i < 4; i++) CHECK(mine[i] == all[size_t(share.place(int64_t(i), 8))]);
      }
    }
  }
}

TEST_CASE("clip source: clips on [-1, 1], every frame in its place, a clip mirrored as a whole, with its class") {
  const Fixture fixture;
  const Clips clips;
  const auto data = clips.open(3, 2);
  ClipSource source(data, 5, 4, 3);
  ClipOrder order(*data, 5, 4, data->span());
  const Tensor flips = tensor_of(Shape{2, 1}, {0.2f, 0.7f});
  for (int64_t step : {0, 3}) {
    source.start(step);
    const std::vector<ClipOrder::Window> windows = order.windows(step);
    for (int64_t first : {0, 2}) {
      const Tensor x = source.gather(first, 2, flips, 0.5f), labels = source.labels(first, 2);
      REQUIRE(x.shape() == Shape{2, 3, 24, 24, 3});
      std::vector<int32_t> l(2);
      labels.download(l.data());
      const std::vector<float> v = x.to_vector();
      double worst = 0;
      for (int64_t i = 0; i < 2; i++) {
        const auto [clip, from] = windows[size_t(first + i)];
        CHECK(l[size_t(i)] == (clip < 2 ? 0 : 1));
        for (int64_t t = 0; t < 3; t++) {
          const Picture expected = clip_frame(clip, int(from + 2 * t));
          for (int64_t y = 0; y < 24; y++)
            for (int64_t c = 0; c < 24 * 3; c++) {
              const int64_t column = i == 0 ? (23 - c / 3) * 3 + c % 3 : c;
              const double e = expected.rgb[size_t(y * 72 + column)] * 2.0 / 255 - 1;
              worst = std::max(worst, std::abs(double(v[size_t(((i * 3 + t) * 24 + y) * 72 + c)]) - e));
            }
        }
      }
      CHECK(worst < 1e-6);
    }
  }
}

TEST_CASE("clip source: a set in a file gives the same batches as one in memory, bit for bit, from any step") {
  const Fixture fixture;
  const Clips clips;
  const auto memory = clips.open(3, 2), file = clips.open(3, 2, 5000);
  REQUIRE(memory->in_memory());
  REQUIRE(!file->in_memory());
  CHECK(memory->fingerprint() == file->fingerprint());
  ClipSource a(memory, 5, 4, 2), b(file, 5, 4, 2);  // windows shorter than the set's
  const Tensor flips = tensor_of(Shape{2, 1}, {0.2f, 0.7f});
  for (int64_t step : {0, 1, 2, 3, 30, 31, 2, 3}) {
    a.start(step);
    b.start(step);
    for (int64_t first : {0, 2}) {
      CHECK(a.gather(first, 2, flips, 0.5f).to_vector() == b.gather(first, 2, flips, 0.5f).to_vector());
      std::vector<int32_t> la(2), lb(2);
      a.labels(first, 2).download(la.data());
      b.labels(first, 2).download(lb.data());
      CHECK(la == lb);
    }
  }
  const std::vector<ClipOrder::Window> some{{4, 9}, {0, 0}};
  CHECK(a.clips(some).to_vector() == b.clips(some).to_vector());
  CHECK(a.clips(some).shape() == Shape{2, 2, 24, 24, 3});

  for (const auto& e : fixtures::fs::directory_iterator(clips.cache.path)) fixtures::fs::resize_file(e.path(), 100);
  std::string error;
  for (int64_t step = 4; step < 20 && error.empty(); step++) error = error_of([&] { b.start(step); });
  CHECK(contains(error, "cut short"));
}

TEST_CASE("clip source: storage of half width holds what rounding leaves") {
  Context context{test_device()};
  context.storage = DType::bf16;
  const UseContext use(context);
  const Clips clips;
  ClipSource source(clips.open(3, 1), 5, 4, 3);
  source.start(0);
  const Tensor x = source.gather(0, 4, zeros(Shape{4, 1}), 0.f);
  CHECK(x.dtype() == DType::bf16);
  Context plain{test_device()};
  std::vector<float> exact;
  {
    const UseContext inner(plain);
    ClipSource again(clips.open(3, 1), 5, 4, 3);
    again.start(0);
    exact = again.gather(0, 4, zeros(Shape{4, 1}), 0.f).to_vector();
  }
  CHECK(relative_error(x.to_vector(), exact) < 0.005);
}
