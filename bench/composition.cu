#include "bench/composition.h"

#include "kernels/exec/primitives.h"

namespace kiln::KILN_EXEC {
namespace {

template <class T>
struct Multiply {
  const T *x, *y;
  T* z;
  template <int P>
  KILN_HD void operator()(int64_t i) const {
    store<P>(z + i, load<P>(x + i) * load<P>(y + i));
  }
};

template <class T>
struct SumPixels {
  int c;
  const T* x;
  template <int P>
  KILN_HD void operator()(int64_t r, int j, Sums<1, P>& acc) const {
    acc.s[0] += load<P>(x + r * c + j);
  }
};

struct Apply {
  float rate, root, eps;
  const float *m, *v;
  float* value;
  template <int P>
  KILN_HD void operator()(int64_t i) const {
    store<P>(value + i, load<P>(value + i) - rate * load<P>(m + i) / (sqrt(load<P>(v + i)) * root + eps));
  }
};

}  // namespace

void multiply(Stream stream, DType t, int64_t n, const void* x, const void* y, void* z) {
  with_dtype(t, [&]<class T>() { map<T>(stream, n, Multiply<T>{(const T*)x, (const T*)y, (T*)z}); });
}

void sum_pixels(Stream stream, DType t, int64_t n, int64_t pixels, int c, const void* x, float* out, float* scratch) {
  with_dtype(t, [&]<class T>() { column_sums<T, 1>(stream, n, pixels, c, SumPixels<T>{c, (const T*)x}, out, scratch); });
}

void adam_apply(Stream stream, int64_t n, float rate, float root, float eps, const float* m, const float* v, float* value) {
  map<float>(stream, n, Apply{rate, root, eps, m, v, value});
}

}  // namespace kiln::KILN_EXEC
