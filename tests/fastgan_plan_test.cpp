// --dry-run: the layers that a run has, and the memory that it takes. And what ends for want of memory.
#include <sys/resource.h>

#include <cmath>

#include "engine/convolution.h"
#include "engine/layer_table.h"
#include "models/fastgan_training.h"
#include "tests/picture_fixtures.h"
#include "tests/support.h"
#include "tests/training_runs.h"

using namespace kiln;
using namespace kiln::test;
namespace fs = std::filesystem;

TEST_CASE("fastgan_train: --dry-run tells the memory that the run then takes, within a tenth") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 40, 32);
  int k = 0;
  for (const std::vector<std::string>& more : std::initializer_list<std::vector<std::string>>{
           {"--size", "32", "--ngf", "4", "--ndf", "4", "--batch", "4", "--metric-every", "0"},
           {"--size", "64", "--ngf", "16", "--ndf", "16", "--batch", "8", "--metric-every", "0"},
           {"--size", "64", "--ngf", "16", "--ndf", "16", "--batch", "8", "--accumulate", "4", "--metric-every", "0"},
           {"--size", "64", "--ngf", "16", "--ndf", "8", "--batch", "4", "--metric-every", "2"},
           {"--size", "64", "--ngf", "16", "--ndf", "16", "--batch", "8", "--metric-every", "0", "--precision", cpu_has_bf16() ? "bf16" : "f16"},
           {"--size", "128", "--ngf", "16", "--ndf", "16", "--batch", "8", "--metric-every", "0"},
           {"--size", "128", "--ngf", "8", "--ndf", "8", "--batch", "4", "--metric-every", "0"},
           {"--size", "128", "--ngf", "8", "--ndf", "8", "--batch", "4", "--grid", "12", "--metric-every", "0"}}) {
    std::vector<std::string> a{faces, "--no-cache", "--steps", "2", "--grid", "2", "--out", t / std::to_string(k++)};
    a.insert(a.end(), more.begin(), more.end());
    const Finished run = run_program("fastgan_train", a);
    a.push_back("--dry-run");
    const Finished plan = run_program("fastgan_train", a);
    CAPTURE(plan.out);
    CAPTURE(run.err);
    REQUIRE(run.code == 0);
    REQUIRE(plan.code == 0);
    CHECK(plan.out.find("40 files") != std::string::npos);
    const double tensors = reported_megabytes(run, " MB of tensors"), all = reported_megabytes(run, " MB in all");
    const double planned_all = planned_megabytes(plan.out, "memory:"), planned_tensors = planned_megabytes(plan.out, "(");
    MESSAGE("tensors " << tensors << " MB, planned " << planned_tensors << "; in all " << all << " MB, planned " << planned_all);
    CHECK(std::abs(planned_tensors - tensors) < 0.02 * tensors + 1.1);  // both are rounded to a megabyte
    CHECK(std::abs(planned_all - all) < 0.1 * all);
  }
}

TEST_CASE("fastgan_train: --dry-run counts a folder's pictures, kept or streamed") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 30, 16);
  const auto plan = [&](std::vector<std::string> more) {
    std::vector<std::string> a{faces, "--size", "512", "--ngf", "2", "--ndf", "2", "--batch", "2", "--metric-every", "0", "--dry-run"};
    a.insert(a.end(), more.begin(), more.end());
    const Finished f = run_program("fastgan_train", a);
    CAPTURE(f.err);
    REQUIRE(f.code == 0);
    return f.out;
  };
  CHECK(planned_megabytes(plan({}), "  pictures") == doctest::Approx(30 * 0.75).epsilon(0.01));
  CHECK(planned_megabytes(plan({"--picture-memory", "0.001"}), "  pictures") == doctest::Approx(8 * 0.75).epsilon(0.01));
  refuses({t / "nowhere", "--dry-run"}, {t / "nowhere"});
  refuses({faces, "--dry-run", "--size", "256", "--memory", "0.1"}, {"out of memory", "--batch"});
}

TEST_CASE("fastgan_train: --dry-run tells the memory that decoding camera pictures takes, where that is the most") {
  const TempFolder t;
  for (const bool progressive : {false, true}) {
    const std::string photos = t / (progressive ? "progressive" : "baseline");
    fixtures::JpegKind kind;
    kind.progressive = progressive;
    if (progressive) kind.exif = fixtures::exif(6, false, true);  // taken upright: it is turned
    fixtures::write_file(photos + "/0.jpg", fixtures::jpeg(fixtures::sample(4000, 3000), kind));
    for (int i = 1; i < 9; i++) fs::create_symlink("0.jpg", photos + "/" + std::to_string(i) + ".jpg");
    std::vector<std::string> a = tiny(photos, t / "run" + std::to_string(progressive), {"--steps", "1", "--threads", "3", "--metric-every", "0"});
    const Finished run = run_program("fastgan_train", a);
    a.push_back("--dry-run");
    const Finished plan = run_program("fastgan_train", a);
    CAPTURE(plan.out);
    CAPTURE(run.err);
    REQUIRE(run.code == 0);
    const double all = reported_megabytes(run, " MB in all"), planned_all = planned_megabytes(plan.out, "memory:");
    MESSAGE("in all " << all << " MB, planned " << planned_all);
    CHECK(all > 100);  // more than training takes
    CHECK(std::abs(planned_all - all) < 0.1 * all);
  }
}

TEST_CASE("layer table: every layer reports its output and its parameters, in planning and at work") {
  for (const bool planning : {true, false}) {
    Context context(Device::cpu, planning);
    UseContext use(context);
    auto random = std::make_shared<Philox>(1);
    context.random = random;
    fastgan::Config c;
    c.size = 64;
    c.ngf = c.ndf = 4;
    fastgan::Model model(c);
    model.initialise(*random);
    LayerTable table;
    table.add("G", model.g_params);
    table.add("D", model.d_params);
    context.layers = &table;
    model.iteration(zeros(Shape{3, 64, 64, 3}), {});
    for (const auto& [name, set] : {std::pair<const char*, const ParameterSet*>{"G", &model.g_params}, {"D", &model.d_params}}) {
      int64_t sum = 0;
      for (const LayerTable::Row& r : table.rows(name)) {
        CAPTURE(r.layer);
        CHECK(r.output.rank() == 4);
        CHECK(r.output[0] == 3);
        sum += r.parameters;
      }
      CHECK(sum == set->parameter_count());
    }
    const auto row = [&](const char* network, const std::string& layer) {
      for (const LayerTable::Row& r : table.rows(network))
        if (r.layer == layer) return r;
      return LayerTable::Row{};
    };
    CHECK(table.rows("G").front().layer == "init.conv");
    CHECK(row("G", "init.conv").output == Shape{3, 4, 4, 128});
    CHECK(row("G", "init.bn").output == Shape{3, 4, 4, 64});  // with the gated linear unit behind it
    CHECK(row("G", "init.bn").parameters == 256);
    CHECK(row("G", "feat_8.conv1").output == Shape{3, 8, 8, 64});  // folded with the upsampling before it
    CHECK(row("G", "to_big").output == Shape{3, 64, 64, 3});
    CHECK(row("D", "stem.conv1").output == Shape{3, 64, 64, 4});
    CHECK(row("D", "rf_big.conv2").output == Shape{3, 5, 5, 1});
    CHECK(row("D", "decoder_part.conv").output == Shape{3, 32, 32, 3});
    CHECK(table.text("G").find("to_big") != std::string::npos);
  }
}

TEST_CASE("fastgan_train: no memory, a folder that cannot be made, and a picture of 100 megapixels") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 10, 32);
  {
    rlimit before{};
    getrlimit(RLIMIT_AS, &before);
    rlimit limit = before;
    limit.rlim_cur = 700u << 20;
    setrlimit(RLIMIT_AS, &limit);
    refuses(tiny(faces, t / "a", {"--ngf", "64", "--ndf", "64", "--size", "64", "--batch", "64", "--metric-every", "0"}), {"out of memory", "--batch"});
    setrlimit(RLIMIT_AS, &before);
  }
  refuses(tiny(faces, "/proc/run"), {"/proc/run", "--out"});

  Picture large{10'000, 10'000, std::vector<uint8_t>(300'000'000, 90)};
  fixtures::write_file(faces + "/large.jpg", fixtures::jpeg(large));
  large = {};
  const Finished f = run_program("fastgan_train", tiny(faces, t / "b", {"--steps", "1", "--metric-every", "0"}));
  CAPTURE(f.err);
  REQUIRE(f.code == 0);
  CHECK(f.out.find("11 pictures") != std::string::npos);
  MESSAGE("with a picture of 100 megapixels: " << reported_megabytes(f, " MB in all") << " MB");
  CHECK(reported_megabytes(f, " MB in all") < 700);  // 300 of them are its pixels
}
