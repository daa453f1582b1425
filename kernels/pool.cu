#include "kernels/pool.h"

#include "kernels/exec/primitives.h"

namespace kiln::KILN_EXEC {
namespace {

/// Offset of the first pixel of the window that output pixel r looks at.
KILN_HD inline int64_t window(int64_t r, int h, int w) {
  const unsigned q = unsigned(r), row = q / unsigned(w / 2), column = q - row * unsigned(w / 2);
  const unsigned picture = row / unsigned(h / 2), line = row - picture * unsigned(h / 2);
  return (int64_t(picture) * h + 2 * line) * w + 2 * column;
}

/// a where a > b, else b.
template <int P>
KILN_HD Pack<P> larger(const Pack<P>& a, const Pack<P>& b) {
  return select_positive(a - b, a, b);
}

template <class T>
struct Forward {
  int h, w, c;
  const T* x;
  T* y;
  template <int P>
  KILN_HD void operator()(int64_t r, int j) const {
    const T* p = x + window(r, h, w) * c + j;
    const Pack<P> top = larger(load<P>(p), load<P>(p + c));
    store<P>(y + r * c + j, larger(top, larger(load<P>(p + int64_t(w) * c), load<P>(p + int64_t(w + 1) * c))));
  }
};

template <class T>
struct Backward {
  int h, w, c;
  const T *x, *dy;
  T* dx;
  template <int P>
  KILN_HD void operator()(int64_t r, int j) const {
    const int64_t at = window(r, h, w) * c + j;
    const int64_t offset[4] = {0, c, int64_t(w) * c, int64_t(w + 1) * c};
    const Pack<P> d = load<P>(dy + r * c + j), none(0.f);
    Pack<P> value[4], gradient[4];
    for (int k = 0; k < 4; k++) value[k] = load<P>(x + at + offset[k]);
    // The gradient moves on to a later pixel only where that one is strictly larger.
    Pack<P> best = value[0];
    gradient[0] = d;
    for (int k = 1; k < 4; k++) {
      const Pack<P> more = value[k] - best;
      gradient[k] = select_positive(more, d, none);
      for (int i = 0; i < k; i++) gradient[i] = select_positive(more, none, gradient[i]);
      best = select_positive(more, value[k], best);
    }
    for (int k = 0; k < 4; k++) store<P>(dx + at + offset[k], gradient[k]);
  }
};

}  // namespace

void max_pool_forward(Stream stream, DType t, int64_t n, int h, int w, int c, const void* x, void* y) {
  with_dtype(t, [&]<class T>() {
    map_rows<T>(stream, n * (h / 2) * (w / 2), c, Forward<T>{h, w, c, (const T*)x, (T*)y});
  });
}

void max_pool_backward(Stream stream, DType t, int64_t n, int h, int w, int c, const void* x, const void* dy, void* dx) {
  with_dtype(t, [&]<class T>() {
    map_rows<T>(stream, n * (h / 2) * (w / 2), c, Backward<T>{h, w, c, (const T*)x, (const T*)dy, (T*)dx});
  });
}

}  // namespace kiln::KILN_EXEC
