#include "kernels/resize.h"

#include "kernels/exec/pixel.h"
#include "kernels/exec/primitives.h"

namespace kiln::KILN_EXEC {
namespace {

/// a b / c of sides, whose products fit in 32 bits: no kernel here needs a 64-bit division for them.
KILN_HD int scaled(int a, int b, int c) { return int(uint32_t(a) * uint32_t(b) / uint32_t(c)); }

template <class T>
struct NearestForward {
  ResizeShape s;
  const T* x;
  T* y;
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {
    const Pixel o = pixel_of(r, s.out_h, s.out_w);
    const int i = scaled(o.i, s.h, s.out_h), j = scaled(o.j, s.w, s.out_w);
    store<P>(y + r * s.c + c, load<P>(x + ((o.n * s.h + i) * s.w + j) * s.c + c));
  }
};

/// First output index that reads input index i or a later one: ceil(i * out / in).
KILN_HD int first_reader(int i, int in, int out) { return int((uint32_t(i) * uint32_t(out) + uint32_t(in) - 1) / uint32_t(in)); }

template <class T>
struct NearestBackward {
  ResizeShape s;
  const T* dy;
  T* dx;
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {
    const Pixel p = pixel_of(r, s.h, s.w);
    const int i0 = first_reader(p.i, s.h, s.out_h), i1 = first_reader(p.i + 1, s.h, s.out_h);
    const int j0 = first_reader(p.j, s.w, s.out_w), j1 = first_reader(p.j + 1, s.w, s.out_w);
    Pack<P> acc(0.f);
    for (int i = i0; i < i1; i++)
      for (int j = j0; j < j1; j++) acc += load<P>(dy + ((p.n * s.out_h + i) * s.out_w + j) * s.c + c);
    store<P>(dx + r * s.c + c, acc);
  }
};

/// The window of input indices that output index o averages: [begin, end).
KILN_HD int window_begin(int o, int in, int out) { return scaled(o, in, out); }
KILN_HD int window_end(int o, int in, int out) { return int((uint32_t(o + 1) * uint32_t(in) + uint32_t(out) - 1) / uint32_t(out)); }

template <class T>
struct AreaForward {
  ResizeShape s;
  const T* x;
  T* y;
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {
    const Pixel o = pixel_of(r, s.out_h, s.out_w);
    const int i0 = window_begin(o.i, s.h, s.out_h), i1 = window_end(o.i, s.h, s.out_h);
    const int j0 = window_begin(o.j, s.w, s.out_w), j1 = window_end(o.j, s.w, s.out_w);
    Pack<P> acc(0.f);
    for (int i = i0; i < i1; i++)
      for (int j = j0; j < j1; j++) acc += load<P>(x + ((o.n * s.h + i) * s.w + j) * s.c + c);
    store<P>(y + r * s.c + c, acc * (1.0f / float((i1 - i0) * (j1 - j0))));
  }
};

template <class T>
struct AreaBackward {
  ResizeShape s;
  const T* dy;
  T* dx;
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {
    const Pixel p = pixel_of(r, s.h, s.w);
    // The first window that ends behind this pixel: windows overlap by one where the sizes do not divide, and then the loops
    // below reach the second one.
    const int i0 = scaled(p.i, s.out_h, s.h), j0 = scaled(p.j, s.out_w, s.w);
    Pack<P> acc(0.f);
    for (int i = i0; i < s.out_h && window_begin(i, s.h, s.out_h) <= p.i; i++)
      for (int j = j0; j < s.out_w && window_begin(j, s.w, s.out_w) <= p.j; j++) {
        const int area = (window_end(i, s.h, s.out_h) - window_begin(i, s.h, s.out_h)) *
                         (window_end(j, s.w, s.out_w) - window_begin(j, s.w, s.out_w));
        acc += load<P>(dy + ((p.n * s.out_h + i) * s.out_w + j) * s.c + c) * (1.0f / float(area));
      }
    store<P>(dx + r * s.c + c, acc);
  }
};

/// Where the sizes divide, every pixel belongs to one window, and all windows have one area.
template <class T>
struct EvenAreaBackward {
  ResizeShape s;
  int rows, columns;  // of a window
  const T* dy;
  T* dx;
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {
    const Pixel p = pixel_of(r, s.h, s.w);
    const T* from = dy + ((p.n * s.out_h + p.i / rows) * s.out_w + p.j / columns) * s.c + c;
    store<P>(dx + r * s.c + c, load<P>(from) * (1.0f / float(rows * columns)));
  }
};

/// Where output o reads along an axis: between `index` and the one behind it, whose share is `share`.
struct Between {
  int index;
  float share;
};
KILN_HD Between between(int o, int in, int out) {
  if (out == 1) return {0, 0.f};
  const int steps = out - 1, at = o * (in - 1);
  return {at / steps, float(at % steps) / float(steps)};
}

template <class T>
struct CornerBilinearForward {
  ResizeShape s;
  const T* x;
  T* y;
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {
    const Pixel o = pixel_of(r, s.out_h, s.out_w);
    const Between v = between(o.i, s.h, s.out_h), u = between(o.j, s.w, s.out_w);
    const int i1 = v.index + 1 < s.h ? v.index + 1 : v.index, j1 = u.index + 1 < s.w ? u.index + 1 : u.index;
    const auto at = [&](int i, int j) { return load<P>(x + ((o.n * s.h + i) * s.w + j) * s.c + c); };
    const Pack<P> top = at(v.index, u.index) * (1.0f - u.share) + at(v.index, j1) * u.share;
    const Pack<P> bottom = at(i1, u.index) * (1.0f - u.share) + at(i1, j1) * u.share;
    store<P>(y + r * s.c + c, top * (1.0f - v.share) + bottom * v.share);
  }
};

/// Output o's share of input i along an axis, 0 where it does not read it.
KILN_HD float share_of(int o, int i, int in, int out) {
  const Between b = between(o, in, out);
  return b.index == i ? 1.0f - b.share : b.index + 1 == i ? b.share : 0.f;
}
/// A range that holds all outputs that read input i.
KILN_HD int bilinear_begin(int i, int in, int out) { return in == 1 || i == 0 ? 0 : int(uint32_t(i - 1) * uint32_t(out - 1) / uint32_t(in - 1)); }
KILN_HD int bilinear_end(int i, int in, int out) {
  return in == 1 || i + 1 >= in ? out : int((uint32_t(i + 1) * uint32_t(out - 1) + uint32_t(in - 2)) / uint32_t(in - 1));
}

template <class T>
struct CornerBilinearBackward {
  ResizeShape s;
  const T* dy;
  T* dx;
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {
    const Pixel p = pixel_of(r, s.h, s.w);
    const int i1 = bilinear_end(p.i, s.h, s.out_h), j0 = bilinear_begin(p.j, s.w, s.out_w), j1 = bilinear_end(p.j, s.w, s.out_w);
    Pack<P> acc(0.f);
    for (int i = bilinear_begin(p.i, s.h, s.out_h); i < i1; i++) {
      const float v = share_of(i, p.i, s.h, s.out_h);
      if (v == 0.f) continue;
      for (int j = j0; j < j1; j++) {
        const float u = share_of(j, p.j, s.w, s.out_w);
        if (u != 0.f) acc += load<P>(dy + ((p.n * s.out_h + i) * s.out_w + j) * s.c + c) * (u * v);
      }
    }
    store<P>(dx + r * s.c + c, acc);
  }
};

template <class T>
struct CropForward {
  ResizeShape s;
  const int32_t* corner;
  const T* x;
  T* y;
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {
    const Pixel o = pixel_of(r, s.out_h, s.out_w);
    const int i = o.i + (*corner / 2) * (s.h - s.out_h), j = o.j + (*corner % 2) * (s.w - s.out_w);
    store<P>(y + r * s.c + c, load<P>(x + ((o.n * s.h + i) * s.w + j) * s.c + c));
  }
};

template <class T>
struct CropBackward {
  ResizeShape s;
  const int32_t* corner;
  const T* dy;
  T* dx;
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {
    const Pixel p = pixel_of(r, s.h, s.w);
    const int i = p.i - (*corner / 2) * (s.h - s.out_h), j = p.j - (*corner % 2) * (s.w - s.out_w);
    Pack<P> v(0.f);
    if (i >= 0 && i < s.out_h && j >= 0 && j < s.out_w) v = load<P>(dy + ((p.n * s.out_h + i) * s.out_w + j) * s.c + c);
    store<P>(dx + r * s.c + c, v);
  }
};

struct CornerFromUniform {
  const float* u;
  int32_t* corner;
  KILN_HD void operator()(int64_t) const {
    const int q = int(u[0] * 4.0f);
    *corner = q < 3 ? q : 3;
  }
};

}  // namespace

void nearest_forward(Stream stream, DType t, const ResizeShape& s, const void* x, void* y) {
  with_dtype(t, [&]<class T>() {
    map_rows<T>(stream, s.n * s.out_h * s.out_w, s.c, NearestForward<T>{s, (const T*)x, (T*)y});
  });
}
void nearest_backward(Stream stream, DType t, const ResizeShape& s, const void* dy, void* dx) {
  with_dtype(t, [&]<class T>() { map_rows<T>(stream, s.n * s.h * s.w, s.c, NearestBackward<T>{s, (const T*)dy, (T*)dx}); });
}
void area_forward(Stream stream, DType t, const ResizeShape& s, const void* x, void* y) {
  with_dtype(t, [&]<class T>() {
    map_rows<T>(stream, s.n * s.out_h * s.out_w, s.c, AreaForward<T>{s, (const T*)x, (T*)y});
  });
}
void area_backward(Stream stream, DType t, const ResizeShape& s, const void* dy, void* dx) {
  with_dtype(t, [&]<class T>() {
    if (s.h % s.out_h == 0 && s.w % s.out_w == 0)
      map_rows<T>(stream, s.n * s.h * s.w, s.c,
                  EvenAreaBackward<T>{s, s.h / s.out_h, s.w / s.out_w, (const T*)dy, (T*)dx});
    else
      map_rows<T>(stream, s.n * s.h * s.w, s.c, AreaBackward<T>{s, (const T*)dy, (T*)dx});
  });
}
void corner_bilinear_forward(Stream stream, DType t, const ResizeShape& s, const void* x, void* y) {
  with_dtype(t, [&]<class T>() {
    map_rows<T>(stream, s.n * s.out_h * s.out_w, s.c, CornerBilinearForward<T>{s, (const T*)x, (T*)y});
  });
}
void corner_bilinear_backward(Stream stream, DType t, const ResizeShape& s, const void* dy, void* dx) {
  with_dtype(t, [&]<class T>() {
    map_rows<T>(stream, s.n * s.h * s.w, s.c, CornerBilinearBackward<T>{s, (const T*)dy, (T*)dx});
  });
}
void corner_crop_forward(Stream stream, DType t, const ResizeShape& s, const int32_t* corner, const void* x, void* y) {
  with_dtype(t, [&]<class T>() {
    map_rows<T>(stream, s.n * s.out_h * s.out_w, s.c, CropForward<T>{s, corner, (const T*)x, (T*)y});
  });
}
void corner_crop_backward(Stream stream, DType t, const ResizeShape& s, const int32_t* corner, const void* dy, void* dx) {
  with_dtype(t, [&]<class T>() {
    map_rows<T>(stream, s.n * s.h * s.w, s.c, CropBackward<T>{s, corner, (const T*)dy, (T*)dx});
  });
}
void corner_from_uniform(Stream stream, const float* u, int32_t* corner) {
  map_each(stream, 1, CornerFromUniform{u, corner});
}

}  // namespace kiln::KILN_EXEC
