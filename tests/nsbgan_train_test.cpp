// ./nsbgan_train and ./nsbgan_sample as a user meets them: help, mistakes, runs of the sampler, resuming, and both networks chained.
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/ops.h"
#include "engine/picture.h"
#include "engine/picture_tensor.h"
#include "engine/safetensors.h"
#include "models/biggan_run.h"
#include "models/nsbgan_decoder.h"
#include "models/nsbgan_sampler.h"
#include "tests/support.h"
#include "tests/training_runs.h"

using namespace kiln;
using namespace kiln::test;
namespace fs = std::filesystem;
using nlohmann::json;

namespace {

std::vector<std::string> sampler_run(const std::string& data, const std::string& out, std::vector<std::string> more = {}) {
  std::vector<std::string> a{"sampler", data, "--out", out, "--size", "64", "--levels", "1", "--width", "4", "--z", "8", "--shared-dim", "4", "--batch", "4",
                             "--no-cache", "--grid", "2", "--log-every", "2", "--sample-every", "4", "--metric-every", "4", "--standing", "2", "--steps", "4"};
  a = with_device(a);
  a.insert(a.end(), more.begin(), more.end());
  return a;
}

std::vector<std::string> decoder_run(const std::string& data, const std::string& out, std::vector<std::string> more = {}) {
  std::vector<std::string> a{"decoder", data, "--out", out, "--size", "64", "--levels", "1", "--width", "4", "--blocks", "1", "--batch", "4",
                             "--no-cache", "--grid", "2", "--log-every", "2", "--sample-every", "4", "--metric-every", "0", "--steps", "4"};
  a = with_device(a);
  a.insert(a.end(), more.begin(), more.end());
  return a;
}

Finished run(const std::vector<std::string>& arguments) { return run_program("nsbgan_train", arguments); }

void is_refused(const Finished& f, const std::vector<std::string>& words) {
  CAPTURE(f.err);
  CHECK(f.code == 2);
  CHECK(std::count(f.err.begin(), f.err.end(), '\n') == 1);
  for (const std::string& w : words) {
    CAPTURE(w);
    CHECK(contains(f.err, w));
  }
}

/// Drawn faces of 64 px in two class folders.
std::string two_classes(const TempFolder& t, int count = 12) {
  const fs::path root = t / "classes";
  std::vector<fs::path> files;
  for (const auto& e : fs::directory_iterator(draw_faces(t, count, 64))) files.push_back(e.path());
  std::sort(files.begin(), files.end());
  for (size_t i = 0; i < files.size(); i++) {
    fs::create_directories(root / (i % 2 ? "b" : "a"));
    fs::rename(files[i], root / (i % 2 ? "b" : "a") / files[i].filename());
  }
  return root.string();
}

const std::string kLast = "/checkpoints/000004.safetensors";

json config_of(const std::string& checkpoint) { return json::parse(SafetensorsFile(checkpoint).metadata().at("config")); }

}  // namespace

TEST_CASE("nsbgan_train: help of the program and of its two halves") {
  Finished f = run({"--help"});
  CHECK(f.code == 0);
  CHECK(contains(f.out, "nsbgan_train decoder DIR"));
  f = run({"sampler", "--help"});
  CHECK(f.code == 0);
  for (const char* word : {"Band", "--wavelet", "--levels", "--domain", "--normalisation", "64-256", "--standing", "--ortho-form"}) CHECK(contains(f.out, word));
  f = run({"decoder", "--help"});
  CHECK(f.code == 0);
  CHECK(contains(f.out, "--wavelet"));
  is_refused(run({}), {"nsbgan_train sampler DIR or nsbgan_train decoder DIR"});
  is_refused(run({"generator"}), {"'generator' is not known"});
}

TEST_CASE("nsbgan_train: mistakes of the sampler end with code 2 and one line that names them") {
  const TempFolder t;
  const std::string data = two_classes(t), out = t / "run";
  is_refused(run({"sampler"}), {"no folder of pictures", "nsbgan_train sampler DIR"});
  is_refused(run(sampler_run(data, out, {"--levels", "2"})), {"--size 64", "--levels 2", "16 px"});
  is_refused(run(sampler_run(data, out, {"--levels", "0"})), {"--levels 0"});
  is_refused(run(sampler_run(data, out, {"--size", "66", "--levels", "2"})), {"66 px", "--levels 2"});
  is_refused(run(sampler_run(data, out, {"--wavelet", "db4"})), {"--wavelet", "db4"});
  is_refused(run(sampler_run(data, out, {"--domain", "pixels", "--wavelet", "haar"})), {"--wavelet", "--domain wavelet"});
  is_refused(run(sampler_run(data, out, {"--normalisation", "3", "0"})), {"above 0"});
  is_refused(run(sampler_run(data, out, {"--preset", "128"})), {"--preset", "64-256"});
  CHECK(!fs::exists(out));
}

TEST_CASE("nsbgan_train: a sampler's run leaves what it says, and its band in every checkpoint") {
  const TempFolder t;
  const std::string data = two_classes(t, 36);
  for (const std::string wavelet : {"haar", "bior2.2-reflect", "pixels"}) {
    CAPTURE(wavelet);
    const std::string out = t / wavelet;
    const Finished f = run(sampler_run(data, out, wavelet == "pixels" ? std::vector<std::string>{"--domain", "pixels"}
                                                                      : std::vector<std::string>{"--wavelet", wavelet, "--augment", "color,translation"}));
    CAPTURE(f.err);
    CAPTURE(f.out);
    REQUIRE(f.code == 0);
    CHECK(contains(f.out, wavelet == "pixels" ? "64 px made 32 px" : wavelet + ", 1 level of 64 px: 32 px"));
    CHECK(read_picture(out + "/samples/000004.png").width == 2 * 66 + 2);  // pictures
    CHECK(read_picture(out + "/samples/000004_band.png").width == 2 * 34 + 2);
    CHECK(read_picture(out + "/samples/000004_classes.png").width == 10 * 66 + 2);
    CHECK(read_picture(out + "/samples/real.png").width == 2 * 66 + 2);
    CHECK(read_png_text(out + "/samples/000004_band.png")[0].second == "kiln nsbgan_train sampler");
    const json config = config_of(out + kLast);
    CHECK(config.at("model") == "nsbgan-sampler");
    CHECK(config.at("size") == 32);
    CHECK(config.at("band").at("picture_size") == 64);
    CHECK(config.at("band").contains("wavelet") == (wavelet != "pixels"));
    CHECK(config.at("band").at("scale").get<double>() >= 1);
    CHECK(contains(json::parse(file_text(out + "/config.json")).at("commands")[0].get<std::string>(), "nsbgan_train sampler "));
    int measured = 0;
    std::ifstream log(out + "/log.jsonl");
    for (std::string line; std::getline(log, line);) {
      const json j = json::parse(line);
      if (!j.contains("band_swd")) continue;
      measured++;
      CHECK(j.at("band_swd_baseline").get<double>() < j.at("band_swd").get<double>());  // nothing is learned yet
      CHECK(j.contains("class_swd.a"));
      CHECK(j.contains("swd"));
    }
    CHECK(measured == 1);
  }
}

TEST_CASE("nsbgan_train: the discriminator sees the bands, and the sheet of samples is their pictures") {
  const TempFolder t;
  const std::string data = two_classes(t), out = t / "run";
  REQUIRE(run(sampler_run(data, out, {"--unconditional", "--wavelet", "haar", "--normalisation", "0", "2", "--standing", "0"})).code == 0);
  // haar's low band of one level, drawn as a picture, is the 2 x 2 mean of the picture that follows from it.
  const Picture pictures = read_picture(out + "/samples/000004.png"), bands = read_picture(out + "/samples/000004_band.png");
  int worst = 0;
  for (int y = 0; y < 32; y++)
    for (int x = 0; x < 32; x++)
      for (int c = 0; c < 3; c++) {
        const int band = bands.rgb[size_t(((y + 2) * bands.width + x + 2) * 3 + c)];
        worst = std::max(worst, std::abs(band - int(pictures.rgb[size_t(((2 * y + 2) * pictures.width + 2 * x + 2) * 3 + c)])));
      }
  CHECK(worst <= 1);
  // A sampler of small pictures is BigGAN on them: 2 x 2 means of drawn pictures that are exact bytes, seen by either.
  const fs::path small = t / "small", large = t / "large";
  fs::create_directories(small);
  fs::create_directories(large);
  for (int k = 0; k < 6; k++) {
    Picture p{32, 32, std::vector<uint8_t>(32 * 32 * 3)}, q{64, 64, std::vector<uint8_t>(64 * 64 * 3)};
    for (int y = 0; y < 64; y++)
      for (int x = 0; x < 64; x++)
        for (int c = 0; c < 3; c++) p.rgb[size_t(((y / 2) * 32 + x / 2) * 3 + c)] = q.rgb[size_t((y * 64 + x) * 3 + c)] = uint8_t((x / 2 * 7 + y / 2 * (k + 3) + 40 * c) % 256);
    write_png(small / (std::to_string(k) + ".png"), p);
    write_png(large / (std::to_string(k) + ".png"), q);
  }
  const std::vector<std::string> same = {"--unconditional", "--width", "4", "--z", "8", "--batch", "4", "--no-cache", "--grid", "2", "--log-every", "1", "--metric-every", "0",
                                         "--steps", "1"};
  std::vector<std::string> a{small.string(), "--out", t / "pictures"}, b{"sampler", large.string(), "--out", t / "bands", "--domain", "pixels", "--size", "64", "--levels", "1"};
  a.insert(a.end(), same.begin(), same.end());
  b.insert(b.end(), same.begin(), same.end());
  REQUIRE(run_program("biggan_train", with_device(a)).code == 0);
  REQUIRE(run(with_device(b)).code == 0);
  const auto losses = [&](const std::string& name) {
    std::ifstream log(t / name + "/log.jsonl");
    std::string line;
    std::getline(log, line);
    return json::parse(line);
  };
  for (const char* key : {"logit_real", "logit_fake", "loss_d_real"})
    CHECK(losses("pictures").at(key).get<double>() == doctest::Approx(losses("bands").at(key).get<double>()).epsilon(1e-4));
}

TEST_CASE("nsbgan_train: a sampler's run resumed is the run that never stopped, bit for bit") {
  const TempFolder t;
  const std::string data = two_classes(t), whole = t / "whole", halves = t / "halves";
  const std::vector<std::string> more = {"--wavelet", "bior2.2", "--augment", "color,translation,cutout", "--steps", "8", "--checkpoint-every", "4"};
  REQUIRE(run(sampler_run(data, whole, more)).code == 0);
  std::vector<std::string> first = sampler_run(data, halves, more);
  first.insert(first.end(), {"--steps", "4"});
  REQUIRE(run(first).code == 0);
  const Finished f = run({"sampler", data, "--no-cache", "--out", halves, "--resume", "--steps", "8"});
  CAPTURE(f.err);
  REQUIRE(f.code == 0);
  CHECK(file_text(whole + "/checkpoints/000008.safetensors") == file_text(halves + "/checkpoints/000008.safetensors"));
  CHECK(file_text(whole + "/samples/000008_band.png") == file_text(halves + "/samples/000008_band.png"));
  CHECK(timeless_log(whole) == timeless_log(halves));
  is_refused(run({"sampler", data, "--no-cache", "--out", halves, "--resume", "--steps", "9", "--wavelet", "haar"}), {"--resume", "--wavelet"});
  // A new run from the checkpoint keeps its normalisation, whatever its pictures; another band is another network's.
  const std::string checkpoint = whole + "/checkpoints/000008.safetensors";
  std::vector<std::string> next = sampler_run(data, t / "next", {"--wavelet", "bior2.2", "--resume", checkpoint, "--steps", "9"});
  REQUIRE(run(next).code == 0);
  CHECK(config_of(t / "next/checkpoints/000009.safetensors").at("band") == config_of(checkpoint).at("band"));
  is_refused(run(sampler_run(data, t / "other", {"--wavelet", "haar", "--resume", checkpoint, "--steps", "9"})), {"bior2.2, 1 level", "haar, 1 level", "--wavelet"});
  is_refused(run(sampler_run(data, t / "other", {"--wavelet", "bior2.2", "--normalisation", "5", "17", "--resume", checkpoint, "--steps", "9"})), {"--normalisation"});
  CHECK(!fs::exists(t / "other"));
}

TEST_CASE("nsbgan_train: BigGAN's programs refuse the sampler's runs, and it refuses theirs") {
  const TempFolder t;
  const std::string data = two_classes(t), bands = t / "bands", pictures = t / "pictures";
  REQUIRE(run(sampler_run(data, bands)).code == 0);
  std::vector<std::string> plain = with_device({data, "--out", pictures, "--size", "32", "--width", "4", "--z", "8", "--shared-dim", "4", "--batch", "4", "--no-cache",
                                                "--grid", "2", "--metric-every", "0", "--steps", "4"});
  REQUIRE(run_program("biggan_train", plain).code == 0);
  is_refused(run_program("biggan_sample", {bands + kLast, "--out", t / "a.png"}), {"sampler of NSB-GAN", "nsbgan_sample"});
  is_refused(run_program("biggan_train", {data, "--out", bands, "--resume", "--steps", "9"}), {"sampler of NSB-GAN", "nsbgan_train"});
  is_refused(run_program("nsbgan_sample", {pictures, "--no-decoder", "--out", t / "a.png"}), {"'biggan'", "NSB-GAN's sampler"});
  is_refused(run({"sampler", data, "--out", pictures, "--resume", "--steps", "9"}), {"'biggan'"});
  is_refused(run(sampler_run(data, t / "new", {"--resume", pictures + kLast, "--steps", "9"})), {"'biggan'"});
}

TEST_CASE("nsbgan_train: --dry-run of every preset of the sampler") {
  for (const std::string preset : {"small", "64-256", "128-512"}) {
    const Finished f = run({"sampler", "--dry-run", "--preset", preset});
    CAPTURE(f.err);
    CHECK(f.code == 0);
    CHECK(contains(f.out, "memory: "));
    if (preset == "64-256") CHECK(contains(f.out, "192 KiB each"));  // of the pictures, 256 px
  }
}

TEST_CASE("nsbgan_sample: sheets and files of both networks; what does not belong together is refused") {
  const TempFolder t;
  const std::string data = two_classes(t), sampler = t / "sampler", decoder = t / "decoder";
  REQUIRE(run(sampler_run(data, sampler, {"--wavelet", "bior2.2-reflect"})).code == 0);
  {
    const Finished f = run(decoder_run(data, decoder, {"--wavelet", "bior2.2-reflect"}));
    CAPTURE(f.err);
    REQUIRE(f.code == 0);
  }
  const auto sample = [&](std::vector<std::string> a) {
    a.insert(a.end(), {"--standing", "2", "--batch", "2"});
    return run_program("nsbgan_sample", a, t.path().string());
  };
  Finished f = sample({sampler, decoder, "-n", "3", "--out", t / "rows.png"});
  CAPTURE(f.err);
  REQUIRE(f.code == 0);
  CHECK(contains(f.out, "rows, from the top: a, b"));
  const Picture rows = read_picture(t / "rows.png");
  CHECK(rows.width == 3 * 66 + 2);
  CHECK(rows.height == 2 * 66 + 2);
  const PngText text = read_png_text(t / "rows.png");
  const auto told = [&](const std::string& key) {
    for (const auto& [k, v] : text)
      if (k == key) return v;
    return std::string();
  };
  CHECK(told("Software") == "kiln nsbgan_sample");
  CHECK(told("decoder step") == "4");
  CHECK(contains(told("band"), "bior2.2-reflect, 1 level"));
  CHECK(sample({sampler + kLast, decoder + kLast, "--make", "files", "-n", "2", "--classes", "b", "--seed", "5", "--out", t / "files"}).code == 0);
  CHECK(read_picture(t / "files/b/seed000006.png").width == 64);
  CHECK(sample({sampler, decoder, "--make", "interpolate", "-n", "1", "--steps", "1", "--truncation-kind", "resample", "--truncation", "0.5", "--out", t / "path.png"}).code == 0);
  CHECK(sample({sampler, "--no-decoder", "-n", "3", "--out", t / "bands.png"}).code == 0);
  CHECK(file_text(t / "bands.png") != file_text(t / "rows.png"));

  // By hand: the sampler's band, on its own scale, through the decoder.
  {
    biggan::SamplerOptions options;
    options.standing = 2;
    options.batch = 2;
    nsbgan::Sampler both(sampler, decoder, options);
    options.of_band = true;
    biggan::Sampler bands(sampler + kLast, options);
    const std::vector<biggan::Draw> draws{{both.latent(5), 1}, {both.latent(6), 1}};
    const Picture p = both.render(draws)[0];
    CHECK(p.rgb == read_picture(t / "files/b/seed000005.png").rgb);
    bands.generate(draws, {}, [&](const Tensor& x) {
      const NoGrad none;
      nsbgan::Decoder alone(decoder);
      CHECK(to_pictures(alone.decode(nsbgan::denormalise(Var(x), *bands.band()).value))[0].rgb == p.rgb);
    });
  }

  is_refused(sample({sampler}), {"no decoder", "--no-decoder"});
  is_refused(sample({sampler, decoder, "--no-decoder"}), {"--no-decoder"});
  is_refused(sample({sampler, sampler}), {"nsbgan-sampler"});
  is_refused(sample({decoder, decoder}), {"NSB-GAN's sampler"});
  is_refused(sample({sampler, t / "nothing"}), {"nothing"});
  is_refused(sample({sampler, decoder, "--out", "sheet.txt"}), {"sheet.txt"});
  REQUIRE(run(decoder_run(data, t / "haar", {"--wavelet", "haar"})).code == 0);
  is_refused(sample({sampler, t / "haar"}), {"do not belong together", "--wavelet bior2.2-reflect"});
  REQUIRE(run(decoder_run(data, t / "other", {"--wavelet", "bior2.2-reflect", "--normalisation", "7", "20"})).code == 0);
  is_refused(sample({sampler, t / "other"}), {"do not belong together", "--normalisation"});
}
