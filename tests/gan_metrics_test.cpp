// ./gan_metrics as a user meets it: numbers with their protocols, and mistakes.
#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/picture.h"
#include "engine/safetensors.h"
#include "models/nearest_sheet.h"
#include "tests/feature_fixtures.h"

using namespace kiln;
using namespace kiln::test;
namespace fs = std::filesystem;
using nlohmann::json;

namespace {

void refuses(const std::vector<std::string>& arguments, const std::vector<std::string>& words) {
  const Finished f = run_program("gan_metrics", arguments);
  CAPTURE(f.err);
  CHECK(f.code == 2);
  CHECK(std::count(f.err.begin(), f.err.end(), '\n') == 1);
  for (const std::string& w : words) {
    CAPTURE(w);
    CHECK(f.err.find(w) != std::string::npos);
  }
}

json measure(std::vector<std::string> arguments) {
  arguments.insert(arguments.end(), {"--json", "--no-cache"});
  const Finished f = run_program("gan_metrics", arguments);
  CAPTURE(f.err);
  REQUIRE(f.code == 0);
  return json::parse(f.out);
}

}  // namespace

TEST_CASE("gan_metrics: help needs nothing and names every option") {
  const Finished f = run_program("gan_metrics", {"--help"});
  CHECK(f.code == 0);
  for (const char* word : {"REAL", "FAKE", "--size", "--fit", "--pictures", "--seed", "--json", "=256"}) {
    CAPTURE(word);
    CHECK(f.out.find(word) != std::string::npos);
  }
}

TEST_CASE("gan_metrics: mistakes end with code 2 and one line that names them") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 6, 40);
  fs::create_directories(t / "empty");
  std::ofstream(t / "broken.safetensors") << "not a checkpoint";
  refuses({}, {"REAL"});
  refuses({faces}, {"FAKE"});
  refuses({t / "nowhere", faces}, {t / "nowhere", "folder"});
  refuses({faces, t / "nowhere"}, {t / "nowhere"});
  refuses({faces, t / "empty"}, {t / "empty"});
  refuses({t / "empty", faces}, {t / "empty"});
  refuses({faces, t / "broken.safetensors"}, {"broken.safetensors"});
  refuses({faces, faces, "--size", "8"}, {"--size 8"});
  refuses({faces, faces, "--pictures", "0"}, {"--pictures 0"});
  refuses({faces, faces, "--fit", "stretch"}, {"stretch"});
  refuses({faces, faces, "--typo"}, {"--typo"});
  // Networks: what is missing, which file it is, and where people get it.
  refuses({faces, faces, "--network", "inception"}, {"pt_inception-2015-12-05-6726825d.pth", "pytorch-fid"});
  refuses({faces, faces, "--network", "inception", "--weights", t / "nowhere.pth"}, {t / "nowhere.pth", "no such file", "pt_inception-2015-12-05-6726825d.pth", "pytorch-fid"});
  refuses({faces, faces, "--network", "inception", "--weights", t / "broken.safetensors"}, {"broken.safetensors"});
  refuses({faces, faces, "--network", "resnet", "--weights", t / "nowhere.pth"}, {"resnet", "inception"});
  refuses({faces, faces, "--weights", t / "nowhere.pth"}, {"--network"});
  refuses({faces, faces, "--lpips", "vgg"}, {"vgg16-397923af.pth", "torchvision"});
  refuses({faces, faces, "--lpips", "squeeze", "--lpips-weights", write_weights(t, "squeeze")}, {"heads", "squeeze.pth", "PerceptualSimilarity"});
  refuses({faces, faces, "--lpips-heads", t / "nowhere.pth"}, {"--lpips"});
  refuses({faces, faces, "--sheet", t / "sheet.gif"}, {"sheet.gif", ".png"});
  const std::string weights = write_keras_weights(t, "darknet");
  refuses({faces, faces, "--network", "darknet", "--weights", weights, "--no-cache"}, {"6 real pictures", "10"});
}

TEST_CASE("gan_metrics: the real pictures themselves are nearer than their own halves; other pictures are far") {
  const TempFolder t, other;
  const std::string faces = draw_faces(t, 24, 40);
  const json same = measure({faces, faces});
  CHECK(same.at("size") == 40);
  CHECK(same.at("swd").get<double>() < same.at("swd_baseline").get<double>());
  CHECK(same.at("swd_protocol").get<std::string>().find("12 pictures a side") != std::string::npos);

  fs::create_directories(other / "few");
  int n = 0;
  for (const auto& e : fs::directory_iterator(faces))
    if (n++ < 3) fs::copy(e.path(), other / "few");
  refuses({faces, other / "few"}, {"3 pictures", "12", "--pictures 3"});
  CHECK(measure({faces, other / "few", "--pictures", "3"}).at("swd_protocol").get<std::string>().find("3 pictures a side") != std::string::npos);

  const Finished text = run_program("gan_metrics", {faces, faces, "--no-cache"});
  for (const char* word : {"SWD x1e3 = ", "real against real", "protocol: SWD", "512 directions"}) {
    CAPTURE(word);
    CHECK(text.out.find(word) != std::string::npos);
  }
}

TEST_CASE("gan_metrics: of a large folder the pictures that are compared are spread over all of it") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 24, 40);
  fs::create_directories(t / "flat_first");
  fs::create_directories(t / "faces_first");
  int i = 0;
  for (const auto& e : fs::directory_iterator(faces)) {
    if (i == 12) break;
    const Picture flat{40, 40, std::vector<uint8_t>(4800, uint8_t(20 * i))};
    write_png(t / fmt::format("flat_first/a{:02}.png", i), flat);
    write_png(t / fmt::format("faces_first/b{:02}.png", i), flat);
    fs::copy(e.path(), t / fmt::format("flat_first/b{:02}.png", i));
    fs::copy(e.path(), t / fmt::format("faces_first/a{:02}.png", i));
    i++;
  }
  const auto swd = [&](const std::string& folder) { return measure({faces, folder}).at("swd").get<double>(); };
  CHECK(swd(t / "flat_first") == doctest::Approx(swd(t / "faces_first")).epsilon(0.2));
}

TEST_CASE("gan_metrics: a checkpoint's distance is the one in its training log") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 12, 40), run = t / "run";
  REQUIRE(run_program("fastgan_train", {faces, "--out", run, "--size", "32", "--ngf", "4", "--ndf", "4", "--batch", "4", "--no-cache", "--grid",
                                        "2", "--steps", "4", "--metric-every", "4", "--seed", "7"})
              .code == 0);
  double logged = -1;
  std::ifstream log(run + "/log.jsonl");
  for (std::string line; std::getline(log, line);) {
    const json j = json::parse(line);
    if (j.contains("swd")) logged = j.at("swd");
  }
  const std::string checkpoint = run + "/checkpoints/000004.safetensors";
  const json mine = measure({faces, checkpoint, "--batch", "3"});
  CHECK(mine.at("swd").get<double>() == doctest::Approx(logged).epsilon(1e-6));
  CHECK(mine.at("fake").get<std::string>().find("step 4, 32 px, seed 7") != std::string::npos);
  CHECK(measure({faces, checkpoint, "--seed", "8"}).at("swd").get<double>() != doctest::Approx(logged).epsilon(1e-6));
  refuses({faces, checkpoint, "--size", "64"}, {"--size 64", "32 px"});
}

TEST_CASE("gan_metrics: distances on a network that the user names carry its name") {
  const TempFolder t, cache;
  const std::string faces = draw_faces(t, 24, 40), weights = write_keras_weights(t, "darknet");
  fs::create_directories(t / "other");
  for (int i = 0; i < 12; i++) {  // flat colours
    Picture p{40, 40, {}};
    for (int k = 0; k < 1600; k++) p.rgb.insert(p.rgb.end(), {uint8_t(20 * i), uint8_t(120 + 5 * i), uint8_t(250 - 10 * i)});
    write_png(t / fmt::format("other/{:02}.png", i), p);
  }
  const std::vector<std::string> network{"--network", "darknet", "--weights", weights, "--json"};
  const auto with = [&](const std::string& fake) {
    std::vector<std::string> a{faces, fake};
    a.insert(a.end(), network.begin(), network.end());
    const Finished f = run_program("gan_metrics", a, ".", {"XDG_CACHE_HOME=" + cache.path().string()});
    CAPTURE(f.err);
    REQUIRE(f.code == 0);
    return json::parse(f.out);
  };
  const json same = with(faces), other = with(t / "other");
  for (const char* key : {"fid", "kid", "precision", "recall", "fid_inception"}) CHECK_FALSE(same.contains(key));
  CHECK(std::fabs(same.at("fid_darknet").get<double>()) < 1e-6 * same.at("fid_darknet_baseline").get<double>());
  CHECK(same.at("kid_darknet").get<double>() < 0);  // the unbiased estimate of equal sets: pictures meet themselves
  CHECK(same.at("precision_darknet") == 1);
  CHECK(same.at("recall_darknet") == 1);
  CHECK(other.at("fid_darknet").get<double>() > 2 * same.at("fid_darknet_baseline").get<double>());
  CHECK(other.at("kid_darknet").get<double>() > 10 * std::fabs(same.at("kid_darknet_baseline").get<double>()));
  CHECK(other.at("precision_darknet").get<double>() < 0.5);
  for (const char* word : {"Tiny Darknet, 512 features", "pictures of 40 px", "bilinear to 224 px", "24 real, 12 generated"}) {
    CAPTURE(word);
    CHECK(other.at("kid_darknet_protocol").get<std::string>().find(word) != std::string::npos);
  }
  // Features of a folder are kept: of faces (real and fake alike) and of the flat pictures. Made worthless, they are made again;
  // changed but whole, they are what is read.
  std::vector<fs::path> kept;
  for (const auto& e : fs::directory_iterator(cache.path() / "kiln"))
    if (e.path().filename().string().starts_with("features-darknet-")) kept.push_back(e.path());
  REQUIRE(kept.size() == 2);
  for (const fs::path& p : kept) {
    const SafetensorsFile f(p);
    std::vector<float> v(f.at("features").bytes / 4, 1.f);
    const auto metadata = f.metadata();
    const auto shape = f.at("features").shape;
    write_safetensors(p, {{"features", "F32", shape, v.data(), v.size() * 4}}, metadata);
  }
  CHECK(with(t / "other").at("fid_darknet") == 0);
  for (const fs::path& p : kept) std::ofstream(p, std::ios::binary | std::ios::trunc) << "damaged";
  CHECK(with(t / "other").at("fid_darknet").get<double>() == doctest::Approx(other.at("fid_darknet").get<double>()).epsilon(1e-6));
  const Finished text = run_program("gan_metrics", {faces, faces, "--no-cache", "--network", "darknet", "--weights", weights});
  for (const char* word : {"Frechet distance on Tiny Darknet = ", "KID x1e3 on Tiny Darknet = ", "precision on Tiny Darknet = 1", "two halves of the real set (12 pictures each)"}) {
    CAPTURE(word);
    CHECK(text.out.find(word) != std::string::npos);
  }
  CHECK(text.out.find("FID") == std::string::npos);
}

TEST_CASE("gan_metrics: LPIPS between pictures tells a set without variety") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 12, 64), weights = write_weights(t, "squeeze"), heads = write_heads(t, "squeeze", head_channels("squeeze"));
  fs::create_directories(t / "one");
  for (int i = 0; i < 6; i++) fs::copy(fs::directory_iterator(faces)->path(), t / fmt::format("one/{}.png", i));
  const json j = measure({faces, t / "one", "--pictures", "6", "--lpips", "squeeze", "--lpips-weights", weights, "--lpips-heads", heads, "--pairs", "5"});
  CHECK(std::fabs(j.at("lpips_squeeze").get<double>()) < 1e-12);
  CHECK(j.at("lpips_squeeze_real").get<double>() > 0.01);
  CHECK(j.at("lpips_squeeze_protocol").get<std::string>().find("LPIPS v0.1 (SqueezeNet); pictures of 64 px, not resized; 3 random pairs of generated, 5 of real") == 0);
}

TEST_CASE("gan_metrics: a generator that copies is seen in the sheet of nearest pictures") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 24, 40);
  // 10 pictures: 5 copies, mirrored; 5 of something else.
  fs::create_directories(t / "fakes");
  std::vector<fs::path> originals;
  for (const auto& e : fs::directory_iterator(faces)) originals.push_back(e.path());
  std::sort(originals.begin(), originals.end());
  for (int i = 0; i < 5; i++) {
    const Picture p = read_picture(originals[size_t(3 * i)]);
    Picture mirrored = p, flat = p;
    for (int y = 0; y < 40; y++)
      for (int x = 0; x < 40; x++)
        for (int c = 0; c < 3; c++) {
          mirrored.rgb[size_t((y * 40 + x) * 3 + c)] = p.rgb[size_t((y * 40 + 39 - x) * 3 + c)];
          flat.rgb[size_t((y * 40 + x) * 3 + c)] = uint8_t(i * 20 + c * 40);
        }
    write_png(t / fmt::format("fakes/a{}.png", i), flat);
    write_png(t / fmt::format("fakes/b{}.png", i), mirrored);
  }
  const json j = measure({faces, t / "fakes", "--pictures", "10", "--sheet", t / "sheet.png"});
  CHECK(j.at("nearest_pixels_copies") == 5);
  CHECK(j.at("nearest_pixels").get<double>() > 1);  // the median: half are copies, half are far
  const Picture sheet = read_picture(t / "sheet.png");
  CHECK(sheet.width == 5 * 42 + 2);
  CHECK(sheet.height == 10 * 42 + 2);
  // The first rows are the copies: fake k, and beside it, mirrored, the picture that it was made of.
  const auto at = [&](int row, int column, int y, int x) { return &sheet.rgb[size_t(((2 + row * 42 + y) * sheet.width + 2 + column * 42 + x) * 3)]; };
  for (int row = 0; row < 5; row++)
    for (int y = 0; y < 40; y += 7)
      for (int x = 0; x < 40; x += 5)
        for (int c = 0; c < 3; c++) CHECK(at(row, 0, y, x)[c] == at(row, 1, y, 39 - x)[c]);
  const std::string weights = write_keras_weights(t, "squeezenet");
  const json k = measure({faces, t / "fakes", "--pictures", "10", "--sheet", t / "wide.png", "--network", "squeezenet", "--weights", weights});
  CHECK(k.contains("nearest_squeezenet"));
  CHECK(read_picture(t / "wide.png").width == 9 * 42 + 2);
  CHECK(measure({faces, faces, "--pictures", "10", "--sheet", t / "same.png"}).at("nearest_pixels") == 0);
}
