// bench_kernels: checks every fused kernel at the shapes of a real network, then times it: GB/s or TFLOP/s, the share of the
// device's own limit measured in the same run, and the time of the composition that it fuses. docs/kernels.md explains a line.
#include <omp.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "apps/start.h"
#include "bench/kernel_bench.h"
#include "engine/backend/gpu_runtime.h"
#include "engine/error.h"
#include "engine/file.h"
#include "engine/random.h"
#include "models/fastgan.h"

using namespace kiln;
using namespace kiln::bench;

namespace {

struct Flags {
  std::vector<int> sizes;
  std::vector<std::string> dtypes;
  std::string device = "auto", filter, json;
  int width = 64, threads = 0;
  int64_t batch = 8;
  bool quick = false, list = false;
};

constexpr const char* kTitle = "{:28} {:24} {:4} {:>5} {:>9} {:>7} {:>8} {:>9} {:>6} {:>10} {:>7}\n";

DType dtype_from(const std::string& name) { return name == "f16" ? DType::f16 : name == "bf16" ? DType::bf16 : DType::f32; }

void print(const nlohmann::json& r) {
  const auto number = [&](const char* key, const char* format, double factor = 1) {
    return r[key].is_null() ? std::string("-") : fmt::format(fmt::runtime(format), r[key].get<double>() * factor);
  };
  if (r.contains("skipped")) {
    fmt::print("{:28} {:24} {:4} skipped: {}\n", r["kernel"].get<std::string>(), r["shape"].get<std::string>(), r["dtype"].get<std::string>(),
               r["skipped"].get<std::string>());
    return;
  }
  const std::string spread = fmt::format("{:.0f} %", 100 * (r["ms_high"].get<double>() - r["ms_low"].get<double>()) / r["ms"].get<double>());
  fmt::print(kTitle, r["kernel"].get<std::string>(), r["shape"].get<std::string>(), r["dtype"].get<std::string>(),
             r["correct"].get<bool>() ? "ok" : "WRONG", number("ms", "{:.3f}"), spread, number("gbps", "{:.1f}"), number("tflops", "{:.3f}"),
             number("share_of_limit", "{:.0f} %", 100), number("unfused_ms", "{:.3f}"),
             r["unfused_ms"].is_null() ? "-" : fmt::format("{:.2f}x", r["unfused_ms"].get<double>() / r["ms"].get<double>()));
  std::fflush(stdout);
}

/// What the device can do at most; tflop_per_s by type.
struct Limits {
  double gb_per_s = 0;
  std::map<DType, double> tflop_per_s;
};

nlohmann::json measure(const Case& c, const Method& m, const Limits& limits) {
  nlohmann::json r{{"kernel", c.kernel}, {"shape", c.shape}, {"dtype", name_of(c.dtype)}, {"correct", nullptr}, {"ms", nullptr},
                   {"gbps", nullptr},    {"tflops", nullptr}, {"share_of_limit", nullptr}, {"unfused_ms", nullptr}};
  try {
    const Prepared p = c.prepare();
    const double error = p.error();
    r["error"] = std::isfinite(error) ? nlohmann::json(error) : nlohmann::json("nan");
    r["correct"] = error <= 1;  // a NaN is not
    const Amount amount = amount_of(p.run);
    const Spread time = time_of(p.run, m);
    r["ms"] = time.median;
    r["ms_low"] = time.low;
    r["ms_high"] = time.high;
    r["bytes"] = amount.bytes;
    const double gbps = double(amount.bytes) / (time.median * 1e6), tflops = amount.flops / (time.median * 1e9);
    r["gbps"] = gbps;
    double share = gbps / limits.gb_per_s;
    if (amount.flops > 0) {
      r["tflops"] = tflops;
      if (const double most = limits.tflop_per_s.at(c.dtype); most > 0) share = std::max(share, tflops / most);
    }
    r["share_of_limit"] = share;
    if (p.unfused) r["unfused_ms"] = time_of(p.unfused, m).median;
  } catch (const std::exception& e) {  // no memory for it, or no library for it on this device
    r["skipped"] = e.what();
  }
  return r;
}

int run(Flags f) {
  if (f.sizes.empty()) f.sizes = f.quick ? std::vector<int>{64} : std::vector<int>{256, 1024};
  std::string why;
  const bool gpu = f.device == "gpu" || (f.device == "auto" && gpu_runtime::available(&why));
  if (f.device == "gpu" && !gpu_runtime::available(&why)) fail("--device gpu: {}; use --device cpu", why);
  if (f.dtypes.empty()) f.dtypes = gpu ? std::vector<std::string>{"f32", "f16", "bf16"} : std::vector<std::string>{"f32"};
  if (f.threads > 0) omp_set_num_threads(f.threads);
  if (f.batch < 1 || f.batch > 1024) fail("--batch {}: must be from 1 to 1024", f.batch);
  for (int size : f.sizes) {
    fastgan::Config c;
    c.size = size;
    c.ngf = c.ndf = f.width;
    fastgan::check(c);
  }
  Context context(gpu ? Device::gpu : Device::cpu);
  UseContext use(context);
  context.random = std::make_shared<Philox>(1);
  const Method method = f.quick ? Method{3, 16 << 20} : Method{};

  std::vector<Case> cases;
  std::vector<int> size_of_case;
  for (int size : f.sizes)
    for (const std::string& t : f.dtypes)
      for (Case& c : all_cases({size, f.width, f.batch}, dtype_from(t)))
        if (f.filter.empty() || c.kernel.find(f.filter) != std::string::npos) {
          cases.push_back(std::move(c));
          size_of_case.push_back(size);
        }
  if (cases.empty()) fail("--filter {}: no kernel has this in its name; --list prints the names", f.filter);
  if (f.list) {
    for (const Case& c : cases) fmt::print("{} {} {}\n", c.kernel, c.shape, name_of(c.dtype));
    return 0;
  }
  nlohmann::json results = nlohmann::json::array();
  // After every case: a run that is stopped leaves what it has.
  const auto keep = [&] {
    if (f.json.empty()) return;
    const std::string text = results.dump(1) + "\n";
    AtomicFile file(f.json);
    file.write(text.data(), text.size());
    file.commit(false);
  };
  keep();
  Limits limits{copy_gb_per_s(method, f.quick), {}};
  const std::string device = gpu ? gpu_runtime::describe() : fmt::format("cpu, {} threads", omp_get_max_threads());
  fmt::print("{}: a copy moves {:.1f} GB/s; a large matrix product does", device, limits.gb_per_s);
  for (const std::string& name : f.dtypes) {
    const double most = limits.tflop_per_s[dtype_from(name)] = matrix_tflop_per_s(dtype_from(name), method, f.quick);
    fmt::print(" {} in {}{}", most > 0 ? fmt::format("{:.3f} TFLOP/s", most) : "not run on this device", name,
               name == f.dtypes.back() ? "\n" : ",");
  }
  fmt::print(kTitle, "kernel", "shape", "type", "right", "ms", "spread", "GB/s", "TFLOP/s", "limit", "unfused ms", "gains");
  bool all_right = true;
  for (size_t i = 0; i < cases.size(); i++) {
    const Case& c = cases[i];
    nlohmann::json r = measure(c, method, limits);
    r["size"] = size_of_case[i];
    r["device"] = device;
    r["copy_gbps"] = limits.gb_per_s;
    r["matrix_tflops"] = limits.tflop_per_s.at(c.dtype);
    print(r);
    if (r["correct"].is_boolean() && !r["correct"].get<bool>()) all_right = false;
    results.push_back(std::move(r));
    keep();
  }
  if (!all_right) fmt::print(stderr, "bench_kernels: a kernel's results are wrong: see WRONG above\n");
  return all_right ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  start(argv);
  CLI::App app("Checks and times every fused kernel at the shapes of FastGAN, against the device's own limits. Exit code 1: a wrong result.",
               "bench_kernels");
  Flags f;
  app.add_option("--size", f.sizes, "FastGAN's sizes to take shapes from (default: 256 1024)");
  app.add_option("--width", f.width, "its ngf and ndf")->capture_default_str();
  app.add_option("--batch", f.batch, "pictures")->capture_default_str();
  app.add_option("--dtype", f.dtypes, "storage types: f32, f16, bf16 (default: f32 on a CPU, all on a GPU)")->check(CLI::IsMember({"f32", "f16", "bf16"}));
  app.add_option("--device", f.device, "auto, cpu, gpu")->check(CLI::IsMember({"auto", "cpu", "gpu"}))->capture_default_str();
  app.add_option("--filter", f.filter, "only kernels whose name has this in it");
  app.add_option("--json", f.json, "also write the results to this file");
  app.add_option("--threads", f.threads, "CPU threads (0: all)")->check(CLI::Range(0, 4096))->capture_default_str();
  app.add_flag("--quick", f.quick, "few repeats, and the shapes of 64 px unless --size says otherwise");
  app.add_flag("--list", f.list, "print the names of the cases and stop");
  try {
    app.parse(argc, argv);
    return run(f);
  } catch (const CLI::CallForHelp&) {
    fmt::print("{}", app.help());
    return 0;
  } catch (const std::exception& e) {
    fmt::print(stderr, "bench_kernels: {}\n", e.what());
    return 2;
  }
}
