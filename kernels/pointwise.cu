#include "kernels/pointwise.h"

#include "kernels/exec/primitives.h"

namespace kiln::KILN_EXEC {
namespace {

template <class T>
struct Fill {
  float value;
  T* y;
  template <int P>
  KILN_HD void operator()(int64_t i) const {
    store<P>(y + i, Pack<P>(value));
  }
};

template <class T>
struct LinearCombination {
  float a, b;
  const T *x, *y;
  T* z;
  template <int P>
  KILN_HD void operator()(int64_t i) const {
    store<P>(z + i, a * load<P>(x + i) + b * load<P>(y + i));
  }
};

template <class T>
struct Scale {
  float a;
  const T* x;
  T* y;
  template <int P>
  KILN_HD void operator()(int64_t i) const {
    store<P>(y + i, a * load<P>(x + i));
  }
};

template <class T>
struct Accumulate {
  float a;
  const T* x;
  float* y;
  template <int P>
  KILN_HD void operator()(int64_t i) const {
    store<P>(y + i, load<P>(y + i) + a * load<P>(x + i));
  }
};

template <class A, class B>
struct Cast {
  const A* x;
  B* y;
  template <int P>
  KILN_HD void operator()(int64_t i) const {
    store<P>(y + i, load<P>(x + i));
  }
};

template <class T>
struct Concatenate {
  int64_t na;
  const T *a, *b;
  T* y;
  KILN_HD void operator()(int64_t i) const { y[i] = i < na ? a[i] : b[i - na]; }
};

template <class T>
struct Split {
  int64_t na;
  T *a, *b;
  const T* y;
  KILN_HD void operator()(int64_t i) const {
    if (i < na) {
      if (a) a[i] = y[i];
    } else if (b) {
      b[i - na] = y[i];
    }
  }
};

template <class T>
struct Noise {
  int c;
  const T* x;
  const float *noise, *w;
  T* y;
  template <int P>
  KILN_HD void operator()(int64_t r, int j) const {
    store<P>(y + r * c + j, load<P>(x + r * c + j) + *w * noise[r]);
  }
};

template <class T>
struct NoiseSums {
  int c;
  const T* dy;
  const float* noise;
  template <int P>
  KILN_HD void operator()(int64_t r, int j, Sums<1, P>& acc) const {
    acc.s[0] += load<P>(dy + r * c + j) * noise[r];
  }
};

struct AddAll {
  const float* x;
  int n;
  float* y;
  KILN_HD void operator()(int64_t) const {
    double s = 0;
    for (int i = 0; i < n; i++) s += double(x[i]);
    *y += float(s);
  }
};

constexpr int kTile = 32;

/// One block moves one 32 x 32 tile through shared memory, so that both sides are read and written in whole lines.
template <class T>
__global__ void __launch_bounds__(256) transpose_kernel(int a, int b, const T* x, T* y) {
  SMEM(T, tile, [kTile][kTile + 1]);
  const T* src = x + int64_t(blockIdx.z) * a * b;
  T* dst = y + int64_t(blockIdx.z) * a * b;
  const int j0 = blockIdx.x * kTile, i0 = blockIdx.y * kTile;
  for (int i = threadIdx.y; i < kTile && i0 + i < a; i += blockDim.y)
    for (int j = threadIdx.x; j < kTile && j0 + j < b; j += blockDim.x) tile[i][j] = src[int64_t(i0 + i) * b + j0 + j];
  __syncthreads();
  for (int j = threadIdx.y; j < kTile && j0 + j < b; j += blockDim.y)
    for (int i = threadIdx.x; i < kTile && i0 + i < a; i += blockDim.x) dst[int64_t(j0 + j) * a + i0 + i] = tile[i][j];
}

}  // namespace

void fill(Stream stream, DType t, int64_t n, float value, void* y) {
  with_dtype(t, [&]<class T>() { map<T>(stream, n, Fill<T>{value, (T*)y}); });
}

void linear_combination(Stream stream, DType t, int64_t n, float a, const void* x, float b, const void* y, void* z) {
  with_dtype(t,
             [&]<class T>() { map<T>(stream, n, LinearCombination<T>{a, b, (const T*)x, (const T*)y, (T*)z}); });
}

void scale(Stream stream, DType t, int64_t n, float a, const void* x, void* y) {
  with_dtype(t, [&]<class T>() { map<T>(stream, n, Scale<T>{a, (const T*)x, (T*)y}); });
}

void accumulate(Stream stream, DType t, int64_t n, float a, const void* x, float* y) {
  with_dtype(t, [&]<class T>() { map<T>(stream, n, Accumulate<T>{a, (const T*)x, y}); });
}

void cast(Stream stream, DType tx, DType ty, int64_t n, const void* x, void* y) {
  with_dtype(tx, [&]<class A>() {
    with_dtype(ty, [&]<class B>() {
      // The narrower pack of the two types, so that neither access is wider than 16 bytes.
      using Wide = std::conditional_t<sizeof(A) == 4, A, B>;
      map<Wide>(stream, n, Cast<A, B>{(const A*)x, (B*)y});
    });
  });
}

void concatenate(Stream stream, DType t, int64_t na, const void* a, int64_t nb, const void* b, void* y) {
  with_dtype(t, [&]<class T>() { map_each(stream, na + nb, Concatenate<T>{na, (const T*)a, (const T*)b, (T*)y}); });
}

void split(Stream stream, DType t, int64_t na, void* a, int64_t nb, void* b, const void* y) {
  with_dtype(t, [&]<class T>() { map_each(stream, na + nb, Split<T>{na, (T*)a, (T*)b, (const T*)y}); });
}

void noise_forward(Stream stream, DType t, int64_t rows, int c, const void* x, const float* noise, const float* w, void* y) {
  with_dtype(t, [&]<class T>() { map_rows<T>(stream, rows, c, Noise<T>{c, (const T*)x, noise, w, (T*)y}); });
}

void noise_backward_weight(Stream stream, DType t, int64_t rows, int c, const void* dy, const float* noise, float* dw,
                           float* scratch) {
  with_dtype(t, [&]<class T>() {
    column_sums<T, 1>(stream, 1, rows, c, NoiseSums<T>{c, (const T*)dy, noise}, scratch, scratch + c);
  });
  map_each(stream, 1, AddAll{scratch, c, dw});
}

void transpose(Stream stream, DType t, int64_t n, int a, int b, const void* x, void* y) {
#if defined(__CUDACC__)
  const dim3 block(32, 8);
#else
  const dim3 block = force_wide_shapes() ? dim3(32, 8) : dim3(1, 1);
#endif
  with_dtype(t, [&]<class T>() {
    launch({dim3((b + kTile - 1) / kTile, (a + kTile - 1) / kTile, unsigned(n)), block, 0, stream}, transpose_kernel<T>, a, b,
           (const T*)x, (T*)y);
  });
}

}  // namespace kiln::KILN_EXEC
