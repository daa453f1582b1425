#include "models/fastgan_count.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "engine/error.h"

namespace kiln::fastgan {
namespace {

constexpr double kMega = 1e6, kGiga = 1e9;

using ByName = std::map<std::string, CountedKernel>;

ByName by_name(const std::vector<Moved>& calls) {
  ByName sums;
  for (const Moved& m : calls) {
    CountedKernel& k = sums[m.name];
    k.calls++;
    k.launches += m.launches;
    k.bytes_16 += m.passes.at(m.element_size);
    k.least_16 += m.least.at(m.element_size);
    k.flops += m.flops;
  }
  return sums;
}

/// A network in planning mode on the CPU, with its data: from the gather to the moving average, as ./bench_fastgan
/// times it.
struct Planned {
  Context context;
  UseContext use;
  std::shared_ptr<Philox> random;
  RunOptions o;
  Model model;
  std::unique_ptr<PictureSet> set;
  Tensor index;

  Planned(const RunOptions& options, DType storage, bool cpu_products)
      : context(Device::cpu, true),
        use(context),
        random(sources(context, options, storage, cpu_products)),
        o(options),
        model(o.network) {
    const int side = o.network.size;
    const std::vector<uint8_t> bytes(size_t(o.batch) * size_t(side) * size_t(side) * 3);
    set = std::make_unique<PictureSet>(bytes.data(), o.batch, side, side);
    index = Tensor(Shape{o.batch}, DType::i32);
  }
  static std::shared_ptr<Philox> sources(Context& c, const RunOptions& o, DType storage, bool cpu_products) {
    c.storage = storage;
    c.cpu_products = cpu_products;
    auto random = std::make_shared<Philox>(o.seed);
    c.random = random;
    return random;
  }
  void iteration() {
    const Tensor real = gather_augmented(*set, index, random->uniform("flip", Shape{o.batch, 1}), 0.5f, o.train.augment,
                                         random->uniform("augment.real", Shape{o.batch, kAugmentUniforms}));
    model.iteration(real, o.train);
  }
};

}  // namespace

std::vector<Moved> calls_of_iteration(const RunOptions& o, DType storage, bool cpu_products) {
  Planned planned(o, storage, cpu_products);
  std::vector<Moved> calls;
  planned.context.counts = &calls;
  planned.iteration();
  planned.context.counts = nullptr;
  return calls;
}

MemoryPlan plan_memory(const RunOptions& o) {
  check(o);
  MemoryPlan plan;
  for (const DType t : {DType::f32, DType::f16}) {
    Planned planned(o, t, false);
    planned.iteration();  // the first makes what the others find
    const size_t pictures = planned.set->pixels.bytes();
    planned.context.arena->reset_peak();
    planned.iteration();
    const Arena::Stats s = planned.context.arena->stats();
    plan.state = s.in_use - pictures;
    (t == DType::f32 ? plan.peak_f32 : plan.peak_16) = s.peak - pictures;
  }
  return plan;
}

Count count_iteration(const RunOptions& o) {
  check(o);
  ByName kernels = by_name(calls_of_iteration(o, DType::f16, false));
  for (const auto& [name, in_f32] : by_name(calls_of_iteration(o, DType::f32, false))) kernels[name].bytes_f32 = in_f32.bytes_16;
  Count count;
  count.total.name = "total";
  for (auto& [name, k] : kernels) {
    k.name = name;
    count.kernels.push_back(k);
    CountedKernel& sum = count.total;
    sum.calls += k.calls;
    sum.launches += k.launches;
    sum.bytes_f32 += k.bytes_f32;
    sum.bytes_16 += k.bytes_16;
    sum.least_16 += k.least_16;
    sum.flops += k.flops;
  }
  std::stable_sort(count.kernels.begin(), count.kernels.end(),
                   [](const CountedKernel& a, const CountedKernel& b) { return a.bytes_f32 > b.bytes_f32; });
  return count;
}

std::string to_markdown(const Count& c) {
  std::string text =
      "| kernel | calls | launches | MB moved, f32 | MB moved, 16 bits | least MB, 16 bits | GFLOP |\n"
      "|---|---:|---:|---:|---:|---:|---:|\n";
  const auto row = [&](const CountedKernel& k) {
    const std::string operations = k.flops > 0 ? fmt::format("{:.1f}", k.flops / kGiga) : "";
    text += fmt::format("| {} | {} | {} | {:.1f} | {:.1f} | {:.1f} | {} |\n", k.name, k.calls, k.launches, double(k.bytes_f32) / kMega,
                        double(k.bytes_16) / kMega, double(k.least_16) / kMega, operations);
  };
  for (const CountedKernel& k : c.kernels) row(k);
  row(c.total);
  return text;
}

std::string to_json(const Count& c, const MemoryPlan& m, const RunOptions& o) {
  const auto object = [](const CountedKernel& k) {
    return nlohmann::json{{"kernel", k.name},
                          {"calls", k.calls},
                          {"launches", k.launches},
                          {"bytes_f32", k.bytes_f32},
                          {"bytes_16", k.bytes_16},
                          {"least_bytes_16", k.least_16},
                          {"flops", k.flops}};
  };
  nlohmann::json j = object(c.total);
  j.erase("kernel");
  j["size"] = o.network.size;
  j["width"] = o.network.ngf;
  j["batch"] = o.batch;
  j["state_bytes"] = m.state;
  j["peak_bytes_f32"] = m.peak_f32;
  j["peak_bytes_16"] = m.peak_16;
  j["fold_upsample"] = o.network.fold_upsample;
  for (const CountedKernel& k : c.kernels) j["kernels"].push_back(object(k));
  return j.dump();
}

std::string memory_row(const MemoryPlan& m, int size) {
  return fmt::format("| {} | {:.0f} | {:.0f} | {:.0f} |\n", size, double(m.state) / kMega, double(m.peak_f32) / kMega,
                     double(m.peak_16) / kMega);
}

}  // namespace kiln::fastgan
