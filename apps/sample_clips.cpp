// sample_clips shapes OUT, sample_clips sprites SHEETS OUT: sets of short clips, in class folders, to try video networks on.
#include <CLI/CLI.hpp>
#include <array>
#include <cstdio>
#include <filesystem>
#include <map>

#include "apps/program.h"
#include "engine/clip_grid.h"
#include "engine/moving_shapes.h"
#include "engine/random.h"

using namespace kiln;
namespace fs = std::filesystem;

namespace {

// Where the parts of a Liberated Pixel Cup sheet of 13 x 21 cells lie: four rows an action, one a direction.
constexpr int kCell = 64, kSheetWidth = 13 * kCell, kSheetHeight = 21 * kCell, kFrames = 8, kChoices = 6;
struct Action {
  const char* name;
  int row, first, cells;  // first cell and number of cells that move; where there are fewer than kFrames, the last one is held
};
constexpr Action kActions[] = {{"walk", 8, 1, 8}, {"spellcast", 0, 0, 7}, {"slash", 12, 0, 6}};
struct Direction {
  const char* name;
  int row;
};
constexpr Direction kDirections[] = {{"front", 2}, {"left", 1}, {"right", 3}};
constexpr const char* kLayers[] = {"body", "bottomwear", "topwear", "hair"};  // from below
constexpr int kAllSprites = kChoices * kChoices * kChoices * kChoices * 9;

struct Flags {
  std::string out, sheets, as = "strips";
  int64_t count = 0, seed = 1;
  int frames = 16, size = 64, motions = 2;
  double fps = 8;
};

/// Writes clips as folders of frames, strips, GIF or MP4 below OUT/CLASS.
class ClipFolder {
 public:
  explicit ClipFolder(const Flags& f) : f_(f) {}

  void add(const std::string& label, const std::string& name, const PictureClip& clip) {
    const fs::path folder = fs::path(f_.out) / label;
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) fail("{}: cannot make this folder: {}; choose another one", folder.string(), error.message());
    if (f_.as == "strips") {
      write_png(folder / (name + ".png"), clip_strip(clip));
    } else {
      VideoOptions options;
      options.fps = f_.fps;
      VideoWriter writer(folder / (f_.as == "frames" ? name : name + "." + f_.as), clip[0].width, clip[0].height, options);
      for (const Picture& p : clip) writer.add(p);
      writer.finish();
    }
    clips_[label]++;
  }
  void tell(int frames, int size) const {
    std::string classes;
    int64_t all = 0;
    for (const auto& [label, n] : clips_) classes += fmt::format("{}{} {}", classes.empty() ? "" : ", ", label, n), all += n;
    fmt::print("{}: {} clips of {} frames, {}x{} pixels, as {}: {}\n", f_.out, all, frames, size, size, f_.as, classes);
  }

 private:
  const Flags& f_;
  std::map<std::string, int64_t> clips_;
};

void shapes(const Flags& f) {
  ClipFolder out(f);
  for (int64_t i = 0; i < f.count; i++) {
    const int motion = int(i % f.motions);
    out.add(shape_motions()[size_t(motion)], fmt::format("{:05}", i), moving_shape(uint64_t(f.seed), i, motion, f.frames, f.size));
  }
  out.tell(f.frames, f.size);
}

/// A sheet with its alpha, told from how it looks on black and on white: to lay over anything exactly.
struct Layer {
  Picture black, white;

  explicit Layer(const fs::path& path) : black(read_picture(path, {0, 0, 0})), white(read_picture(path, {255, 255, 255})) {
    if (black.width != kSheetWidth || black.height != kSheetHeight)
      fail("{}: is {}x{} pixels; a sheet of sprites has {}x{}: 13 columns and 21 rows of {} pixels", path.string(), black.width, black.height, kSheetWidth,
           kSheetHeight, kCell);
  }
  /// Lays the cell over the picture.
  void draw(int row, int column, Picture& over) const {
    for (int y = 0; y < kCell; y++)
      for (int x = 0; x < kCell * 3; x++) {
        const size_t from = size_t((row * kCell + y) * kSheetWidth + column * kCell) * 3 + size_t(x);
        uint8_t& to = over.rgb[size_t(y * kCell * 3 + x)];
        to = uint8_t(std::min(255, black.rgb[from] + (to * (white.rgb[from] - black.rgb[from]) + 127) / 255));
      }
  }
};

void sprites(const Flags& f) {
  if (!fs::is_directory(f.sheets)) fail("{}: not a folder; name the folder that holds body, bottomwear, topwear and hair", f.sheets);
  std::vector<std::vector<Layer>> layers;
  for (const char* layer : kLayers) {
    layers.emplace_back();
    for (int k = 0; k < kChoices; k++) {
      const fs::path path = fs::path(f.sheets) / layer / fmt::format("{}.png", k);
      if (!fs::exists(path))
        fail("{}: is missing; SHEETS must hold {{body,bottomwear,topwear,hair}}/{{0..5}}.png, sheets of the Liberated Pixel Cup's layout", path.string());
      layers.back().emplace_back(path);
    }
  }
  const int64_t wanted = f.count == 0 ? kAllSprites : std::min<int64_t>(f.count, kAllSprites);
  std::vector<int32_t> chosen = permutation(uint64_t(f.seed), "sprites", 0, kAllSprites);
  chosen.resize(size_t(wanted));
  std::sort(chosen.begin(), chosen.end());
  ClipFolder out(f);
  for (const int32_t number : chosen) {
    int rest = number;
    const auto take = [&rest](int n) {
      const int k = rest % n;
      rest /= n;
      return k;
    };
    const Action& action = kActions[take(3)];
    const Direction& direction = kDirections[take(3)];
    std::array<int, 4> parts{};
    for (int& p : parts) p = take(kChoices);
    PictureClip clip;
    for (int t = 0; t < kFrames; t++) {
      Picture p{kCell, kCell, std::vector<uint8_t>(size_t(kCell) * kCell * 3, 255)};
      for (size_t l = 0; l < parts.size(); l++) layers[l][size_t(parts[l])].draw(action.row + direction.row, action.first + std::min(t, action.cells - 1), p);
      clip.push_back(f.size == kCell ? std::move(p) : fit_picture(p, f.size, Fit::crop));
    }
    out.add(fmt::format("{}-{}", action.name, direction.name), fmt::format("{}{}{}{}", parts[0], parts[1], parts[2], parts[3]), clip);
  }
  out.tell(kFrames, f.size);
}

void check(const Flags& f) {
  if (f.as != "strips" && f.as != "frames") video_format("clip." + f.as);  // a build without FFmpeg says so here
  if (!fs::is_directory(f.out)) return;
  if (fs::directory_iterator(f.out) != fs::directory_iterator()) fail("{}: is not empty; name a new folder, so that two sets do not mix", f.out);
}

}  // namespace

int main(int argc, char** argv) {
  Flags f;
  bool make_shapes = false;
  return run_program(
      argc, argv, "sample_clips", "Makes a set of short clips in class folders, to try video networks on.",
      [&](CLI::App& app) {
        app.require_subcommand(1);
        CLI::App* s = app.add_subcommand("shapes", "coloured shapes that move, drawn here; the classes are ways to move");
        CLI::App* l = app.add_subcommand("sprites", "figures put together from sprite sheets of the Liberated Pixel Cup's layout: 6 bodies, 6 trousers, 6 "
                                                    "tops and 6 heads of hair that walk, cast and slash to the front, left and right: 9 classes, 11664 clips of 8 frames");
        s->add_option("OUT", f.out, "folder for the clips, new or empty")->required();
        l->add_option("SHEETS", f.sheets, "folder with body, bottomwear, topwear and hair, each with 0.png to 5.png")->required();
        l->add_option("OUT", f.out, "folder for the clips, new or empty")->required();
        CLI::Option* count = s->add_option("--count", f.count, "clips in all (default 400)")->check(CLI::Range(int64_t{1}, int64_t{10'000'000}));
        s->add_option("--frames", f.frames, "frames of a clip")->check(CLI::Range(1, 10000))->capture_default_str();
        s->add_option("--motions", f.motions, "classes: the first of horizontal, vertical, diagonal, circling")->check(CLI::Range(1, 4))->capture_default_str();
        l->add_option("--count", f.count, "a random choice of so many clips (0: all)")->check(CLI::Range(0, kAllSprites));
        for (CLI::App* a : {s, l}) {
          a->add_option("--size", f.size, "width and height of a frame in pixels")->check(CLI::Range(8, 1024))->capture_default_str();
          a->add_option("--seed", f.seed, "another seed, other clips")->check(CLI::Range(int64_t{0}, INT64_MAX))->capture_default_str();
          a->add_option("--as", f.as, "what a clip becomes: strips (a PNG with its frames side by side), frames (a folder), gif, mp4")
              ->check(CLI::IsMember({"strips", "frames", "gif", "mp4"}))
              ->capture_default_str();
          a->add_option("--fps", f.fps, "frames a second of gif and mp4")->check(CLI::Range(1.0, 50.0))->capture_default_str();
        }
        s->callback([&, count] {
          make_shapes = true;
          if (count->count() == 0) f.count = 400;
        });
      },
      [&] {
        check(f);
        make_shapes ? shapes(f) : sprites(f);
      });
}
