// Upsampling and a 3x3 convolution as one transposed convolution of stride 2: the fold of its weights, and whether it
// wins.
#include "bench/kernel_bench.h"
#include "engine/ops.h"
#include "kernels/fold.h"
#include "kernels/pointwise.h"
#include "models/fastgan.h"

namespace kiln::bench {
namespace {

Prepared fold(DType t, int o, int i, bool backward) {
  const Shape three{o, 3, 3, i}, four{o, 4, 4, i};
  const Tensor x = normals("w", backward ? four : three, t), y = poisoned(backward ? three : four, t);
  Prepared p;
  p.run = [=] {
    if (backward)
      KILN_RUN(Work::pointwise, upsample_fold_backward(stream, o, i, x.f32(), y.f32()));
    else
      KILN_RUN(Work::pointwise, upsample_fold(stream, t, o, i, x.data(), y.data()));
  };
  p.error = [=, run = p.run] {
    poison(y);
    run();
    const std::vector<float> w = x.to_vector();
    // Tap t of three is in taps k of four where k + t is 2 or 3: K = (w2, w1 + w2, w0 + w1, w0).
    const auto touches = [](int64_t k, int64_t t) { return k + t == 2 || k + t == 3; };
    Comparison c(t);
    c.add(y, [&](int64_t e) {
      const int64_t mine = backward ? 3 : 4, other = 7 - mine, ch = e % i, px = e / i % mine, py = e / i / mine % mine,
                    out = e / i / mine / mine;
      double sum = 0;
      for (int64_t a = 0; a < other; a++)
        for (int64_t b = 0; b < other; b++)
          if (touches(a, py) && touches(b, px)) sum += double(w[size_t(((out * other + a) * other + b) * i + ch)]);
      return sum;
    });
    return c.error();
  };
  return p;
}

/// The one convolution, beside the two operations apart. In f32 they are compared; in 16 bits, where the folded weights
/// are rounded once more, the same product of the rounded weights in f32 is what is right.
Prepared folded_convolution(DType t, const Shape& shape, int64_t o) {
  const Tensor x = normals("x", shape, t), w = normals("w", Shape{o, 3, 3, shape[3]}, t);
  const auto y = std::make_shared<Tensor>();
  Prepared p;
  p.run = [=] { *y = upsample_conv3x3(Var(x), Var(w)).value; };
  p.unfused = [=] { *y = conv2d(upsample2x(Var(x)), Var(w), 1, 1).value; };
  p.error = [=, run = p.run, unfused = p.unfused] {
    run();
    const Tensor got = *y;
    Comparison c(t);
    if (t == DType::f32) {
      unfused();
      c.add(got, *y);
    } else {
      const Tensor folded(Shape{o, 4, 4, shape[3]}, t);
      KILN_RUN(Work::pointwise, upsample_fold(stream, t, int(o), int(shape[3]), w.data(), folded.data()));
      c.add(got, conv_transpose2d(Var(in_f32(x)), Var(in_f32(folded)), 2, 1).value);
    }
    return c.error();
  };
  return p;
}

}  // namespace

void add_convolution_cases(std::vector<Case>& cases, const Scale& s, DType t) {
  using fastgan::generator_channels;
  const int o = int(2 * generator_channels(8, s.width)), i = int(generator_channels(4, s.width));
  cases.push_back({"upsample_fold", Shape{o, 3, 3, i}.text(), t, [=] { return fold(t, o, i, false); }});
  if (t == DType::f32)
    cases.push_back({"upsample_fold_backward", Shape{o, 3, 3, i}.text(), t, [=] { return fold(t, o, i, true); }});
  for (int to : {32, s.size}) {
    const Shape from{s.batch, to / 2, to / 2, generator_channels(to / 2, s.width)};
    const int64_t out = 2 * generator_channels(to, s.width);
    cases.push_back({"upsample_conv3x3", from.text() + " to " + std::to_string(out), t,
                     [=] { return folded_convolution(t, from, out); }});
  }
}

}  // namespace kiln::bench
