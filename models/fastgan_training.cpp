#include "models/fastgan_training.h"

#include "engine/error.h"
#include "engine/ranks.h"

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
  g_params.keep_state_in(memory.network(0));
  d_params.keep_state_in(memory.network(1));
}

void Model::initialise(RandomSource& random) {
  g_params.initialise(random, "G.");
  d_params.initialise(random, "D.");
  average_params.copy_from(g_params);
}

std::vector<Tensor> Model::state() const {
  return {g_params.values,     g_params.m,          g_params.v, g_params.statistics, g_params.vectors,      d_params.values,
          d_params.m,          d_params.v,          d_params.statistics, d_params.vectors, average_params.values, average_params.statistics,
          memory.whole()};
}

/// last: the forward's backward is the last that adds to G's gradients in this iteration.
Pictures Model::augmented_fakes(int64_t n, bool last, const TrainOptions& o) {
  RandomSource& random = *context().random;
  const Var z(random.normal("z", Shape{n, config.nz}));
  g_spectral_.prepare(g_params.values, g_params.grads, g_params.vectors, last ? &g_params.sum() : nullptr);
  const Pictures plain = g(z);
  return {augment(plain.big, o.augment, random.uniform("augment.fake.big", Shape{n, kAugmentUniforms})),
          augment(plain.small, o.augment, random.uniform("augment.fake.small", Shape{n, kAugmentUniforms}))};
}

/// LPIPS of the three reconstructions. Two of them have the same target, which goes through the network once.
void Model::perceptual_loss(const Reconstructions& r, const Tensor& small, const Tensor& part, const TrainOptions& o, Losses& out) {
  const auto add = [&](const Var& x, const std::vector<Tensor>& target, Tensor& sum) {
    const Lpips::Loss l = o.perceptual->loss(x.value, target, o.recon_weight, memory.loss_scale());
    x.node->add(l.gradient);
    add_scaled(sum, l.value, 1.f);
  };
  {
    const std::vector<Tensor> target = o.perceptual->encode(small);
    add(r.all, target, out.recon_all);
    add(r.small, target, out.recon_small);
  }
  add(r.part, o.perceptual->encode(part), out.recon_part);
}

void Model::train_on_real(const Tensor& real, const Tensor& corner, float share, bool last, const TrainOptions& o, Losses& out) {
  const int s = config.small();
  Tape tape;
  Recording recording(tape);
  d_spectral_.prepare(d_params.values, d_params.grads, d_params.vectors);
  decoder_spectral_.prepare(d_params.values, d_params.grads, d_params.vectors, last ? &d_params.sum() : nullptr);
  const Var x(real), small = nearest_resize(x, s, s);
  const Features f = d({x, small});
  const HingeLoss h = hinge(f.logits, 1.f, "margin.real", o);
  const Reconstructions r = d.reconstruct(f, corner);
  const Var part = nearest_resize(corner_crop(x, config.size / 2, config.size / 2, corner), s, s);
  if (o.perceptual) {
    perceptual_loss(r, small.value, part.value, o, out);
    tape.backward({{h.value, share}}, memory.loss_scale());
  } else {
    const Var all_loss = difference_loss(r.all, small.value, o.recon_power);
    const Var small_loss = difference_loss(r.small, small.value, o.recon_power);
    const Var part_loss = difference_loss(r.part, part.value, o.recon_power);
    tape.backward({{h.value, share}, {all_loss, o.recon_weight}, {small_loss, o.recon_weight}, {part_loss, o.recon_weight}}, memory.loss_scale());
    add_scaled(out.recon_all, all_loss.value, 1.f);
    add_scaled(out.recon_small, small_loss.value, 1.f);
    add_scaled(out.recon_part, part_loss.value, 1.f);
  }
  decoder_spectral_.release();
  add_scaled(out.d_real, h.value.value, share);
  add_scaled(out.logit_real, h.mean_logit, share);
}

void Model::train_on_fakes(const Pictures& fakes, float share, bool last, const TrainOptions& o, Losses& out) {
  Tape tape;
  Recording recording(tape);
  // Its batch statistics are its own, too.
  d_spectral_.prepare(d_params.values, d_params.grads, d_params.vectors, last ? &d_params.sum() : nullptr);
  const Features f = d({fakes.big.detach(), fakes.small.detach()});
  const HingeLoss h = hinge(f.logits, -1.f, "margin.fake", o);
  tape.backward({{h.value, share}}, memory.loss_scale());
  add_scaled(out.d_fake, h.value.value, share);
  add_scaled(out.logit_fake, h.mean_logit, share);
}

void Model::train_generator(Tape& tape, Pictures fakes, float share, Losses& out) {
  Recording recording(tape);
  Var loss;
  {
    FrozenWeights frozen;  // nobody reads D's weight gradients here
    d_spectral_.prepare(d_params.values, d_params.grads, d_params.vectors);
    loss = generator_loss(d(fakes).logits);
  }
  fakes = {};
  tape.backward({{loss, share}}, memory.loss_scale());
  add_scaled(out.g, loss.value, share);
}

Losses Model::iteration(const std::vector<Tensor>& parts, const TrainOptions& o) {
  RandomSource& random = *context().random;
  Ranks* const ranks = context().ranks;
  const int64_t size = ranks ? ranks->size() : 1, rank = ranks ? ranks->rank() : 0;
  const float share = 1.0f / float(int64_t(parts.size()) * size);  // of the whole batch's means
  const Tensor reported = zeros(Shape{8});
  const auto number = [&](int64_t i) { return reported.slice(i, Shape{1}); };
  Losses out{number(0), number(1), number(2), number(3), number(4), number(5), number(6), number(7)};
  g_params.zero_grad();
  d_params.zero_grad();
  const Tensor corner = draw_corner(random.uniform("part", Shape{1, 1}));
  const auto each_part = [&](auto&& f) {
    for (size_t p = 0; p < parts.size(); p++) {
      const int64_t n = parts[p].shape()[0];
      random.set_first_sample((int64_t(p) * size + rank) * n);
      f(parts[p], p + 1 == parts.size());
    }
    random.set_first_sample(0);
  };

  if (parts.size() == 1) {  // one forward of G serves both networks: its tape stays open until G's turn
    each_part([&](const Tensor& real, bool) {
      Tape tape;
      Pictures fakes;
      {
        Recording recording(tape);
        fakes = augmented_fakes(real.shape()[0], true, o);
      }
      train_on_real(real, corner, share, true, o, out);
      train_on_fakes(fakes, share, true, o, out);
      d_params.adam_step(o.adam, {}, nullptr, memory.loss_scale());
      train_generator(tape, std::move(fakes), share, out);
    });
  } else {  // the same in parts: G runs forward once more, so that one part's activations are all that is ever kept
    // Both passes start from the same statistics and singular vectors, so that G is trained on the fakes that D saw.
    const Tensor statistics = copy_of(g_params.statistics), vectors = copy_of(g_params.vectors);
    each_part([&](const Tensor& real, bool last) {
      NoGrad none;
      const Pictures fakes = augmented_fakes(real.shape()[0], false, o);
      g_spectral_.release();
      train_on_real(real, corner, share, last, o, out);
      train_on_fakes(fakes, share, last, o, out);
    });
    d_params.adam_step(o.adam, {}, nullptr, memory.loss_scale());
    copy(statistics, g_params.statistics);
    copy(vectors, g_params.vectors);
    each_part([&](const Tensor& real, bool last) {
      Tape tape;
      Pictures fakes;
      {
        Recording recording(tape);
        fakes = augmented_fakes(real.shape()[0], last, o);
      }
      train_generator(tape, std::move(fakes), share, out);
    });
  }
  d_spectral_.release();
  g_spectral_.release();
  if (ranks) {
    ranks->sum(reported);
    if (!context().sync_norm)
      for (ParameterSet* set : {&g_params, &d_params}) set->average_statistics();
  }
  g_params.adam_step(o.adam, o.ema, &average_params, memory.loss_scale());
  memory.end_step(2);
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
