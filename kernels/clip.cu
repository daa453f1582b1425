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
    KILN_ROLLED for (int o = 0; o < s.out_t; o++)
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
    const int64_t line = int64_t(s.w) * s.c;
    const T* p = large + (((o.n * s.t + o.t * s.ft) * s.h + o.i * s.fs) * s.w + o.j * s.fs) * s.c + c;
    Pack<P> acc(0.f);
    KILN_ROLLED for (int f = 0; f < s.ft; f++, p += (s.h - s.fs) * line)
      KILN_ROLLED for (int i = 0; i < s.fs; i++, p += line)
        KILN_ROLLED for (int j = 0; j < s.fs; j++) acc += load<P>(p + int64_t(j) * s.c);
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

/// One axis: sizes, input pixels an output pixel, and whether an output is between two inputs or is one of them.
struct Axis {
  int in, out;
  float step;
  bool linear;
  Axis(int i, int o, bool l) : in(i), out(o), step(float(i) / float(o)), linear(l) {}
  /// Where output o lies among the inputs: 0 ... in - 1.
  KILN_HD float place(int o) const {
    if (!linear) return float(int(uint32_t(o) * uint32_t(in) / uint32_t(out)));
    const float p = (float(o) + 0.5f) * step - 0.5f, last = float(in - 1);
    return p < 0.f ? 0.f : p < last ? p : last;
  }
  /// What output o takes of input i.
  KILN_HD float weight(int o, int i) const {
    const float distance = fabsf(place(o) - float(i));
    return distance < 1.f ? 1.f - distance : 0.f;
  }
  /// Outputs that hold all that take of input i, and a few more.
  KILN_HD int begin(int i) const {
    const int o = int(float(i - 1) / step) - 2;
    return i == 0 || o < 0 ? 0 : o;
  }
  KILN_HD int end(int i) const {
    const int o = int(float(i + 2) / step) + 2;
    return i == in - 1 || o > out ? out : o;
  }
};

template <class T>
struct ResizeForward {
  Axis t, h, w;
  int c;
  const T* x;
  T* y;
  template <int P>
  KILN_HD void operator()(int64_t r, int j) const {
    const Voxel o = voxel_of(r, t.out, h.out, w.out);
    const float pt = t.place(o.t), pi = h.place(o.i), pj = w.place(o.j);
    const int t0 = int(pt), i0 = int(pi), j0 = int(pj);
    const float ft = pt - float(t0), fi = pi - float(i0), fj = pj - float(j0);
    // The second neighbour where there is none is the first one, with weight 0.
    const int64_t right = j0 + 1 < w.in ? c : 0, below = i0 + 1 < h.in ? int64_t(w.in) * c : 0, behind = int64_t(h.in) * w.in * c;
    const T* p = x + (((o.n * t.in + t0) * h.in + i0) * w.in + j0) * c + j;
    const auto frame = [&](const T* q) {
      const Pack<P> top = load<P>(q) * (1.f - fj) + load<P>(q + right) * fj;
      return top * (1.f - fi) + (load<P>(q + below) * (1.f - fj) + load<P>(q + below + right) * fj) * fi;
    };
    Pack<P> v = frame(p);
    if (ft > 0.f) v = v * (1.f - ft) + frame(p + behind) * ft;
    store<P>(y + r * c + j, v);
  }
};

template <class T>
struct ResizeBackward {
  Axis t, h, w;
  int c;
  const T* dy;
  T* dx;
  template <int P>
  KILN_HD void operator()(int64_t r, int j) const {
    const Voxel p = voxel_of(r, t.in, h.in, w.in);
    const int last_t = t.end(p.t), last_i = h.end(p.i), last_j = w.end(p.j);
    Pack<P> acc(0.f);
    KILN_ROLLED for (int a = t.begin(p.t); a < last_t; a++) {
      const float wt = t.weight(a, p.t);
      if (wt == 0.f) continue;
      KILN_ROLLED for (int b = h.begin(p.i); b < last_i; b++) {
        const float wi = wt * h.weight(b, p.i);
        if (wi == 0.f) continue;
        const T* line = dy + ((p.n * t.out + a) * h.out + b) * w.out * c + j;
        KILN_ROLLED for (int d = w.begin(p.j); d < last_j; d++) {
          const float wj = wi * w.weight(d, p.j);
          if (wj != 0.f) acc += load<P>(line + int64_t(d) * c) * wj;
        }
      }
    }
    store<P>(dx + r * c + j, acc);
  }
};

Axis time_axis(const ClipResize& s) { return Axis(s.t, s.out_t, s.linear_time); }
Axis rows_axis(const ClipResize& s) { return Axis(s.h, s.out_h, true); }
Axis columns_axis(const ClipResize& s) { return Axis(s.w, s.out_w, true); }

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
    map_rows<T>(stream, s.n * s.out_t * s.out_h * s.out_w, s.c, ResizeForward<T>{time_axis(s), rows_axis(s), columns_axis(s), s.c, (const T*)x, (T*)y});
  });
}
void clip_resize_backward(Stream stream, DType t, const ClipResize& s, const void* dy, void* dx) {
  with_dtype(t, [&]<class T>() {
    map_rows<T>(stream, s.n * s.t * s.h * s.w, s.c, ResizeBackward<T>{time_axis(s), rows_axis(s), columns_axis(s), s.c, (const T*)dy, (T*)dx});
  });
}

}  // namespace kiln::KILN_EXEC
