// Batch norm with what is fused around it: statistics, forward and backward, and what is left of it in a network that
// is only used, at the largest maps of G and D.
#include <algorithm>
#include <cmath>
#include <memory>

#include "bench/kernel_bench.h"
#include "engine/ops.h"
#include "kernels/gate.h"
#include "kernels/inference.h"
#include "kernels/norm.h"
#include "kernels/pointwise.h"
#include "models/fastgan.h"

namespace kiln::bench {
namespace {

constexpr float kEps = 1e-5f, kMomentum = 0.1f;

/// One normalisation: its operands in type t, and the intermediate tensors that an unfused one stores.
struct Norm {
  DType t;
  Shape shape;
  int c;
  int64_t rows;
  bool glu, noisy;
  Tensor x, dy, noise, weight, gamma, beta, running, channels, scratch, dgamma, dbeta, dweight;
  Tensor noised, normed, dnormed;  // unfused

  Norm(DType type, const Shape& s, bool with_glu, bool with_noise)
      : t(type), shape(s), c(int(s[3])), rows(s.rows()), glu(with_glu), noisy(with_noise), x(normals("x", s, t)),
        dy(normals("dy", glu ? s.with(-1, c / 2) : s, t)), noise(normals("noise", Shape{rows}, DType::f32)),
        weight(normals("weight", Shape{1}, DType::f32)), gamma(normals("gamma", Shape{c}, DType::f32)),
        beta(normals("beta", Shape{c}, DType::f32)), running(zeros(Shape{2, c})), channels(Shape{4, c}),
        scratch(Shape{norm_scratch_floats(c)}), dgamma(zeros(Shape{c})), dbeta(zeros(Shape{c})), dweight(zeros(Shape{1})) {}

  /// The same numbers in f32: what the check computes with.
  std::shared_ptr<Norm> wide() const {
    auto n = std::make_shared<Norm>(*this);
    n->t = DType::f32;
    n->x = in_f32(x);
    n->dy = in_f32(dy);
    n->noised = n->normed = n->dnormed = Tensor();
    n->dgamma = zeros(Shape{c});
    n->dbeta = zeros(Shape{c});
    n->dweight = zeros(Shape{1});
    return n;
  }

  NormChannels ch() const {
    float* k = channels.f32();
    return {gamma.f32(), beta.f32(), running.f32(), running.f32() + c, k, k + c, k + 2 * c, k + 3 * c};
  }
  NormFusion fusion() const {
    NormFusion f;
    f.glu = glu;
    f.act = glu ? Activation::none : Activation::leaky_relu;
    if (noisy) f.noise = noise.f32(), f.noise_weight = weight.f32();
    return f;
  }

  void prepare(const Tensor& input, const NormFusion& f) const {
    KILN_RUN(Work::reduction, norm_prepare(stream, t, rows, c, input.data(), f, ch(), kEps, kMomentum, true, scratch.f32()));
  }
  void forward(const Tensor& y) const { KILN_RUN(Work::pointwise, norm_forward(stream, t, rows, c, x.data(), fusion(), ch(), y.data())); }
  void backward(const Tensor& dx) const {
    KILN_RUN(Work::reduction, norm_backward(stream, t, rows, c, x.data(), dy.data(), fusion(), ch(), true, dx.data(), dgamma.f32(),
                                            dbeta.f32(), noisy ? dweight.f32() : nullptr, scratch.f32()));
  }

  const Tensor& input() const { return noisy ? noised : x; }
  void add_noise() const {
    KILN_RUN(Work::pointwise, noise_forward(stream, t, rows, c, x.data(), noise.f32(), weight.f32(), noised.data()));
  }
  void unfused_forward(const Tensor& y) const {
    if (noisy) add_noise();
    KILN_RUN(Work::pointwise, norm_forward(stream, t, rows, c, input().data(), NormFusion{}, ch(), normed.data()));
    if (glu)
      KILN_RUN(Work::pointwise, glu_forward(stream, t, rows, c / 2, normed.data(), y.data()));
    else
      KILN_RUN(Work::pointwise, activation_forward(stream, t, Activation::leaky_relu, rows * c, normed.data(), y.data()));
  }
  void unfused_backward(const Tensor& dx) const {
    if (glu)
      KILN_RUN(Work::pointwise, glu_backward(stream, t, rows, c / 2, normed.data(), dy.data(), dnormed.data()));
    else
      KILN_RUN(Work::pointwise,
               activation_backward(stream, t, Activation::leaky_relu, rows * c, normed.data(), dy.data(), dnormed.data()));
    KILN_RUN(Work::reduction, norm_backward(stream, t, rows, c, input().data(), dnormed.data(), NormFusion{}, ch(), true, dx.data(),
                                            dgamma.f32(), dbeta.f32(), nullptr, scratch.f32()));
    if (noisy)
      KILN_RUN(Work::reduction, noise_backward_weight(stream, t, rows, c, dx.data(), noise.f32(), dweight.f32(), scratch.f32()));
  }
  void make_room() {
    if (noisy) noised = Tensor(shape, t);
    normed = Tensor(shape, t);
    dnormed = Tensor(shape, t);
  }
};

Prepared statistics(DType t, const Shape& s, bool glu, bool noisy) {
  auto n = std::make_shared<Norm>(t, s, glu, noisy);
  Prepared p;
  p.run = [n] { n->prepare(n->x, n->fusion()); };
  if (noisy) {
    n->noised = Tensor(s, t);
    p.unfused = [n] {
      n->add_noise();
      n->prepare(n->noised, NormFusion{});
    };
  }
  p.error = [n] {
    poison(n->channels);
    n->prepare(n->x, n->fusion());
    const std::vector<float> x = n->x.to_vector(), noise = n->noise.to_vector(), got = n->channels.to_vector();
    const double w = n->noisy ? double(n->weight.item()) : 0;
    const size_t c = size_t(n->c);
    std::vector<double> sum(c), squares(c);
    for (size_t r = 0; r < size_t(n->rows); r++)
      for (size_t k = 0; k < c; k++) {
        const double v = double(x[r * c + k]) + w * double(noise[r]);
        sum[k] += v;
        squares[k] += v * v;
      }
    Comparison means(DType::f32), deviations(DType::f32);
    for (size_t k = 0; k < c; k++) {
      const double mean = sum[k] / double(n->rows), var = squares[k] / double(n->rows) - mean * mean;
      const double deviation = std::sqrt(var + double(kEps));
      means.add(double(got[k]) + deviation, mean + deviation);  // a mean of thousands of numbers near zero: against their size
      deviations.add(double(got[c + k]), 1 / deviation);
    }
    return std::max(means.error(), deviations.error());
  };
  return p;
}

Prepared forward(DType t, const Shape& s, bool glu, bool noisy) {
  auto n = std::make_shared<Norm>(t, s, glu, noisy);
  n->prepare(n->x, n->fusion());
  n->make_room();
  n->dnormed = Tensor();
  const Tensor y = poisoned(n->dy.shape(), t);
  Prepared p;
  p.run = [n, y] { n->forward(y); };
  p.unfused = [n, y] { n->unfused_forward(y); };
  p.error = [n, y] {
    poison(y);
    n->forward(y);
    const auto wide = n->wide();
    wide->make_room();
    const Tensor want(y.shape());
    wide->unfused_forward(want);
    Comparison c(n->t);
    c.add(y, want);
    return c.error();
  };
  return p;
}

Prepared backward(DType t, const Shape& s, bool glu, bool noisy) {
  auto n = std::make_shared<Norm>(t, s, glu, noisy);
  n->prepare(n->x, n->fusion());
  n->make_room();
  const Tensor dx = poisoned(s, t);
  n->unfused_forward(Tensor(n->dy.shape(), t));  // what an unfused forward has stored
  Prepared p;
  p.run = [n, dx] { n->backward(dx); };
  p.unfused = [n, dx] { n->unfused_backward(dx); };
  p.error = [n, dx] {
    for (const Tensor& sum : {n->dgamma, n->dbeta, n->dweight}) KILN_RUN(Work::data, fill(stream, DType::f32, sum.count(), 0.f, sum.data()));
    poison(dx);
    n->backward(dx);
    const auto wide = n->wide();
    wide->make_room();
    const Tensor want(n->shape);
    wide->unfused_forward(Tensor(n->dy.shape()));
    wide->unfused_backward(want);
    Comparison c(n->t), sums(n->t);
    c.add(dx, want);
    sums.add(n->dgamma, wide->dgamma);
    sums.add(n->dbeta, wide->dbeta);
    return std::max(c.error(), sums.error());
  };
  return p;
}

/// What a network in use has of its batch norms: a bias, noise of one strength a channel, and GLU. Unfused it is the
/// noise, a normalisation with mean 0 and deviation 1, and GLU.
Prepared biased(DType t, const Shape& s) {
  auto n = std::make_shared<Norm>(t, s, true, true);
  const int c = n->c, h = c / 2;
  const int64_t pixels = s[1] * s[2];
  const Tensor strength(Shape{c}), gate = normals("gate", Shape{s[0], h}, DType::f32), gate_t = normals("gate", Shape{s[0], h}, t);
  const Tensor y = poisoned(n->dy.shape(), t), ungated(n->dy.shape(), t);
  KILN_RUN(Work::data, fill(stream, DType::f32, c, n->weight.item(), strength.data()));
  KILN_RUN(Work::data, fill(stream, DType::f32, c, 1.f, n->gamma.data()));
  std::vector<float> running(size_t(2 * c), 0.f);
  std::fill(running.begin() + c, running.end(), 1 - kEps);
  n->running.upload(running.data());
  KILN_RUN(Work::reduction, norm_prepare(stream, t, n->rows, c, n->x.data(), NormFusion{}, n->ch(), kEps, kMomentum,
                                         false, n->scratch.f32()));
  n->make_room();
  Prepared p;
  p.run = [=] {
    KILN_RUN(Work::pointwise,
             biased_glu(stream, t, n->rows, h, n->x.data(), n->beta.f32(), n->noise.f32(), strength.f32(), pixels, gate.f32(),
                        y.data()));
  };
  p.unfused = [=] {
    n->unfused_forward(ungated);
    KILN_RUN(Work::pointwise, gate_forward(stream, t, s[0], pixels, h, ungated.data(), gate_t.data(), y.data()));
  };
  p.error = [=, run = p.run] {
    poison(y);
    run();
    const std::vector<float> x = n->x.to_vector(), beta = n->beta.to_vector(), noise = n->noise.to_vector(), g = gate.to_vector();
    const double w = double(n->weight.item());
    Comparison check(t);
    check.add(y, [&](int64_t i) {
      const int64_t r = i / h, k = i % h;
      const auto z = [&](int64_t j) {
        return double(x[size_t(r * c + j)]) + double(beta[size_t(j)]) + w * double(noise[size_t(r)]);
      };
      return z(k) / (1 + std::exp(-z(k + h))) * double(g[size_t(r / pixels * h + k)]);
    });
    return check.error();
  };
  return p;
}

}  // namespace

void add_norm_cases(std::vector<Case>& cases, const Scale& s, DType t) {
  using fastgan::discriminator_channels;
  using fastgan::generator_channels;
  const auto add = [&](const std::string& what, int side, int64_t c, bool glu, bool noisy) {
    const Shape shape{s.batch, side, side, c};
    cases.push_back({"norm_statistics" + std::string(noisy ? "_noise" : ""), shape.text(), t, [=] { return statistics(t, shape, glu, noisy); }});
    cases.push_back({"norm_forward_" + what, shape.text(), t, [=] { return forward(t, shape, glu, noisy); }});
    cases.push_back({"norm_backward_" + what, shape.text(), t, [=] { return backward(t, shape, glu, noisy); }});
  };
  const int noisy = s.size >= 512 ? 512 : s.size >= 128 ? 128 : 32;  // the largest stage that injects noise
  add("glu_noise", noisy, 2 * generator_channels(noisy, s.width), true, true);
  const Shape injected{s.batch, noisy, noisy, 2 * generator_channels(noisy, s.width)};
  cases.push_back({"biased_glu", injected.text(), t, [=] { return biased(t, injected); }});
  add("glu", s.size, 2 * generator_channels(s.size, s.width), true, false);
  const int down = (s.size < 256 ? s.size : 256) / 2;
  add("leaky", down, discriminator_channels(down, s.width), false, false);
}

}  // namespace kiln::bench
