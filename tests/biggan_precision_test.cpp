// BigGAN with activations stored in 16 bits: training beside the same in f32, and f16's loss scale through several steps of D.
#include "engine/convolution.h"
#include "kernels/pointwise.h"
#include "models/biggan_training.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::biggan;
using namespace kiln::test;

namespace {

constexpr int64_t kBatch = 4;

Config tiny(bool deep) {
  Config c;
  c.size = 32;
  c.g_width = c.d_width = 8;
  c.z = 12;
  c.shared_dim = 8;
  c.classes = 3;
  c.deep = deep;
  c.g_attention = c.d_attention = 16;
  return c;
}

TrainOptions options() {
  TrainOptions o;
  o.d_steps = 2;
  o.ortho_g = o.ortho_d = 1e-2f;
  o.augment = {true, true, false};
  return o;
}

/// A model with the random numbers of a seed, and its real pictures.
struct Training {
  Fixture fixture;
  std::shared_ptr<Philox> random = std::make_shared<Philox>(3);
  std::unique_ptr<Model> model;
  Tensor real{Shape{kBatch, 32, 32, 3}};

  Training(DType t, bool deep) {
    context().storage = t;
    context().random = random;
    model = std::make_unique<Model>(tiny(deep));
    model->initialise(*random);
    random->keep_step_in(model->memory.step());
    // Untrained, D sums features over a map: its answers are so large that f16 takes a few halvings first.
    StepState s = model->memory.read();
    if (t == DType::f16) s.loss_scale = 256;
    model->memory.write(s);
    const Tensor numbers = from_vector(real.shape(), hashed_signed("real", real.count()));
    real = Tensor(real.shape(), t);
    KILN_RUN(Work::pointwise, cast(stream, DType::f32, t, real.count(), numbers.data(), real.data()));
  }
  Losses iteration() {
    return model->iteration([&](int, int) { return RealPart{real, draw_labels(random->uniform("labels", Shape{kBatch, 1}), 3)}; }, options());
  }
};

struct Trained {
  std::vector<float> losses, g_gradient, d_gradient;  // gradients of the first iteration, without the loss scale
};

Trained train(DType t, bool deep) {
  Training training(t, deep);
  Trained r;
  for (int k = 0; k < 4; k++) {
    const float scale = training.model->memory.read().loss_scale;
    const Losses l = training.iteration();
    for (const Tensor* x : {&l.d_real, &l.d_fake, &l.g, &l.logit_real, &l.logit_fake}) r.losses.push_back(x->item());
    if (k > 0) continue;
    r.g_gradient = training.model->g_params.grads.to_vector();
    r.d_gradient = training.model->d_params.grads.to_vector();
    for (std::vector<float>* g : {&r.g_gradient, &r.d_gradient})
      for (float& x : *g) x /= scale;
  }
  CHECK(training.model->memory.read().overflows == 0);
  for (const Tensor& p : {training.model->g_params.values, training.model->average_params.statistics}) CHECK(p.dtype() == DType::f32);
  return r;
}

double cosine(const std::vector<float>& a, const std::vector<float>& b) {
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); i++) {
    ab += double(a[i]) * double(b[i]);
    aa += double(a[i]) * double(a[i]);
    bb += double(b[i]) * double(b[i]);
  }
  return ab / std::sqrt(aa * bb);
}

}  // namespace

TEST_CASE("biggan: training with 16-bit activations follows training in f32") {
  for (const bool deep : {false, true}) {
    const Trained full = train(DType::f32, deep);
    std::vector<DType> types{DType::f16};
    if (cpu_has_bf16()) types.push_back(DType::bf16);
    for (const DType t : types) {
      CAPTURE(std::string(name_of(t)));
      CAPTURE(deep);
      const Trained half = train(t, deep);
      double worst = 0, size = 0;
      for (size_t i = 0; i < full.losses.size(); i++) {
        worst = std::max(worst, std::abs(double(full.losses[i]) - double(half.losses[i])));
        size = std::max(size, std::abs(double(full.losses[i])));
      }
      const double g = cosine(full.g_gradient, half.g_gradient), d = cosine(full.d_gradient, half.d_gradient);
      // The pull towards orthogonal weights is scaled like the rest: else it would be lost beside gradients times 65536.
      const double g_error = relative_error(half.g_gradient, full.g_gradient), d_error = relative_error(half.d_gradient, full.d_gradient);
      MESSAGE(std::string(name_of(t)) << std::string(deep ? " deep" : "") << ": losses up to " << size << " differ by " << worst << " at most; cosines of the gradients: G " << g
                         << ", D " << d << "; their errors " << g_error << ", " << d_error);
      CHECK(worst > 0);  // it was not f32 after all
      CHECK(worst < (t == DType::f16 ? 0.02 : 0.1) * std::max(1.0, size));
      CHECK(g > (t == DType::f16 ? 0.99 : 0.95));
      CHECK(d > (t == DType::f16 ? 0.999 : 0.98));
    }
  }
}

TEST_CASE("biggan: an f16 training survives an overflow in any of its steps of D") {
  Training training(DType::f16, false);
  Model& m = *training.model;
  training.iteration();
  StepState s = m.memory.read();
  CHECK(s.overflows == 0);
  CHECK(m.d_params.steps() == 2);
  CHECK(m.g_params.steps() == 1);
  s.loss_scale = 0x1p30f;  // that no f16 gradient survives
  m.memory.write(s);
  const std::vector<float> g = m.g_params.values.to_vector(), d = m.d_params.values.to_vector(), average = m.average_params.values.to_vector(),
                           vectors = m.average_params.vectors.to_vector();
  const Losses l = training.iteration();
  for (const Tensor* x : {&l.d_real, &l.d_fake, &l.g}) CHECK(std::isfinite(x->item()));  // the losses are not scaled
  CHECK(m.g_params.values.to_vector() == g);
  CHECK(m.d_params.values.to_vector() == d);
  CHECK(m.average_params.values.to_vector() == average);
  CHECK(m.average_params.vectors.to_vector() == vectors);
  s = m.memory.read();
  CHECK(s.step == 2);
  CHECK(s.overflows == 1);
  CHECK(s.loss_scale == 0x1p29f);
  for (int k = 0; k < 24; k++) training.iteration();
  s = m.memory.read();
  CHECK(s.good_steps > 0);
  CHECK(m.g_params.values.to_vector() != g);
  CHECK(m.d_params.values.to_vector() != d);
  for (const Tensor* t : {&m.g_params.values, &m.d_params.values, &m.average_params.values, &m.average_params.statistics})
    for (const float x : t->to_vector()) REQUIRE(std::isfinite(x));
}
