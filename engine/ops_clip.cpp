#include "engine/ops_clip.h"

#include "engine/convolution.h"
#include "engine/error.h"
#include "engine/layer_table.h"
#include "kernels/clip.h"

namespace kiln {
namespace {

/// Frames of a clip that move as a whole.
FrameShape frame_shape(const Shape& clip, int64_t out_t) {
  KILN_ASSERT(clip.rank() == 5);
  return {clip[0], int(clip[1]), int(out_t), int(clip[2]), int(clip[3] * clip[4])};
}

Var map_frames(const Var& x, const FrameShape& s, const FrameMap& map, const Shape& shape) {
  const bool record = recording({&x});
  const DType t = x.value.dtype();
  Var y(Tensor(shape, t), record);
  KILN_RUN(Work::pointwise, frames_forward(stream, t, s, map, x.value.data(), y.value.data()));
  if (record)
    context().tape->push([=, xs = x.shape(), xn = x.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      const Tensor dx(xs, t);
      KILN_RUN(Work::pointwise, frames_backward(stream, t, s, map, dy.data(), dx.data()));
      xn->add(dx);
    });
  return y;
}

/// small = scale * sums of boxes of large, or with `fill` large = scale * small: each is the other's adjoint.
Var boxes(const Var& x, const BoxShape& s, float scale, bool fill, const Shape& shape) {
  const bool record = recording({&x});
  const DType t = x.value.dtype();
  Var y(Tensor(shape, t), record);
  if (fill)
    KILN_RUN(Work::pointwise, box_fill(stream, t, s, scale, x.value.data(), y.value.data()));
  else
    KILN_RUN(Work::pointwise, box_sum(stream, t, s, scale, x.value.data(), y.value.data()));
  if (record)
    context().tape->push([=, xs = x.shape(), xn = x.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      const Tensor dx(xs, t);
      if (fill)
        KILN_RUN(Work::pointwise, box_sum(stream, t, s, scale, dy.data(), dx.data()));
      else
        KILN_RUN(Work::pointwise, box_fill(stream, t, s, scale, dy.data(), dx.data()));
      xn->add(dx);
    });
  return y;
}

}  // namespace

// ---- clips and frames ------------------------------------------------------------------------------------------------

Var frames_of(const Var& clip) {
  const Shape& s = clip.shape();
  KILN_ASSERT(s.rank() == 5);
  return reshape(clip, Shape{s[0] * s[1], s[2], s[3], s[4]});
}

Var clip_of(const Var& frames, int64_t t) {
  const Shape& s = frames.shape();
  KILN_ASSERT(s.rank() == 4 && t > 0 && s[0] % t == 0);
  return reshape(frames, Shape{s[0] / t, t, s[1], s[2], s[3]});
}

Var repeat_per_frame(const Var& x, int64_t t) {
  const Shape& s = x.shape();
  KILN_ASSERT(s.rank() == 2 && t > 0);
  return map_frames(x, FrameShape{s[0], 1, int(t), 1, int(s[1])}, FrameMap{0, 1, int(t)}, Shape{s[0] * t, s[1]});
}

Var sum_frames(const Var& x, int64_t t) {
  const Shape& s = x.shape();
  KILN_ASSERT(t > 0 && s[0] % t == 0);
  const int64_t n = s[0] / t;
  return boxes(x, BoxShape{n, int(t), 1, 1, int(s.count() / s[0]), int(t), 1}, 1.f, false, s.with(0, n));
}

// ---- convolution -----------------------------------------------------------------------------------------------------

Var conv3d(const Var& clip, const Var& weight, TimePadding time) {
  const Shape xs = clip.shape(), ws = weight.shape();
  KILN_ASSERT(xs.rank() == 5 && ws.rank() == 5 && ws[4] == xs[4] && ws[1] % 2 == 1 && ws[2] % 2 == 1 && ws[2] == ws[3]);
  const int kt = int(ws[1]), k = int(ws[2]);
  if (kt == 1) return clip_of(conv2d(frames_of(clip), weight, 1, k / 2), xs[1]);
  if (time == TimePadding::replicate) return conv3d(pad_time(clip, kt / 2, kt / 2), weight, TimePadding::none);
  const int pad = time == TimePadding::zero ? kt / 2 : 0;
  ConvShape s{xs[0], xs[2], xs[3], xs[4], xs[2], xs[3], ws[0], k, k, 1, k / 2, false};
  s.d = xs[1];
  s.od = xs[1] + 2 * pad - kt + 1;
  s.kd = kt;
  s.pad_d = pad;
  KILN_ASSERT(s.od > 0);
  const bool record = recording({&clip, &weight});
  Var y(Tensor(Shape{s.n, s.od, s.oh, s.ow, s.oc}, clip.value.dtype()), record);
  note_layer(weight.value, y.shape());
  conv_forward(s, clip.value, weight.value, y.value);
  if (record)
    context().tape->push([s, xs, ws, xv = weight.node ? clip.value : Tensor(), wv = clip.node ? weight.value : Tensor(), xn = clip.node,
                          wn = weight.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      if (wn) {
        const Tensor dw = wn->target(ws, DType::f32);
        conv_backward_weights(s, xv, dy, dw);
        wn->add(dw);
      }
      if (xn) {
        const Tensor dx = xn->target(xs, dy.dtype());
        conv_backward_data(s, dy, wv, dx);
        xn->add(dx);
      }
    });
  return y;
}

// ---- frames ----------------------------------------------------------------------------------------------------------

Var gather_frames(const Var& clip, const Tensor& index) {
  const Shape xs = clip.shape();
  KILN_ASSERT(index.dtype() == DType::i32 && index.shape().rank() == 2 && index.shape()[0] == xs[0]);
  const FrameShape s = frame_shape(xs, index.shape()[1]);
  const bool record = recording({&clip});
  const DType t = clip.value.dtype();
  Var y(Tensor(xs.with(1, s.out_t), t), record);
  KILN_RUN(Work::data, gather_frames_forward(stream, t, s, index.as<int32_t>(), clip.value.data(), y.value.data()));
  if (record)
    context().tape->push([=, xn = clip.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      const Tensor dx(xs, t);
      KILN_RUN(Work::data, gather_frames_backward(stream, t, s, index.as<int32_t>(), dy.data(), dx.data()));
      xn->add(dx);
    });
  return y;
}

Tensor draw_frames(const Tensor& uniforms, int64_t k) {
  const int64_t n = uniforms.shape()[0], t = uniforms.shape()[1];
  KILN_ASSERT(uniforms.shape().rank() == 2 && k > 0 && k <= t);
  const Tensor index(Shape{n, k}, DType::i32);
  KILN_RUN(Work::data, draw_frames(stream, n, int(t), int(k), uniforms.f32(), index.as<int32_t>()));
  return index;
}

Var take_frames(const Var& clip, int64_t first, int64_t stride, int64_t count) {
  const Shape& s = clip.shape();
  KILN_ASSERT(first >= 0 && stride > 0 && count > 0 && first + stride * (count - 1) < s[1]);
  return map_frames(clip, frame_shape(s, count), FrameMap{int(first), int(stride), 1}, s.with(1, count));
}

Var pad_time(const Var& clip, int64_t before, int64_t behind) {
  const Shape& s = clip.shape();
  const int64_t out = s[1] + before + behind;
  KILN_ASSERT(before >= 0 && behind >= 0);
  return map_frames(clip, frame_shape(s, out), FrameMap{-int(before), 1, 1}, s.with(1, out));
}

Var time_repeat(const Var& clip, int64_t factor) {
  const Shape& s = clip.shape();
  KILN_ASSERT(factor > 0);
  return map_frames(clip, frame_shape(s, s[1] * factor), FrameMap{0, 1, int(factor)}, s.with(1, s[1] * factor));
}

Var time_pool(const Var& clip, int64_t factor) {
  const Shape& s = clip.shape();
  KILN_ASSERT(s.rank() == 5 && factor > 0 && s[1] % factor == 0);
  // Whole frames: h, w and c are one axis to the kernel.
  const BoxShape b{s[0], int(s[1]), int(s[2]), 1, int(s[3] * s[4]), int(factor), 1};
  return boxes(clip, b, 1.f / float(factor), false, s.with(1, s[1] / factor));
}

Var clip_pool(const Var& clip, int64_t ft, int64_t fs) {
  const Shape& s = clip.shape();
  KILN_ASSERT(s.rank() == 5 && ft > 0 && fs > 0 && s[1] % ft == 0 && s[2] % fs == 0 && s[3] % fs == 0);
  const BoxShape b{s[0], int(s[1]), int(s[2]), int(s[3]), int(s[4]), int(ft), int(fs)};
  return boxes(clip, b, 1.f / float(ft * fs * fs), false, Shape{s[0], s[1] / ft, s[2] / fs, s[3] / fs, s[4]});
}

Var clip_repeat(const Var& clip, int64_t ft, int64_t fs) {
  const Shape& s = clip.shape();
  KILN_ASSERT(s.rank() == 5 && ft > 0 && fs > 0);
  const BoxShape b{s[0], int(s[1] * ft), int(s[2] * fs), int(s[3] * fs), int(s[4]), int(ft), int(fs)};
  return boxes(clip, b, 1.f, true, Shape{s[0], b.t, b.h, b.w, s[4]});
}

Var resize_clip(const Var& clip, int64_t out_t, int64_t out_h, int64_t out_w, TimeScaling time) {
  const Shape xs = clip.shape();
  KILN_ASSERT(xs.rank() == 5 && out_t > 0 && out_h > 0 && out_w > 0);
  const ClipResize s{xs[0], int(xs[1]), int(xs[2]), int(xs[3]), int(out_t), int(out_h), int(out_w), int(xs[4]), time == TimeScaling::linear};
  const bool record = recording({&clip});
  const DType t = clip.value.dtype();
  Var y(Tensor(Shape{xs[0], out_t, out_h, out_w, xs[4]}, t), record);
  KILN_RUN(Work::pointwise, clip_resize_forward(stream, t, s, clip.value.data(), y.value.data()));
  if (record)
    context().tape->push([=, xn = clip.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      const Tensor dx(xs, t);
      KILN_RUN(Work::pointwise, clip_resize_backward(stream, t, s, dy.data(), dx.data()));
      xn->add(dx);
    });
  return y;
}

}  // namespace kiln
