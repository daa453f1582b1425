// What --dry-run prints: the layers, the parameters, and the memory that a run will need.
#include "engine/dry_run.h"
#include "models/fastgan_run.h"
#include "models/feature_meter.h"

namespace kiln::fastgan {

void dry_run(const RunOptions& options) {
  check(options);
  DryRun run(options, options.network.size);
  const RunOptions o = with_networks(options);
  std::unique_ptr<FeatureNetwork> network;
  if (!o.metric_network.empty()) network = open_feature_network(o.metric_network, o.metric_weights);
  Model model(o.network);
  run.add("G", model.g_params);
  run.add("D", model.d_params);
  const int64_t part = o.batch / (o.accumulate * o.rank_count()), side = o.network.size;  // each rank's pictures at a time
  const PictureSet set(run.resident_pictures(o.batch), int(side), int(side));
  const Losses losses = run.steps([&] {
    std::vector<Tensor> parts;
    for (int k = 0; k < o.accumulate; k++) parts.emplace_back(Shape{part, side, side, 3}, o.precision);
    return model.iteration(parts, o.train);
  });
  model.sample(Tensor(Shape{part, o.network.nz}));
  if (network) network->features(Tensor(Shape{FeatureMeter::kBatch, side, side, 3}));
  model.reconstruct(Tensor(Shape{std::min(o.batch / o.accumulate, 8), side, side, 3}, o.precision));
  run.print(plan_of(o));
}

}  // namespace kiln::fastgan
