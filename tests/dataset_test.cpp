#include "engine/dataset.h"

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <stdexcept>

#include "engine/error.h"
#include "tests/picture_fixtures.h"

using namespace kiln;
using namespace fixtures;

namespace {

DatasetOptions options(const fs::path& folder, int size = 16) {
  DatasetOptions o;
  o.folder = folder;
  o.size = size;
  return o;
}

std::string error_of(const DatasetOptions& o) {
  try {
    const Dataset d(o);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

Bytes all_bytes(const Dataset& d) {
  Bytes bytes(d.count() * d.picture_bytes());
  for (size_t i = 0; i < d.count(); ++i) d.read(i, bytes.data() + i * d.picture_bytes());
  if (d.in_memory()) CHECK(bytes == Bytes(d.pixels(0), d.pixels(0) + bytes.size()));
  return bytes;
}

/// 12 sound pictures in three folders, all kinds of names and formats, and one or more of each kind of trouble.
void fill(const fs::path& folder, bool trouble) {
  write_file(folder / "b.png", encode_png(sample(40, 30, 1)));
  write_file(folder / "a.JPG", jpeg(sample(30, 40, 2)));
  write_file(folder / "B.jpeg", jpeg(sample(20, 20, 3)));
  write_file(folder / "sub/z.webp", webp(sample(33, 21, 4), -1));
  write_file(folder / "sub/deep/y.bmp", bmp(sample(16, 16, 5)));
  write_file(folder / "sub/deep/x.TGA", tga(sample(50, 16, 6)));
  for (int i = 0; i < 6; ++i)
    write_file(folder / "many" / (std::to_string(i) + ".png"), encode_png(sample(24, 24, 7 + i)));
  write_file(folder / ".hidden.png", encode_png(sample(9, 9)));
  write_file(folder / ".git/object.png", encode_png(sample(9, 9)));
  write_file(folder / "notes.txt", "not looked at");
  if (!trouble) return;
  write_file(folder / "c-empty.jpg", "");
  write_file(folder / "d-text.jpg", "a text with the name of a picture");
  Bytes cut = jpeg(sample(64, 64));
  cut.resize(cut.size() / 2);
  write_file(folder / "many/3-cut.jpg", cut);
  fs::create_symlink("nowhere.png", folder / "sub/link.png");
  if (mkfifo((folder / "sub/pipe.png").c_str(), 0600) != 0) std::abort();
}

constexpr const char* kNames[] = {"B.jpeg",     "a.JPG",          "b.png",          "many/0.png",
                                  "many/1.png", "many/2.png",     "many/3.png",     "many/4.png",
                                  "many/5.png", "sub/deep/x.TGA", "sub/deep/y.bmp", "sub/z.webp"};

}  // namespace

TEST_CASE("data set: finds the pictures, in the order of their paths, each as read_picture and fit_picture give it") {
  const TempFolder folder;
  fill(folder.path, false);
  for (Fit fit : {Fit::crop, Fit::squash, Fit::pad}) {
    DatasetOptions o = options(folder.path);
    o.fit = fit;
    o.background = {1, 2, 3};
    const Dataset d(o);
    REQUIRE(d.names() == std::vector<std::string>(std::begin(kNames), std::end(kNames)));
    CHECK(d.failures().empty());
    CHECK(d.picture_bytes() == 16 * 16 * 3);
    for (size_t i = 0; i < d.count(); ++i) {
      const Picture expected = fit_picture(read_picture(folder / d.names()[i], o.background), 16, fit, o.background);
      CHECK(Bytes(d.pixels(i), d.pixels(i) + d.picture_bytes()) == expected.rgb);
    }
  }
}

TEST_CASE("data set: broken pictures are named, counted and left out, whatever the number of threads") {
  const TempFolder folder, sound;
  fill(folder.path, true);
  fill(sound.path, false);
  const std::pair<const char*, const char*> expected[] = {{"c-empty.jpg", "the file is empty"},
                                                          {"d-text.jpg", "it is not a picture"},
                                                          {"many/3-cut.jpg", ""},
                                                          {"sub/link.png", "is a link to nothing"},
                                                          {"sub/pipe.png", "is a device or a pipe"}};
  const Bytes same_pictures = all_bytes(Dataset(options(sound.path)));
  for (int threads : {1, 3, 16}) {
    DatasetOptions o = options(folder.path);
    o.threads = threads;
    const Dataset d(o);
    CHECK(d.names() == std::vector<std::string>(std::begin(kNames), std::end(kNames)));
    REQUIRE(d.failures().size() == std::size(expected));
    for (size_t i = 0; i < std::size(expected); ++i) {
      CHECK(d.failures()[i].path == expected[i].first);
      CHECK(contains(d.failures()[i].reason, expected[i].second));
      CHECK(!d.failures()[i].reason.empty());
      CHECK(!contains(d.failures()[i].reason, folder.path.string()));
    }
    CHECK(all_bytes(d) == same_pictures);
  }
}

TEST_CASE("data set: strict names the first broken picture") {
  const TempFolder folder, cache;
  fill(folder.path, true);
  for (int threads : {1, 8}) {
    DatasetOptions o = options(folder.path);
    o.strict = true;
    o.threads = threads;
    CHECK(error_of(o).starts_with((folder / "c-empty.jpg").string() + ": the file is empty; "));
  }
  // Also when the failures come from a cache.
  fs::remove(folder / "sub/link.png");
  fs::remove(folder / "sub/pipe.png");
  DatasetOptions o = options(folder.path);
  o.cache_folder = cache.path;
  CHECK(Dataset(o).failures().size() == 3);
  REQUIRE(Dataset(o).from_cache());
  o.strict = true;
  CHECK(error_of(o).starts_with((folder / "c-empty.jpg").string()));
}

TEST_CASE("data set: nothing usable says what was looked for and what was found") {
  const TempFolder folder;
  CHECK(contains(error_of(options(folder / "none")), "none: cannot open: No such file"));
  std::string text = error_of(options(folder.path));
  CHECK(text.starts_with(folder.path.string() + ": no pictures here: looked for jpg, jpeg, png, bmp, tga and webp"));
  CHECK(contains(text, "it holds no files"));
  write_file(folder / "a.txt", "x");
  write_file(folder / "b.gif", "x");
  write_file(folder / "c.GIF", "x");
  write_file(folder / "Makefile", "x");
  CHECK(contains(error_of(options(folder.path)), "found only 4 other files (2 .gif, 1 .txt, 1 no extension)"));
  CHECK(contains(error_of(options(folder / "a.txt")), "is not a folder"));
  write_file(folder / "one.png", "x");
  text = error_of(options(folder.path));
  CHECK(contains(text, "none of the 1 picture files can be used; the first: one.png: it is not a picture"));
}

TEST_CASE("data set: links are followed, loops end") {
  const TempFolder folder, other;
  write_file(folder / "a/1.png", encode_png(sample(8, 8)));
  write_file(other / "2.png", encode_png(sample(8, 8)));
  fs::create_directory_symlink(folder.path, folder / "a/up");
  fs::create_directory_symlink(other.path, folder / "b");
  fs::create_directory_symlink(folder / "a", other / "back");
  fs::create_symlink(other / "2.png", folder / "c.png");
  CHECK(Dataset(options(folder.path)).names() == std::vector<std::string>{"a/1.png", "b/2.png", "c.png"});
}

TEST_CASE("data set: the cache gives the same bytes, and notices every change") {
  const TempFolder folder, cache;
  fill(folder.path, false);
  write_file(folder / "c-empty.jpg", "");
  DatasetOptions o = options(folder.path);
  const Dataset plain(o);
  o.cache_folder = cache / "made/when/needed";
  const auto same = [&](bool from_cache) {
    const Dataset d(o);
    CHECK(d.from_cache() == from_cache);
    CHECK(d.names() == plain.names());
    CHECK(all_bytes(d) == all_bytes(plain));
    CHECK(d.fingerprint() == plain.fingerprint());
    REQUIRE(d.failures().size() == 1);
    CHECK(d.failures()[0].path == "c-empty.jpg");
    CHECK(d.failures()[0].reason == "the file is empty");
  };
  same(false);
  same(true);

  SUBCASE("options") {
    o.size = 17;
    CHECK(!Dataset(o).from_cache());
    o.size = 16, o.fit = Fit::pad;
    CHECK(!Dataset(o).from_cache());
    o.background = {0, 0, 0};
    CHECK(!Dataset(o).from_cache());
  }
  SUBCASE("a picture added") {
    write_file(folder / "new.png", encode_png(sample(8, 8)));
    const Dataset d(o);
    CHECK(!d.from_cache());
    CHECK(d.count() == plain.count() + 1);
    CHECK(Dataset(o).from_cache());
  }
  SUBCASE("a picture removed") {
    fs::remove(folder / "b.png");
    CHECK(!Dataset(o).from_cache());
  }
  SUBCASE("a picture renamed") {
    fs::rename(folder / "b.png", folder / "bb.png");
    CHECK(!Dataset(o).from_cache());
  }
  SUBCASE("a picture changed in place, to the same length") {
    const auto time = fs::last_write_time(folder / "sub/deep/y.bmp");
    write_file(folder / "sub/deep/y.bmp", bmp(sample(16, 16, 40)));
    fs::last_write_time(folder / "sub/deep/y.bmp", time + std::chrono::nanoseconds(1));
    const Dataset d(o);
    CHECK(!d.from_cache());
    CHECK(d.fingerprint() != plain.fingerprint());
  }
  SUBCASE("damage anywhere in the cache is noticed, and the cache made again") {
    const fs::path file = fs::directory_iterator(o.cache_folder)->path();
    const Bytes good = read_all(file);
    for (size_t at = 0; at < good.size(); at += 97) {
      Bytes bad = good;
      bad[at] ^= 1;
      write_file(file, bad);
      CHECK(!Dataset(o).from_cache());
    }
    for (size_t size : {size_t{0}, size_t{1}, size_t{47}, good.size() / 2, good.size() - 1}) {
      write_file(file, Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size)));
      same(false);
      same(true);
    }
    Bytes longer = good;
    longer.push_back(0);
    write_file(file, longer);
    same(false);
    CHECK(read_all(file) == good);
  }
}

TEST_CASE("data set: what failed for a reason outside of the file is not remembered") {
  const TempFolder folder, cache;
  fill(folder.path, false);
  fs::create_symlink("late.png", folder / "link.png");
  DatasetOptions o = options(folder.path);
  o.cache_folder = cache.path;
  for (int i = 0; i < 2; ++i) CHECK(!Dataset(o).from_cache());
  CHECK(Dataset(o).failures().size() == 1);
}

TEST_CASE("data set: a cache that cannot be written is no error") {
  const TempFolder folder;
  fill(folder.path, false);
  DatasetOptions o = options(folder.path);
  write_file(folder / "file", "x");
  o.cache_folder = folder / "file" / "below";  // not even root can make a folder in a file
  for (int i = 0; i < 2; ++i) {
    const Dataset d(o);
    CHECK(d.count() == 12);
    CHECK(!d.from_cache());
  }
}

TEST_CASE("data set: more than fits in memory lives in the cache folder") {
  const TempFolder folder, cache;
  fill(folder.path, true);
  DatasetOptions o = options(folder.path);
  const Dataset plain(o);
  o.max_bytes = 5000;
  CHECK(contains(error_of(o), "more than the 4.88 KiB that they may take in memory; allow the cache"));
  o.cache_folder = cache.path;
  for (int i = 0; i < 2; ++i) {
    const Dataset d(o);
    CHECK(!d.in_memory());
    CHECK(!d.from_cache());  // the dangling link and the pipe keep it from being remembered
    CHECK(all_bytes(d) == all_bytes(plain));
    CHECK(fs::is_empty(cache.path));
  }
  fs::remove(folder / "sub/link.png");
  fs::remove(folder / "sub/pipe.png");
  for (int i = 0; i < 2; ++i) {
    const Dataset d(o);
    CHECK(d.from_cache() == (i == 1));
    CHECK(!d.in_memory());
    CHECK(d.fingerprint() == plain.fingerprint());
    CHECK(all_bytes(d) == all_bytes(plain));
    CHECK(d.failures().size() == 3);
  }
  // No disk space: an Error before anything is decoded.
  fs::remove_all(cache.path);
  rlimit old_limit;
  getrlimit(RLIMIT_FSIZE, &old_limit);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit = old_limit;
  limit.rlim_cur = 4096;
  setrlimit(RLIMIT_FSIZE, &limit);
  const std::string text = error_of(o);
  setrlimit(RLIMIT_FSIZE, &old_limit);
  std::signal(SIGXFSZ, old_handler);
  CHECK(text.starts_with(cache.path.string()));
  CHECK(contains(text, "cannot write: File too large (needs 11.2 KiB"));
}

TEST_CASE("data set: progress ends at the total, on the caller's thread, and may stop it") {
  const TempFolder folder;
  fill(folder.path, false);
  DatasetOptions o = options(folder.path);
  size_t last = 0, total = 0;
  o.progress = [&](size_t done, size_t all) {
    CHECK(done >= last);
    last = done, total = all;
  };
  const Dataset d(o);
  CHECK(last == 12);
  CHECK(total == 12);
  o.progress = [](size_t, size_t) { throw std::runtime_error("stop"); };
  CHECK_THROWS_AS(Dataset{o}, std::runtime_error);
}

TEST_CASE("data set: the fingerprint is of the bytes, not of the names") {
  const TempFolder a, b;
  for (const TempFolder* f : {&a, &b}) {
    for (int i = 0; i < 3; ++i) {
      write_file(*f / ((f == &a ? "x" : "other") + std::to_string(i) + ".png"), encode_png(sample(16, 16, i * 9)));
    }
  }
  const uint64_t first = Dataset(options(a.path)).fingerprint();
  CHECK(Dataset(options(b.path)).fingerprint() == first);
  CHECK(Dataset(options(b.path, 15)).fingerprint() != first);
  write_file(b / "other1.png", encode_png(sample(16, 16, 10)));
  CHECK(Dataset(options(b.path)).fingerprint() != first);
}

TEST_CASE("data set: the usual cache folder") {
  const char *xdg = std::getenv("XDG_CACHE_HOME"), *home = std::getenv("HOME");
  const std::string old_xdg = xdg != nullptr ? xdg : "", old_home = home != nullptr ? home : "";
  setenv("XDG_CACHE_HOME", "/x", 1);
  CHECK(default_cache_folder() == "/x/kiln");
  unsetenv("XDG_CACHE_HOME");
  setenv("HOME", "/h", 1);
  CHECK(default_cache_folder() == "/h/.cache/kiln");
  unsetenv("HOME");
  CHECK(default_cache_folder().empty());
  if (xdg != nullptr) setenv("XDG_CACHE_HOME", old_xdg.c_str(), 1);
  if (home != nullptr) setenv("HOME", old_home.c_str(), 1);
}
