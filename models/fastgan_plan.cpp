// What --dry-run prints: the layers, the parameters, and the memory that a run will need.
#include "engine/error.h"
#include "models/fastgan_run.h"

namespace kiln::fastgan {

void dry_run(const RunOptions& o) {
  check(o);
  Context context(o.device, true, size_t(o.memory_gb * (1ull << 30)));
  UseContext use(context);
  context.library = o.library;
  context.random = std::make_shared<Philox>(o.seed);
  Model model(o.network);
  const auto table = [](const char* title, const ParameterSet& set) {
    fmt::print("{}\n", title);
    for (const auto& e : set.entries())
      if (e.kind == ParameterSet::Entry::parameter) fmt::print("  {:32} {:>18} {:>12}\n", e.name, e.shape.text(), e.count());
    fmt::print("  {:32} {:>18} {:>12}\n", "total", "", set.parameter_count());
  };
  table("G", model.g_params);
  table("D", model.d_params);
  for (int i = 0; i < 2; i++) {
    std::vector<Tensor> parts;
    for (int k = 0; k < o.accumulate; k++) parts.emplace_back(Shape{o.batch / o.accumulate, o.network.size, o.network.size, 3});
    model.iteration(parts, o.train);
  }
  model.sample(Tensor(Shape{std::min<int64_t>(o.batch / o.accumulate, int64_t(o.grid) * o.grid), o.network.nz}));
  const Arena::Stats s = context.arena->stats();
  fmt::print("memory: {} MB of tensors at the peak of a step with batch {} ({} MB reserved), and the pictures: {:.2f} MB each\n",
             s.peak >> 20, o.batch, s.reserved >> 20, double(o.network.size) * o.network.size * 3 / 1048576.0);
}

}  // namespace kiln::fastgan
