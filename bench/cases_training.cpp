// What a step does once for all layers or all parameters: spectral norm, Adam with the moving average, the check for
// overflow; the data path with its augmentation, and random numbers.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>

#include "bench/composition.h"
#include "bench/kernel_bench.h"
#include "engine/ops.h"
#include "engine/parameters.h"
#include "kernels/philox.h"
#include "kernels/pointwise.h"
#include "kernels/random.h"
#include "kernels/step.h"
#include "models/fastgan.h"

namespace kiln::bench {
namespace {

// ---- spectral norm of all layers -------------------------------------------------------------------------------------

struct Layers {
  fastgan::Generator network;
  ParameterSet parameters;
  SpectralGroup all;
  std::vector<SpectralGroup> each;  // a group a layer: what a launch a layer costs
  std::vector<SpectralWeight*> weights;
  Tensor sigma, packed, grads, vectors;

  static fastgan::Config config(const Scale& s) {
    fastgan::Config c;
    c.size = s.size;
    c.ngf = c.ndf = s.width;
    return c;
  }
  explicit Layers(const Scale& s) : network(config(s)), parameters(network, true), all(network) {
    parameters.initialise(*context().random, "G.");
    walk_parts<SpectralWeight>(network, "", [&](const std::string&, SpectralWeight& w) {
      weights.push_back(&w);
      each.emplace_back(w);
    });
    sigma = zeros(Shape{int64_t(weights.size())});
    packed = zeros(Shape{all.packed_count()});
    grads = normals("spectral.grads", Shape{all.packed_count()}, DType::f32);
    vectors = Tensor(parameters.vectors.shape());
  }
  void normalise(const SpectralGroup& g, const Tensor& v, int64_t layer) const {
    KILN_RUN(Work::reduction, spectral_normalise(stream, g.tables(), parameters.values.f32(), v.f32(), v.f32(), true,
                                                 sigma.f32() + layer, DType::f32, packed.data()));
  }
  void backward(const SpectralGroup& g, int64_t layer) const {
    KILN_RUN(Work::reduction, spectral_backward(stream, g.tables(), parameters.values.f32(), grads.f32(), parameters.vectors.f32(),
                                                parameters.vectors.f32(), sigma.f32() + layer, parameters.grads.f32()));
  }
};

Prepared spectral_forward(const Scale& s) {
  auto l = std::make_shared<Layers>(s);
  copy(l->parameters.vectors, l->vectors);
  Prepared p;
  p.run = [l] { l->normalise(l->all, l->vectors, 0); };
  p.unfused = [l] {
    for (size_t i = 0; i < l->each.size(); i++) l->normalise(l->each[i], l->vectors, int64_t(i));
  };
  p.error = [l, run = p.run] {
    copy(l->parameters.vectors, l->vectors);
    poison(l->sigma);
    run();
    const std::vector<float> values = l->parameters.values.to_vector(), vectors = l->parameters.vectors.to_vector(), got = l->sigma.to_vector();
    Comparison c(DType::f32);
    for (size_t i = 0; i < l->weights.size(); i++) {
      const SpectralWeight& w = *l->weights[i];
      const int64_t rows = w.weight.shape[0], cols = w.weight.shape.count() / rows;
      const float *m = values.data() + w.weight.offset, *u = vectors.data() + w.u.offset;
      std::vector<double> v(static_cast<size_t>(cols)), wv(static_cast<size_t>(rows));
      double norm = 0, squares = 0;
      for (int64_t r = 0; r < rows; r++)
        for (int64_t k = 0; k < cols; k++) v[size_t(k)] += double(m[r * cols + k]) * double(u[r]);
      for (double x : v) norm += x * x;
      for (int64_t r = 0; r < rows; r++) {
        for (int64_t k = 0; k < cols; k++) wv[size_t(r)] += double(m[r * cols + k]) * v[size_t(k)] / std::sqrt(norm);
        squares += wv[size_t(r)] * wv[size_t(r)];
      }
      c.add(double(got[i]), std::sqrt(squares));  // sigma = u' W v with u = W v / |W v|
    }
    return c.error();
  };
  return p;
}

Prepared spectral_gradient(const Scale& s) {
  auto l = std::make_shared<Layers>(s);
  copy(l->parameters.vectors, l->vectors);
  l->normalise(l->all, l->parameters.vectors, 0);
  Prepared p;
  p.run = [l] { l->backward(l->all, 0); };
  p.unfused = [l] {
    for (size_t i = 0; i < l->each.size(); i++) l->backward(l->each[i], int64_t(i));
  };
  p.error = [l, run = p.run] {
    l->parameters.zero_grad();
    run();
    const std::vector<float> values = l->parameters.values.to_vector(), vectors = l->parameters.vectors.to_vector(),
                             sigma = l->sigma.to_vector(), a = l->grads.to_vector(), got = l->parameters.grads.to_vector();
    Comparison c(DType::f32);
    int64_t packed = 0;
    for (size_t i = 0; i < l->weights.size(); i++) {
      const SpectralWeight& w = *l->weights[i];
      const int64_t n = w.weight.shape.count(), cols = n / w.weight.shape[0];
      double inner = 0;
      for (int64_t k = 0; k < n; k++) inner += double(a[size_t(packed + k)]) * double(values[size_t(w.weight.offset + k)]);
      inner /= double(sigma[i]);
      for (int64_t k = 0; k < n; k += 997) {
        const double uv = double(vectors[size_t(w.u.offset + k / cols)]) * double(vectors[size_t(w.v.offset + k % cols)]);
        c.add(double(got[size_t(w.weight.offset + k)]), (double(a[size_t(packed + k)]) - inner * uv) / double(sigma[i]));
      }
      packed += (n + 15) / 16 * 16;
    }
    return c.error();
  };
  return p;
}

// ---- Adam ------------------------------------------------------------------------------------------------------------

Prepared adam(const Scale& s) {
  fastgan::Generator network(Layers::config(s));
  const int64_t n = ParameterSet(network, false).values.count();
  const auto numbers = [&](const char* name) { return normals(name, Shape{n}, DType::f32); };
  const Tensor value = numbers("value"), grad = numbers("grad"), m = numbers("m"), v = uniforms("v", Shape{n}), ema = numbers("ema");
  const Tensor state = zeros(Shape{sizeof(OptimiserState) / 4}, DType::i32), squares(Shape{n});
  const AdamOptions o;
  const EmaOptions e;
  Prepared p;
  p.run = [=] {
    KILN_RUN(Work::optimiser, adam_update(stream, n, o, e, nullptr, state.as<OptimiserState>(), value.f32(), grad.f32(), m.f32(), v.f32(), ema.f32()));
  };
  p.unfused = [=] {
    constexpr DType t = DType::f32;
    KILN_RUN(Work::optimiser, linear_combination(stream, t, n, o.beta1, m.data(), 1 - o.beta1, grad.data(), m.data()));
    KILN_RUN(Work::optimiser, multiply(stream, t, n, grad.data(), grad.data(), squares.data()));
    KILN_RUN(Work::optimiser, linear_combination(stream, t, n, o.beta2, v.data(), 1 - o.beta2, squares.data(), v.data()));
    KILN_RUN(Work::optimiser, adam_apply(stream, n, o.lr, 1.f, o.eps, m.f32(), v.f32(), value.f32()));
    KILN_RUN(Work::optimiser, linear_combination(stream, t, n, e.decay, ema.data(), 1 - e.decay, value.data(), ema.data()));
  };
  p.error = [=, run = p.run] {
    OptimiserState s{};
    s.updates = 2;  // the third update
    state.upload(&s);
    const std::vector<float> x0 = value.to_vector(), g = grad.to_vector(), m0 = m.to_vector(), v0 = v.to_vector(), a0 = ema.to_vector();
    run();
    Comparison c(DType::f32), averages(DType::f32);
    const auto next = [&](int64_t i) {
      const size_t j = size_t(i);
      const double b1 = double(o.beta1), b2 = double(o.beta2), gi = double(g[j]);
      const double m1 = b1 * double(m0[j]) + (1 - b1) * gi, v1 = b2 * double(v0[j]) + (1 - b2) * gi * gi;
      return double(x0[j]) - double(o.lr) / (1 - std::pow(b1, 3)) * m1 / (std::sqrt(v1 / (1 - std::pow(b2, 3))) + double(o.eps));
    };
    const double d = std::min(double(e.decay), 4.0 / 13.0);
    c.add(value, next);
    averages.add(ema, [&](int64_t i) { return d * double(a0[size_t(i)]) + (1 - d) * next(i); });
    return std::max(c.error(), averages.error());
  };
  return p;
}

// ---- pictures --------------------------------------------------------------------------------------------------------

struct Batch {
  AugmentShape s;
  Shape shape;
  AugmentPolicy policy{true, true, true};
  Tensor x, u, means, scratch, a, b;
  Batch(DType t, const Scale& scale)
      : s{scale.batch, scale.size, scale.size}, shape{scale.batch, scale.size, scale.size, 3}, x(normals("x", shape, t)),
        u(uniforms("u", Shape{s.n, kAugmentUniforms})), means(Shape{s.n}), scratch(Shape{33 * s.n}), a(shape, t), b(shape, t) {}

  void find_means(const Tensor& of) const {
    KILN_RUN(Work::reduction, picture_means(stream, of.dtype(), s, of.data(), means.f32(), scratch.f32()));
  }
  void forward(const Tensor& from, const AugmentPolicy& p, const Tensor& to) const {
    KILN_RUN(Work::pointwise, augment_forward(stream, from.dtype(), s, p, u.f32(), means.f32(), from.data(), to.data()));
  }
  /// One operation at a time, each through memory.
  void one_by_one(const Tensor& from, const Tensor& to) const {
    find_means(from);
    forward(from, {true, false, false}, a);
    forward(a, {false, true, false}, b);
    forward(b, {false, false, true}, to);
  }
};

Prepared augmentation(DType t, const Scale& scale) {
  auto d = std::make_shared<Batch>(t, scale);
  const Tensor y = poisoned(d->shape, t);
  Prepared p;
  p.run = [=] {
    d->find_means(d->x);
    d->forward(d->x, d->policy, y);
  };
  p.unfused = [=] { d->one_by_one(d->x, y); };
  p.error = [=, run = p.run] {
    poison(y);
    run();
    Batch wide = *d;
    wide.x = in_f32(d->x);
    wide.a = Tensor(d->shape);
    wide.b = Tensor(d->shape);
    const Tensor want(d->shape);
    wide.one_by_one(wide.x, want);
    Comparison c(t);
    c.add(y, want);
    return c.error();
  };
  return p;
}

/// The adjoint, by <A x, dy> = <x, A' dy>; A x - A 0 is linear in x.
Prepared augmentation_adjoint(DType t, const Scale& scale) {
  auto d = std::make_shared<Batch>(t, scale);
  const Tensor dy = normals("dy", d->shape, t), dx = poisoned(d->shape, t), sums(Shape{33 * d->s.n});
  Prepared p;
  p.run = [=] {
    KILN_RUN(Work::pointwise, augment_backward(stream, t, d->s, d->policy, d->u.f32(), dy.data(), dx.data(), sums.f32()));
  };
  p.unfused = [=] {
    const auto one = [&](const AugmentPolicy& q, const Tensor& from, const Tensor& to) {
      KILN_RUN(Work::pointwise, augment_backward(stream, t, d->s, q, d->u.f32(), from.data(), to.data(), sums.f32()));
    };
    one({false, false, true}, dy, d->a);
    one({false, true, false}, d->a, d->b);
    one({true, false, false}, d->b, dx);
  };
  p.error = [=, run = p.run] {
    poison(dx);
    run();
    const Tensor x = in_f32(d->x), nothing = zeros(d->shape), y(d->shape), y0(d->shape);
    d->find_means(x);
    d->forward(x, d->policy, y);
    d->find_means(nothing);
    d->forward(nothing, d->policy, y0);
    const std::vector<float> xs = x.to_vector(), g = dy.to_vector(), got = dx.to_vector(), ys = y.to_vector(), zs = y0.to_vector();
    const int64_t per = d->shape.count() / d->s.n;
    Comparison c(t);
    for (int64_t n = 0; n < d->s.n; n++) {
      double left = 0, right = 0, size = 0;
      for (size_t i = size_t(n * per); i < size_t((n + 1) * per); i++) {
        left += (double(ys[i]) - double(zs[i])) * double(g[i]);
        right += double(xs[i]) * double(got[i]);
        size += std::fabs(double(xs[i]) * double(got[i]));
      }
      c.add(right + size, left + size);  // a sum of both signs: against the size of its terms
    }
    return c.error();
  };
  return p;
}

Prepared gathering(DType t, const Scale& scale) {
  auto d = std::make_shared<Batch>(t, scale);
  const int64_t count = scale.batch * 2, per = d->shape.count() / d->s.n;
  std::vector<uint8_t> bytes(size_t(count * per));
  for (size_t i = 0; i < bytes.size(); i++) bytes[i] = uint8_t(i * 2654435761u >> 13);
  auto set = std::make_shared<PictureSet>(bytes.data(), count, scale.size, scale.size);
  std::vector<int32_t> order;
  for (int64_t k = 0; k < scale.batch; k++) order.push_back(int32_t(count - 1 - k));
  const Tensor index(Shape{scale.batch}, DType::i32), flips = uniforms("flips", Shape{scale.batch}), y = poisoned(d->shape, t), plain(d->shape, t);
  index.upload(order.data());
  Prepared p;
  p.run = [=] {
    KILN_RUN(Work::data, gather_augmented(stream, t, d->s, d->policy, set->pixels.as<uint8_t>(), set->means.f32(), index.as<int32_t>(),
                                          flips.f32(), 0.5f, d->u.f32(), y.data()));
  };
  const auto gather_plain = [=](DType type, const Tensor& to) {
    KILN_RUN(Work::data, gather_pictures(stream, type, d->s, set->pixels.as<uint8_t>(), index.as<int32_t>(), flips.f32(), 0.5f, to.data()));
  };
  p.unfused = [=] {
    gather_plain(t, plain);
    d->one_by_one(plain, y);
  };
  p.error = [=, run = p.run] {
    poison(y);
    run();
    Batch wide = *d;
    wide.a = Tensor(d->shape);
    wide.b = Tensor(d->shape);
    const Tensor from(d->shape), want(d->shape);
    gather_plain(DType::f32, from);
    wide.one_by_one(from, want);
    Comparison c(t);
    c.add(y, want);
    return c.error();
  };
  return p;
}

// ---- random numbers, and what an optimiser does besides -------------------------------------------------------------

Prepared random_numbers(int64_t samples, int64_t per, bool normal) {
  const Tensor out = poisoned(Shape{samples, per}), step = zeros(Shape{2}, DType::i32);
  constexpr uint64_t seed = 0x123456789abcdefull;
  Prepared p;
  p.run = [=] {
    if (normal)
      KILN_RUN(Work::data, random_normal(stream, seed, 7u, step.as<uint64_t>(), 3, samples, per, out.f32()));
    else
      KILN_RUN(Work::data, random_uniform(stream, seed, 7u, step.as<uint64_t>(), 3, samples, per, out.f32()));
  };
  p.error = [=, run = p.run] {
    poison(out);
    run();
    Comparison c(DType::f32);
    c.add(out, [&](int64_t i) {
      const int64_t e = i % per;
      const philox::Words w = philox::block({uint32_t(e / 4), uint32_t(3 + i / per), 7u, 0u}, uint32_t(seed), uint32_t(seed >> 32));
      const uint32_t words[4] = {w.x, w.y, w.z, w.w};
      const auto uniform = [](uint32_t word) { return double(word >> 8) * 0x1p-24; };
      if (!normal) return uniform(words[e % 4]);
      const uint32_t a = words[e % 4 / 2 * 2], b = words[e % 4 / 2 * 2 + 1];
      const double r = std::sqrt(-2 * std::log(uniform(a) + 0x1p-24)), turn = 2 * M_PI * double(b) * 0x1p-32;
      return e % 2 ? r * std::sin(turn) : r * std::cos(turn);
    });
    return c.error();
  };
  return p;
}

/// The gradients' check for overflow, of all parameters of G.
Prepared finite(const Scale& s) {
  fastgan::Generator network(Layers::config(s));
  const int64_t n = ParameterSet(network, false).values.count();
  const Tensor x = normals("grads", Shape{n}, DType::f32), check = poisoned(Shape{1}), scratch(Shape{32});
  Prepared p;
  p.run = [=] { KILN_RUN(Work::optimiser, check_finite(stream, n, x.f32(), check.f32(), scratch.f32())); };
  p.error = [=, run = p.run] {
    poison(check);
    run();
    Comparison c(DType::f32);
    c.add(double(check.item()), 0);
    std::vector<float> planted = x.to_vector();
    for (const size_t at : {size_t(0), size_t(n / 2), size_t(n - 1)}) {
      const float before = std::exchange(planted[at], std::numeric_limits<float>::infinity());
      x.upload(planted.data());
      run();
      c.add(std::isnan(check.item()) ? 0 : 1, 0);
      planted[at] = before;
    }
    x.upload(planted.data());
    return c.error();
  };
  return p;
}

/// The average of the batch norms' running statistics.
Prepared ema(const Scale& s) {
  fastgan::Generator network(Layers::config(s));
  const int64_t n = ParameterSet(network, false).statistics.count();
  const Tensor value = normals("value", Shape{n}, DType::f32), average = normals("average", Shape{n}, DType::f32);
  const Tensor state = zeros(Shape{sizeof(OptimiserState) / 4}, DType::i32);
  OptimiserState done{};
  done.decay = 0.75f;
  done.unscale = 1;
  state.upload(&done);
  Prepared p;
  p.run = [=] {
    KILN_RUN(Work::optimiser, ema_update(stream, n, state.as<OptimiserState>(), value.f32(), average.f32()));
  };
  p.error = [=, run = p.run] {
    const std::vector<float> v = value.to_vector(), before = average.to_vector();
    run();
    Comparison c(DType::f32);
    c.add(average, [&](int64_t i) { return 0.75 * double(before[size_t(i)]) + 0.25 * double(v[size_t(i)]); });
    return c.error();
  };
  return p;
}

}  // namespace

void add_training_cases(std::vector<Case>& cases, const Scale& s, DType t) {
  const std::string picture = Shape{s.batch, s.size, s.size, 3}.text(), network = "G" + std::to_string(s.size);
  cases.push_back({"gather_augmented", picture, t, [=] { return gathering(t, s); }});
  cases.push_back({"augment_forward", picture, t, [=] { return augmentation(t, s); }});
  cases.push_back({"augment_backward", picture, t, [=] { return augmentation_adjoint(t, s); }});
  if (t != DType::f32) return;
  cases.push_back({"spectral_normalise", network, t, [=] { return spectral_forward(s); }});
  cases.push_back({"spectral_backward", network, t, [=] { return spectral_gradient(s); }});
  cases.push_back({"adam_ema", network, t, [=] { return adam(s); }});
  cases.push_back({"ema_update", network, t, [=] { return ema(s); }});
  cases.push_back({"check_finite", network, t, [=] { return finite(s); }});
  const int noisy = s.size >= 512 ? 512 : s.size >= 128 ? 128 : 32;
  const Shape noise{s.batch, int64_t(noisy) * noisy};
  cases.push_back({"random_normal", noise.text(), t, [=] { return random_numbers(noise[0], noise[1], true); }});
  cases.push_back({"random_uniform", noise.text(), t, [=] { return random_numbers(noise[0], noise[1], false); }});
}

}  // namespace kiln::bench
