#include "kernels/gate.h"

#include "kernels/exec/primitives.h"

namespace kiln::KILN_EXEC {
namespace {

template <class T>
struct Forward {
  int64_t pixels;
  int c;
  const T *x, *g;
  T* y;
  template <int P>
  KILN_HD void operator()(int64_t r, int j) const {
    store<P>(y + r * c + j, load<P>(x + r * c + j) * load<P>(g + r / pixels * c + j));
  }
};

template <class T>
struct Backward {
  int64_t pixels;
  int c;
  const T *x, *g, *dy;
  T* dx;
  template <int P>
  KILN_HD void operator()(int64_t r, int j, Sums<1, P>& acc) const {
    const Pack<P> d = load<P>(dy + r * c + j);
    store<P>(dx + r * c + j, d * load<P>(g + r / pixels * c + j));
    acc.s[0] += d * load<P>(x + r * c + j);
  }
};

}  // namespace

void gate_forward(Stream stream, DType t, int64_t n, int64_t pixels, int c, const void* x, const void* g, void* y) {
  with_dtype(t, [&]<class T>() {
    map_rows<T>(stream, n * pixels, c, Forward<T>{pixels, c, (const T*)x, (const T*)g, (T*)y});
  });
}

void gate_backward(Stream stream, DType t, int64_t n, int64_t pixels, int c, const void* x, const void* g, const void* dy,
                   void* dx, float* dg, float* scratch) {
  with_dtype(t, [&]<class T>() {
    column_sums<T, 1>(stream, n, pixels, c,
                      Backward<T>{pixels, c, (const T*)x, (const T*)g, (const T*)dy, (T*)dx}, dg, scratch);
  });
}

}  // namespace kiln::KILN_EXEC
