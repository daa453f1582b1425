// Convolutions with Haar's transform folded in: equal to the transform and the convolution one after the other, forward and backward, in
// the op tests' way; and what is counted of either.
#include "engine/wavelet_conv.h"

#include "engine/ops_conditional.h"
#include "kernels/pointwise.h"
#include "tests/op_test.h"

using namespace kiln;
using namespace kiln::test;

namespace {

/// One level of Haar's transform of every `tile` neighbouring channels, from the definition.
Array haar(const Array& x, int64_t tile) {
  Array y(Shape{x.shape[0], x.shape[1] / 2, x.shape[2] / 2, 4 * x.shape[3]});
  for (int64_t n = 0; n < y.shape[0]; n++)
    for (int64_t i = 0; i < y.shape[1]; i++)
      for (int64_t j = 0; j < y.shape[2]; j++)
        for (int64_t k = 0; k < y.shape[3]; k++) {
          const int64_t band = k / tile % 4, from = k / (4 * tile) * tile + k % tile;
          const double high_i = band % 2 ? -1 : 1, high_j = band / 2 ? -1 : 1;
          y.at(n, i, j, k) = (x.at(n, 2 * i, 2 * j, from) + high_i * x.at(n, 2 * i + 1, 2 * j, from) +
                              high_j * (x.at(n, 2 * i, 2 * j + 1, from) + high_i * x.at(n, 2 * i + 1, 2 * j + 1, from))) / 2;
        }
  return y;
}

/// Its inverse.
Array haar_inverse(const Array& x, int64_t tile) {
  Array y(Shape{x.shape[0], 2 * x.shape[1], 2 * x.shape[2], x.shape[3] / 4});
  for (int64_t n = 0; n < y.shape[0]; n++)
    for (int64_t i = 0; i < y.shape[1]; i++)
      for (int64_t j = 0; j < y.shape[2]; j++)
        for (int64_t k = 0; k < y.shape[3]; k++) {
          double sum = 0;
          for (int64_t band = 0; band < 4; band++) {
            const double sign = (band % 2 && i % 2 ? -1 : 1) * (band / 2 && j % 2 ? -1 : 1);
            sum += sign / 2 * x.at(n, i / 2, j / 2, (4 * (k / tile) + band) * tile + k % tile);
          }
          y.at(n, i, j, k) = sum;
        }
  return y;
}

Array with_bias(Array x, const Array& bias) {
  for (int64_t i = 0; i < x.count(); i++) x.v[size_t(i)] += bias.v[size_t(i % x.shape[3])];
  return x;
}

struct Case {
  Shape x;
  int64_t oc;  // of wavelet_conv; of conv_wavelet_unpacket: channels of the picture
  int kernel, levels;
};
const std::initializer_list<Case> kCases = {{{2, 8, 12, 3}, 5, 3, 1}, {{1, 4, 6, 2}, 16, 1, 1}, {{1, 2, 2, 3}, 4, 3, 1}, {{2, 8, 12, 3}, 5, 3, 2}, {{1, 12, 6, 4}, 3, 5, 1},
                                        {{1, 16, 16, 1}, 2, 3, 3}};

}  // namespace

TEST_CASE("op: wavelet_conv equals the transform, then the convolution") {
  Fixture fixture;
  for (const Case& k : kCases) {
    const int64_t side = int64_t(1) << k.levels;
    if (k.x[1] % side || k.x[2] % side) continue;
    const Array x = random_array("x", k.x), w = random_array("w", Shape{k.oc, k.kernel, k.kernel, k.x[3] * side * side});
    const std::string name = fmt::format("{} kernel {} levels {}", k.x.text(), k.kernel, k.levels);
    check_op({"wavelet_conv " + name, {x, w}, {}, [&](const std::vector<Var>& v) { return wavelet_conv(v[0], v[1], k.levels); },
              [&](const std::vector<Array>& v) {
                Array z = v[0];
                for (int level = 0; level < k.levels; level++) z = haar(z, k.x[3]);
                return reference::conv2d(z, v[1], 1, k.kernel / 2);
              }});
  }
}

TEST_CASE("op: conv_wavelet_unpacket equals the convolution, then the inverse transform") {
  Fixture fixture;
  for (const Case& k : kCases) {
    const int64_t bands = int64_t(1) << (2 * k.levels);
    const Array x = random_array("x", k.x), w = random_array("w", Shape{k.oc * bands, k.kernel, k.kernel, k.x[3]}),
                b = random_array("b", Shape{k.oc * bands});
    const std::string name = fmt::format("{} kernel {} levels {}", k.x.text(), k.kernel, k.levels);
    const auto inverse = [&](Array z) {
      for (int level = 0; level < k.levels; level++) z = haar_inverse(z, k.oc);
      return z;
    };
    check_op({"conv_wavelet_unpacket " + name, {x, w, b}, {}, [&](const std::vector<Var>& v) { return conv_wavelet_unpacket(v[0], v[1], v[2], k.levels); },
              [&](const std::vector<Array>& v) { return inverse(with_bias(reference::conv2d(v[0], v[1], 1, k.kernel / 2), v[2])); }});
    check_op({"conv_wavelet_unpacket without bias " + name, {x, w}, {}, [&](const std::vector<Var>& v) { return conv_wavelet_unpacket(v[0], v[1], Var(), k.levels); },
              [&](const std::vector<Array>& v) { return inverse(reference::conv2d(v[0], v[1], 1, k.kernel / 2)); }});
  }
}

TEST_CASE("op: folded wavelets compute what the unfused ops do, in every type") {
  Fixture fixture;
  for (const DType t : {DType::f32, DType::f16, DType::bf16}) {
    CAPTURE(name_of(t));
    const auto stored = [&](const Array& a) {
      const Tensor x = to_tensor(a), y(x.shape(), t);
      KILN_RUN(Work::pointwise, cast(stream, DType::f32, t, x.count(), x.data(), y.data()));
      return y;
    };
    const double tolerance = t == DType::f32 ? 1e-5 : t == DType::f16 ? 4e-3 : 3e-2;
    const Tensor x = stored(random_array("x", Shape{2, 16, 24, 3})), w = stored(random_array("w", Shape{8, 3, 3, 12}, 0.3)),
                 w2 = stored(random_array("w2", Shape{12, 3, 3, 8}, 0.3)), b = to_tensor(random_array("b", Shape{12}));
    const auto run = [&](bool fused) {
      Tape tape;
      Recording recording(tape);
      const Var xv(x, true), wv(w, true), w2v(w2, true), bv(b, true);
      const Var h = fused ? wavelet_conv(xv, wv) : conv2d(wavelet_split(xv, Wavelet::haar, 3), wv, 1, 1);
      Param bias;
      bias.shape = b.shape();
      bias.value = b;
      bias.grad = zeros(b.shape());
      const Var y = fused ? conv_wavelet_unpacket(h, w2v, bv) : wavelet_join(add_bias(conv2d(h, w2v, 1, 1), bias), Wavelet::haar, 3);
      tape.backward_from({{y, stored(random_array("dy", y.shape()))}});
      return std::vector<std::vector<float>>{y.value.to_vector(), xv.node->gradient().to_vector(), wv.node->gradient().to_vector(),
                                             w2v.node->gradient().to_vector(), fused ? bv.node->gradient().to_vector() : bias.grad.to_vector()};
    };
    const auto fused = run(true), plain = run(false);
    for (size_t i = 0; i < fused.size(); i++) {
      CAPTURE(i);
      CHECK(relative_error(fused[i], plain[i]) < tolerance);
    }
  }
}

TEST_CASE("op: 3x3 convolutions to and from few channels") {
  Fixture fixture;
  for (const int64_t few : {1, 2, 3, 4})
    for (const Shape& wide : {Shape{2, 5, 9, 16}, Shape{1, 8, 17, 32}, Shape{1, 1, 1, 16}, Shape{1, 3, 30, 48}}) {
      const Array x = random_array("x", wide), w = random_array("w", Shape{few, 3, 3, wide[3]});
      const auto op = [](const std::vector<Var>& v) { return conv2d(v[0], v[1], 1, 1); };
      const auto want = [](const std::vector<Array>& v) { return reference::conv2d(v[0], v[1], 1, 1); };
      check_op({fmt::format("conv2d {} to {}", wide.text(), few), {x, w}, {}, op, want});
      check_op({fmt::format("conv2d {} from {}", wide.text(), few),
                {random_array("z", wide.with(-1, few)), random_array("v", Shape{wide[3], 3, 3, few})}, {}, op, want});
    }
}
