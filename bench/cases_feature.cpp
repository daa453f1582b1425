// What trained feature networks need beside convolutions - bias and rectifier, pooling, padding, resizing, LPIPS's distance - at 128
// pixels, as FID, KID and a perceptual loss meet them.
#include <algorithm>
#include <cmath>

#include "bench/case_tools.h"
#include "kernels/activation.h"
#include "kernels/bias.h"
#include "kernels/feature.h"
#include "kernels/perceptual.h"
#include "kernels/pointwise.h"

namespace kiln::bench {
namespace {

Prepared affine(DType t, const Shape& shape, bool backward) {
  const int c = int(shape[3]);
  const int64_t rows = shape.rows();
  const Tensor x = normals("x", shape, t), dy = normals("dy", shape, t), a = normals("a", Shape{c}, DType::f32), b = normals("b", Shape{c}, DType::f32),
               y = poisoned(shape, t), scaled(shape, t);
  Prepared p;
  if (backward) {
    p.run = [=] { KILN_RUN(Work::pointwise, affine_activation_backward(stream, t, rows, c, x.data(), a.f32(), 0.f, dy.data(), y.data())); };
    p.error = check(y, p.run, [=] {
      return [=, x = on_host(x), d = on_host(dy), a = on_host(a)](int64_t i) { return at(x, i) > 0 ? at(d, i) * at(a, i % c) : 0.0; };
    });
    return p;
  }
  p.run = [=] { KILN_RUN(Work::pointwise, affine_activation(stream, t, rows, c, x.data(), a.f32(), b.f32(), 0.f, y.data())); };
  p.unfused = [=] {
    KILN_RUN(Work::pointwise, affine_activation(stream, t, rows, c, x.data(), a.f32(), b.f32(), 1.f, scaled.data()));
    KILN_RUN(Work::pointwise, activation_forward(stream, t, Activation::relu, x.count(), scaled.data(), y.data()));
  };
  p.error = check(y, p.run, [=] {
    return [=, x = on_host(x), a = on_host(a), b = on_host(b)](int64_t i) { return std::max(0.0, at(a, i % c) * at(x, i) + at(b, i % c)); };
  });
  return p;
}

enum class Pool { largest, largest_adjoint, mean };

/// Windows of k x k, all inside the picture where they are largest values of (AlexNet's, SqueezeNet's), padded where they are means
/// (Inception's).
Prepared pool(DType t, const PoolShape& s, Pool which) {
  const Shape large{s.n, s.h, s.w, s.c}, small{s.n, s.out_h, s.out_w, s.c};
  const Tensor x = normals("x", large, t), dy = normals("dy", small, t), y = poisoned(which == Pool::largest_adjoint ? large : small, t);
  Prepared p;
  p.run = [=] {
    switch (which) {
      case Pool::largest: KILN_RUN(Work::pointwise, max_pool_forward(stream, t, s, x.data(), y.data())); break;
      case Pool::largest_adjoint: KILN_RUN(Work::pointwise, max_pool_backward(stream, t, s, x.data(), dy.data(), y.data())); break;
      case Pool::mean: KILN_RUN(Work::pointwise, average_pool(stream, t, s, x.data(), y.data())); break;
    }
  };
  p.error = check(y, p.run, [=] {
    return [=, x = on_host(x), d = on_host(dy)](int64_t k) {
      const int64_t c = k % s.c, sides_w = y.shape()[2], sides_h = y.shape()[1], j = k / s.c % sides_w, i = k / s.c / sides_w % sides_h,
                    n = k / s.c / sides_w / sides_h;
      /// The window's first largest element, its sum, and how many elements it has.
      struct Window {
        int64_t best = -1;
        double sum = 0;
        int count = 0;
      };
      const auto window = [&](int64_t oi, int64_t oj) {
        Window v;
        for (int64_t a = oi * s.stride - s.pad; a < oi * s.stride - s.pad + s.k; a++)
          for (int64_t b = oj * s.stride - s.pad; b < oj * s.stride - s.pad + s.k; b++) {
            if (a < 0 || b < 0 || a >= s.h || b >= s.w) continue;
            const int64_t from = ((n * s.h + a) * s.w + b) * s.c + c;
            v.sum += at(x, from);
            v.count++;
            if (v.best < 0 || at(x, from) > at(x, v.best)) v.best = from;
          }
        return v;
      };
      if (which == Pool::largest) return at(x, window(i, j).best);
      if (which == Pool::mean) return window(i, j).sum / window(i, j).count;
      double sum = 0;
      for (int64_t oi = std::max<int64_t>(0, (i + s.pad - s.k + s.stride) / s.stride); oi < s.out_h && oi * s.stride - s.pad <= i; oi++)
        for (int64_t oj = std::max<int64_t>(0, (j + s.pad - s.k + s.stride) / s.stride); oj < s.out_w && oj * s.stride - s.pad <= j; oj++)
          if (window(oi, oj).best == k) sum += at(d, ((n * s.out_h + oi) * s.out_w + oj) * s.c + c);
      return sum;
    };
  });
  return p;
}

Prepared padded(DType t, const PlaceShape& s) {
  const Tensor x = normals("x", Shape{s.n, s.h, s.w, s.c}, t), y = poisoned(Shape{s.n, s.out_h, s.out_w, s.c}, t);
  Prepared p;
  p.run = [=] { KILN_RUN(Work::pointwise, place(stream, t, s, x.data(), y.data())); };
  p.error = check(y, p.run, [=] {
    return [=, x = on_host(x)](int64_t k) {
      const int64_t c = k % s.c, j = k / s.c % s.out_w - s.left, i = k / s.c / s.out_w % s.out_h - s.top, n = k / s.c / s.out_w / s.out_h;
      return i < 0 || j < 0 || i >= s.h || j >= s.w ? 0.0 : at(x, ((n * s.h + i) * s.w + j) * s.c + c);
    };
  });
  return p;
}

Prepared resized(DType t, const PlaceShape& s) {
  const Tensor x = normals("x", Shape{s.n, s.h, s.w, s.c}, t), y = poisoned(Shape{s.n, s.out_h, s.out_w, s.c}, t);
  Prepared p;
  p.run = [=] { KILN_RUN(Work::pointwise, bilinear(stream, t, s, x.data(), y.data())); };
  p.error = check(y, p.run, [=] {
    return [=, x = on_host(x)](int64_t k) {
      const int64_t c = k % s.c, j = k / s.c % s.out_w, i = k / s.c / s.out_w % s.out_h, n = k / s.c / s.out_w / s.out_h;
      const auto source = [](int64_t o, int64_t in, int64_t out) { return std::max(0.0, (double(o) + 0.5) * double(in) / double(out) - 0.5); };
      const double u = source(i, s.h, s.out_h), v = source(j, s.w, s.out_w);
      const auto get = [&](double a, double b) {
        return at(x, ((n * s.h + std::min<int64_t>(int64_t(a), s.h - 1)) * s.w + std::min<int64_t>(int64_t(b), s.w - 1)) * s.c + c);
      };
      const double fu = u - std::floor(u), fv = v - std::floor(v);
      return (1 - fu) * ((1 - fv) * get(u, v) + fv * get(u, v + 1)) + fu * ((1 - fv) * get(u + 1, v) + fv * get(u + 1, v + 1));
    };
  });
  return p;
}

Prepared joined(DType t, int64_t rows, int cx, int cy, int first) {
  const Tensor x = normals("x", Shape{rows, cx}, t), y = poisoned(Shape{rows, cy}, t);
  Prepared p;
  p.run = [=] { KILN_RUN(Work::pointwise, copy_channels(stream, t, rows, cx, cy, first, x.data(), y.data())); };
  p.error = [=, run = p.run] {
    poison(y);
    run();
    const Numbers from = on_host(x), got = on_host(y);
    Comparison c(t);
    for (int64_t i = 0; i < rows * cx; i += 1 + rows * cx / 4096) c.add(at(got, i / cx * cy + first + i % cx), at(from, i));
    return c.error();
  };
  return p;
}

Prepared distance(DType t, const Shape& shape, bool backward) {
  const int64_t n = shape[0], pixels = shape[1] * shape[2];
  const int c = int(shape[3]);
  const Tensor f = normals("f", shape, t), g = normals("g", shape, t), head = uniforms("head", Shape{c}), y = poisoned(backward ? shape : Shape{n}, backward ? t : DType::f32),
               seed = normals("seed", Shape{n}, DType::f32), scratch(Shape{perceptual_scratch_floats(n, pixels)});
  /// Lengths of a pixel's features, f and g.
  const auto length = [c](const Numbers& x, int64_t pixel) {
    double sum = 0;
    for (int64_t k = 0; k < c; k++) sum += at(x, pixel * c + k) * at(x, pixel * c + k);
    return std::sqrt(sum);
  };
  Prepared p;
  if (backward) {
    p.run = [=] { KILN_RUN(Work::pointwise, perceptual_backward(stream, t, n, pixels, c, f.data(), g.data(), head.f32(), seed.f32(), y.data())); };
    p.error = check(y, p.run, [=] {
      return [=, f = on_host(f), g = on_host(g), h = on_host(head), s = on_host(seed)](int64_t i) {
        const int64_t pixel = i / c, k = i % c;
        const double lf = length(f, pixel), lg = length(g, pixel);
        double inner = 0;  // of the difference's gradient with f
        for (int64_t q = 0; q < c; q++)
          inner += 2 * at(h, q) * (at(f, pixel * c + q) / lf - at(g, pixel * c + q) / lg) * at(f, pixel * c + q) / lf;
        const double own = 2 * at(h, k) * (at(f, i) / lf - at(g, i) / lg);
        return at(s, pixel / pixels) / double(pixels) * (own - inner * at(f, i) / lf) / lf;
      };
    });
    return p;
  }
  p.run = [=] {
    KILN_RUN(Work::reduction, perceptual_forward(stream, t, n, pixels, c, f.data(), g.data(), head.f32(), y.f32(), scratch.f32()));
  };
  p.error = check(y, p.run, [=] {
    return [=, f = on_host(f), g = on_host(g), h = on_host(head)](int64_t i) {
      double sum = 0;
      for (int64_t pixel = i * pixels; pixel < (i + 1) * pixels; pixel++) {
        const double lf = length(f, pixel), lg = length(g, pixel);
        for (int64_t k = 0; k < c; k++) {
          const double d = at(f, pixel * c + k) / lf - at(g, pixel * c + k) / lg;
          sum += at(h, k) * d * d;
        }
      }
      return sum / double(pixels);
    };
  });
  return p;
}

}  // namespace

void add_feature_cases(std::vector<Case>& cases, const Scale& s, DType t) {
  if (s.size > 256) return;  // a feature network's are in the list of 256
  const auto add = [&](const std::string& name, const std::string& shape, std::function<Prepared()> f) { cases.push_back({name, shape, t, std::move(f)}); };
  const int side = std::min(s.size, 128), n = int(s.batch), w = s.width, third = (side - 3) / 2 + 1;
  const Shape map{n, side, side, w};
  add("affine_relu_forward", map.text(), [=] { return affine(t, map, false); });
  add("affine_relu_backward", map.text(), [=] { return affine(t, map, true); });
  const PoolShape largest{n, side, side, third, third, w, 3, 2, 0}, mean{n, side / 4, side / 4, side / 4, side / 4, w, 3, 1, 1};
  add("max_pool3x3_forward", map.text(), [=] { return pool(t, largest, Pool::largest); });
  add("max_pool3x3_backward", map.text(), [=] { return pool(t, largest, Pool::largest_adjoint); });
  add("average_pool3x3", Shape{n, mean.h, mean.w, w}.text(), [=] { return pool(t, mean, Pool::mean); });
  add("place", Shape{n, side - 2, side - 2, w}.text(), [=] { return padded(t, PlaceShape{n, side - 2, side - 2, side, side, w, 1, 1}); });
  const int large = 299 * side / 128;
  add("bilinear", Shape{n, side, side, 3}.text() + " to " + std::to_string(large), [=] { return resized(t, PlaceShape{n, side, side, large, large, 3, 0, 0}); });
  add("copy_channels", Shape{int64_t(n) * mean.h * mean.w, w}.text(), [=] { return joined(t, int64_t(n) * mean.h * mean.w, w, 2 * w, w); });
  add("perceptual_forward", map.text(), [=] { return distance(t, map, false); });
  add("perceptual_backward", map.text(), [=] { return distance(t, map, true); });
}

}  // namespace kiln::bench
