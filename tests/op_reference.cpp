#include "tests/op_reference.h"

#include <cmath>
#include <limits>

#include "tests/support.h"

namespace kiln::test {

Array random_array(const std::string& name, const Shape& shape, double scale) {
  std::vector<float> v = hashed_signed(name, shape.count());
  for (float& x : v) x *= float(scale);
  return Array(shape, v);
}

Tensor to_tensor(const Array& a) { return from_vector(a.shape, std::vector<float>(a.v.begin(), a.v.end())); }
Array to_array(const Tensor& t) { return Array(t.shape(), t.to_vector()); }

double relative_error(const Array& a, const Array& b) {
  if (a.v.size() != b.v.size()) return std::numeric_limits<double>::infinity();
  double worst = 0, scale = 1e-30;
  for (size_t i = 0; i < a.v.size(); i++) {
    const double d = std::abs(a.v[i] - b.v[i]);
    worst = d > worst || d != d ? d : worst;
    scale = std::max(scale, std::abs(b.v[i]));
  }
  return worst / scale;
}

namespace reference {

Array conv2d(const Array& x, const Array& w, int stride, int pad) {
  const int64_t h = x.shape[1], width = x.shape[2], kh = w.shape[1], kw = w.shape[2];
  Array y(Shape{x.shape[0], (h + 2 * pad - kh) / stride + 1, (width + 2 * pad - kw) / stride + 1, w.shape[0]});
  for (int64_t n = 0; n < y.shape[0]; n++)
    for (int64_t i = 0; i < y.shape[1]; i++)
      for (int64_t j = 0; j < y.shape[2]; j++)
        for (int64_t o = 0; o < y.shape[3]; o++)
          for (int64_t a = 0; a < kh; a++)
            for (int64_t b = 0; b < kw; b++) {
              const int64_t p = i * stride + a - pad, q = j * stride + b - pad;
              if (p < 0 || p >= h || q < 0 || q >= width) continue;
              for (int64_t c = 0; c < x.shape[3]; c++) y.at(n, i, j, o) += x.at(n, p, q, c) * w.at(o, a, b, c);
            }
  return y;
}

Array conv_transpose2d(const Array& x, const Array& w, int stride, int pad) {
  const int64_t kh = w.shape[1], kw = w.shape[2];
  Array y(Shape{x.shape[0], (x.shape[1] - 1) * stride - 2 * pad + kh, (x.shape[2] - 1) * stride - 2 * pad + kw,
                w.shape[0]});
  for (int64_t n = 0; n < x.shape[0]; n++)
    for (int64_t i = 0; i < x.shape[1]; i++)
      for (int64_t j = 0; j < x.shape[2]; j++)
        for (int64_t a = 0; a < kh; a++)
          for (int64_t b = 0; b < kw; b++) {
            const int64_t p = i * stride + a - pad, q = j * stride + b - pad;
            if (p < 0 || p >= y.shape[1] || q < 0 || q >= y.shape[2]) continue;
            for (int64_t o = 0; o < w.shape[0]; o++)
              for (int64_t c = 0; c < x.shape[3]; c++) y.at(n, p, q, o) += x.at(n, i, j, c) * w.at(o, a, b, c);
          }
  return y;
}

Array project(const Array& z, const Array& w) {
  Array x(Shape{z.shape[0], 1, 1, z.shape[1]});
  x.v = z.v;
  return conv_transpose2d(x, w, 1, 0);
}

Statistics statistics(const Array& x) {
  const size_t c = size_t(x.shape[-1]);
  const double rows = double(x.shape.rows());
  Statistics s{std::vector<double>(c), std::vector<double>(c)};
  for (size_t i = 0; i < x.v.size(); i++) s.mean[i % c] += x.v[i] / rows;
  for (size_t i = 0; i < x.v.size(); i++) s.variance[i % c] += std::pow(x.v[i] - s.mean[i % c], 2) / rows;
  return s;
}

Array batch_norm(const Array& x, const Array& gamma, const Array& beta, const Statistics& s) {
  Array y(x.shape);
  const size_t c = size_t(x.shape[-1]);
  for (size_t i = 0; i < x.v.size(); i++) {
    const size_t k = i % c;
    y.v[i] = (x.v[i] - s.mean[k]) / std::sqrt(s.variance[k] + double(1e-5f)) * gamma.v[k] + beta.v[k];
  }
  return y;
}

Array inject_noise(const Array& x, double weight, const std::vector<double>& noise) {
  Array y = x;
  const size_t c = size_t(x.shape[-1]);
  for (size_t i = 0; i < y.v.size(); i++) y.v[i] += weight * noise[i / c];
  return y;
}

static double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

Array activation(const Array& x, Activation act) {
  Array y = x;
  for (double& t : y.v) switch (act) {
      case Activation::none: break;
      case Activation::relu: t = t > 0 ? t : 0; break;
      case Activation::leaky_relu: t = t > 0 ? t : double(0.2f) * t; break;
      case Activation::swish: t = t * sigmoid(t); break;
      case Activation::sigmoid: t = sigmoid(t); break;
      case Activation::tanh: t = std::tanh(t); break;
    }
  return y;
}

Array glu(const Array& x) {
  const int64_t h = x.shape[-1] / 2, rows = x.shape.rows();
  Array y(x.shape.with(-1, h));
  for (int64_t r = 0; r < rows; r++)
    for (int64_t k = 0; k < h; k++)
      y.v[size_t(r * h + k)] = x.v[size_t(r * 2 * h + k)] * sigmoid(x.v[size_t(r * 2 * h + h + k)]);
  return y;
}

Array combine(double a, const Array& x, double b, const Array& y) {
  Array z(x.shape);
  for (size_t i = 0; i < z.v.size(); i++) z.v[i] = a * x.v[i] + b * y.v[i];
  return z;
}

Array gate(const Array& x, const Array& g) {
  Array y(x.shape);
  const int64_t c = x.shape[-1], per = x.count() / x.shape[0];
  for (int64_t i = 0; i < x.count(); i++) y.v[size_t(i)] = x.v[size_t(i)] * g.v[size_t(i / per * c + i % c)];
  return y;
}

Array concat_flat(const Array& a, const Array& b) {
  Array y(Shape{a.count() + b.count()});
  y.v = a.v;
  y.v.insert(y.v.end(), b.v.begin(), b.v.end());
  return y;
}

Array nearest_resize(const Array& x, int64_t h, int64_t w) {
  Array y(Shape{x.shape[0], h, w, x.shape[3]});
  for (int64_t n = 0; n < y.shape[0]; n++)
    for (int64_t i = 0; i < h; i++)
      for (int64_t j = 0; j < w; j++)
        for (int64_t c = 0; c < y.shape[3]; c++) y.at(n, i, j, c) = x.at(n, i * x.shape[1] / h, j * x.shape[2] / w, c);
  return y;
}

Array area_resize(const Array& x, int64_t h, int64_t w) {
  Array y(Shape{x.shape[0], h, w, x.shape[3]});
  // The pixels that overlap [i in / out, (i + 1) in / out), each counted whole.
  const auto first = [](int64_t i, int64_t in, int64_t out) {
    return int64_t(std::floor(double(i * in) / double(out)));
  };
  const auto last = [](int64_t i, int64_t in, int64_t out) {
    return int64_t(std::ceil(double((i + 1) * in) / double(out)));
  };
  for (int64_t n = 0; n < y.shape[0]; n++)
    for (int64_t i = 0; i < h; i++)
      for (int64_t j = 0; j < w; j++)
        for (int64_t c = 0; c < y.shape[3]; c++) {
          double sum = 0;
          int64_t pixels = 0;
          for (int64_t p = first(i, x.shape[1], h); p < last(i, x.shape[1], h); p++)
            for (int64_t q = first(j, x.shape[2], w); q < last(j, x.shape[2], w); q++, pixels++)
              sum += x.at(n, p, q, c);
          y.at(n, i, j, c) = sum / double(pixels);
        }
  return y;
}

Array corner_crop(const Array& x, int64_t h, int64_t w, int corner) {
  Array y(Shape{x.shape[0], h, w, x.shape[3]});
  const bool bottom = corner == 2 || corner == 3, right = corner == 1 || corner == 3;
  for (int64_t n = 0; n < y.shape[0]; n++)
    for (int64_t i = 0; i < h; i++)
      for (int64_t j = 0; j < w; j++)
        for (int64_t c = 0; c < y.shape[3]; c++)
          y.at(n, i, j, c) = x.at(n, bottom ? x.shape[1] - h + i : i, right ? x.shape[2] - w + j : j, c);
  return y;
}

Array mean(const Array& x) {
  Array y(Shape{1});
  for (double t : x.v) y.v[0] += t / double(x.v.size());
  return y;
}

Array hinge_loss(const Array& logits, double sign, double margin_low, const std::vector<double>* uniforms) {
  Array y = logits;
  for (size_t i = 0; i < y.v.size(); i++) {
    const double margin = uniforms ? margin_low + (1 - margin_low) * (*uniforms)[i] : 1;
    y.v[i] = std::max(0.0, margin - sign * logits.v[i]);
  }
  return mean(y);
}

Array difference_loss(const Array& x, const Array& target, int power) {
  Array y(Shape{1});
  const double per = double(x.count()) / double(x.shape[0]);
  for (size_t i = 0; i < x.v.size(); i++) y.v[0] += std::pow(std::abs(x.v[i] - target.v[i]), power) / per;
  return y;
}

static int64_t shift_of(double u, int64_t size) {
  const int64_t s = int64_t(std::floor(double(size) / 8 + 0.5));
  return int64_t(std::floor(u * double(2 * s + 1))) - s;
}

/// Is line or column i cut?
static bool in_cut(double u, int64_t size, int64_t i) {
  const int64_t c = int64_t(std::floor(double(size) / 2 + 0.5));
  const int64_t q = int64_t(std::floor(u * double(size + (c % 2 == 0 ? 1 : 0))));
  return q - c / 2 <= i && i < q - c / 2 + c;
}

Array augment(const Array& x, const AugmentPolicy& policy, const std::vector<double>& uniforms) {
  const int64_t h = x.shape[1], w = x.shape[2];
  Array t = x, y(x.shape);
  for (int64_t n = 0; n < x.shape[0]; n++) {
    const double* u = uniforms.data() + n * 7;
    const auto each_pixel = [&](auto f) {
      for (int64_t i = 0; i < h; i++)
        for (int64_t j = 0; j < w; j++) f(i, j);
    };
    if (policy.color) {
      double whole = 0;
      each_pixel([&](int64_t i, int64_t j) {
        double grey = 0;
        for (int c = 0; c < 3; c++) grey += (t.at(n, i, j, c) += u[0] - 0.5) / 3;
        for (int c = 0; c < 3; c++) {
          t.at(n, i, j, c) = (t.at(n, i, j, c) - grey) * 2 * u[1] + grey;
          whole += t.at(n, i, j, c) / double(3 * h * w);
        }
      });
      each_pixel([&](int64_t i, int64_t j) {
        for (int c = 0; c < 3; c++) t.at(n, i, j, c) = (t.at(n, i, j, c) - whole) * (u[2] + 0.5) + whole;
      });
    }
    const int64_t dy = policy.translation ? shift_of(u[3], h) : 0, dx = policy.translation ? shift_of(u[4], w) : 0;
    each_pixel([&](int64_t i, int64_t j) {
      const bool inside = i + dy >= 0 && i + dy < h && j + dx >= 0 && j + dx < w;
      const bool cut = policy.cutout && in_cut(u[5], h, i) && in_cut(u[6], w, j);
      for (int c = 0; c < 3; c++) y.at(n, i, j, c) = inside && !cut ? t.at(n, i + dy, j + dx, c) : 0;
    });
  }
  return y;
}

Array gather(const std::vector<uint8_t>& set, int64_t h, int64_t w, const std::vector<int32_t>& index,
             const std::vector<bool>& flip) {
  Array y(Shape{int64_t(index.size()), h, w, 3});
  for (int64_t n = 0; n < y.shape[0]; n++)
    for (int64_t i = 0; i < h; i++)
      for (int64_t j = 0; j < w; j++)
        for (int64_t c = 0; c < 3; c++) {
          const int64_t from = flip[size_t(n)] ? w - 1 - j : j;
          y.at(n, i, j, c) = set[size_t(((index[size_t(n)] * h + i) * w + from) * 3 + c)] / 127.5 - 1;
        }
  return y;
}

}  // namespace reference
}  // namespace kiln::test
