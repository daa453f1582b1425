#include "kernels/clip.h"

#include "kernels/exec/pixel.h"
#include "kernels/exec/primitives.h"

namespace kiln::KILN_EXEC {
namespace {

// ---- whole frames: one row of the launch is one line of a frame ------------------------------------------------------

/// Line r of clips of t frames: which video, frame and line.
struct Line {
  int64_t n;
  int frame, row;
};
KILN_HD Line line_of(int64_t r, int t, int rows) {
  const Pixel p = pixel_of(r, t, rows);
  return {p.n, p.i, p.j};
}

KILN_HD int source_of(const FrameMap& m, int o, int t) {
  const int i = m.first + m.step * o, f = i < 0 ? 0 : i / m.divide;
  return f < t ? f : t - 1;
}

/// The first o whose source is frame i or a later one; out_t where there is none.
KILN_HD int first_reader(const FrameMap& m, int i, int t, int out_t) {
  if (i == 0) return 0;
  if (i == t) return out_t;
  const int above = i * m.divide - m.first;
  const int o = above <= 0 ? 0 : (above + m.step - 1) / m.step;
  return o < out_t ? o : out_t;
}

template <class T>
struct FramesForward {
  FrameShape s;
  FrameMap m;
  const T* x;
  T* y;
  template <int P>
  KILN_HD void operator()(int64_t r, int j) const {
    const Line o = line_of(r, s.out_t, s.rows);
    const int64_t from = (o.n * s.t + source_of(m, o.frame, s.t)) * s.rows + o.row;
    store<P>(y + r * s.width + j, load<P>(x + from * s.width + j));
  }
};

template <class T>
struct FramesBackward {
  FrameShape s;
  FrameMap m;
  const T* dy;
  T* dx;
  template <int P>
  KILN_HD void operator()(int64_t r, int j) const {
    const Line i = line_of(r, s.t, s.rows);
    const int end = first_reader(m, i.frame + 1, s.t, s.out_t);
    Pack<P> acc(0.f);
    for (int o = first_reader(m, i.frame, s.t, s.out_t); o < end; o++)
      acc += load<P>(dy + ((i.n * s.out_t + o) * s.rows + i.row) * s.width + j);
    store<P>(dx + r * s.width + j, acc);
  }
};

template <class T>
struct GatherForward {
  FrameShape s;
  const int32_t* index;
  const T* x;
  T* y;
  template <int P>
  KILN_HD void operator()(int64_t r, int j) const {
    const Line o = line_of(r, s.out_t, s.rows);
    const int64_t from = (o.n * s.t + index[o.n * s.out_t + o.frame]) * s.rows + o.row;
    store<P>(y + r * s.width + j, load<P>(x + from * s.width + j));
  }
};

template <class T>
struct GatherBackward {
  FrameShape s;
  const int32_t* index;
  const T* dy;
  T* dx;
  template <int P>
  KILN_HD void operator()(int64_t r, int j) const {
    const Line i = line_of(r, s.t, s.rows);
    Pack<P> acc(0.f);
    for (int o = 0; o < s.out_t; o++)
      if (index[i.n * s.out_t + o] == i.frame) acc += load<P>(dy + ((i.n * s.out_t + o) * s.rows + i.row) * s.width + j);
    store<P>(dx + r * s.width + j, acc);
  }
};

struct DrawFrames {
  int t, k;
  const float* u;
  int32_t* index;
  KILN_HD void operator()(int64_t n) const {
    int chosen = 0;
    for (int i = 0; i < t && chosen < k; i++) {
      const int left = t - i, wanted = k - chosen;
      if (left == wanted || u[n * t + i] * float(left) < float(wanted)) index[n * k + chosen++] = i;
    }
  }
};

// ---- boxes -----------------------------------------------------------------------------------------------------------

/// A pixel of a clip [n, t, h, w].
struct Voxel {
  int64_t n;
  int t, i, j;
};
KILN_HD Voxel voxel_of(int64_t r, int t, int h, int w) {
  const Pixel p = pixel_of(r, h, w);
  const uint32_t frame = uint32_t(p.n), n = frame / uint32_t(t);
  return {int64_t(n), int(frame - n * uint32_t(t)), p.i, p.j};
}

template <class T>
struct BoxSum {
  BoxShape s;
  float scale;
  const T* large;
  T* small;
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {
    const Voxel o = voxel_of(r, s.t / s.ft, s.h / s.fs, s.w / s.fs);
    Pack<P> acc(0.f);
    for (int f = 0; f < s.ft; f++)
      for (int i = 0; i < s.fs; i++) {
        const int64_t line = (o.n * s.t + o.t * s.ft + f) * s.h + o.i * s.fs + i;
        for (int j = 0; j < s.fs; j++) acc += load<P>(large + (line * s.w + o.j * s.fs + j) * s.c + c);
      }
    store<P>(small + r * s.c + c, acc * scale);
  }
};

template <class T>
struct BoxFill {
  BoxShape s;
  float scale;
  const T* small;
  T* large;
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {
    const Voxel o = voxel_of(r, s.t, s.h, s.w);
    const int64_t line = (o.n * (s.t / s.ft) + o.t / s.ft) * (s.h / s.fs) + o.i / s.fs;
    store<P>(large + r * s.c + c, load<P>(small + (line * (s.w / s.fs) + o.j / s.fs) * s.c + c) * scale);
  }
};

// ---- resizing --------------------------------------------------------------------------------------------------------

/// What output o of an axis is made of: input i0 with weight 1 - f, i1 with f.
struct Tap {
  int i0, i1;
  float f;
};
KILN_HD Tap linear_tap(int o, int in, int out) {
  const float s = (float(o) + 0.5f) * (float(in) / float(out)) - 0.5f, p = s > 0.f ? s : 0.f;
  const int i0 = int(p) < in - 1 ? int(p) : in - 1;
  return {i0, i0 + 1 < in ? i0 + 1 : i0, p - float(i0)};
}
KILN_HD Tap time_tap(bool linear, int o, int in, int out) {
  if (linear) return linear_tap(o, in, out);
  const int i = int(uint32_t(o) * uint32_t(in) / uint32_t(out));
  return {i, i, 0.f};
}
KILN_HD float weight_of(const Tap& t, int i) { return (t.i0 == i ? 1.f - t.f : 0.f) + (t.i1 == i ? t.f : 0.f); }

/// A range of outputs that holds all that read input i, in either way; a little wider than they are.
struct Range {
  int begin, end;
};
KILN_HD Range readers(int i, int in, int out) {
  const float scale = float(out) / float(in);
  const int low = int((float(i) - 1.f) * scale) - 2, high = int((float(i) + 2.f) * scale) + 2;
  return {i == 0 || low < 0 ? 0 : low, i == in - 1 || high > out ? out : high};
}

template <class T>
struct ResizeForward {
  ClipResize s;
  const T* x;
  T* y;
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {
    const Voxel o = voxel_of(r, s.out_t, s.out_h, s.out_w);
    const Tap tt = time_tap(s.linear_time, o.t, s.t, s.out_t), ti = linear_tap(o.i, s.h, s.out_h), tj = linear_tap(o.j, s.w, s.out_w);
    const auto line = [&](int t, int i) {
      const T* p = x + ((o.n * s.t + t) * s.h + i) * s.w * s.c + c;
      return load<P>(p + int64_t(tj.i0) * s.c) * (1.f - tj.f) + load<P>(p + int64_t(tj.i1) * s.c) * tj.f;
    };
    const auto frame = [&](int t) { return line(t, ti.i0) * (1.f - ti.f) + line(t, ti.i1) * ti.f; };
    Pack<P> v = frame(tt.i0);
    if (tt.i1 != tt.i0) v = v * (1.f - tt.f) + frame(tt.i1) * tt.f;
    store<P>(y + r * s.c + c, v);
  }
};

template <class T>
struct ResizeBackward {
  ClipResize s;
  const T* dy;
  T* dx;
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {
    const Voxel p = voxel_of(r, s.t, s.h, s.w);
    const Range rt = readers(p.t, s.t, s.out_t), ri = readers(p.i, s.h, s.out_h), rj = readers(p.j, s.w, s.out_w);
    Pack<P> acc(0.f);
    for (int t = rt.begin; t < rt.end; t++) {
      const float wt = weight_of(time_tap(s.linear_time, t, s.t, s.out_t), p.t);
      if (wt == 0.f) continue;
      for (int i = ri.begin; i < ri.end; i++) {
        const float wi = wt * weight_of(linear_tap(i, s.h, s.out_h), p.i);
        if (wi == 0.f) continue;
        for (int j = rj.begin; j < rj.end; j++) {
          const float wj = wi * weight_of(linear_tap(j, s.w, s.out_w), p.j);
          if (wj != 0.f) acc += load<P>(dy + (((p.n * s.out_t + t) * s.out_h + i) * s.out_w + j) * s.c + c) * wj;
        }
      }
    }
    store<P>(dx + r * s.c + c, acc);
  }
};

}  // namespace

void frames_forward(Stream stream, DType t, const FrameShape& s, const FrameMap& map, const void* x, void* y) {
  with_dtype(t, [&]<class T>() {
    map_rows<T>(stream, s.n * s.out_t * s.rows, s.width, FramesForward<T>{s, map, (const T*)x, (T*)y});
  });
}
void frames_backward(Stream stream, DType t, const FrameShape& s, const FrameMap& map, const void* dy, void* dx) {
  with_dtype(t, [&]<class T>() { map_rows<T>(stream, s.n * s.t * s.rows, s.width, FramesBackward<T>{s, map, (const T*)dy, (T*)dx}); });
}
void gather_frames_forward(Stream stream, DType t, const FrameShape& s, const int32_t* index, const void* x, void* y) {
  with_dtype(t, [&]<class T>() {
    map_rows<T>(stream, s.n * s.out_t * s.rows, s.width, GatherForward<T>{s, index, (const T*)x, (T*)y});
  });
}
void gather_frames_backward(Stream stream, DType t, const FrameShape& s, const int32_t* index, const void* dy, void* dx) {
  with_dtype(t, [&]<class T>() {
    map_rows<T>(stream, s.n * s.t * s.rows, s.width, GatherBackward<T>{s, index, (const T*)dy, (T*)dx});
  });
}
void draw_frames(Stream stream, int64_t n, int t, int k, const float* u, int32_t* index) {
  map_each(stream, n, DrawFrames{t, k, u, index}, t);
}
void box_sum(Stream stream, DType t, const BoxShape& s, float scale, const void* large, void* small) {
  with_dtype(t, [&]<class T>() {
    map_rows<T>(stream, s.n * (s.t / s.ft) * (s.h / s.fs) * (s.w / s.fs), s.c, BoxSum<T>{s, scale, (const T*)large, (T*)small});
  });
}
void box_fill(Stream stream, DType t, const BoxShape& s, float scale, const void* small, void* large) {
  with_dtype(t, [&]<class T>() {
    map_rows<T>(stream, s.n * s.t * s.h * s.w, s.c, BoxFill<T>{s, scale, (const T*)small, (T*)large});
  });
}
void clip_resize_forward(Stream stream, DType t, const ClipResize& s, const void* x, void* y) {
  with_dtype(t, [&]<class T>() {
    map_rows<T>(stream, s.n * s.out_t * s.out_h * s.out_w, s.c, ResizeForward<T>{s, (const T*)x, (T*)y});
  });
}
void clip_resize_backward(Stream stream, DType t, const ClipResize& s, const void* dy, void* dx) {
  with_dtype(t, [&]<class T>() {
    map_rows<T>(stream, s.n * s.t * s.h * s.w, s.c, ResizeBackward<T>{s, (const T*)dy, (T*)dx});
  });
}

}  // namespace kiln::KILN_EXEC
