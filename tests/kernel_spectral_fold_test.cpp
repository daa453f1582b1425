// kernels/spectral.h and kernels/fold.h beside plain loops.
#include <algorithm>
#include <limits>

#include "kernels/fold.h"
#include "kernels/spectral.h"
#include "tests/kernel_test.h"

using namespace kiln;
using namespace kiln::test;

namespace {

const double kUnwritten = std::numeric_limits<double>::quiet_NaN();

/// Several layers in flat buffers with gaps between them, and the work lists that kernels/spectral.h describes.
struct Network {
  std::vector<SpectralLayer> layers;
  std::vector<SpectralTile> column_tiles, row_tiles;
  int64_t n_params = 0, n_packed = 0, n_vectors = 0, n_scratch = 0;

  explicit Network(const std::vector<std::pair<int, int>>& sizes) {
    const auto next = [](int64_t& end, int64_t n, int64_t gap) {
      const int64_t begin = (end + gap + 15) / 16 * 16;
      end = begin + n;
      return begin;
    };
    for (const auto& [rows, cols] : sizes) {
      SpectralLayer l{};
      l.rows = rows;
      l.cols = cols;
      l.row_chunks = (rows + kSpectralRows - 1) / kSpectralRows;
      l.w = next(n_params, int64_t(rows) * cols, 5);
      l.packed = next(n_packed, int64_t(rows) * cols, 0);
      l.u = next(n_vectors, rows, 3);
      l.v = next(n_vectors, cols, 0);
      l.partial = next(n_scratch, std::max<int64_t>(int64_t(l.row_chunks) * cols, rows), 0);
      const int32_t i = int32_t(layers.size()), wide = (cols + kSpectralCols - 1) / kSpectralCols;
      for (int r = 0; r < rows; r += kSpectralRows)
        for (int c = 0; c < cols; c += kSpectralCols) column_tiles.push_back({i, r, c, l.row_chunks * wide});
      const int32_t strips = (rows + kSpectralDotRows - 1) / kSpectralDotRows;
      for (int r = 0; r < rows; r += kSpectralDotRows) row_tiles.push_back({i, r, 0, strips});
      layers.push_back(l);
    }
    n_params += 7;  // what comes after the last layer must stay as it is, too
    n_packed += 7;
    n_vectors += 7;
  }
};

/// The network's tables in an executor's memory.
struct Tables {
  SpectralTables t;
  Buffer& counters;
  Tables(Run& run, const Network& net) : counters(run.inout(std::vector<int32_t>(net.layers.size(), 0))) {
    t = {run.in(net.layers).as<SpectralLayer>(),   run.in(net.column_tiles).as<SpectralTile>(),
         run.in(net.row_tiles).as<SpectralTile>(), int32_t(net.layers.size()),
         int32_t(net.column_tiles.size()),         int32_t(net.row_tiles.size()),
         run.scratch(net.n_scratch).f32(),         counters.as<int32_t>()};
  }
  bool counters_are_zero() const {
    const std::vector<uint8_t> bytes = counters.bytes();
    return std::all_of(bytes.begin(), bytes.end(), [](uint8_t b) { return b == 0; });
  }
};

Doubles unit_vectors(Random& random, const Network& net) {
  Doubles v = random.normals(DType::f32, net.n_vectors);
  for (const SpectralLayer& l : net.layers)
    for (const auto& [begin, n] : {std::pair<int64_t, int>(l.u, l.rows), std::pair<int64_t, int>(l.v, l.cols)}) {
      double squares = 0;
      for (int i = 0; i < n; i++) squares += v[size_t(begin + i)] * v[size_t(begin + i)];
      for (int i = 0; i < n; i++) v[size_t(begin + i)] = rounded(DType::f32, v[size_t(begin + i)] / std::sqrt(squares));
    }
  return v;
}

struct Result {
  Sums vectors, sigma, packed;
};

/// n(a) for a vector that was added up.
Sums normalised(const Sums& a) {
  double squares = 0;
  for (const Sum& x : a) squares += x.value * x.value;
  const double norm = std::max(std::sqrt(squares), 1e-12);
  Sums r;
  for (const Sum& x : a) r.push_back({x.value / norm, x.size / norm});
  return r;
}

Result normalise(const Network& net, const Doubles& params, const Sums& vectors, bool iterate) {
  Result r{vectors, {}, Sums(size_t(net.n_packed), Sum(kUnwritten))};
  for (const SpectralLayer& l : net.layers) {
    const auto w = [&](int i, int j) { return params[size_t(l.w + int64_t(i) * l.cols + j)]; };
    const auto u = [&](int i) -> Sum& { return r.vectors[size_t(l.u + i)]; };
    const auto v = [&](int j) -> Sum& { return r.vectors[size_t(l.v + j)]; };
    if (iterate) {
      Sums a(size_t(l.cols)), b(size_t(l.rows));
      for (int i = 0; i < l.rows; i++)
        for (int j = 0; j < l.cols; j++) a[size_t(j)] += u(i) * w(i, j);
      a = normalised(a);
      for (int j = 0; j < l.cols; j++) v(j) = a[size_t(j)];
      for (int i = 0; i < l.rows; i++)
        for (int j = 0; j < l.cols; j++) b[size_t(i)] += Sum(v(j).value * w(i, j), v(j).size * std::fabs(w(i, j)));
      b = normalised(b);
      for (int i = 0; i < l.rows; i++) u(i) = b[size_t(i)];
    }
    Sum sigma;
    for (int i = 0; i < l.rows; i++)
      for (int j = 0; j < l.cols; j++) sigma += u(i).value * w(i, j) * v(j).value;
    sigma.size = std::fabs(sigma.value) + 0.05 * sigma.size;  // roundings of so many products of either sign cancel
    r.sigma.push_back(sigma);
    for (int i = 0; i < l.rows; i++)
      for (int j = 0; j < l.cols; j++) {
        const double p = w(i, j) / sigma.value;
        r.packed[size_t(l.packed + int64_t(i) * l.cols + j)] = {p, std::fabs(p) * sigma.size / std::fabs(sigma.value)};
      }
  }
  return r;
}

Doubles values(const Sums& s) {
  Doubles v;
  for (const Sum& x : s) v.push_back(rounded(DType::f32, x.value));
  return v;
}

std::vector<std::vector<std::pair<int, int>>> networks() {
  Random random(50);
  std::vector<std::vector<std::pair<int, int>>> nets = {
      {{1, 1}},
      {{1, 33}, {33, 1}, {3, 3}, {31, 27}},
      {{65, 1040}, {64, 1024}, {5, 2064}, {17, 1025}},  // several tiles both ways, with and without whole packs
      {{130, 144}, {16, 128}, {48, 300}, {2, 3000}, {129, 16}, {100, 1100}},
  };
  for (int i = 0; i < 3; i++) {
    nets.emplace_back();
    for (int k = 0; k < 4; k++) nets.back().push_back({random.integer(1, 150), random.integer(1, 200)});
  }
  return nets;
}

}  // namespace

TEST_CASE("kernel: spectral normalisation of several layers at once") {
  Random random(51);
  for (const auto& sizes : networks())
    for (const bool iterate : {true, false}) {
      const Network net(sizes);
      INFO(fmt::format("{} layers, the first {} x {}", sizes.size(), sizes[0].first, sizes[0].second));
      CAPTURE(iterate);
      const Doubles params = random.normals(DType::f32, net.n_params, 0.02), vectors = unit_vectors(random, net);
      const Result first = normalise(net, params, Sums(vectors.begin(), vectors.end()), iterate);
      const Result second = normalise(net, params, first.vectors, iterate);
      for_each_executor([&](Run& run) {
        const Tables tables(run, net);
        Buffer &p = run.in(DType::f32, params), &uv = run.inout(DType::f32, vectors);
        for (const Result* want : {&first, &second}) {  // twice: the counters must be ready for the next launch
          const DType type = want == &first ? DType::f32 : kFloatTypes[sizes.size() % 3];
          CAPTURE(name_of_type(type));
          Buffer &sigma = run.out(DType::f32, int64_t(sizes.size())), &packed = run.out(type, net.n_packed);
          KILN_ON(run, spectral_normalise(run.stream(), tables.t, p.f32(), uv.f32(), uv.f32(), iterate, sigma.f32(), type,
                                          packed.data()));
          if (iterate)
            run.expect("u and v", uv, want->vectors);
          else
            run.expect_exact("u and v", uv, vectors);
          run.expect("sigma", sigma, want->sigma);
          run.expect("packed", packed, want->packed);
          CHECK(tables.counters_are_zero());
        }
      });
    }
}

TEST_CASE("kernel: spectral norm's power iteration finds the largest singular value") {
  // W = 3 a b' + 1 c d' with orthonormal a, c and b, d: its singular values are 3 and 1.
  const Network net({{20, 70}});
  const SpectralLayer& l = net.layers[0];
  Doubles params(size_t(net.n_params), 0.0);
  for (int i = 0; i < 20; i++)
    for (int j = 0; j < 70; j++) {
      const double a = std::sqrt(0.05), c = a * (i % 2 == 0 ? 1 : -1), b = std::sqrt(1.0 / 70),
                   d = b * (j % 2 == 0 ? 1 : -1);
      params[size_t(l.w + i * 70 + j)] = rounded(DType::f32, 3 * a * b + c * d);
    }
  Random random(52);
  const Doubles vectors = unit_vectors(random, net);
  for_each_executor([&](Run& run) {
    const Tables tables(run, net);
    Buffer &p = run.in(DType::f32, params), &uv = run.inout(DType::f32, vectors);
    Buffer &sigma = run.out(DType::f32, 1), &packed = run.out(DType::f32, net.n_packed);
    for (int i = 0; i < 12; i++)
      KILN_ON(run,
              spectral_normalise(run.stream(), tables.t, p.f32(), uv.f32(), uv.f32(), true, sigma.f32(), DType::f32,
                                          packed.data()));
    run.expect("sigma", sigma, Doubles{3});
  });
}

TEST_CASE("kernel: spectral normalisation's gradient") {
  Random random(53);
  for (const auto& sizes : networks()) {
    const Network net(sizes);
    INFO(fmt::format("{} layers, the first {} x {}", sizes.size(), sizes[0].first, sizes[0].second));
    const Doubles params = random.normals(DType::f32, net.n_params, 0.1), a = random.normals(DType::f32, net.n_packed);
    const Doubles before = random.normals(DType::f32, net.n_params),
                  direction = random.normals(DType::f32, net.n_params);
    // u and v of some forward, no exact singular vectors.
    const Doubles random_vectors = unit_vectors(random, net);
    const Doubles vectors =
        values(normalise(net, params, Sums(random_vectors.begin(), random_vectors.end()), true).vectors);
    const Doubles sigma = values(normalise(net, params, Sums(vectors.begin(), vectors.end()), false).sigma);

    /// Sum over the layers of <A, W / sigma(W)> with u and v constant.
    const auto loss = [&](double step) {
      double total = 0;
      for (const SpectralLayer& l : net.layers) {
        double inner = 0, s = 0;
        for (int i = 0; i < l.rows; i++)
          for (int j = 0; j < l.cols; j++) {
            const size_t k = size_t(l.w + int64_t(i) * l.cols + j);
            const double w = params[k] + step * direction[k];
            inner += w * a[size_t(l.packed + int64_t(i) * l.cols + j)];
            s += vectors[size_t(l.u + i)] * w * vectors[size_t(l.v + j)];
          }
        total += inner / s;
      }
      return total;
    };
    Sums grads(before.begin(), before.end());
    double slope = 0, slope_size = 0;
    for (size_t k = 0; k < net.layers.size(); k++) {
      const SpectralLayer& l = net.layers[k];
      Sum inner;
      for (int i = 0; i < l.rows * l.cols; i++) inner += a[size_t(l.packed + i)] * params[size_t(l.w + i)] / sigma[k];
      for (int i = 0; i < l.rows; i++)
        for (int j = 0; j < l.cols; j++) {
          const size_t e = size_t(i * l.cols + j);
          Sum g = a[size_t(l.packed) + e] / sigma[k];
          // <A, W / sigma> rounds relative to the root of its sum of squares rather than to the sum of magnitudes.
          const double uv = vectors[size_t(l.u + i)] * vectors[size_t(l.v + j)] / sigma[k];
          g += Sum(-inner.value * uv, (std::fabs(inner.value) + 0.1 * inner.size) * std::fabs(uv));
          slope += g.value * direction[size_t(l.w) + e];
          slope_size += g.size * std::fabs(direction[size_t(l.w) + e]);
          grads[size_t(l.w) + e] += g;
        }
    }
    const double h = 1e-6;
    CHECK(std::fabs(slope - (loss(h) - loss(-h)) / (2 * h)) <= 1e-6 * slope_size);
    for_each_executor([&](Run& run) {
      const Tables tables(run, net);
      Buffer &p = run.in(DType::f32, params), &ba = run.in(DType::f32, a), &uv = run.in(DType::f32, vectors);
      Buffer &s = run.in(DType::f32, sigma), &g = run.inout(DType::f32, before);
      KILN_ON(run, spectral_backward(run.stream(), tables.t, p.f32(), ba.f32(), uv.f32(), uv.f32(), s.f32(), g.f32()));
      run.expect("gradients", g, grads);
      CHECK(tables.counters_are_zero());
    });
  }
}

// ---- fold
// -------------------------------------------------------------------------------------------------------------

namespace {

constexpr double kBox[4][3] = {{0, 0, 1}, {0, 1, 1}, {1, 1, 0}, {1, 0, 0}};  // K = (w2, w1 + w2, w0 + w1, w0)

}  // namespace

TEST_CASE("kernel: upsampling folded into a convolution's weights, and the adjoint") {
  Random random(54);
  for (const auto& [o, i] :
       {std::pair(1, 1), {3, 2}, {1, 3}, {31, 5}, {2, 6}, {33, 16}, {5, 24}, {3, 48}, {7, 100}, {40, 33}}) {
    CAPTURE(o);
    CAPTURE(i);
    const DType t = kFloatTypes[(o + i) % 3];
    CAPTURE(name_of_type(t));
    const Doubles w = random.normals(t, o * 9 * i), dk = random.normals(DType::f32, o * 16 * i);
    Sums k(dk.size()), dw(w.size());
    for (int n = 0; n < o; n++)
      for (int ky = 0; ky < 4; ky++)
        for (int kx = 0; kx < 4; kx++)
          for (int y = 0; y < 3; y++)
            for (int x = 0; x < 3; x++)
              for (int c = 0; c < i; c++) {
                const size_t at_k = size_t(((n * 4 + ky) * 4 + kx) * i + c),
                             at_w = size_t(((n * 3 + y) * 3 + x) * i + c);
                k[at_k] += w[at_w] * kBox[ky][y] * kBox[kx][x];
                dw[at_w] += dk[at_k] * kBox[ky][y] * kBox[kx][x];
              }
    for_each_executor([&, o = o, i = i](Run& run) {
      Buffer &bw = run.in(t, w), &bk = run.out(t, o * 16 * i);
      KILN_ON(run, upsample_fold(run.stream(), t, o, i, bw.data(), bk.data()));
      run.expect("k", bk, k);
      Buffer &bdk = run.in(DType::f32, dk), &bdw = run.out(DType::f32, o * 9 * i);
      KILN_ON(run, upsample_fold_backward(run.stream(), o, i, bdk.f32(), bdw.f32()));
      run.expect("dw", bdw, dw);
    });
  }
}

TEST_CASE("kernel: a convolution's weights as nine products, and the adjoint") {
  // What the taps of an axis count for: their sum, minus tap 0, tap 2.
  static constexpr double combine[3][3] = {{1, 1, 1}, {-1, 0, 0}, {0, 0, 1}};
  Random random(56);
  for (const auto& [o, i] : {std::pair(1, 1), {3, 2}, {31, 5}, {2, 6}, {33, 16}, {5, 24}, {7, 100}}) {
    CAPTURE(o);
    CAPTURE(i);
    const Doubles w = random.normals(DType::f32, o * 9 * i), du = random.normals(DType::f32, o * 9 * i);
    Sums u(w.size()), dw(w.size());
    for (int k = 0; k < 9; k++)
      for (int n = 0; n < o; n++)
        for (int tap = 0; tap < 9; tap++)
          for (int c = 0; c < i; c++) {
            const double factor = combine[k / 3][tap / 3] * combine[k % 3][tap % 3];
            const size_t at_u = size_t((k * o + n) * i + c), at_w = size_t((n * 9 + tap) * i + c);
            u[at_u] += w[at_w] * factor;
            dw[at_w] += du[at_u] * factor;
          }
    for_each_executor([&, o = o, i = i](Run& run) {
      Buffer &bw = run.in(DType::f32, w), &bu = run.out(DType::f32, o * 9 * i);
      KILN_ON(run, upsample_products(run.stream(), o, i, bw.f32(), bu.f32()));
      run.expect("u", bu, u);
      Buffer &bdu = run.in(DType::f32, du), &bdw = run.out(DType::f32, o * 9 * i);
      KILN_ON(run, upsample_products_backward(run.stream(), o, i, bdu.f32(), bdw.f32()));
      run.expect("dw", bdw, dw);
    });
  }
}

TEST_CASE("kernel: a convolution's weights in Winograd's products, and the adjoint") {
  static constexpr double g[4][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};
  Random random(57);
  for (const auto& [o, i] : {std::pair(1, 1), {3, 2}, {31, 5}, {2, 6}, {33, 16}, {5, 24}, {7, 100}}) {
    CAPTURE(o);
    CAPTURE(i);
    const Doubles w = random.normals(DType::f32, o * 9 * i), du = random.normals(DType::f32, o * 16 * i);
    Sums u(du.size()), dw(w.size());
    for (int k = 0; k < 16; k++)
      for (int n = 0; n < o; n++)
        for (int tap = 0; tap < 9; tap++)
          for (int c = 0; c < i; c++) {
            const double factor = g[k / 4][tap / 3] * g[k % 4][tap % 3];
            const size_t at_u = size_t((k * o + n) * i + c), at_w = size_t((n * 9 + tap) * i + c);
            u[at_u] += w[at_w] * factor;
            dw[at_w] += du[at_u] * factor;
          }
    for_each_executor([&, o = o, i = i](Run& run) {
      Buffer &bw = run.in(DType::f32, w), &bu = run.out(DType::f32, o * 16 * i);
      KILN_ON(run, winograd_weights(run.stream(), o, i, bw.f32(), bu.f32()));
      run.expect("u", bu, u);
      Buffer &bdu = run.in(DType::f32, du), &bdw = run.out(DType::f32, o * 9 * i);
      KILN_ON(run, winograd_weights_backward(run.stream(), o, i, bdu.f32(), bdw.f32()));
      run.expect("dw", bdw, dw);
    });
  }
}

TEST_CASE("kernel: the folded weights make the same picture as upsampling and a 3x3 convolution") {
  Random random(55);
  const int h = 5, w = 4;
  const Doubles x = random.normals(DType::f32, h * w), taps = random.normals(DType::f32, 9);
  Sums want(size_t(4 * h * w));
  for (int i = 0; i < 2 * h; i++)
    for (int j = 0; j < 2 * w; j++)
      for (int y = 0; y < 3; y++)
        for (int z = 0; z < 3; z++) {
          const int a = i + y - 1, b = j + z - 1;  // in the upsampled picture
          if (a >= 0 && a < 2 * h && b >= 0 && b < 2 * w)
            want[size_t(i * 2 * w + j)] += taps[size_t(y * 3 + z)] * x[size_t(a / 2 * w + b / 2)];
        }
  for_each_executor([&](Run& run) {
    Buffer &bw = run.in(DType::f32, taps), &bk = run.out(DType::f32, 16);
    KILN_ON(run, upsample_fold(run.stream(), DType::f32, 1, 1, bw.data(), bk.data()));
    const Doubles k = bk.values();
    Doubles got(want.size(), 0.0);
    for (int i = 0; i < h; i++)  // a transposed convolution, stride 2, padding 1
      for (int j = 0; j < w; j++)
        for (int y = 0; y < 4; y++)
          for (int z = 0; z < 4; z++) {
            const int a = 2 * i - 1 + y, b = 2 * j - 1 + z;
            if (a >= 0 && a < 2 * h && b >= 0 && b < 2 * w)
              got[size_t(a * 2 * w + b)] += x[size_t(i * w + j)] * k[size_t(y * 4 + z)];
          }
    double worst = 0;
    for (size_t i = 0; i < got.size(); i++) worst = std::max(worst, std::fabs(got[i] - want[i].value) / want[i].size);
    CHECK(worst < 1e-6);
  });
}
