// Activations stored in 16 bits: convolutions, matrix products, networks and training beside the same in f32.
#include "engine/precision.h"

#include "engine/convolution.h"
#include "engine/matrix.h"
#include "kernels/pointwise.h"
#include "models/fastgan_training.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::test;

namespace {

/// The 16-bit types that this CPU computes in: f16 always (widened to f32), bf16 where the CPU has it.
std::vector<DType> half_types() {
  if (cpu_has_bf16()) return {DType::f16, DType::bf16};
  MESSAGE("this CPU has no bf16: f16 only");
  return {DType::f16};
}

/// Half a unit in the last place, relative.
double rounding(DType t) { return t == DType::f16 ? 0x1p-11 : 0x1p-8; }

Tensor cast_to(const Tensor& x, DType t) {
  const Tensor y(x.shape(), t);
  KILN_RUN(Work::pointwise, cast(stream, x.dtype(), t, x.count(), x.data(), y.data()));
  return y;
}

/// Hashed numbers that type t holds exactly: the tensor in t, and the same in f32.
struct Pair {
  Tensor half, full;
  Pair(const std::string& name, const Shape& s, DType t) : half(cast_to(from_vector(s, hashed_signed(name, s.count())), t)), full(cast_to(half, DType::f32)) {}
};

struct ConvCase {
  int64_t n, size, c, oc;
  int k, stride, pad;
};
constexpr ConvCase kConvolutions[] = {{2, 9, 3, 16, 3, 1, 1}, {1, 8, 32, 24, 4, 2, 1}, {3, 5, 17, 3, 1, 1, 0}, {2, 4, 16, 8, 4, 1, 0}, {2, 7, 16, 32, 3, 2, 1}};

}  // namespace

TEST_CASE("precision: 16-bit convolutions round the f32 results once, and give f32 gradients of weights") {
  Fixture fixture;
  for (const DType t : half_types())
    for (const ConvCase& k : kConvolutions)
      for (const bool transposed : {false, true}) {
        CAPTURE(std::string(name_of(t)));
        CAPTURE(k.c);
        CAPTURE(k.oc);
        CAPTURE(transposed);
        const int64_t out = (k.size + 2 * k.pad - k.k) / k.stride + 1;
        const ConvShape s{k.n, k.size, k.size, k.c, out, out, k.oc, k.k, k.k, k.stride, k.pad, transposed};
        const Shape xs{k.n, k.size, k.size, k.c}, ys{k.n, out, out, k.oc};
        const Shape ws = transposed ? Shape{k.c, k.k, k.k, k.oc} : Shape{k.oc, k.k, k.k, k.c};
        const Pair x("x", xs, t), w("w", ws, t), dy("dy", ys, t);
        const Tensor y(ys, t), y32(ys), dx(xs, t), dx32(xs), dw(ws), dw32(ws);
        conv_forward(s, x.half, w.half, y);
        conv_forward(s, x.full, w.full, y32);
        CHECK(relative_error(y.to_vector(), y32.to_vector()) < 1.01 * rounding(t));
        conv_backward_data(s, dy.half, w.half, dx);
        conv_backward_data(s, dy.full, w.full, dx32);
        CHECK(relative_error(dx.to_vector(), dx32.to_vector()) < 1.01 * rounding(t));
        conv_backward_weights(s, x.half, dy.half, dw);
        conv_backward_weights(s, x.full, dy.full, dw32);
        CHECK(relative_error(dw.to_vector(), dw32.to_vector()) < 1e-5);
      }
}

TEST_CASE("precision: 16-bit matrix products, into 16 bits and into f32, transposed and not") {
  Fixture fixture;
  const int64_t m = 7, n = 33, k = 20;
  for (const DType t : half_types())
    for (const bool ta : {false, true})
      for (const bool tb : {false, true}) {
        CAPTURE(std::string(name_of(t)));
        CAPTURE(ta);
        CAPTURE(tb);
        const Pair a("a", ta ? Shape{k, m} : Shape{m, k}, t), b("b", tb ? Shape{n, k} : Shape{k, n}, t);
        const Tensor want(Shape{m, n}), wide(Shape{m, n}), narrow(Shape{m, n}, t);
        matrix_product(ta, tb, m, n, k, a.full, b.full, want);
        matrix_product(ta, tb, m, n, k, a.half, b.half, wide);
        CHECK(relative_error(wide.to_vector(), want.to_vector()) < 1e-6);
        matrix_product(ta, tb, m, n, k, a.half, b.half, narrow);
        CHECK(relative_error(narrow.to_vector(), want.to_vector()) < 1.01 * rounding(t));
      }
}

namespace {

fastgan::Config tiny() {
  fastgan::Config c;
  c.size = 32;
  c.ngf = c.ndf = 8;
  return c;
}

struct Trained {
  std::vector<float> losses;                    // eight an iteration
  std::vector<float> g_gradient, d_gradient;    // of the first iteration
  size_t peak = 0;
};

Trained train(DType t, int iterations, float loss_scale = 0) {
  Fixture fixture;
  context().storage = t;
  const auto random = std::make_shared<Philox>(3);
  context().random = random;
  fastgan::Model m(tiny());
  m.initialise(*random);
  if (loss_scale > 0) {
    StepState s = m.memory.read();
    s.loss_scale = loss_scale;
    m.memory.write(s);
  }
  const Tensor real = cast_to(from_vector(Shape{4, 32, 32, 3}, hashed_signed("real", 4 * 32 * 32 * 3)), t);
  Trained r;
  for (int k = 0; k < iterations; k++) {
    random->set_step(uint64_t(k));
    const fastgan::Losses l = m.iteration(real, {});
    for (const Tensor* x : {&l.d_real, &l.d_fake, &l.g, &l.recon_all, &l.recon_small, &l.recon_part, &l.logit_real, &l.logit_fake})
      r.losses.push_back(x->item());
    if (k == 0) {
      r.g_gradient = m.g_params.grads.to_vector();
      r.d_gradient = m.d_params.grads.to_vector();
    }
  }
  r.peak = context().arena->stats().peak;
  for (const Tensor& p : {m.g_params.values, m.d_params.values, m.average_params.statistics}) CHECK(p.dtype() == DType::f32);
  CHECK(m.sample(random->normal("z", Shape{2, 256})).dtype() == t);
  return r;
}

struct Everything {
  std::vector<float> values, m, v, statistics, average, average_statistics;
  int64_t updates;
  bool operator==(const Everything&) const = default;
};

/// What an update changes, of one network.
Everything everything(const ParameterSet& p, const ParameterSet& average) {
  return {p.values.to_vector(), p.m.to_vector(), p.v.to_vector(), {}, average.values.to_vector(), average.statistics.to_vector(), p.steps()};
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

TEST_CASE("precision: training with 16-bit activations follows training in f32") {
  const Trained full = train(DType::f32, 4);
  for (const DType t : half_types()) {
    CAPTURE(std::string(name_of(t)));
    const Trained half = train(t, 4);
    double worst = 0;
    for (size_t i = 0; i < full.losses.size(); i++) worst = std::max(worst, std::abs(double(full.losses[i]) - double(half.losses[i])));
    const double g = cosine(full.g_gradient, half.g_gradient), d = cosine(full.d_gradient, half.d_gradient);
    MESSAGE(std::string(name_of(t)) << ": losses differ by " << worst << " at most; cosines of the gradients: G " << g << ", D " << d
                       << "; tensors at the peak " << half.peak << " bytes against " << full.peak);
    CHECK(worst > 0);  // it was not f32 after all
    CHECK(worst < (t == DType::f16 ? 0.02 : 0.1));
    CHECK(g > (t == DType::f16 ? 0.99 : 0.95));
    CHECK(d > (t == DType::f16 ? 0.999 : 0.98));
  }
}

TEST_CASE("precision: an f16 training survives an overflow: the step changes no weights, the scale halves, and it goes on") {
  Fixture fixture;
  context().storage = DType::f16;
  const auto random = std::make_shared<Philox>(3);
  context().random = random;
  fastgan::Model m(tiny());
  m.initialise(*random);
  random->keep_step_in(m.memory.step());
  const Tensor real = cast_to(from_vector(Shape{4, 32, 32, 3}, hashed_signed("real", 4 * 32 * 32 * 3)), DType::f16);
  CHECK(m.memory.scaled());
  CHECK(m.memory.read().loss_scale == 65536);
  m.iteration(real, {});
  StepState s = m.memory.read();
  CHECK(s.step == 1);
  CHECK(s.overflows == 0);
  CHECK(s.good_steps == 1);
  CHECK(m.g_params.steps() == 1);

  // A scale that no f16 gradient survives: 1/200 of it is more than 65504.
  s.loss_scale = 0x1p25f;
  m.memory.write(s);
  const Everything g = everything(m.g_params, m.average_params), d = everything(m.d_params, m.average_params);
  const fastgan::Losses l = m.iteration(real, {});
  for (const Tensor* x : {&l.d_real, &l.d_fake, &l.g, &l.recon_all}) CHECK(std::isfinite(x->item()));  // the losses are not scaled
  CHECK(!std::isfinite(relative_error(m.d_params.grads.to_vector(), std::vector<float>(size_t(m.d_params.grads.count()), 1.f))));
  CHECK(everything(m.g_params, m.average_params) == g);
  CHECK(everything(m.d_params, m.average_params) == d);
  s = m.memory.read();
  CHECK(s.step == 2);
  CHECK(s.overflows == 1);
  CHECK(s.good_steps == 0);
  CHECK(s.loss_scale == 0x1p24f);

  for (int i = 0; i < 12; i++) m.iteration(real, {});
  s = m.memory.read();
  MESSAGE("the scale settled at " << s.loss_scale << " after " << s.overflows << " overflows");
  CHECK(s.step == 14);
  CHECK(s.overflows < 12);
  CHECK(s.good_steps > 0);
  CHECK(s.loss_scale < 0x1p24f);
  CHECK(m.g_params.steps() > 1);
  CHECK(m.d_params.steps() > 1);
  CHECK(m.g_params.values.to_vector() != g.values);
  for (const Tensor* t : {&m.g_params.values, &m.d_params.values, &m.average_params.values, &m.average_params.statistics})
    for (const float x : t->to_vector()) REQUIRE(std::isfinite(x));
}

TEST_CASE("precision: gradients come multiplied by the loss scale, and a small one loses them in f16") {
  const Trained full = train(DType::f32, 1);
  const auto error = [&](float scale) {
    std::vector<float> d = train(DType::f16, 1, scale).d_gradient;
    for (float& x : d) x /= scale;
    return relative_error(d, full.d_gradient);
  };
  const double right = error(65536), twice = error(131072), small = error(0x1p-13f);
  MESSAGE("errors of D's gradients: scale 65536 " << right << ", 131072 " << twice << ", 2^-13 " << small);
  CHECK(right < 0.05);
  CHECK(twice < 0.05);
  CHECK(small > 4 * right);
}

TEST_CASE("precision: names, and what auto means on a CPU") {
  CHECK(precision_from_name("auto", Device::cpu) == DType::f32);
  CHECK(precision_from_name("f32", Device::cpu) == DType::f32);
  CHECK(precision_from_name("bf16", Device::cpu) == DType::bf16);
  CHECK(precision_from_name("f16", Device::cpu) == DType::f16);
  CHECK(contains(error_of([] { precision_from_name("fp8", Device::cpu); }), "--precision fp8"));
  CHECK(error_of([] { require_precision(DType::f16, Device::cpu); }).empty());
  CHECK(error_of([] { require_precision(DType::bf16, Device::cpu); }).empty() == cpu_has_bf16());
}
