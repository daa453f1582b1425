// Frames, boxes and resizing of clips and the convolutional GRU's gates, against plain loops in double precision. The clips are those
// of a video network at an eighth of the scale's side: 8 frames of 32 x 32 pixels at 256.
#include <algorithm>
#include <cmath>
#include <memory>

#include "bench/kernel_bench.h"
#include "kernels/clip.h"
#include "kernels/gru.h"

namespace kiln::bench {
namespace {

constexpr int kFrames = 8;

using Numbers = std::shared_ptr<std::vector<float>>;
Numbers host(const Tensor& x) { return std::make_shared<std::vector<float>>(x.to_vector()); }
double element(const Numbers& x, int64_t i) { return double((*x)[size_t(i)]); }
double logistic(double x) { return 1 / (1 + std::exp(-x)); }

using Want = std::function<double(int64_t)>;

/// A kernel with one result: poison, run, compare some elements with what make_want() says they are.
Prepared with_one_result(const Tensor& y, std::function<void()> run, std::function<Want()> make_want) {
  Prepared p;
  p.run = run;
  p.error = [=] {
    poison(y);
    run();
    Comparison c(y.dtype());
    c.add(y, make_want());
    return c.error();
  };
  return p;
}

/// One more frame at both ends, as a convolution with replicated frames reads a clip.
Prepared padding(DType t, const Shape& clip, bool backward) {
  const FrameShape s{clip[0], int(clip[1]), int(clip[1] + 2), int(clip[2]), int(clip[3] * clip[4])};
  const FrameMap m{-1, 1, 1};
  const int64_t per = clip.count() / (clip[0] * clip[1]);
  const Tensor x = normals("x", backward ? clip.with(1, s.out_t) : clip, t), y = poisoned(backward ? clip : clip.with(1, s.out_t), t);
  const auto run = [=] {
    if (backward)
      KILN_RUN(Work::pointwise, frames_backward(stream, t, s, m, x.data(), y.data()));
    else
      KILN_RUN(Work::pointwise, frames_forward(stream, t, s, m, x.data(), y.data()));
  };
  return with_one_result(y, run, [=]() -> Want {
    return [=, x = host(x)](int64_t i) {
      const int64_t frames = backward ? s.t : s.out_t, n = i / (frames * per), f = i / per % frames, e = i % per;
      if (!backward) return element(x, (n * s.t + std::clamp<int64_t>(f - 1, 0, s.t - 1)) * per + e);
      double sum = 0;
      for (int64_t o = 0; o < s.out_t; o++)
        if (std::clamp<int64_t>(o - 1, 0, s.t - 1) == f) sum += element(x, (n * s.out_t + o) * per + e);
      return sum;
    };
  });
}

/// Every second frame, by its number.
Prepared gathering(DType t, const Shape& clip, bool backward) {
  const int k = int(clip[1] / 2);
  const FrameShape s{clip[0], int(clip[1]), k, int(clip[2]), int(clip[3] * clip[4])};
  const int64_t per = clip.count() / (clip[0] * clip[1]);
  std::vector<int32_t> chosen;
  for (int64_t i = 0; i < clip[0] * k; i++) chosen.push_back(int32_t(2 * (i % k)));
  const Tensor index(Shape{clip[0], k}, DType::i32);
  index.upload(chosen.data());
  const Tensor x = normals("x", backward ? clip.with(1, k) : clip, t), y = poisoned(backward ? clip : clip.with(1, k), t);
  const auto run = [=] {
    if (backward)
      KILN_RUN(Work::data, gather_frames_backward(stream, t, s, index.as<int32_t>(), x.data(), y.data()));
    else
      KILN_RUN(Work::data, gather_frames_forward(stream, t, s, index.as<int32_t>(), x.data(), y.data()));
  };
  return with_one_result(y, run, [=]() -> Want {
    return [=, x = host(x)](int64_t i) {
      const int64_t frames = backward ? s.t : k, n = i / (frames * per), f = i / per % frames, e = i % per;
      if (!backward) return element(x, (n * s.t + 2 * f) * per + e);
      return f % 2 == 0 && f / 2 < k ? element(x, (n * k + f / 2) * per + e) : 0.0;
    };
  });
}

/// 2x2x2 average pooling and its adjoint.
Prepared pooling(DType t, const Shape& clip, bool fill) {
  const BoxShape s{clip[0], int(clip[1]), int(clip[2]), int(clip[3]), int(clip[4]), 2, 2};
  const Shape small{clip[0], clip[1] / 2, clip[2] / 2, clip[3] / 2, clip[4]};
  const Tensor x = normals("x", fill ? small : clip, t), y = poisoned(fill ? clip : small, t);
  const auto run = [=] {
    if (fill)
      KILN_RUN(Work::pointwise, box_fill(stream, t, s, 0.125f, x.data(), y.data()));
    else
      KILN_RUN(Work::pointwise, box_sum(stream, t, s, 0.125f, x.data(), y.data()));
  };
  return with_one_result(y, run, [=]() -> Want {
    return [=, x = host(x)](int64_t e) {
      const Shape& o = fill ? clip : small;
      const int64_t c = e % o[4], j = e / o[4] % o[3], i = e / (o[4] * o[3]) % o[2], f = e / (o[4] * o[3] * o[2]) % o[1], n = e / (o[4] * o[3] * o[2] * o[1]);
      if (fill) return 0.125 * element(x, (((n * small[1] + f / 2) * small[2] + i / 2) * small[3] + j / 2) * small[4] + c);
      double sum = 0;
      for (int64_t b = 0; b < 8; b++)
        sum += element(x, (((n * clip[1] + 2 * f + b / 4) * clip[2] + 2 * i + b / 2 % 2) * clip[3] + 2 * j + b % 2) * clip[4] + c);
      return sum / 8;
    };
  });
}

/// A condition of three channels at twice the size, in space and in time.
Prepared resizing(DType t, const Shape& clip, bool backward) {
  const ClipResize s{clip[0], int(clip[1]), int(clip[2]), int(clip[3]), int(2 * clip[1]), int(2 * clip[2]), int(2 * clip[3]), int(clip[4]), true};
  const Shape large{clip[0], s.out_t, s.out_h, s.out_w, clip[4]};
  const Tensor x = normals("x", backward ? large : clip, t), y = poisoned(backward ? clip : large, t);
  const auto run = [=] {
    if (backward)
      KILN_RUN(Work::pointwise, clip_resize_backward(stream, t, s, x.data(), y.data()));
    else
      KILN_RUN(Work::pointwise, clip_resize_forward(stream, t, s, x.data(), y.data()));
  };
  // What output o of an axis takes of input i.
  const auto weight = [](int64_t o, int64_t i, int64_t in) {
    const double p = std::clamp((double(o) + 0.5) / 2 - 0.5, 0.0, double(in - 1));
    return std::max(0.0, 1 - std::fabs(p - double(i)));
  };
  return with_one_result(y, run, [=]() -> Want {
    return [=, x = host(x)](int64_t e) {
      const Shape& o = backward ? clip : large;
      const Shape& in = backward ? large : clip;
      const int64_t c = e % o[4], j = e / o[4] % o[3], i = e / (o[4] * o[3]) % o[2], f = e / (o[4] * o[3] * o[2]) % o[1], n = e / (o[4] * o[3] * o[2] * o[1]);
      const auto share = [&](int64_t mine, int64_t other, int axis) {
        return backward ? weight(other, mine, clip[axis]) : weight(mine, other, clip[axis]);
      };
      const auto near = [&](int64_t mine) { return backward ? 2 * mine : mine / 2; };
      double sum = 0;
      for (int64_t a = std::max<int64_t>(0, near(f) - 2); a <= std::min(in[1] - 1, near(f) + 3); a++)
        for (int64_t p = std::max<int64_t>(0, near(i) - 2); p <= std::min(in[2] - 1, near(i) + 3); p++)
          for (int64_t q = std::max<int64_t>(0, near(j) - 2); q <= std::min(in[3] - 1, near(j) + 3); q++)
            sum += share(f, a, 1) * share(i, p, 2) * share(j, q, 3) * element(x, (((n * in[1] + a) * in[2] + p) * in[3] + q) * in[4] + c);
      return sum;
    };
  });
}

/// Where element j of row r of a frame lies in a clip of `channels`.
int64_t in_clip(const GruShape& s, int64_t r, int frame, int64_t channels, int64_t j) {
  return ((r / s.pixels * s.frames + frame) * s.pixels + r % s.pixels) * channels + j;
}

struct GruOperands {
  GruShape s;
  Tensor gx, gh, ck, h, ru, b;
  GruOperands(DType t, const Shape& clip)
      : s{clip[0], clip[2] * clip[3], int(clip[1]), int(clip[4]), false}, gx(normals("gx", clip.with(-1, 3 * clip[4]), t)),
        gh(normals("gh", Shape{s.n, s.pixels, 2 * s.c}, t)), ck(normals("ck", Shape{s.n, s.pixels, s.c}, t)),
        h(normals("h", Shape{s.n, s.pixels, s.c}, t)), ru(normals("ru", Shape{s.n, s.pixels, 2 * s.c}, t)), b(normals("b", Shape{3 * s.c}, DType::f32)) {}
};

Prepared gru_gates_case(DType t, const Shape& clip) {
  const GruOperands o(t, clip);
  const GruShape s = o.s;
  const Tensor ru = poisoned(o.gh.shape(), t), rh = poisoned(o.h.shape(), t);
  const int frame = s.frames / 2;
  return with_one_result(
      rh,
      [=] {
        KILN_RUN(Work::pointwise, gru_gates(stream, t, s, frame, o.gx.data(), o.gh.data(), o.h.data(), o.b.f32(), ru.data(), rh.data()));
      },
      [=]() -> Want {
        return [=, gx = host(o.gx), gh = host(o.gh), h = host(o.h), b = host(o.b)](int64_t i) {
          const int64_t r = i / s.c, j = i % s.c;
          return logistic(element(gx, in_clip(s, r, frame, 3 * s.c, j)) + element(gh, r * 2 * s.c + j) + element(b, j)) * element(h, i);
        };
      });
}

Prepared gru_blend_case(DType t, const Shape& clip) {
  const GruOperands o(t, clip);
  const GruShape s = o.s;
  const Tensor k = poisoned(o.h.shape(), t), next = poisoned(o.h.shape(), t), y = poisoned(clip, t);
  const int frame = s.frames / 2;
  return with_one_result(
      next,
      [=] {
        KILN_RUN(Work::pointwise, gru_blend(stream, t, s, frame, Activation::relu, o.gx.data(), o.ck.data(), o.ru.data(), o.h.data(), o.b.f32(), k.data(),
                                            next.data(), y.data()));
      },
      [=]() -> Want {
        return [=, gx = host(o.gx), ck = host(o.ck), ru = host(o.ru), h = host(o.h), b = host(o.b)](int64_t i) {
          const int64_t r = i / s.c, j = i % s.c;
          const double v = std::max(0.0, element(gx, in_clip(s, r, frame, 3 * s.c, 2 * s.c + j)) + element(ck, i) + element(b, 2 * s.c + j));
          const double u = element(ru, r * 2 * s.c + s.c + j);
          return u * element(h, i) + (1 - u) * v;
        };
      });
}

Prepared gru_blend_backward_case(DType t, const Shape& clip) {
  const GruOperands o(t, clip);
  const GruShape s = o.s;
  const Tensor dy = normals("dy", clip, t), dg = poisoned(o.gh.shape(), t), dk = poisoned(o.h.shape(), t), dh = poisoned(o.h.shape(), t);
  const int frame = s.frames / 2;
  return with_one_result(
      dk,
      [=] {
        KILN_RUN(Work::pointwise, gru_blend_backward(stream, t, s, frame, Activation::tanh, dy.data(), o.h.data(), o.ck.data(), o.ru.data(), o.h.data(),
                                                     o.ck.data(), dg.data(), dk.data(), dh.data()));
      },
      [=]() -> Want {
        return [=, dy = host(dy), ck = host(o.ck), ru = host(o.ru), h = host(o.h)](int64_t i) {
          const int64_t r = i / s.c, j = i % s.c;
          const double d = element(dy, in_clip(s, r, frame, s.c, j)) + element(h, i) + element(ck, i), k = element(ck, i);
          return d * (1 - element(ru, r * 2 * s.c + s.c + j)) * (1 - k * k);
        };
      });
}

Prepared gru_gates_backward_case(DType t, const Shape& clip) {
  const GruOperands o(t, clip);
  const GruShape s = o.s;
  const Tensor dg = poisoned(o.gh.shape(), t), rh = poisoned(o.h.shape(), t);
  const Tensor dh = normals("dh", o.h.shape(), t);
  return with_one_result(
      rh,
      [=] {
        KILN_RUN(Work::pointwise, gru_gates_backward(stream, t, s, o.ck.data(), o.ru.data(), o.h.data(), dg.data(), dh.data(), rh.data()));
      },
      [=]() -> Want {
        return [=, ru = host(o.ru), h = host(o.h)](int64_t i) { return element(ru, i / s.c * 2 * s.c + i % s.c) * element(h, i); };
      });
}

Prepared gru_collect_case(DType t, const Shape& clip) {
  const GruShape s{clip[0], clip[2] * clip[3], int(clip[1]), int(clip[4]), false};
  const Tensor dg = normals("dg", Shape{s.frames, s.n, s.pixels, 2 * s.c}, t), dk = normals("dk", Shape{s.frames, s.n, s.pixels, s.c}, t);
  const Tensor dgx = poisoned(clip.with(-1, 3 * s.c), t);
  return with_one_result(
      dgx, [=] { KILN_RUN(Work::pointwise, gru_collect(stream, t, s, dg.data(), dk.data(), dgx.data())); },
      [=]() -> Want {
        return [=, dg = host(dg), dk = host(dk)](int64_t i) {
          const int64_t j = i % (3 * s.c), row = i / (3 * s.c), p = row % s.pixels, f = row / s.pixels % s.frames, n = row / s.pixels / s.frames;
          const int64_t from = (f * s.n + n) * s.pixels + p;
          return j < 2 * s.c ? element(dg, from * 2 * s.c + j) : element(dk, from * s.c + j - 2 * s.c);
        };
      });
}

}  // namespace

void add_clip_cases(std::vector<Case>& cases, const Scale& scale, DType t) {
  const int64_t side = std::max(4, scale.size / 8);
  const Shape clip{scale.batch, kFrames, side, side, 2 * scale.width}, condition{scale.batch, kFrames, side, side, 3};
  const auto add = [&](const char* name, const Shape& s, auto prepare) { cases.push_back({name, s.text(), t, prepare}); };
  for (const bool backward : {false, true}) {
    add(backward ? "frames_backward" : "frames_forward", clip, [=] { return padding(t, clip, backward); });
    add(backward ? "gather_frames_backward" : "gather_frames_forward", clip, [=] { return gathering(t, clip, backward); });
    add(backward ? "box_fill" : "box_sum", clip, [=] { return pooling(t, clip, backward); });
    add(backward ? "clip_resize_backward" : "clip_resize_forward", condition, [=] { return resizing(t, condition, backward); });
  }
  add("gru_gates", clip, [=] { return gru_gates_case(t, clip); });
  add("gru_blend", clip, [=] { return gru_blend_case(t, clip); });
  add("gru_blend_backward", clip, [=] { return gru_blend_backward_case(t, clip); });
  add("gru_gates_backward", clip, [=] { return gru_gates_backward_case(t, clip); });
  add("gru_collect", clip, [=] { return gru_collect_case(t, clip); });
}

}  // namespace kiln::bench
