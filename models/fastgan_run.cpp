#include "models/fastgan_run.h"

#include <omp.h>

#include <cmath>

#include "engine/backend/gpu_runtime.h"
#include "engine/error.h"
#include "engine/picture_source.h"
#include "engine/picture_tensor.h"
#include "engine/step_graph.h"
#include "models/feature_meter.h"

namespace kiln::fastgan {
namespace {

/// The random numbers of sample grids and of the distance: always those of step 0 of a seed of their own, so that the same
/// latent vectors are shown all through a run.
constexpr uint64_t kSampleSeed = 0x5A4D504C45ull;

/// FastGAN's side of a training run.
class FastganTrainee : public Trainee {
 public:
  FastganTrainee(const RunOptions& o, std::shared_ptr<const Dataset> data)
      : o_(o), data_(std::move(data)), sampler_(std::make_shared<Philox>(o.seed ^ kSampleSeed)), model_(o.network) {
    use_stream(0);
  }

  void step(int64_t step) override;
  void use_stream(int stream) override;
  std::vector<std::pair<std::string, double>> numbers() override;
  std::vector<std::pair<std::string, double>> vitals() override;
  bool finite() override { return std::isfinite(model_.g_params.value_norm()) && std::isfinite(model_.d_params.value_norm()); }
  bool go_on(int64_t steps_done) override;
  std::string summary() override;
  Tensor sample(int64_t first, int64_t n) override;
  void write_sheets(const RunDirectory& directory, int64_t step) override;
  std::vector<Tensor> state() override { return model_.state(); }
  void initialise() override { model_.initialise(*random_); }
  void save(CheckpointWriter& w) override;
  void load(const SafetensorsFile& file) override;
  const Model& model() const { return model_; }

 private:
  std::vector<Tensor> real_batch();
  std::string perceptual_text() const { return fmt::format("{} {:016x}", o_.train.perceptual->key(), o_.train.perceptual->fingerprint()); }
  BatchShare share() const { return {o_.ranks ? o_.ranks->rank() : 0, o_.rank_count(), o_.accumulate}; }
  int64_t at_once() const { return o_.batch / (share().ranks * o_.accumulate); }  // pictures

  const RunOptions& o_;
  std::shared_ptr<const Dataset> data_;
  std::shared_ptr<Philox> random_, sampler_;
  Model model_;
  std::unique_ptr<PictureSource> source_;
  StepGraph graph_;
  Losses losses_;  // of the last step: read only where a report is due
  int64_t next_step_ = -1;  // what the model's memory holds
};

void FastganTrainee::use_stream(int stream) {
  const uint64_t seed = o_.seed + uint64_t(stream) * 0x9E3779B97F4A7C15ull;
  random_ = std::make_shared<Philox>(seed);
  random_->keep_step_in(model_.memory.step());
  context().random = random_;
  graph_.reset();  // the seed is an argument of its launches
  next_step_ = -1;
  source_.reset();  // first: the set need not fit in memory twice
  source_ = std::make_unique<PictureSource>(data_, seed, o_.batch, share());
}

void FastganTrainee::load(const SafetensorsFile& file) {
  const std::string path = file.path();
  const RunOptions theirs = from_json(metadata_text(file, "config"), path);
  const auto same = [&](const char* flag, auto ours, auto saved) {
    if (ours != saved) fail("{}: was trained with {} {}, this run has {}; give {} {} or start a new run", path, flag, saved, ours, flag, saved);
  };
  same("--size", o_.network.size, theirs.network.size);
  same("--ngf", o_.network.ngf, theirs.network.ngf);
  same("--ndf", o_.network.ndf, theirs.network.ndf);
  same("--nz", o_.network.nz, theirs.network.nz);
  Config shape = theirs.network;
  shape.fold_upsample = o_.network.fold_upsample;  // the same numbers, computed in another way
  if (shape != o_.network)
    fail("{}: was trained with other network options (--tanh, --no-noise, --no-sle-64, --no-d-gates, --sle-leaky); give the same ones", path);
  const bool same_run = o_.resume && o_.resume_file.empty();
  if (same_run && o_.train.perceptual && metadata_text(file, "lpips") != perceptual_text())
    fail("{}: was trained with other LPIPS weights; give the files that the run began with, or start a new run with --resume FILE", path);
  load_parameters(file, "G.", model_.g_params);
  load_parameters(file, "D.", model_.d_params);
  load_parameters(file, "ema.", model_.average_params);
  load_optimiser(file, "opt_g.", model_.g_params);
  load_optimiser(file, "opt_d.", model_.d_params);
  if (theirs.precision == o_.precision) load_loss_scale(file, model_.memory);
}

void FastganTrainee::save(CheckpointWriter& w) {
  model_.average_params.copy_vectors_from(model_.g_params);
  w.add("G.", model_.g_params);
  w.add("D.", model_.d_params);
  w.add("ema.", model_.average_params);
  w.add_optimiser("opt_g.", model_.g_params);
  w.add_optimiser("opt_d.", model_.d_params);
  if (o_.train.perceptual) w.set("lpips", perceptual_text());
  w.add_loss_scale(model_.memory);
}

/// This rank's share of the step's real pictures, augmented, in --accumulate parts.
std::vector<Tensor> FastganTrainee::real_batch() {
  const AugmentPolicy& p = o_.train.augment;
  const int64_t n = at_once();
  std::vector<Tensor> parts;
  for (int64_t first = 0; first < n * o_.accumulate; first += n) {
    random_->set_first_sample(share().place(first, o_.batch));
    const Tensor flips = random_->uniform("flip", Shape{n, 1}), uniforms = random_->uniform("augment.real", Shape{n, kAugmentUniforms});
    parts.push_back(source_->gather(first, n, flips, float(o_.flip), p, uniforms));
  }
  random_->set_first_sample(0);
  return parts;
}

void FastganTrainee::step(int64_t step) {
  if (step != next_step_) random_->set_step(uint64_t(step));
  next_step_ = step + 1;
  source_->start(step);
  graph_.run([&] {
    losses_ = {};  // the last step's leave their memory, so that every step finds it alike
    losses_ = model_.iteration(real_batch(), o_.train);
  });
}

std::vector<std::pair<std::string, double>> FastganTrainee::numbers() {
  const Losses& l = losses_;
  std::vector<std::pair<std::string, double>> all{
      {"loss_d_real", l.d_real.item()},    {"loss_d_fake", l.d_fake.item()},      {"loss_g", l.g.item()},
      {"recon_all", l.recon_all.item()},   {"recon_small", l.recon_small.item()}, {"recon_part", l.recon_part.item()},
      {"logit_real", l.logit_real.item()}, {"logit_fake", l.logit_fake.item()}};
  if (model_.memory.scaled()) {
    const StepState s = model_.memory.read();
    all.emplace_back("loss_scale", s.loss_scale);
    all.emplace_back("overflows", double(s.overflows));
  }
  return all;
}

std::vector<std::pair<std::string, double>> FastganTrainee::vitals() {
  return {{"sigma_g", model_.largest_sigma_g()}, {"sigma_d", model_.largest_sigma_d()},
          {"gradient_g", model_.g_params.gradient_norm()}, {"gradient_d", model_.d_params.gradient_norm()}};
}

bool FastganTrainee::go_on(int64_t steps_done) {
  if (!o_.on_step) return true;
  const Losses& l = losses_;
  return o_.on_step({steps_done, l.d_real.item(), l.d_fake.item(), l.g.item(), l.recon_all.item(), l.recon_small.item(), l.recon_part.item(),
                     l.logit_real.item(), l.logit_fake.item()});
}

std::string FastganTrainee::summary() {
  const Losses& l = losses_;
  return fmt::format("D(real) {:+.2f} D(fake) {:+.2f}  loss D {:.2f}+{:.2f} G {:+.2f} rec {:.2f}+{:.2f}+{:.2f}", l.logit_real.item(),
                     l.logit_fake.item(), l.d_real.item(), l.d_fake.item(), l.g.item(), l.recon_all.item(), l.recon_small.item(), l.recon_part.item());
}

Tensor FastganTrainee::sample(int64_t first, int64_t n) {
  Scoped<std::shared_ptr<RandomSource>> scope(&Context::random, sampler_);
  n = std::min(n, at_once());
  sampler_->set_first_sample(first);
  return model_.sample(sampler_->normal("z", Shape{n, o_.network.nz}));
}

void FastganTrainee::write_sheets(const RunDirectory& directory, int64_t step) {
  // The first pictures of the set, unchanged: the same in every sheet.
  const int n = std::min(o_.batch / o_.accumulate, 8);
  std::vector<int32_t> index(static_cast<size_t>(n));
  for (int i = 0; i < n; i++) index[size_t(i)] = int32_t(size_t(i) % data_->count());
  const ReconstructionSheet s = model_.reconstruct(source_->pictures(index));
  std::vector<Picture> all;
  for (const Tensor& t : {s.real, s.all, s.small, s.part_target, s.part}) {
    for (Picture& p : to_pictures(t)) all.push_back(std::move(p));
  }
  write_png(directory.sample(step, "_recon"), make_grid(all, n, 2));
}

}  // namespace

RunPlan plan_of(const RunOptions& o) {
  RunPlan p = kiln::plan_of(o);
  p.config = to_json(o, false);
  p.config_file = to_json(o, true);
  p.program = "fastgan_train";
  return p;
}

RunOptions with_networks(RunOptions o) {
  if (!o.lpips.empty()) o.train.perceptual = std::make_shared<const Lpips>(o.lpips, o.lpips_weights, o.lpips_heads, context().storage);
  return o;
}

RunResult train(const RunOptions& options) {
  check(options);
  if (options.ranks) options.ranks->agree_on_options(to_json(options, true), {"commands", "data", "rewinds"});
  if (options.threads > 0) omp_set_num_threads(options.threads);
  Context context(options.device, false, tensor_limit(options));
  UseContext use(context);
  configure(context, options);
  if (options.ranks && options.device == Device::gpu) options.ranks->use_gpus();
  RunOptions o = options;
  std::unique_ptr<FeatureNetwork> network;  // the root's; a mistake in its name or file is told before the run's directory is made
  const auto open = [&] {
    o = with_networks(options);
    if (!o.metric_network.empty() && (!o.ranks || o.ranks->root())) network = open_feature_network(o.metric_network, o.metric_weights);
  };
  if (o.ranks) {
    o.ranks->together(open);
    o.ranks->agree("its LPIPS network", o.train.perceptual ? fmt::format("{:016x}", o.train.perceptual->fingerprint()) : "", false,
                   "give every machine the same weights");
  } else {
    open();
  }
  TrainingRun run(plan_of(o));
  const std::shared_ptr<const Dataset> data = load_pictures(dataset_options(o, o.network.size), run.line(), o.ranks.get());
  run.use_pictures(data);
  if (network) run.use_meter(std::make_unique<FeatureMeter>(std::move(network), data, o.cache ? default_cache_folder() : std::filesystem::path()));
  FastganTrainee trainee(o, data);
  run.start(trainee);
  run.line().print(fmt::format("FastGAN {} px, G {:.2f} M parameters, D {:.2f} M; batch {}, {} on {}; to {}", o.network.size,
                               double(trainee.model().g_params.parameter_count()) / 1e6, double(trainee.model().d_params.parameter_count()) / 1e6,
                               o.batch, name_of(o.precision), machine_text(o), o.out.string()));
  return run.train(trainee);
}

}  // namespace kiln::fastgan
