// Batch norm over the rows of a channels-last tensor [rows, C], rows = N*H*W (Ioffe & Szegedy 2015), alone or fused with
// the noise injection before it and the GLU or LeakyReLU after it.
//
//   z = a[c] * (x + w * noise[r]) + b[c]      a = gamma / std, b = beta - mean * a
//   y = z[:, :C/2] * sigmoid(z[:, C/2:])      (glu), or act(z)
//
// Fused forward: one pass for the statistics, one that reads x and writes y. Fused backward: one pass that reads x and dy
// and adds the sums, one that reads both again and writes dx: nothing between x and y is ever stored.
#pragma once
#include "kernels/activation.h"
#include "kernels/exec/api.h"

namespace kiln {

/// Batch norm's tensors in device memory. C channels each, f32. With gamma null norm_prepare leaves a and b alone: the scale and
/// shift are somebody else's (kernels/cond_norm.h).
struct NormChannels {
  const float *gamma, *beta;
  float *running_mean, *running_var;
  float *mean, *inv_std;  // of this batch (training) or of the running statistics (evaluation): saved for backward
  float *a, *b;           // scale and shift
};

/// What the fused kernels do around the normalisation.
struct NormFusion {
  Activation act = Activation::none;
  bool glu = false;              // then `act` is not used
  const float* noise = nullptr;  // [rows], or none
  const float* noise_weight = nullptr;
};

constexpr int64_t norm_scratch_floats(int c) { return int64_t(64) * 4 * c + 4 * c; }
/// Of its scratch, the first 2 c floats are the sums over rows of dz and of dz * xhat after norm_backward_sums.
constexpr int64_t norm_shared_floats(int c) { return int64_t(2) * c; }

}  // namespace kiln

KILN_KERNEL_API(
    /// Training: statistics of x (+ noise), running = (1 - momentum) * running + momentum * batch (unbiased variance), and
    /// the scale and shift. Evaluation (training = false): scale and shift from the running statistics; x is not read.
    /// scratch: norm_scratch_floats(c).
    void norm_prepare(Stream stream, DType t, int64_t rows, int c, const void* x, const NormFusion& fusion,
                      const NormChannels& ch, float eps, float momentum, bool training, float* scratch);
    /// y [rows, C], or [rows, C/2] for glu.
    void norm_forward(Stream stream, DType t, int64_t rows, int c, const void* x, const NormFusion& fusion,
                      const NormChannels& ch, void* y);
    /// dx [rows, C] from dy; dgamma, dbeta and dnoise_weight are added to where they are not null.
    /// scratch: norm_scratch_floats(c).
    void norm_backward(Stream stream, DType t, int64_t rows, int c, const void* x, const void* dy, const NormFusion& fusion,
                       const NormChannels& ch, bool training, void* dx, float* dgamma, float* dbeta, float* dnoise_weight,
                       float* scratch);

    // The same in training over rows that lie on several ranks, as many on each: every rank has the statistics of all rows, and
    // dx is what one process with all rows would have. Between the two halves of each, what the first half leaves is added up
    // over the ranks.
    /// First half of norm_prepare: moments [2][c] in f64 = mean(x), mean(x^2) of this rank's rows. scratch as above.
    void norm_moments(Stream stream, DType t, int64_t rows, int c, const void* x, const NormFusion& fusion, double* moments,
                      float* scratch);
    /// Second half, from the moments' sums over `ranks` ranks of `rows` rows each.
    void norm_finish(Stream stream, int64_t rows, int ranks, int c, const double* moments, const NormChannels& ch, float eps,
                     float momentum);
    /// First half of norm_backward: adds this rank's rows to dgamma and dbeta, and leaves scratch (norm_shared_floats of it
    /// are to be added up over the ranks).
    void norm_backward_sums(Stream stream, DType t, int64_t rows, int c, const void* x, const void* dy, const NormFusion& fusion,
                            const NormChannels& ch, float* dgamma, float* dbeta, float* scratch);
    /// Second half: dx, and this rank's part of dnoise_weight. all_rows: of all ranks; 0 in evaluation.
    void norm_backward_input(Stream stream, DType t, int64_t rows, int64_t all_rows, int c, const void* x, const void* dy,
                             const NormFusion& fusion, const NormChannels& ch, void* dx, float* dnoise_weight, float* scratch);)
