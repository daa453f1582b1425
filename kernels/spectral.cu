#include "kernels/spectral.h"

#include "kernels/exec/primitives.h"

namespace kiln::KILN_EXEC {
namespace {

constexpr float kTiny = 1e-12f;

/// Threads that share a row or a column list. One on the CPU: a plain loop with no barrier.
dim3 spectral_block() {
#if defined(__CUDACC__)
  return dim3(128);
#else
  return force_wide_shapes() ? dim3(128) : dim3(1);
#endif
}

/// The sum of one number per thread, for all of them; the order depends on the block's size only. `shared`: blockDim.x floats.
KILN_D inline float block_sum(float x, float* shared) {
  const int t = threadIdx.x, n = blockDim.x;
  if (n == 1) return x;
  __syncthreads();
  shared[t] = x;
  __syncthreads();
  for (int s = n / 2; s > 0; s /= 2) {
    if (t < s) shared[t] += shared[t + s];
    __syncthreads();
  }
  return shared[0];
}

/// True in every thread of the block that is the last of `total` to arrive at the counter, which it then resets. What the
/// other blocks wrote before is visible to it.
KILN_D inline bool last_to_arrive(int32_t* counter, int total, int* shared_flag) {
  __threadfence();
  if (blockDim.x > 1) __syncthreads();
  if (threadIdx.x == 0) {
    const int before = atomicAdd(counter, 1);
    *shared_flag = before == total - 1;
    if (*shared_flag) *counter = 0;
  }
  if (blockDim.x > 1) __syncthreads();
  __threadfence();
  return *shared_flag != 0;
}

/// Rows [r0, r1) of W'u for the pack of columns at j.
template <int P, int Q>
KILN_D inline void column_run(const float* w, const float* u, int r0, int r1, int cols, int j, float* out) {
  Pack<P> acc[Q];
  for (int q = 0; q < Q; q++) acc[q] = Pack<P>(0.f);
  for (int r = r0; r < r1; r++)
    for (int q = 0; q < Q; q++) acc[q] += load<P>(w + int64_t(r) * cols + j + q * P) * u[r];
  for (int q = 0; q < Q; q++) store<P>(out + j + q * P, acc[q]);
}

/// Launch 1: partial W'u per tile; the last tile of a layer adds the partials and stores v = n(W'u).
__global__ void __launch_bounds__(128) spectral_v_kernel(SpectralTables t, const float* params, const float* u, float* v) {
  SMEM(float, shared, [128]);
  SMEM(int, flag, [1]);
  const SpectralTile tile = t.column_tiles[blockIdx.x];
  const SpectralLayer l = t.layers[tile.layer];
  const int r1 = tile.row + kSpectralRows < l.rows ? tile.row + kSpectralRows : l.rows;
  const int j1 = tile.col + kSpectralCols < l.cols ? tile.col + kSpectralCols : l.cols;
  float* partial = t.scratch + l.partial;
  float* mine = partial + int64_t(tile.row / kSpectralRows) * l.cols;
  const float* w = params + l.w;
  // Wide runs of columns first (on the CPU eight cache lines per row visited), then what is left, one by one.
#if defined(__CUDACC__)
  constexpr int P = 4, Q = 1;
#else
  constexpr int P = 16, Q = 8;
#endif
  const bool aligned = l.cols % P == 0;
  int j = tile.col;
  if (aligned) {
    const int runs = (j1 - tile.col) / (P * Q);
    for (int i = threadIdx.x; i < runs; i += blockDim.x)
      column_run<P, Q>(w, u + l.u, tile.row, r1, l.cols, tile.col + i * P * Q, mine);
    j += runs * P * Q;
  }
  for (j += threadIdx.x; j < j1; j += blockDim.x) column_run<1, 1>(w, u + l.u, tile.row, r1, l.cols, j, mine);

  if (!last_to_arrive(t.counters + tile.layer, tile.last, flag)) return;
  float squares = 0;
  for (int c = threadIdx.x; c < l.cols; c += blockDim.x) {
    float s = 0;
    for (int k = 0; k < l.row_chunks; k++) s += partial[int64_t(k) * l.cols + c];
    v[l.v + c] = s;
    squares += s * s;
  }
  const float norm = sqrtf(block_sum(squares, shared));
  const float inv = 1.0f / (norm > kTiny ? norm : kTiny);
  for (int c = threadIdx.x; c < l.cols; c += blockDim.x) v[l.v + c] *= inv;
}

/// <a, b> over n elements, all threads of the block together.
KILN_D inline float dot(const float* a, const float* b, int n, float* shared) {
#if defined(__CUDACC__)
  constexpr int P = 4;
#else
  constexpr int P = 16;
#endif
  Pack<P> acc(0.f);
  float tail = 0;
  const bool aligned = n % P == 0;  // then every row starts at a multiple of P
  if (aligned)
    for (int j = threadIdx.x * P; j < n; j += blockDim.x * P) acc += load<P>(a + j) * load<P>(b + j);
  else
    for (int j = threadIdx.x; j < n; j += blockDim.x) tail += a[j] * b[j];
  return block_sum(sum(acc) + tail, shared);
}

/// Launch 2: s = W v per row; the last tile of a layer stores u = n(s) (if `iterate`) and sigma = u's.
__global__ void __launch_bounds__(128) spectral_u_kernel(SpectralTables t, const float* params, float* u, const float* v,
                                                         bool iterate, float* sigma) {
  SMEM(float, shared, [128]);
  SMEM(int, flag, [1]);
  const SpectralTile tile = t.row_tiles[blockIdx.x];
  const SpectralLayer l = t.layers[tile.layer];
  const int r1 = tile.row + kSpectralDotRows < l.rows ? tile.row + kSpectralDotRows : l.rows;
  float* s = t.scratch + l.partial;
  for (int r = tile.row; r < r1; r++) {
    const float d = dot(params + l.w + int64_t(r) * l.cols, v + l.v, l.cols, shared);
    if (threadIdx.x == 0) s[r] = d;
  }
  if (!last_to_arrive(t.counters + tile.layer, tile.last, flag)) return;
  if (iterate) {
    float squares = 0;
    for (int r = threadIdx.x; r < l.rows; r += blockDim.x) squares += s[r] * s[r];
    const float norm = sqrtf(block_sum(squares, shared));
    const float inv = 1.0f / (norm > kTiny ? norm : kTiny);
    for (int r = threadIdx.x; r < l.rows; r += blockDim.x) u[l.u + r] = s[r] * inv;
    if (blockDim.x > 1) __syncthreads();
  }
  float us = 0;
  for (int r = threadIdx.x; r < l.rows; r += blockDim.x) us += u[l.u + r] * s[r];
  us = block_sum(us, shared);
  if (threadIdx.x == 0) sigma[tile.layer] = us;
}

/// Launch 3: packed = W / sigma, rounded to the storage type.
template <class T>
__global__ void __launch_bounds__(128) spectral_scale_kernel(SpectralTables t, const float* params, const float* sigma,
                                                             T* packed) {
  const SpectralTile tile = t.row_tiles[blockIdx.x];
  const SpectralLayer l = t.layers[tile.layer];
  const int r1 = tile.row + kSpectralDotRows < l.rows ? tile.row + kSpectralDotRows : l.rows;
  const int64_t n = int64_t(r1 - tile.row) * l.cols;
  const float* w = params + l.w + int64_t(tile.row) * l.cols;
  T* o = packed + l.packed + int64_t(tile.row) * l.cols;
  const float inv = 1.0f / sigma[tile.layer];
  constexpr int P = pack_width<float>();
  const int64_t packs = (int64_t(tile.row) * l.cols) % P == 0 ? n / P : 0;
  for (int64_t i = threadIdx.x; i < packs; i += blockDim.x) store<P>(o + i * P, load<P>(w + i * P) * inv);
  for (int64_t i = packs * P + threadIdx.x; i < n; i += blockDim.x) o[i] = from_float<T>(w[i] * inv);
}

/// Backward 1: <A, W> per row tile; the last tile of a layer adds them, in order, into scratch[layer's partial].
__global__ void __launch_bounds__(128) spectral_inner_kernel(SpectralTables t, const float* params, const float* grads) {
  SMEM(float, shared, [128]);
  SMEM(int, flag, [1]);
  const SpectralTile tile = t.row_tiles[blockIdx.x];
  const SpectralLayer l = t.layers[tile.layer];
  const int r1 = tile.row + kSpectralDotRows < l.rows ? tile.row + kSpectralDotRows : l.rows;
  float* s = t.scratch + l.partial;
  for (int r = tile.row; r < r1; r++) {
    const float d = dot(params + l.w + int64_t(r) * l.cols, grads + l.packed + int64_t(r) * l.cols, l.cols, shared);
    if (threadIdx.x == 0) s[r] = d;
  }
  if (!last_to_arrive(t.counters + tile.layer, tile.last, flag)) return;
  if (threadIdx.x == 0) {
    double total = 0;
    for (int r = 0; r < l.rows; r++) total += double(s[r]);
    s[0] = float(total);
  }
}

/// Backward 2: grads += (A - (<A, W> / sigma) u v') / sigma.
__global__ void __launch_bounds__(128) spectral_outer_kernel(SpectralTables t, const float* packed_grads, const float* u,
                                                             const float* v, const float* sigma, float* grads) {
  const SpectralTile tile = t.row_tiles[blockIdx.x];
  const SpectralLayer l = t.layers[tile.layer];
  const int r1 = tile.row + kSpectralDotRows < l.rows ? tile.row + kSpectralDotRows : l.rows;
  const float inv = 1.0f / sigma[tile.layer];
  const float inner = t.scratch[l.partial] * inv;
  constexpr int P = pack_width<float>();
  const bool aligned = l.cols % P == 0;
  for (int r = tile.row; r < r1; r++) {
    const float* a = packed_grads + l.packed + int64_t(r) * l.cols;
    float* g = grads + l.w + int64_t(r) * l.cols;
    const float* vv = v + l.v;
    const float k = inner * u[l.u + r];
    if (aligned)
      for (int j = threadIdx.x * P; j < l.cols; j += blockDim.x * P)
        store<P>(g + j, load<P>(g + j) + (load<P>(a + j) - k * load<P>(vv + j)) * inv);
    else
      for (int j = threadIdx.x; j < l.cols; j += blockDim.x) g[j] += (a[j] - k * vv[j]) * inv;
  }
}

}  // namespace

void spectral_normalise(Stream stream, const SpectralTables& t, const float* params, float* u, float* v, bool iterate,
                        float* sigma, DType type, void* packed) {
  const dim3 block = spectral_block();
  if (iterate) launch({dim3(t.n_column_tiles), block, 0, stream}, spectral_v_kernel, t, params, u, v);
  launch({dim3(t.n_row_tiles), block, 0, stream}, spectral_u_kernel, t, params, u, v, iterate, sigma);
  with_dtype(type, [&]<class T>() {
    launch({dim3(t.n_row_tiles), block, 0, stream}, spectral_scale_kernel<T>, t, params, sigma, (T*)packed);
  });
}

void spectral_backward(Stream stream, const SpectralTables& t, const float* params, const float* packed_grads,
                       const float* u, const float* v, const float* sigma, float* grads) {
  const dim3 block = spectral_block();
  launch({dim3(t.n_row_tiles), block, 0, stream}, spectral_inner_kernel, t, params, packed_grads);
  launch({dim3(t.n_row_tiles), block, 0, stream}, spectral_outer_kernel, t, packed_grads, u, v, sigma, grads);
}

}  // namespace kiln::KILN_EXEC
