// The kernels that test the executor: sound ones (sound.cu) and ones with a planted mistake (planted.cu).
#pragma once

#include "kernels/exec/exec.h"

namespace kiln::KILN_EXEC {

// ---- sound.cu: each equals a plain loop, whatever the order of the threads ------------------------------------------

/// y += a x
void axpy(int n, float a, const float* x, float* y);

/// sums[b]: the sum of what block b has read, in a grid-stride loop. threads is a multiple of 32.
void block_sums(int n, const float* x, float* sums, int blocks, int threads);

/// Softmax of every row of x[rows][cols], one block a row, with warp shuffles.
void softmax(int rows, int cols, const float* x, float* y, int threads);

/// y[cols][rows] = x[rows][cols] transposed, through a tile in shared memory.
void transpose(int rows, int cols, const float* x, float* y);

/// Keeps the positive elements of every 32, in order: y[32 w ...], counts[w] of them. Ballot and population count.
void compact(int n, const float* x, float* y, int* counts);

/// kept[w] = {any, all, how many lanes exist}, of the predicate x > 0, for a block of `threads` threads.
void votes(int threads, const float* x, int* kept);

/// The sum of x, added up in a fixed order by the block that is done last. *counter is 0 before and after.
void sum_by_last_block(int n, const float* x, float* partial, unsigned* counter, float* sum, int blocks);

/// out[flat grid-wide index] = the thread's own, in any shape of grid and block; lanes[...] = the flat index in the
/// block of the first thread of its warp.
void indices(dim3 grid, dim3 block, unsigned* out, unsigned* lanes);

/// Threads beyond n return before the barrier that the others meet at; y = x reversed in runs of 64.
void early_return(int n, const float* x, float* y);

/// Lanes from `lanes` on return before the others count themselves by a ballot of the full mask. One block of 64.
void ballot_after_return(int lanes, int* counts);

/// y[i] = the sum of x over the lanes of i's warp that are equal to i modulo 4, which go through i % 4 + 1 rounds of
/// shuffles among themselves. 64 threads.
void sums_in_groups(const int* x, int* y);

/// turns[k]: the flat index of the thread that ran as the k-th of the block, before and after a barrier.
void record_turns(int threads, int* counter, int* turns);

/// turns[k]: the flat index of the block that ran as the k-th.
void record_blocks(dim3 grid, int* counter, int* turns);

/// Reverses x[n], n <= 1024, in dynamic shared memory.
void reverse_dynamic(int n, const float* x, float* y);

/// Inclusive prefix sums of every 32 elements, by shuffles in two segments of 16 and one fix-up across them.
void scan_warps(int warps, const int* x, int* y);

/// Every warp passes a value around in shared memory, ordered by __syncwarp alone. 4 warps.
void rotate_in_warps(const float* x, float* y);

/// A histogram of x[n] in 16 bins, and the largest value, with integer atomics.
void histogram(int n, const int* x, int* bins, int* largest);

/// y = x, rounded to half_t and to bf16_t on the way.
void through_half(int n, const float* x, float* y_half, float* y_bf16);

/// Uses `dynamic` bytes of dynamic and 32 KB of static shared memory.
void much_shared(std::size_t dynamic, float* out);

/// The same after allow_smem(): see executor_test.cpp.
void allow_much_shared(std::size_t dynamic);

// ---- planted.cu: each mistake, and its twin without it --------------------------------------------------------------

struct Lines {
  int a, b;
};

void missing_barrier(bool fixed, const float* x, float* y);  // 64 threads; y = x reversed
void divergent_barrier(bool fixed, float* y);                // 64 threads; y[i] = 1
Lines divergent_barrier_lines();                             // of the two barriers
void wrong_mask(bool fixed, float* y);                       // 32 threads; y[i] = i + (i ^ 1) below 16, i above
Lines wrong_mask_lines();                                    // of the shuffle, and of the barrier the others are at
void own_bit_missing(bool fixed, float* y);                  // 32 threads; y[i] = 31 - i
int own_bit_missing_line();
void masks_disagree(bool fixed, float* y);  // 32 threads; y[i] = 1
int masks_disagree_line();
void shared_overrun(bool fixed, float* y);                          // 64 threads; y[i] = i
void global_overrun(bool fixed, int n, float* y);                   // y[0 ... n) = 1
void unwritten_shared(bool fixed, float* y);                        // 64 threads; y[i] = i
void order_race(bool fixed, float* y);                              // 64 threads; y[i] = max(i - 1, 0)
void missing_second_barrier(bool fixed, const float* x, float* y);  // 64 threads; y[4][64], y[k][i] = x[k]
void block_race(bool fixed, float* y);                              // 8 blocks; y[0 ... 8) = 1, or all of them in y[0]
void missing_syncwarp(bool fixed, const float* x, float* sum);      // 32 threads; *sum = the sum of x[32]

}  // namespace kiln::KILN_EXEC
