#include "models/fastgan_run.h"

#include <omp.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/backend/gpu_runtime.h"
#include "engine/checkpoint.h"
#include "engine/dataset.h"
#include "engine/error.h"
#include "engine/file.h"
#include "engine/picture_tensor.h"
#include "engine/progress.h"
#include "engine/report.h"
#include "engine/run_directory.h"
#include "engine/swd.h"

namespace kiln::fastgan {
namespace {

using nlohmann::json;

/// The random numbers of sample grids and of the distance: always those of step 0 of a seed of their own, so that the same
/// latent vectors are shown all through a run.
constexpr uint64_t kSampleSeed = 0x5A4D504C45ull;

class Run {
 public:
  explicit Run(const RunOptions& o)
      : o_(o), context_(o.device, false, size_t(o.memory_gb * (1ull << 30))), use_(context_) {
    context_.storage = o.precision;
  }

  RunResult train();
  /// Step of the last checkpoint in the run's directory, -1 while there is none.
  int64_t saved_step() const { return saved_step_; }

 private:
  void load_data();
  void load_checkpoint(const std::filesystem::path& path);
  void save_checkpoint();
  void upload_batch(int64_t step);
  std::vector<Tensor> real_batch();
  std::vector<Picture> sample(int64_t count);
  void require_finite(const Losses& losses) const;
  void write_grid();
  void write_reconstructions();
  void measure();
  void report(const Losses& losses, bool log_now, bool important);
  void write_page();

  const RunOptions o_;
  Context context_;
  UseContext use_;
  Stopwatch clock_;
  ProgressLine line_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<PictureSet> set_;
  std::unique_ptr<SwdReference> reference_;
  std::shared_ptr<Philox> random_, sampler_;
  std::optional<RunDirectory> directory_;
  std::unique_ptr<Report> page_;
  Tensor index_;
  uint64_t epoch_ = ~0ull;
  std::vector<int32_t> order_;
  uint64_t fingerprint_ = 0;
  int64_t step_ = 0, first_step_ = 0, measured_step_ = -1;
  double seconds_training_ = 0, last_report_ = 0;
  int64_t last_report_step_ = 0;
  double distance_ = 0, best_distance_ = -1;
  int64_t best_step_ = -1, saved_step_ = -1;
  double images_per_second_ = 0;
};

void Run::load_data() {
  DatasetOptions d;
  d.folder = o_.data;
  d.size = o_.network.size;
  d.fit = o_.fit;
  d.background = o_.background;
  d.strict = o_.strict;
  d.threads = o_.threads;
  if (o_.cache) d.cache_folder = default_cache_folder();
  d.progress = [&](size_t done, size_t total) {
    if (interrupted()) fail("interrupted while reading the pictures; nothing was written");
    line_.show(fmt::format("reading pictures {}/{}", done, total));
  };
  const Dataset data(d);
  for (const auto& f : data.failures()) line_.print(fmt::format("skipped {}: {}", f.path, f.reason));
  line_.print(fmt::format("{} pictures at {} px from {}{}{}", data.count(), data.size(), o_.data.string(),
                          data.from_cache() ? " (cached)" : "",
                          data.failures().empty() ? "" : fmt::format("; {} skipped", data.failures().size())));
  if (data.count() < 10)
    line_.print(fmt::format("only {} pictures: a generator will memorise them; 60 or more are better", data.count()));
  fingerprint_ = data.fingerprint();
  set_ = std::make_unique<PictureSet>(data.pixels(), int64_t(data.count()), data.size(), data.size());
  if (o_.metric_every > 0 && data.count() >= 2)
    reference_ = std::make_unique<SwdReference>(data.pixels(), int64_t(data.count()), data.size(), data.size());
  if (directory_) {
    std::vector<Picture> reals;
    for (size_t i = 0; i < data.count() && int(i) < o_.grid * o_.grid; i++) {
      Picture p{data.size(), data.size(), {}};
      p.rgb.assign(data.pixels(i), data.pixels(i) + data.picture_bytes());
      reals.push_back(std::move(p));
    }
    write_png(directory_->path() / "samples" / "real.png", make_grid(reals, o_.grid, 2));
  }
}

void Run::load_checkpoint(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  const auto& meta = file.metadata();
  const auto it = meta.find("config");
  if (it == meta.end()) fail("{}: not a checkpoint of kiln (it has no configuration)", path.string());
  const RunOptions theirs = from_json(it->second, path.string());
  const auto same = [&](const char* flag, auto ours, auto saved) {
    if (ours != saved) fail("{}: was trained with {} {}, this run has {}; give {} {} or start a new run", path.string(), flag, saved, ours, flag, saved);
  };
  same("--size", o_.network.size, theirs.network.size);
  same("--ngf", o_.network.ngf, theirs.network.ngf);
  same("--ndf", o_.network.ndf, theirs.network.ndf);
  same("--nz", o_.network.nz, theirs.network.nz);
  Config shape = theirs.network;
  shape.fold_upsample = o_.network.fold_upsample;  // the same numbers, computed in another way
  if (shape != o_.network)
    fail("{}: was trained with other network options (--tanh, --no-noise, --no-sle-64, --no-d-gates, --sle-leaky); give the same ones", path.string());
  load_parameters(file, "G.", model_->g_params);
  load_parameters(file, "D.", model_->d_params);
  load_parameters(file, "ema.", model_->average_params);
  load_optimiser(file, "opt_g.", model_->g_params);
  load_optimiser(file, "opt_d.", model_->d_params);
  step_ = metadata_integer(file, "step");
  best_step_ = metadata_integer(file, "best_step");
  best_distance_ = metadata_number(file, "best_distance");
  const bool same_pictures = metadata_text(file, "data") == fmt::format("{:016x}", fingerprint_);
  // The best so far counts only where its checkpoint is, and for the pictures that it was measured with.
  if (!o_.resume_file.empty() || !same_pictures) best_step_ = -1;
  if (!same_pictures)
    line_.print("the pictures are not those that this run began with: it goes on, but not bit for bit");
}

/// A network that has diverged must not replace a good checkpoint.
void Run::require_finite(const Losses& l) const {
  for (const Tensor& x : {l.d_real, l.d_fake, l.g, l.recon_all, l.recon_small, l.recon_part})
    if (!std::isfinite(x.item()))
      fail("the loss is not a number at step {}: training diverged; the last checkpoint in {} is from before. Try a smaller --lr",
           step_, (directory_->path() / "checkpoints").string());
}

void Run::save_checkpoint() {
  if (reference_ && measured_step_ != step_) measure();
  if (reference_ && (best_step_ < 0 || distance_ < best_distance_)) {
    best_step_ = step_;
    best_distance_ = distance_;
  }
  CheckpointWriter w;
  model_->average_params.copy_vectors_from(model_->g_params);
  w.add("G.", model_->g_params);
  w.add("D.", model_->d_params);
  w.add("ema.", model_->average_params);
  w.add_optimiser("opt_g.", model_->g_params);
  w.add_optimiser("opt_d.", model_->d_params);
  w.set("config", to_json(o_, false));
  w.set("step", std::to_string(step_));
  w.set("rng.seed", std::to_string(o_.seed));  // streams are counted by seed and step: this is all of the random state
  w.set("best_step", std::to_string(best_step_));
  w.set("best_distance", fmt::format("{:.17g}", best_distance_));
  w.set("data", fmt::format("{:016x}", fingerprint_));
  w.write(directory_->checkpoint(step_));
  saved_step_ = step_;
  directory_->prune(o_.keep, best_step_ >= 0 ? std::optional(best_step_) : std::nullopt);
}

/// The pictures of a step: an endless run of permutations, cut into batches. No state: the step says it all.
void Run::upload_batch(int64_t step) {
  std::vector<int32_t> index(size_t(o_.batch));
  for (int i = 0; i < o_.batch; i++) {
    const uint64_t global = uint64_t(step) * uint64_t(o_.batch) + uint64_t(i);
    const uint64_t epoch = global / uint64_t(set_->count);
    if (epoch != epoch_) {
      epoch_ = epoch;
      order_ = permutation(o_.seed, "order", epoch, set_->count);
    }
    index[size_t(i)] = order_[global % uint64_t(set_->count)];
  }
  index_.upload(index.data());
}

/// The step's real pictures, augmented, in --accumulate parts.
std::vector<Tensor> Run::real_batch() {
  const AugmentPolicy& p = o_.train.augment;
  const int64_t n = o_.batch / o_.accumulate;
  std::vector<Tensor> parts;
  for (int64_t first = 0; first < o_.batch; first += n) {
    random_->set_first_sample(first);
    const Tensor index = index_.slice(first, Shape{n}), flips = random_->uniform("flip", Shape{n, 1});
    if (p.color || p.translation || p.cutout)
      parts.push_back(gather_augmented(*set_, index, flips, float(o_.flip), p, random_->uniform("augment.real", Shape{n, kAugmentUniforms})));
    else
      parts.push_back(gather(*set_, index, flips, float(o_.flip)));
  }
  random_->set_first_sample(0);
  return parts;
}

std::vector<Picture> Run::sample(int64_t count) {
  Scoped<std::shared_ptr<RandomSource>> scope(&Context::random, sampler_);
  std::vector<Picture> out;
  const int64_t at_once = o_.batch / o_.accumulate;
  for (int64_t first = 0; first < count; first += at_once) {
    const int64_t n = std::min<int64_t>(at_once, count - first);
    sampler_->set_first_sample(first);
    for (Picture& p : to_pictures(model_->sample(sampler_->normal("z", Shape{n, o_.network.nz})))) out.push_back(std::move(p));
  }
  return out;
}

void Run::write_grid() {
  const auto path = directory_->sample(step_);
  write_png(path, make_grid(sample(int64_t(o_.grid) * o_.grid), o_.grid, 2),
            {{"Software", "kiln fastgan_train"}, {"step", std::to_string(step_)}, {"seed", std::to_string(o_.seed)}});
}

void Run::write_reconstructions() {
  // The first pictures of the set, unchanged: the same in every sheet.
  const int n = o_.batch / o_.accumulate;
  std::vector<int32_t> index(static_cast<size_t>(n));
  for (int i = 0; i < n; i++) index[size_t(i)] = int32_t(i % set_->count);
  const Tensor device_index(Shape{n}, DType::i32);
  device_index.upload(index.data());
  const ReconstructionSheet s = model_->reconstruct(gather(*set_, device_index, zeros(Shape{n, 1}), 0.f));
  std::vector<Picture> all;
  for (const Tensor& t : {s.real, s.all, s.small, s.part_target, s.part}) {
    std::vector<Picture> row = to_pictures(t);
    if (row.size() > 8) row.resize(8);
    for (Picture& p : row) all.push_back(std::move(p));
  }
  write_png(directory_->sample(step_, "_recon"), make_grid(all, std::min(n, 8), 2));
}

void Run::measure() {
  const std::vector<Picture> fakes = sample(reference_->pictures());
  std::vector<uint8_t> bytes;
  for (const Picture& p : fakes) bytes.insert(bytes.end(), p.rgb.begin(), p.rgb.end());
  const SwdResult r = reference_->compare(bytes.data(), int64_t(fakes.size()));
  distance_ = r.mean;
  measured_step_ = step_;
  json j{{"step", step_}, {"swd", r.mean}, {"swd_baseline", reference_->baseline().mean}};
  const std::vector<int> levels = reference_->levels();
  for (size_t i = 0; i < levels.size(); i++) j[fmt::format("swd_{}", levels[i])] = r.per_level[i];
  directory_->log(j.dump());
}

void Run::report(const Losses& l, bool log_now, bool important) {
  const double now = seconds_training_;
  if (now > last_report_) images_per_second_ = double((step_ - last_report_step_) * o_.batch) / (now - last_report_);
  last_report_ = now;
  last_report_step_ = step_;
  const float dr = l.d_real.item(), df = l.d_fake.item(), g = l.g.item();
  const float ra = l.recon_all.item(), rs = l.recon_small.item(), rp = l.recon_part.item();
  const float lr = l.logit_real.item(), lf = l.logit_fake.item();
  require_finite(l);
  const size_t memory = context_.arena->stats().peak;
  if (log_now) {
    json j{{"step", step_}, {"images", step_ * o_.batch}, {"seconds", now}, {"images_per_second", images_per_second_},
           {"loss_d_real", dr}, {"loss_d_fake", df}, {"loss_g", g}, {"recon_all", ra}, {"recon_small", rs}, {"recon_part", rp},
           {"logit_real", lr}, {"logit_fake", lf}, {"memory_mb", double(memory) / 1048576.0}};
    directory_->log(j.dump());
  }
  double eta = double(o_.steps - step_) * o_.batch / (images_per_second_ > 0 ? images_per_second_ : 1e-9);
  if (o_.minutes > 0) eta = std::min(eta, o_.minutes * 60 - clock_.seconds());
  std::string text = fmt::format("step {}/{}  {:.1f} img/s  ETA {}  D(real) {:+.2f} D(fake) {:+.2f}  loss D {:.2f}+{:.2f} G {:+.2f} rec {:.2f}+{:.2f}+{:.2f}",
                                 step_, o_.steps, images_per_second_, duration_text(eta), lr, lf, dr, df, g, ra, rs, rp);
  if (measured_step_ >= 0) text += fmt::format("  SWD {:.1f} (real {:.1f})", distance_, reference_->baseline().mean);
  text += fmt::format("  mem {} MB", memory >> 20);
  line_.show(text, important);
}

/// The run's report.html. It can be made again at any time, so that a failure is told and ends nothing.
void Run::write_page() {
  if (!page_) page_ = std::make_unique<Report>(o_.out);
  try {
    page_->write();
  } catch (const Error& e) {
    line_.print(fmt::format("no report.html: {}", e.what()));
  }
}

RunResult Run::train() {
  if (o_.threads > 0) omp_set_num_threads(o_.threads);
  watch_interrupts();
  const bool from_file = !o_.resume_file.empty();
  directory_ = o_.resume && !from_file ? RunDirectory::open(o_.out) : RunDirectory::create(o_.out);
  directory_->claim();
  load_data();

  random_ = std::make_shared<Philox>(o_.seed);
  sampler_ = std::make_shared<Philox>(o_.seed ^ kSampleSeed);
  context_.random = random_;
  model_ = std::make_unique<Model>(o_.network);
  index_ = Tensor(Shape{o_.batch}, DType::i32);
  if (from_file) {
    load_checkpoint(o_.resume_file);
  } else {
    const std::vector<int64_t> steps = directory_->checkpoints();
    if (!steps.empty()) {
      load_checkpoint(directory_->checkpoint(steps.back()));
      saved_step_ = step_;
    } else {
      model_->initialise(*random_);
      if (o_.resume) line_.print("the run was stopped before its first checkpoint: it begins again");
    }
    directory_->trim_log(step_);
  }
  if (step_ >= o_.steps) fail("{}: the run has done {} steps already; give more with --steps", o_.out.string(), step_);
  first_step_ = last_report_step_ = step_;
  directory_->write_text("config.json", to_json(o_, true) + "\n");
  line_.print(fmt::format("FastGAN {} px, G {:.2f} M parameters, D {:.2f} M; batch {}, {} on {} ({} threads); to {}", o_.network.size,
                          double(model_->g_params.parameter_count()) / 1e6, double(model_->d_params.parameter_count()) / 1e6,
                          o_.batch, name_of(o_.precision), name_of(o_.device), omp_get_max_threads(), o_.out.string()));
  if (reference_) line_.print(reference_->description());
  if (step_ > 0) line_.print(fmt::format("going on from step {}", step_));

  context_.profile.on = o_.profile;
  const auto due = [&](int64_t every) { return every > 0 && step_ % every == 0; };
  double last_shown = -1e9;
  bool stop = false;
  int64_t grid_step = -1;
  while (!stop) {
    const Stopwatch watch;
    random_->set_step(uint64_t(step_));
    upload_batch(step_);
    const Losses losses = model_->iteration(real_batch(), o_.train);
    step_++;
    seconds_training_ += watch.seconds();
    stop = interrupted() || (o_.minutes > 0 && clock_.seconds() > o_.minutes * 60) || step_ == o_.steps;
    const bool measured = due(o_.metric_every) && reference_;
    if (measured) measure();
    if (due(o_.log_every) || clock_.seconds() - last_shown > 1 || stop) {
      report(losses, due(o_.log_every), measured || stop);
      last_shown = clock_.seconds();
    }
    if (due(o_.sample_every)) {
      write_grid();
      write_reconstructions();
      grid_step = step_;
    }
    if (due(o_.checkpoint_every)) {
      require_finite(losses);
      save_checkpoint();
      write_page();
    }
  }
  if (grid_step != step_) {
    write_grid();
    write_reconstructions();
  }
  if (saved_step_ != step_) save_checkpoint();
  write_page();
  if (interrupted()) line_.print(fmt::format("interrupted: step {} is saved; go on with --resume --out {}", step_, o_.out.string()));
  if (o_.profile) {
    double total = 0;
    for (double s : context_.profile.seconds) total += s;
    const double n = double(step_ - first_step_);
    line_.print(fmt::format("profile: {:.1f} ms a step in training; booked {:.1f} ms:", seconds_training_ / n * 1e3, total / n * 1e3));
    for (int k = 0; k < int(Work::count); k++)
      line_.print(fmt::format("  {:12} {:8.2f} ms {:5.1f} %  {:6.1f} launches", name_of(Work(k)), context_.profile.seconds[size_t(k)] / n * 1e3,
                              context_.profile.seconds[size_t(k)] / seconds_training_ * 100, double(context_.profile.launches[size_t(k)]) / n));
  }
  RunResult r;
  r.step = step_;
  r.distance = distance_;
  r.baseline = reference_ ? reference_->baseline().mean : 0;
  r.grid = directory_->sample(step_);
  r.checkpoint = directory_->checkpoint(step_);
  r.peak_bytes = context_.arena->stats().peak;
  return r;
}

}  // namespace

RunResult train(const RunOptions& o) {
  check(o);
  if (o.device == Device::gpu) {
    std::string why;
    if (!gpu_runtime::available(&why)) fail("--device gpu: {}; use --device cpu", why);
    fail("--device gpu: training on a GPU is not in this version; use --device cpu");
  }
  Run run(o);
  try {
    return run.train();
  } catch (const WriteError& e) {
    if (run.saved_step() < 0) throw;
    fail("{}; step {} is saved: then go on with --resume --out {}", e.what(), run.saved_step(), o.out.string());
  }
}

void dry_run(const RunOptions& o) {
  check(o);
  Context context(o.device, true, size_t(o.memory_gb * (1ull << 30)));
  UseContext use(context);
  context.storage = o.precision;
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
    for (int k = 0; k < o.accumulate; k++) parts.emplace_back(Shape{o.batch / o.accumulate, o.network.size, o.network.size, 3}, o.precision);
    model.iteration(parts, o.train);
  }
  model.sample(Tensor(Shape{std::min<int64_t>(o.batch / o.accumulate, int64_t(o.grid) * o.grid), o.network.nz}));
  const Arena::Stats s = context.arena->stats();
  fmt::print("memory: {} MB of tensors at the peak of a step with batch {} ({} MB reserved), and the pictures: {:.2f} MB each\n",
             s.peak >> 20, o.batch, s.reserved >> 20, double(o.network.size) * o.network.size * 3 / 1048576.0);
}

}  // namespace kiln::fastgan
