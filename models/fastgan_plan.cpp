// What --dry-run prints: the layers, the parameters, and the memory that a run will need.
#include <omp.h>

#include "engine/file.h"
#include "engine/layer_table.h"
#include "engine/memory_plan.h"
#include "engine/process_memory.h"
#include "engine/ranks.h"
#include "models/fastgan_run.h"
#include "models/feature_meter.h"

namespace kiln::fastgan {

void dry_run(const RunOptions& options) {
  check(options);
  const size_t at_start = process_memory().resident;
  const DatasetSurvey survey = options.data.empty() ? DatasetSurvey{} : survey_pictures(dataset_options(options, options.network.size));
  const int64_t pictures = int64_t(survey.pictures);
  Context context(options.device, true, tensor_limit(options));
  UseContext use(context);
  configure(context, options);
  const RunOptions o = with_networks(options);
  std::unique_ptr<FeatureNetwork> network;
  if (!o.metric_network.empty()) network = open_feature_network(o.metric_network, o.metric_weights);
  context.random = std::make_shared<Philox>(o.seed);
  Model model(o.network);
  LayerTable layers;
  layers.add("G", model.g_params);
  layers.add("D", model.d_params);
  context.layers = &layers;
  const int ranks = o.rank_count();
  const int64_t part = o.batch / (o.accumulate * ranks), side = o.network.size;  // each rank's pictures at a time
  const uint64_t picture_memory = dataset_options(o, o.network.size).max_bytes;
  const bool streams = uint64_t(pictures * side * side * 3) > picture_memory;
  const PictureSet set(streams ? o.batch / ranks : 1, int(side), int(side));
  const auto step = [&] {
    std::vector<Tensor> parts;
    for (int k = 0; k < o.accumulate; k++) parts.emplace_back(Shape{part, side, side, 3}, o.precision);
    return model.iteration(parts, o.train);
  };
  Losses losses = step();  // of the last step: kept, as a run keeps them
  context.layers = nullptr;
  losses = {};
  losses = step();
  model.sample(Tensor(Shape{part, o.network.nz}));
  if (network) network->features(Tensor(Shape{FeatureMeter::kBatch, side, side, 3}));
  model.reconstruct(Tensor(Shape{std::min(o.batch / o.accumulate, 8), side, side, 3}, o.precision));
  fmt::print("{}{}", layers.text("G"), layers.text("D"));
  if (o.ranks) fmt::print("{}; the memory below is each rank's\n", o.ranks->traffic().text(ranks, 2));
  const int threads = o.threads > 0 ? o.threads : omp_get_max_threads();
  const MemoryPlan m = plan_memory(context, plan_of(o), survey, int(side), picture_memory, threads, at_start);
  if (o.data.empty())
    fmt::print("pictures: {} each in memory; name their folder to have them counted\n", human_bytes(uint64_t(side * side * 3)));
  else
    fmt::print("pictures: {} files in {}{}\n", pictures, o.data.string(), streams ? ", which stream from the disk" : "");
  fmt::print("{}", m.text());
  if (const uint64_t available = available_memory(); o.device == Device::cpu && m.total() > available)
    fmt::print("more than this machine has available now ({}): --accumulate, or a smaller --batch, --size or width, need less\n", human_bytes(available));
}

}  // namespace kiln::fastgan
