// FixedGlu: every way that it goes against convolution, bias, noise, GLU and gate one after the other.
#include "engine/inference.h"

#include <omp.h>

#include "engine/convolution.h"
#include "engine/ops.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::test;

namespace {

using Way = FixedGlu::Way;

struct Case {
  const char* what;
  Way way;
  int64_t n, h, w, in, c;  // c: channels behind the GLU
  bool upsampling, noisy, gated;
};

constexpr Case kCases[] = {
    {"one pixel", Way::nine_products, 1, 1, 1, 32, 1, true, false, false},
    {"small pictures together", Way::nine_products, 5, 4, 4, 40, 40, true, true, false},
    {"odd numbers of channels", Way::nine_products, 2, 9, 7, 33, 3, true, true, true},
    {"blocks with a rest", Way::nine_products, 3, 8, 8, 32, 144, true, true, true},
    {"rows of one picture", Way::nine_products, 2, 33, 34, 34, 16, true, false, true},
    {"a wide picture", Way::nine_products, 1, 3, 200, 32, 8, true, true, true},
    {"narrow", Way::library, 2, 9, 8, 16, 12, true, true, true},
    {"few tiles, the deep way", Way::winograd, 3, 7, 6, 128, 64, false, true, true},
    {"chunks, and blocks with a rest", Way::winograd, 3, 33, 34, 64, 80, false, true, true},
    {"odd numbers of channels", Way::winograd, 2, 8, 8, 130, 65, false, false, true},
    {"narrow", Way::library, 2, 9, 8, 16, 12, false, true, true},
    {"bare", Way::library, 1, 5, 5, 3, 4, false, false, false},
};

Tensor hashed(const char* name, const Shape& s) { return tensor_of(s, hashed_signed(name, s.count())); }

struct Made {
  std::vector<float> fused, apart;
};

Made make(const Case& k) {
  const int64_t scale = k.upsampling ? 2 : 1, oh = scale * k.h, ow = scale * k.w;
  const Tensor x = hashed("x", Shape{k.n, k.h, k.w, k.in}), weight = hashed("w", Shape{2 * k.c, 3, 3, k.in}), bias = hashed("b", Shape{2 * k.c});
  const Tensor strength = k.noisy ? hashed("s", Shape{2 * k.c}) : Tensor(), noise = k.noisy ? hashed("n", Shape{k.n, oh, ow, 1}) : Tensor();
  const Tensor gate = k.gated ? hashed("g", Shape{k.n, 1, 1, k.c}) : Tensor();
  const FixedGlu layer(weight, bias, strength, k.upsampling);
  CHECK(layer.way() == (test_device() == Device::cpu ? k.way : Way::library));
  const NoGrad none;
  // The definition: a 3x3 convolution of the picture, doubled or not, by the library; the rest in plain loops.
  Tensor big = x;
  if (k.upsampling) {
    const std::vector<float> v = x.to_vector();
    std::vector<float> doubled;
    for (int64_t i = 0; i < k.n * oh * ow; i++) {
      const int64_t picture = i / (oh * ow), row = i / ow % oh / 2, column = i % ow / 2;
      const auto from = v.begin() + ((picture * k.h + row) * k.w + column) * k.in;
      doubled.insert(doubled.end(), from, from + k.in);
    }
    big = tensor_of(Shape{k.n, oh, ow, k.in}, doubled);
  }
  const Tensor z(Shape{k.n, oh, ow, 2 * k.c});
  conv_forward({k.n, oh, ow, k.in, oh, ow, 2 * k.c, 3, 3, 1, 1, false}, big, weight, z);
  const auto numbers = [](const Tensor& t) { return t ? t.to_vector() : std::vector<float>(); };
  const std::vector<float> zs = z.to_vector(), bs = numbers(bias), ss = numbers(strength), ns = numbers(noise), gs = numbers(gate);
  Made m;
  for (int64_t p = 0; p < k.n * oh * ow; p++)
    for (int64_t c = 0; c < k.c; c++) {
      const auto at = [&](int64_t j) {
        return double(zs[size_t(p * 2 * k.c + j)]) + double(bs[size_t(j)]) + (k.noisy ? double(ss[size_t(j)]) * double(ns[size_t(p)]) : 0.0);
      };
      const double y = at(c) / (1 + std::exp(-at(k.c + c)));
      m.apart.push_back(float(k.gated ? y * double(gs[size_t(p / (oh * ow) * k.c + c)]) : y));
    }
  const Tensor y = layer(x, noise, gate);
  CHECK(y.shape() == Shape{k.n, oh, ow, k.c});
  m.fused = y.to_vector();
  return m;
}

}  // namespace

TEST_CASE("fixed: a convolution with its GLU equals the parts one after the other, whichever way it goes") {
  Fixture fixture;
  for (const Case& k : kCases) {
    CAPTURE(std::string(k.what));
    const Made m = make(k);
    CHECK(relative_error(m.fused, m.apart) < 5e-6);
  }
}

TEST_CASE("fixed: one thread and two give the same bits") {
  Fixture fixture;
  const int before = omp_get_max_threads();
  for (const Case& k : kCases) {
    CAPTURE(std::string(k.what));
    omp_set_num_threads(1);
    const Made one = make(k);
    omp_set_num_threads(2);
    const Made two = make(k);
    CHECK(one.fused == two.fused);
  }
  omp_set_num_threads(before);
}

TEST_CASE("fixed: a weight's rows in the order of packs") {
  Fixture fixture;
  CHECK(glu_pack(64) == 16);
  CHECK(glu_pack(24) == 8);
  CHECK(glu_pack(7) == 1);
  const Tensor w = tensor_of(Shape{12, 1}, {0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15});
  CHECK(glu_order(w).to_vector() == std::vector<float>{0, 1, 10, 11, 2, 3, 12, 13, 4, 5, 14, 15});
}
