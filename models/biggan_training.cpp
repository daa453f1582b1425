#include "models/biggan_training.h"

#include "engine/error.h"
#include "engine/ranks.h"

namespace kiln::biggan {

Model::Model(const Config& c)
    : config(c), g(c), g_average(c), d(c), g_params(g, true), average_params(g_average, false), d_params(d, true), g_spectral_(g),
      average_spectral_(g_average), d_spectral_(d) {
  average_spectral_.step_in_evaluation(true);
  g_params.keep_state_in(memory.network(0));
  d_params.keep_state_in(memory.network(1));
}

void Model::initialise(RandomSource& random) {
  g_params.initialise(random, "G.");
  d_params.initialise(random, "D.");
  average_params.copy_from(g_params);
}

std::vector<SingularValue> Model::values_of(const SpectralGroup& group) {
  std::vector<SingularValue> out;
  if (!group.sigmas()) return out;
  const std::vector<float> v = group.sigmas().to_vector();
  for (size_t i = 0; i < v.size(); i++) out.push_back({group.names()[i], v[i]});
  return out;
}

Model::Fakes Model::draw(const std::string& site, int64_t n) {
  RandomSource& random = *context().random;
  Fakes f{random.normal("z." + site, Shape{n, config.latent()}), {}};
  if (config.conditional()) f.labels.a = draw_labels(random.uniform("y." + site, Shape{n, 1}), config.classes);
  return f;
}

namespace {

bool any(const AugmentPolicy& p) { return p.color || p.translation || p.cutout; }

Var augmented(const Var& x, const std::string& site, const AugmentPolicy& p) {
  if (!any(p)) return x;
  return augment(x, p, context().random->uniform("augment." + site, Shape{x.shape()[0], kAugmentUniforms}));
}

}  // namespace

std::vector<Tensor> Model::state() const {
  std::vector<Tensor> all{memory.whole()};
  for (const ParameterSet* set : {&g_params, &d_params, &average_params})
    for (const Tensor* t : {&set->values, &set->m, &set->v, &set->statistics, &set->vectors})
      if (*t) all.push_back(*t);
  return all;
}

/// share: of a mean over this part's pictures in the whole batch's; last: its backward is the last that adds to the gradients.
void Model::train_discriminator(const RealPart& real, int d_step, float share, bool last, const TrainOptions& o, Losses& out) {
  const std::string site = "d" + std::to_string(d_step);
  const int64_t n = real.pictures.shape()[0];
  Tensor both, labels;
  {
    NoGrad none;  // G's singular vectors and running statistics advance all the same
    const Fakes f = draw(site, n);
    g_spectral_.prepare(g_params.values, g_params.grads, g_params.vectors);
    const Var fakes = augmented(g(f.z, f.labels), site, o.augment);
    g_spectral_.release();
    both = concat_rows(real.pictures, fakes.value);
    if (config.conditional()) labels = concat_labels(real.labels, f.labels.a);
  }
  Tape tape;
  Recording recording(tape);
  d_spectral_.prepare(d_params.values, d_params.grads, d_params.vectors, last && o.ortho_d == 0 ? &d_params.sum() : nullptr);
  Var logits = d(Var(std::move(both)), labels);
  const HingeLoss on_real = hinge_loss(take_rows(logits, 0, n), 1.f, 1.f, nullptr), on_fake = hinge_loss(take_rows(logits, n, n), -1.f, 1.f, nullptr);
  const float mean = share / float(o.d_steps);
  tape.backward({{on_real.value, share}, {on_fake.value, share}}, memory.loss_scale());
  add_scaled(out.d_real, on_real.value.value, mean);
  add_scaled(out.d_fake, on_fake.value.value, mean);
  add_scaled(out.logit_real, on_real.mean_logit, mean);
  add_scaled(out.logit_fake, on_fake.mean_logit, mean);
}

void Model::train_generator(int64_t n, float share, bool last, const TrainOptions& o, Losses& out) {
  Tape tape;
  Recording recording(tape);
  const Fakes f = draw("g", n);
  g_spectral_.prepare(g_params.values, g_params.grads, g_params.vectors, last && o.ortho_g == 0 ? &g_params.sum() : nullptr);
  Var fakes = augmented(g(f.z, f.labels), "g", o.augment);
  Var loss;
  {
    FrozenWeights frozen;  // nobody reads D's weight gradients here
    d_spectral_.prepare(d_params.values, d_params.grads, d_params.vectors);
    loss = generator_loss(d(fakes, f.labels.a));
  }
  fakes = {};
  tape.backward({{loss, share}}, memory.loss_scale());
  add_scaled(out.g, loss.value, share);
}

Losses Model::iteration(const RealSource& real, const TrainOptions& o) {
  RandomSource& random = *context().random;
  Ranks* const ranks = context().ranks;
  const int64_t size = ranks ? ranks->size() : 1, rank = ranks ? ranks->rank() : 0;
  const float share = 1.f / float(int64_t(o.parts) * size);
  const bool pulls = !ranks || ranks->root();  // what is no picture's share is added once
  const Tensor reported = zeros(Shape{5});
  const auto number = [&](int64_t i) { return reported.slice(i, Shape{1}); };
  Losses out{number(0), number(1), number(2), number(3), number(4)};
  int64_t pictures = 0;  // of a part, on this rank
  for (int k = 0; k < o.d_steps; k++) {
    d_params.zero_grad();
    for (int p = 0; p < o.parts; p++) {
      const RealPart part = real(k, p);
      pictures = part.pictures.shape()[0];
      random.set_first_sample((p * size + rank) * pictures);
      train_discriminator(part, k, share, p + 1 == o.parts, o, out);
    }
    random.set_first_sample(0);
    if (pulls) add_orthogonal_gradient(d_params, o.ortho_d, o.ortho_form, [](const std::string&) { return true; }, memory.loss_scale());
    d_params.adam_step(o.adam_d, {}, nullptr, memory.loss_scale());
  }
  g_params.zero_grad();
  for (int p = 0; p < o.parts; p++) {
    random.set_first_sample((p * size + rank) * pictures);
    train_generator(pictures, share, p + 1 == o.parts, o, out);
  }
  random.set_first_sample(0);
  d_spectral_.release();
  g_spectral_.release();
  // The shared embedding is left alone, as published.
  if (pulls) add_orthogonal_gradient(g_params, o.ortho_g, o.ortho_form, [](const std::string& name) { return name != "shared"; }, memory.loss_scale());
  if (ranks) {
    ranks->sum(reported);
    if (!context().sync_norm) g_params.average_statistics();
  }
  g_params.adam_step(o.adam_g, o.ema, &average_params, memory.loss_scale());
  g_params.average_vectors(average_params);
  memory.end_step(2);
  return out;
}

Tensor Model::sample(const Tensor& z, const Labels& labels) {
  NoGrad none;
  Evaluation evaluation;
  average_spectral_.prepare(average_params.values, Tensor(), average_params.vectors);
  const Tensor pictures = g_average(z, labels).value;
  average_spectral_.release();
  return pictures;
}

StandingStatistics::StandingStatistics(Model& model, int batches, const std::function<Batch(int)>& draw)
    : model_(model), statistics_(copy_of(model.average_params.statistics)), vectors_(copy_of(model.average_params.vectors)) {
  NoGrad none;
  Scoped<bool> training(&Context::training, true);
  ParameterSet& set = model.average_params;
  for (int k = 0; k < batches; k++) {
    Scoped<float> momentum(&Context::norm_momentum, 1.f / float(k + 1));
    const Batch b = draw(k);
    model.average_spectral_.prepare(set.values, Tensor(), set.vectors);
    model.g_average(b.z, b.labels);
    model.average_spectral_.release();
  }
}

StandingStatistics::~StandingStatistics() {
  copy(statistics_, model_.average_params.statistics);
  copy(vectors_, model_.average_params.vectors);
}

}  // namespace kiln::biggan
