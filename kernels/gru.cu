#include "kernels/gru.h"

#include "kernels/activation_math.h"
#include "kernels/exec/primitives.h"

namespace kiln::KILN_EXEC {
namespace {

/// Where row r, a pixel of one frame of all videos, lies in a clip.
KILN_HD int64_t row_in_clip(const GruShape& s, int64_t r, int frame) {
  const int64_t n = int64_t(uint32_t(r) / uint32_t(s.pixels));
  return (n * s.frames + frame) * s.pixels + (r - n * s.pixels);
}
KILN_HD int64_t row_of_input(const GruShape& s, int64_t r, int frame) { return s.constant_input ? r : row_in_clip(s, r, frame); }

template <class T>
struct Gates {
  GruShape s;
  int frame;
  const T *gx, *gh, *h;
  const float* b;
  T *ru, *rh;
  template <int P>
  KILN_HD void operator()(int64_t r, int j) const {
    const T* x = gx + row_of_input(s, r, frame) * 3 * s.c + j;
    Pack<P> reset = load<P>(x) + load<P>(b + j), update = load<P>(x + s.c) + load<P>(b + s.c + j);
    if (gh) {
      reset += load<P>(gh + r * 2 * s.c + j);
      update += load<P>(gh + r * 2 * s.c + s.c + j);
    }
    reset = sigmoid(reset);
    store<P>(ru + r * 2 * s.c + j, reset);
    store<P>(ru + r * 2 * s.c + s.c + j, sigmoid(update));
    if (rh) store<P>(rh + r * s.c + j, reset * load<P>(h + r * s.c + j));
  }
};

template <class T, Activation A>
struct Blend {
  GruShape s;
  int frame;
  const T *gx, *ck, *ru, *h;
  const float* b;
  T *k, *h_next, *y;
  template <int P>
  KILN_HD void operator()(int64_t r, int j) const {
    Pack<P> v = load<P>(gx + row_of_input(s, r, frame) * 3 * s.c + 2 * s.c + j) + load<P>(b + 2 * s.c + j);
    if (ck) v += load<P>(ck + r * s.c + j);
    v = activate<A>(v);
    const Pack<P> u = load<P>(ru + r * 2 * s.c + s.c + j);
    Pack<P> next = (1.0f - u) * v;
    if (h) next += u * load<P>(h + r * s.c + j);
    store<P>(k + r * s.c + j, v);
    store<P>(h_next + r * s.c + j, next);
    store<P>(y + row_in_clip(s, r, frame) * s.c + j, next);
  }
};

template <class T, Activation A>
struct BlendBackward {
  GruShape s;
  int frame;
  const T *dy, *carry1, *carry2, *ru, *h, *k;
  T *dg, *dk, *dh;
  template <int P>
  KILN_HD void operator()(int64_t r, int j) const {
    const int64_t at = r * s.c + j;
    Pack<P> d = load<P>(dy + row_in_clip(s, r, frame) * s.c + j);
    if (carry1) d += load<P>(carry1 + at);
    if (carry2) d += load<P>(carry2 + at);
    const Pack<P> u = load<P>(ru + r * 2 * s.c + s.c + j), v = load<P>(k + at);
    const Pack<P> before = h ? load<P>(h + at) : Pack<P>(0.f);
    store<P>(dg + r * 2 * s.c + s.c + j, d * (before - v) * u * (1.0f - u));
    store<P>(dk + at, d * (1.0f - u) * slope<A>(v));
    if (!h) store<P>(dg + r * 2 * s.c + j, Pack<P>(0.f));
    if (dh) store<P>(dh + at, d * u);
  }
};

template <class T>
struct GatesBackward {
  GruShape s;
  const T *drh, *ru, *h;
  T *dg, *dh, *rh;
  template <int P>
  KILN_HD void operator()(int64_t r, int j) const {
    const int64_t at = r * s.c + j;
    const Pack<P> d = load<P>(drh + at), reset = load<P>(ru + r * 2 * s.c + j), before = load<P>(h + at);
    store<P>(dg + r * 2 * s.c + j, d * before * reset * (1.0f - reset));
    if (dh) store<P>(dh + at, load<P>(dh + at) + d * reset);
    store<P>(rh + at, reset * before);
  }
};

template <class T>
struct Collect {
  GruShape s;
  const T *dg, *dk;
  T* dgx;
  template <int P>
  KILN_HD void operator()(int64_t r, int j) const {
    // r: a row of dgx. Its rows of dg and dk lie n * pixels apart from frame to frame.
    const int64_t all = s.n * s.pixels, frame_row = r / s.pixels, pixel = r - frame_row * s.pixels;
    const int64_t n = s.constant_input ? frame_row : frame_row / s.frames;
    const int first = s.constant_input ? 0 : int(frame_row - n * s.frames), last = s.constant_input ? s.frames - 1 : first;
    Pack<P> reset(0.f), update(0.f), candidate(0.f);
    for (int f = first; f <= last; f++) {
      const int64_t row = f * all + n * s.pixels + pixel;
      reset += load<P>(dg + row * 2 * s.c + j);
      update += load<P>(dg + row * 2 * s.c + s.c + j);
      candidate += load<P>(dk + row * s.c + j);
    }
    T* to = dgx + r * 3 * s.c + j;
    store<P>(to, reset);
    store<P>(to + s.c, update);
    store<P>(to + 2 * s.c, candidate);
  }
};

template <class Body>
void with_candidate(Activation a, Body body) {
  if (a == Activation::tanh) return body.template operator()<Activation::tanh>();
  return body.template operator()<Activation::relu>();
}

}  // namespace

void gru_gates(Stream stream, DType t, const GruShape& s, int frame, const void* gx, const void* gh, const void* h, const float* b,
               void* ru, void* rh) {
  with_dtype(t, [&]<class T>() {
    map_rows<T>(stream, s.n * s.pixels, s.c, Gates<T>{s, frame, (const T*)gx, (const T*)gh, (const T*)h, b, (T*)ru, (T*)rh});
  });
}

void gru_blend(Stream stream, DType t, const GruShape& s, int frame, Activation act, const void* gx, const void* ck, const void* ru,
               const void* h, const float* b, void* k, void* h_next, void* y) {
  with_dtype(t, [&]<class T>() {
    with_candidate(act, [&]<Activation A>() {
      map_rows<T>(stream, s.n * s.pixels, s.c,
                  Blend<T, A>{s, frame, (const T*)gx, (const T*)ck, (const T*)ru, (const T*)h, b, (T*)k, (T*)h_next, (T*)y});
    });
  });
}

void gru_blend_backward(Stream stream, DType t, const GruShape& s, int frame, Activation act, const void* dy, const void* carry1,
                        const void* carry2, const void* ru, const void* h, const void* k, void* dg, void* dk, void* dh) {
  with_dtype(t, [&]<class T>() {
    with_candidate(act, [&]<Activation A>() {
      map_rows<T>(stream, s.n * s.pixels, s.c,
                  BlendBackward<T, A>{s, frame, (const T*)dy, (const T*)carry1, (const T*)carry2, (const T*)ru, (const T*)h, (const T*)k,
                                      (T*)dg, (T*)dk, (T*)dh});
    });
  });
}

void gru_gates_backward(Stream stream, DType t, const GruShape& s, const void* drh, const void* ru, const void* h, void* dg, void* dh,
                        void* rh) {
  with_dtype(t, [&]<class T>() {
    map_rows<T>(stream, s.n * s.pixels, s.c,
                GatesBackward<T>{s, (const T*)drh, (const T*)ru, (const T*)h, (T*)dg, (T*)dh, (T*)rh});
  });
}

void gru_collect(Stream stream, DType t, const GruShape& s, const void* dg, const void* dk, void* dgx) {
  with_dtype(t, [&]<class T>() {
    map_rows<T>(stream, s.n * s.pixels * (s.constant_input ? 1 : s.frames), s.c,
                Collect<T>{s, (const T*)dg, (const T*)dk, (T*)dgx});
  });
}

}  // namespace kiln::KILN_EXEC
