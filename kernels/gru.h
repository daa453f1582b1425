// The pointwise half of a convolutional GRU (engine/ops_clip.h's ConvGru), one frame at a time:
//
//   r = sigmoid(gx_r + gh_r + b_r)   u = sigmoid(gx_u + gh_u + b_u)   k = act(gx_k + ck + b_k)   h' = u h + (1 - u) k
//
// gx, the convolutions of x, is a clip [n, frames, pixels, 3 c] (or [n, pixels, 3 c], the same for every frame); gh [n, pixels, 2 c]
// and ck [n, pixels, c] are those of h and of r h. States and what belongs to one frame are [n, pixels, ...]; ru is [n, pixels, 2 c]. At
// the first frame h is null, and so are gh and ck: they are zero. All in storage type t, the bias b [3 c] in f32. act: relu or tanh.
// Fewer than 2^31 pixels in all.
#pragma once
#include "kernels/activation.h"
#include "kernels/exec/api.h"

namespace kiln {
struct GruShape {
  int64_t n, pixels;
  int frames, c;
  bool constant_input;  // gx has one picture a video
};
}  // namespace kiln

KILN_KERNEL_API(
    /// ru = (r, u), which may lie where gh does; rh = r h, which may be null, as with h.
    void gru_gates(Stream stream, DType t, const GruShape& s, int frame, const void* gx, const void* gh, const void* h, const float* b,
                   void* ru, void* rh);
    /// k, which may lie where ck does; h'; and h' once more as a frame of the clip y [n, frames, pixels, c].
    void gru_blend(Stream stream, DType t, const GruShape& s, int frame, Activation act, const void* gx, const void* ck, const void* ru,
                   const void* h, const float* b, void* k, void* h_next, void* y);
    /// With d = dy[frame] + carry1 + carry2 (either may be null): the gradients of the sums in the brackets of u and of k, dg[.., c:] and
    /// dk, and dh = u d, which may be null. Where h is null dg[.., :c] = 0.
    void gru_blend_backward(Stream stream, DType t, const GruShape& s, int frame, Activation act, const void* dy, const void* carry1,
                            const void* carry2, const void* ru, const void* h, const void* k, void* dg, void* dk, void* dh);
    /// From drh, the gradient of r h: dg[.., :c], dh += r drh (may be null), and rh = r h once more.
    void gru_gates_backward(Stream stream, DType t, const GruShape& s, const void* drh, const void* ru, const void* h, void* dg, void* dh,
                            void* rh);
    /// The gradient of gx from all frames' dg [frames, n, pixels, 2 c] and dk [frames, n, pixels, c], added over frames where gx is
    /// one picture.
    void gru_collect(Stream stream, DType t, const GruShape& s, const void* dg, const void* dk, void* dgx);)
