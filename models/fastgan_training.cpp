#include "models/fastgan_training.h"

#include "engine/error.h"

namespace kiln::fastgan {
namespace {

/// Hinge loss with a margin drawn per logit. Drawn per picture and path, so that a picture's margins do not depend on how a
/// batch is split: the logits are 25 of each picture's big path, then 25 of each picture's small one.
HingeLoss hinge(const Var& logits, float sign, const std::string& site, const TrainOptions& o) {
  if (o.margin_low >= 1.f) return hinge_loss(logits, sign, 1.f, nullptr);
  const int64_t n = logits.value.count() / 50;
  RandomSource& random = *context().random;
  const Tensor u = concat_flat(Var(random.uniform(site + ".big", Shape{n, 25})), Var(random.uniform(site + ".small", Shape{n, 25}))).value;
  return hinge_loss(logits, sign, o.margin_low, &u);
}

}  // namespace

Model::Model(const Config& c)
    : config(c), g(c), g_average(c), d(c), g_params(g, true), average_params(g_average, false), d_params(d, true),
      g_spectral_(g), average_spectral_(g_average) {
  auto core = d.core();
  auto decoders = d.decoders();
  d_spectral_ = SpectralGroup(core);
  decoder_spectral_ = SpectralGroup(decoders);
}

void Model::initialise(RandomSource& random) {
  g_params.initialise(random, "G.");
  d_params.initialise(random, "D.");
  average_params.copy_from(g_params);
}

Losses Model::iteration(const Tensor& real, const TrainOptions& o) {
  RandomSource& random = *context().random;
  const int64_t n = real.shape()[0];
  const int s = config.small();
  Losses out;
  Tape g_tape;
  Pictures fakes;

  {  // Fakes, augmented independently; the tape stays open until G's turn.
    Recording recording(g_tape);
    const Var z(random.normal("z", Shape{n, config.nz}));
    g_params.zero_grad();
    g_spectral_.prepare(g_params.values, g_params.grads, g_params.vectors);
    const Pictures plain = g(z);
    fakes.big = augment(plain.big, o.augment, random.uniform("augment.fake.big", Shape{n, kAugmentUniforms}));
    fakes.small = augment(plain.small, o.augment, random.uniform("augment.fake.small", Shape{n, kAugmentUniforms}));
  }

  d_params.zero_grad();
  {  // D on real pictures: hinge loss and three reconstructions.
    Tape tape;
    Recording recording(tape);
    d_spectral_.prepare(d_params.values, d_params.grads, d_params.vectors);
    decoder_spectral_.prepare(d_params.values, d_params.grads, d_params.vectors);
    const Tensor corner = draw_corner(random.uniform("part", Shape{1, 1}));
    const Var x(real), small = nearest_resize(x, s, s);
    const Features f = d({x, small});
    const HingeLoss h = hinge(f.logits, 1.f, "margin.real", o);
    const Reconstructions r = d.reconstruct(f, corner);
    const Var part = nearest_resize(corner_crop(x, config.size / 2, config.size / 2, corner), s, s);
    const Var all_loss = difference_loss(r.all, small.value, o.recon_power);
    const Var small_loss = difference_loss(r.small, small.value, o.recon_power);
    const Var part_loss = difference_loss(r.part, part.value, o.recon_power);
    out.d_real = h.value.value;
    out.logit_real = h.mean_logit;
    out.recon_all = all_loss.value;
    out.recon_small = small_loss.value;
    out.recon_part = part_loss.value;
    tape.backward({{h.value, 1.f}, {all_loss, o.recon_weight}, {small_loss, o.recon_weight}, {part_loss, o.recon_weight}});
    decoder_spectral_.release();
  }
  {  // D on the detached fakes; its batch statistics are its own.
    Tape tape;
    Recording recording(tape);
    d_spectral_.prepare(d_params.values, d_params.grads, d_params.vectors);
    const Features f = d({fakes.big.detach(), fakes.small.detach()});
    const HingeLoss h = hinge(f.logits, -1.f, "margin.fake", o);
    out.d_fake = h.value.value;
    out.logit_fake = h.mean_logit;
    tape.backward({{h.value, 1.f}});
  }
  d_params.adam_step(o.adam, {}, nullptr);

  {  // G through the updated D, whose own weight gradients nobody needs.
    Recording recording(g_tape);
    Var loss;
    {
      FrozenWeights frozen;
      d_spectral_.prepare(d_params.values, d_params.grads, d_params.vectors);
      loss = generator_loss(d(fakes).logits);
    }
    fakes = {};
    out.g = loss.value;
    g_tape.backward({{loss, 1.f}});
  }
  d_spectral_.release();
  g_spectral_.release();
  g_params.adam_step(o.adam, o.ema, &average_params);
  return out;
}

ReconstructionSheet Model::reconstruct(const Tensor& real) {
  NoGrad none;
  Evaluation evaluation;
  const int s = config.small();
  d_spectral_.prepare(d_params.values, d_params.grads, d_params.vectors);
  decoder_spectral_.prepare(d_params.values, d_params.grads, d_params.vectors);
  const Tensor corner = draw_corner(zeros(Shape{1, 1}));
  const Var x(real), small = nearest_resize(x, s, s);
  const Reconstructions r = d.reconstruct(d({x, small}), corner);
  const Var part = nearest_resize(corner_crop(x, config.size / 2, config.size / 2, corner), s, s);
  d_spectral_.release();
  decoder_spectral_.release();
  return {small.value, r.all.value, r.small.value, r.part.value, part.value};
}

Tensor Model::sample(const Tensor& z) {
  NoGrad none;
  Evaluation evaluation;
  average_params.copy_vectors_from(g_params);
  average_spectral_.prepare(average_params.values, Tensor(), average_params.vectors);
  const Pictures p = g_average(Var(z));
  average_spectral_.release();
  return p.big.value;
}

}  // namespace kiln::fastgan
