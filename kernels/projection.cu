#include "kernels/projection.h"

#include "kernels/exec/primitives.h"

namespace kiln::KILN_EXEC {
namespace {

template <class T>
struct ReluSum {
  int c;
  const T* x;
  template <int P>
  KILN_HD void operator()(int64_t r, int j, Sums<1, P>& acc) const {
    const Pack<P> v = load<P>(x + r * c + j);
    acc.s[0] += select_positive(v, v, Pack<P>(0.f));
  }
};

template <class T>
struct Round {
  const float* x;
  T* y;
  KILN_HD void operator()(int64_t i) const { y[i] = from_float<T>(x[i]); }
};

template <class T>
struct ReluSumBackward {
  int64_t pixels;
  int c;
  const T *x, *dh;
  T* dx;
  template <int P>
  KILN_HD void operator()(int64_t r, int j) const {
    store<P>(dx + r * c + j,
             select_positive(load<P>(x + r * c + j), load<P>(dh + r / pixels * c + j), Pack<P>(0.f)));
  }
};

template <class T>
struct Inner {
  int c;
  const T *h, *w, *embed;
  const int32_t* labels;
  template <int P>
  KILN_HD void operator()(int64_t n, int64_t i, Sums<1, P>& acc) const {
    Pack<P> v = load<P>(w + i);
    if (embed) v += load<P>(embed + int64_t(labels[n]) * c + i);
    acc.s[0] += v * load<P>(h + n * c + i);
  }
};

struct AddBias {
  const float* bias;
  float* logits;
  KILN_HD void operator()(int64_t i) const { logits[i] += *bias; }
};

template <class T>
struct FeatureGradient {
  int c;
  const T *w, *embed;
  const int32_t* labels;
  const float* dlogits;
  T* dh;
  template <int P>
  KILN_HD void operator()(int64_t n, int j) const {
    Pack<P> v = load<P>(w + j);
    if (embed) v += load<P>(embed + int64_t(labels[n]) * c + j);
    store<P>(dh + n * c + j, v * dlogits[n]);
  }
};

/// Row r of the embedding adds its own pictures; with no labels (the linear layer's only row) all of them.
template <class T>
struct WeightGradient {
  int64_t n;
  int c;
  const T* h;
  const int32_t* labels;
  const float* dlogits;
  float* dw;
  template <int P>
  KILN_HD void operator()(int64_t r, int j) const {
    Pack<P> acc(0.f);
    for (int64_t i = 0; i < n; i++)
      if (!labels || labels[i] == r) acc += load<P>(h + i * c + j) * dlogits[i];
    store<P>(dw + r * c + j, acc);
  }
};

struct BiasGradient {
  int64_t n;
  const float* dlogits;
  float* dbias;
  KILN_HD void operator()(int64_t) const {
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += double(dlogits[i]);
    *dbias += float(s);
  }
};

}  // namespace

void relu_sum_pool_forward(Stream stream, DType t, int64_t n, int64_t pixels, int c, const void* x, void* h, float* scratch) {
  with_dtype(t, [&]<class T>() {
    column_sums<T, 1>(stream, n, pixels, c, ReluSum<T>{c, (const T*)x}, scratch, scratch + n * c);
    map_each(stream, n * c, Round<T>{scratch, (T*)h});
  });
}

void relu_sum_pool_backward(Stream stream, DType t, int64_t n, int64_t pixels, int c, const void* x, const void* dh, void* dx) {
  with_dtype(t, [&]<class T>() {
    map_rows<T>(stream, n * pixels, c, ReluSumBackward<T>{pixels, c, (const T*)x, (const T*)dh, (T*)dx});
  });
}

void projection_forward(Stream stream, DType t, int64_t n, int c, const void* h, const void* w, const float* bias,
                        const void* embed, const int32_t* labels, float* logits, float* scratch) {
  with_dtype(t, [&]<class T>() {
    segment_sums<T, 1>(stream, n, c, Inner<T>{c, (const T*)h, (const T*)w, (const T*)embed, labels}, logits, scratch);
  });
  map_each(stream, n, AddBias{bias, logits});
}

void projection_backward(Stream stream, DType t, int64_t n, int classes, int c, const void* h, const void* w, const void* embed,
                         const int32_t* labels, const float* dlogits, void* dh, float* dw, float* dembed, float* dbias) {
  with_dtype(t, [&]<class T>() {
    if (dh) map_rows<T>(stream, n, c, FeatureGradient<T>{c, (const T*)w, (const T*)embed, labels, dlogits, (T*)dh});
    if (dw) map_rows<T>(stream, 1, c, WeightGradient<T>{n, c, (const T*)h, nullptr, dlogits, dw});
    if (dembed) map_rows<T>(stream, classes, c, WeightGradient<T>{n, c, (const T*)h, labels, dlogits, dembed});
  });
  if (dbias) map_each(stream, 1, BiasGradient{n, dlogits, dbias});
}

}  // namespace kiln::KILN_EXEC
