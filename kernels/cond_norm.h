// Conditional batch norm (de Vries et al. 2017; BigGAN, Brock et al. 2019, appendix B): batch norm whose scale and shift belong
// to a picture, from its class and its latent vector. x [n, pixels, c], gain and bias [n, c], f32:
//
//   y = act((x - mean) * inv_std * (1 + gain[n, c]) + bias[n, c])      act: none or relu
//
// mean and inv_std are norm_prepare's (kernels/norm.h). Fused like its neighbour there: nothing between x and y is stored.
#pragma once
#include "kernels/activation.h"
#include "kernels/exec/api.h"

namespace kiln {

struct CondNormShape {
  int64_t n, pixels;
  int c;
};
constexpr int64_t cond_norm_scratch_floats(const CondNormShape& s) {
  return 2 * s.n * s.c + 2 * s.c + (s.pixels < 64 ? s.pixels : 64) * 2 * s.n * s.c;
}
/// Where in that scratch the batch's two means a channel are: 2 c floats.
constexpr int64_t cond_norm_means(const CondNormShape& s) { return 2 * s.n * s.c; }

}  // namespace kiln

KILN_KERNEL_API(
    /// scale = (1 + gain) * inv_std, shift = bias - mean * scale; all [n, c].
    void cond_norm_scale(Stream stream, int64_t n, int c, const float* gain, const float* bias, const float* mean,
                         const float* inv_std, float* scale, float* shift);
    /// y = act(scale * x + shift).
    void cond_norm_forward(Stream stream, DType t, const CondNormShape& s, const void* x, const float* scale, const float* shift,
                           Activation act, void* y);
    /// dx [n, pixels, c], dgain and dbias [n, c] (f32, overwritten) from dy. In evaluation (training = false) mean and inv_std are
    /// constants. scratch: cond_norm_scratch_floats.
    void cond_norm_backward(Stream stream, DType t, const CondNormShape& s, const void* x, const void* dy, const float* gain,
                            const float* mean, const float* inv_std, const float* scale, const float* shift, Activation act,
                            bool training, void* dx, float* dgain, float* dbias, float* scratch);
    // The same in training over pictures that lie on several ranks, as many on each, as norm_backward's halves (kernels/norm.h): what
    // the first leaves at cond_norm_means [2][c] is to be added up over the ranks. all_rows: pixels of all pictures of all ranks.
    void cond_norm_backward_sums(Stream stream, DType t, const CondNormShape& s, int64_t all_rows, const void* x, const void* dy,
                                 const float* gain, const float* mean, const float* inv_std, const float* scale, const float* shift,
                                 Activation act, float* dgain, float* dbias, float* scratch);
    void cond_norm_backward_input(Stream stream, DType t, const CondNormShape& s, const void* x, const void* dy, const float* mean,
                                  const float* inv_std, const float* scale, const float* shift, Activation act, void* dx,
                                  const float* scratch);)
