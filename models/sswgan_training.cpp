#include "models/sswgan_training.h"

#include <cmath>

#include "engine/error.h"
#include "engine/ops_feature.h"
#include "engine/ranks.h"

namespace kiln::sswgan {
namespace {

constexpr int kChances = 1024;  // steps of a probability

bool any(const AugmentPolicy& p) { return p.color || p.translation || p.cutout; }

Tensor stored(const Tensor& x) { return converted(x, context().storage); }

/// The mean difference of neighbouring frames, summed over clips.
Tensor motion_of(const Tensor& clips) {
  const int64_t t = clips.shape()[1];
  return difference_loss(take_frames(Var(clips), 1, 1, t - 1), take_frames(Var(clips), 0, 1, t - 1).value, 1).value;
}

/// The clips in another order: each one's place is taken by the next one.
Tensor rolled(const Tensor& x) {
  const int64_t n = x.shape()[0];
  return concat_rows(take_rows(Var(x), 1, n - 1).value, take_rows(Var(x), 0, 1).value);
}

}  // namespace

Model::Model(const Config& c, int stage_number)
    : config(c), stage(stage_number), g(c, stage), g_average(c, stage), d(c, stage), g_params(g, true), average_params(g_average, false),
      d_params(d, true), g_spectral_(g), d_spectral_(d) {
  g_params.keep_state_in(memory.network(0));
  d_params.keep_state_in(memory.network(1));
}

void Model::initialise(RandomSource& random) {
  g_params.initialise(random, "G.");
  d_params.initialise(random, "D.");
  average_params.copy_from(g_params);
}

std::vector<std::pair<std::string, float>> Model::values_of(const SpectralGroup& group) {
  std::vector<std::pair<std::string, float>> out;
  if (!group.sigmas()) return out;
  const std::vector<float> v = group.sigmas().to_vector();
  for (size_t i = 0; i < v.size(); i++) out.emplace_back(group.names()[i], v[i]);
  return out;
}

std::vector<Tensor> Model::state() const {
  std::vector<Tensor> all{memory.whole()};
  for (const ParameterSet* set : {&g_params, &d_params, &average_params})
    for (const Tensor* t : {&set->values, &set->m, &set->v, &set->statistics, &set->vectors})
      if (*t) all.push_back(*t);
  return all;
}

/// Numbers that stay the same. They are in device memory from the first step on: a captured step uploads nothing.
const Tensor& Model::constant(const std::string& name, const Shape& shape, const std::vector<float>& values) {
  Tensor& t = constants_[name];
  if (!t) t = stored(from_vector(shape, values));
  return t;
}

/// `off` with probability p and `on` otherwise, one draw a clip for all of c channels: [n, c] of the storage type.
Tensor Model::draws(const std::string& site, int64_t n, int64_t c, float p, float off, float on) {
  std::vector<float> rows(size_t(kChances * c), on);
  std::fill(rows.begin(), rows.begin() + int64_t(std::lround(p * kChances)) * c, off);
  Tensor& table = constants_[fmt::format("draws {} {} {}", p, off, on)];
  if (!table) table = from_vector(Shape{kChances, c}, rows);
  return stored(embedding(Var(table), draw_labels(context().random->uniform(site, Shape{n, 1}), kChances)).value);
}

Model::Draw Model::draw(const std::string& site, int64_t n, const ConditionPart& condition, const TrainOptions& o) {
  RandomSource& random = *context().random;
  Draw f{random.normal("z." + site, Shape{n, config.z}), {}, condition.clips, condition.clips};
  if (config.conditional()) f.labels.a = stage > 1 ? condition.labels : draw_labels(random.uniform("y." + site, Shape{n, 1}), config.classes);
  if (stage > 1 && o.condition_noise > 0) {
    const Tensor noise = stored(random.normal("condition.noise." + site, condition.clips.shape()));
    const Tensor how = draws("condition.some." + site, n, 3, o.condition_noise, kConditionNoise, 0.f);
    f.told = combine(1.f, Var(condition.clips), 1.f, gate(Var(noise), Var(how))).value;
  }
  return f;
}

/// What D_S and D_T look at.
struct Model::Views {
  Var frames, pooled;
};

Model::Views Model::views(const Var& clips, const std::string& site, const TrainOptions& o) {
  RandomSource& random = *context().random;
  const int64_t n = clips.shape()[0], t = clips.shape()[1], k = std::min<int64_t>(t, config.d_frames);
  Var x = clips;
  if (any(o.augment)) {
    const Tensor u = repeat_per_frame(Var(random.uniform("augment." + site, Shape{n, kAugmentUniforms})), t).value;
    x = per_frame(x, [&](const Var& frames) { return augment(frames, o.augment, u); });
  }
  return {gather_frames(x, draw_frames(random.uniform("frames." + site, Shape{n, t}), k)), clip_pool(x, 1, 2)};
}

/// What D_M looks at: condition and view behind each other as channels, [n, t, s, s, 6].
Var Model::pair(const Var& condition, const Var& seen, const std::string& site, const MatchingOptions& o) {
  RandomSource& random = *context().random;
  Var c = condition;
  const int64_t n = c.shape()[0];
  if (o.drop > 0) c = gate(c, Var(draws("matching.drop." + site, n, 3, o.drop, 0.f, 1.f)));
  Var both = concat_channels(c, seen);
  if (o.blur) {
    std::vector<float> filter(6 * 9 * 6);
    for (int ch = 0; ch < 6; ch++)
      for (int i = 0; i < 9; i++) filter[size_t((ch * 9 + i) * 6 + ch)] = float((i / 3 == 1 ? 2 : 1) * (i % 3 == 1 ? 2 : 1)) / 16.f;
    const Var weight(constant("blur", Shape{6, 3, 3, 6}, filter));
    both = per_frame(both, [&](const Var& frames) { return conv2d(frames, weight, 1, 1); });
  }
  if (o.noise > 0) both = combine(1.f, both, o.noise, Var(stored(random.normal("matching.noise." + site, both.shape()))));
  return both;
}

/// share: of a mean over this part's clips in the whole batch's; last: its backward is the last that adds to the gradients.
void Model::train_discriminators(const RealPart& real, const ConditionPart& condition, int d_step, float share, bool last, const TrainOptions& o,
                                 Losses& out) {
  const std::string site = "d" + std::to_string(d_step);
  const int64_t n = real.clips.shape()[0];
  const MatchingOptions& m = o.matching;
  const bool wrong = d.has_matching() && m.mismatch > 0;
  Tensor frames, pooled, pairs, labels;
  {
    NoGrad none;  // G's singular vectors and running statistics advance all the same
    const Draw f = draw(site, n, condition, o);
    g_spectral_.prepare(g_params.values, g_params.grads, g_params.vectors);
    const Var fakes = g(f.z, f.labels, f.told);
    g_spectral_.release();
    const Views of_real = views(Var(real.clips), site + ".real", o), of_fake = views(fakes, site + ".fake", o);
    frames = concat_rows(of_real.frames.value, of_fake.frames.value);
    pooled = concat_rows(of_real.pooled.value, of_fake.pooled.value);
    if (config.conditional()) labels = concat_labels(real.labels, f.labels.a);
    if (d.has_matching()) {
      const Var seen = view(Var(real.clips), config.rho(stage), config.scale(stage));
      pairs = concat_rows(pair(seen, seen, site + ".real", m).value,
                          pair(Var(f.condition), view(fakes, config.rho(stage), config.scale(stage)), site + ".fake", m).value);
      if (wrong) pairs = concat_rows(pairs, pair(Var(rolled(seen.value)), seen, site + ".wrong", m).value);
    }
  }
  Tape tape;
  Recording recording(tape);
  d_spectral_.prepare(d_params.values, d_params.grads, d_params.vectors, last ? &d_params.sum() : nullptr);
  std::vector<std::pair<Var, float>> roots;
  const float mean = share / float(o.d_steps);
  const auto judge = [&](int which, const Var& logits, float margin, float fakes_part) {
    const Tensor still = margin < 1 ? zeros(Shape{n}) : Tensor();
    const HingeLoss on_real = hinge_loss(take_rows(logits, 0, n), 1.f, margin, margin < 1 ? &still : nullptr),
                    on_fake = hinge_loss(take_rows(logits, n, n), -1.f, 1.f, nullptr);
    roots.emplace_back(on_real.value, share);
    roots.emplace_back(on_fake.value, share * fakes_part);
    Losses::Critic& l = out.critic[which];
    add_scaled(l.d_real, on_real.value.value, mean);
    add_scaled(l.d_fake, on_fake.value.value, mean * fakes_part);
    add_scaled(l.logit_real, on_real.mean_logit, mean);
    add_scaled(l.logit_fake, on_fake.mean_logit, mean);
  };
  judge(0, d.spatial(Var(std::move(frames)), labels), 1, 1);
  judge(1, d.temporal(Var(std::move(pooled)), labels), 1, 1);
  if (d.has_matching()) {
    const Var logits = d.matching(Var(std::move(pairs)), Tensor());
    judge(2, logits, m.label, 1 - m.mismatch);
    if (wrong) {
      const HingeLoss on_wrong = hinge_loss(take_rows(logits, 2 * n, n), -1.f, 1.f, nullptr);
      roots.emplace_back(on_wrong.value, share * m.mismatch);
      add_scaled(out.critic[2].d_fake, on_wrong.value.value, mean * m.mismatch);
      add_scaled(out.mismatch, on_wrong.mean_logit, mean);
    }
  }
  tape.backward(roots, memory.loss_scale());
}

void Model::train_generator(int64_t n, const ConditionPart& condition, float share, bool last, const TrainOptions& o, Losses& out) {
  Tape tape;
  Recording recording(tape);
  const Draw f = draw("g", n, condition, o);
  g_spectral_.prepare(g_params.values, g_params.grads, g_params.vectors, last ? &g_params.sum() : nullptr);
  Var fakes = g(f.z, f.labels, f.told);
  std::vector<std::pair<Var, float>> roots;
  {
    FrozenWeights frozen;  // nobody reads D's weight gradients here
    d_spectral_.prepare(d_params.values, d_params.grads, d_params.vectors);
    const auto judge = [&](int which, const Var& logits, float weight) {
      const Var loss = generator_loss(logits);
      roots.emplace_back(loss, share * weight);
      add_scaled(out.critic[which].g, loss.value, share);
    };
    Views v = views(fakes, "g", o);
    judge(0, d.spatial(v.frames, f.labels.a), o.spatial);
    judge(1, d.temporal(v.pooled, f.labels.a), o.temporal);
    v = {};
    if (stage > 1) {
      const Var seen = view(fakes, config.rho(stage), config.scale(stage));
      add_scaled(out.grounding, difference_loss(Var(seen.value), f.condition, 2).value, share / float(n));
      if (d.has_matching()) judge(2, d.matching(pair(Var(f.condition), seen, "g", o.matching), Tensor()), o.matching.weight);
    }
  }
  add_scaled(out.motion, motion_of(fakes.value), share / float(n));
  fakes = {};
  tape.backward(roots, memory.loss_scale());
}

Losses Model::iteration(const Sources& sources, const TrainOptions& o) {
  RandomSource& random = *context().random;
  Ranks* const ranks = context().ranks;
  const int64_t size = ranks ? ranks->size() : 1, rank = ranks ? ranks->rank() : 0;
  const float share = 1.f / float(int64_t(o.parts) * size);
  const Tensor reported = zeros(Shape{18});
  int64_t used = 0;
  const auto number = [&] { return reported.slice(used++, Shape{1}); };
  Losses out;
  for (Losses::Critic& c : out.critic) c = {number(), number(), number(), number(), number()};
  out.mismatch = number();
  out.grounding = number();
  out.motion = number();
  int64_t clips = 0;  // of a part, on this rank
  const auto part_of_step = [&](int p, auto f) {
    random.set_first_sample((p * size + rank) * clips);
    f();
  };
  for (int k = 0; k < o.d_steps; k++) {
    d_params.zero_grad();
    for (int p = 0; p < o.parts; p++) {
      const RealPart real = sources.real(k, p);
      clips = real.clips.shape()[0];
      part_of_step(p, [&] { train_discriminators(real, sources.condition(k, p), k, share, p + 1 == o.parts, o, out); });
    }
    random.set_first_sample(0);
    d_params.adam_step(o.adam_d, {}, nullptr, memory.loss_scale());
  }
  g_params.zero_grad();
  for (int p = 0; p < o.parts; p++)
    part_of_step(p, [&] { train_generator(clips, sources.condition(o.d_steps, p), share, p + 1 == o.parts, o, out); });
  random.set_first_sample(0);
  d_spectral_.release();
  g_spectral_.release();
  if (ranks) {
    ranks->sum(reported);
    if (!context().sync_norm) g_params.average_statistics();
  }
  g_params.adam_step(o.adam_g, o.ema, &average_params, memory.loss_scale());
  g_params.average_vectors(average_params);
  memory.end_step(2);
  return out;
}

Tensor Model::match(const Tensor& condition, const Tensor& seen) {
  KILN_ASSERT(d.has_matching());
  NoGrad none;
  Evaluation evaluation;
  d_spectral_.prepare(d_params.values, d_params.grads, d_params.vectors);
  const Tensor scores = d.matching(concat_channels(Var(condition), Var(seen)), Tensor()).value;
  d_spectral_.release();
  return scores;
}

// ---- stages that are trained no more --------------------------------------------------------------------------------

FixedStage::FixedStage(const Config& c, int stage) : stage_(stage), g_(c, stage), params_(g_, false), spectral_(g_) {
  spectral_.step_in_evaluation(true);
}

void FixedStage::load(const SafetensorsFile& file) {
  load_parameters(file, "ema.", params_);
  ready_ = false;
}

void FixedStage::take(const ParameterSet& average) {
  params_.copy_from(average);
  ready_ = false;
}

void FixedStage::stand(int batches, const Run& draw) {
  NoGrad none;
  const Tensor vectors = copy_of(params_.vectors);
  ready_ = false;
  for (int k = 0; k < batches; k++) {
    Scoped<bool> training(&Context::training, true);
    Scoped<float> momentum(&Context::norm_momentum, 1.f / float(k + 1));
    spectral_.prepare(params_.values, Tensor(), params_.vectors);
    draw(k, g_);
    spectral_.release();
  }
  copy(vectors, params_.vectors);
}

void FixedStage::release() {
  spectral_.release();
  ready_ = false;
}

Tensor FixedStage::clips(const Tensor& z, const Labels& labels, const Tensor& condition, int64_t frames) {
  NoGrad none;
  Evaluation evaluation;
  if (!ready_) spectral_.prepare(params_.values, Tensor(), params_.vectors);
  ready_ = true;
  return g_(z, labels, condition, frames).value;
}

}  // namespace kiln::sswgan
