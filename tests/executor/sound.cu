// Kernels without mistakes, for the host executor's tests. nvcc compiles this file, too.
#include "tests/executor/kernels.h"

namespace kiln::KILN_EXEC {

// ---- Pieces
// -----------------------------------------------------------------------------------------------------------

__device__ inline float warp_sum(float v) {
  for (int o = 16; o > 0; o /= 2) v += __shfl_xor_sync(0xffffffffu, v, o);
  return v;
}

__device__ inline float warp_max(float v) {
  for (int o = 16; o > 0; o /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, o));
  return v;
}

/// Every thread gets the result. All threads of the block must come, and be a multiple of 32.
template <class Warp>
__device__ inline float block_reduce(float v, float neutral, Warp warp_reduce) {
  SMEM(float, part, [32]);
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  v = warp_reduce(v);
  if (lane == 0) part[warp] = v;
  __syncthreads();
  v = warp_reduce(lane < blockDim.x / 32 ? part[lane] : neutral);
  __syncthreads();  // the next call writes part again
  return v;
}

struct Sum {
  __device__ float operator()(float v) const { return warp_sum(v); }
};
struct Max {
  __device__ float operator()(float v) const { return warp_max(v); }
};

// ---- Kernels
// ----------------------------------------------------------------------------------------------------------

__global__ void axpy_kernel(int n, float a, const float* __restrict__ x, float* __restrict__ y) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] += a * __ldg(x + i);
}

__global__ void __launch_bounds__(1024) block_sums_kernel(int n, const float* x, float* sums) {
  float s = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) s += x[i];
  s = block_reduce(s, 0.0f, Sum());
  if (threadIdx.x == 0) sums[blockIdx.x] = s;
}

__global__ void softmax_kernel(int cols, const float* x, float* y) {
  x += static_cast<std::size_t>(blockIdx.x) * cols;
  y += static_cast<std::size_t>(blockIdx.x) * cols;
  float top = -INFINITY, total = 0;
  for (int c = threadIdx.x; c < cols; c += blockDim.x) top = fmaxf(top, x[c]);
  top = block_reduce(top, -INFINITY, Max());
  for (int c = threadIdx.x; c < cols; c += blockDim.x) total += expf(x[c] - top);
  total = block_reduce(total, 0.0f, Sum());
  for (int c = threadIdx.x; c < cols; c += blockDim.x) y[c] = expf(x[c] - top) / total;
}

__global__ void transpose_kernel(int rows, int cols, const float* x, float* y) {
  SMEM(float, tile, [32][33]);
  const int c0 = blockIdx.x * 32, r0 = blockIdx.y * 32;
  const int tx = threadIdx.x;
  for (int k = threadIdx.y; k < 32; k += blockDim.y)
    if (c0 + tx < cols && r0 + k < rows) tile[k][tx] = x[(r0 + k) * cols + c0 + tx];
  __syncthreads();
  for (int k = threadIdx.y; k < 32; k += blockDim.y)
    if (r0 + tx < rows && c0 + k < cols) y[(c0 + k) * rows + r0 + tx] = tile[tx][k];
}

__global__ void compact_kernel(int n, const float* x, float* y, int* counts) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const bool keep = i < n && x[i] > 0;
  const unsigned kept = __ballot_sync(0xffffffffu, keep);
  const unsigned lane = threadIdx.x % 32;
  if (keep) y[i - lane + __popc(kept & ((1u << lane) - 1))] = x[i];
  if (lane == 0 && i < n) counts[i / 32] = __popc(kept);
}

__global__ void votes_kernel(const float* x, int* kept) {
  const int t = threadIdx.x;
  const int any = __any_sync(0xffffffffu, x[t] > 0), all = __all_sync(0xffffffffu, x[t] > 0);
  const int lanes = __popc(__ballot_sync(0xffffffffu, 1));
  if (t % 32 == 0) {
    kept[t / 32 * 3 + 0] = any;
    kept[t / 32 * 3 + 1] = all;
    kept[t / 32 * 3 + 2] = lanes;
  }
}

__global__ void sum_by_last_block_kernel(int n, const float* x, float* partial, unsigned* counter, float* sum) {
  SMEM(bool, last, );
  float s = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) s += x[i];
  s = block_reduce(s, 0.0f, Sum());
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = s;
    __threadfence();
    last = atomicInc(counter, gridDim.x - 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  s = 0;
  for (unsigned b = threadIdx.x; b < gridDim.x; b += blockDim.x) s += partial[b];
  s = block_reduce(s, 0.0f, Sum());
  if (threadIdx.x == 0) *sum = s;
}

__global__ void indices_kernel(unsigned* out, unsigned* lanes) {
  const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  out[block * threads + thread] = block * threads + thread;
  lanes[block * threads + thread] = __shfl_sync(0xffffffffu, thread, 0);
}

__global__ void early_return_kernel(int n, const float* x, float* y) {
  SMEM(float, run, [64]);
  const int i = blockIdx.x * 64 + threadIdx.x;
  const int length = min(64, n - static_cast<int>(blockIdx.x) * 64);
  if (i >= n) return;
  run[threadIdx.x] = x[i];
  __syncthreads();
  y[i] = run[length - 1 - threadIdx.x];
}

__global__ void ballot_after_return_kernel(int lanes, int* counts) {
  const int lane = threadIdx.x % 32;
  if (lane >= lanes) return;
  const int count = __popc(__ballot_sync(0xffffffffu, 1));
  if (lane == 0) counts[threadIdx.x / 32] = count;
}

__global__ void sums_in_groups_kernel(const int* x, int* y) {
  const int t = threadIdx.x, group = t % 4;
  const unsigned mask = 0x11111111u << group;
  int sum = 0;
  for (int round = 0; round <= group; round++) {  // the groups of a warp do not keep step
    sum = x[t];
    for (int o = 4; o < 32; o *= 2) sum += __shfl_xor_sync(mask, sum, o);
  }
  y[t] = sum;
}

__global__ void record_turns_kernel(int* counter, int* turns) {
  turns[atomicAdd(counter, 1)] = threadIdx.x;
  __syncthreads();
  turns[atomicAdd(counter, 1)] = threadIdx.x;
}

__global__ void record_blocks_kernel(int* counter, int* turns) {
  turns[atomicAdd(counter, 1)] = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
}

__global__ void reverse_dynamic_kernel(int n, const float* x, float* y) {
  DYN_SMEM(float, s);
  const int t = threadIdx.x;
  if (t < n) s[t] = x[t];
  __syncthreads();
  if (t < n) y[t] = s[n - 1 - t];
}

__global__ void scan_warps_kernel(const int* x, int* y) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const unsigned lane = threadIdx.x % 32;
  int v = x[i];
  for (unsigned d = 1; d < 16; d *= 2) {
    const int left = __shfl_up_sync(0xffffffffu, v, d, 16);
    if (lane % 16 >= d) v += left;
  }
  const int lower_half = __shfl_sync(0xffffffffu, v, 15);
  if (lane >= 16) v += lower_half;
  y[i] = v;
}

__global__ void rotate_in_warps_kernel(const float* x, float* y) {
  SMEM(float, ring, [128]);
  const unsigned t = threadIdx.x, warp = t - t % 32, next = warp + (t + 1) % 32;
  float v = x[t];
  for (int turn = 0; turn < 5; turn++) {
    ring[t] = v;
    __syncwarp();
    v = ring[next];
    __syncwarp();
  }
  y[t] = v;
}

__global__ void histogram_kernel(int n, const int* x, int* bins, int* largest) {
  SMEM(int, mine, [16]);
  if (threadIdx.x < 16) mine[threadIdx.x] = 0;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    atomicAdd(&mine[x[i] % 16], 1);
    atomicMax(largest, x[i]);
  }
  __syncthreads();
  if (threadIdx.x < 16) atomicAdd(&bins[threadIdx.x], mine[threadIdx.x]);
}

__global__ void through_half_kernel(int n, const float* x, float* y_half, float* y_bf16) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  y_half[i] = to_float(from_float<half_t>(x[i]));
  y_bf16[i] = to_float(from_float<bf16_t>(x[i]));
}

__global__ void much_shared_kernel(float* out) {
  SMEM(float, fixed, [8192]);
  DYN_SMEM(float, dynamic);
  fixed[8191] = 1;
  dynamic[0] = 2;
  __syncthreads();
  out[0] = fixed[8191] + dynamic[0];
}

// ---- Launches
// -----------------------------------------------------------------------------------------------------------

void axpy(int n, float a, const float* x, float* y) { launch({(n + 255) / 256, 256}, axpy_kernel, n, a, x, y); }
void block_sums(int n, const float* x, float* sums, int blocks, int threads) {
  launch({blocks, threads}, block_sums_kernel, n, x, sums);
}
void softmax(int rows, int cols, const float* x, float* y, int threads) {
  launch({rows, threads}, softmax_kernel, cols, x, y);
}
void transpose(int rows, int cols, const float* x, float* y) {
  launch({dim3((cols + 31) / 32, (rows + 31) / 32), dim3(32, 8)}, transpose_kernel, rows, cols, x, y);
}
void compact(int n, const float* x, float* y, int* counts) {
  launch({(n + 127) / 128, 128}, compact_kernel, n, x, y, counts);
}
void votes(int threads, const float* x, int* kept) { launch({1, threads}, votes_kernel, x, kept); }
void sum_by_last_block(int n, const float* x, float* partial, unsigned* counter, float* sum, int blocks) {
  launch({blocks, 64}, sum_by_last_block_kernel, n, x, partial, counter, sum);
}
void indices(dim3 grid, dim3 block, unsigned* out, unsigned* lanes) {
  launch({grid, block}, indices_kernel, out, lanes);
}
void early_return(int n, const float* x, float* y) { launch({(n + 63) / 64, 64}, early_return_kernel, n, x, y); }
void ballot_after_return(int lanes, int* counts) { launch({1, 64}, ballot_after_return_kernel, lanes, counts); }
void sums_in_groups(const int* x, int* y) { launch({1, 64}, sums_in_groups_kernel, x, y); }
void record_turns(int threads, int* counter, int* turns) { launch({1, threads}, record_turns_kernel, counter, turns); }
void record_blocks(dim3 grid, int* counter, int* turns) { launch({grid, 1}, record_blocks_kernel, counter, turns); }
void reverse_dynamic(int n, const float* x, float* y) {
  launch({1, 1024, n * sizeof(float)}, reverse_dynamic_kernel, n, x, y);
}
void scan_warps(int warps, const int* x, int* y) { launch({warps, 32}, scan_warps_kernel, x, y); }
void rotate_in_warps(const float* x, float* y) { launch({1, 128}, rotate_in_warps_kernel, x, y); }
void histogram(int n, const int* x, int* bins, int* largest) { launch({6, 96}, histogram_kernel, n, x, bins, largest); }
void through_half(int n, const float* x, float* y_half, float* y_bf16) {
  launch({(n + 255) / 256, 256}, through_half_kernel, n, x, y_half, y_bf16);
}
void much_shared(std::size_t dynamic, float* out) { launch({1, 1, dynamic}, much_shared_kernel, out); }
void allow_much_shared(std::size_t dynamic) { allow_smem(much_shared_kernel, dynamic); }

}  // namespace kiln::KILN_EXEC
