#include "models/nsbgan_decoder_training.h"

#include "engine/error.h"
#include "engine/ops_feature.h"
#include "engine/ranks.h"

namespace kiln::nsbgan::decoding {

Model::Model(const DecoderConfig& c, int d_width, std::shared_ptr<const Vgg19Loss> vgg)
    : g(c), d(d_width > 0 ? Discriminator(c.band.picture_size, d_width) : Discriminator()), g_params(g, true),
      d_params(d_width > 0 ? ParameterSet(d, true) : ParameterSet()), d_width_(d_width), vgg_(std::move(vgg)) {
  g_params.keep_state_in(memory.network(0));
  if (adversarial()) d_params.keep_state_in(memory.network(1));
}

void Model::initialise(RandomSource& random) {
  g_params.initialise(random, "G.");
  initialise_discriminator(random);
}

void Model::initialise_discriminator(RandomSource& random) {
  if (adversarial()) d_params.initialise(random, "D.");
}

std::vector<Tensor> Model::state() const {
  std::vector<Tensor> all{memory.whole()};
  for (const ParameterSet* set : {&g_params, &d_params})
    for (const Tensor* t : {&set->values, &set->m, &set->v, &set->statistics})
      if (*t) all.push_back(*t);
  return all;
}

namespace {
/// Pictures on [-1, 1] -> on [0, 1], where losses and networks are.
Tensor on_unit(const Tensor& pictures) {
  const NoGrad none;
  return affine(Var(pictures), 0.5, 0.5).value;
}
}  // namespace

void Model::learn_levels(const Tensor& pictures, float share, Losses& out) {
  for (int level = 1; level <= g.config().band.levels; level++) {
    const DecoderNetwork::Lesson lesson = g.lesson(on_unit(converted(pictures, DType::f32)), level);  // bands reach 7: too much for 16 bits
    const float weight = lesson.scale * share / float(pictures.shape()[0]);
    Tape tape;
    Recording recording(tape);
    const Var loss = difference_loss(g.predict(level, Var(lesson.input)), lesson.target, 2);
    tape.backward({{loss, weight}}, memory.loss_scale());
    add_scaled(out.levels[size_t(level - 1)], loss.value, weight);
  }
}

/// Returns the decoded pictures for the discriminator.
Tensor Model::learn_pictures(const Tensor& real, float share, const TrainOptions& o, Losses& out) {
  const Tensor pictures = on_unit(real);
  const float mean = share / float(pictures.shape()[0]);
  const Tensor band = [&] {
    const NoGrad none;
    return raw_band(Var(converted(real, DType::f32)), g.config().band).value;
  }();
  Tape tape;
  Recording recording(tape);
  const Var fakes = g(band);
  std::vector<std::pair<Var, float>> roots;
  const auto add = [&](const Var& loss, float weight, float to_mean, Tensor& reported) {
    roots.emplace_back(loss, weight * to_mean);
    add_scaled(reported, loss.value, to_mean);
  };
  add(difference_loss(fakes, pictures, 1), o.gan ? o.pixel_weight : 1.f, mean, out.pixel);
  if (o.gan && vgg_) add((*vgg_)(fakes, pictures), o.perceptual_weight, mean, out.perceptual);
  if (o.gan) {
    const FrozenWeights frozen;  // nobody reads D's weight gradients here
    Var on_real;
    {
      const NoGrad none;
      on_real = d(Var(pictures));
    }
    const Var fake = d(fakes);
    // The real pictures' logits are constants; the mean of the decoded ones' is not.
    add(relativistic_loss(on_real, mean_logit(fake), -1.f), o.gan_weight, 0.5f * share, out.adversarial);
    add(relativistic_loss(fake, mean_logit(on_real), 1.f), o.gan_weight, 0.5f * share, out.adversarial);
  }
  const Tensor kept = fakes.value;
  tape.backward(roots, memory.loss_scale());
  return kept;
}

/// A forward on each kind of pictures by itself, so that a batch norm never sees both; the other side's mean is a constant.
void Model::train_discriminator(const Tensor& real, const Tensor& fake, float share, Losses& out) {
  const auto mean_of = [&](const Tensor& x) {
    const NoGrad none;
    return mean_logit(d(Var(x)));
  };
  const Var fake_mean = mean_of(fake);
  Tensor real_mean;
  {
    Tape tape;
    Recording recording(tape);
    const Var logits = d(Var(real));
    {
      const NoGrad none;
      real_mean = mean_logit(logits).value;
    }
    const Var loss = relativistic_loss(logits, fake_mean, 1.f);
    tape.backward({{loss, 0.5f * share}}, memory.loss_scale());
    add_scaled(out.d, loss.value, 0.5f * share);
  }
  Tape tape;
  Recording recording(tape);
  const Var loss = relativistic_loss(d(Var(fake)), Var(real_mean), -1.f);
  tape.backward({{loss, 0.5f * share}}, memory.loss_scale());
  add_scaled(out.d, loss.value, 0.5f * share);
  // Both are means over all ranks already; every rank reports its share.
  add_scaled(out.margin, real_mean, share);
  add_scaled(out.margin, fake_mean.value, -share);
}

Losses Model::iteration(const std::function<Tensor(int part)>& real, const TrainOptions& o) {
  Ranks* const ranks = context().ranks;
  const int64_t size = ranks ? ranks->size() : 1, rank = ranks ? ranks->rank() : 0;
  const float share = 1.f / float(int64_t(o.parts) * size);
  KILN_ASSERT(!o.gan || adversarial());
  const int levels = g.config().kind == DecoderKind::unet ? g.config().band.levels : 0;
  const Tensor reported = zeros(Shape{5 + levels});
  const auto number = [&](int64_t i) { return reported.slice(i, Shape{1}); };
  Losses out{{}, number(0), number(1), number(2), number(3), number(4)};
  for (int i = 0; i < levels; i++) out.levels.push_back(number(5 + i));
  std::vector<std::pair<Tensor, Tensor>> pairs;  // real and decoded, for the discriminator
  g_params.zero_grad();
  for (int p = 0; p < o.parts; p++) {
    const Tensor pictures = real(p);
    context().random->set_first_sample((p * size + rank) * pictures.shape()[0]);
    if (levels) {
      learn_levels(pictures, share, out);
      continue;
    }
    const Tensor fakes = learn_pictures(pictures, share, o, out);
    if (o.gan) pairs.emplace_back(on_unit(pictures), fakes);
  }
  if (ranks && !context().sync_norm && g_params.statistics) g_params.average_statistics();
  g_params.adam_step(o.adam_g, {}, nullptr, memory.loss_scale());
  if (o.gan) {
    d_params.zero_grad();
    for (auto& [pictures, fakes] : pairs) {
      train_discriminator(pictures, fakes, share, out);
      pictures = fakes = {};
    }
    if (ranks && !context().sync_norm) d_params.average_statistics();
    d_params.adam_step(o.adam_d, {}, nullptr, memory.loss_scale());
  }
  context().random->set_first_sample(0);
  if (ranks) ranks->sum(reported);
  memory.end_step(o.gan ? 2 : 1);
  return out;
}

Tensor Model::decode(const Tensor& band) {
  const NoGrad none;
  const Evaluation evaluation;
  return affine(g(band), 2.f, -1.f).value;
}

}  // namespace kiln::nsbgan::decoding
