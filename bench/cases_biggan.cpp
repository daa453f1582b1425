// What BigGAN adds to the kernels of FastGAN: conditional norm, biases and residual sums, pooling, attention and the projection head, at
// the shapes of BigGAN 128.
#include <algorithm>
#include <cmath>

#include "bench/case_tools.h"
#include "engine/ops.h"
#include "engine/ops_conditional.h"
#include "kernels/attention.h"
#include "kernels/bias.h"
#include "kernels/cond_norm.h"
#include "kernels/feature.h"
#include "kernels/fold.h"
#include "kernels/gate.h"
#include "kernels/gram.h"
#include "kernels/norm.h"
#include "kernels/pointwise.h"
#include "kernels/pool.h"
#include "kernels/projection.h"
#include "kernels/resize.h"

namespace kiln::bench {
namespace {

// ---- conditional norm ---------------------------------------------------------------------------------------------------

/// Batch statistics, gains and biases a picture, and the scale and shift made of them.
struct Norm {
  DType t;
  CondNormShape s;
  Tensor x, dy, gain, bias, mean, inv_std, scale, shift;
  Norm(DType type, const Shape& shape)
      : t(type), s{shape[0], shape[1] * shape[2], int(shape[3])}, x(normals("x", shape, t)), dy(normals("dy", shape, t)),
        gain(normals("gain", Shape{s.n, s.c}, DType::f32)), bias(normals("bias", Shape{s.n, s.c}, DType::f32)), mean(Shape{s.c}), inv_std(Shape{s.c}),
        scale(Shape{s.n, s.c}), shift(Shape{s.n, s.c}) {
    const Tensor scratch(Shape{norm_scratch_floats(s.c)}), running = zeros(Shape{2, s.c});
    const NormChannels ch{nullptr, nullptr, running.f32(), running.f32() + s.c, mean.f32(), inv_std.f32(), nullptr, nullptr};
    KILN_RUN(Work::reduction, norm_prepare(stream, t, s.n * s.pixels, s.c, x.data(), NormFusion{}, ch, 1e-5f, 0.1f, true, scratch.f32()));
    KILN_RUN(Work::pointwise, cond_norm_scale(stream, s.n, s.c, gain.f32(), bias.f32(), mean.f32(), inv_std.f32(), scale.f32(), shift.f32()));
  }
  int64_t count() const { return s.n * s.pixels * s.c; }
};

Prepared conditional_forward(DType t, const Shape& shape) {
  const auto k = std::make_shared<Norm>(t, shape);
  const CondNormShape s = k->s;
  const Tensor y = poisoned(shape, t), normed(shape, t), ones = zeros(Shape{s.c}), factors(Shape{s.n, s.c}, t), none = zeros(Shape{s.c});
  KILN_RUN(Work::data, fill(stream, DType::f32, s.c, 1.f, ones.data()));
  {
    const Tensor all(Shape{s.n, s.c}), one(Shape{s.n, s.c});
    KILN_RUN(Work::data, fill(stream, DType::f32, s.n * s.c, 1.f, one.data()));
    KILN_RUN(Work::data, linear_combination(stream, DType::f32, s.n * s.c, 1.f, k->gain.data(), 1.f, one.data(), all.data()));
    KILN_RUN(Work::data, cast(stream, DType::f32, t, s.n * s.c, all.data(), factors.data()));
  }
  Prepared p;
  p.run = [=] { KILN_RUN(Work::pointwise, cond_norm_forward(stream, t, s, k->x.data(), k->scale.f32(), k->shift.f32(), Activation::relu, y.data())); };
  p.unfused = [=] {  // normalise; the gain; the bias and relu, a picture at a time
    const NormChannels ch{ones.f32(), none.f32(), none.f32(), none.f32(), k->mean.f32(), k->inv_std.f32(), k->inv_std.f32(), none.f32()};
    KILN_RUN(Work::pointwise, norm_forward(stream, t, s.n * s.pixels, s.c, k->x.data(), NormFusion{}, ch, normed.data()));
    KILN_RUN(Work::pointwise, gate_forward(stream, t, s.n, s.pixels, s.c, normed.data(), factors.data(), y.data()));
    const Shape one{s.pixels, s.c};
    for (int64_t n = 0; n < s.n; n++) {
      const Tensor part = y.slice(n * s.pixels * s.c, one);
      KILN_RUN(Work::pointwise, affine_activation(stream, t, s.pixels, s.c, part.data(), nullptr, k->bias.f32() + n * s.c, 0.f, part.data()));
    }
  };
  p.error = check(y, p.run, [=] {
    return [=, x = on_host(k->x), g = on_host(k->gain), b = on_host(k->bias), m = on_host(k->mean), v = on_host(k->inv_std)](int64_t i) {
      const int64_t c = i % s.c, of = i / (s.pixels * s.c) * s.c + c;
      return std::max(0.0, (at(x, i) - at(m, c)) * at(v, c) * (1 + at(g, of)) + at(b, of));
    };
  });
  return p;
}

Prepared conditional_backward(DType t, const Shape& shape) {
  const auto k = std::make_shared<Norm>(t, shape);
  const CondNormShape s = k->s;
  const Tensor dx = poisoned(shape, t), dgain = poisoned(Shape{s.n, s.c}), dbias = poisoned(Shape{s.n, s.c}), scratch(Shape{cond_norm_scratch_floats(s)});
  Prepared p;
  p.run = [=] {
    KILN_RUN(Work::reduction, cond_norm_backward(stream, t, s, k->x.data(), k->dy.data(), k->gain.f32(), k->mean.f32(), k->inv_std.f32(), k->scale.f32(),
                                                 k->shift.f32(), Activation::relu, true, dx.data(), dgain.f32(), dbias.f32(), scratch.f32()));
  };
  p.error = [=, run = p.run] {
    poison(dx);
    run();
    const Numbers x = on_host(k->x), dy = on_host(k->dy), g = on_host(k->gain), b = on_host(k->bias), m = on_host(k->mean), v = on_host(k->inv_std);
    const auto normed = [&](int64_t i) { return (at(x, i) - at(m, i % s.c)) * at(v, i % s.c); };
    const auto of = [&](int64_t i) { return i / (s.pixels * s.c) * s.c + i % s.c; };
    const auto through = [&](int64_t i) { return normed(i) * (1 + at(g, of(i))) + at(b, of(i)) > 0 ? at(dy, i) : 0.0; };
    std::vector<double> gains(size_t(s.n * s.c)), biases(gains.size()), sizes(gains.size()), first(size_t(s.c)), second(size_t(s.c));
    for (int64_t i = 0; i < k->count(); i++) {
      const double d = through(i), e = d * normed(i);
      gains[size_t(of(i))] += e;
      sizes[size_t(of(i))] += std::fabs(e);
      biases[size_t(of(i))] += d;
      first[size_t(i % s.c)] += d * (1 + at(g, of(i)));
      second[size_t(i % s.c)] += e * (1 + at(g, of(i)));
    }
    const double rows = double(s.n * s.pixels);
    Comparison c(t), sums(DType::f32);
    c.add(dx, [&](int64_t i) {
      const size_t ch = size_t(i % s.c);
      return at(v, i % s.c) * (through(i) * (1 + at(g, of(i))) - first[ch] / rows - normed(i) * second[ch] / rows);
    });
    const Numbers got_gain = on_host(dgain), got_bias = on_host(dbias);
    for (size_t i = 0; i < gains.size(); i++) {  // against the size of what was added
      sums.add(at(got_gain, int64_t(i)) + sizes[i], gains[i] + sizes[i]);
      sums.add(at(got_bias, int64_t(i)) + sizes[i], biases[i] + sizes[i]);
    }
    return std::max(c.error(), sums.error());
  };
  return p;
}

// ---- residual blocks ----------------------------------------------------------------------------------------------------

Prepared bias_relu(DType t, const Shape& shape, bool backward) {
  const int c = int(shape[3]);
  const int64_t rows = shape.rows();
  const Tensor x = normals("x", shape, t), bias = normals("bias", Shape{c}, DType::f32), y = poisoned(shape, t);
  Prepared p;
  if (!backward) {
    const Tensor sum(shape, t);
    p.run = [=] { KILN_RUN(Work::pointwise, bias_forward(stream, t, rows, c, x.data(), bias.f32(), Activation::relu, y.data())); };
    p.unfused = [=] {
      KILN_RUN(Work::pointwise, bias_forward(stream, t, rows, c, x.data(), bias.f32(), Activation::none, sum.data()));
      KILN_RUN(Work::pointwise, activation_forward(stream, t, Activation::relu, sum.count(), sum.data(), y.data()));
    };
    p.error = check(y, p.run, [=] { return [=, x = on_host(x), b = on_host(bias)](int64_t i) { return std::max(0.0, at(x, i) + at(b, i % c)); }; });
    return p;
  }
  const Tensor dy = normals("dy", shape, t), dbias = zeros(Shape{c}), scratch(Shape{bias_scratch_floats(c)});
  p.run = [=] {
    KILN_RUN(Work::reduction, bias_backward(stream, t, rows, c, x.data(), dy.data(), Activation::relu, y.data(), dbias.f32(), scratch.f32()));
  };
  p.unfused = [=] {
    KILN_RUN(Work::pointwise, activation_backward(stream, t, Activation::relu, x.count(), x.data(), dy.data(), y.data()));
    KILN_RUN(Work::reduction, bias_backward(stream, t, rows, c, nullptr, y.data(), Activation::none, nullptr, dbias.f32(), scratch.f32()));
  };
  p.error = check(y, p.run, [=] { return [=, x = on_host(x), d = on_host(dy)](int64_t i) { return at(x, i) > 0 ? at(d, i) : 0.0; }; });
  return p;
}

Prepared residual(DType t, const Shape& shape, bool up) {
  const int64_t n = shape[0];
  const int h = int(shape[1]), w = int(shape[2]), c = int(shape[3]);
  const Shape small = up ? Shape{n, h / 2, w / 2, c} : shape;
  const Tensor x = normals("x", shape, t), skip = normals("skip", small, t), b1 = normals("b1", Shape{c}, DType::f32), b2 = normals("b2", Shape{c}, DType::f32);
  const Tensor y = poisoned(shape, t), large(shape, t), one(shape, t), two(shape, t);
  Prepared p;
  p.run = [=] {
    KILN_RUN(Work::pointwise, residual_forward(stream, t, n, h, w, c, x.data(), skip.data(), up, b1.f32(), b2.f32(), y.data()));
  };
  p.unfused = [=] {
    if (up) KILN_RUN(Work::pointwise, nearest_forward(stream, t, ResizeShape{n, h / 2, w / 2, h, w, c}, skip.data(), large.data()));
    KILN_RUN(Work::pointwise, bias_forward(stream, t, shape.rows(), c, x.data(), b1.f32(), Activation::none, one.data()));
    KILN_RUN(Work::pointwise, bias_forward(stream, t, shape.rows(), c, up ? large.data() : skip.data(), b2.f32(), Activation::none, two.data()));
    KILN_RUN(Work::pointwise, linear_combination(stream, t, x.count(), 1.f, one.data(), 1.f, two.data(), y.data()));
  };
  p.error = check(y, p.run, [=] {
    return [=, x = on_host(x), s = on_host(skip), p = on_host(b1), q = on_host(b2)](int64_t k) {
      const int64_t ch = k % c, j = k / c % w, i = k / c / w % h, m = k / c / w / h;
      const int64_t from = up ? ((m * (h / 2) + i / 2) * (w / 2) + j / 2) * c + ch : k;
      return at(x, k) + at(s, from) + at(p, ch) + at(q, ch);
    };
  });
  return p;
}

/// One op that computes what two do, compared in f32; in 16 bits with the two in f32, as far as one more rounding of weights goes.
Prepared pooled_convolution(DType t, const Shape& shape, int64_t o) {
  const Tensor x = normals("x", shape, t), w = normals("w", Shape{o, 3, 3, shape[3]}, t);
  const auto y = std::make_shared<Tensor>();
  Prepared p;
  p.run = [=] { *y = conv3x3_pool(Var(x), Var(w)).value; };
  p.unfused = [=] { *y = average_pool2x2(conv2d(Var(x), Var(w), 1, 1)).value; };
  p.error = [=, run = p.run] {
    run();
    Comparison c(t);
    if (t == DType::f32) {
      c.add(*y, average_pool2x2(conv2d(Var(x), Var(w), 1, 1)).value);
    } else {
      const Tensor folded(Shape{o, 4, 4, shape[3]}, t);
      KILN_RUN(Work::pointwise, pool_fold(stream, t, int(o), int(shape[3]), w.data(), folded.data()));
      c.add(*y, conv2d(Var(in_f32(x)), Var(in_f32(folded)), 2, 1).value);
    }
    return c.error();
  };
  return p;
}

Prepared adjoint_of_weights(int o, int i) {
  const Tensor w = normals("w", Shape{o, 3, 3, i}, DType::f32), a = poisoned(Shape{i, 3, 3, o});
  Prepared p;
  p.run = [=] { KILN_RUN(Work::convolution, adjoint_weights(stream, o, i, 0.25f, w.f32(), a.f32())); };
  p.error = check(a, p.run, [=] {
    return [=, w = on_host(w)](int64_t k) { return at(w, (k % o * 9 + 8 - k / o % 9) * i + k / (9 * int64_t(o))) / 4; };
  });
  return p;
}

// ---- attention --------------------------------------------------------------------------------------------------------------

/// Unfused: all scores of a picture at once, not a tile of them.
Prepared self_attention(DType t, const Shape& q, int64_t values) {
  const Shape pooled{q[0], q[1] / 2, q[2] / 2, q[3]};
  const Tensor query = normals("q", q, t), key = normals("k", pooled, t), value = normals("v", pooled.with(-1, values), t);
  const auto y = std::make_shared<Tensor>();
  Prepared p;
  p.run = [=] { *y = attention(Var(query), Var(key), Var(value)).value; };
  p.unfused = [=] { *y = attention(Var(query), Var(key), Var(value), q[1] * q[2]).value; };
  p.error = [=, run = p.run] {
    run();
    // The last queries' answers by plain loops; probabilities are rounded to t on their way.
    const Numbers a = on_host(query), b = on_host(key), v = on_host(value), got = on_host(*y);
    const int64_t queries = q[0] * q[1] * q[2], keys = pooled[1] * pooled[2], d = q[3];
    Comparison c(t);
    for (int64_t r = std::max<int64_t>(0, queries - 16); r < queries; r++) {
      std::vector<double> score(static_cast<size_t>(keys)), sum(static_cast<size_t>(values)), size(sum.size());
      const int64_t base = (q[0] - 1) * keys;
      double most = -1e300, total = 0;
      for (int64_t m = 0; m < keys; m++) {
        for (int64_t i = 0; i < d; i++) score[size_t(m)] += at(a, r * d + i) * at(b, (base + m) * d + i);
        most = std::max(most, score[size_t(m)]);
      }
      for (double& s : score) total += s = std::exp(s - most);
      for (int64_t m = 0; m < keys; m++)
        for (int64_t e = 0; e < values; e++) {
          sum[size_t(e)] += score[size_t(m)] / total * at(v, (base + m) * values + e);
          size[size_t(e)] += score[size_t(m)] / total * std::fabs(at(v, (base + m) * values + e));
        }
      for (int64_t e = 0; e < values; e++) c.add(at(got, r * values + e) + 2 * size[size_t(e)], sum[size_t(e)] + 2 * size[size_t(e)]);
    }
    return c.error();
  };
  return p;
}

Prepared softmax(DType t, int64_t rows, int m, bool backward) {
  const Shape shape{rows, m};
  const Tensor scores = normals("scores", shape, DType::f32), y = poisoned(shape, t);
  Prepared p;
  if (!backward) {
    p.run = [=] { KILN_RUN(Work::pointwise, softmax_forward(stream, t, rows, m, scores.f32(), y.data())); };
    p.error = check(y, p.run, [=] {
      return [=, s = on_host(scores)](int64_t i) {
        double total = 0;
        for (int64_t k = 0; k < m; k++) total += std::exp(at(s, i / m * m + k));
        return std::exp(at(s, i)) / total;
      };
    });
    return p;
  }
  const Tensor prob(shape, t);
  KILN_RUN(Work::pointwise, softmax_forward(stream, t, rows, m, normals("p", shape, DType::f32).f32(), prob.data()));
  p.run = [=] { KILN_RUN(Work::pointwise, softmax_backward(stream, t, rows, m, prob.data(), scores.f32(), y.data())); };
  p.error = check(y, p.run, [=] {
    return [=, d = on_host(scores), q = on_host(prob)](int64_t i) {
      double inner = 0;
      for (int64_t k = 0; k < m; k++) inner += at(d, i / m * m + k) * at(q, i / m * m + k);
      return at(q, i) * (at(d, i) - inner);
    };
  });
  return p;
}

Prepared gamma_sum_case(DType t, const Shape& shape, bool backward) {
  const Tensor x = normals("x", shape, t), o = normals("o", shape, t), gamma = from_vector(Shape{1}, {0.5f}), y = poisoned(shape, t);
  const Tensor dgamma = zeros(Shape{1}), scratch(Shape{gamma_scratch_floats()}), scaled(shape, t);
  Prepared p;
  if (backward) {
    p.run = [=] {
      KILN_RUN(Work::reduction, gamma_backward(stream, t, x.count(), o.data(), x.data(), gamma.f32(), y.data(), dgamma.f32(), scratch.f32()));
    };
    p.error = check(y, p.run, [=] { return [x = on_host(x)](int64_t i) { return 0.5 * at(x, i); }; });
    return p;
  }
  p.run = [=] { KILN_RUN(Work::pointwise, gamma_forward(stream, t, x.count(), x.data(), o.data(), gamma.f32(), y.data())); };
  p.unfused = [=] {
    KILN_RUN(Work::pointwise, scale(stream, t, x.count(), 0.5f, o.data(), scaled.data()));
    KILN_RUN(Work::pointwise, linear_combination(stream, t, x.count(), 1.f, x.data(), 1.f, scaled.data(), y.data()));
  };
  p.error = check(y, p.run, [=] { return [x = on_host(x), o = on_host(o)](int64_t i) { return at(x, i) + 0.5 * at(o, i); }; });
  return p;
}

Prepared pooled(DType t, const Shape& shape, bool backward) {
  const int h = int(shape[1]), w = int(shape[2]), c = int(shape[3]);
  const Shape small{shape[0], h / 2, w / 2, c};
  const Tensor x = normals("x", shape, t), dy = normals("dy", small, t), y = poisoned(backward ? shape : small, t);
  Prepared p;
  p.run = [=] {
    if (backward)
      KILN_RUN(Work::pointwise, max_pool_backward(stream, t, shape[0], h, w, c, x.data(), dy.data(), y.data()));
    else
      KILN_RUN(Work::pointwise, max_pool_forward(stream, t, shape[0], h, w, c, x.data(), y.data()));
  };
  p.error = check(y, p.run, [=] {
    return [=, x = on_host(x), d = on_host(dy)](int64_t k) {
      const int64_t side_h = backward ? h : h / 2, side_w = backward ? w : w / 2;
      const int64_t ch = k % c, j = k / c % side_w, i = k / c / side_w % side_h, n = k / c / side_w / side_h;
      const int64_t wi = backward ? i / 2 : i, wj = backward ? j / 2 : j;
      int64_t best = 0;
      double most = -1e300;
      for (int64_t q = 0; q < 4; q++) {
        const int64_t from = ((n * h + 2 * wi + q / 2) * w + 2 * wj + q % 2) * c + ch;
        if (at(x, from) > most) most = at(x, from), best = from;
      }
      if (!backward) return most;
      return best == k ? at(d, ((n * (h / 2) + wi) * (w / 2) + wj) * c + ch) : 0.0;
    };
  });
  return p;
}

// ---- the head ---------------------------------------------------------------------------------------------------------------

Prepared sum_pool(DType t, const Shape& shape, bool backward) {
  const int64_t n = shape[0], pixels = shape[1] * shape[2];
  const int c = int(shape[3]);
  const Tensor x = normals("x", shape, t), dh = normals("dh", Shape{n, c}, t), y = poisoned(backward ? shape : Shape{n, c}, t),
               scratch(Shape{sum_pool_scratch_floats(n, c)}), relu(shape, t), sums(Shape{n, c});
  Prepared p;
  if (backward) {
    p.run = [=] { KILN_RUN(Work::pointwise, relu_sum_pool_backward(stream, t, n, pixels, c, x.data(), dh.data(), y.data())); };
    p.error = check(y, p.run, [=] {
      return [=, x = on_host(x), d = on_host(dh)](int64_t i) { return at(x, i) > 0 ? at(d, i / (pixels * c) * c + i % c) : 0.0; };
    });
    return p;
  }
  p.run = [=] { KILN_RUN(Work::reduction, relu_sum_pool_forward(stream, t, n, pixels, c, x.data(), y.data(), scratch.f32())); };
  p.error = check(y, p.run, [=] {
    return [=, x = on_host(x)](int64_t i) {
      double sum = 0;
      for (int64_t q = 0; q < pixels; q++) sum += std::max(0.0, at(x, (i / c * pixels + q) * c + i % c));
      return sum;
    };
  });
  return p;
}

Prepared projection(DType t, int64_t n, int c, int64_t classes, bool backward) {
  const Tensor h = normals("h", Shape{n, c}, t), w = normals("w", Shape{c}, t), embed = normals("embed", Shape{classes, c}, t),
               bias = normals("bias", Shape{1}, DType::f32), labels(Shape{n}, DType::i32);
  std::vector<int32_t> of;
  for (int64_t i = 0; i < n; i++) of.push_back(int32_t(i % classes));
  labels.upload(of.data());
  Prepared p;
  if (backward) {
    const Tensor dl = normals("dl", Shape{n}, DType::f32), dh = poisoned(Shape{n, c}, t), dw = poisoned(Shape{c}), de = poisoned(Shape{classes, c}), db = zeros(Shape{1});
    p.run = [=] {
      KILN_RUN(Work::reduction, projection_backward(stream, t, n, int(classes), c, h.data(), w.data(), embed.data(), labels.as<int32_t>(), dl.f32(),
                                                    dh.data(), dw.f32(), de.f32(), db.f32()));
    };
    p.error = check(dh, p.run, [=] {
      return [=, w = on_host(w), e = on_host(embed), d = on_host(dl)](int64_t i) { return at(d, i / c) * (at(w, i % c) + at(e, of[size_t(i / c)] * c + i % c)); };
    });
    return p;
  }
  const Tensor y = poisoned(Shape{n}), scratch(Shape{projection_scratch_floats(n)});
  p.run = [=] {
    KILN_RUN(Work::reduction, projection_forward(stream, t, n, c, h.data(), w.data(), bias.f32(), embed.data(), labels.as<int32_t>(), y.f32(), scratch.f32()));
  };
  p.error = [=, run = p.run] {
    poison(y);
    run();
    const Numbers hs = on_host(h), ws = on_host(w), e = on_host(embed), got = on_host(y);
    Comparison compare(DType::f32);
    for (int64_t i = 0; i < n; i++) {
      double sum = double(bias.item()), size = std::fabs(sum);
      for (int64_t k = 0; k < c; k++) {
        const double term = at(hs, i * c + k) * (at(ws, k) + at(e, of[size_t(i)] * c + k));
        sum += term;
        size += std::fabs(term);
      }
      compare.add(at(got, i) + size, sum + size);
    }
    return compare.error();
  };
  return p;
}

Prepared gram(int n) {
  const Tensor start = normals("g", Shape{n, n}, DType::f32), g(Shape{n, n});
  Prepared p;
  p.run = [=] { KILN_RUN(Work::pointwise, gram_residual(stream, n, true, 1.f, nullptr, g.f32())); };
  p.error = [=, run = p.run] {
    copy(start, g);
    run();
    Comparison c(DType::f32);
    c.add(g, [n, x = on_host(start)](int64_t i) { return i / n == i % n ? 0.0 : at(x, i); });
    return c.error();
  };
  return p;
}

}  // namespace

void add_biggan_cases(std::vector<Case>& cases, const Scale& s, DType t) {
  if (s.size > 256) return;  // BigGAN 128's are in the list of 256
  const auto add = [&](const std::string& name, const std::string& shape, std::function<Prepared()> f) { cases.push_back({name, shape, t, std::move(f)}); };
  const int64_t n = s.batch, side = std::min(s.size, 128), w = s.width;
  const Shape last{n, side, side, w}, half{n, side / 2, side / 2, 2 * w}, pool{n, side / 2, side / 2, w}, deepest{2 * n, 4, 4, 16 * w};
  add("cond_norm_forward_relu", last.text(), [=] { return conditional_forward(t, last); });
  add("cond_norm_backward_relu", last.text(), [=] { return conditional_backward(t, last); });
  add("bias_relu_forward", last.text(), [=] { return bias_relu(t, last, false); });
  add("bias_relu_backward", last.text(), [=] { return bias_relu(t, last, true); });
  add("residual_sum_up", last.text(), [=] { return residual(t, last, true); });
  add("residual_sum", half.text(), [=] { return residual(t, half, false); });
  add("conv3x3_pool", last.text() + " to " + std::to_string(w), [=] { return pooled_convolution(t, last, w); });
  add("self_attention", half.with(-1, w / 4).text(), [=] { return self_attention(t, half.with(-1, w / 4), w); });
  const int64_t queries = side * side / 4;
  add("softmax_forward", Shape{queries, queries / 4}.text(), [=] { return softmax(t, queries, int(queries / 4), false); });
  add("softmax_backward", Shape{queries, queries / 4}.text(), [=] { return softmax(t, queries, int(queries / 4), true); });
  add("gamma_sum_forward", half.text(), [=] { return gamma_sum_case(t, half, false); });
  add("gamma_sum_backward", half.text(), [=] { return gamma_sum_case(t, half, true); });
  add("max_pool2x2_forward", pool.text(), [=] { return pooled(t, pool, false); });
  add("max_pool2x2_backward", pool.text(), [=] { return pooled(t, pool, true); });
  add("relu_sum_pool_forward", deepest.text(), [=] { return sum_pool(t, deepest, false); });
  add("relu_sum_pool_backward", deepest.text(), [=] { return sum_pool(t, deepest, true); });
  add("projection_forward", Shape{2 * n, 16 * w}.text(), [=] { return projection(t, 2 * n, int(16 * w), 10, false); });
  add("projection_backward", Shape{2 * n, 16 * w}.text(), [=] { return projection(t, 2 * n, int(16 * w), 10, true); });
  if (t != DType::f32) return;
  add("adjoint_weights", Shape{16 * w, 3, 3, 16 * w}.text(), [=] { return adjoint_of_weights(int(16 * w), int(16 * w)); });
  add("gram_residual", Shape{16 * w, 16 * w}.text(), [=] { return gram(int(16 * w)); });
}

}  // namespace kiln::bench
