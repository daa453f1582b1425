// The few shapes of parallel loop that most kernels are: map, map_rows, column_sums, segment_sums.
//
//   map          f(i)       every i in [0, n), in packs of P neighbouring elements
//   map_rows     f(r, c)    every row r and every pack of channels at c: for what needs per-channel constants
//   map_each     f(i)       the same, one element at a time: for work that is not a run of neighbours
//   map_lines    f(l, j, s) every line of pictures, columns j, j + s, ...: for what needs per-line constants
//   column_sums  f(r, c)    K sums per channel over the rows of each group (batch norm's statistics, a gate's gradient)
//   segment_sums f(s, i)    K sums per segment over its n elements (one picture, one loss)
//
// A functor is a struct with `template <int P> KILN_HD ... operator()(...) const`. On the GPU the maps are grid-stride
// kernels, on the CPU plain loops over threads. The sums are one cooperative kernel each for both executors: partial
// sums per block, written to scratch memory of the caller's, and a last kernel adds the partials in a fixed order. No
// floating-point atomics, and no shape depends on the number of CPU threads: equal inputs give equal bits.
#pragma once
#include "kernels/exec/api.h"
#include "kernels/exec/pack.h"

namespace kiln::KILN_EXEC {

/// How wide one access is: the most elements of T a pack should hold on this executor.
template <class T>
constexpr int pack_width() {
#if defined(__CUDACC__)
  return sizeof(T) == 4 ? 4 : 8;
#else
  return 16;
#endif
}

/// Calls body with the largest power of two P <= pack_width<T>() that divides `extent` and the alignment of all
/// pointers.
template <class T, class Body>
void with_pack(int64_t extent, Body body) {
  constexpr int W = pack_width<T>();
  if (extent % W == 0) return body.template operator()<W>();
  if constexpr (W > 8)
    if (extent % 8 == 0) return body.template operator()<8>();
  if constexpr (W > 4)
    if (extent % 4 == 0) return body.template operator()<4>();
  if (extent % 2 == 0) return body.template operator()<2>();
  return body.template operator()<1>();
}

/// Calls body with the storage type that `t` names: f32, f16 or bf16.
template <class Body>
void with_dtype(DType t, Body body) {
  switch (t) {
    case DType::f16: return body.template operator()<half_t>();
    case DType::bf16: return body.template operator()<bf16_t>();
    default: return body.template operator()<float>();
  }
}

constexpr int64_t kMapGrain = 1 << 14;  // elements below which a second CPU thread costs more than it brings

// ---- map ----------------------------------------------------------------------------------------------------------

#if defined(__CUDACC__)
template <int P, class F>
__global__ void __launch_bounds__(256) map_kernel(int64_t n, F f) {
  const int64_t packs = n / P, stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < packs; i += stride)
    f.template operator()<P>(i * P);
  if constexpr (P > 1)
    if (blockIdx.x == 0 && threadIdx.x < n - packs * P) f.template operator()<1>(packs * P + threadIdx.x);
}
#endif

/// f.operator()<P>(i) for every i in [0, n): packs of P, then a tail of single elements. T is the storage type.
template <class T, class F>
void map(Stream stream, int64_t n, const F& f) {
  if (n == 0) return;
  constexpr int P = pack_width<T>();
#if defined(__CUDACC__)
  const int64_t blocks = (n / P + 255) / 256;
  launch({dim3(unsigned(blocks < 1      ? 1
                        : blocks > 4096 ? 4096
                                        : blocks)),
          dim3(256), 0, stream},
         map_kernel<P, F>, n, f);
#else
  note_launch(__PRETTY_FUNCTION__, stream, n, f);
  const int64_t packs = n / P;
#pragma omp parallel for schedule(static) if (n > kMapGrain)
  for (int64_t i = 0; i < packs; i++) f.template operator()<P>(i * P);
  for (int64_t i = packs * P; i < n; i++) f.template operator()<1>(i);
#endif
}

#if defined(__CUDACC__)
template <class F>
__global__ void __launch_bounds__(256) map_each_kernel(int64_t n, F f) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < n; i += stride) f(i);
}
#endif

/// f(i) for every i in [0, n), one at a time; `cost` is about how many elements one call touches.
template <class F>
void map_each(Stream stream, int64_t n, const F& f, int64_t cost = 1) {
  if (n == 0) return;
#if defined(__CUDACC__)
  (void)cost;
  const int64_t blocks = (n + 255) / 256;
  launch({dim3(unsigned(blocks > 4096 ? 4096 : blocks)), dim3(256), 0, stream}, map_each_kernel<F>, n, f);
#else
  note_launch(__PRETTY_FUNCTION__, stream, n, f);
#pragma omp parallel for schedule(static) if (n * cost > kMapGrain)
  for (int64_t i = 0; i < n; i++) f(i);
#endif
}

#if defined(__CUDACC__)
template <class F>
__global__ void __launch_bounds__(256) map_lines_kernel(int lines, F f) {
  for (int line = blockIdx.x; line < lines; line += gridDim.x) f(line, threadIdx.x, blockDim.x);
}
#endif

/// f(line, first, step) for every line in [0, lines): f walks the line's `width` columns first, first + step, ... On the GPU
/// a block's threads share a line, neighbours at neighbouring columns; on the CPU one call has the whole line.
template <class F>
void map_lines(Stream stream, int lines, int width, const F& f, int64_t cost = 1) {
  if (lines == 0) return;
#if defined(__CUDACC__)
  (void)cost;
  const int threads = width >= 256 ? 256 : (width + 31) / 32 * 32;
  launch({dim3(unsigned(lines)), dim3(unsigned(threads)), 0, stream}, map_lines_kernel<F>, lines, f);
#else
  (void)stream, (void)width;
#pragma omp parallel for schedule(static) if (lines * cost > kMapGrain)
  for (int line = 0; line < lines; line++) f(line, 0, 1);
#endif
}

// ---- map_rows -----------------------------------------------------------------------------------------------------

#if defined(__CUDACC__)
template <int P, class F>
__global__ void __launch_bounds__(256) map_rows_kernel(int64_t rows, int packs, F f) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.y;
  for (int64_t r = blockIdx.x * int64_t(blockDim.y) + threadIdx.y; r < rows; r += stride)
    for (int p = threadIdx.x; p < packs; p += blockDim.x) f.template operator()<P>(r, p * P);
}
#endif

/// f.operator()<P>(r, c) for every row and every pack of channels; P divides `channels`.
template <class T, class F>
void map_rows(Stream stream, int64_t rows, int channels, const F& f) {
  if (rows == 0 || channels == 0) return;
  with_pack<T>(channels, [&]<int P>() {
    const int packs = channels / P;
#if defined(__CUDACC__)
    int x = 1;
    while (x < packs && x < 256) x *= 2;
    const int y = 256 / x;
    const int64_t blocks = (rows + y - 1) / y;
    launch({dim3(unsigned(blocks > 4096 ? 4096 : blocks)), dim3(x, y), 0, stream}, map_rows_kernel<P, F>, rows, packs,
           f);
#else
    note_launch(__PRETTY_FUNCTION__, stream, rows, channels, f);
#pragma omp parallel for schedule(static) if (rows * channels > kMapGrain)
    for (int64_t r = 0; r < rows; r++)
      for (int p = 0; p < packs; p++) f.template operator()<P>(r, p * P);
#endif
  });
}

// ---- column_sums --------------------------------------------------------------------------------------------------

/// K running sums of a pack of channels.
template <int K, int P>
struct Sums {
  Pack<P> s[K];
};

/// The launch shape of column_sums: `chunks` blocks of rows, each with x threads over the packs and y over its rows.
/// Wide on the GPU. On the CPU one row of threads and no barrier, long runs a thread: there a barrier costs tens of
/// nanoseconds per thread. Tests force the wide shape on the CPU with `force_wide_shapes`.
struct ColumnShape {
  int chunks, x, y;
  int64_t rows_per_chunk;
};
inline bool& force_wide_shapes() {
  static bool wide = false;
  return wide;
}
constexpr int kMaxChunks = 64;

inline ColumnShape column_shape(int64_t rows, int packs, int pack) {
  ColumnShape s{};
#if defined(__CUDACC__)
  const bool wide = true;
#else
  const bool wide = force_wide_shapes();
#endif
  if (wide) {
    s.x = 1;
    while (s.x < packs && s.x < 128) s.x *= 2;
    s.y = 128 / s.x;
    s.rows_per_chunk = (rows + kMaxChunks - 1) / kMaxChunks;
    if (s.rows_per_chunk < s.y) s.rows_per_chunk = s.y;
  } else {
    s.x = packs < 32 ? packs : 32;
    s.y = 1;
    // A chunk of about 64 KB stays in the second-level cache while each pack of channels walks down its rows.
    s.rows_per_chunk = 16384 / (int64_t(packs) * pack) + 1;
    if (s.rows_per_chunk * kMaxChunks < rows) s.rows_per_chunk = (rows + kMaxChunks - 1) / kMaxChunks;
  }
  s.chunks = int((rows + s.rows_per_chunk - 1) / s.rows_per_chunk);
  return s;
}

/// Bytes of scratch memory that column_sums of K sums over `channels` channels needs.
constexpr size_t column_scratch_bytes(int k, int channels, int64_t groups = 1) {
  return size_t(kMaxChunks) * k * channels * size_t(groups) * sizeof(float);
}

template <int K, int P, class F>
__global__ void __launch_bounds__(128)
    column_partial_kernel(int64_t rows, int packs, int64_t rows_per_chunk, F f, float* partial) {
  DYN_SMEM(float, shared);  // blockDim.y rows of [x][K * P]: used where several threads share a pack
  const int64_t base = blockIdx.y * rows, end = base + rows;  // this group's rows
  const int64_t r0 = base + blockIdx.x * rows_per_chunk, r1 = r0 + rows_per_chunk < end ? r0 + rows_per_chunk : end;
  const int channels = packs * P, y = threadIdx.y, ny = blockDim.y;
  partial += int64_t(blockIdx.y) * gridDim.x * K * channels;
  for (int first = 0; first < packs; first += blockDim.x) {
    const int p = first + threadIdx.x;
    Sums<K, P> acc;
    for (int k = 0; k < K; k++) acc.s[k] = Pack<P>(0.f);
    if (p < packs)
      for (int64_t r = r0 + y; r < r1; r += ny) f.template operator()<P>(r, p * P, acc);
    if (ny > 1) {
      float* mine = shared + (y * blockDim.x + threadIdx.x) * (K * P);
      for (int k = 0; k < K; k++) store_freely<P>(mine + k * P, acc.s[k]);
      __syncthreads();
      if (y == 0)
        for (int j = 1; j < ny; j++)
          for (int k = 0; k < K; k++) acc.s[k] += load<P>(shared + (j * blockDim.x + threadIdx.x) * (K * P) + k * P);
      __syncthreads();
    }
    if (y == 0 && p < packs)
      for (int k = 0; k < K; k++) store_freely<P>(partial + (int64_t(blockIdx.x) * K + k) * channels + p * P, acc.s[k]);
  }
}

/// out[g][k][c] = the sum over chunks of partial[g][chunk][k][c], in double and in order.
struct ColumnFinish {
  const float* partial;
  float* out;
  int chunks, kc;  // kc = K * channels
  template <int P>
  KILN_HD void operator()(int64_t i) const {
    for (int j = 0; j < P; j++) {
      const int64_t g = (i + j) / kc, e = (i + j) - g * kc;
      double s = 0;
      for (int b = 0; b < chunks; b++) s += double(partial[(g * chunks + b) * kc + e]);
      out[i + j] = float(s);
    }
  }
};

/// out[g][k][c] = sum over the rows r of group g (rows g * rows to (g + 1) * rows - 1) of what
/// f.operator()<P>(r, c, Sums<K,P>&) adds. scratch: column_scratch_bytes(K, channels, groups).
template <class T, int K, class F>
void column_sums(Stream stream, int64_t groups, int64_t rows, int channels, const F& f, float* out, float* scratch) {
  with_pack<T>(channels, [&]<int P>() {
    const int packs = channels / P;
    ColumnShape s = column_shape(rows, packs, P);
    // 48 KB: only the widest packs of the CPU in the GPU's shape ask for more.
    while (s.y > 1 && size_t(s.x) * s.y * K * P * sizeof(float) > 49152) s.y /= 2;
    const size_t smem = s.y > 1 ? size_t(s.x) * s.y * K * P * sizeof(float) : 0;
    launch({dim3(s.chunks, unsigned(groups)), dim3(s.x, s.y), smem, stream}, column_partial_kernel<K, P, F>, rows,
           packs, s.rows_per_chunk, f, scratch);
    map<float>(stream, groups * K * channels, ColumnFinish{scratch, out, s.chunks, K * channels});
  });
}

// ---- segment_sums -------------------------------------------------------------------------------------------------

constexpr int kSegmentChunks = 32;

/// Bytes of scratch memory that segment_sums of K sums over `segments` segments needs.
constexpr size_t segment_scratch_bytes(int k, int64_t segments) {
  return size_t(kSegmentChunks) * k * size_t(segments) * sizeof(float);
}

/// One block adds one chunk of one segment: threads stride over packs, then a tree over the block. The tree's order
/// depends on the block's size only.
template <int K, int P, class F>
__global__ void __launch_bounds__(256) segment_partial_kernel(int64_t n, int64_t per_chunk, F f, float* partial) {
  DYN_SMEM(float, shared);
  const int64_t segment = blockIdx.y, a = blockIdx.x * per_chunk, b = a + per_chunk < n ? a + per_chunk : n;
  float acc[K] = {};
  Sums<K, P> wide;
  for (int k = 0; k < K; k++) wide.s[k] = Pack<P>(0.f);
  int64_t i = a + int64_t(threadIdx.x) * P;
  for (; i + P <= b; i += int64_t(blockDim.x) * P) f.template operator()<P>(segment, i, wide);
  for (int k = 0; k < K; k++) acc[k] = sum(wide.s[k]);
  if constexpr (P > 1) {
    Sums<K, 1> tail;
    for (int k = 0; k < K; k++) tail.s[k] = Pack<1>(0.f);
    for (int64_t j = a + (b - a) / P * P + threadIdx.x; j < b; j += blockDim.x)
      f.template operator()<1>(segment, j, tail);
    for (int k = 0; k < K; k++) acc[k] += tail.s[k][0];
  }
  const int t = threadIdx.x, nt = blockDim.x;
  if (nt > 1) {
    for (int k = 0; k < K; k++) shared[k * nt + t] = acc[k];
    __syncthreads();
    for (int s = nt / 2; s > 0; s /= 2) {
      if (t < s)
        for (int k = 0; k < K; k++) shared[k * nt + t] += shared[k * nt + t + s];
      __syncthreads();
    }
    for (int k = 0; k < K; k++) acc[k] = shared[k * nt];
  }
  if (t == 0)
    for (int k = 0; k < K; k++) partial[(segment * K + k) * gridDim.x + blockIdx.x] = acc[k];
}

struct SegmentFinish {
  const float* partial;
  float* out;
  int chunks;
  template <int P>
  KILN_HD void operator()(int64_t i) const {
    for (int j = 0; j < P; j++) {
      double s = 0;
      for (int b = 0; b < chunks; b++) s += double(partial[(i + j) * chunks + b]);
      out[i + j] = float(s);
    }
  }
};

/// out[s][k] = sum over i in [0, n) of what f.operator()<P>(s, i, Sums<K,P>&) adds; P divides every i it is called
/// with. scratch: segment_scratch_bytes(K, segments).
template <class T, int K, class F>
void segment_sums(Stream stream, int64_t segments, int64_t n, const F& f, float* out, float* scratch) {
#if defined(__CUDACC__)
  const bool wide = true;
#else
  const bool wide = force_wide_shapes();
#endif
  constexpr int P = pack_width<T>();
  const int threads = wide ? 256 : 1;
  // Chunks start at multiples of P, so that packs are aligned where the segment is.
  int64_t per_chunk = ((n + kSegmentChunks - 1) / kSegmentChunks + P - 1) / P * P;
  if (per_chunk < 4096) per_chunk = 4096;
  const int chunks = int((n + per_chunk - 1) / per_chunk);
  const size_t smem = threads > 1 ? size_t(threads) * K * sizeof(float) : 0;
  // A segment of a length that packs do not divide would misalign the next one: single elements then.
  if (n % P == 0 || segments == 1)
    launch({dim3(chunks, unsigned(segments)), dim3(threads), smem, stream}, segment_partial_kernel<K, P, F>, n,
           per_chunk, f, scratch);
  else
    launch({dim3(chunks, unsigned(segments)), dim3(threads), smem, stream}, segment_partial_kernel<K, 1, F>, n,
           per_chunk, f, scratch);
  map<float>(stream, segments * K, SegmentFinish{scratch, out, chunks});
}

}  // namespace kiln::KILN_EXEC
