// ./bench_kernels: every case is right at a small scale, its file has what it promises, and mistakes are refused.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "bench/kernel_bench.h"
#include "engine/random.h"
#include "models/fastgan_count.h"
#include "tests/program.h"

using namespace kiln;
using namespace kiln::test;
using kiln::bench::Comparison;

TEST_CASE("bench: a comparison accepts rounding and nothing else") {
  const auto error = [](DType t, double got, double want) {
    Comparison c(t);
    c.add(100, 100);  // the size that f32 arithmetic is measured against
    c.add(got, want);
    return c.error();
  };
  CHECK(error(DType::f32, 1, 1) == 0);
  CHECK(error(DType::f32, 1.001, 1) <= 1);
  CHECK(error(DType::f32, 1.003, 1) > 1);
  CHECK(error(DType::f16, 90.04, 90) <= 1);
  CHECK(error(DType::f16, 90.1, 90) > 1);
  CHECK(error(DType::bf16, 90.3, 90) <= 1);
  CHECK(error(DType::bf16, 91, 90) > 1);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_FALSE(error(DType::f32, nan, 1) <= 1);
  CHECK_FALSE(error(DType::f32, std::numeric_limits<double>::infinity(), 1) <= 1);
  CHECK_FALSE(Comparison(DType::f32).error() <= 1);  // nothing compared is nothing proved
}

TEST_CASE("bench: every case of every storage type is right, and moves what its formula says") {
  for (DType t : {DType::f32, DType::f16, DType::bf16}) {
    Context context;
    UseContext use(context);
    context.random = std::make_shared<Philox>(1);
    for (const bench::Case& c : bench::all_cases({32, 4, 2}, t)) {
      CAPTURE(c.kernel);
      CAPTURE(c.shape);
      const bench::Prepared p = c.prepare();
      CHECK(p.error() <= 1);
      CHECK(bench::amount_of(p.run).bytes > 0);
      if (p.unfused) p.unfused();
    }
  }
}

TEST_CASE("bench: the cases are all kernels of an iteration, but those that move a few numbers") {
  std::set<std::string> measured;
  for (DType t : {DType::f32, DType::f16}) {
    Context context;
    UseContext use(context);
    context.random = std::make_shared<Philox>(1);
    for (const bench::Case& c : bench::all_cases({32, 4, 2}, t)) {
      const bench::Prepared p = c.prepare();
      std::vector<Moved> moved;
      context.counts = &moved;
      p.run();
      context.counts = nullptr;
      for (const Moved& m : moved) measured.insert(m.name);
    }
  }
  for (int size : {256, 1024}) {
    fastgan::RunOptions o;
    o.network.size = size;
    o.network.ngf = o.network.ndf = 64;
    const fastgan::Count count = fastgan::count_iteration(o);
    int64_t left_out = 0;
    for (const fastgan::CountedKernel& k : count.kernels) {
      if (k.flops > 0 || measured.contains(k.name)) continue;
      CAPTURE(k.name);
      CHECK(k.bytes_16 < 1'000'000);
      left_out += k.bytes_16;
    }
    CHECK(double(left_out) < 1e-4 * double(count.total.bytes_16));
  }
}

TEST_CASE("bench_programs: bench_kernels writes a list with every key, and refuses what it does not know") {
  const TempFolder t;
  const Finished f = run_program("bench_kernels", {"--quick", "--size", "32", "--width", "4", "--batch", "2", "--device", "cpu", "--filter", "forward",
                                                   "--dtype", "f32", "--dtype", "bf16", "--json", t / "k.json"});
  REQUIRE(f.code == 0);
  const auto list = nlohmann::json::parse(file_text(t / "k.json"));
  REQUIRE(list.is_array());
  std::set<std::string> kernels, types;
  for (const auto& r : list) {
    for (const char* key : {"kernel", "shape", "dtype", "correct", "ms", "gbps", "share_of_limit", "unfused_ms", "device", "copy_gbps"}) CHECK(r.contains(key));
    CHECK(r["correct"] == true);
    CHECK(r["ms"].get<double>() > 0);
    CHECK(r["gbps"].get<double>() > 0);
    CHECK(r["kernel"].get<std::string>().find("forward") != std::string::npos);
    kernels.insert(r["kernel"].get<std::string>());
    types.insert(r["dtype"].get<std::string>());
  }
  CHECK(kernels.count("norm_forward_glu_noise") == 1);
  CHECK(kernels.size() >= 8);
  CHECK(types.size() == 2);
  CHECK(run_program("bench_kernels", {"--help"}).code == 0);
  const Finished names = run_program("bench_kernels", {"--list", "--device", "cpu"});
  CHECK(names.code == 0);
  CHECK(names.out.find("adam_ema G1024 f32") != std::string::npos);
  for (const std::vector<std::string>& bad :
       {std::vector<std::string>{"--filter", "no such kernel"}, {"--size", "48"}, {"--dtype", "f8"}, {"--batch", "0"}, {"--device", "tpu"},
        {"--width", "3"}, {"--no-such-flag"}, {"--list", "extra"},
        {"--quick", "--device", "cpu", "--filter", "hinge", "--json", t / "no/such/folder/k.json"}}) {
    const Finished refused = run_program("bench_kernels", bad);
    CAPTURE(bad[0]);
    CHECK(refused.code == 2);
    CHECK(std::count(refused.err.begin(), refused.err.end(), '\n') == 1);
  }
}
