// bench_fastgan --sample: pictures a second of a folded generator.
#pragma once
#include <omp.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "apps/bench_training.h"
#include "engine/backend/gpu_runtime.h"
#include "engine/progress.h"
#include "models/fastgan_folded.h"
#include "models/fastgan_run.h"

namespace kiln::fastgan {

/// o.steps batches of o.batch pictures, z and noise drawn anew for each; the median counts.
inline nlohmann::json measure_sampling(const RunOptions& o, int warm_up) {
  if (o.threads > 0) omp_set_num_threads(o.threads);
  const bool gpu = o.device == Device::gpu;
  Context context(o.device);
  const UseContext use(context);
  context.library = o.library;
  const auto random = std::make_shared<Philox>(o.seed);
  context.random = random;
  const Stopwatch loading;
  std::optional<FoldedGenerator> folded;
  {
    Generator g(o.network);
    ParameterSet parameters(g, false);
    parameters.initialise(*random, "G.");
    SpectralGroup group(g);
    const NoGrad none;
    const Evaluation evaluation;
    group.prepare(parameters.values, Tensor(), parameters.vectors);
    folded.emplace(g);
    group.release();
  }
  const double load_seconds = loading.seconds();
  std::vector<double> seconds;
  context.profile.on = !gpu;  // a profile would wait for every launch
  for (int64_t i = 0; i < warm_up + o.steps; i++) {
    if (i == warm_up) context.profile.seconds = {};
    const Stopwatch watch;
    random->set_step(uint64_t(i));
    (*folded)(random->normal("z", Shape{o.batch, o.network.nz}));
    if (gpu) gpu_runtime::synchronise();
    if (i >= warm_up) seconds.push_back(watch.seconds());
  }
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2];
  return {{"size", o.network.size}, {"width", o.network.ngf}, {"batch", o.batch}, {"device", name_of(o.device)}, {"threads", omp_get_max_threads()},
          {"seconds_per_batch", median}, {"fastest", seconds[0]}, {"pictures_per_second", o.batch / median}, {"load_seconds", load_seconds},
          {"peak_mb", peak_mb()}, {"parts", parts_of(context.profile, o.steps)}};
}

}  // namespace kiln::fastgan
