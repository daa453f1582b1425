// Activations, the skip-layer gate, changes of size, losses and sums of tensors, against plain loops in double precision.
#include <algorithm>
#include <cmath>
#include <memory>

#include "bench/case_tools.h"
#include "bench/composition.h"
#include "kernels/activation.h"
#include "kernels/gate.h"
#include "kernels/loss.h"
#include "kernels/pointwise.h"
#include "kernels/resize.h"
#include "models/fastgan.h"

namespace kiln::bench {
namespace {

double logistic(double x) { return 1 / (1 + std::exp(-x)); }

Prepared activation(DType t, const Shape& s, Activation act, bool backward) {
  const Tensor x = normals("x", s, t), dy = backward ? normals("dy", s, t) : Tensor(), y = poisoned(s, t);
  const bool leaky = act == Activation::leaky_relu;
  Prepared p;
  if (backward) {
    p.run = [=] { KILN_RUN(Work::pointwise, activation_backward(stream, t, act, x.count(), x.data(), dy.data(), y.data())); };
    p.error = check(y, p.run, [=] {
      return [=, x = on_host(x), dy = on_host(dy)](int64_t i) {
        const double v = at(x, i);  // of tanh it is the output
        return at(dy, i) * (leaky ? (v > 0 ? 1 : double(kLeakySlope)) : 1 - v * v);
      };
    });
  } else {
    p.run = [=] { KILN_RUN(Work::pointwise, activation_forward(stream, t, act, x.count(), x.data(), y.data())); };
    p.error = check(y, p.run, [=] {
      return [=, x = on_host(x)](int64_t i) {
        const double v = at(x, i);
        return leaky ? (v > 0 ? v : double(kLeakySlope) * v) : std::tanh(v);
      };
    });
  }
  return p;
}

Prepared glu(DType t, const Shape& s, bool backward) {
  const int h = int(s[3] / 2);
  const int64_t rows = s.rows();
  const Tensor x = normals("x", s, t), dy = backward ? normals("dy", s.with(-1, h), t) : Tensor();
  const Tensor y = poisoned(backward ? s : s.with(-1, h), t);
  Prepared p;
  if (backward) {
    p.run = [=] { KILN_RUN(Work::pointwise, glu_backward(stream, t, rows, h, x.data(), dy.data(), y.data())); };
    p.error = check(y, p.run, [=] {
      return [=, x = on_host(x), dy = on_host(dy)](int64_t i) {
        const int64_t r = i / (2 * h), c = i % h;
        const double u = at(x, r * 2 * h + c), g = logistic(at(x, r * 2 * h + h + c)), d = at(dy, r * h + c);
        return i % (2 * h) < h ? d * g : d * u * g * (1 - g);
      };
    });
  } else {
    p.run = [=] { KILN_RUN(Work::pointwise, glu_forward(stream, t, rows, h, x.data(), y.data())); };
    p.error = check(y, p.run, [=] {
      return [=, x = on_host(x)](int64_t i) {
        const int64_t r = i / h, c = i % h;
        return at(x, r * 2 * h + c) * logistic(at(x, r * 2 * h + h + c));
      };
    });
  }
  return p;
}

Prepared gate(DType t, const Shape& s, bool backward) {
  const int64_t n = s[0], pixels = s[1] * s[2];
  const int c = int(s[3]);
  const Tensor x = normals("x", s, t), g = normals("g", Shape{n, 1, 1, c}, t), y = poisoned(s, t);
  const Tensor spread(s, t);  // the gate at every pixel, as an unfused product needs it
  const ResizeShape grow{n, 1, 1, int(s[1]), int(s[2]), c};
  Prepared p;
  if (!backward) {
    p.run = [=] { KILN_RUN(Work::pointwise, gate_forward(stream, t, n, pixels, c, x.data(), g.data(), y.data())); };
    p.unfused = [=] {
      KILN_RUN(Work::pointwise, nearest_forward(stream, t, grow, g.data(), spread.data()));
      KILN_RUN(Work::pointwise, multiply(stream, t, x.count(), x.data(), spread.data(), y.data()));
    };
    p.error = check(y, p.run, [=] {
      return [=, x = on_host(x), g = on_host(g)](int64_t i) { return at(x, i) * at(g, i / (pixels * c) * c + i % c); };
    });
    return p;
  }
  const Tensor dy = normals("dy", s, t), dg = poisoned(Shape{n, c}), scratch(Shape{gate_scratch_floats(n, c)});
  p.run = [=] {
    KILN_RUN(Work::reduction, gate_backward(stream, t, n, pixels, c, x.data(), g.data(), dy.data(), y.data(), dg.f32(), scratch.f32()));
  };
  p.unfused = [=] {
    KILN_RUN(Work::pointwise, nearest_forward(stream, t, grow, g.data(), spread.data()));
    KILN_RUN(Work::pointwise, multiply(stream, t, x.count(), dy.data(), spread.data(), y.data()));
    KILN_RUN(Work::pointwise, multiply(stream, t, x.count(), dy.data(), x.data(), spread.data()));
    KILN_RUN(Work::reduction, sum_pixels(stream, t, n, pixels, c, spread.data(), dg.f32(), scratch.f32()));
  };
  p.error = [=, run = p.run] {
    poison(dg);
    poison(y);
    run();
    const Numbers xs = on_host(x), gs = on_host(g), d = on_host(dy);
    Comparison dx(t), sums(DType::f32);
    dx.add(y, [&](int64_t i) { return at(d, i) * at(gs, i / (pixels * c) * c + i % c); });
    const std::vector<float> got = dg.to_vector();
    for (int64_t k = 0; k < n * c; k++) {
      double sum = 0, size = 0;
      for (int64_t q = 0; q < pixels; q++) {
        const int64_t i = (k / c * pixels + q) * c + k % c;
        sum += at(d, i) * at(xs, i);
        size += std::fabs(at(d, i) * at(xs, i));
      }
      sums.add(double(got[size_t(k)]) + size, sum + size);  // against the size of what was added
    }
    return std::max(dx.error(), sums.error());
  };
  return p;
}

enum class Size { nearest, nearest_adjoint, area, area_adjoint };

/// Windows divide evenly at all of FastGAN's sizes.
Prepared resize(DType t, const ResizeShape& s, Size which) {
  const bool adjoint = which == Size::nearest_adjoint || which == Size::area_adjoint;
  const Shape large{s.n, s.h, s.w, s.c}, small{s.n, s.out_h, s.out_w, s.c};
  const Tensor x = normals("x", adjoint ? small : large, t), y = poisoned(adjoint ? large : small, t);
  Prepared p;
  p.run = [=] {
    switch (which) {
      case Size::nearest: KILN_RUN(Work::pointwise, nearest_forward(stream, t, s, x.data(), y.data())); break;
      case Size::nearest_adjoint: KILN_RUN(Work::pointwise, nearest_backward(stream, t, s, x.data(), y.data())); break;
      case Size::area: KILN_RUN(Work::pointwise, area_forward(stream, t, s, x.data(), y.data())); break;
      case Size::area_adjoint: KILN_RUN(Work::pointwise, area_backward(stream, t, s, x.data(), y.data())); break;
    }
  };
  p.error = check(y, p.run, [=] {
    return [=, x = on_host(x)](int64_t k) {
      const int64_t oh = y.shape()[1], ow = y.shape()[2], ih = adjoint ? s.out_h : s.h, iw = adjoint ? s.out_w : s.w;
      const int64_t c = k % s.c, j = k / s.c % ow, i = k / s.c / ow % oh, n = k / s.c / ow / oh;
      const auto get = [&](int64_t a, int64_t b) { return at(x, ((n * ih + a) * iw + b) * s.c + c); };
      double sum = 0;
      switch (which) {
        case Size::nearest: return get(i * ih / oh, j * iw / ow);
        case Size::nearest_adjoint:  // the pixels that read this one
        case Size::area: {
          const int64_t fy = ih / oh, fx = iw / ow;
          for (int64_t a = 0; a < fy; a++)
            for (int64_t b = 0; b < fx; b++) sum += get(i * fy + a, j * fx + b);
          return which == Size::area ? sum / double(fy * fx) : sum;
        }
        default: {
          const int64_t fy = oh / ih, fx = ow / iw;
          return get(i / fy, j / fx) / double(fy * fx);
        }
      }
    };
  });
  return p;
}

/// The quarter of a map, out_h x out_w, that corner 2 (bottom left) is.
Prepared crop(DType t, const ResizeShape& s, bool adjoint) {
  const Shape large{s.n, s.h, s.w, s.c}, small{s.n, s.out_h, s.out_w, s.c};
  const Tensor x = normals("x", adjoint ? small : large, t), y = poisoned(adjoint ? large : small, t),
               corner(Shape{1}, DType::i32);
  const int32_t bottom_left = 2;
  corner.upload(&bottom_left);
  Prepared p;
  p.run = [=] {
    if (adjoint)
      KILN_RUN(Work::pointwise, corner_crop_backward(stream, t, s, corner.as<int32_t>(), x.data(), y.data()));
    else
      KILN_RUN(Work::pointwise, corner_crop_forward(stream, t, s, corner.as<int32_t>(), x.data(), y.data()));
  };
  p.error = check(y, p.run, [=] {
    return [=, x = on_host(x)](int64_t k) {
      const int64_t oh = y.shape()[1], ow = y.shape()[2], ih = adjoint ? s.out_h : s.h, iw = adjoint ? s.out_w : s.w;
      const int64_t c = k % s.c, j = k / s.c % ow, i = k / s.c / ow % oh, n = k / s.c / ow / oh;
      const int64_t row = adjoint ? i - (s.h - s.out_h) : i + (s.h - s.out_h);
      if (row < 0 || row >= ih || j >= iw) return 0.0;
      return at(x, ((n * ih + row) * iw + j) * s.c + c);
    };
  });
  return p;
}

Prepared combination(DType t, const Shape& s) {
  const Tensor x = normals("x", s, t), y = normals("y", s, t), z = poisoned(s, t);
  Prepared p;
  p.run = [=] { KILN_RUN(Work::pointwise, linear_combination(stream, t, x.count(), 0.5f, x.data(), 0.25f, y.data(), z.data())); };
  p.error = check(z, p.run, [=] { return [x = on_host(x), y = on_host(y)](int64_t i) { return 0.5 * at(x, i) + 0.25 * at(y, i); }; });
  return p;
}

Prepared scaled(DType t, const Shape& s) {
  const Tensor x = normals("x", s, t), y = poisoned(s, t);
  Prepared p;
  p.run = [=] { KILN_RUN(Work::pointwise, scale(stream, t, x.count(), 0.5f, x.data(), y.data())); };
  p.error = check(y, p.run, [=] { return [x = on_host(x)](int64_t i) { return 0.5 * at(x, i); }; });
  return p;
}

Prepared filled(DType t, const Shape& s) {
  const Tensor y = poisoned(s, t);
  Prepared p;
  p.run = [=] { KILN_RUN(Work::pointwise, fill(stream, t, y.count(), 0.5f, y.data())); };
  p.error = check(y, p.run, [] { return [](int64_t) { return 0.5; }; });
  return p;
}

Prepared casting(DType t, const Shape& s) {
  const Tensor x = normals("x", s, DType::f32), y = poisoned(s, t);
  Prepared p;
  p.run = [=] { KILN_RUN(Work::pointwise, cast(stream, DType::f32, t, x.count(), x.data(), y.data())); };
  p.error = check(y, p.run, [=] { return [x = on_host(x)](int64_t i) { return at(x, i); }; });
  return p;
}

Prepared transposed(DType t, int64_t n, int a, int b) {
  const Tensor x = normals("x", Shape{n, a, b}, t), y = poisoned(Shape{n, b, a}, t);
  Prepared p;
  p.run = [=] { KILN_RUN(Work::pointwise, transpose(stream, t, n, a, b, x.data(), y.data())); };
  p.error = check(y, p.run, [=] {
    return [=, x = on_host(x)](int64_t i) { return at(x, i / (int64_t(a) * b) * a * b + i % a * b + i / a % b); };
  });
  return p;
}

Prepared difference(DType t, const Shape& s, bool backward) {
  const int64_t n = s[0], per = s.count() / n;
  const Tensor x = normals("x", s, t), y = normals("y", s, t), value = poisoned(Shape{1}), scratch(Shape{64}), seed = from_vector(Shape{1}, {0.75f});
  const Tensor d(s, t), squares(s, t), sums(Shape{n * s[3]}), more(Shape{gate_scratch_floats(n, int(s[3]))});
  Prepared p;
  if (backward) {
    const Tensor dx = poisoned(s, t);
    p.run = [=] { KILN_RUN(Work::pointwise, difference_backward(stream, t, n, per, 2, x.data(), y.data(), seed.f32(), dx.data())); };
    p.unfused = [=] {
      KILN_RUN(Work::pointwise, linear_combination(stream, t, x.count(), 1.f, x.data(), -1.f, y.data(), d.data()));
      KILN_RUN(Work::pointwise, scale(stream, t, x.count(), 1.5f / float(per), d.data(), dx.data()));
    };
    p.error = check(dx, p.run, [=] {
      return [=, x = on_host(x), y = on_host(y)](int64_t i) { return 1.5 * (at(x, i) - at(y, i)) / double(per); };
    });
    return p;
  }
  p.run = [=] { KILN_RUN(Work::reduction, difference_loss(stream, t, n, per, 2, x.data(), y.data(), value.f32(), scratch.f32())); };
  p.unfused = [=] {
    KILN_RUN(Work::pointwise, linear_combination(stream, t, x.count(), 1.f, x.data(), -1.f, y.data(), d.data()));
    KILN_RUN(Work::pointwise, multiply(stream, t, x.count(), d.data(), d.data(), squares.data()));
    KILN_RUN(Work::reduction, sum_pixels(stream, t, n, s[1] * s[2], int(s[3]), squares.data(), sums.f32(), more.f32()));
    KILN_RUN(Work::reduction, mean_value(stream, DType::f32, sums.count(), 1.f / float(per), sums.data(), value.f32()));
  };
  p.error = [=, run = p.run] {
    poison(value);
    run();
    const Numbers a = on_host(x), b = on_host(y);
    double sum = 0;
    for (int64_t i = 0; i < x.count(); i++) sum += (at(a, i) - at(b, i)) * (at(a, i) - at(b, i));
    Comparison c(DType::f32);
    c.add(double(value.item()), sum / double(per));
    return c.error();
  };
  return p;
}

Prepared hinge(DType t, int64_t n) {
  const Tensor logits = normals("logits", Shape{n}, t), u = uniforms("u", Shape{n}), value = poisoned(Shape{2}), gradient = poisoned(Shape{n});
  Prepared p;
  p.run = [=] {
    KILN_RUN(Work::reduction, hinge_loss(stream, t, n, -1.f, 0.8f, logits.data(), u.f32(), value.f32(), value.f32() + 1, gradient.f32()));
  };
  p.error = [=, run = p.run] {
    poison(value);
    poison(gradient);
    run();
    const Numbers x = on_host(logits), us = on_host(u), got = on_host(gradient), v = on_host(value);
    Comparison c(DType::f32), slopes(DType::f32);
    double loss = 0, mean = 0;
    for (int64_t i = 0; i < n; i++) {
      const double margin = double(0.8f + (1.0f - 0.8f) * (*us)[size_t(i)]), d = margin + at(x, i);
      loss += std::max(0.0, d) / double(n);
      mean += at(x, i) / double(n);
      if (std::fabs(d) > 1e-6) slopes.add(at(got, i), d > 0 ? 1 / double(n) : 0);
    }
    c.add(at(v, 0), loss);
    c.add(1 + at(v, 1), 1 + mean);
    return std::max(c.error(), slopes.error());
  };
  return p;
}

}  // namespace

void add_pointwise_cases(std::vector<Case>& cases, const Scale& s, DType t) {
  const auto add = [&](const std::string& name, const std::string& shape, std::function<Prepared()> f, DType type) {
    cases.push_back({name, shape, type, std::move(f)});
  };
  const int64_t stem_c = fastgan::discriminator_channels(s.size <= 256 ? s.size : s.size / 2, s.width);
  const int stem = s.size <= 256 ? s.size : s.size / 2;
  const Shape map{s.batch, stem, stem, stem_c};
  const Shape picture{s.batch, s.size, s.size, 3};
  add("leaky_relu_forward", map.text(), [=] { return activation(t, map, Activation::leaky_relu, false); }, t);
  add("leaky_relu_backward", map.text(), [=] { return activation(t, map, Activation::leaky_relu, true); }, t);
  add("tanh_forward", picture.text(), [=] { return activation(t, picture, Activation::tanh, false); }, t);
  add("tanh_backward", picture.text(), [=] { return activation(t, picture, Activation::tanh, true); }, t);
  const Shape wide{s.batch, s.size, s.size, 2 * fastgan::generator_channels(s.size, s.width)};
  add("glu_forward", wide.text(), [=] { return glu(t, wide, false); }, t);
  add("glu_backward", wide.text(), [=] { return glu(t, wide, true); }, t);
  const int gated = s.size < 512 ? s.size : 512;
  const Shape gate_map{s.batch, gated, gated, fastgan::generator_channels(gated, s.width)};
  add("gate_forward", gate_map.text(), [=] { return gate(t, gate_map, false); }, t);
  add("gate_backward", gate_map.text(), [=] { return gate(t, gate_map, true); }, t);

  const auto sized = [&](const std::string& name, int from, int to, int64_t c, Size which) {
    const ResizeShape r{s.batch, from, from, to, to, int(c)};
    add(name, Shape{s.batch, from, from, c}.text() + " to " + std::to_string(to), [=] { return resize(t, r, which); }, t);
  };
  const int down = s.size < 256 ? s.size : 256;
  const int64_t down_c = fastgan::discriminator_channels(down, s.width);
  sized("area_forward", down, down / 2, down_c, Size::area);
  sized("area_backward", down, down / 2, down_c, Size::area_adjoint);
  const int up = s.size / 2;
  const int64_t up_c = fastgan::generator_channels(up, s.width);
  sized("upsample_forward", up, s.size, up_c, Size::nearest);
  sized("upsample_backward", up, s.size, up_c, Size::nearest_adjoint);
  sized("nearest_forward", s.size, s.size / 2 < 128 ? s.size / 2 : 128, 3, Size::nearest);

  const auto cropped = [&](const std::string& name, int side, int64_t c, bool adjoint) {
    const ResizeShape r{s.batch, side, side, side / 2, side / 2, int(c)};
    add(
        name, Shape{s.batch, side, side, c}.text() + " to " + std::to_string(side / 2),
        [=] { return crop(t, r, adjoint); }, t);
  };
  cropped("corner_crop_forward", s.size, 3, false);
  cropped("corner_crop_backward", 16, fastgan::discriminator_channels(16, s.width), true);
  add("linear_combination", map.text(), [=] { return combination(t, map); }, t);
  add("scale", map.text(), [=] { return scaled(t, map); }, t);
  add(
      "fill", map.text(), [=] { return filled(t, map); }, t);
  if (t != DType::f32) add("cast", map.text(), [=] { return casting(t, map); }, t);
  const int small = s.size / 2 < 128 ? s.size / 2 : 128;
  const Shape target{s.batch, small, small, 3};
  add("difference_loss", target.text(), [=] { return difference(t, target, false); }, t);
  add("difference_backward", target.text(), [=] { return difference(t, target, true); }, t);
  add("hinge_loss", std::to_string(50 * s.batch), [=] { return hinge(t, 50 * s.batch); }, t);
  const int o = int(2 * fastgan::generator_channels(4, s.width));
  add("transpose", Shape{s.batch, o, 16}.text(), [=] { return transposed(t, s.batch, o, 16); }, t);
}

}  // namespace kiln::bench
