// models/biggan_sampler.h, and ./biggan_sample around it.
#include "models/biggan_sampler.h"

#include <fstream>

#include "engine/checkpoint.h"
#include "models/biggan_run.h"
#include "tests/program.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::biggan;
using namespace kiln::test;
namespace fs = std::filesystem;

namespace {

/// A checkpoint of a tiny network with random weights. Returns its path.
std::string tiny_checkpoint(const TempFolder& t, const std::vector<std::string>& classes) {
  RunOptions o = preset("small");
  o.network.g_width = o.network.d_width = 4;
  o.network.z = 8;
  o.network.shared_dim = 4;
  o.class_names = classes;
  o.network.classes = int(classes.size());
  Context context;
  UseContext use(context);
  Philox random(3);
  Model m(o.network);
  m.initialise(random);
  CheckpointWriter w;
  w.add("ema.", m.average_params);
  w.set("config", to_json(o, false));
  w.set("step", "7");
  const std::string path = t / "tiny.safetensors";
  w.write(path);
  return path;
}

double largest(const std::vector<float>& z) {
  double m = 0;
  for (float v : z) m = std::max(m, std::abs(double(v)));
  return m;
}

double difference(const Picture& a, const Picture& b) {
  double s = 0;
  for (size_t i = 0; i < a.rgb.size(); i++) s += std::abs(int(a.rgb[i]) - int(b.rgb[i]));
  return s / double(a.rgb.size());
}

}  // namespace

TEST_CASE("biggan sampler: the three truncations are what their names say") {
  const TempFolder t;
  const Sampler s(tiny_checkpoint(t, {"a", "b"}));
  double over = 0, beyond_scaled = 0;
  for (uint64_t seed = 0; seed < 50; seed++) {
    const std::vector<float> plain = s.latent(seed);
    CHECK(s.latent(seed) == plain);
    CHECK(s.latent(seed + 1) != plain);
    const std::vector<float> cut = s.latent(seed, truncation_from_name("resample", 0.7)), scaled = s.latent(seed, truncation_from_name("scaled", 0.7)),
                             spread = s.latent(seed, truncation_from_name("spread", 0.7));
    CHECK(largest(cut) <= 0.7);
    CHECK(largest(scaled) <= 1.4 + 1e-6);
    over = std::max(over, largest(spread));
    beyond_scaled = std::max(beyond_scaled, largest(scaled));
    for (size_t i = 0; i < plain.size(); i++) {
      CHECK(spread[i] == 0.7f * plain[i]);
      if (std::abs(plain[i]) <= 0.7f) CHECK(cut[i] == plain[i]);  // only what is beyond is drawn again
      if (std::abs(plain[i]) <= 2.f) CHECK(scaled[i] == 0.7f * plain[i]);
    }
  }
  CHECK(over > 1.4);  // nothing bounds it
  CHECK(beyond_scaled > 0.7);
  CHECK(contains(error_of([] { truncation_from_name("resample", 0.01); }), "--truncation 0.01"));
  CHECK(contains(error_of([] { truncation_from_name("psi", 1); }), "spread"));
}

TEST_CASE("biggan sampler: resampled latents are a truncated normal distribution") {
  const TempFolder t;
  const Sampler s(tiny_checkpoint(t, {}));
  double squares = 0, n = 0;
  for (uint64_t seed = 0; seed < 2000; seed++)
    for (float v : s.latent(seed, truncation_from_name("resample", 1.0))) squares += double(v) * double(v), n++;
  // Variance of N(0, 1) between -1 and 1: 1 - 2 phi(1) / (2 Phi(1) - 1) = 0.29112.
  CHECK(squares / n == doctest::Approx(0.29112).epsilon(0.02));
}

TEST_CASE("biggan sampler: standing statistics belong to a truncation, and the order of requests does not matter") {
  const TempFolder t;
  const std::string path = tiny_checkpoint(t, {"a", "b"});
  SamplerOptions plain, running;
  running.standing = 0;
  Sampler s(path, plain), again(path, plain), r(path, running);
  const std::vector<Draw> draw = {{s.latent(1), 1}};
  const Truncation none, low = truncation_from_name("resample", 0.3);
  const Picture wide = s.render(draw, none)[0], narrow = s.render(draw, low)[0];
  CHECK(difference(wide, narrow) > 0.1);  // the same latent, other statistics
  CHECK(difference(wide, r.render(draw, none)[0]) > 0.1);
  CHECK(again.render(draw, low)[0].rgb == narrow.rgb);
  CHECK(again.render(draw, none)[0].rgb == wide.rgb);
  CHECK(s.render(draw, none)[0].rgb == wide.rgb);
}

TEST_CASE("biggan sampler: classes by name and number; interpolation meets its ends; a picture does not depend on its batch") {
  const TempFolder t;
  Sampler s(tiny_checkpoint(t, {"a", "b", "c"}));
  CHECK(s.size() == 32);
  CHECK(s.step() == 7);
  CHECK(s.class_number("b") == 1);
  CHECK(s.class_number("2") == 2);
  CHECK(contains(error_of([&] { s.class_number("d"); }), "there are a, b, c"));
  CHECK(contains(error_of([&] { s.class_number("3"); }), "a, b, c"));
  const std::vector<float> z = s.latent(5);
  const std::vector<Picture> p = s.render({{z, 0}, {z, 0, 2, 0.5f}, {z, 0, 2, 1.f}, {z, 2}, {s.latent(6), 1}});
  CHECK(difference(p[2], p[3]) < 0.05);
  CHECK(difference(p[0], p[1]) > 0.1);
  CHECK(difference(p[1], p[3]) > 0.1);
  CHECK(difference(s.render({{z, 0}})[0], p[0]) < 0.05);
  CHECK(contains(error_of([&] { s.render({{{1.f, 2.f}, 0}}); }), "2 numbers"));
}

TEST_CASE("biggan sampler: files that are no BigGAN checkpoints are refused by name") {
  const TempFolder t;
  std::ofstream(t / "a.safetensors") << "no checkpoint";
  CHECK(contains(error_of([&] { Sampler s(t / "a.safetensors"); }), "a.safetensors"));
  CHECK(contains(error_of([&] { Sampler s(t / "nothing.safetensors"); }), "nothing.safetensors"));
  write_safetensors(t / "b.safetensors", {}, {});
  CHECK(contains(error_of([&] { Sampler s(t / "b.safetensors"); }), "no configuration"));
  write_safetensors(t / "c.safetensors", {}, {{"config", "{\"model\": \"fastgan\"}"}});
  CHECK(contains(error_of([&] { Sampler s(t / "c.safetensors"); }), "fastgan"));
}

TEST_CASE("biggan sampler: the curve's measures know copies, narrow sets and what is far") {
  std::vector<Picture> reals, grey;
  std::vector<int> labels;
  for (int i = 0; i < 12; i++) {
    Picture p{32, 32, std::vector<uint8_t>(32 * 32 * 3)};
    for (size_t k = 0; k < p.rgb.size(); k++) p.rgb[k] = uint8_t(hash_uniform("picture " + std::to_string(i), k / 3 % 32 / 8) * 255);
    reals.push_back(p);
    grey.push_back({32, 32, std::vector<uint8_t>(32 * 32 * 3, 255)});
    labels.push_back(i % 2);
  }
  const CurvePoint copies = compare_sets(reals, labels, reals, labels), one = compare_sets(grey, labels, reals, labels);
  CHECK(copies.fidelity == 0);
  CHECK(copies.variety == doctest::Approx(1));
  CHECK(one.variety == 0);
  CHECK(one.fidelity > 0.5);
  const std::string svg = curve_svg({copies, one}, "a curve");
  CHECK(contains(svg, "<svg"));
  CHECK(contains(svg, "a curve"));
}

TEST_CASE("biggan_sample: sheets, files, interpolation and a curve; mistakes are named") {
  const TempFolder t;
  const std::string path = tiny_checkpoint(t, {"disc", "\\xff"});
  const auto run = [&](std::vector<std::string> more) {
    std::vector<std::string> a{path};
    a.insert(a.end(), more.begin(), more.end());
    return run_program("biggan_sample", a, t.path().string());
  };
  Finished f = run({"-n", "3", "--out", t / "rows.png"});
  CAPTURE(f.err);
  CHECK(f.code == 0);
  CHECK(contains(f.out, "rows, from the top: disc, \\xff"));
  const Picture rows = read_picture(t / "rows.png");
  CHECK(rows.width == 3 * 34 + 2);
  CHECK(rows.height == 2 * 34 + 2);
  CHECK(run({"--make", "grid", "-n", "5", "--classes", "disc", "--out", t / "grid.png"}).code == 0);
  CHECK(read_picture(t / "grid.png").width == 3 * 34 + 2);
  CHECK(run({"--make", "interpolate", "--between", "both", "-n", "2", "--steps", "3", "--out", t / "between.png"}).code == 0);
  CHECK(read_picture(t / "between.png").width == 5 * 34 + 2);
  CHECK(run({"--make", "files", "-n", "2", "--seed", "9", "--out", t / "files"}).code == 0);
  CHECK(fs::exists(t / "files/disc/seed000010.png"));

  const fs::path faces = draw_faces(t, 24, 40);
  fs::create_directories(fs::path(t / "data"));
  fs::rename(faces, fs::path(t / "data") / "disc");
  fs::create_directories(fs::path(t / "data") / "\xff");
  for (int i = 0; i < 3; i++) {
    const fs::path from = *fs::directory_iterator(fs::path(t / "data") / "disc");
    fs::rename(from, fs::path(t / "data") / "\xff" / from.filename());
  }
  f = run({"--make", "curve", "--truncation-kind", "spread", "--thresholds", "0.5,1", "--samples", "20", "--data", t / "data", "--no-cache", "--out", t / "curve"});
  CAPTURE(f.out);
  CHECK(f.code == 0);
  CHECK(contains(file_text(t / "curve.md"), "| 0.5 |"));
  CHECK(contains(file_text(t / "curve.svg"), "</svg>"));
  CHECK(read_picture(t / "curve.png").height == 2 * 34 + 2);

  const auto refused = [&](std::vector<std::string> more, const std::string& word) {
    const Finished r = run(more);
    CAPTURE(r.err);
    CHECK(r.code == 2);
    CHECK(contains(r.err, word));
  };
  refused({"--classes", "square"}, "'square' is not known");
  refused({"--make", "curve"}, "--truncation-kind");
  refused({"--make", "curve", "--truncation-kind", "resample"}, "--data");
  refused({"--make", "curve", "--truncation-kind", "resample", "--thresholds", "a"}, "'a' is not a number");
  refused({"--make", "interpolate", "--between", "class", "--classes", "disc"}, "two classes");
  refused({"--truncation-kind", "resample", "--truncation", "0"}, "--truncation 0");
  refused({"--out", "sheet.txt"}, "sheet.txt");
}
