// bench_sswgan: times whole training iterations of a stage of SSW-GAN on random clips and prints one JSON object: what
// bench/sswgan_bench.py sets beside PyTorch.
#include <omp.h>

#include "apps/bench_training.h"
#include "apps/start.h"
#include "engine/ops_feature.h"
#include "models/sswgan_run.h"

using namespace kiln;
using namespace kiln::sswgan;

namespace {

Tensor random_clips(RandomSource& random, const std::string& site, const Shape& shape) {
  const Tensor x = random.uniform(site, shape);
  return combine(2.f, Var(x), -1.f, Var(from_vector(shape, std::vector<float>(size_t(shape.count()), 1.f)))).value;
}

nlohmann::json measure(const RunOptions& o, int warm_up) {
  if (o.threads > 0) omp_set_num_threads(o.threads);
  Context context(o.device);
  UseContext use(context);
  configure(context, o);
  auto random = std::make_shared<Philox>(o.seed);
  context.random = random;
  Model model(o.network, o.stage);
  model.initialise(*random);
  random->keep_step_in(model.memory.step());
  const int64_t n = o.batch;
  const StageConfig& s = o.network.stage(o.stage);
  RealPart real{random_clips(*random, "real", Shape{n, s.window, s.size, s.size, 3}), draw_labels(random->uniform("labels", Shape{n, 1}), o.network.classes)};
  ConditionPart condition;
  if (o.stage > 1) {
    const int side = o.network.stage(o.stage - 1).size;
    condition = {random_clips(*random, "condition", Shape{n, s.window / o.network.rho(o.stage), side, side, 3}), real.labels};
  }
  if (o.precision != DType::f32) {
    real.clips = converted(real.clips, o.precision);
    if (condition.clips) condition.clips = converted(condition.clips, o.precision);
  }
  const Sources sources{[&](int, int) { return real; }, [&](int, int) { return condition; }};
  Losses losses;
  nlohmann::json j = time_iterations(context, o, warm_up, true, [&] {
    losses = {};
    losses = model.iteration(sources, o.train);
  }, [&] { return losses.critic[0].g.item(); });
  j["stages"] = stages_text(o.network.stages);
  j["stage"] = o.stage;
  j["width"] = s.g_width;
  return j;
}

}  // namespace

int main(int argc, char** argv) {
  start(argv);
  CLI::App app("Times whole training iterations of a stage of SSW-GAN, one D step each; prints one JSON object.", "bench_sswgan");
  RunOptions o = preset("ssw-tiny");
  o.steps = 10;
  o.train.d_steps = 1;
  o.network.classes = 10;
  std::string stages = stages_text(o.network.stages);
  int width = 16;
  BenchFlags flags;
  app.add_option("--stages", stages, "sizes, as sswgan_train's")->capture_default_str();
  app.add_option("--stage", o.stage, "the one to time")->capture_default_str();
  app.add_option("--width", width, "of all networks")->capture_default_str();
  app.add_option("--z", o.network.z, "latent numbers")->capture_default_str();
  app.add_option("--shared-dim", o.network.shared_dim, "numbers of the class embedding")->capture_default_str();
  app.add_option("--d-frames", o.network.d_frames, "frames that the spatial discriminator looks at")->capture_default_str();
  flags.add(app, o);
  return bench_program(app, [&] {
    app.parse(argc, argv);
    o.network.stages = parse_stages(stages, o.network.stages);
    for (StageConfig& s : o.network.stages) s.g_width = s.d_width = width;
    flags.finish(o);
    check(o);
    fmt::print("{}\n", measure(o, flags.warm_up).dump());
  });
}
