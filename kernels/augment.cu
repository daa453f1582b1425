#include "kernels/augment.h"

#include "kernels/exec/primitives.h"

namespace kiln::KILN_EXEC {
namespace {

/// One picture's drawn parameters.
struct Drawn {
  float brightness, saturation, contrast;  // added, factor, factor
  int shift_y, shift_x;
  int cut_y0, cut_y1, cut_x0, cut_x1;  // zeroed rows and columns [0, 1)
};

KILN_HD inline int draw_shift(float u, int size) {
  const int s = int(float(size) * 0.125f + 0.5f);
  const int a = int(u * float(2 * s + 1));
  return (a < 2 * s ? a : 2 * s) - s;
}

KILN_HD inline void draw_cut(float u, int size, int* begin, int* end) {
  const int c = int(float(size) * 0.5f + 0.5f);
  const int range = size + (c % 2 == 0 ? 1 : 0);
  int q = int(u * float(range));
  if (q > range - 1) q = range - 1;
  *begin = q - c / 2;
  *end = *begin + c;
}

KILN_HD inline Drawn draw(const AugmentShape& s, const AugmentPolicy& p, const float* u) {
  Drawn d{0.f, 1.f, 1.f, 0, 0, 0, 0, 0, 0};
  if (p.color) {
    d.brightness = u[0] - 0.5f;
    d.saturation = u[1] * 2.0f;
    d.contrast = u[2] + 0.5f;
  }
  if (p.translation) {
    d.shift_y = draw_shift(u[3], s.h);
    d.shift_x = draw_shift(u[4], s.w);
  }
  if (p.cutout) {
    draw_cut(u[5], s.h, &d.cut_y0, &d.cut_y1);
    draw_cut(u[6], s.w, &d.cut_x0, &d.cut_x1);
  }
  return d;
}

KILN_HD inline bool is_cut(const Drawn& d, int i, int j) {
  return i >= d.cut_y0 && i < d.cut_y1 && j >= d.cut_x0 && j < d.cut_x1;
}

/// Brightness, saturation and contrast of one pixel; m = the picture's mean after brightness.
KILN_HD inline void colour(const Drawn& d, float m, const float* in, float* out) {
  float t[3];
  for (int c = 0; c < 3; c++) t[c] = in[c] + d.brightness;
  const float grey = (t[0] + t[1] + t[2]) * (1.0f / 3.0f);
  for (int c = 0; c < 3; c++) out[c] = (((t[c] - grey) * d.saturation + grey) - m) * d.contrast + m;
}

template <class T>
struct FromTensor {
  int64_t pixels;
  int w;
  const T* x;
  const float* means;
  KILN_HD void read(int64_t n, int i, int j, float* v) const {
    const T* p = x + (n * pixels + int64_t(i) * w + j) * 3;
    for (int c = 0; c < 3; c++) v[c] = to_float(p[c]);
  }
  KILN_HD float mean(int64_t n) const { return means ? means[n] : 0.f; }
};

struct FromBytes {
  int64_t pixels;
  int w;
  const uint8_t* set;
  const float* byte_means;
  const int32_t* index;
  const float* flip_u;
  float flip_below;
  KILN_HD void read(int64_t n, int i, int j, float* v) const {
    const int column = flip_u[n] < flip_below ? w - 1 - j : j;
    const uint8_t* p = set + (index[n] * pixels + int64_t(i) * w + column) * 3;
    for (int c = 0; c < 3; c++) v[c] = float(p[c]) * (2.0f / 255.0f) - 1.0f;
  }
  KILN_HD float mean(int64_t n) const { return byte_means ? byte_means[index[n]] : 0.f; }
};

/// Pictures that are the frames of clips, `frames` of them each: a clip is mirrored as a whole.
struct FromClips {
  FromBytes bytes;
  int frames;
  KILN_HD void read(int64_t n, int i, int j, float* v) const {
    const int column = bytes.flip_u[int(n) / frames] < bytes.flip_below ? bytes.w - 1 - j : j;
    const uint8_t* p = bytes.set + (bytes.index[n] * bytes.pixels + int64_t(i) * bytes.w + column) * 3;
    for (int c = 0; c < 3; c++) v[c] = float(p[c]) * (2.0f / 255.0f) - 1.0f;
  }
};

/// A line of an output picture, or every step-th column of it: the parameters are drawn once for all of them.
template <class T, class Source>
struct Forward {
  AugmentShape s;
  AugmentPolicy p;
  Source source;
  const float* u;
  T* y;
  KILN_HD void operator()(int line, int first, int step) const {
    const int n = line / s.h, i = line - n * s.h;
    const Drawn d = draw(s, p, u + n * kAugmentUniforms);
    const float m = source.mean(n) + d.brightness;
    const int si = i + d.shift_y;
    for (int j = first; j < s.w; j += step) {
      float v[3] = {0.f, 0.f, 0.f};
      const int sj = j + d.shift_x;
      if (si >= 0 && si < s.h && sj >= 0 && sj < s.w && !is_cut(d, i, j)) {
        float in[3];
        source.read(n, si, sj, in);
        if (p.color)
          colour(d, m, in, v);
        else
          for (int c = 0; c < 3; c++) v[c] = in[c];
      }
      T* o = y + (int64_t(line) * s.w + j) * 3;
      for (int c = 0; c < 3; c++) o[c] = from_float<T>(v[c]);
    }
  }
};

template <class T, class Source>
struct Plain {
  AugmentShape s;
  Source source;
  T* y;
  KILN_HD void operator()(int line, int first, int step) const {
    const int n = line / s.h, i = line - n * s.h;
    for (int j = first; j < s.w; j += step) {
      float v[3];
      source.read(n, i, j, v);
      T* o = y + (int64_t(line) * s.w + j) * 3;
      for (int c = 0; c < 3; c++) o[c] = from_float<T>(v[c]);
    }
  }
};

/// The gradient that reaches source pixel (i, j) through translation and cutout: dy at the pixel that reads it, or nothing.
template <class T>
KILN_HD inline void incoming(const AugmentShape& s, const Drawn& d, const T* dy, int64_t n, int i, int j, float* g) {
  const int oi = i - d.shift_y, oj = j - d.shift_x;
  const bool in = oi >= 0 && oi < s.h && oj >= 0 && oj < s.w && !is_cut(d, oi, oj);
  const T* p = dy + ((n * s.h + oi) * s.w + oj) * 3;
  for (int c = 0; c < 3; c++) g[c] = in ? to_float(p[c]) : 0.f;
}

/// Sum over a picture of the incoming gradient, for contrast's mean. Element i of segment n is a pixel.
template <class T>
struct IncomingSum {
  AugmentShape s;
  AugmentPolicy p;
  const float* u;
  const T* dy;
  template <int P>
  KILN_HD void operator()(int64_t n, int64_t i, Sums<1, P>& acc) const {
    const Drawn d = draw(s, p, u + n * kAugmentUniforms);
    float total = 0;
    for (int k = 0; k < P; k++) {
      float g[3];
      incoming(s, d, dy, n, int(i + k) / s.w, int(i + k) % s.w, g);
      total += g[0] + g[1] + g[2];
    }
    Pack<P> t(0.f);
#if defined(__CUDACC__)
    t[0] = total;
#else
    t.set(0, total);
#endif
    acc.s[0] += t;
  }
};

template <class T>
struct Backward {
  AugmentShape s;
  AugmentPolicy p;
  const float* u;
  const T* dy;
  const float* gsum;
  T* dx;
  KILN_HD void operator()(int line, int first, int step) const {
    const int n = line / s.h, i = line - n * s.h;
    const Drawn d = draw(s, p, u + n * kAugmentUniforms);
    const float mean_g = p.color ? gsum[n] / (3.0f * float(s.h) * float(s.w)) : 0.f;
    for (int j = first; j < s.w; j += step) {
      float g[3];
      incoming(s, d, dy, n, i, j, g);
      if (p.color) {
        for (int c = 0; c < 3; c++) g[c] = d.contrast * g[c] + (1.0f - d.contrast) * mean_g;
        const float grey = (g[0] + g[1] + g[2]) * (1.0f / 3.0f);
        for (int c = 0; c < 3; c++) g[c] = d.saturation * g[c] + (1.0f - d.saturation) * grey;
      }
      T* o = dx + (int64_t(line) * s.w + j) * 3;
      for (int c = 0; c < 3; c++) o[c] = from_float<T>(g[c]);
    }
  }
};

template <class T>
struct MeanSum {
  int64_t per_picture;
  const T* x;
  float weight;
  template <int P>
  KILN_HD void operator()(int64_t n, int64_t i, Sums<1, P>& acc) const {
    acc.s[0] += load<P>(x + n * per_picture + i) * weight;
  }
};

}  // namespace

void picture_means(Stream stream, DType t, const AugmentShape& s, const void* x, float* means, float* scratch) {
  const int64_t per = int64_t(s.h) * s.w * 3;
  with_dtype(t, [&]<class T>() {
    segment_sums<T, 1>(stream, s.n, per, MeanSum<T>{per, (const T*)x, 1.0f / float(per)}, means, scratch);
  });
}

void augment_forward(Stream stream, DType t, const AugmentShape& s, const AugmentPolicy& p, const float* u,
                     const float* means, const void* x, void* y) {
  with_dtype(t, [&]<class T>() {
    using Source = FromTensor<T>;
    map_lines(stream, int(s.n * s.h), s.w, Forward<T, Source>{s, p, Source{int64_t(s.h) * s.w, s.w, (const T*)x, means}, u, (T*)y},
             s.w * 3);
  });
}

void augment_backward(Stream stream, DType t, const AugmentShape& s, const AugmentPolicy& p, const float* u,
                      const void* dy, void* dx, float* gsum) {
  with_dtype(t, [&]<class T>() {
    if (p.color)
      segment_sums<float, 1>(stream, s.n, int64_t(s.h) * s.w, IncomingSum<T>{s, p, u, (const T*)dy}, gsum, gsum + s.n);
    map_lines(stream, int(s.n * s.h), s.w, Backward<T>{s, p, u, (const T*)dy, gsum, (T*)dx}, s.w * 3);
  });
}

void gather_pictures(Stream stream, DType t, const AugmentShape& s, const uint8_t* set, const int32_t* index,
                     const float* flip_u, float flip_below, void* plain) {
  with_dtype(t, [&]<class T>() {
    const FromBytes source{int64_t(s.h) * s.w, s.w, set, nullptr, index, flip_u, flip_below};
    map_lines(stream, int(s.n * s.h), s.w, Plain<T, FromBytes>{s, source, (T*)plain}, s.w * 3);
  });
}

void gather_clips(Stream stream, DType t, const AugmentShape& s, int frames, const uint8_t* set, const int32_t* index,
                  const float* flip_u, float flip_below, void* plain) {
  with_dtype(t, [&]<class T>() {
    const FromClips source{{int64_t(s.h) * s.w, s.w, set, nullptr, index, flip_u, flip_below}, frames};
    map_lines(stream, int(s.n * s.h), s.w, Plain<T, FromClips>{s, source, (T*)plain}, s.w * 3);
  });
}

void gather_augmented(Stream stream, DType t, const AugmentShape& s, const AugmentPolicy& p, const uint8_t* set,
                      const float* byte_means, const int32_t* index, const float* flip_u, float flip_below,
                      const float* u, void* y) {
  with_dtype(t, [&]<class T>() {
    const FromBytes source{int64_t(s.h) * s.w, s.w, set, byte_means, index, flip_u, flip_below};
    map_lines(stream, int(s.n * s.h), s.w, Forward<T, FromBytes>{s, p, source, u, (T*)y}, s.w * 3);
  });
}

}  // namespace kiln::KILN_EXEC
