// biggan_train --dry-run: the layers that a run has, and the memory that it takes.
#include <cmath>
#include <filesystem>

#include "engine/convolution.h"
#include "engine/layer_table.h"
#include "models/biggan_run.h"
#include "tests/support.h"
#include "tests/training_runs.h"

using namespace kiln;
using namespace kiln::test;
namespace fs = std::filesystem;

namespace {

/// Drawn faces in two class folders, `first` of them in one.
std::string two_classes(const TempFolder& t, int count, int first) {
  const fs::path faces = draw_faces(t, count, 40), root = t.path() / "classes";
  int at = 0;
  for (const auto& e : fs::directory_iterator(faces)) {
    const fs::path folder = root / (at++ < first ? "first" : "second");
    fs::create_directories(folder);
    fs::copy(e.path(), folder / e.path().filename());
  }
  return root.string();
}

}  // namespace

TEST_CASE("biggan_train: --dry-run tells the memory that the run then takes, within a tenth") {
  const TempFolder t;
  const std::string faces = two_classes(t, 80, 60);
  int k = 0;
  for (const std::vector<std::string>& more : std::initializer_list<std::vector<std::string>>{
           {"--width", "8", "--batch", "8", "--metric-every", "0"},
           {"--width", "16", "--batch", "16", "--metric-every", "0", "--no-fold", "--d-steps", "2"},
           {"--width", "16", "--batch", "16", "--accumulate", "4", "--metric-every", "0", "--unconditional"},
           {"--width", "8", "--batch", "8", "--metric-every", "2"},  // a distance of each class beside that of all
           {"--width", "8", "--batch", "8", "--size", "64", "--metric-every", "0", "--standing", "0"},
           {"--width", "16", "--batch", "8", "--size", "64", "--metric-every", "0", "--precision", cpu_has_bf16() ? "bf16" : "f16"},
           {"--width", "16", "--batch", "8", "--size", "64", "--deep", "--metric-every", "0", "--ortho", "1e-4"},
           {"--width", "8", "--batch", "8", "--size", "128", "--metric-every", "0"}}) {
    std::vector<std::string> a{faces, "--no-cache", "--steps", "2", "--grid", "2", "--out", t / std::to_string(k++), "--device", "cpu"};
    a.insert(a.end(), more.begin(), more.end());
    const Finished run = run_program("biggan_train", a);
    a.push_back("--dry-run");
    const Finished plan = run_program("biggan_train", a);
    CAPTURE(plan.out);
    CAPTURE(run.err);
    REQUIRE(run.code == 0);
    REQUIRE(plan.code == 0);
    CHECK(plan.out.find("80 files") != std::string::npos);
    CHECK(plan.out.find(more.back() == "--unconditional" ? "0 classes" : "2 classes") != std::string::npos);
    const double tensors = reported_megabytes(run, " MB of tensors"), all = reported_megabytes(run, " MB in all");
    const double planned_all = planned_megabytes(plan.out, "memory:"), planned_tensors = planned_megabytes(plan.out, "(");
    MESSAGE("tensors " << tensors << " MB, planned " << planned_tensors << "; in all " << all << " MB, planned " << planned_all);
    CHECK(std::abs(planned_tensors - tensors) < 0.02 * tensors + 1.1);  // both are rounded to a megabyte
    CHECK(std::abs(planned_all - all) < 0.1 * all);
  }
}

TEST_CASE("nsbgan_train: --dry-run of the sampler tells the memory that the run then takes, within a tenth") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 60, 64);
  int k = 0;
  for (const char* metric_every : {"0", "2"}) {
    std::vector<std::string> a{"sampler", faces, "--unconditional", "--size", "128", "--levels", "1", "--width", "8", "--batch", "8", "--no-cache", "--steps", "2",
                               "--grid", "2", "--metric-every", metric_every, "--out", t / std::to_string(k++), "--device", "cpu"};
    const Finished run = run_program("nsbgan_train", a);
    a.push_back("--dry-run");
    const Finished plan = run_program("nsbgan_train", a);
    CAPTURE(plan.out);
    CAPTURE(run.err);
    CAPTURE(plan.err);
    REQUIRE(run.code == 0);
    REQUIRE(plan.code == 0);
    const double all = reported_megabytes(run, " MB in all"), planned_all = planned_megabytes(plan.out, "memory:");
    MESSAGE("in all " << all << " MB, planned " << planned_all);
    CHECK(std::abs(planned_all - all) < 0.1 * all);
  }
}

TEST_CASE("layer table: every layer of BigGAN reports its output and its parameters") {
  for (const bool deep : {false, true})
    for (const bool by_table : {false, true}) {
      if (deep && by_table) continue;  // no such network
      CAPTURE(deep);
      CAPTURE(by_table);
      Context context(Device::cpu, true);
      UseContext use(context);
      context.random = std::make_shared<Philox>(1);
      biggan::Config c;
      c.size = 64;
      c.g_width = c.d_width = 8;
      c.classes = 5;
      c.deep = deep;
      c.g_attention = c.d_attention = 32;
      if (by_table) c.shared = c.hierarchical = false;
      biggan::Model model(c);
      LayerTable table;
      table.add("G", model.g_params);
      table.add("D", model.d_params);
      context.layers = &table;
      model.iteration([&](int, int) { return biggan::RealPart{Tensor(Shape{3, 64, 64, 3}), Tensor(Shape{3}, DType::i32)}; }, {});
      for (const auto& [name, set] : {std::pair<const char*, const ParameterSet*>{"G", &model.g_params}, {"D", &model.d_params}}) {
        int64_t sum = 0;
        for (const LayerTable::Row& r : table.rows(name)) {
          CAPTURE(r.layer);
          CHECK(r.output.rank() >= 1);
          CHECK(r.output[0] == (std::string(name) == "D" ? 6 : 3));  // D sees real and made pictures together
          sum += r.parameters;
        }
        CHECK(sum == set->parameter_count());
      }
      const auto output = [&](const char* network, const std::string& layer) {
        for (const LayerTable::Row& r : table.rows(network))
          if (r.layer == layer) return r.output;
        return Shape{};
      };
      CHECK(output("G", "linear") == Shape{3, 16 * 8 * 16});
      CHECK(output("G", "output.conv") == Shape{3, 64, 64, 3});
      CHECK(output("G", "output.bn") == Shape{3, 64, 64, 16});
      CHECK(output("G", "attention.theta") == Shape{3, 32, 32, 4});
      CHECK(output("G", "attention") == Shape{3, 32, 32, 32});
      CHECK(output("D", "linear") == Shape{6});
      CHECK(output("D", "embed") == Shape{6});
      if (!deep) {
        CHECK(output("G", "blocks.0.conv1") == Shape{3, 8, 8, 128});  // folded with the upsampling before it
        CHECK(output("D", "blocks.0.conv2") == Shape{6, 32, 32, 8});  // and with the pooling behind it
        CHECK(output("G", by_table ? "blocks.0.bn1" : "blocks.0.bn1.gain") == Shape{3, 128});
      }
      if (!by_table) CHECK(output("G", "shared") == Shape{3, 128});
    }
}
