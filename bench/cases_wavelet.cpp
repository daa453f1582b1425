// Wavelet transforms, the convolutions that they are folded into, and 3x3 convolutions to pictures of 3 channels: NSB-GAN's ends.
#include <cmath>

#include "bench/case_tools.h"
#include "engine/convolution.h"
#include "engine/ops.h"
#include "engine/wavelet_conv.h"
#include "kernels/narrow.h"
#include "kernels/pointwise.h"

namespace kiln::bench {
namespace {

/// One level of a transform of pictures and its inverse, beside plain lines in double precision. A picture's line and column are the
/// same map, so a band's number is a sum over the rows of sums over the columns.
Prepared transform(DType t, const Shape& picture, Wavelet w, bool split) {
  const int64_t c = picture[3], h = picture[1], width = picture[2];
  const Shape bands{picture[0], h / 2, width / 2, 4 * c};
  const Tensor x = normals("x", split ? picture : bands, t);
  const auto y = std::make_shared<Tensor>();
  Prepared p;
  p.run = [=] { *y = (split ? wavelet_split(Var(x), w, c) : wavelet_join(Var(x), w, c)).value; };
  p.error = [=, run = p.run] {
    run();
    const Numbers in = on_host(x);
    // The first picture's first channel, line by line.
    std::vector<std::vector<double>> plane(static_cast<size_t>(h), std::vector<double>(size_t(width)));
    const auto at_band = [=](int64_t i, int64_t j) { return ((i / 2) * (width / 2) + j / 2) * 4 * c + (i % 2 + 2 * (j % 2)) * c; };
    for (int64_t i = 0; i < h; i++)
      for (int64_t j = 0; j < width; j++) plane[size_t(i)][size_t(j)] = at(in, split ? (i * width + j) * c : at_band(i, j));
    const auto line = [&](const std::vector<double>& l) { return split ? wavelet_line(w, l) : wavelet_line_inverse(w, l); };
    for (auto& row : plane) row = line(row);
    for (int64_t j = 0; j < width; j++) {
      std::vector<double> column;
      for (const auto& row : plane) column.push_back(row[size_t(j)]);
      column = line(column);
      for (int64_t i = 0; i < h; i++) plane[size_t(i)][size_t(j)] = column[size_t(i)];
    }
    const Numbers got = on_host(*y);
    Comparison all(t);
    for (int64_t i = 0; i < h; i++)
      for (int64_t j = 0; j < width; j++) all.add(at(got, split ? at_band(i, j) : (i * width + j) * c), plane[size_t(i)][size_t(j)]);
    return all.error();
  };
  return p;
}

/// A fused op beside its composition. In f32 they are compared; in 16 bits, where the folded weights are rounded once more, the fused
/// op on the same operands in f32, to what such a rounding can make of a sum.
Prepared folded(DType t, const Tensor& x, const Tensor& w, const std::function<Tensor(const Var&, const Var&)>& fused,
                const std::function<Tensor(const Var&, const Var&)>& plain) {
  const auto y = std::make_shared<Tensor>();
  Prepared p;
  p.run = [=] { *y = fused(Var(x), Var(w)); };
  p.unfused = [=] { *y = plain(Var(x), Var(w)); };
  p.error = [=, run = p.run] {
    run();
    const Tensor got = in_f32(*y), want = plain(Var(in_f32(x)), Var(in_f32(w)));
    if (t == DType::f32) {
      Comparison c(t);
      c.add(got, want);
      return c.error();
    }
    const std::vector<float> a = got.to_vector(), b = want.to_vector();
    double difference = 0, size = 0;
    for (size_t i = 0; i < a.size(); i++) {
      difference += (double(a[i]) - double(b[i])) * (double(a[i]) - double(b[i]));
      size += double(b[i]) * double(b[i]);
    }
    return std::sqrt(difference / size) / (t == DType::f16 ? 0x1p-10 : 0x1p-7);  // a weight's and the result's
  };
  return p;
}

Prepared split_convolution(DType t, const Shape& picture, int64_t oc) {
  const int64_t c = picture[3];
  return folded(t, normals("x", picture, t), normals("w", Shape{oc, 3, 3, 4 * c}, t),
                [](const Var& x, const Var& w) { return wavelet_conv(x, w).value; },
                [c](const Var& x, const Var& w) { return conv2d(wavelet_split(x, Wavelet::haar, c), w, 1, 1).value; });
}

Prepared convolution_join(DType t, const Shape& map, int64_t c) {
  return folded(t, normals("x", map, t), normals("w", Shape{4 * c, 3, 3, map[3]}, t),
                [](const Var& x, const Var& w) { return conv_wavelet_unpacket(x, w, Var()).value; },
                [c](const Var& x, const Var& w) { return wavelet_join(conv2d(x, w, 1, 1), Wavelet::haar, c).value; });
}

/// A convolution to few channels beside the library's.
Prepared to_few(DType t, const Shape& map, int64_t few, bool weights) {
  const NarrowShape s{map[0], int(map[1]), int(map[2]), int(few), int(map[3])};
  const ConvShape library{map[0], map[1], map[2], map[3], map[1], map[2], few, 3, 3, 1, 1};
  const Shape small = map.with(-1, few), kernel{few, 3, 3, map[3]};
  const Tensor x = normals("x", map, t);
  Prepared p;
  if (weights) {
    const Tensor dy = normals("dy", small, t), dw = poisoned(kernel), scratch(Shape{narrow_scratch_floats(s)});
    p.run = [=] { KILN_RUN(Work::convolution, narrow_weights(stream, t, s, x.data(), dy.data(), dw.f32(), scratch.f32())); };
    p.unfused = [=] { conv_backward_weights(library, x, dy, dw); };
    p.error = [=, run = p.run] {
      poison(dw);
      run();
      const Tensor want(kernel);
      conv_backward_weights(library, in_f32(x), in_f32(dy), want);
      // Sums of 10^5 and more products with random signs: rounding is to be measured by the products' sizes, not by the sum.
      const Numbers a = on_host(dw), b = on_host(want);
      const double size = std::sqrt(double(s.n) * s.h * s.w);
      Comparison c(DType::f32);
      for (int64_t i = 0; i < dw.count(); i++) c.add(size + at(a, i), size + at(b, i));
      return c.error();
    };
    return p;
  }
  const Tensor w = normals("w", kernel, t), y = poisoned(small, t);
  p.run = [=] { KILN_RUN(Work::convolution, narrow_forward(stream, t, s, x.data(), w.data(), y.data())); };
  p.unfused = [=] { conv_forward(library, x, w, y); };
  p.error = check(y, p.run, [=] {
    return [=, x = on_host(x), w = on_host(w)](int64_t k) {
      const int64_t f = k % few, j = k / few % s.w, i = k / few / s.w % s.h, n = k / few / s.w / s.h;
      double sum = 0;
      for (int64_t tap = 0; tap < 9; tap++) {
        const int64_t row = i + tap / 3 - 1, column = j + tap % 3 - 1;
        if (row < 0 || row >= s.h || column < 0 || column >= s.w) continue;
        for (int64_t c = 0; c < s.wide; c++) sum += at(x, ((n * s.h + row) * s.w + column) * s.wide + c) * at(w, (f * 9 + tap) * s.wide + c);
      }
      return sum;
    };
  });
  return p;
}

}  // namespace

void add_wavelet_cases(std::vector<Case>& cases, const Scale& s, DType t) {
  const auto add = [&](const std::string& name, const std::string& shape, std::function<Prepared()> f) { cases.push_back({name, shape, t, std::move(f)}); };
  const Shape picture{s.batch, s.size, s.size, 3};
  for (const Wavelet w : {Wavelet::haar, Wavelet::bior22}) {
    const std::string name = w == Wavelet::haar ? "haar" : "bior2.2";
    add("wavelet_to_bands_" + name, picture.text(), [=] { return transform(t, picture, w, true); });
    add("wavelet_to_picture_" + name, picture.text(), [=] { return transform(t, picture, w, false); });
  }
  const Shape map{s.batch, s.size / 2, s.size / 2, s.width}, full{s.batch, s.size, s.size, s.width};
  add("wavelet_conv", picture.text() + " to " + std::to_string(s.width), [=] { return split_convolution(t, picture, s.width); });
  add("conv_wavelet_unpacket", map.text() + " to 3", [=] { return convolution_join(t, map, 3); });
  if (s.size > 256) return;  // the last layer's are in the list of 256
  add("narrow_forward", full.text() + " to 3", [=] { return to_few(t, full, 3, false); });
  add("narrow_weights", full.text() + " to 3", [=] { return to_few(t, full, 3, true); });
}

}  // namespace kiln::bench
