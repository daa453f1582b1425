// What --dry-run prints: the layers, the parameters, and the memory that a run will need.
#include "engine/dry_run.h"
#include "models/biggan_run.h"

namespace kiln::biggan {

void dry_run(const RunOptions& options) {
  check(options);
  RunOptions o = options;
  const int64_t side = o.band ? o.band->picture_size : o.network.size;  // of the pictures that are read
  DryRun run(o, int(side));
  ClassIndex classes;
  if (!o.data.empty() && !o.unconditional) classes = index_classes(run.survey.names, o.data);
  if (!o.data.empty()) {
    o.class_names = classes.names;
    o.network.classes = int(classes.names.size());
  } else {  // not known: their rows are a small part
    o.network.classes = o.unconditional ? 0 : o.class_names.empty() ? 10 : int(o.class_names.size());
  }
  check(o);
  Model model(o.network);
  run.add("G", model.g_params);
  run.add("D", model.d_params);
  const int64_t n = o.batch / (int64_t(o.train.parts) * o.rank_count());  // each rank's pictures at a time
  const int64_t a_step = int64_t(o.batch) * o.train.d_steps;
  const PictureSet set(run.resident_pictures(a_step), int(side), int(side));
  const Losses losses = run.steps([&] {
    return model.iteration(
        [&](int, int) {
          const Tensor pictures(Shape{n, side, side, 3}, o.precision);
          return RealPart{o.band ? nsbgan::band_of(Var(pictures), *o.band).value : pictures, Tensor(Shape{n}, DType::i32)};
        },
        o.train);
  });
  const auto latents = [&] {
    StandingStatistics::Batch b{Tensor(Shape{n, o.network.latent()}), {}};
    if (o.network.conditional()) b.labels.a = Tensor(Shape{n}, DType::i32);
    return b;
  };
  std::unique_ptr<StandingStatistics> standing;
  if (o.standing > 0) standing = std::make_unique<StandingStatistics>(model, std::min(o.standing, 2), [&](int) { return latents(); });
  const StandingStatistics::Batch b = latents();
  const Tensor samples = model.sample(b.z, b.labels);
  if (o.band) nsbgan::picture_of_band(Var(samples), *o.band);
  MemoryExtras extras;
  const bool measures = o.metric_every > 0;
  if (o.network.conditional()) {
    extras.sheet_pictures = std::min(o.network.classes, kSheetClasses) * kSheetColumns;
    for (int64_t count : classes.counts)
      if (o.class_metric && measures && count >= kFewestForMetric) extras.distances.push_back({count, int(side)});
  }
  if (o.band && measures && run.survey.pictures > 1) extras.distances.push_back({int64_t(run.survey.pictures), o.band->size()});
  fmt::print("{} classes; batch {} in {} parts, {} D steps\n", o.network.conditional() ? o.network.classes : 0, o.batch, o.train.parts, o.train.d_steps);
  run.print(plan_of(o), extras);
}

}  // namespace kiln::biggan
