#include "models/nsbgan_decoder_run.h"

#include <omp.h>

#include <cmath>

#include "engine/error.h"
#include "engine/ops_feature.h"
#include "engine/picture_source.h"
#include "engine/picture_tensor.h"
#include "engine/psnr_ssim.h"
#include "models/nsbgan_decoder.h"
#include "engine/step_graph.h"

namespace kiln::nsbgan::decoding {
namespace {

constexpr int kSheetColumns = 8;

/// Pictures that are measured on: never trained on, unless there is only one.
struct TestSet {
  std::shared_ptr<const Dataset> data;
  std::vector<int32_t> index;
};

struct Quality {
  double psnr = 0, ssim = 0;
};

/// A decoder's side of a training run.
class DecoderTrainee : public Trainee {
 public:
  DecoderTrainee(const RunOptions& o, std::shared_ptr<const Dataset> data, std::vector<int32_t> train, TestSet test, ProgressLine& line)
      : o_(o), line_(line), data_(std::move(data)), train_(std::move(train)), test_(std::move(test)),
        model_(o.network, o.train.gan ? o.d_width : 0, o.vgg.empty() ? nullptr : std::make_shared<Vgg19Loss>(o.vgg, context().storage)),
        sample_order_(permutation(o.seed, "sample.pictures", 0, int64_t(data_->count()))), now_(o.train) {
    // The order of paths is that of class folders: some of all of them.
    const size_t all = test_.index.size(), some = size_t(o.measured);
    for (size_t i = 0; all > some && i < some; i++) test_.index[i] = test_.index[i * all / some];
    if (all > some) test_.index.resize(some);
    use_stream(0);
  }

  void step(int64_t step) override;
  void use_stream(int stream) override;
  std::vector<std::pair<std::string, double>> numbers() override;
  std::vector<std::pair<std::string, double>> vitals() override;
  std::vector<std::pair<std::string, double>> measures() override;
  bool finite() override { return std::isfinite(model_.g_params.value_norm()) && (!model_.adversarial() || std::isfinite(model_.d_params.value_norm())); }
  std::string summary() override;
  Tensor sample(int64_t first, int64_t n) override;
  void write_sheets(const RunDirectory& directory, int64_t step) override;
  std::vector<Tensor> state() override { return model_.state(); }
  void initialise() override { model_.initialise(*random_); }
  void save(CheckpointWriter& w) override;
  void load(const SafetensorsFile& file) override;
  const Model& model() const { return model_; }

 private:
  int ranks() const { return o_.rank_count(); }
  BatchShare share() const { return {o_.ranks ? o_.ranks->rank() : 0, ranks(), o_.train.parts}; }
  int64_t at_once() const { return o_.batch / (int64_t(o_.train.parts) * ranks()); }  // pictures
  const Band& band() const { return o_.network.band; }
  /// Pictures of a set on [-1, 1], f32.
  static Tensor pictures_of(const Dataset& data, const std::vector<int32_t>& index);
  Tensor bands_of(const Tensor& pictures) const { return raw_band(Var(pictures), band()).value; }  // on the band's own scale
  Quality quality(const std::function<Tensor(const Tensor& band)>& decode) const;
  void measure_baselines();

  const RunOptions& o_;
  ProgressLine& line_;
  std::shared_ptr<const Dataset> data_;
  std::vector<int32_t> train_;
  TestSet test_;
  std::shared_ptr<Philox> random_;
  Model model_;
  std::unique_ptr<PictureSource> source_;
  std::vector<int32_t> sample_order_;
  StepGraph graph_;
  TrainOptions now_;        // with this step's learning rates
  Losses losses_;           // of the last step: read only where a report is due
  int64_t next_step_ = -1;  // what the model's memory holds
  std::vector<std::pair<std::string, double>> baselines_;
  double last_psnr_ = 0;
};

Tensor DecoderTrainee::pictures_of(const Dataset& data, const std::vector<int32_t>& index) {
  std::vector<Picture> all;
  for (const int32_t i : index) {
    Picture p{data.size(), data.size(), std::vector<uint8_t>(data.picture_bytes())};
    data.read(size_t(i), p.rgb.data());
    all.push_back(std::move(p));
  }
  return to_tensor(all);
}

void DecoderTrainee::use_stream(int stream) {
  const uint64_t seed = o_.seed + uint64_t(stream) * 0x9E3779B97F4A7C15ull;
  random_ = std::make_shared<Philox>(seed);
  random_->keep_step_in(model_.memory.step());
  context().random = random_;
  graph_.reset();  // the seed is an argument of its launches
  next_step_ = -1;
  source_.reset();  // first: the set need not fit in memory twice
  source_ = std::make_unique<PictureSource>(data_, train_, seed, o_.batch, share());
}

void DecoderTrainee::step(int64_t step) {
  if (step != next_step_) random_->set_step(uint64_t(step));
  next_step_ = step + 1;
  const float rate = rate_at(o_, step);
  if (rate * o_.train.adam_g.lr != now_.adam_g.lr) {
    now_.adam_g.lr = rate * o_.train.adam_g.lr;
    now_.adam_d.lr = rate * o_.train.adam_d.lr;
    graph_.reset();  // they are arguments of its launches
  }
  source_->start(step);
  graph_.run([&] {
    losses_ = {};  // the last step's leave their memory, so that every step finds it alike
    losses_ = model_.iteration(
        [&](int part) {
          random_->set_first_sample((int64_t(part) * ranks() + share().rank) * at_once());
          const Tensor flips = random_->uniform("flip", Shape{at_once(), 1});
          return source_->gather(part * at_once(), at_once(), flips, float(o_.flip), AugmentPolicy{false, false, false}, Tensor());
        },
        now_);
  });
}

std::vector<std::pair<std::string, double>> DecoderTrainee::numbers() {
  const Losses& l = losses_;
  std::vector<std::pair<std::string, double>> all;
  for (size_t i = 0; i < l.levels.size(); i++) all.emplace_back("loss_level" + std::to_string(i + 1), l.levels[i].item());
  if (l.levels.empty()) all.emplace_back("loss_l1", l.pixel.item());
  if (o_.train.gan) {
    if (!o_.vgg.empty()) all.emplace_back("loss_perceptual", l.perceptual.item());
    all.insert(all.end(), {{"loss_gan", l.adversarial.item()}, {"loss_d", l.d.item()}, {"margin", l.margin.item()}});
  }
  all.emplace_back("lr", now_.adam_g.lr);
  if (model_.memory.scaled()) {
    const StepState s = model_.memory.read();
    all.emplace_back("loss_scale", s.loss_scale);
    all.emplace_back("overflows", double(s.overflows));
  }
  return all;
}

std::vector<std::pair<std::string, double>> DecoderTrainee::vitals() {
  std::vector<std::pair<std::string, double>> all{{"gradient_g", model_.g_params.gradient_norm()}};
  if (model_.adversarial()) all.emplace_back("gradient_d", model_.d_params.gradient_norm());
  return all;
}

std::string DecoderTrainee::summary() {
  const Losses& l = losses_;
  std::string text = "loss";
  for (const Tensor& level : l.levels) text += fmt::format(" {:.4g}", level.item());
  if (l.levels.empty()) text += fmt::format(" L1 {:.4f}", l.pixel.item());
  if (o_.train.gan) text += fmt::format(" G {:.3f} D {:.3f}  real above decoded {:+.2f}", l.adversarial.item(), l.d.item(), l.margin.item());
  return last_psnr_ > 0 ? text + fmt::format("  {:.2f} dB", last_psnr_) : text;
}

/// Decoded from the bands of the pictures themselves.
Tensor DecoderTrainee::sample(int64_t first, int64_t n) {
  std::vector<int32_t> index;
  for (int64_t i = first; i < first + std::min(n, at_once()); i++) index.push_back(sample_order_[size_t(i) % sample_order_.size()]);
  return model_.decode(bands_of(pictures_of(*data_, index)));
}

/// Means over the pictures that are measured on, against them as bytes.
Quality DecoderTrainee::quality(const std::function<Tensor(const Tensor& band)>& decode) const {
  Quality q;
  for (size_t first = 0; first < test_.index.size(); first += size_t(at_once())) {
    const size_t n = std::min(size_t(at_once()), test_.index.size() - first);
    const auto from = test_.index.begin() + ptrdiff_t(first);
    const Tensor real = pictures_of(*test_.data, {from, from + ptrdiff_t(n)});
    const std::vector<Picture> want = to_pictures(real), got = to_pictures(decode(bands_of(real)));
    for (size_t i = 0; i < n; i++) {
      q.psnr += psnr(got[i], want[i]) / double(test_.index.size());
      q.ssim += ssim(got[i], want[i]) / double(test_.index.size());
    }
  }
  return q;
}

void DecoderTrainee::measure_baselines() {
  const auto add = [&](const char* name, const Quality& q) {
    baselines_.emplace_back(std::string("psnr_") + name, q.psnr);
    baselines_.emplace_back(std::string("ssim_") + name, q.ssim);
  };
  add("bilinear", quality([&](const Tensor& b) { return plain_upscaling(b, band(), Interpolation::bilinear); }));
  add("bicubic", quality([&](const Tensor& b) { return plain_upscaling(b, band(), Interpolation::bicubic); }));
  if (band().domain == Domain::wavelet)
    add("no_details", quality([&](const Tensor& b) { return picture_of_band(normalise(Var(b), band()), band()).value; }));
}

std::vector<std::pair<std::string, double>> DecoderTrainee::measures() {
  if (baselines_.empty()) measure_baselines();
  const Quality q = quality([&](const Tensor& b) { return model_.decode(b); });
  last_psnr_ = q.psnr;
  std::vector<std::pair<std::string, double>> out{{"psnr", q.psnr}, {"ssim", q.ssim}};
  out.insert(out.end(), baselines_.begin(), baselines_.end());
  return out;
}

/// Rows: the low band, bilinear upscaling, decoded, real; of pictures that were held out.
void DecoderTrainee::write_sheets(const RunDirectory& directory, int64_t step) {
  std::vector<Picture> rows[4];
  const double brightness = band().domain == Domain::wavelet ? 1 << band().levels : 1;
  for (size_t i = 0; i < size_t(kSheetColumns) && i < test_.index.size(); i++) {
    const Tensor real = pictures_of(*test_.data, {test_.index[i]}), b = bands_of(real);
    const int64_t side = real.shape()[1];
    rows[0].push_back(to_pictures(nearest_resize(affine(Var(b), 2 / brightness, -1), side, side).value)[0]);
    rows[1].push_back(to_pictures(plain_upscaling(b, band(), Interpolation::bilinear))[0]);
    rows[2].push_back(to_pictures(model_.decode(b))[0]);
    rows[3].push_back(to_pictures(real)[0]);
  }
  std::vector<Picture> all;
  for (std::vector<Picture>& row : rows)
    for (Picture& p : row) all.push_back(std::move(p));
  write_png(directory.sample(step, "_held_out"), make_grid(all, int(all.size() / 4), 2),
            {{"Software", "kiln nsbgan_train"}, {"rows", "low band, bilinear, decoded, real"}});
}

void DecoderTrainee::save(CheckpointWriter& w) {
  w.add("G.", model_.g_params);
  w.add_optimiser("opt_g.", model_.g_params);
  if (model_.adversarial()) {
    w.add("D.", model_.d_params);
    w.add_optimiser("opt_d.", model_.d_params);
  }
  w.add_loss_scale(model_.memory);
}

void DecoderTrainee::load(const SafetensorsFile& file) {
  const std::string path = file.path();
  const RunOptions theirs = from_json(metadata_text(file, "config"), path);
  const auto same = [&](const char* flag, const auto& ours, const auto& saved) {
    if (ours != saved) fail("{}: was trained with {} {}, this run has {}; give {} {} or start a new run", path, flag, saved, ours, flag, saved);
  };
  same("--kind", std::string(name_of(o_.network.kind)), std::string(name_of(theirs.network.kind)));
  same("--domain", std::string(name_of(band().domain)), std::string(name_of(theirs.network.band.domain)));
  if (band().domain == Domain::wavelet) same("--wavelet", std::string(name_of(band().wavelet)), std::string(name_of(theirs.network.band.wavelet)));
  same("--levels", band().levels, theirs.network.band.levels);
  same("--width", o_.network.width, theirs.network.width);
  same("--blocks", o_.network.blocks, theirs.network.blocks);
  if (o_.network.published_base != theirs.network.published_base) fail("{}: was trained with another base (--published-base); give the same", path);
  load_parameters(file, "G.", model_.g_params);
  const bool goes_on = o_.train.gan == theirs.train.gan;
  if (goes_on) load_optimiser(file, "opt_g.", model_.g_params);
  if (model_.adversarial()) {
    if (theirs.train.gan) {
      same("--size", band().picture_size, theirs.network.band.picture_size);
      same("--d-width", o_.d_width, theirs.d_width);
      load_parameters(file, "D.", model_.d_params);
      load_optimiser(file, "opt_d.", model_.d_params);
    } else {
      model_.initialise_discriminator(*random_);
      line_.print(fmt::format("{}: of the first stage: the decoder goes on from it with a fresh optimiser, against a new discriminator", path));
    }
  }
  if (goes_on && theirs.precision == o_.precision) load_loss_scale(file, model_.memory);
}

RunPlan plan_of(const RunOptions& o) {
  RunPlan p = kiln::plan_of(o);
  p.batch = o.batch;
  p.config = to_json(o, false);
  p.config_file = to_json(o, true);
  p.program = "nsbgan_train decoder";
  return p;
}

/// For people: what is trained against what.
std::string loss_text(const RunOptions& o) {
  if (o.network.kind == DecoderKind::unet) return o.network.band.domain == Domain::wavelet ? "squared errors summed over tiles" : "squared errors summed over pictures";
  if (!o.train.gan) return "L1";
  if (o.vgg.empty()) return "L1 and a relativistic discriminator; without the perceptual loss, since no VGG19 weights were given (--vgg)";
  return "L1, VGG19's conv5_4 and a relativistic discriminator";
}

}  // namespace

RunResult train(const RunOptions& options) {
  check(options);
  if (options.threads > 0) omp_set_num_threads(options.threads);
  Context context(options.device, false, tensor_limit(options));
  UseContext use(context);
  configure(context, options);
  if (options.ranks && options.device == Device::gpu) options.ranks->use_gpus();
  RunOptions o = options;
  ProgressLine reading(o.console && (!o.ranks || o.ranks->root()));
  const int side = o.network.band.picture_size;
  const std::shared_ptr<const Dataset> data = load_pictures(dataset_options(o, side), reading, o.ranks.get());
  if (!o.resume_file.empty()) {  // its weights belong to its normalisation
    const SafetensorsFile file(o.resume_file);
    const RunOptions theirs = from_json(metadata_text(file, "config"), file.path());
    const Band& b = theirs.network.band;
    if (!o.measure_band && (o.network.band.shift != b.shift || o.network.band.scale != b.scale))
      fail("{}: was trained with --normalisation {} {}; give the same, or leave it out", file.path(), b.shift, b.scale);
    o.network.band.shift = b.shift;
    o.network.band.scale = b.scale;
    o.first_step = theirs.train.gan == o.train.gan ? theirs.first_step : metadata_integer(file, "step");
  } else if (o.measure_band) {
    o.network.band = measure(*data, o.network.band);
  }
  Split split = split_by_name(data->names(), o.test.empty() ? o.hold_out : 0);
  TestSet test{data, split.held_out};
  if (!o.test.empty()) {
    DatasetOptions of_test = dataset_options(o, side);
    of_test.folder = o.test;
    test.data = load_pictures(of_test, reading, o.ranks.get());
    test.index = split_by_name(test.data->names(), 0).train;
  } else if (test.index.empty()) {
    test.index = split.train;  // nothing is held out: measured on what it was trained on
    reading.print("no picture is held out: psnr and ssim are of pictures that are trained on");
  }
  if (o.ranks) o.ranks->agree_on_options(to_json(o, true), {"commands", "data", "test", "vgg", "rewinds"});
  TrainingRun run(plan_of(o));
  run.use_pictures(data);
  DecoderTrainee trainee(o, data, std::move(split.train), test, run.line());
  run.start(trainee);
  const Model& m = trainee.model();
  run.line().print(fmt::format("{} decoder, {} domain{}, {} -> {} px, {:.2f} M parameters{}; {} of {} pictures held out; batch {}, {} on {}; to {}",
                               name_of(o.network.kind), name_of(o.network.band.domain),
                               o.network.band.domain == Domain::wavelet ? fmt::format(" ({})", name_of(o.network.band.wavelet)) : "", side >> o.network.band.levels, side,
                               double(m.g_params.parameter_count()) / 1e6, m.adversarial() ? fmt::format(", D {:.2f} M", double(m.d_params.parameter_count()) / 1e6) : "",
                               o.test.empty() && test.index.size() < data->count() ? test.index.size() : 0, data->count(), o.batch, name_of(o.precision),
                               machine_text(o), o.out.string()));
  run.line().print(fmt::format("loss: {}", loss_text(o)));
  return run.train(trainee);
}

void dry_run(const RunOptions& o) {
  check(o);
  Context context(o.device, true, tensor_limit(o));
  UseContext use(context);
  configure(context, o);
  context.random = std::make_shared<Philox>(o.seed);
  Model model(o.network, o.train.gan ? o.d_width : 0);
  const auto table = [](const char* title, const ParameterSet& set) {
    fmt::print("{}\n", title);
    for (const auto& e : set.entries())
      if (e.kind == ParameterSet::Entry::parameter) fmt::print("  {:32} {:>18} {:>12}\n", e.name, e.shape.text(), e.count());
    fmt::print("  {:32} {:>18} {:>12}\n", "total", "", set.parameter_count());
  };
  table("decoder", model.g_params);
  if (model.adversarial()) table("discriminator", model.d_params);
  const int64_t n = o.batch / (int64_t(o.train.parts) * o.rank_count()), side = o.network.band.picture_size;
  for (int i = 0; i < 2; i++) model.iteration([&](int) { return Tensor(Shape{n, side, side, 3}, context.storage); }, o.train);
  const Arena::Stats s = context.arena->stats();
  fmt::print("memory: {} MB of tensors at the peak of a step with batch {} in {} parts ({} MB reserved){}, and the pictures: {:.3f} MB each\n", s.peak >> 20,
             o.batch, o.train.parts, s.reserved >> 20, o.vgg.empty() ? "" : ", without the perceptual loss's", double(side) * double(side) * 3 / 1048576.0);
}

}  // namespace kiln::nsbgan::decoding
