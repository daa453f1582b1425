#include "kernels/attention.h"

#include "kernels/exec/primitives.h"

namespace kiln::KILN_EXEC {
namespace {

/// Threads that share a row: one on the CPU, where a row is one plain loop.
dim3 softmax_block() {
#if defined(__CUDACC__)
  return dim3(128);
#else
  return force_wide_shapes() ? dim3(128) : dim3(1);
#endif
}
constexpr int kRowsPerBlock = 8;

/// The sum or the largest of one number per thread, for all of them, in an order that only the block's size decides.
template <bool Max>
KILN_D inline float block_reduce(float x, float* shared) {
  const int t = threadIdx.x, n = blockDim.x;
  if (n == 1) return x;
  __syncthreads();
  shared[t] = x;
  __syncthreads();
  for (int s = n / 2; s > 0; s /= 2) {
    if (t < s) {
      const float a = shared[t], b = shared[t + s];
      shared[t] = Max ? (a > b ? a : b) : a + b;
    }
    __syncthreads();
  }
  return shared[0];
}

template <int P>
KILN_HD inline float largest(const Pack<P>& a) {
  float m = a[0];
  for (int i = 1; i < P; i++) m = a[i] > m ? a[i] : m;
  return m;
}

/// Calls f<P>(i) over a row of m elements; rows of a length that packs do not divide go one element at a time, since their
/// starts are not aligned.
template <int P, class F>
KILN_D inline void along_row(int m, F f) {
  if (m % P == 0) {
    for (int i = threadIdx.x * P; i < m; i += blockDim.x * P) f.template operator()<P>(i);
  } else {
    for (int i = threadIdx.x; i < m; i += blockDim.x) f.template operator()<1>(i);
  }
}

struct RowMax {
  const float* s;
  float* m;
  template <int P>
  KILN_D void operator()(int i) const {
    const float v = largest(load<P>(s + i));
    *m = v > *m ? v : *m;
  }
};
struct RowExp {
  const float* s;
  float top;
  float* total;
  template <int P>
  KILN_D void operator()(int i) const {
    *total += sum(exp(load<P>(s + i) - top));
  }
};
template <class T>
struct RowStore {
  const float* s;
  float top, inv;
  T* p;
  template <int P>
  KILN_D void operator()(int i) const {
    store<P>(p + i, exp(load<P>(s + i) - top) * inv);
  }
};
template <class T>
struct RowDot {
  const T* p;
  const float* dp;
  float* total;
  template <int P>
  KILN_D void operator()(int i) const {
    *total += sum(load<P>(p + i) * load<P>(dp + i));
  }
};
template <class T>
struct RowGradient {
  const T* p;
  const float* dp;
  float inner;
  T* ds;
  template <int P>
  KILN_D void operator()(int i) const {
    store<P>(ds + i, load<P>(p + i) * (load<P>(dp + i) - inner));
  }
};

template <class T>
__global__ void __launch_bounds__(128) softmax_kernel(int64_t rows, int m, const float* scores, T* p) {
  SMEM(float, shared, [128]);
  constexpr int P = pack_width<float>();
  for (int k = 0; k < kRowsPerBlock; k++) {
    const int64_t r = int64_t(blockIdx.x) * kRowsPerBlock + k;
    if (r >= rows) return;
    const float* s = scores + r * m;
    float top = -INFINITY, total = 0;
    along_row<P>(m, RowMax{s, &top});
    top = block_reduce<true>(top, shared);
    along_row<P>(m, RowExp{s, top, &total});
    total = block_reduce<false>(total, shared);
    along_row<P>(m, RowStore<T>{s, top, 1.0f / total, p + r * m});
  }
}

template <class T>
__global__ void __launch_bounds__(128) softmax_backward_kernel(int64_t rows, int m, const T* p, const float* dp, T* ds) {
  SMEM(float, shared, [128]);
  constexpr int P = pack_width<float>();
  for (int k = 0; k < kRowsPerBlock; k++) {
    const int64_t r = int64_t(blockIdx.x) * kRowsPerBlock + k;
    if (r >= rows) return;
    float inner = 0;
    along_row<P>(m, RowDot<T>{p + r * m, dp + r * m, &inner});
    inner = block_reduce<false>(inner, shared);
    along_row<P>(m, RowGradient<T>{p + r * m, dp + r * m, inner, ds + r * m});
  }
}

template <class T>
struct GammaForward {
  const T *x, *o;
  const float* gamma;
  T* y;
  template <int P>
  KILN_HD void operator()(int64_t i) const {
    store<P>(y + i, load<P>(x + i) + *gamma * load<P>(o + i));
  }
};

template <class T>
struct GammaBackward {
  const T* dy;
  const float* gamma;
  T* dout;
  template <int P>
  KILN_HD void operator()(int64_t i) const {
    store<P>(dout + i, *gamma * load<P>(dy + i));
  }
};

template <class T>
struct Inner {
  const T *o, *dy;
  template <int P>
  KILN_HD void operator()(int64_t, int64_t i, Sums<1, P>& acc) const {
    acc.s[0] += load<P>(o + i) * load<P>(dy + i);
  }
};

struct AddOne {
  const float* x;
  float* y;
  KILN_HD void operator()(int64_t) const { *y += *x; }
};

}  // namespace

void softmax_forward(Stream stream, DType t, int64_t rows, int m, const float* scores, void* p) {
  with_dtype(t, [&]<class T>() {
    launch({dim3(unsigned((rows + kRowsPerBlock - 1) / kRowsPerBlock)), softmax_block(), 0, stream}, softmax_kernel<T>, rows, m,
           scores, (T*)p);
  });
}

void softmax_backward(Stream stream, DType t, int64_t rows, int m, const void* p, const float* dp, void* ds) {
  with_dtype(t, [&]<class T>() {
    launch({dim3(unsigned((rows + kRowsPerBlock - 1) / kRowsPerBlock)), softmax_block(), 0, stream}, softmax_backward_kernel<T>,
           rows, m, (const T*)p, dp, (T*)ds);
  });
}

void gamma_forward(Stream stream, DType t, int64_t n, const void* x, const void* o, const float* gamma, void* y) {
  with_dtype(t, [&]<class T>() { map<T>(stream, n, GammaForward<T>{(const T*)x, (const T*)o, gamma, (T*)y}); });
}

void gamma_backward(Stream stream, DType t, int64_t n, const void* o, const void* dy, const float* gamma, void* dout,
                    float* dgamma, float* scratch) {
  with_dtype(t, [&]<class T>() {
    if (dgamma) {
      segment_sums<T, 1>(stream, 1, n, Inner<T>{(const T*)o, (const T*)dy}, scratch, scratch + 1);
      map_each(stream, 1, AddOne{scratch, dgamma});
    }
    if (dout) map<T>(stream, n, GammaBackward<T>{(const T*)dy, gamma, (T*)dout});
  });
}

}  // namespace kiln::KILN_EXEC
