// The ops of clips: forward against plain loops in double precision, backward against finite differences.
#include "engine/ops_clip.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "engine/convolution.h"
#include "engine/ops_feature.h"
#include "engine/parameters.h"
#include "engine/random.h"
#include "models/blocks.h"
#include "tests/op_test.h"

using namespace kiln;
using namespace kiln::test;

namespace {

size_t at(const Shape& s, int64_t n, int64_t t, int64_t i, int64_t j, int64_t c) {
  return size_t((((n * s[1] + t) * s[2] + i) * s[3] + j) * s[4] + c);
}

/// Calls f(n, t, i, j, c) for every element of a clip.
template <class F>
void for_each(const Shape& s, F&& f) {
  for (int64_t n = 0; n < s[0]; n++)
    for (int64_t t = 0; t < s[1]; t++)
      for (int64_t i = 0; i < s[2]; i++)
        for (int64_t j = 0; j < s[3]; j++)
          for (int64_t c = 0; c < s[4]; c++) f(n, t, i, j, c);
}

Array conv3d_reference(const Array& x, const Array& w, TimePadding time) {
  const Shape &xs = x.shape, &ws = w.shape;
  const int64_t before = time == TimePadding::none ? 0 : ws[1] / 2, out_t = time == TimePadding::none ? xs[1] - ws[1] + 1 : xs[1];
  Array y(Shape{xs[0], out_t, xs[2], xs[3], ws[0]});
  for_each(y.shape, [&](int64_t n, int64_t t, int64_t i, int64_t j, int64_t o) {
    double sum = 0;
    for (int64_t a = 0; a < ws[1]; a++) {
      int64_t f = t + a - before;
      if (time == TimePadding::replicate) f = std::clamp<int64_t>(f, 0, xs[1] - 1);
      if (f < 0 || f >= xs[1]) continue;
      for (int64_t p = 0; p < ws[2]; p++)
        for (int64_t q = 0; q < ws[3]; q++) {
          const int64_t y0 = i + p - ws[2] / 2, x0 = j + q - ws[3] / 2;
          if (y0 < 0 || y0 >= xs[2] || x0 < 0 || x0 >= xs[3]) continue;
          for (int64_t c = 0; c < xs[4]; c++) sum += x.v[at(xs, n, f, y0, x0, c)] * w.v[at(ws, o, a, p, q, c)];
        }
    }
    y.v[at(y.shape, n, t, i, j, o)] = sum;
  });
  return y;
}

/// Frame source(o) of x as frame o of out_t.
Array frames_reference(const Array& x, int64_t out_t, const std::function<int64_t(int64_t n, int64_t o)>& source) {
  Array y(x.shape.with(1, out_t));
  for_each(y.shape, [&](int64_t n, int64_t o, int64_t i, int64_t j, int64_t c) {
    y.v[at(y.shape, n, o, i, j, c)] = x.v[at(x.shape, n, source(n, o), i, j, c)];
  });
  return y;
}

Array pool_reference(const Array& x, int64_t ft, int64_t fs) {
  Array y(Shape{x.shape[0], x.shape[1] / ft, x.shape[2] / fs, x.shape[3] / fs, x.shape[4]});
  for_each(x.shape, [&](int64_t n, int64_t t, int64_t i, int64_t j, int64_t c) {
    y.v[at(y.shape, n, t / ft, i / fs, j / fs, c)] += x.v[at(x.shape, n, t, i, j, c)] / double(ft * fs * fs);
  });
  return y;
}

Array repeat_reference(const Array& x, int64_t ft, int64_t fs) {
  Array y(Shape{x.shape[0], x.shape[1] * ft, x.shape[2] * fs, x.shape[3] * fs, x.shape[4]});
  for_each(y.shape, [&](int64_t n, int64_t t, int64_t i, int64_t j, int64_t c) {
    y.v[at(y.shape, n, t, i, j, c)] = x.v[at(x.shape, n, t / ft, i / fs, j / fs, c)];
  });
  return y;
}

/// Linear along one axis of size `in`: (index, weight) of the two inputs of output o.
std::vector<std::pair<int64_t, double>> linear_taps(int64_t o, int64_t in, int64_t out) {
  const double s = std::max(0.0, (double(o) + 0.5) * double(in) / double(out) - 0.5);
  const int64_t i = std::min<int64_t>(int64_t(s), in - 1);
  return {{i, 1 - (s - double(i))}, {std::min<int64_t>(i + 1, in - 1), s - double(i)}};
}

Array resize_reference(const Array& x, int64_t t, int64_t h, int64_t w, TimeScaling time) {
  Array y(Shape{x.shape[0], t, h, w, x.shape[4]});
  for_each(y.shape, [&](int64_t n, int64_t o, int64_t i, int64_t j, int64_t c) {
    std::vector<std::pair<int64_t, double>> frames = {{o * x.shape[1] / t, 1.0}};
    if (time == TimeScaling::linear) frames = linear_taps(o, x.shape[1], t);
    for (const auto& [f, wf] : frames)
      for (const auto& [p, wp] : linear_taps(i, x.shape[2], h))
        for (const auto& [q, wq] : linear_taps(j, x.shape[3], w))
          y.v[at(y.shape, n, o, i, j, c)] += wf * wp * wq * x.v[at(x.shape, n, f, p, q, c)];
  });
  return y;
}

Array reshaped(Array a, const Shape& s) {
  a.shape = s;
  return a;
}

struct TwoConvolutions {
  SpectralConv3d a{3, 6, 3, 3, TimePadding::replicate}, b{6, 4, 1, 3, TimePadding::zero};
  template <class F>
  void visit(F&& f) {
    f("a", a);
    f("b", b);
  }
};

}  // namespace

TEST_CASE("op: conv3d, all kernels and paddings in time") {
  Fixture fixture;
  struct Kernel {
    int64_t kt, k;
  };
  for (const Kernel& k : {Kernel{3, 3}, Kernel{1, 3}, Kernel{3, 1}, Kernel{1, 1}, Kernel{5, 3}})
    for (const TimePadding time : {TimePadding::zero, TimePadding::replicate, TimePadding::none})
      for (const Shape& s : {Shape{2, 5, 4, 5, 3}, Shape{1, 5, 3, 3, 16}, Shape{1, 1, 4, 4, 2}}) {
        if (time == TimePadding::none && s[1] < k.kt) continue;
        check_op({fmt::format("conv3d {}x{} padding {} of {}", k.kt, k.k, int(time), s.text()),
                  {random_array("x", s), random_array("w", Shape{4, k.kt, k.k, k.k, s[4]})},
                  {},
                  [=](const std::vector<Var>& v) { return conv3d(v[0], v[1], time); },
                  [=](const std::vector<Array>& v) { return conv3d_reference(v[0], v[1], time); }});
      }
}

TEST_CASE("op: conv3d in 16 bits is that in 32 bits, rounded") {
  Fixture fixture;
  const Array x = random_array("x", Shape{2, 4, 6, 5, 16}), w = random_array("w", Shape{8, 3, 3, 3, 16}, 0.1), d = random_array("d", Shape{2, 4, 6, 5, 8});
  const auto run = [&](DType t) {
    const auto in = [&](const Array& a) { return Var(converted(to_tensor(a), t), true); };
    Tape tape;
    Recording recording(tape);
    const Var xv = in(x), wv = in(w), y = conv3d(xv, wv, TimePadding::replicate);
    tape.backward_from({{y, converted(to_tensor(d), t)}});
    CHECK(wv.node->gradient().dtype() == DType::f32);
    return std::vector<Array>{to_array(y.value), to_array(xv.node->gradient()), to_array(wv.node->gradient())};
  };
  const auto exact = run(DType::f32);
  for (const DType t : {DType::bf16, DType::f16})
    for (size_t i = 0; i < 3; i++) {
      CAPTURE(name_of(t));
      CHECK(relative_error(run(t)[i], exact[i]) < (t == DType::bf16 ? 2e-2 : 3e-3));
    }
}

TEST_CASE("op: 3-d convolutions are noted with their third axis, those of one frame as 2-d ones") {
  Fixture fixture;
  std::vector<ConvCall> calls;
  fixture.context.conv_calls = &calls;
  const Var clip(to_tensor(random_array("x", Shape{2, 4, 6, 5, 3})));
  conv3d(clip, Var(to_tensor(random_array("w", Shape{8, 3, 3, 3, 3}))), TimePadding::zero);
  conv3d(clip, Var(to_tensor(random_array("w", Shape{8, 1, 1, 1, 3}))), TimePadding::zero);
  REQUIRE(calls.size() == 2);
  CHECK(calls[0].shape.is_3d());
  CHECK(calls[0].shape.flops() == 2.0 * 2 * 4 * 6 * 5 * 8 * 27 * 3);
  CHECK(calls[0].shape.text() == "2x4x6x5x3 -> 8 channels, kernel 3x3x3, stride 1");
  CHECK(!calls[1].shape.is_3d());
  CHECK(calls[1].shape.n == 8);
}

TEST_CASE("op: a video's condition reaches its own frames") {
  Fixture fixture;
  // Frames lie video by video: with the rows tiled instead, frame 1 of video 0 would get video 1's.
  const Var x(from_vector(Shape{2, 1}, {10, 20}));
  CHECK(repeat_per_frame(x, 3).value.to_vector() == std::vector<float>{10, 10, 10, 20, 20, 20});
  CHECK(sum_frames(Var(from_vector(Shape{6}, {1, 2, 3, 10, 20, 30})), 3).value.to_vector() == std::vector<float>{6, 60});
  for (int64_t c : {1, 5, 16}) {
    check_op({"repeat_per_frame", {random_array("x", Shape{2, c})}, {}, [](const std::vector<Var>& v) { return repeat_per_frame(v[0], 3); },
              [=](const std::vector<Array>& v) {
                Array y(Shape{6, c});
                for (int64_t r = 0; r < 6; r++)
                  for (int64_t j = 0; j < c; j++) y.v[size_t(r * c + j)] = v[0].v[size_t(r / 3 * c + j)];
                return y;
              }});
    check_op({"sum_frames", {random_array("x", Shape{6, c})}, {}, [](const std::vector<Var>& v) { return sum_frames(v[0], 3); },
              [=](const std::vector<Array>& v) {
                Array y(Shape{2, c});
                for (int64_t i = 0; i < 6 * c; i++) y.v[size_t(i / (3 * c) * c + i % c)] += v[0].v[size_t(i)];
                return y;
              }});
  }
}

TEST_CASE("op: frames of a clip and a clip of frames") {
  Fixture fixture;
  const Shape s{2, 3, 4, 2, 5};
  check_op({"frames", {random_array("x", s)}, {}, [](const std::vector<Var>& v) { return per_frame(v[0], [](const Var& f) { return upsample2x(f); }); },
            [](const std::vector<Array>& v) { return repeat_reference(v[0], 1, 2); }});
  const Var x(to_tensor(random_array("x", s)));
  CHECK(frames_of(x).value.data() == x.value.data());
  CHECK(clip_of(frames_of(x), 3).shape() == s);
}

TEST_CASE("op: choosing frames") {
  Fixture fixture;
  for (const Shape& s : {Shape{2, 7, 2, 3, 5}, Shape{3, 4, 2, 2, 16}}) {
    const int64_t t = s[1];
    const std::vector<int32_t> chosen = {0, 2, 3, 1, 2, 0, 3, 3, 1};  // a frame that is named twice, and one that is not
    const Tensor index(Shape{s[0], 3}, DType::i32);
    index.upload(chosen.data());
    check_op({"gather_frames", {random_array("x", s)}, {}, [=](const std::vector<Var>& v) { return gather_frames(v[0], index); },
              [=](const std::vector<Array>& v) { return frames_reference(v[0], 3, [&](int64_t n, int64_t o) { return chosen[size_t(n * 3 + o)]; }); }});
    check_op({"take_frames", {random_array("x", s)}, {}, [=](const std::vector<Var>& v) { return take_frames(v[0], 1, 2, (t - 2) / 2 + 1); },
              [=](const std::vector<Array>& v) { return frames_reference(v[0], (t - 2) / 2 + 1, [](int64_t, int64_t o) { return 1 + 2 * o; }); }});
    check_op({"take_frames, all", {random_array("x", s)}, {}, [=](const std::vector<Var>& v) { return take_frames(v[0], 0, 1, t); },
              [](const std::vector<Array>& v) { return v[0]; }});
    check_op({"pad_time", {random_array("x", s)}, {}, [](const std::vector<Var>& v) { return pad_time(v[0], 2, 1); },
              [=](const std::vector<Array>& v) {
                return frames_reference(v[0], t + 3, [=](int64_t, int64_t o) { return std::clamp<int64_t>(o - 2, 0, t - 1); });
              }});
    check_op({"time_repeat", {random_array("x", s)}, {}, [](const std::vector<Var>& v) { return time_repeat(v[0], 3); },
              [](const std::vector<Array>& v) { return repeat_reference(v[0], 3, 1); }});
  }
}

TEST_CASE("op: drawn frames are different, rising, and all sets are as likely") {
  Fixture fixture;
  const int64_t n = 6000, t = 5, k = 2;
  const Tensor u = from_vector(Shape{n, t}, hashed_uniform("frames", n * t));
  std::vector<int32_t> got(size_t(n * k));
  draw_frames(u, k).download(got.data());
  std::map<std::pair<int, int>, int> seen;
  for (int64_t i = 0; i < n; i++) {
    const int a = got[size_t(2 * i)], b = got[size_t(2 * i + 1)];
    REQUIRE((0 <= a && a < b && b < t));
    seen[{a, b}]++;
  }
  CHECK(seen.size() == 10);
  for (const auto& [pair, count] : seen) CHECK(std::abs(count - 600) < 5 * std::sqrt(600.0));
  draw_frames(zeros(Shape{1, 4}), 4).download(got.data());
  CHECK(std::vector<int32_t>(got.begin(), got.begin() + 4) == std::vector<int32_t>{0, 1, 2, 3});
  draw_frames(from_vector(Shape{1, 4}, {0.99999994f, 0.99999994f, 0.99999994f, 0.99999994f}), 3).download(got.data());
  CHECK(std::vector<int32_t>(got.begin(), got.begin() + 3) == std::vector<int32_t>{1, 2, 3});
}

TEST_CASE("op: pooling, repeating and resizing of clips") {
  Fixture fixture;
  const Shape s{2, 4, 4, 6, 3}, wide{1, 2, 2, 4, 16};
  for (const auto& [ft, fs] : std::vector<std::pair<int64_t, int64_t>>{{1, 2}, {2, 2}, {2, 1}, {1, 1}}) {
    for (const Shape& shape : {s, wide}) {
      check_op({fmt::format("clip_pool {} {}", ft, fs), {random_array("x", shape)}, {},
                [=](const std::vector<Var>& v) { return clip_pool(v[0], ft, fs); },
                [=](const std::vector<Array>& v) { return pool_reference(v[0], ft, fs); }});
      check_op({fmt::format("clip_repeat {} {}", ft, fs), {random_array("x", shape)}, {},
                [=](const std::vector<Var>& v) { return clip_repeat(v[0], ft, fs); },
                [=](const std::vector<Array>& v) { return repeat_reference(v[0], ft, fs); }});
    }
  }
  check_op({"time_pool", {random_array("x", s)}, {}, [](const std::vector<Var>& v) { return time_pool(v[0], 4); },
            [](const std::vector<Array>& v) { return pool_reference(v[0], 4, 1); }});
  struct Size {
    int64_t t, h, w;
  };
  for (const TimeScaling time : {TimeScaling::nearest, TimeScaling::linear})
    for (const Size& o : {Size{8, 8, 12}, Size{4, 16, 24}, Size{3, 3, 5}, Size{1, 1, 1}, Size{7, 4, 9}, Size{13, 21, 2}})
      check_op({fmt::format("resize_clip {} {}x{}x{}", int(time), o.t, o.h, o.w), {random_array("x", s)}, {},
                [=](const std::vector<Var>& v) { return resize_clip(v[0], o.t, o.h, o.w, time); },
                [=](const std::vector<Array>& v) { return resize_reference(v[0], o.t, o.h, o.w, time); }});
}

TEST_CASE("op: conditional_norm of clips, a gain for each video") {
  Fixture fixture;
  const Shape s{2, 3, 4, 2, 6}, folded{2, 12, 2, 6};
  ConditionalNorm norm(6);
  ParameterSet set(norm, true);
  Philox random(1);
  set.initialise(random, "norm");
  check_op({"conditional_norm of a clip", {random_array("x", s, 2), random_array("gain", Shape{2, 6}), random_array("bias", Shape{2, 6})}, {},
            [&](const std::vector<Var>& v) { return conditional_norm(v[0], norm, v[1], v[2], Activation::relu); },
            [&](const std::vector<Array>& v) {
              const reference::Statistics b = reference::statistics(reshaped(v[0], folded));
              Array y(s);
              for (size_t i = 0; i < y.v.size(); i++) {
                const size_t c = i % 6, k = i / (3 * 4 * 2 * 6) * 6 + c;
                y.v[i] = std::max(0.0, (v[0].v[i] - b.mean[c]) / std::sqrt(b.variance[c] + 1e-5) * (1 + v[1].v[k]) + v[2].v[k]);
              }
              return y;
            }});
}

TEST_CASE("op: the residual sum of clips") {
  Fixture fixture;
  const Shape s{2, 3, 4, 2, 5};
  check_op({"residual_sum", {random_array("x", s), random_array("skip", s)}, {},
            [](const std::vector<Var>& v) { return residual_sum(combine(1.f, v[0], 0.f, v[0]), v[1], false, nullptr, nullptr); },
            [](const std::vector<Array>& v) { return reference::combine(1, v[0], 1, v[1]); }});
  check_op({"residual_sum, upsampled", {random_array("x", s), random_array("skip", Shape{2, 3, 2, 1, 5})}, {},
            [](const std::vector<Var>& v) { return residual_sum(combine(1.f, v[0], 0.f, v[0]), v[1], true, nullptr, nullptr); },
            [](const std::vector<Array>& v) { return reference::combine(1, v[0], 1, repeat_reference(v[1], 1, 2)); }});
}

TEST_CASE("op: spectrally normalised 3-d convolutions: sigma of the matrix [oc, all others], gradients of any kernel") {
  Fixture fixture;
  TwoConvolutions net;
  ParameterSet set(net, true);
  for (auto* w : {&net.a.w, &net.b.w}) {
    CHECK(w->u.shape == Shape{w->weight.shape[0]});
    CHECK(w->v.shape == Shape{w->weight.shape.count() / w->weight.shape[0]});
    w->weight.value.upload(to_tensor(random_array(fmt::format("w {}", w->weight.shape.text()), w->weight.shape)).data());
    w->u.value.upload(to_tensor(random_array("u", w->u.shape)).data());
    w->v.value.upload(to_tensor(random_array("v", w->v.shape)).data());
  }
  SpectralGroup group(net);
  const Var x(to_tensor(random_array("x", Shape{2, 4, 4, 4, 3})));
  const auto prepare = [&] { group.prepare(set.values, set.grads, set.vectors); };
  for (int i = 0; i < 60; i++) prepare();
  const Array d = random_array("d", Shape{2, 4, 4, 4, 4});
  Tape tape;
  set.zero_grad();
  {
    Recording recording(tape);
    prepare();
    CHECK(net.b.w.normalised.shape() == Shape{4, 1, 3, 3, 6});
    tape.backward_from({{net.b(net.a(x)), to_tensor(d)}});
  }
  // Scaling a weight changes nothing behind its norm, so the gradient is orthogonal to the weight.
  for (auto* w : {&net.a.w, &net.b.w}) {
    const Array g = to_array(w->weight.grad), v = to_array(w->weight.value);
    double dot = 0, gg = 0, vv = 0;
    for (size_t i = 0; i < g.v.size(); i++) dot += g.v[i] * v.v[i], gg += g.v[i] * g.v[i], vv += v.v[i] * v.v[i];
    CHECK(gg > 0);
    CHECK(std::fabs(dot) < 1e-4 * std::sqrt(gg * vv));
  }
}
