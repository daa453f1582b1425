// Kernels with one mistake each, and the same kernel without it (kFixed). The executor must catch the mistake and must
// not complain of the twin. The functions that name lines count from the line of the constant above the kernel.
#include "tests/executor/kernels.h"

namespace kiln::KILN_EXEC {

// 1. A missing barrier: a thread reads what another one may not have written yet.
template <bool kFixed>
__global__ void missing_barrier_kernel(const float* x, float* y) {
  SMEM(float, s, [64]);
  const unsigned t = threadIdx.x;
  s[t] = x[t];
  if (kFixed) __syncthreads();
  y[t] = s[63 - t];
}

// 2. A divergent barrier: two halves of a block meet at different ones.
constexpr int kDivergentBarrier = __LINE__;
template <bool kFixed>
__global__ void divergent_barrier_kernel(float* y) {
  const unsigned t = threadIdx.x;
  if (kFixed || t < 32) {
    __syncthreads();
  } else {
    y[t] = 0;
    __syncthreads();
  }
  y[t] = 1;
}

// 3. Wrong warp masks. First: a mask names lanes that are elsewhere.
constexpr int kWrongMask = __LINE__;
template <bool kFixed>
__global__ void wrong_mask_kernel(float* y) {
  const int t = threadIdx.x;
  int v = t;
  if (t < 16) v += __shfl_xor_sync(kFixed ? 0x0000ffffu : 0xffffffffu, v, 1);
  __syncthreads();
  y[t] = static_cast<float>(v);
}

// Second: a lane's mask does not name the lane itself.
constexpr int kOwnBitMissing = __LINE__;
template <bool kFixed>
__global__ void own_bit_missing_kernel(float* y) {
  const unsigned t = threadIdx.x;
  y[t] = static_cast<float>(__shfl_xor_sync(kFixed ? 0xffffffffu : 0x7fffffffu, t, 31));
}

// Third: lanes that meet do not agree on who meets.
constexpr int kMasksDisagree = __LINE__;
template <bool kFixed>
__global__ void masks_disagree_kernel(float* y) {
  const unsigned t = threadIdx.x;
  const unsigned mask = kFixed || t % 2 == 0 ? 0xffffffffu : 0xfffffffeu;
  y[t] = __any_sync(mask, t == 5) ? 1.0f : 0.0f;
}

// 4. An overrun of shared memory, by one element.
template <bool kFixed>
__global__ void shared_overrun_kernel(float* y) {
  SMEM(float, s, [64]);
  const unsigned t = threadIdx.x;
  s[t + (kFixed ? 0 : 1)] = static_cast<float>(t);
  __syncthreads();
  y[t] = s[t];
}

// 5. An overrun of global memory, by one element: the bound is tested with <= in place of <.
template <bool kFixed>
__global__ void global_overrun_kernel(int n, float* y) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (kFixed ? i < n : i <= n) y[i] = 1;
}

// 6. A read of shared memory that nobody has written: on a GPU, whatever the last kernel has left there.
template <bool kFixed>
__global__ void unwritten_shared_kernel(float* y) {
  SMEM(float, s, [64]);
  const unsigned t = threadIdx.x;
  if (kFixed || t < 63) s[t] = static_cast<float>(t);
  __syncthreads();
  y[t] = s[t];
}

// 7. A race that depends on the order of the threads: it is right when they run from the first to the last.
template <bool kFixed>
__global__ void order_race_kernel(float* y) {
  SMEM(float, s, [64]);
  const unsigned t = threadIdx.x;
  s[t] = static_cast<float>(t);
  if (kFixed) __syncthreads();
  y[t] = t > 0 ? s[t - 1] : 0.0f;
}

// More of the race kind. A loop whose shared memory is written again while others still read it.
template <bool kFixed>
__global__ void missing_second_barrier_kernel(const float* x, float* y) {
  SMEM(float, first, [1]);
  for (unsigned turn = 0; turn < 4; turn++) {
    if (threadIdx.x == 0) first[0] = x[turn];
    __syncthreads();
    y[turn * 64 + threadIdx.x] = first[0];
    if (kFixed) __syncthreads();
  }
}

// Blocks that add to the same number without an atomic.
template <bool kFixed>
__global__ void block_race_kernel(float* y) {
  if (threadIdx.x == 0) y[kFixed ? blockIdx.x : 0] += 1;
}

// And a reduction in the style of old cards, whose warps ran in step: it needs __syncwarp today.
template <bool kFixed>
__global__ void missing_syncwarp_kernel(const float* x, float* sum) {
  SMEM(float, s, [32]);
  const unsigned t = threadIdx.x;
  s[t] = x[t];
  if (kFixed) __syncwarp();
  for (unsigned d = 16; d > 0; d /= 2) {
    if (t < d) s[t] += s[t + d];
    if (kFixed) __syncwarp();
  }
  if (t == 0) *sum = s[0];
}

// ---- Launches
// -----------------------------------------------------------------------------------------------------------

void missing_barrier(bool fixed, const float* x, float* y) {
  launch({1, 64}, fixed ? missing_barrier_kernel<true> : missing_barrier_kernel<false>, x, y);
}
void divergent_barrier(bool fixed, float* y) {
  launch({1, 64}, fixed ? divergent_barrier_kernel<true> : divergent_barrier_kernel<false>, y);
}
Lines divergent_barrier_lines() { return {kDivergentBarrier + 5, kDivergentBarrier + 8}; }
void wrong_mask(bool fixed, float* y) {
  launch({1, 32}, fixed ? wrong_mask_kernel<true> : wrong_mask_kernel<false>, y);
}
Lines wrong_mask_lines() { return {kWrongMask + 5, kWrongMask + 6}; }
void own_bit_missing(bool fixed, float* y) {
  launch({1, 32}, fixed ? own_bit_missing_kernel<true> : own_bit_missing_kernel<false>, y);
}
int own_bit_missing_line() { return kOwnBitMissing + 4; }
void masks_disagree(bool fixed, float* y) {
  launch({1, 32}, fixed ? masks_disagree_kernel<true> : masks_disagree_kernel<false>, y);
}
int masks_disagree_line() { return kMasksDisagree + 5; }
void shared_overrun(bool fixed, float* y) {
  launch({1, 64}, fixed ? shared_overrun_kernel<true> : shared_overrun_kernel<false>, y);
}
void global_overrun(bool fixed, int n, float* y) {
  launch({n / 64 + 1, 64}, fixed ? global_overrun_kernel<true> : global_overrun_kernel<false>, n, y);
}
void unwritten_shared(bool fixed, float* y) {
  launch({1, 64}, fixed ? unwritten_shared_kernel<true> : unwritten_shared_kernel<false>, y);
}
void missing_second_barrier(bool fixed, const float* x, float* y) {
  launch({1, 64}, fixed ? missing_second_barrier_kernel<true> : missing_second_barrier_kernel<false>, x, y);
}
void order_race(bool fixed, float* y) {
  launch({1, 64}, fixed ? order_race_kernel<true> : order_race_kernel<false>, y);
}
void block_race(bool fixed, float* y) {
  launch({8, 32}, fixed ? block_race_kernel<true> : block_race_kernel<false>, y);
}
void missing_syncwarp(bool fixed, const float* x, float* sum) {
  launch({1, 32}, fixed ? missing_syncwarp_kernel<true> : missing_syncwarp_kernel<false>, x, sum);
}

}  // namespace kiln::KILN_EXEC
