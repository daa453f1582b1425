#include "models/sswgan_trainee.h"

#include <algorithm>
#include <cmath>

#include "engine/error.h"
#include "engine/picture_tensor.h"
#include "engine/video.h"

namespace kiln::sswgan {
namespace {

constexpr uint64_t kShownSeed = 1ull << 42;  // of what samples are made of
constexpr int64_t kShown = 64;               // clips of the stage before that samples are made of
constexpr int kSheetFrames = 12;             // columns of a sheet, at most
constexpr int64_t kRealClips = 256;          // that the distance is measured against, at most

/// As it is, every pixel and frame repeated.
PictureClip enlarged(const PictureClip& clip, int rho, int side) {
  PictureClip out;
  for (const Picture& p : clip) {
    Picture big{side, side, std::vector<uint8_t>(size_t(side) * size_t(side) * 3)};
    for (int y = 0; y < side; y++)
      for (int x = 0; x < side; x++)
        for (int c = 0; c < 3; c++)
          big.rgb[(size_t(y) * size_t(side) + size_t(x)) * 3 + size_t(c)] =
              p.rgb[(size_t(y * p.height / side) * size_t(p.width) + size_t(x * p.width / side)) * 3 + size_t(c)];
    for (int i = 0; i < rho; i++) out.push_back(big);
  }
  return out;
}

/// The bytes of clips, one behind the other, as a metric reads them.
ClipBytes bytes_of(const std::vector<PictureClip>& clips, std::vector<uint8_t>& keep) {
  for (const PictureClip& c : clips)
    for (const Picture& p : c) keep.insert(keep.end(), p.rgb.begin(), p.rgb.end());
  return clips_in_memory(keep.data(), int64_t(clips.size()), int(clips[0].size()), clips[0][0].height, clips[0][0].width);
}

}  // namespace

SswganTrainee::SswganTrainee(const RunOptions& o, std::shared_ptr<const ClipDataset> data, std::shared_ptr<Sampler> before)
    : o_(o), data_(std::move(data)), before_(std::move(before)), model_(o.network, o.stage), average_(o.network, o.stage) {
  if (before_) {
    std::vector<ClipDraw> draws;
    for (int64_t i = 0; i < kShown; i++) draws.push_back({kShownSeed + uint64_t(i), label_of(o_.network, uint64_t(i))});
    shown_ = before_->numbers(draws);
    shown_count_ = kShown;
  }
  use_stream(0);
}

void SswganTrainee::use_stream(int stream) {
  const uint64_t seed = o_.seed + uint64_t(stream) * 0x9E3779B97F4A7C15ull;
  random_ = std::make_shared<Philox>(seed);
  random_->keep_step_in(model_.memory.step());
  context().random = random_;
  graph_.reset();  // the seed is an argument of its launches
  next_step_ = -1;
  const int d_steps = o_.train.d_steps, parts = o_.train.parts;
  source_.reset();
  source_ = std::make_unique<ClipSource>(data_, seed, o_.batch * d_steps, o_.network.data_frames(o_.stage), BatchShare{rank(), ranks(), parts * d_steps});
  conditions_.reset();
  if (before_)
    conditions_ = std::make_unique<ConditionSource>(before_, here().window / o_.network.rho(o_.stage), o_.kept_conditions, seed, o_.batch * (d_steps + 1),
                                                    BatchShare{rank(), ranks(), parts * (d_steps + 1)});
}

/// This rank's share of part `part` of D's batch number d_step of the current step, as this stage sees it.
RealPart SswganTrainee::real_part(int d_step, int part) {
  const int64_t n = at_once(), first = (int64_t(d_step) * o_.train.parts + part) * n;
  random_->set_first_sample((int64_t(part) * ranks() + rank()) * n);
  const Tensor flips = random_->uniform("flip." + std::to_string(d_step), Shape{n, 1});
  return {view(Var(source_->gather(first, n, flips, float(o_.flip))), here().stride, o_.network.shrink(o_.stage)).value, source_->labels(first, n)};
}

void SswganTrainee::step(int64_t step) {
  average_.release();  // so that every step finds the memory alike
  if (step != next_step_) random_->set_step(uint64_t(step));
  next_step_ = step + 1;
  steps_done_ = step + 1;
  source_->start(step);
  if (conditions_) conditions_->start(step);
  const Sources sources{[&](int d_step, int part) { return real_part(d_step, part); },
                        [&](int d_step, int part) {
                          const int64_t n = at_once();
                          return conditions_ ? conditions_->part((int64_t(d_step) * o_.train.parts + part) * n, n) : ConditionPart{};
                        }};
  graph_.run([&] {
    losses_ = {};  // the last step's leave their memory, so that every step finds it alike
    losses_ = model_.iteration(sources, o_.train);
  });
}

/// Each discriminator's figures, and their means under the names that the watch knows.
std::vector<std::pair<std::string, double>> SswganTrainee::numbers() {
  std::vector<std::pair<std::string, double>> all;
  const int count = model_.d.has_matching() ? 3 : 2;
  double real = 0, fake = 0, g = 0, logit_real = 0, logit_fake = 0;
  for (int i = 0; i < count; i++) {
    const Losses::Critic& l = losses_.critic[i];
    const std::string name = std::string(".") + kCritics[i];
    const double r = l.d_real.item(), f = l.d_fake.item();
    all.insert(all.end(), {{"hinge" + name, r + f}, {"score_real" + name, l.logit_real.item()}, {"score_fake" + name, l.logit_fake.item()}});
    real += r / count;
    fake += f / count;
    g += l.g.item() / count;
    logit_real += l.logit_real.item() / count;
    logit_fake += l.logit_fake.item() / count;
  }
  all.insert(all.end(), {{"loss_d_real", real}, {"loss_d_fake", fake}, {"loss_g", g}, {"logit_real", logit_real}, {"logit_fake", logit_fake}});
  all.emplace_back("motion", losses_.motion.item());
  if (o_.stage > 1) {
    const double mse = losses_.grounding.item();
    all.emplace_back("grounding_psnr", 10 * std::log10(4 / std::max(mse, 1e-10)));
    if (o_.train.matching.mismatch > 0 && model_.d.has_matching()) all.emplace_back("score_mismatch.matching", losses_.mismatch.item());
  }
  if (model_.memory.scaled()) {
    const StepState s = model_.memory.read();
    all.emplace_back("loss_scale", s.loss_scale);
    all.emplace_back("overflows", double(s.overflows));
  }
  return all;
}

std::vector<std::pair<std::string, double>> SswganTrainee::vitals() {
  std::vector<std::pair<std::string, double>> all{{"sigma_g", model_.largest_sigma_g()}, {"sigma_d", model_.largest_sigma_d()},
                                                  {"gradient_g", model_.g_params.gradient_norm()}, {"gradient_d", model_.d_params.gradient_norm()}};
  for (const auto& [layer, value] : model_.singular_values_g()) all.emplace_back("sv_g." + layer, value);
  for (const auto& [layer, value] : model_.singular_values_d()) all.emplace_back("sv_d." + layer, value);
  return all;
}

bool SswganTrainee::finite() { return std::isfinite(model_.g_params.value_norm()) && std::isfinite(model_.d_params.value_norm()); }

std::string SswganTrainee::summary() {
  std::string text = fmt::format("stage {} hinge", o_.stage);
  for (int i = 0; i < (model_.d.has_matching() ? 3 : 2); i++) text += fmt::format(" {} {:.2f}", kCritics[i], losses_.critic[i].d_real.item() + losses_.critic[i].d_fake.item());
  if (o_.stage > 1) text += fmt::format("  grounding {:.1f} dB", 10 * std::log10(4 / std::max(double(losses_.grounding.item()), 1e-10)));
  return text + fmt::format("  motion {:.3f}", losses_.motion.item());
}

// ---- samples --------------------------------------------------------------------------------------------------------

/// The averaged generator as of the last step, with standing statistics.
void SswganTrainee::settle() {
  if (settled_step_ == steps_done_) return;
  settled_step_ = steps_done_;
  average_.take(model_.average_params);
  const int64_t n = o_.batch / o_.train.parts;  // of all ranks, as where the next stage's conditions are made
  const int64_t window = o_.stage > 1 ? here().window / o_.network.rho(o_.stage) : 0;
  average_.stand(o_.standing, [&](int k, Generator& g) {
    std::vector<uint64_t> seeds;
    std::vector<int32_t> classes;
    for (int64_t i = 0; i < n; i++) {
      seeds.push_back(kShownSeed + kShown + uint64_t(k * n + i));
      classes.push_back(label_of(o_.network, before_ ? uint64_t((k * n + i) % shown_count_) : uint64_t(k * n + i)));
    }
    Labels labels;
    if (o_.network.conditional()) {
      labels.a = Tensor(Shape{n}, DType::i32);
      labels.a.upload(classes.data());
    }
    Tensor condition;
    if (before_) {
      const int64_t frames = before_->frames(0), side = o_.network.stage(o_.stage - 1).size, per = side * side * 3, offset = (k * 7) % (frames - window + 1);
      std::vector<float> v;
      for (int64_t i = 0; i < n; i++) {
        const auto from = shown_.begin() + ((k * n + i) % shown_count_ * frames + offset) * per;
        v.insert(v.end(), from, from + window * per);
      }
      condition = from_vector(Shape{n, window, side, side, 3}, v);
    }
    PictureSeeds random(seeds);
    g(random.normal("z", Shape{n, o_.network.z}), labels, condition);
  });
}

Tensor SswganTrainee::clips_of(int64_t first, int64_t n, bool whole) {
  Scoped<DType> full(&Context::storage, DType::f32);
  settle();
  std::vector<uint64_t> seeds;
  std::vector<int32_t> classes;
  for (int64_t i = first; i < first + n; i++) {
    seeds.push_back(kShownSeed + uint64_t(i));
    classes.push_back(label_of(o_.network, before_ ? uint64_t(i % shown_count_) : uint64_t(i)));
  }
  Labels labels;
  if (o_.network.conditional()) {
    labels.a = Tensor(Shape{n}, DType::i32);
    labels.a.upload(classes.data());
  }
  PictureSeeds random(seeds);
  const Tensor z = random.normal("z", Shape{n, o_.network.z});
  if (!before_) return average_.clips(z, labels, Tensor());
  const int64_t frames = before_->frames(0), rho = o_.network.rho(o_.stage), window = whole ? frames : here().window / rho;
  const int64_t side = o_.network.stage(o_.stage - 1).size, per = side * side * 3;
  std::vector<float> v;
  for (int64_t i = first; i < first + n; i++) {
    const int64_t offset = (i * 5) % (frames - window + 1);
    const auto from = shown_.begin() + (i % shown_count_ * frames + offset) * per;
    v.insert(v.end(), from, from + window * per);
  }
  const Tensor condition = from_vector(Shape{n, window, side, side, 3}, v);
  return whole ? enlarge_clips(average_, z, labels, condition, int(rho), o_.chunk) : average_.clips(z, labels, condition);
}

/// Frame first % t of clip first / t and those after it.
Tensor SswganTrainee::sample(int64_t first, int64_t n) {
  const int64_t t = here().window, at = first % t, m = std::min(n, t - at);
  return take_frames(Var(clips_of(first / t, 1, false)), at, 1, m).value.reshape(Shape{m, here().size, here().size, 3});
}

/// Clips evenly over the data, each at another offset, as this stage sees them.
std::vector<PictureClip> SswganTrainee::real_clips(int64_t count) {
  Scoped<DType> full(&Context::storage, DType::f32);
  std::vector<PictureClip> out;
  const int64_t clips = int64_t(data_->count()), span = int64_t(o_.network.data_frames(o_.stage) - 1) * data_->stride() + 1;
  for (int64_t i = 0; i < count; i++) {
    const int64_t clip = clips >= count ? i * clips / count : i % clips, free = data_->frames_of(size_t(clip)) - span + 1;
    const Tensor one = source_->clips({{int32_t(clip), (i * 13) % free}});
    out.push_back(to_picture_clips(view(Var(one), here().stride, o_.network.shrink(o_.stage)).value)[0]);
  }
  return out;
}

RunData SswganTrainee::run_data() {
  RunData d;
  d.fingerprint = data_->fingerprint();
  d.distance = "clip distance (sliced Wasserstein of frames and their differences)";
  if (o_.metric_every == 0 || (o_.ranks && !o_.ranks->root())) return d;
  std::vector<uint8_t> keep;
  const ClipBytes real = bytes_of(real_clips(std::min<int64_t>(kRealClips, std::max<int64_t>(data_->windows(), 2))), keep);
  reference_ = std::make_unique<ClipSwdReference>(real);
  real_motion_ = clip_motion(real);
  d.description = reference_->description();
  d.baseline = reference_->baseline().mean();
  d.measure = [this](std::vector<std::pair<std::string, double>>& log) { return measure(log); };
  return d;
}

double SswganTrainee::measure(std::vector<std::pair<std::string, double>>& log) {
  std::vector<PictureClip> clips;
  while (int64_t(clips.size()) < reference_->clips())
    for (PictureClip& c : to_picture_clips(clips_of(int64_t(clips.size()), std::min(at_once(), reference_->clips() - int64_t(clips.size())), false)))
      clips.push_back(std::move(c));
  std::vector<uint8_t> keep;
  const ClipBytes bytes = bytes_of(clips, keep);
  const ClipSwd d = reference_->compare(bytes), baseline = reference_->baseline();
  const ClipMotion m = clip_motion(bytes);
  log.insert(log.end(), {{"clip_swd", d.mean()}, {"clip_swd_baseline", baseline.mean()}, {"clip_swd_frames", d.frames.mean},
                         {"clip_swd_steps", d.steps.mean}, {"clip_swd_spans", d.spans.mean},
                         {"motion_energy", m.energy}, {"motion_energy_baseline", real_motion_.energy},
                         {"frame_diversity", m.frame_diversity}, {"frame_diversity_baseline", real_motion_.frame_diversity}});
  if (real_motion_.clip_diversity > 0) log.emplace_back("diversity", m.clip_diversity / real_motion_.clip_diversity);
  return d.mean();
}

void SswganTrainee::write_real(const std::filesystem::path& samples) {
  write_png(samples / "real.png", clip_sheet(real_clips(2 * o_.grid), kSheetFrames));
}

/// A row a clip; a later stage's with the condition, enlarged as it is, above each. The same as a moving picture.
void SswganTrainee::write_sheets(const RunDirectory& directory, int64_t step) {
  const int64_t n = before_ ? o_.grid : 2 * o_.grid;
  std::vector<PictureClip> rows;
  for (int64_t i = 0; i < n; i++) {
    if (before_) {
      const int64_t frames = before_->frames(0), side = o_.network.stage(o_.stage - 1).size, count = frames * side * side * 3;
      const auto from = shown_.begin() + i % shown_count_ * count;
      rows.push_back(enlarged(to_picture_clips(from_vector(Shape{1, frames, side, side, 3}, std::vector<float>(from, from + count)))[0], o_.network.rho(o_.stage), here().size));
    }
    rows.push_back(to_picture_clips(clips_of(i, 1, true))[0]);
  }
  write_png(directory.sample(step), clip_sheet(rows, kSheetFrames),
            {{"Software", "kiln sswgan_train"}, {"stage", std::to_string(o_.stage)}, {"step", std::to_string(step)}, {"seed", std::to_string(o_.seed)},
             {"rows", before_ ? "condition, clip, condition, clip, ..." : "clips"}});
  std::filesystem::path gif = directory.sample(step);
  if (!video_compiled_in()) return;
  ClipGridOptions grid;
  grid.columns = before_ ? 2 : o_.grid;
  grid.scale = std::max(1, 64 / here().size);
  VideoOptions video;
  video.fps = std::max(1.0, 12.0 / here().stride);
  write_clip_grid(gif.replace_extension(".gif"), rows, grid, video);
}

// ---- checkpoints ----------------------------------------------------------------------------------------------------

void SswganTrainee::save(CheckpointWriter& w) {
  w.add("G.", model_.g_params);
  w.add("D.", model_.d_params);
  w.add("ema.", model_.average_params);
  w.add_optimiser("opt_g.", model_.g_params);
  w.add_optimiser("opt_d.", model_.d_params);
  w.add_loss_scale(model_.memory);
}

void SswganTrainee::load(const SafetensorsFile& file) {
  const std::string path = file.path();
  const RunOptions theirs = from_json(metadata_text(file, "config"), path);
  if (theirs.stage != o_.stage) fail("{}: is of stage {}, and this is stage {}", path, theirs.stage, o_.stage);
  if (theirs.class_names != o_.class_names) fail("{}: was trained with other classes than the clips have; put the folders back, or start a new run", path);
  if (theirs.network.stages != o_.network.stages)
    fail("{}: was trained with --stages {} or other widths, this run has {}; give the same ones", path, stages_text(theirs.network.stages), stages_text(o_.network.stages));
  if (theirs.network != o_.network) fail("{}: was trained with other network options (--z, --shared-dim, --d-frames, --gru, --no-residual, --no-dm); give the same ones", path);
  load_parameters(file, "G.", model_.g_params);
  load_parameters(file, "D.", model_.d_params);
  load_parameters(file, "ema.", model_.average_params);
  load_optimiser(file, "opt_g.", model_.g_params);
  load_optimiser(file, "opt_d.", model_.d_params);
  if (theirs.precision == o_.precision) load_loss_scale(file, model_.memory);
  steps_done_ = metadata_integer(file, "step");
  settled_step_ = -1;
}

}  // namespace kiln::sswgan
