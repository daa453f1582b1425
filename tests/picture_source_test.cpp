// Where a run's pictures come from: a set in a file gives the very numbers of one in memory, and takes no memory.
#include "engine/picture_source.h"

#include <algorithm>
#include <filesystem>

#include "engine/dataset.h"
#include "engine/error.h"
#include "engine/swd.h"
#include "tests/picture_fixtures.h"
#include "tests/support.h"
#include "tests/training_runs.h"

using namespace kiln;
using namespace kiln::test;
namespace fs = std::filesystem;

namespace {

DatasetOptions options(const std::string& folder, const fs::path& cache, uint64_t max_bytes) {
  DatasetOptions o;
  o.folder = folder;
  o.size = 20;
  o.cache_folder = cache;
  o.max_bytes = max_bytes;
  return o;
}

std::shared_ptr<const Dataset> open_set(const DatasetOptions& o) { return std::make_shared<const Dataset>(o); }

}  // namespace

TEST_CASE("picture source: every epoch shows every picture once, and a step's pictures depend on the step alone") {
  BatchOrder order(3, 10, 4);
  std::vector<int32_t> shown;
  for (int64_t step = 0; step < 10; step++)
    for (int32_t i : order.indices(step)) shown.push_back(i);
  for (int epoch = 0; epoch < 4; epoch++) {
    std::vector<int32_t> one(shown.begin() + epoch * 10, shown.begin() + epoch * 10 + 10);
    std::sort(one.begin(), one.end());
    for (int32_t i = 0; i < 10; i++) CHECK(one[size_t(i)] == i);
  }
  for (int64_t step : {7, 2, 0, 9}) {
    BatchOrder fresh(3, 10, 4);
    CHECK(fresh.indices(step) == std::vector<int32_t>(shown.begin() + step * 4, shown.begin() + step * 4 + 4));
  }
  CHECK(BatchOrder(4, 10, 4).indices(0) != BatchOrder(3, 10, 4).indices(0));
}

TEST_CASE("picture source: a set in a file gives the same batches as one in memory, bit for bit, from any step") {
  const Fixture fixture;
  const TempFolder t;
  const std::string faces = draw_faces(t, 11, 24);
  const auto memory = open_set(options(faces, t / "cache", 1 << 30)), file = open_set(options(faces, t / "cache", 5000));
  REQUIRE(memory->in_memory());
  REQUIRE(!file->in_memory());
  CHECK(memory->fingerprint() == file->fingerprint());
  PictureSource a(memory, 5, 4), b(file, 5, 4);
  const Tensor flips = tensor_of(Shape{2, 1}, {0.2f, 0.7f}), uniforms = tensor_of(Shape{2, 7}, hashed_uniform("u", 14));
  for (int64_t step : {0, 1, 2, 3, 4, 5, 6, 7, 30, 31, 2, 3}) {
    a.start(step);
    b.start(step);
    for (const AugmentPolicy& p : {AugmentPolicy{}, AugmentPolicy{false, false, false}})
      for (int64_t first : {0, 2}) CHECK(a.gather(first, 2, flips, 0.5f, p, uniforms).to_vector() == b.gather(first, 2, flips, 0.5f, p, uniforms).to_vector());
  }
  CHECK(a.pictures({3, 0, 3}).to_vector() == b.pictures({3, 0, 3}).to_vector());

  SUBCASE("the file fails while it is used") {
    for (const auto& e : fs::directory_iterator(t / "cache")) fs::resize_file(e.path(), 100);
    std::string error;
    for (int64_t step = 4; step < 20 && error.empty(); step++) error = error_of([&] { b.start(step); });
    CHECK(contains(error, t / "cache"));
    CHECK(contains(error, "cut short"));
  }
}

TEST_CASE("picture source: the distance's reference reads pictures one by one, and is the same") {
  const int64_t n = 150, side = 32;
  std::vector<uint8_t> all(size_t(n * side * side * 3));
  for (size_t i = 0; i < all.size(); i++) all[i] = uint8_t(i * 2654435761u >> 11);
  SwdOptions o;
  o.directions = 8;
  o.patches_per_image = 8;
  const size_t bytes = size_t(side * side * 3);
  const PictureReader reader = [&](int64_t i, uint8_t* to) { std::copy_n(all.data() + size_t(i) * bytes, bytes, to); };
  const SwdReference a(all.data(), n, int(side), int(side), o), b(reader, n, int(side), int(side), o);
  CHECK(a.baseline().per_level == b.baseline().per_level);
  CHECK(a.compare(all.data(), n).per_level == b.compare(reader, n).per_level);
  CHECK_THROWS_AS(SwdReference([](int64_t, uint8_t*) { fail("no"); }, n, int(side), int(side), o), Error);
}

TEST_CASE("fastgan_train: a set that does not fit in memory streams: the same run, byte for byte, in bounded memory") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 40, 32);
  const std::vector<std::string> environment{"XDG_CACHE_HOME=" + (t / "cache")};
  const auto train = [&](const std::string& data, const std::string& out, std::vector<std::string> more) {
    std::vector<std::string> a = tiny(data, t / out, std::move(more));
    std::erase(a, "--no-cache");
    const Finished f = run_program("fastgan_train", a, ".", environment);
    CAPTURE(f.err);
    REQUIRE(f.code == 0);
    return f;
  };
  train(faces, "memory", {"--steps", "12"});
  CHECK(train(faces, "file", {"--steps", "7", "--picture-memory", "0.00004"}).out.find("stream from the disk") != std::string::npos);
  train(faces, "file", {"--steps", "12", "--picture-memory", "0.00004", "--resume"});
  for (const char* name : {"checkpoints/000012.safetensors", "samples/000010.png", "samples/000010_recon.png", "samples/real.png"}) {
    CAPTURE(name);
    CHECK(file_text(t / ("memory/" + std::string(name))) == file_text(t / ("file/" + std::string(name))));
  }
  CHECK(timeless_log(t / "memory") == timeless_log(t / "file"));
  refuses(tiny(faces, t / "no", {"--picture-memory", "0.00004"}), {faces, "40 picture", "--no-cache", "--picture-memory"});

  // 1,200 pictures of 48 KiB, from one that is linked: 56 MiB, where 8 are allowed.
  fs::create_directories(t / "many");
  for (int i = 0; i < 1200; i++) fs::create_symlink(faces + "/face100.png", t / ("many/" + std::to_string(i) + ".png"));
  const std::vector<std::string> big{"--size", "128", "--ngf", "2", "--ndf", "2", "--batch", "2", "--steps", "4", "--metric-every", "0"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), big.begin(), big.end());
    return more;
  };
  const int few = megabytes_in_all(train(faces, "few", with({})));
  for (const std::string out : {"decoded", "cached"}) {
    const int streamed = megabytes_in_all(train(t / "many", out, with({"--picture-memory", "0.0078"})));
    MESSAGE(out << ": " << streamed << " MB; with 40 pictures " << few << " MB");
    CHECK(streamed < few + 8);
  }
  CHECK(megabytes_in_all(train(t / "many", "kept", with({}))) > few + 45);
}
