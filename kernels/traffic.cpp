#include "kernels/traffic.h"

#include "kernels/activation.h"
#include "kernels/adam.h"
#include "kernels/attention.h"
#include "kernels/augment.h"
#include "kernels/bias.h"
#include "kernels/clip.h"
#include "kernels/cond_norm.h"
#include "kernels/embedding.h"
#include "kernels/feature.h"
#include "kernels/fold.h"
#include "kernels/gate.h"
#include "kernels/gram.h"
#include "kernels/gru.h"
#include "kernels/inference.h"
#include "kernels/loss.h"
#include "kernels/narrow.h"
#include "kernels/norm.h"
#include "kernels/perceptual.h"
#include "kernels/pointwise.h"
#include "kernels/pool.h"
#include "kernels/projection.h"
#include "kernels/random.h"
#include "kernels/resize.h"
#include "kernels/spectral.h"
#include "kernels/step.h"
#include "kernels/wavelet.h"

namespace kiln {
namespace {

thread_local std::vector<Moved>* noting = nullptr;

constexpr int64_t kFloat = 4, kByte = 1;

size_t element_size(DType t) { return t == DType::f32 || t == DType::i32 ? 4 : t == DType::u8 ? 1 : 2; }

void note(const char* name, int launches, DType t, Bytes passes, Bytes least) {
  if (!noting) return;
  noting->push_back({name, launches, element_size(t), passes, least});
}
void note(const char* name, int launches, DType t, Bytes bytes) { note(name, launches, t, bytes, bytes); }

int64_t pixels(const AugmentShape& s) { return s.n * s.h * s.w * 3; }
int64_t pixels(const WaveletShape& s, const WaveletAxis& rows, const WaveletAxis& columns) {
  return 4 * s.n * rows.pairs * columns.pairs * s.tiles * s.channels;
}
void note_products(const char* name, int launches, DType t, Bytes bytes, double flops) {
  if (noting) noting->push_back({name, launches, element_size(t), bytes, bytes, flops});
}
int64_t pixels(const NarrowShape& s) { return s.n * s.h * s.w; }
double flops(const NarrowShape& s) { return 18.0 * double(pixels(s)) * s.few * s.wide; }
int64_t in(const ResizeShape& s) { return s.n * s.h * s.w * s.c; }
int64_t out(const ResizeShape& s) { return s.n * s.out_h * s.out_w * s.c; }
int64_t in(const PoolShape& s) { return s.n * s.h * s.w * s.c; }
int64_t out(const PoolShape& s) { return s.n * s.out_h * s.out_w * s.c; }
int64_t in(const PlaceShape& s) { return s.n * s.h * s.w * s.c; }
int64_t out(const PlaceShape& s) { return s.n * s.out_h * s.out_w * s.c; }
int64_t in(const FrameShape& s) { return s.n * s.t * s.rows * s.width; }
int64_t out(const FrameShape& s) { return s.n * s.out_t * s.rows * s.width; }
int64_t large(const BoxShape& s) { return s.n * s.t * s.h * s.w * s.c; }
int64_t small(const BoxShape& s) { return large(s) / (s.ft * s.fs * s.fs); }
int64_t in(const ClipResize& s) { return s.n * s.t * s.h * s.w * s.c; }
int64_t out(const ClipResize& s) { return s.n * s.out_t * s.out_h * s.out_w * s.c; }
int64_t state(const GruShape& s) { return s.n * s.pixels * s.c; }

}  // namespace

NoteTraffic::NoteTraffic(std::vector<Moved>& into) : before_(noting) { noting = &into; }
NoteTraffic::~NoteTraffic() { noting = before_; }

namespace traffic {

// ---- activation ------------------------------------------------------------------------------------------------------
void activation_forward(Stream, DType t, Activation, int64_t n, const void*, void*) { note("activation_forward", 1, t, {2 * n}); }
void activation_backward(Stream, DType t, Activation, int64_t n, const void*, const void*, void*) {
  note("activation_backward", 1, t, {3 * n});
}
void glu_forward(Stream, DType t, int64_t rows, int h, const void*, void*) { note("glu_forward", 1, t, {3 * rows * h}); }
void glu_backward(Stream, DType t, int64_t rows, int h, const void*, const void*, void*) {
  note("glu_backward", 1, t, {5 * rows * h});
}

// ---- adam ------------------------------------------------------------------------------------------------------------
void adam_update(Stream, int64_t n, const AdamOptions&, const EmaOptions&, const float*, OptimiserState*, float*, const float*,
                 float*, float*, float* ema) {
  note("adam_update", 2, DType::f32, {0, (ema ? 9 : 7) * kFloat * n});  // value, m, v (and ema) both ways, the gradient once
}
void ema_update(Stream, int64_t n, const OptimiserState*, const float*, float*) {
  note("ema_update", 1, DType::f32, {0, 3 * kFloat * n});
}

// ---- attention -------------------------------------------------------------------------------------------------------
void softmax_forward(Stream, DType t, int64_t rows, int m, const float*, void*) {
  note("softmax_forward", 1, t, {rows * m, kFloat * rows * m});
}
void softmax_backward(Stream, DType t, int64_t rows, int m, const void*, const float*, void*) {
  note("softmax_backward", 1, t, {2 * rows * m, kFloat * rows * m});
}
void gamma_forward(Stream, DType t, int64_t n, const void*, const void*, const float*, void*) { note("gamma_forward", 1, t, {3 * n}); }
void gamma_backward(Stream, DType t, int64_t n, const void*, const void*, const float*, void* dout, float* dgamma, float*) {
  note("gamma_backward", (dgamma ? 3 : 0) + (dout ? 1 : 0), t, {(dgamma ? 2 * n : 0) + (dout ? 2 * n : 0)},
       {(dgamma ? n : 0) + (dout ? n : 0) + n});
}

// ---- augment ---------------------------------------------------------------------------------------------------------
void picture_means(Stream, DType t, const AugmentShape& s, const void*, float*, float*) {
  note("picture_means", 2, t, {pixels(s)});
}
void augment_forward(Stream, DType t, const AugmentShape& s, const AugmentPolicy&, const float*, const float*, const void*, void*) {
  note("augment_forward", 1, t, {2 * pixels(s)});
}
void augment_backward(Stream, DType t, const AugmentShape& s, const AugmentPolicy& p, const float*, const void*, void*, float*) {
  note("augment_backward", p.color ? 3 : 1, t, {(p.color ? 3 : 2) * pixels(s)}, {2 * pixels(s)});
}
void gather_pictures(Stream, DType t, const AugmentShape& s, const uint8_t*, const int32_t*, const float*, float, void*) {
  note("gather_pictures", 1, t, {pixels(s), kByte * pixels(s)});
}
void gather_clips(Stream, DType t, const AugmentShape& s, int, const uint8_t*, const int32_t*, const float*, float, void*) {
  note("gather_clips", 1, t, {pixels(s), kByte * pixels(s)});
}
void gather_augmented(Stream, DType t, const AugmentShape& s, const AugmentPolicy&, const uint8_t*, const float*, const int32_t*,
                      const float*, float, const float*, void*) {
  note("gather_augmented", 1, t, {pixels(s), kByte * pixels(s)});
}

// ---- feature ---------------------------------------------------------------------------------------------------------
void affine_activation(Stream, DType t, int64_t rows, int c, const void*, const float*, const float*, float, void*) {
  note("affine_activation", 1, t, {2 * rows * c});
}
void affine_activation_backward(Stream, DType t, int64_t rows, int c, const void* y, const float*, float, const void*, void*) {
  note("affine_activation_backward", 1, t, {(y ? 3 : 2) * rows * c});
}
void max_pool_forward(Stream, DType t, const PoolShape& s, const void*, void*) { note("max_pool_forward", 1, t, {in(s) + out(s)}); }
void max_pool_backward(Stream, DType t, const PoolShape& s, const void*, const void*, void*) {
  note("max_pool_backward", 1, t, {2 * in(s) + out(s)});
}
void average_pool(Stream, DType t, const PoolShape& s, const void*, void*) { note("average_pool", 1, t, {in(s) + out(s)}); }
void place(Stream, DType t, const PlaceShape& s, const void*, void*) { note("place", 1, t, {in(s) + out(s)}); }
void copy_channels(Stream, DType t, int64_t rows, int cx, int, int, const void*, void*) { note("copy_channels", 1, t, {2 * rows * cx}); }
void bilinear(Stream, DType t, const PlaceShape& s, const void*, void*) {
  const int64_t read = 4 * out(s) < in(s) ? 4 * out(s) : in(s);  // a much smaller picture skips pixels
  note("bilinear", 1, t, {read + out(s)});
}

// ---- bias ------------------------------------------------------------------------------------------------------------
void bias_forward(Stream, DType t, int64_t rows, int c, const void*, const float*, Activation, void*) {
  note("bias_forward", 1, t, {2 * rows * c});
}
void bias_backward(Stream, DType t, int64_t rows, int c, const void*, const void*, Activation act, void* dx, float* dbias, float*) {
  const bool relu = act == Activation::relu;
  if (!dbias && !(relu && dx)) return;  // nothing runs
  note("bias_backward", dbias ? 3 : 1, t, {(1 + (relu ? 1 : 0) + (dx ? 1 : 0)) * rows * c});
}
void residual_forward(Stream, DType t, int64_t n, int h, int w, int c, const void*, const void*, bool upsample, const float*, const float*,
                      void*) {
  const int64_t y = n * h * w * c;
  note("residual_forward", 1, t, {2 * y + (upsample ? y / 4 : y)});
}

// ---- clip ------------------------------------------------------------------------------------------------------------
void frames_forward(Stream, DType t, const FrameShape& s, const FrameMap&, const void*, void*) {
  note("frames_forward", 1, t, {(in(s) < out(s) ? in(s) : out(s)) + out(s)});  // a frame that is read again is in a cache
}
void frames_backward(Stream, DType t, const FrameShape& s, const FrameMap&, const void*, void*) {
  note("frames_backward", 1, t, {in(s) + out(s)});
}
void gather_frames_forward(Stream, DType t, const FrameShape& s, const int32_t*, const void*, void*) {
  note("gather_frames_forward", 1, t, {2 * out(s)});
}
void gather_frames_backward(Stream, DType t, const FrameShape& s, const int32_t*, const void*, void*) {
  note("gather_frames_backward", 1, t, {in(s) + out(s)});
}
void draw_frames(Stream, int64_t n, int t, int k, const float*, int32_t*) { note("draw_frames", 1, DType::f32, {0, kFloat * n * (t + k)}); }
void box_sum(Stream, DType t, const BoxShape& s, float, const void*, void*) { note("box_sum", 1, t, {large(s) + small(s)}); }
void box_fill(Stream, DType t, const BoxShape& s, float, const void*, void*) { note("box_fill", 1, t, {large(s) + small(s)}); }
void clip_resize_forward(Stream, DType t, const ClipResize& s, const void*, void*) { note("clip_resize_forward", 1, t, {in(s) + out(s)}); }
void clip_resize_backward(Stream, DType t, const ClipResize& s, const void*, void*) { note("clip_resize_backward", 1, t, {in(s) + out(s)}); }

// ---- conditional norm ------------------------------------------------------------------------------------------------
void cond_norm_scale(Stream, int64_t n, int c, const float*, const float*, const float*, const float*, float*, float*) {
  note("cond_norm_scale", 1, DType::f32, {0, 4 * kFloat * n * c});
}
void cond_norm_forward(Stream, DType t, const CondNormShape& s, const void*, const float*, const float*, Activation, void*) {
  note("cond_norm_forward", 1, t, {2 * s.n * s.pixels * s.c});
}
void cond_norm_backward(Stream, DType t, const CondNormShape& s, const void*, const void*, const float*, const float*, const float*, const float*,
                        const float*, Activation, bool, void*, float*, float*, float*) {
  const int64_t x = s.n * s.pixels * s.c;
  note("cond_norm_backward", 4, t, {5 * x}, {3 * x});
}
void cond_norm_backward_sums(Stream, DType t, const CondNormShape& s, int64_t, const void*, const void*, const float*, const float*,
                             const float*, const float*, const float*, Activation, float*, float*, float*) {
  note("cond_norm_backward_sums", 3, t, {2 * s.n * s.pixels * s.c}, {});
}
void cond_norm_backward_input(Stream, DType t, const CondNormShape& s, const void*, const void*, const float*, const float*, const float*,
                              const float*, Activation, void*, const float*) {
  note("cond_norm_backward_input", 1, t, {3 * s.n * s.pixels * s.c});
}

// ---- embedding -------------------------------------------------------------------------------------------------------
void labels_from_uniform(Stream, int64_t n, int, const float*, int32_t*) { note("labels_from_uniform", 1, DType::f32, {0, 2 * kFloat * n}); }
void concat_labels(Stream, int64_t n, int64_t m, const int32_t*, const int32_t*, int32_t*) {
  note("concat_labels", 1, DType::f32, {0, 2 * kFloat * (n + m)});
}
void embedding_forward(Stream, int64_t n, int c, const float*, const int32_t*, float*) {
  note("embedding_forward", 1, DType::f32, {0, 2 * kFloat * n * c});
}
void embedding_backward(Stream, int64_t n, int classes, int c, const float*, const int32_t*, float*) {
  note("embedding_backward", 1, DType::f32, {0, kFloat * (n + 2 * int64_t(classes)) * c});
}
void concat_columns(Stream, DType t, int64_t rows, int a, int b, const void*, const void* z, void*) {
  note("concat_columns", 1, t, {rows * (2 * int64_t(a) + (z ? 2 : 1) * int64_t(b))});
}
void take_columns(Stream, DType t, int64_t rows, int, int, int count, const void*, void*) { note("take_columns", 1, t, {2 * rows * count}); }

// ---- fold ------------------------------------------------------------------------------------------------------------
void upsample_fold(Stream, DType t, int o, int i, const void*, void*) { note("upsample_fold", 1, t, {int64_t(9 + 16) * o * i}); }
void upsample_fold_backward(Stream, int o, int i, const float*, float*) {
  note("upsample_fold_backward", 1, DType::f32, {0, (9 + 16) * kFloat * o * i});
}
void pool_fold(Stream, DType t, int o, int i, const void*, void*) { note("pool_fold", 1, t, {int64_t(9 + 16) * o * i}); }
void pool_fold_backward(Stream, int o, int i, const float*, float*) {
  note("pool_fold_backward", 1, DType::f32, {0, (9 + 16) * kFloat * o * i});
}
void adjoint_weights(Stream, int o, int i, float, const float*, float*) {
  note("adjoint_weights", 1, DType::f32, {0, (9 + 9) * kFloat * o * i});
}
void upsample_products(Stream, int o, int i, const float*, float*) {
  note("upsample_products", 1, DType::f32, {0, (9 + 9) * kFloat * o * i});
}
void upsample_products_backward(Stream, int o, int i, const float*, float*) {
  note("upsample_products_backward", 1, DType::f32, {0, (9 + 9) * kFloat * o * i});
}
void winograd_weights(Stream, int o, int i, const float*, float*) {
  note("winograd_weights", 1, DType::f32, {0, (9 + 16) * kFloat * o * i});
}
void winograd_weights_backward(Stream, int o, int i, const float*, float*) {
  note("winograd_weights_backward", 1, DType::f32, {0, (9 + 16) * kFloat * o * i});
}

// ---- gate ------------------------------------------------------------------------------------------------------------
void gate_forward(Stream, DType t, int64_t n, int64_t pixels, int c, const void*, const void*, void*) {
  note("gate_forward", 1, t, {2 * n * pixels * c});
}
void gate_backward(Stream, DType t, int64_t n, int64_t pixels, int c, const void*, const void*, const void*, void*, float*, float*) {
  note("gate_backward", 2, t, {3 * n * pixels * c});
}

// ---- gram ------------------------------------------------------------------------------------------------------------
void gram_residual(Stream, int n, bool, float, const float*, float*) { note("gram_residual", 1, DType::f32, {0, 2 * kFloat * n * n}); }

// ---- gru -------------------------------------------------------------------------------------------------------------
void gru_gates(Stream, DType t, const GruShape& s, int, const void*, const void* gh, const void*, const float*, void*, void* rh) {
  note("gru_gates", 1, t, {(2 + 2 + (gh ? 2 : 0) + (rh ? 2 : 0)) * state(s)});
}
void gru_blend(Stream, DType t, const GruShape& s, int, Activation, const void*, const void* ck, const void*, const void* h, const float*,
               void*, void*, void*) {
  note("gru_blend", 1, t, {(2 + 3 + (ck ? 1 : 0) + (h ? 1 : 0)) * state(s)});
}
void gru_blend_backward(Stream, DType t, const GruShape& s, int, Activation, const void*, const void* carry1, const void* carry2, const void*,
                        const void*, const void*, void*, void*, void* dh) {
  // dy, u, k, dk and dg's second half; h is read where dg's first half is not written
  note("gru_blend_backward", 1, t, {(6 + (carry1 ? 1 : 0) + (carry2 ? 1 : 0) + (dh ? 1 : 0)) * state(s)});
}
void gru_gates_backward(Stream, DType t, const GruShape& s, const void*, const void*, const void*, void*, void* dh, void*) {
  note("gru_gates_backward", 1, t, {(5 + (dh ? 2 : 0)) * state(s)});
}
void gru_collect(Stream, DType t, const GruShape& s, const void*, const void*, void*) {
  note("gru_collect", 1, t, {3 * (s.frames + (s.constant_input ? 1 : s.frames)) * state(s)});
}

// ---- inference -------------------------------------------------------------------------------------------------------
void biased_glu(Stream, DType t, int64_t rows, int h, const void*, const float*, const float* noise, const float*, int64_t,
                const float*, void*) {
  note("biased_glu", 1, t, {3 * rows * h, noise ? kFloat * rows : 0});
}

// ---- loss ------------------------------------------------------------------------------------------------------------
void hinge_loss(Stream, DType t, int64_t n, float, float, const void*, const float* u, float*, float*, float*) {
  note("hinge_loss", 1, t, {n, (u ? 2 : 1) * kFloat * n});
}
void relativistic_loss(Stream, DType t, int64_t n, float, const void*, const float*, float*, float*, float*) {
  note("relativistic_loss", 1, t, {n, kFloat * n});
}
void mean_value(Stream, DType t, int64_t n, float, const void*, float*) { note("mean_value", 1, t, {n}); }
void difference_loss(Stream, DType t, int64_t n, int64_t per_picture, int, const void*, const void*, float*, float*) {
  note("difference_loss", 2, t, {2 * n * per_picture});
}
void square_sum(Stream, int64_t n, const float*, float*, float*) { note("square_sum", 2, DType::f32, {0, kFloat * n}); }
void difference_backward(Stream, DType t, int64_t n, int64_t per_picture, int, const void*, const void*, const float*, void*) {
  note("difference_backward", 1, t, {3 * n * per_picture});
}
void scale_by(Stream, DType t, int64_t n, const float*, const float*, void*) { note("scale_by", 1, t, {n, kFloat * n}); }
void broadcast(Stream, DType t, int64_t n, float, const float*, void*) { note("broadcast", 1, t, {n}); }

// ---- narrow ----------------------------------------------------------------------------------------------------------
void narrow_forward(Stream, DType t, const NarrowShape& s, const void*, const void*, void*) {
  note_products("narrow_forward", 1, t, {pixels(s) * (s.few + s.wide) + int64_t(9) * s.few * s.wide}, flops(s));
}
void narrow_weights(Stream, DType t, const NarrowShape& s, const void*, const void*, float*, float*) {
  // As on a GPU, where each of the few channels is a pass over x. A CPU takes three at once.
  if (noting)
    noting->push_back({"narrow_weights", 2 * s.few, element_size(t), {pixels(s) * s.few * (1 + s.wide), kFloat * 9 * s.few * s.wide},
                       {pixels(s) * (s.few + s.wide), kFloat * 9 * s.few * s.wide}, flops(s)});
}
void narrow_turn(Stream, DType t, int few, int wide, const void*, void*) { note("narrow_turn", 1, t, {int64_t(18) * few * wide}); }

// ---- norm ------------------------------------------------------------------------------------------------------------
void norm_prepare(Stream, DType t, int64_t rows, int c, const void*, const NormFusion& fusion, const NormChannels&, float, float,
                  bool training, float*) {
  const Bytes x{rows * c, fusion.noise ? kFloat * rows : 0};
  note("norm_prepare", training ? 3 : 1, t, training ? x : Bytes{}, {});
}
void norm_forward(Stream, DType t, int64_t rows, int c, const void*, const NormFusion& fusion, const NormChannels&, void*) {
  note("norm_forward", 1, t, {rows * c + rows * (fusion.glu ? c / 2 : c), fusion.noise ? kFloat * rows : 0});
}
void norm_backward(Stream, DType t, int64_t rows, int c, const void*, const void*, const NormFusion& fusion, const NormChannels&,
                   bool training, void*, float* dgamma, float* dbeta, float* dnoise_weight, float*) {
  const bool sums = training || dgamma || dbeta || dnoise_weight;
  const int64_t x = rows * c, dy = rows * (fusion.glu ? c / 2 : c);
  const int64_t noise = fusion.noise ? kFloat * rows : 0;
  const int launches = (sums ? 2 : 1) + 1 + (dgamma || dbeta ? 1 : 0) + (fusion.noise && dnoise_weight ? 3 : 0);
  const int64_t noise_passes = (sums ? 2 : 1) + (dnoise_weight ? 1 : 0);
  note("norm_backward", launches, t, {(sums ? 2 : 1) * (x + dy) + x, noise_passes * noise}, {2 * x + dy, noise});
}
void norm_moments(Stream, DType t, int64_t rows, int c, const void*, const NormFusion& fusion, double*, float*) {
  note("norm_moments", 3, t, {rows * c, fusion.noise ? kFloat * rows : 0}, {});
}
void norm_finish(Stream, int64_t, int, int, const double*, const NormChannels&, float, float) {
  note("norm_finish", 1, DType::f32, {});
}
void norm_backward_sums(Stream, DType t, int64_t rows, int c, const void*, const void*, const NormFusion& fusion, const NormChannels&,
                        float* dgamma, float* dbeta, float*) {
  const int64_t dy = rows * (fusion.glu ? c / 2 : c), noise = fusion.noise ? kFloat * rows : 0;
  note("norm_backward_sums", 2 + (dgamma || dbeta ? 1 : 0), t, {rows * c + dy, noise}, {});
}
void norm_backward_input(Stream, DType t, int64_t rows, int64_t, int c, const void*, const void*, const NormFusion& fusion,
                         const NormChannels&, void*, float* dnoise_weight, float*) {
  const int64_t x = rows * c, dy = rows * (fusion.glu ? c / 2 : c), noise = fusion.noise ? kFloat * rows : 0;
  note("norm_backward_input", 1 + (fusion.noise && dnoise_weight ? 3 : 0), t, {2 * x + dy, (dnoise_weight ? 2 : 1) * noise}, {2 * x + dy, noise});
}

// ---- perceptual ------------------------------------------------------------------------------------------------------
void perceptual_forward(Stream, DType t, int64_t n, int64_t pixels, int c, const void*, const void*, const float*, float*, float*) {
  note("perceptual_forward", 3, t, {2 * n * pixels * c, 2 * kFloat * n * pixels}, {2 * n * pixels * c});
}
void perceptual_backward(Stream, DType t, int64_t n, int64_t pixels, int c, const void*, const void*, const float*, const float*, void*) {
  note("perceptual_backward", 1, t, {3 * n * pixels * c});
}

// ---- pointwise -------------------------------------------------------------------------------------------------------
void fill(Stream, DType t, int64_t n, float, void*) { note("fill", 1, t, {n}); }
void linear_combination(Stream, DType t, int64_t n, float, const void*, float, const void*, void*) {
  note("linear_combination", 1, t, {3 * n});
}
void scale(Stream, DType t, int64_t n, float, const void*, void*) { note("scale", 1, t, {2 * n}); }
void accumulate(Stream, DType t, int64_t n, float, const void*, float*) { note("accumulate", 1, t, {n, 2 * kFloat * n}); }
void cast(Stream, DType tx, DType ty, int64_t n, const void*, void*) {
  const DType narrow = element_size(tx) < element_size(ty) ? tx : ty;
  note("cast", 1, narrow, {n, int64_t(element_size(narrow == tx ? ty : tx)) * n});
}
void concatenate(Stream, DType t, int64_t na, const void*, int64_t nb, const void*, void*) {
  note("concatenate", 1, t, {2 * (na + nb)});
}
void split(Stream, DType t, int64_t na, void* a, int64_t nb, void* b, const void*) {
  note("split", 1, t, {2 * ((a ? na : 0) + (b ? nb : 0))});
}
void noise_forward(Stream, DType t, int64_t rows, int c, const void*, const float*, const float*, void*) {
  note("noise_forward", 1, t, {2 * rows * c, kFloat * rows});
}
void noise_backward_weight(Stream, DType t, int64_t rows, int c, const void*, const float*, float*, float*) {
  note("noise_backward_weight", 3, t, {rows * c, kFloat * rows});
}
void transpose(Stream, DType t, int64_t n, int a, int b, const void*, void*) { note("transpose", 1, t, {2 * n * a * b}); }

// ---- pool ------------------------------------------------------------------------------------------------------------
void max_pool_forward(Stream, DType t, int64_t n, int h, int w, int c, const void*, void*) {
  note("max_pool_forward", 1, t, {n * h * w * c + n * (h / 2) * (w / 2) * c});
}
void max_pool_backward(Stream, DType t, int64_t n, int h, int w, int c, const void*, const void*, void*) {
  note("max_pool_backward", 1, t, {2 * n * h * w * c + n * (h / 2) * (w / 2) * c});
}

// ---- projection ------------------------------------------------------------------------------------------------------
void relu_sum_pool_forward(Stream, DType t, int64_t n, int64_t pixels, int c, const void*, void*, float*) {
  note("relu_sum_pool_forward", 3, t, {n * pixels * c + n * c});
}
void relu_sum_pool_backward(Stream, DType t, int64_t n, int64_t pixels, int c, const void*, const void*, void*) {
  note("relu_sum_pool_backward", 1, t, {2 * n * pixels * c + n * c});
}
void projection_forward(Stream, DType t, int64_t n, int c, const void*, const void*, const float*, const void* embed, const int32_t*, float*,
                        float*) {
  note("projection_forward", 3, t, {n * c * (embed ? 2 : 1) + c, 3 * kFloat * n});
}
void projection_backward(Stream, DType t, int64_t n, int classes, int c, const void*, const void*, const void* embed, const int32_t*, const float*,
                         void* dh, float* dw, float* dembed, float* dbias) {
  const int64_t h = n * c;
  note("projection_backward", (dh ? 1 : 0) + (dw ? 1 : 0) + (dembed ? 1 : 0) + (dbias ? 1 : 0), t,
       {(dh ? h * (embed ? 2 : 1) + c : 0) + (dw ? h : 0) + (dembed ? h : 0), kFloat * ((dw ? c : 0) + (dembed ? int64_t(classes) * c : 0) + n)});
}

// ---- random ----------------------------------------------------------------------------------------------------------
void random_uniform(Stream, uint64_t, uint32_t, const uint64_t*, int64_t, int64_t samples, int64_t per_sample, float*) {
  note("random_uniform", 1, DType::f32, {0, kFloat * samples * per_sample});
}
void random_normal(Stream, uint64_t, uint32_t, const uint64_t*, int64_t, int64_t samples, int64_t per_sample, float*) {
  note("random_normal", 1, DType::f32, {0, kFloat * samples * per_sample});
}

// ---- resize ----------------------------------------------------------------------------------------------------------
void nearest_forward(Stream, DType t, const ResizeShape& s, const void*, void*) {
  note("nearest_forward", 1, t, {(out(s) < in(s) ? out(s) : in(s)) + out(s)});  // a smaller picture skips pixels
}
void nearest_backward(Stream, DType t, const ResizeShape& s, const void*, void*) { note("nearest_backward", 1, t, {in(s) + out(s)}); }
void area_forward(Stream, DType t, const ResizeShape& s, const void*, void*) { note("area_forward", 1, t, {in(s) + out(s)}); }
void area_backward(Stream, DType t, const ResizeShape& s, const void*, void*) { note("area_backward", 1, t, {in(s) + out(s)}); }
void corner_bilinear_forward(Stream, DType t, const ResizeShape& s, const void*, void*) { note("corner_bilinear_forward", 1, t, {in(s) + out(s)}); }
void corner_bilinear_backward(Stream, DType t, const ResizeShape& s, const void*, void*) {
  note("corner_bilinear_backward", 1, t, {in(s) + out(s)});
}
void corner_crop_forward(Stream, DType t, const ResizeShape& s, const int32_t*, const void*, void*) {
  note("corner_crop_forward", 1, t, {2 * out(s)});
}
void corner_crop_backward(Stream, DType t, const ResizeShape& s, const int32_t*, const void*, void*) {
  note("corner_crop_backward", 1, t, {in(s) + out(s)});
}
void corner_from_uniform(Stream, const float*, int32_t*) { note("corner_from_uniform", 1, DType::f32, {0, 2 * kFloat}); }

// ---- spectral --------------------------------------------------------------------------------------------------------
void spectral_normalise(Stream, const SpectralTables& t, const float*, float*, float*, bool iterate, float*, DType type, void*) {
  const int64_t pass = kFloat * t.elements;  // W'u, Wv, and W for the result
  note("spectral_normalise", iterate ? 3 : 2, type, {t.elements, (iterate ? 3 : 2) * pass}, {t.elements, pass});
}
void spectral_backward(Stream, const SpectralTables& t, const float*, const float*, const float*, const float*, const float*,
                       float*) {
  const int64_t pass = kFloat * t.elements;  // W and A for the inner product; A again, the gradient both ways
  note("spectral_backward", 2, DType::f32, {0, 5 * pass}, {0, 4 * pass});
}

// ---- step ------------------------------------------------------------------------------------------------------------
void check_finite(Stream, int64_t n, const float*, float*, float*) { note("check_finite", 2, DType::f32, {0, kFloat * n}); }
void end_step(Stream, int, bool, const LossScaleOptions&, StepState*) {
  note("end_step", 1, DType::f32, {0, 2 * int64_t(sizeof(StepState))});
}

// ---- wavelet ---------------------------------------------------------------------------------------------------------
void wavelet_to_bands(Stream, DType t, const WaveletShape& s, const WaveletAxis& rows, const WaveletAxis& columns, const void*,
                      const WaveletBands& y) {
  note("wavelet_to_bands", 1, t, {pixels(s, rows, columns) * (y.high ? 8 : 5) / 4});
}
void wavelet_to_picture(Stream, DType t, const WaveletShape& s, const WaveletAxis& rows, const WaveletAxis& columns,
                        const WaveletBands& x, void*) {
  note("wavelet_to_picture", 1, t, {pixels(s, rows, columns) * (x.high ? 8 : 5) / 4});
}

}  // namespace traffic
}  // namespace kiln
