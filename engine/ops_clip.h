// The ops of video networks. Clips are [n, t, h, w, c]: n videos of t frames each, so that the frames of all videos are pictures
// [n * t, h, w, c] in the same memory, frame i of video b at b * t + i. Same conventions as engine/ops.h. What works a channel
// or an element at a time takes clips as it is: activation, combine, bias_act, concat_channels, norm_act, and conditional_norm, whose
// statistics then go over n, t, h, w and whose gain and bias belong to a video. What looks at neighbours in space takes frames_of(clip).
#pragma once
#include "engine/ops_conditional.h"

namespace kiln {

// ---- clips and frames (ops_clip.cpp) --------------------------------------------------------------------------------

/// [n, t, h, w, c] -> [n * t, h, w, c], the same memory.
Var frames_of(const Var& clip);
/// [n * t, h, w, c] -> [n, t, h, w, c], the same memory.
Var clip_of(const Var& frames, int64_t t);
/// f of every frame: clip_of(f(frames_of(clip)), t), for f from pictures to pictures (upsample2x, conv2d, nearest_resize, ...).
template <class F>
Var per_frame(const Var& clip, F&& f) {
  return clip_of(f(frames_of(clip)), clip.shape()[1]);
}
/// x [n, c] -> [n * t, c]: rows b * t ... b * t + t - 1 are row b, which is what frames_of(clip) needs of a video's condition.
Var repeat_per_frame(const Var& x, int64_t t);
/// x [n * t, ...] -> [n, ...]: the sum of a video's t rows (frame scores [n * t], features [n * t, c]).
Var sum_frames(const Var& x, int64_t t);

// ---- convolution ----------------------------------------------------------------------------------------------------

/// What stands before the first and behind the last frame of a clip: frames of zeros, that frame again, or nothing, so that
/// the result is kt - 1 frames shorter.
enum class TimePadding : uint8_t { zero, replicate, none };
/// clip [n, t, h, w, c], weight [oc, kt, kh, kw, c], odd sizes -> [n, t or t - kt + 1, h, w, oc]. Stride 1; space is padded with
/// zeros by half a kernel. kt = 1 is conv2d of the frames, with all its ways.
Var conv3d(const Var& clip, const Var& weight, TimePadding time);

// ---- frames ---------------------------------------------------------------------------------------------------------

/// Frames index[b, j] of video b: index i32 [n, k], values in 0..t-1 -> [n, k, h, w, c]. A frame that is named twice gets both
/// gradients.
Var gather_frames(const Var& clip, const Tensor& index);
/// i32 [n, k], each row k different frames of t, any set as likely as any other, rising; from uniforms [n, t].
Tensor draw_frames(const Tensor& uniforms, int64_t k);
/// Frames first, first + stride, ..., `count` of them.
Var take_frames(const Var& clip, int64_t first, int64_t stride, int64_t count);
/// The first and the last frame again, `before` and `behind` times.
Var pad_time(const Var& clip, int64_t before, int64_t behind);
/// [n, t, h, w, c] -> [n, factor * t, h, w, c]: every frame `factor` times (nearest neighbour).
Var time_repeat(const Var& clip, int64_t factor);
/// [n, t, h, w, c] -> [n, t / factor, h, w, c]: means of `factor` neighbouring frames; factor divides t.
Var time_pool(const Var& clip, int64_t factor);
/// Means of boxes of ft frames, fs lines and fs columns, which divide the sizes: 1x2x2 and 2x2x2 pooling, box downsampling.
Var clip_pool(const Var& clip, int64_t ft, int64_t fs);
/// clip_pool's counterpart: every pixel fs x fs times, every frame ft times.
Var clip_repeat(const Var& clip, int64_t ft, int64_t fs);
/// How frames are found between frames: the one before (frame floor(i t / out_t)), or linearly between two.
enum class TimeScaling : uint8_t { nearest, linear };
/// [n, t, h, w, c] -> [n, out_t, out_h, out_w, c], bilinear in space, pixel centres at halves (PyTorch's align_corners = False), in
/// time as said. No filter where it shrinks.
Var resize_clip(const Var& clip, int64_t out_t, int64_t out_h, int64_t out_w, TimeScaling time);

// ---- recurrence (ops_gru.cpp) ---------------------------------------------------------------------------------------

/// A convolutional gated recurrent unit (Ballas et al. 2016; the form of DVD-GAN, Clark et al. 2019):
///
///   r = sigmoid(W_r * [x, h] + b_r)   u = sigmoid(W_u * [x, h] + b_u)   k = act(W_k * [x, r h] + b_k)   h' = u h + (1 - u) k
///
/// from h = 0, act relu or tanh. The weights are kept by what they are convolved with, and each of the three is normalised as one
/// matrix: `input` [3 c, k, k, c_in] holds the parts for x of r, u and k, `gates` [2 c, k, k, c] those for h of r and u, `candidate`
/// [c, k, k, c] that for r h.
struct ConvGru {
  SpectralWeight input, gates, candidate;
  Param bias;  // [3 c]: r, u, k
  Activation act = Activation::relu;
  /// Back-propagation through time is cut before every frame whose number is a multiple of this; 0: never.
  int64_t truncate = 0;

  ConvGru() = default;
  ConvGru(int64_t in, int64_t channels, int kernel = 3, Activation activation = Activation::relu);
  template <class F>
  void visit(F&& f) {
    f("input", input);
    f("gates", gates);
    f("candidate", candidate);
    f("bias", bias);
  }
};

/// x [n, t, h, w, c_in], or one picture [n, h, w, c_in] that all `t` frames get, whose convolution is then computed once ->
/// all states [n, t, h, w, c]. The unit's SpectralGroup must have prepared the weights.
Var conv_gru(const Var& x, int64_t t, ConvGru& gru);
/// The recurrence alone: gates_x, the convolution of x with `input`, [n * t, h, w, 3 c] (or [n, h, w, 3 c] for all frames);
/// gates [2 c, k, k, c], candidate [c, k, k, c].
Var gru_recurrence(const Var& gates_x, int64_t n, int64_t t, const Var& gates, const Var& candidate, Param& bias, Activation act,
                   int64_t truncate = 0);

}  // namespace kiln
