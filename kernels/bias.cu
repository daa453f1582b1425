#include "kernels/bias.h"

#include "kernels/activation_math.h"
#include "kernels/exec/primitives.h"

namespace kiln::KILN_EXEC {
namespace {

template <class T, Activation A>
struct Forward {
  int c;
  const T* x;
  const float* bias;
  T* y;
  template <int P>
  KILN_HD void operator()(int64_t r, int j) const {
    store<P>(y + r * c + j, activate<A>(load<P>(x + r * c + j) + load<P>(bias + j)));
  }
};

/// relu'(x) is known from relu(x): both are positive at the same places.
template <class T, Activation A, bool Store>
struct Backward {
  int c;
  const T *y, *dy;
  T* dx;
  template <int P>
  KILN_HD void operator()(int64_t r, int j, Sums<1, P>& acc) const {
    Pack<P> d = load<P>(dy + r * c + j);
    if constexpr (A == Activation::relu) d = select_positive(load<P>(y + r * c + j), d, Pack<P>(0.f));
    if constexpr (Store) store<P>(dx + r * c + j, d);
    acc.s[0] += d;
  }
};

template <class T>
struct ReluSlope {
  int c;
  const T *y, *dy;
  T* dx;
  template <int P>
  KILN_HD void operator()(int64_t r, int j) const {
    store<P>(dx + r * c + j, select_positive(load<P>(y + r * c + j), load<P>(dy + r * c + j), Pack<P>(0.f)));
  }
};

struct AddTo {
  const float* x;
  float* y;
  KILN_HD void operator()(int64_t i) const { y[i] += x[i]; }
};

template <class T, bool Up>
struct Residual {
  int h, w, c;
  const T *x, *skip;
  const float *b1, *b2;
  T* y;
  template <int P>
  KILN_HD void operator()(int64_t r, int j) const {
    int64_t from = r;
    if constexpr (Up) {
      const unsigned q = unsigned(r), row = q / unsigned(w), column = q - row * unsigned(w);  // fewer than 2^31 pixels in all
      const unsigned picture = row / unsigned(h), line = row - picture * unsigned(h);
      from = (int64_t(picture) * (h / 2) + line / 2) * (w / 2) + column / 2;
    }
    Pack<P> v = load<P>(x + r * c + j) + load<P>(skip + from * c + j);
    if (b1) v += load<P>(b1 + j);
    if (b2) v += load<P>(b2 + j);
    store<P>(y + r * c + j, v);
  }
};

}  // namespace

void bias_forward(Stream stream, DType t, int64_t rows, int c, const void* x, const float* bias, Activation act, void* y) {
  with_dtype(t, [&]<class T>() {
    if (act == Activation::relu)
      map_rows<T>(stream, rows, c, Forward<T, Activation::relu>{c, (const T*)x, bias, (T*)y});
    else
      map_rows<T>(stream, rows, c, Forward<T, Activation::none>{c, (const T*)x, bias, (T*)y});
  });
}

void bias_backward(Stream stream, DType t, int64_t rows, int c, const void* y, const void* dy, Activation act, void* dx,
                   float* dbias, float* scratch) {
  with_dtype(t, [&]<class T>() {
    const bool relu = act == Activation::relu;
    if (!dbias) {
      if (relu && dx) map_rows<T>(stream, rows, c, ReluSlope<T>{c, (const T*)y, (const T*)dy, (T*)dx});
      return;
    }
    const auto sums = [&](const auto& f) { column_sums<T, 1>(stream, 1, rows, c, f, scratch, scratch + c); };
    if (relu && dx)
      sums(Backward<T, Activation::relu, true>{c, (const T*)y, (const T*)dy, (T*)dx});
    else if (relu)
      sums(Backward<T, Activation::relu, false>{c, (const T*)y, (const T*)dy, nullptr});
    else if (dx)
      sums(Backward<T, Activation::none, true>{c, nullptr, (const T*)dy, (T*)dx});
    else
      sums(Backward<T, Activation::none, false>{c, nullptr, (const T*)dy, nullptr});
    map_each(stream, c, AddTo{scratch, dbias});
  });
}

void residual_forward(Stream stream, DType t, int64_t n, int h, int w, int c, const void* x, const void* skip, bool upsample,
                      const float* b1, const float* b2, void* y) {
  with_dtype(t, [&]<class T>() {
    if (upsample)
      map_rows<T>(stream, n * h * w, c, Residual<T, true>{h, w, c, (const T*)x, (const T*)skip, b1, b2, (T*)y});
    else
      map_rows<T>(stream, n * h * w, c, Residual<T, false>{h, w, c, (const T*)x, (const T*)skip, b1, b2, (T*)y});
  });
}

}  // namespace kiln::KILN_EXEC
