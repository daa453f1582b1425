// The kernels of class-conditional networks beside plain loops: conditional norm, biases, embeddings, the projection head, pooling.
// kernel_attention_test.cpp has softmax, gamma, the folded pool and the Gram matrix.
#include <array>
#include <cstring>

#include "kernels/bias.h"
#include "kernels/cond_norm.h"
#include "kernels/embedding.h"
#include "kernels/pool.h"
#include "kernels/projection.h"
#include "tests/kernel_test.h"

using namespace kiln;
using namespace kiln::test;

namespace {

struct MapShape {
  int64_t n, pixels;
  int c;
};

std::vector<MapShape> map_shapes(Random& random) {
  std::vector<MapShape> s = {{1, 1, 1}, {2, 3, 2}, {3, 31, 3}, {2, 65, 16}, {3, 9, 24}, {1, 7, 48}, {2, 300, 33}, {2, 128, 64}};
  for (int i = 0; i < 4; i++) s.push_back({random.integer(1, 4), random.integer(1, 150), random.integer(1, 60)});
  return s;
}

/// Numbers without those that lie within rounding of zero, where relu's slope is either.
void off_the_kink(Doubles& x, const std::function<double(size_t)>& z) {
  for (size_t i = 0; i < x.size(); i++)
    if (std::fabs(z(i)) < 1e-3) x[i] += 0.5;
}

}  // namespace

TEST_CASE("kernel: conditional norm, scale, forward and backward") {
  Random random(50);
  for (const DType t : kFloatTypes)
    for (const auto& [n, pixels, c] : map_shapes(random))
      for (const bool relu : {false, true})
        for (const bool training : {false, true}) {
          CAPTURE(name_of_type(t));
          INFO(fmt::format("n {}, {} pixels, {} channels, relu {}, training {}", n, pixels, c, relu, training));
          const CondNormShape s{n, pixels, c};
          const Doubles gain = random.normals(DType::f32, n * c, 0.3), bias = random.normals(DType::f32, n * c);
          const Doubles mean = random.normals(DType::f32, c, 0.5);
          Doubles inv(static_cast<size_t>(c));
          for (double& v : inv) v = rounded(DType::f32, 0.5 + random.uniform());
          Doubles x = random.normals(t, n * pixels * c), dy = random.normals(t, n * pixels * c);
          Sums scale(gain.size()), shift(gain.size());
          for (size_t k = 0; k < gain.size(); k++) {
            const size_t j = k % size_t(c);
            scale[k] = rounded(DType::f32, (1 + gain[k]) * inv[j]);
            shift[k] = Sum(rounded(DType::f32, bias[k] - mean[j] * scale[k].value), std::fabs(bias[k]) + std::fabs(mean[j] * scale[k].value));
          }
          const auto at = [&](size_t i) { return i / size_t(pixels * c) * size_t(c) + i % size_t(c); };
          const auto z = [&](size_t i) { return x[i] * scale[at(i)].value + shift[at(i)].value; };
          off_the_kink(x, z);
          for (double& v : x) v = rounded(t, v);
          Sums y(x.size()), dgain(gain.size()), dbias(gain.size()), dx(x.size()), m0(static_cast<size_t>(c)), m1(static_cast<size_t>(c));
          Doubles dz(x.size()), xhat(x.size());
          const double rows = double(n) * double(pixels);
          for (size_t i = 0; i < x.size(); i++) {
            const size_t k = at(i), j = k % size_t(c);
            y[i] = relu && z(i) < 0 ? Sum(0) : Sum(z(i), std::fabs(x[i] * scale[k].value) + shift[k].size);
            dz[i] = relu && z(i) < 0 ? 0 : dy[i];
            xhat[i] = (x[i] - mean[j]) * inv[j];
            dbias[k] += dz[i];
            dgain[k] += dz[i] * xhat[i];
            m0[j] += Sum((1 + gain[k]) * dz[i]) * (1 / rows);
            m1[j] += Sum((1 + gain[k]) * dz[i] * xhat[i]) * (1 / rows);
          }
          for (size_t i = 0; i < x.size(); i++) {
            const size_t k = at(i), j = k % size_t(c);
            dx[i] = inv[j] * (1 + gain[k]) * dz[i];
            if (training) {
              dx[i] += m0[j] * -inv[j];
              dx[i] += m1[j] * (-inv[j] * xhat[i]);
            }
          }
          Doubles scale_in(gain.size()), shift_in(gain.size());
          for (size_t k = 0; k < gain.size(); k++) scale_in[k] = scale[k].value, shift_in[k] = shift[k].value;
          for_each_executor([&](Run& run) {
            Buffer &bg = run.in(DType::f32, gain), &bb = run.in(DType::f32, bias), &bm = run.in(DType::f32, mean), &bi = run.in(DType::f32, inv);
            Buffer &bs = run.out(DType::f32, n * c), &bh = run.out(DType::f32, n * c);
            KILN_ON(run, cond_norm_scale(run.stream(), n, c, bg.f32(), bb.f32(), bm.f32(), bi.f32(), bs.f32(), bh.f32()));
            run.expect("scale", bs, scale);
            run.expect("shift", bh, shift);
            const Activation act = relu ? Activation::relu : Activation::none;
            Buffer &bx = run.in(t, x), &by = run.out(t, n * pixels * c), &si = run.in(DType::f32, scale_in), &hi = run.in(DType::f32, shift_in);
            KILN_ON(run, cond_norm_forward(run.stream(), t, s, bx.data(), si.f32(), hi.f32(), act, by.data()));
            run.expect("y", by, y);
            Buffer &bdy = run.in(t, dy), &bdx = run.out(t, n * pixels * c), &dg = run.out(DType::f32, n * c), &db = run.out(DType::f32, n * c);
            Buffer& scratch = run.scratch(cond_norm_scratch_floats(s));
            KILN_ON(run, cond_norm_backward(run.stream(), t, s, bx.data(), bdy.data(), bg.f32(), bm.f32(), bi.f32(), si.f32(), hi.f32(), act,
                                            training, bdx.data(), dg.f32(), db.f32(), scratch.f32()));
            run.expect("dx", bdx, dx, 5e-6);
            run.expect("dgain", dg, dgain, 5e-6);
            run.expect("dbias", db, dbias, 5e-6);
          });
        }
}

TEST_CASE("kernel: biases with and without relu, and what may be left out of the backward") {
  Random random(51);
  for (const DType t : kFloatTypes)
    for (const auto& [n, pixels, c] : map_shapes(random))
      for (const bool relu : {false, true}) {
        const int64_t rows = n * pixels;
        CAPTURE(name_of_type(t));
        INFO(fmt::format("{} rows, {} channels, relu {}", rows, c, relu));
        const Activation act = relu ? Activation::relu : Activation::none;
        const Doubles bias = random.normals(DType::f32, c), before = random.normals(DType::f32, c);
        const Doubles x = random.normals(t, rows * c), dy = random.normals(t, rows * c);
        Sums y(x.size()), dx(x.size()), db(before.begin(), before.end());
        Doubles saved(x.size());
        for (size_t i = 0; i < x.size(); i++) {
          const double z = x[i] + bias[i % size_t(c)];
          y[i] = relu && z < 0 ? Sum(0) : Sum(z, std::fabs(x[i]) + std::fabs(bias[i % size_t(c)]));
          saved[i] = rounded(t, y[i].value);
          dx[i] = relu && !(saved[i] > 0) ? 0 : dy[i];
          db[i % size_t(c)] += dx[i];
        }
        for_each_executor([&, c = c](Run& run) {
          Buffer &bx = run.inout(t, x), &bb = run.in(DType::f32, bias), &sv = run.in(t, saved), &bdy = run.in(t, dy);
          KILN_ON(run, bias_forward(run.stream(), t, rows, c, bx.data(), bb.f32(), act, bx.data()));  // in place
          run.expect("y", bx, y);
          Buffer &bdx = run.out(t, rows * c), &bdb = run.inout(DType::f32, before), &scratch = run.scratch(bias_scratch_floats(c));
          const void* kept = relu ? sv.data() : nullptr;
          KILN_ON(run, bias_backward(run.stream(), t, rows, c, kept, bdy.data(), act, bdx.data(), bdb.f32(), scratch.f32()));
          run.expect("dx", bdx, dx);
          run.expect("dbias", bdb, db, 5e-6);
          Buffer& alone = run.inout(DType::f32, before);
          KILN_ON(run, bias_backward(run.stream(), t, rows, c, kept, bdy.data(), act, nullptr, alone.f32(), scratch.f32()));
          run.expect("dbias alone", alone, db, 5e-6);
          if (!relu) return;
          Buffer& only = run.out(t, rows * c);
          KILN_ON(run, bias_backward(run.stream(), t, rows, c, kept, bdy.data(), act, only.data(), nullptr, nullptr));
          run.expect("dx alone", only, dx);
        });
      }
}

TEST_CASE("kernel: a residual block's sum") {
  Random random(52);
  for (const DType t : kFloatTypes)
    for (const auto& [n, h, w, c] : std::vector<std::array<int, 4>>{{1, 2, 2, 1}, {2, 4, 6, 3}, {3, 2, 8, 16}, {1, 6, 4, 33}})
      for (const bool up : {false, true})
        for (const bool two : {false, true}) {
          CAPTURE(name_of_type(t));
          INFO(fmt::format("{}x{}x{}x{}, up {}, two biases {}", n, h, w, c, up, two));
          const int64_t count = int64_t(n) * h * w * c;
          const Doubles x = random.normals(t, count), skip = random.normals(t, up ? count / 4 : count), b1 = random.normals(DType::f32, c),
                        b2 = random.normals(DType::f32, c);
          Sums y(x.size());
          for (int k = 0; k < n; k++)
            for (int i = 0; i < h; i++)
              for (int j = 0; j < w; j++)
                for (int q = 0; q < c; q++) {
                  const size_t at = size_t(((k * h + i) * w + j) * c + q);
                  const size_t from = up ? size_t(((k * (h / 2) + i / 2) * (w / 2) + j / 2) * c + q) : at;
                  y[at] = x[at];
                  y[at] += skip[from];
                  y[at] += b1[size_t(q)];
                  if (two) y[at] += b2[size_t(q)];
                }
          for_each_executor([&, n = n, h = h, w = w, c = c](Run& run) {
            Buffer &bx = run.inout(t, x), &bs = run.in(t, skip), &p = run.in(DType::f32, b1), &q = run.in(DType::f32, b2);
            KILN_ON(run, residual_forward(run.stream(), t, n, h, w, c, bx.data(), bs.data(), up, p.f32(), two ? q.f32() : nullptr, bx.data()));
            run.expect("y", bx, y);
          });
        }
}

TEST_CASE("kernel: embeddings, labels and columns") {
  Random random(53);
  for (const auto& [n, classes, c] : std::vector<std::array<int, 3>>{{1, 1, 1}, {7, 3, 5}, {16, 40, 32}, {33, 2, 48}, {5, 9, 17}}) {
    INFO(fmt::format("n {}, {} classes, {} numbers", n, classes, c));
    const Doubles u = random.uniforms(n), table = random.normals(DType::f32, classes * c), dy = random.normals(DType::f32, n * c),
                  before = random.normals(DType::f32, classes * c);
    std::vector<int32_t> labels;
    Doubles y(static_cast<size_t>(n) * size_t(c));
    Sums dt(before.begin(), before.end());
    for (int i = 0; i < n; i++) {
      labels.push_back(std::min(classes - 1, int(float(u[size_t(i)]) * float(classes))));
      for (int j = 0; j < c; j++) {
        y[size_t(i * c + j)] = table[size_t(labels.back() * c + j)];
        dt[size_t(labels.back() * c + j)] += dy[size_t(i * c + j)];
      }
    }
    for_each_executor([&, n = n, classes = classes, c = c](Run& run) {
      Buffer &bu = run.in(DType::f32, u), &drawn = run.inout(std::vector<int32_t>(size_t(n), -7));
      KILN_ON(run, labels_from_uniform(run.stream(), n, classes, bu.f32(), drawn.as<int32_t>()));
      const std::vector<uint8_t> got = drawn.bytes();
      for (int i = 0; i < n; i++) {
        int32_t label;
        std::memcpy(&label, &got[size_t(i) * 4], 4);
        CHECK(label == labels[size_t(i)]);
      }
      Buffer &first = run.in(std::vector<int32_t>{7, 8}), &both = run.inout(std::vector<int32_t>(size_t(n) + 2, -7)), &second = run.in(labels);
      KILN_ON(run, concat_labels(run.stream(), 2, n, first.as<int32_t>(), second.as<int32_t>(), both.as<int32_t>()));
      std::vector<int32_t> joined(size_t(n) + 2), expected{7, 8};
      std::memcpy(joined.data(), both.bytes().data(), joined.size() * 4);
      expected.insert(expected.end(), labels.begin(), labels.end());
      CHECK(joined == expected);
      Buffer &bt = run.in(DType::f32, table), &bl = run.in(labels), &by = run.out(DType::f32, n * c);
      KILN_ON(run, embedding_forward(run.stream(), n, c, bt.f32(), bl.as<int32_t>(), by.f32()));
      run.expect_exact("y", by, y);
      Buffer &bdy = run.in(DType::f32, dy), &bdt = run.inout(DType::f32, before);
      KILN_ON(run, embedding_backward(run.stream(), n, classes, c, bdy.f32(), bl.as<int32_t>(), bdt.f32()));
      run.expect("dtable", bdt, dt);
    });
  }
  for (const DType t : kFloatTypes)
    for (const auto& [rows, a, b] : std::vector<std::array<int, 3>>{{1, 1, 1}, {5, 3, 4}, {9, 16, 32}, {4, 33, 2}}) {
      const Doubles x = random.normals(t, rows * a), z = random.normals(t, rows * b);
      for (const bool zeros : {false, true}) {
        Doubles y;
        for (int r = 0; r < rows; r++) {
          for (int j = 0; j < a; j++) y.push_back(x[size_t(r * a + j)]);
          for (int j = 0; j < b; j++) y.push_back(zeros ? 0 : z[size_t(r * b + j)]);
        }
        for_each_executor([&, rows = rows, a = a, b = b](Run& run) {
          Buffer &bx = run.in(t, x), &bz = run.in(t, z), &by = run.out(t, rows * (a + b));
          KILN_ON(run, concat_columns(run.stream(), t, rows, a, b, bx.data(), zeros ? nullptr : bz.data(), by.data()));
          run.expect_exact("both", by, y);
          if (zeros) return;
          Buffer &whole = run.in(t, y), &part = run.out(t, rows * b);
          KILN_ON(run, take_columns(run.stream(), t, rows, a + b, a, b, whole.data(), part.data()));
          run.expect_exact("second", part, z);
        });
      }
    }
}

TEST_CASE("kernel: relu and sum over the pixels; the projection's logits and gradients") {
  Random random(54);
  for (const DType t : kFloatTypes)
    for (const auto& [n, pixels, c] : map_shapes(random)) {
      CAPTURE(name_of_type(t));
      INFO(fmt::format("n {}, {} pixels, {} channels", n, pixels, c));
      const Doubles x = random.normals(t, n * pixels * c), dh = random.normals(t, n * c);
      Sums h(static_cast<size_t>(n * c));
      Doubles dx(x.size());
      for (size_t i = 0; i < x.size(); i++) {
        const size_t k = i / size_t(pixels * c) * size_t(c) + i % size_t(c);
        h[k] += std::max(0.0, x[i]);
        dx[i] = x[i] > 0 ? dh[k] : 0;
      }
      const int classes = 4;
      const Doubles features = random.normals(t, n * c), w = random.normals(t, c), e = random.normals(t, classes * c), bias = random.normals(DType::f32, 1),
                    dl = random.normals(DType::f32, n), before = random.normals(DType::f32, 1);
      std::vector<int32_t> labels;
      for (int64_t i = 0; i < n; i++) labels.push_back(random.integer(0, classes - 1));
      for (const bool conditional : {true, false}) {
        Sums logits(static_cast<size_t>(n)), dfeatures(features.size()), dw(w.size()), de(e.size());
        Sum db(before[0]);
        for (int64_t i = 0; i < n; i++) {
          logits[size_t(i)] = bias[0];
          db += dl[size_t(i)];
          for (int j = 0; j < c; j++) {
            const size_t at = size_t(i * c + j), row = size_t(labels[size_t(i)] * c + j);
            const double v = w[size_t(j)] + (conditional ? e[row] : 0);
            logits[size_t(i)] += Sum(features[at] * v, std::fabs(features[at]) * (std::fabs(w[size_t(j)]) + std::fabs(v)));
            dfeatures[at] = Sum(dl[size_t(i)] * v, std::fabs(dl[size_t(i)]) * (std::fabs(w[size_t(j)]) + std::fabs(v)));
            dw[size_t(j)] += dl[size_t(i)] * features[at];
            de[row] += dl[size_t(i)] * features[at];
          }
        }
        for_each_executor([&, n = n, pixels = pixels, c = c](Run& run) {
          Buffer &bx = run.in(t, x), &bh = run.out(t, n * c), &scratch = run.scratch(sum_pool_scratch_floats(n, c));
          KILN_ON(run, relu_sum_pool_forward(run.stream(), t, n, pixels, c, bx.data(), bh.data(), scratch.f32()));
          run.expect("h", bh, h, 5e-6);
          Buffer &bdh = run.in(t, dh), &bdx = run.out(t, n * pixels * c);
          KILN_ON(run, relu_sum_pool_backward(run.stream(), t, n, pixels, c, bx.data(), bdh.data(), bdx.data()));
          run.expect_exact("dx", bdx, dx);
          Buffer &bf = run.in(t, features), &bw = run.in(t, w), &be = run.in(t, e), &bb = run.in(DType::f32, bias), &bl = run.in(labels);
          Buffer &out = run.out(DType::f32, n), &dots = run.scratch(projection_scratch_floats(n));
          KILN_ON(run, projection_forward(run.stream(), t, n, c, bf.data(), bw.data(), bb.f32(), conditional ? be.data() : nullptr,
                                          conditional ? bl.as<int32_t>() : nullptr, out.f32(), dots.f32()));
          run.expect("logits", out, logits, 5e-6);
          Buffer &bdl = run.in(DType::f32, dl), &bdf = run.out(t, n * c), &bdw = run.out(DType::f32, c), &bdb = run.inout(DType::f32, before);
          Buffer& bde = run.out(DType::f32, conditional ? classes * c : 1);
          KILN_ON(run, projection_backward(run.stream(), t, n, classes, c, bf.data(), bw.data(), conditional ? be.data() : nullptr,
                                           conditional ? bl.as<int32_t>() : nullptr, bdl.f32(), bdf.data(), bdw.f32(),
                                           conditional ? bde.f32() : nullptr, bdb.f32()));
          run.expect("dh", bdf, dfeatures);
          run.expect("dw", bdw, dw);
          run.expect("dbias", bdb, Sums{db});
          if (conditional) run.expect("dembed", bde, de);
        });
      }
    }
}

TEST_CASE("kernel: 2x2 max pooling and its gradient, ties to the first pixel") {
  Random random(55);
  for (const DType t : kFloatTypes)
    for (const auto& [n, h, w, c] : std::vector<std::array<int, 4>>{{1, 2, 2, 1}, {2, 4, 6, 3}, {3, 2, 8, 16}, {1, 6, 4, 33}}) {
      const int64_t count = int64_t(n) * h * w * c;
      Doubles x(static_cast<size_t>(count));
      for (double& v : x) v = random.integer(0, 3);  // many ties
      const Doubles dy = random.normals(t, count / 4);
      Doubles y(dy.size()), dx(x.size(), 0);
      for (int k = 0; k < n; k++)
        for (int i = 0; i < h / 2; i++)
          for (int j = 0; j < w / 2; j++)
            for (int q = 0; q < c; q++) {
              const size_t out = size_t(((k * (h / 2) + i) * (w / 2) + j) * c + q);
              size_t best = 0;
              bool first = true;
              for (int a = 0; a < 2; a++)
                for (int b = 0; b < 2; b++) {
                  const size_t in = size_t(((k * h + 2 * i + a) * w + 2 * j + b) * c + q);
                  if (first || x[in] > x[best]) best = in;
                  first = false;
                }
              y[out] = x[best];
              dx[best] = dy[out];
            }
      for_each_executor([&, n = n, h = h, w = w, c = c](Run& run) {
        Buffer &bx = run.in(t, x), &by = run.out(t, count / 4), &bdy = run.in(t, dy), &bdx = run.out(t, count);
        KILN_ON(run, max_pool_forward(run.stream(), t, n, h, w, c, bx.data(), by.data()));
        run.expect_exact("y", by, y);
        KILN_ON(run, max_pool_backward(run.stream(), t, n, h, w, c, bx.data(), bdy.data(), bdx.data()));
        run.expect_exact("dx", bdx, dx);
      });
    }
}
