// Clips from folders of frames, strips and videos: what is found, in which order, what is left out and why, and the cache.
#include "engine/clip_dataset.h"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <stdexcept>

#include "engine/error.h"
#include "tests/clip_fixtures.h"

using namespace kiln;
using namespace fixtures;

namespace {

std::string error_of(const ClipDatasetOptions& o) {
  try {
    const ClipDataset d(o);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

using Names = std::vector<std::string>;

/// Clips of each kind that every build reads, some of them unusable.
void fill(const fs::path& folder) {
  write_frames(folder / "b", 1, 12);
  write_frames(folder / "a/deep", 2, 10);
  write_frames(folder / "short", 3, 3);
  write_file(folder / "strips/one.png", encode_png(strip(4, 8)));
  write_file(folder / "strips/two.png", encode_png(strip(5, 9)));
  write_file(folder / "strips/wide.png", encode_png(sample(50, 24)));
  write_frames(folder / "broken", 6, 9);
  Bytes cut = encode_png(clip_frame(6, 4));
  cut.resize(cut.size() / 2);
  write_file(folder / "broken/5.png", cut);
  write_frames(folder / "mixed", 7, 9);
  write_file(folder / "mixed/3.png", encode_png(clip_frame(7, 2, 30, 24)));
  write_file(folder / "notes.txt", "not looked at");
  write_frames(folder / ".hidden", 1, 9);
}

const Names kNames{"a/deep", "b", "strips/one.png", "strips/two.png"};

}  // namespace

TEST_CASE("clips: folders of frames and strips are found, in the order of their paths, frames in the order of their numbers") {
  const TempFolder folder;
  fill(folder.path);
  const ClipDataset d(clip_options(folder.path, 8));
  REQUIRE(d.names() == kNames);
  const int numbers[] = {2, 1, 4, 5}, lengths[] = {10, 12, 8, 9};
  for (size_t i = 0; i < d.count(); ++i) {
    CHECK(d.frames_of(i) == lengths[i]);
    const std::vector<Picture> frames = d.pictures(i, 0, lengths[i], 1);
    for (int k = 0; k < lengths[i]; ++k) CHECK(difference(frames[size_t(k)], fit_picture(clip_frame(numbers[i], k), 16, Fit::crop)) == 0);
    CHECK(d.fps_of(i) == 0);
  }
  CHECK(d.total_frames() == 39);
  CHECK(d.windows() == 3 + 5 + 1 + 2);
  CHECK(d.description() == "4 clips, 39 frames (8 to 12 a clip), 11 windows of 8; left out: 4");
  CHECK(d.labels() == std::vector<int32_t>(4, 0));
  // Every third frame from the second.
  Bytes some(3 * d.frame_bytes()), one(d.frame_bytes());
  d.read(1, 1, 3, 3, some.data());
  for (int k = 0; k < 3; ++k) {
    d.read(1, 1 + 3 * k, 1, 1, one.data());
    CHECK(std::equal(one.begin(), one.end(), some.begin() + std::ptrdiff_t(size_t(k) * one.size())));
  }
}

TEST_CASE("clips: what is broken or too short is left out with the reason, whatever the number of threads; strict names the first") {
  const TempFolder folder;
  fill(folder.path);
  const std::pair<const char*, const char*> expected[] = {{"broken", "its frame 5.png: "},
                                                          {"mixed", "its frame 3.png: is 30x24 pixels, the first one 24x24"},
                                                          {"short", "it has 3 frames, 8 are needed (--frames)"},
                                                          {"strips/wide.png", "no strip"}};
  Bytes first;
  for (int threads : {1, 3, 16}) {
    ClipDatasetOptions o = clip_options(folder.path, 8);
    o.threads = threads;
    const ClipDataset d(o);
    CHECK(d.names() == kNames);
    REQUIRE(d.failures().size() == std::size(expected));
    for (size_t i = 0; i < std::size(expected); ++i) {
      CHECK(d.failures()[i].path == expected[i].first);
      CHECK(contains(d.failures()[i].reason, expected[i].second));
      CHECK(!contains(d.failures()[i].reason, folder.path.string()));
    }
    if (first.empty()) first = all_frames(d);
    CHECK(all_frames(d) == first);
    o.strict = true;
    CHECK(error_of(o).starts_with((folder / "broken").string() + ": its frame 5.png"));
  }
}

TEST_CASE("clips: the shortest clip that can be used has exactly a window's frames") {
  const TempFolder folder;
  for (int n : {15, 16, 17}) write_frames(folder / std::to_string(n), n, n);
  CHECK(ClipDataset(clip_options(folder.path, 16)).names() == Names{"16", "17"});
  ClipDatasetOptions o = clip_options(folder.path, 6);
  o.stride = 3;  // 16 source frames
  const ClipDataset d(o);
  CHECK(d.names() == Names{"16", "17"});
  CHECK(d.span() == 16);
  CHECK(d.windows() == 3);
  CHECK(d.failures()[0].reason == "it has 15 frames, 16 are needed for 6, every 3 of them used (--frames, --stride)");
  CHECK(contains(d.description(), "3 windows of 6 frames, every 3 used"));
  CHECK(contains(error_of(clip_options(folder.path, 40)), "none of the 3 clips can be used; the first: 15: it has 15 frames, 40 are needed"));
  CHECK(ClipDataset(clip_options(folder.path, 1)).count() == 3);
}

TEST_CASE("clips: pictures side by side are strips by their shape, or as the option says") {
  const TempFolder folder;
  write_file(folder / "3.png", encode_png(strip(1, 3)));
  write_file(folder / "5.png", encode_png(strip(2, 3)));
  ClipDatasetOptions o = clip_options(folder.path, 2);
  CHECK(ClipDataset(o).names() == Names{"."});  // three times as wide as high: frames
  o.pictures = ClipPictures::strips;
  CHECK(ClipDataset(o).names() == Names{"3.png", "5.png"});
  write_file(folder / "1.png", encode_png(strip(0, 4)));
  o.pictures = ClipPictures::automatic;
  CHECK(ClipDataset(o).names() == Names{"1.png", "3.png", "5.png"});  // the first decides
  o.pictures = ClipPictures::frames;
  CHECK(contains(error_of(o), "its frame 3.png: is 72x24 pixels, the first one 96x24"));
  CHECK(clip_pictures_from_name("strips") == ClipPictures::strips);
  CHECK_THROWS_AS(clip_pictures_from_name("strip"), Error);
}

TEST_CASE("clips: classes are the first folders; a folder that holds pictures is a clip, no class") {
  const TempFolder folder;
  for (const char* name : {"walk/1", "walk/2", "jump/1"}) write_frames(folder / name, 1, 4);
  write_file(folder / "turn/a.png", encode_png(strip(2, 5)));
  ClipDatasetOptions o = clip_options(folder.path, 4);
  o.classes = true;
  const ClipDataset d(o);
  CHECK(d.names() == Names{"jump/1", "turn/a.png", "walk/1", "walk/2"});
  CHECK(d.classes().names == Names{"jump", "turn", "walk"});
  CHECK(d.labels() == std::vector<int32_t>{0, 1, 2, 2});
  CHECK(contains(d.classes().balance(), "times the clips of the smallest"));
  CHECK(std::find(d.notes().begin(), d.notes().end(), "class jump has one clip: the generator can only repeat it") != d.notes().end());
  write_frames(folder / "loose", 3, 4);
  CHECK(contains(error_of(o), "4 clips lie in 3 class folders and 1 in none, such as loose"));
  o.classes = false;
  CHECK(ClipDataset(o).classes().names.empty());
}

TEST_CASE("clips: nothing usable says what was looked for and what was found") {
  const TempFolder folder;
  CHECK(contains(error_of(clip_options(folder.path / "none", 4)), "none: cannot open: No such file"));
  CHECK(contains(error_of(clip_options(folder.path, 4)), "no clips here: looked for videos"));
  CHECK(contains(error_of(clip_options(folder.path, 4)), "it holds no files"));
  write_file(folder / "a.txt", "x");
  CHECK(contains(error_of(clip_options(folder.path, 4)), "found only 1 other files (1 .txt)"));
  CHECK(contains(error_of(clip_options(folder.path / "a.txt", 4)), "is not a folder"));
  write_file(folder / "a/1.png", "");
  CHECK(contains(error_of(clip_options(folder.path, 4)), "none of the 1 clips can be used; the first: a: its frame 1.png: the file is empty"));
  write_file(folder / "b.mp4", "no video");
  const std::string error = error_of(clip_options(folder.path, 4));
  CHECK(contains(error, "none of the 2 clips can be used"));
  fs::remove_all(folder / "a");
  CHECK(contains(error_of(clip_options(folder.path, 4)), video_compiled_in() ? "b.mp4: it is not a video" : "b.mp4: this kiln was built without FFmpeg"));
}

TEST_CASE("clips: links are followed, loops end, a link to nothing and a pipe are named") {
  const TempFolder folder;
  write_frames(folder / "a", 1, 5);
  fs::create_directory_symlink(folder / "a", folder / "same");
  fs::create_directory_symlink(folder.path, folder / "loop");
  write_frames(folder / "c", 2, 4);
  fs::create_symlink("nowhere.png", folder / "c/9.png");
  if (mkfifo((folder / "pipe.mkv").c_str(), 0600) != 0) std::abort();
  const ClipDataset d(clip_options(folder.path, 4));
  CHECK(d.names() == Names{"a"});
  REQUIRE(d.failures().size() == 2);
  CHECK(d.failures()[0].reason == "its frame 9.png is a link to nothing");
  CHECK(d.failures()[1].reason == "is a device or a pipe, not a file");
}

TEST_CASE("clips: videos beside frames, cropped and scaled like pictures" * doctest::skip(!video_compiled_in())) {
  const TempFolder folder;
  write_frames(folder / "b", 1, 6, 40, 24);
  write_video(folder / "a.mp4", 2, 7, 40, 24);
  write_video(folder / "c/d.GIF", 3, 5);
  fs::copy_file(folder / "a.mp4", folder / "e.MKV");  // the bytes decide
  Bytes cut = read_all(folder / "a.mp4");
  cut.resize(cut.size() * 2 / 3);
  write_file(folder / "f.mp4", cut);
  const ClipDataset d(clip_options(folder.path, 5));
  REQUIRE(d.names() == Names{"a.mp4", "b", "c/d.GIF", "e.MKV"});
  CHECK(d.failures()[0].path == "f.mp4");
  CHECK(d.frames_of(0) == 7);
  CHECK(d.fps_of(0) == doctest::Approx(10));
  for (int k = 0; k < 7; ++k) CHECK(difference(d.pictures(0, k, 1, 1)[0], fit_picture(clip_frame(2, k, 40, 24), 16, Fit::crop)) < 16);
}

TEST_CASE("clips: a cache is used while nothing changed, for any length; damage and change decode anew") {
  const TempFolder folder, cache;
  fill(folder.path);
  ClipDatasetOptions o = clip_options(folder.path, 8);
  o.cache_folder = cache.path;
  const ClipDataset fresh(o);
  CHECK(!fresh.from_cache());
  const ClipDataset cached(o);
  CHECK(cached.from_cache());
  CHECK(all_frames(cached) == all_frames(fresh));
  CHECK(cached.fingerprint() == fresh.fingerprint());
  REQUIRE(cached.failures().size() == fresh.failures().size());
  for (size_t i = 0; i < cached.failures().size(); ++i) CHECK(cached.failures()[i].reason == fresh.failures()[i].reason);

  ClipDatasetOptions shorter = o;
  shorter.frames = 3;
  const ClipDataset more(shorter);
  CHECK(more.from_cache());
  CHECK(more.names() == Names{"a/deep", "b", "short", "strips/one.png", "strips/two.png"});
  CHECK(more.fingerprint() != fresh.fingerprint());
  ClipDatasetOptions strict = o;
  strict.strict = true;
  CHECK(error_of(strict).starts_with((folder / "broken").string()));

  ClipDatasetOptions file = o;
  file.max_bytes = 5000;
  const ClipDataset on_disk(file);
  CHECK(on_disk.from_cache());
  CHECK(!on_disk.in_memory());
  CHECK(all_frames(on_disk) == all_frames(fresh));

  fs::path cache_file;
  for (const auto& e : fs::directory_iterator(cache.path)) cache_file = e.path();
  const Bytes whole = read_all(cache_file);
  for (size_t at : {size_t{100}, whole.size() / 2, whole.size() - 200, whole.size() - 9}) {
    Bytes damaged = whole;
    damaged[at] ^= 1;
    write_file(cache_file, damaged);
    const ClipDataset d(o);
    CHECK(!d.from_cache());
    CHECK(all_frames(d) == all_frames(fresh));
  }
  write_file(cache_file, Bytes(whole.begin(), whole.begin() + std::ptrdiff_t(whole.size() / 2)));
  CHECK(!ClipDataset(o).from_cache());
  CHECK(ClipDataset(o).from_cache());

  write_file(folder / "b/13.png", encode_png(clip_frame(1, 12)));
  const ClipDataset longer(o);
  CHECK(!longer.from_cache());
  CHECK(longer.frames_of(1) == 13);
  CHECK(longer.fingerprint() != fresh.fingerprint());
  o.size = 12;
  CHECK(!ClipDataset(o).from_cache());
}

TEST_CASE("clips: a set larger than its memory lies in a file, and gives the same frames; without a cache it is refused") {
  const TempFolder folder, cache;
  fill(folder.path);
  ClipDatasetOptions o = clip_options(folder.path, 8);
  const Bytes expected = all_frames(ClipDataset(o));
  o.max_bytes = 20 * 16 * 16 * 3;  // some clips enter memory first
  CHECK(contains(error_of(o), "more than the 15.0 KiB that they may take in memory; allow the cache"));
  o.cache_folder = cache.path / "made";
  for (int threads : {1, 4}) {
    fs::remove_all(o.cache_folder);
    o.threads = threads;
    const ClipDataset d(o);
    CHECK(!d.from_cache());
    CHECK(!d.in_memory());
    CHECK(all_frames(d) == expected);
    CHECK(ClipDataset(o).from_cache());
  }
}

TEST_CASE("clips: progress is told, and what it throws ends the whole") {
  const TempFolder folder;
  fill(folder.path);
  ClipDatasetOptions o = clip_options(folder.path, 8);
  size_t last = 0, all = 0;
  o.progress = [&](size_t done, size_t total) {
    CHECK(done >= last);
    last = done;
    all = total;
  };
  const ClipDataset d(o);
  CHECK(last == 8);
  CHECK(all == 8);
  o.progress = [](size_t, size_t) { throw std::runtime_error("enough"); };
  CHECK_THROWS_WITH(ClipDataset{o}, "enough");
}
