#include "engine/training_options.h"

#include <fmt/format.h>
#include <omp.h>

#include "engine/backend/gpu_runtime.h"
#include "engine/error.h"
#include "engine/precision.h"
#include "engine/ranks.h"

namespace kiln {

int TrainingOptions::rank_count() const { return ranks ? ranks->size() : 1; }

void check_range(const char* flag, double value, double low, double high) {
  if (!(value >= low && value <= high)) fail("{} {}: the value must be from {} to {}", flag, value, low, high);
}

void check_training(const TrainingOptions& o) {
  check_range("--steps", double(o.steps), 1, 1e9);
  check_range("--minutes", o.minutes, 0, 1e7);
  check_range("--flip", o.flip, 0, 1);
  check_range("--log-every", double(o.log_every), 1, 1e9);
  check_range("--sample-every", double(o.sample_every), 0, 1e9);
  check_range("--metric-every", double(o.metric_every), 0, 1e9);
  check_range("--checkpoint-every", double(o.checkpoint_every), 1, 1e9);
  check_range("--keep", o.keep, 0, 1e6);
  check_range("--grid", o.grid, 1, 64);
  check_range("--max-rewinds", o.max_rewinds, 0, 1000);
  check_range("--threads", o.threads, 0, 4096);
  check_range("--memory", o.memory_gb, 0, 1e5);
  check_range("--picture-memory", o.picture_memory_gb, 0, 1e5);
  require_precision(o.precision, o.device);
  if (o.device == Device::cpu && (o.library.tf32 || o.library.autotune))
    fail("{}: only a GPU has a choice there, and this run is on the CPU; leave it out", o.library.tf32 ? "--tf32" : "--autotune");
}

void check_parts(const TrainingOptions& o, int parts) {
  check_range("--accumulate", parts, 1, o.batch);
  if (o.batch % parts) fail("--accumulate {}: must divide --batch {}", parts, o.batch);
  if (o.ranks) o.ranks->require_divides(o.batch, parts);
}

DatasetOptions dataset_options(const TrainingOptions& o, int side) {
  DatasetOptions d;
  d.folder = o.data;
  d.size = side;
  d.fit = o.fit;
  d.background = o.background;
  d.strict = o.strict;
  d.threads = o.threads;
  if (o.cache) d.cache_folder = default_cache_folder();
  if (o.picture_memory_gb > 0) d.max_bytes = uint64_t(o.picture_memory_gb * double(1ull << 30));
  return d;
}

RunPlan plan_of(const TrainingOptions& o) {
  RunPlan p;
  p.out = o.out;
  p.resume = o.resume;
  p.resume_file = o.resume_file;
  p.steps = o.steps;
  p.minutes = o.minutes;
  p.log_every = o.log_every;
  p.sample_every = o.sample_every;
  p.metric_every = o.metric_every;
  p.checkpoint_every = o.checkpoint_every;
  p.keep = o.keep;
  p.grid = o.grid;
  p.batch = o.batch;
  p.seed = o.seed;
  p.profile = o.profile;
  p.on_collapse = o.on_collapse;
  p.max_rewinds = o.max_rewinds;
  p.rewinds = o.goes_on() ? o.rewinds : 0;
  p.console = o.console;
  p.ranks = o.ranks;
  return p;
}

size_t tensor_limit(const TrainingOptions& o) { return size_t(o.memory_gb * double(1ull << 30)); }

void configure(Context& context, const TrainingOptions& o) {
  context.storage = o.precision;
  context.library = o.library;
  context.ranks = o.ranks.get();
  context.sync_norm = o.sync_norm;
}

std::string machine_text(const TrainingOptions& o) {
  const std::string device = o.device == Device::gpu ? gpu_runtime::describe() : fmt::format("{} threads", omp_get_max_threads());
  return fmt::format("{} ({}{})", name_of(o.device), o.ranks ? fmt::format("{} ranks, each with ", o.ranks->size()) : "", device);
}

}  // namespace kiln
