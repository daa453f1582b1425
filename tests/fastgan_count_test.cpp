// What an iteration launches and moves: counted in planning, and the same as in a run that computes.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "engine/ops.h"
#include "models/fastgan_count.h"
#include "tests/program.h"

using namespace kiln;
using namespace kiln::test;

namespace {

fastgan::RunOptions small_run() {
  fastgan::RunOptions o;
  o.network.size = 32;
  o.network.ngf = o.network.ndf = 4;
  o.batch = 2;
  return o;
}

}  // namespace

TEST_CASE("count: a launcher's formula") {
  Context context(Device::cpu, true);
  UseContext use(context);
  std::vector<Moved> moved;
  context.counts = &moved;
  BatchNorm norm(6);
  ParameterSet parameters(norm, true);
  moved.clear();
  const Var x{Tensor(Shape{2, 5, 7, 6})};
  norm_glu(x, norm);
  REQUIRE(moved.size() == 2);
  const int64_t rows = 2 * 5 * 7;
  CHECK(std::string(moved[0].name) == "norm_prepare");
  CHECK(moved[0].launches == 3);
  CHECK(moved[0].passes.elements == rows * 6);
  CHECK(std::string(moved[1].name) == "norm_forward");
  CHECK(moved[1].passes.elements == rows * (6 + 3));
  CHECK(moved[1].passes.at(2) == 2 * rows * 9);

  // Folded, an upsampled 3x3 convolution needs 16 products a pixel of its input; apart, 9 for each of four.
  moved.clear();
  const Var y{Tensor(Shape{2, 8, 8, 6})}, w{Tensor(Shape{10, 3, 3, 6})};
  context.cpu_products = false;
  upsample_conv3x3(y, w);
  double folded = 0, apart = 0;
  for (const Moved& m : moved) folded += m.flops;
  moved.clear();
  conv2d(upsample2x(y), w, 1, 1);
  for (const Moved& m : moved) apart += m.flops;
  CHECK(folded == 2.0 * 2 * 8 * 8 * 6 * 10 * 16);
  CHECK(apart == 2.0 * 2 * 16 * 16 * 6 * 10 * 9);

  // The CPU's own ways: nine products, and Winograd's sixteen for four outputs where that way is taken.
  context.cpu_products = true;
  moved.clear();
  upsample_conv3x3(y, w);
  REQUIRE(moved.size() == 2);
  CHECK(std::string(moved[0].name) == "upsample_products");
  CHECK(moved[1].flops == 2.0 * 2 * 8 * 8 * 6 * 10 * 9);
  moved.clear();
  conv2d(Var(Tensor(Shape{1, 8, 8, 128})), Var(Tensor(Shape{128, 3, 3, 128})), 1, 1);
  REQUIRE(moved.size() == 2);
  CHECK(std::string(moved[1].name) == "winograd_forward");
  CHECK(moved[1].flops == 2.0 * 16 * 16 * 128 * 128);

  // Parameters stay f32 whatever the activations are.
  moved.clear();
  parameters.zero_grad();
  REQUIRE(moved.size() == 1);
  CHECK(moved[0].passes.at(moved[0].element_size) == int64_t(parameters.grads.bytes()));
  context.counts = nullptr;
}

TEST_CASE("count: planning notes exactly the calls that a real iteration makes") {
  const fastgan::RunOptions o = small_run();
  const std::vector<Moved> planned = fastgan::calls_of_iteration(o, DType::f32, true);

  Context context;
  UseContext use(context);
  auto random = std::make_shared<Philox>(o.seed);
  context.random = random;
  fastgan::Model model(o.network);
  model.initialise(*random);
  const Tensor real = zeros(Shape{o.batch, 32, 32, 3});
  std::vector<Moved> moved;
  context.counts = &moved;
  context.profile.on = true;
  model.iteration(real, o.train);
  context.counts = nullptr;
  int64_t booked = 0;
  for (int64_t n : context.profile.launches) booked += n;
  CHECK(booked == int64_t(moved.size()));
  REQUIRE(planned.size() == moved.size() + 3);  // and the gather with its two draws
  for (size_t i = 0; i < moved.size(); i++) {
    const Moved &real_call = moved[i], &planned_call = planned[i + 3];
    CAPTURE(real_call.name);
    CHECK(std::string(planned_call.name) == real_call.name);
    CHECK(planned_call.flops == real_call.flops);
    CHECK(planned_call.passes.at(4) == real_call.passes.at(4));
    CHECK(real_call.element_size == 4);
    CHECK(real_call.launches >= 1);
    CHECK(real_call.least.at(4) <= real_call.passes.at(4));
  }
}

TEST_CASE("count: operations of the published network at 256 px, folded and not") {
  fastgan::RunOptions o;
  o.network.size = 256;
  o.network.ngf = o.network.ndf = 64;
  CHECK(fastgan::count_iteration(o).total.flops == doctest::Approx(0.549e12).epsilon(0.002));
  o.network.fold_upsample = false;
  CHECK(fastgan::count_iteration(o).total.flops == doctest::Approx(0.859e12).epsilon(0.002));
}

TEST_CASE("count: the tables in docs/gpu.md are what the code counts") {
  const std::string page = file_text(std::string(KILN_SOURCE_DIR) + "/docs/gpu.md");
  for (int size : {256, 1024}) {
    fastgan::RunOptions o;
    o.network.size = size;
    o.network.ngf = o.network.ndf = 64;
    CAPTURE(size);
    CHECK_MESSAGE(page.find(fastgan::to_markdown(fastgan::count_iteration(o))) != std::string::npos, "run make count-table");
  }
}

TEST_CASE("count: the memory of a GPU's iteration") {
  fastgan::RunOptions o = small_run();
  const fastgan::MemoryPlan small = fastgan::plan_memory(o);
  {
    Context context(Device::cpu, true);
    UseContext use(context);
    const fastgan::Model model(o.network);
    // Values, gradients and two moments of both networks, and the average of G.
    const int64_t floats =
        4 * (model.g_params.values.count() + model.d_params.values.count()) + model.average_params.values.count();
    CHECK(small.state > size_t(4 * floats));
    CHECK(double(small.state) < 1.3 * 4 * double(floats) + 1e6);
  }
  CHECK(small.peak_16 > small.state);
  CHECK(small.peak_f32 > small.peak_16);
  // A CPU that does the same holds the same, and its library's scratch space.
  Context context;
  UseContext use(context);
  context.cpu_products = false;
  auto random = std::make_shared<Philox>(o.seed);
  context.random = random;
  fastgan::Model model(o.network);
  model.initialise(*random);
  const Tensor real = zeros(Shape{o.batch, o.network.size, o.network.size, 3});
  model.iteration(real, o.train);
  CHECK(double(context.arena->stats().peak) == doctest::Approx(double(small.peak_f32)).epsilon(0.05));

  const std::string page = file_text(std::string(KILN_SOURCE_DIR) + "/docs/gpu.md");
  for (int size : {256, 512, 1024}) {
    o = fastgan::RunOptions();
    o.network.size = size;
    o.network.ngf = o.network.ndf = 64;
    const fastgan::MemoryPlan plan = fastgan::plan_memory(o);
    CAPTURE(size);
    CHECK_MESSAGE(page.find(fastgan::memory_row(plan, size)) != std::string::npos, "run make count-table");
    CHECK(plan.peak_16 + (size_t(256) << 20) <
          5'000'000'000u);  // with the largest workspace that a convolution may have
  }
}

TEST_CASE("bench_programs: bench_fastgan counts, runs, and refuses what it does not know") {
  const Finished table = run_program("bench_fastgan", {"--count", "--size", "64", "--width", "8"});
  CHECK(table.code == 0);
  CHECK(table.out.find("| norm_backward |") != std::string::npos);
  const Finished count = run_program("bench_fastgan", {"--count", "--json", "--size", "64", "--width", "8", "--no-fold"});
  REQUIRE(count.code == 0);
  const auto j = nlohmann::json::parse(count.out);
  CHECK(j["launches"].get<int>() > 500);
  CHECK(j["fold_upsample"] == false);
  CHECK(j["peak_bytes_16"].get<double>() > j["state_bytes"].get<double>());
  const Finished timed = run_program("bench_fastgan", {"--size", "32", "--width", "2", "--batch", "2", "--steps", "1", "--warmup", "1"});
  REQUIRE(timed.code == 0);
  const auto line = nlohmann::json::parse(timed.out);
  CHECK(line["seconds_per_step"].get<double>() > 0);
  CHECK(line["images_per_second"].get<double>() == doctest::Approx(2 / line["seconds_per_step"].get<double>()));
  CHECK(line["reserved_mb"].get<double>() >= line["tensor_mb"].get<double>());
  for (const std::vector<std::string>& bad : {std::vector<std::string>{"--json"}, {"--device", "tpu"}, {"--size", "48"}, {"--count", "--size", "48"}, {"--count", "--precision", "f16"}, {"--tf32"}}) {
    const Finished f = run_program("bench_fastgan", bad);
    CAPTURE(bad[0]);
    CHECK(f.code == 2);
    CHECK(!f.err.empty());
  }
}
