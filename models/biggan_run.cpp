#include "models/biggan_run.h"

#include <omp.h>

#include <cmath>

#include "engine/backend/gpu_runtime.h"
#include "engine/error.h"
#include "engine/ops_feature.h"
#include "engine/picture_source.h"
#include "engine/picture_tensor.h"
#include "engine/step_graph.h"

namespace kiln::biggan {
namespace {

/// The random numbers of sample grids and of distances: always those of step 0 of a seed of their own.
constexpr uint64_t kSampleSeed = 0x5A4D504C45ull;

Tensor to_labels(const std::vector<int32_t>& v) {
  const Tensor t(Shape{int64_t(v.size())}, DType::i32);
  t.upload(v.data());
  return t;
}

const char* program_of(const RunOptions& o) { return o.band ? "nsbgan_train sampler" : "biggan_train"; }

/// A band as a small picture: a plane of one colour has that colour.
Tensor band_to_look_at(const Tensor& band, const nsbgan::Band& b) {
  const Var raw = nsbgan::denormalise(Var(band), b);
  return nsbgan::affine(raw, b.domain == nsbgan::Domain::wavelet ? std::ldexp(2.0, -b.levels) : 2, -1).value;
}

/// BigGAN's side of a training run.
class BigganTrainee : public Trainee {
 public:
  BigganTrainee(const RunOptions& o, std::shared_ptr<const Dataset> data, ClassIndex classes, ProgressLine& line)
      : o_(o), line_(line), data_(std::move(data)), classes_(std::move(classes)), sampler_(std::make_shared<Philox>(o.seed ^ kSampleSeed)),
        model_(o.network), labels_(Shape{pictures_a_step() / ranks()}, DType::i32),
        sample_order_(permutation(o.seed, "sample.labels", 0, int64_t(data_->count()))) {
    use_stream(0);
    if (o.network.conditional() && o.class_metric && o.metric_every > 0) make_references();
    if (o.band && o.metric_every > 0 && data_->count() >= 2) make_band_reference();
  }

  void step(int64_t step) override;
  void use_stream(int stream) override;
  std::vector<std::pair<std::string, double>> numbers() override;
  std::vector<std::pair<std::string, double>> vitals() override;
  std::vector<std::pair<std::string, double>> measures() override;
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
  void make_references();
  void make_band_reference();
  /// What the networks see of pictures [n, R, R, 3], and the pictures that their samples stand for.
  Tensor seen(const Tensor& pictures) const { return o_.band ? converted(nsbgan::band_of(Var(converted(pictures, DType::f32)), *o_.band).value, context().storage) : pictures; }
  Tensor shown(const Tensor& samples) const { return o_.band ? nsbgan::picture_of_band(Var(samples), *o_.band).value : samples; }
  std::vector<int32_t> sample_labels(int64_t first, int64_t n) const;
  /// The generator's samples of the classes given, from latents counted from `first` on.
  Tensor sample_of(const std::vector<int32_t>& labels, int64_t first);
  int ranks() const { return o_.rank_count(); }
  /// A step's pictures are those of D's batches, one behind the other, each in its parts.
  BatchShare share() const { return {o_.ranks ? o_.ranks->rank() : 0, ranks(), o_.train.parts * o_.train.d_steps}; }
  int64_t at_once() const { return o_.batch / (int64_t(o_.train.parts) * ranks()); }  // pictures
  int64_t pictures_a_step() const { return int64_t(o_.batch) * o_.train.d_steps; }    // of all ranks
  RealPart real_part(int d_step, int part);

  const RunOptions& o_;
  ProgressLine& line_;
  std::shared_ptr<const Dataset> data_;
  ClassIndex classes_;
  std::shared_ptr<Philox> random_, sampler_;
  Model model_;
  std::unique_ptr<PictureSource> source_;
  std::unique_ptr<BatchOrder> order_;
  Tensor labels_;  // i32, of the step's pictures
  std::vector<int32_t> sample_order_;
  StepGraph graph_;
  Losses losses_;           // of the last step: read only where a report is due
  int64_t next_step_ = -1;  // what the model's memory holds
  std::unique_ptr<StandingStatistics> standing_;  // of this step, from its first sample on
  struct ClassReference {
    size_t label;
    std::unique_ptr<SwdReference> reference;
  };
  std::vector<ClassReference> references_;
  std::unique_ptr<SwdReference> band_reference_;  // of the real pictures' bands
};

/// The bands of the real pictures, to look at and to compare the samples' own with.
void BigganTrainee::make_band_reference() {
  const NoGrad none;
  const int side = data_->size();
  std::vector<uint8_t> bytes(data_->picture_bytes());
  const auto band = [&](int64_t i, uint8_t* to) {
    data_->read(size_t(i), bytes.data());
    const Picture one{side, side, bytes};
    const std::vector<Picture> p = to_pictures(band_to_look_at(seen(to_tensor(std::span(&one, 1))), *o_.band));
    std::copy(p[0].rgb.begin(), p[0].rgb.end(), to);
  };
  band_reference_ = std::make_unique<SwdReference>(band, int64_t(data_->count()), o_.band->size(), o_.band->size());
}

void BigganTrainee::make_references() {
  for (size_t label = 0; label < classes_.names.size(); label++) {
    if (classes_.counts[label] < kFewestForMetric) continue;
    std::vector<int64_t> members;
    for (size_t i = 0; i < classes_.labels.size(); i++)
      if (classes_.labels[i] == int32_t(label)) members.push_back(int64_t(i));
    const int side = data_->size();
    references_.push_back({label, std::make_unique<SwdReference>([&](int64_t i, uint8_t* to) { data_->read(size_t(members[size_t(i)]), to); },
                                                                 int64_t(members.size()), side, side)});
  }
}

void BigganTrainee::use_stream(int stream) {
  const uint64_t seed = o_.seed + uint64_t(stream) * 0x9E3779B97F4A7C15ull;
  random_ = std::make_shared<Philox>(seed);
  random_->keep_step_in(model_.memory.step());
  context().random = random_;
  graph_.reset();  // the seed is an argument of its launches
  next_step_ = -1;
  order_ = std::make_unique<BatchOrder>(seed, int64_t(data_->count()), int(pictures_a_step()), share());
  source_.reset();  // first: the set need not fit in memory twice
  source_ = std::make_unique<PictureSource>(data_, seed, int(pictures_a_step()), share());
}

/// This rank's share of part `part` of D's batch number d_step of the current step, augmented, with its labels.
RealPart BigganTrainee::real_part(int d_step, int part) {
  const int64_t n = at_once(), first = (int64_t(d_step) * o_.train.parts + part) * n;
  random_->set_first_sample((int64_t(part) * ranks() + share().rank) * n);
  const std::string site = std::to_string(d_step);
  const Tensor flips = random_->uniform("flip." + site, Shape{n, 1}), uniforms = random_->uniform("augment.real." + site, Shape{n, kAugmentUniforms});
  const Tensor labels = labels_.slice(first, Shape{n});
  if (!o_.band) return {source_->gather(first, n, flips, float(o_.flip), o_.train.augment, uniforms), labels};
  const NoGrad none;
  const Tensor band = seen(source_->gather(first, n, flips, float(o_.flip), {false, false, false}, uniforms));
  return {augment(Var(band), o_.train.augment, uniforms).value, labels};
}

void BigganTrainee::step(int64_t step) {
  standing_.reset();
  if (step != next_step_) random_->set_step(uint64_t(step));
  next_step_ = step + 1;
  source_->start(step);
  std::vector<int32_t> labels = order_->indices(step);
  for (int32_t& k : labels) k = classes_.labels[size_t(k)];
  labels_.upload(labels.data());
  graph_.run([&] {
    losses_ = {};  // the last step's leave their memory, so that every step finds it alike
    losses_ = model_.iteration([&](int d_step, int part) { return real_part(d_step, part); }, o_.train);
  });
}

std::vector<std::pair<std::string, double>> BigganTrainee::numbers() {
  const Losses& l = losses_;
  std::vector<std::pair<std::string, double>> all{{"loss_d_real", l.d_real.item()}, {"loss_d_fake", l.d_fake.item()}, {"loss_g", l.g.item()},
                                                  {"logit_real", l.logit_real.item()}, {"logit_fake", l.logit_fake.item()}};
  if (model_.memory.scaled()) {
    const StepState s = model_.memory.read();
    all.emplace_back("loss_scale", s.loss_scale);
    all.emplace_back("overflows", double(s.overflows));
  }
  return all;
}

/// The singular value of every layer among them: the watch looks at each.
std::vector<std::pair<std::string, double>> BigganTrainee::vitals() {
  std::vector<std::pair<std::string, double>> all{{"sigma_g", model_.largest_sigma_g()}, {"sigma_d", model_.largest_sigma_d()},
                                                  {"gradient_g", model_.g_params.gradient_norm()}, {"gradient_d", model_.d_params.gradient_norm()}};
  for (const SingularValue& v : model_.singular_values_g()) all.emplace_back("sv_g." + v.layer, v.value);
  for (const SingularValue& v : model_.singular_values_d()) all.emplace_back("sv_d." + v.layer, v.value);
  return all;
}

bool BigganTrainee::go_on(int64_t steps_done) {
  if (!o_.on_step) return true;
  const Losses& l = losses_;
  return o_.on_step({steps_done, l.d_real.item(), l.d_fake.item(), l.g.item(), l.logit_real.item(), l.logit_fake.item()});
}

std::string BigganTrainee::summary() {
  const Losses& l = losses_;
  return fmt::format("D(real) {:+.2f} D(fake) {:+.2f}  loss D {:.2f}+{:.2f} G {:+.2f}  sigma G {:.1f} D {:.1f}", l.logit_real.item(), l.logit_fake.item(),
                     l.d_real.item(), l.d_fake.item(), l.g.item(), model_.largest_sigma_g(), model_.largest_sigma_d());
}

Tensor BigganTrainee::sample_of(const std::vector<int32_t>& labels, int64_t first) {
  Scoped<std::shared_ptr<RandomSource>> scope(&Context::random, sampler_);
  const int64_t latent = o_.network.latent();
  const auto batch = [&](const char* site, int64_t at, const std::vector<int32_t>& of) {
    sampler_->set_first_sample(at);
    StandingStatistics::Batch b{sampler_->normal(site, Shape{int64_t(of.size()), latent}), {}};
    if (o_.network.conditional()) b.labels.a = to_labels(of);
    return b;
  };
  if (o_.standing > 0 && !standing_)
    standing_ = std::make_unique<StandingStatistics>(model_, o_.standing, [&](int k) {
      std::vector<int32_t> of;
      for (int64_t i = 0; i < at_once(); i++)
        of.push_back(classes_.labels[size_t(sample_order_[size_t(k * at_once() + i) % sample_order_.size()])]);
      return batch("standing.z", k * at_once(), of);
    });
  const StandingStatistics::Batch b = batch("z", first, labels);
  return model_.sample(b.z, b.labels);
}

/// Classes of the samples as frequent as in the data, so that the distance to all of it means something.
std::vector<int32_t> BigganTrainee::sample_labels(int64_t first, int64_t n) const {
  std::vector<int32_t> labels;
  for (int64_t i = first; i < first + std::min(n, at_once()); i++)
    labels.push_back(classes_.labels[size_t(sample_order_[size_t(i) % sample_order_.size()])]);
  return labels;
}

Tensor BigganTrainee::sample(int64_t first, int64_t n) { return shown(sample_of(sample_labels(first, n), first)); }

/// The distance of every class that has enough pictures, to its own pictures, and their mean; that of the bands to the real ones.
std::vector<std::pair<std::string, double>> BigganTrainee::measures() {
  std::vector<std::pair<std::string, double>> out;
  double sum = 0, baseline = 0;
  for (const ClassReference& r : references_) {
    std::vector<Picture> some;
    int64_t first = 0;
    const int64_t count = r.reference->pictures();
    const SwdResult d = r.reference->compare(
        [&](int64_t i, uint8_t* to) {
          if (i >= first + int64_t(some.size())) {
            first = i;
            some = to_pictures(shown(sample_of(std::vector<int32_t>(size_t(std::min(count - first, at_once())), int32_t(r.label)), first)));
          }
          const Picture& p = some[size_t(i - first)];
          std::copy(p.rgb.begin(), p.rgb.end(), to);
        },
        count);
    out.emplace_back("class_swd." + classes_.names[r.label], d.mean);
    sum += d.mean;
    baseline += r.reference->baseline().mean;
  }
  if (!references_.empty()) {
    out.emplace_back("class_swd", sum / double(references_.size()));
    out.emplace_back("class_swd_baseline", baseline / double(references_.size()));
  }
  if (band_reference_) {
    std::vector<Picture> some;
    int64_t first = 0;
    const int64_t count = band_reference_->pictures();
    const SwdResult d = band_reference_->compare(
        [&](int64_t i, uint8_t* to) {
          if (i >= first + int64_t(some.size())) {
            first = i;
            some = to_pictures(band_to_look_at(sample_of(sample_labels(first, count - first), first), *o_.band));
          }
          const Picture& p = some[size_t(i - first)];
          std::copy(p.rgb.begin(), p.rgb.end(), to);
        },
        count);
    out.emplace_back("band_swd", d.mean);
    out.emplace_back("band_swd_baseline", band_reference_->baseline().mean);
  }
  return out;
}

/// The bands of the sample grid; a row a class, the same latents in every row.
void BigganTrainee::write_sheets(const RunDirectory& directory, int64_t step) {
  if (o_.band) {
    std::vector<Picture> bands;
    const int64_t count = int64_t(o_.grid) * o_.grid;
    for (int64_t first = 0; first < count; first = int64_t(bands.size()))
      for (Picture& p : to_pictures(band_to_look_at(sample_of(sample_labels(first, count - first), first), *o_.band))) bands.push_back(std::move(p));
    write_png(directory.sample(step, "_band"), make_grid(bands, o_.grid, 2), {{"Software", std::string("kiln ") + program_of(o_)}, {"band", o_.band->text()}});
  }
  if (!o_.network.conditional()) return;
  std::vector<Picture> all;
  for (size_t k = 0; k < classes_.names.size() && k < size_t(kSheetClasses); k++)
    for (int64_t first = 0; first < kSheetColumns;) {
      const std::vector<int32_t> labels(size_t(std::min<int64_t>(kSheetColumns - first, at_once())), int32_t(k));
      for (Picture& p : to_pictures(shown(sample_of(labels, first)))) all.push_back(std::move(p));
      first += int64_t(labels.size());
    }
  std::string names;
  for (size_t k = 0; k < classes_.names.size() && k < size_t(kSheetClasses); k++) names += (k ? ", " : "") + classes_.names[k];
  write_png(directory.sample(step, "_classes"), make_grid(all, kSheetColumns, 2), {{"Software", std::string("kiln ") + program_of(o_)}, {"rows", names}});
}

void BigganTrainee::save(CheckpointWriter& w) {
  standing_.reset();
  w.add("G.", model_.g_params);
  w.add("D.", model_.d_params);
  w.add("ema.", model_.average_params);
  w.add_optimiser("opt_g.", model_.g_params);
  w.add_optimiser("opt_d.", model_.d_params);
  w.add_loss_scale(model_.memory);
}

void BigganTrainee::load(const SafetensorsFile& file) {
  const std::string path = file.path();
  const RunOptions theirs = from_json(metadata_text(file, "config"), path, o_.band.has_value());
  const auto same = [&](const char* flag, auto ours, auto saved) {
    if (ours != saved) fail("{}: was trained with {} {}, this run has {}; give {} {} or start a new run", path, flag, saved, ours, flag, saved);
  };
  if (o_.band && *o_.band != *theirs.band)
    fail("{}: was trained on {}, this run is on {}; give the same --size, --domain, --wavelet, --levels and --normalisation, or start a new run", path,
         theirs.band->text(), o_.band->text());
  same("--size", o_.network.size, theirs.network.size);
  same("--g-width", o_.network.g_width, theirs.network.g_width);
  same("--d-width", o_.network.d_width, theirs.network.d_width);
  same("--z", o_.network.z, theirs.network.z);
  same("--shared-dim", o_.network.shared_dim, theirs.network.shared_dim);
  same("--g-attention", o_.network.g_attention, theirs.network.g_attention);
  same("--d-attention", o_.network.d_attention, theirs.network.d_attention);
  Config shape = theirs.network;
  shape.fold = o_.network.fold;  // the same numbers, computed in another way
  shape.init = o_.network.init;  // only of the beginning
  shape.classes = o_.network.classes;
  if (shape != o_.network) fail("{}: was trained with other network options (--deep, --no-shared, --no-hier, --bn-eps); give the same ones", path);
  if (theirs.network.conditional() != o_.network.conditional())
    fail("{}: is of {} network, and these pictures are {}; their norms have different shapes. {}", path,
         theirs.network.conditional() ? "a class-conditional" : "an unconditional", o_.network.conditional() ? "in class folders" : "in no class folders",
         o_.network.conditional() ? "Give --unconditional" : "Sort the pictures into class folders");
  const Mapping mapping = map_classes(theirs.class_names, o_.class_names);
  if (!mapping.same()) {
    if (o_.resume_file.empty())
      fail("{}: its classes are not those of the pictures ({}); put the folders back, or start a new run from the checkpoint with --resume FILE",
           path, mapping.text);
    model_.initialise(*random_);
    line_.print(fmt::format("classes of {}: {}", path, mapping.text));
  }
  load_with_classes(file, mapping, model_, true);
  if (theirs.precision == o_.precision) load_loss_scale(file, model_.memory);
}

/// The band's normalisation, if it is not known: that of the checkpoint to start from, or measured. Every rank finds the same.
void settle_band(RunOptions& o, const Dataset& data, ProgressLine& line) {
  if (o.measure_band && !o.resume_file.empty()) {
    const SafetensorsFile file(o.resume_file);
    const nsbgan::Band theirs = *from_json(metadata_text(file, "config"), o.resume_file.string(), true).band;
    o.band->shift = theirs.shift, o.band->scale = theirs.scale;
  } else if (o.measure_band) {
    line.show("measuring the bands");
    o.band = nsbgan::measure(data, *o.band);
  }
  o.measure_band = false;
  line.print(o.band->text());
}

}  // namespace

RunPlan plan_of(const RunOptions& o) {
  RunPlan p = kiln::plan_of(o);
  p.batch = o.batch * o.train.d_steps;
  p.config = to_json(o, false);
  p.config_file = to_json(o, true);
  p.program = program_of(o);
  return p;
}

RunResult train(const RunOptions& options) {
  check(options);
  if (options.threads > 0) omp_set_num_threads(options.threads);
  Context context(options.device, false, tensor_limit(options));
  UseContext use(context);
  configure(context, options);
  if (options.ranks && options.device == Device::gpu) options.ranks->use_gpus();
  // The classes belong to the run's configuration, and are known when the pictures are.
  RunOptions o = options;
  ProgressLine reading(o.console && (!o.ranks || o.ranks->root()));
  const std::shared_ptr<const Dataset> data = load_pictures(dataset_options(o, o.band ? o.band->picture_size : o.network.size), reading, o.ranks.get());
  ClassIndex classes;
  if (o.unconditional)
    classes.labels.assign(data->count(), 0);
  else
    classes = index_classes(data->names(), o.data);
  for (const std::string& note : classes.notes) reading.print(note);
  reading.print(classes.balance());
  o.class_names = classes.names;
  o.network.classes = int(classes.names.size());
  if (o.band) settle_band(o, *data, reading);
  check(o);
  if (o.ranks) o.ranks->agree_on_options(to_json(o, true), {"commands", "data", "rewinds"});
  TrainingRun run(plan_of(o));
  run.use_pictures(data);
  BigganTrainee trainee(o, data, std::move(classes), run.line());
  run.start(trainee);
  run.line().print(fmt::format("{} {} px, G {:.2f} M parameters, D {:.2f} M; batch {} x {} D steps, {} on {}; to {}",
                               o.network.deep ? "BigGAN-deep" : "BigGAN", o.network.size, double(trainee.model().g_params.parameter_count()) / 1e6,
                               double(trainee.model().d_params.parameter_count()) / 1e6, o.batch, o.train.d_steps, name_of(o.precision),
                               machine_text(o), o.out.string()));
  return run.train(trainee);
}

}  // namespace kiln::biggan
