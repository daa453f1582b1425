// The nine-product upsampling convolution (engine/upsample_conv.h) on the CPU: differences are gathered a few hundred pixels at
// a time, oneDNN multiplies the matrices, and everything in between stays in the second-level cache.
#include "engine/upsample_conv.h"

#include <omp.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "engine/backend/glu_tail.h"
#include "engine/backend/sgemm.h"
#include "engine/context.h"
#include "engine/error.h"
#include "kernels/exec/log.h"

namespace kiln {
namespace {

// The order of the nine products: (vertical, horizontal) of sum, tap 0, tap 2. The signs are in u.
enum Product { SS, S0, S2, _0S, _00, _02, _2S, _20, _22 };

constexpr int64_t kPixels = 128;      // of a chunk: enough rows for the matrix product's kernel
constexpr int64_t kOutputBlock = 128;  // output channels that one task computes at a time
constexpr int64_t kPartials = 4 << 20;  // floats that the partial sums of a weight gradient may take
constexpr int64_t kGathered = 4 << 20;  // floats that the gathered gradients of a deep layer may take

/// z = x - y over c channels, where a null pointer stands for zeros.
inline void subtract(int64_t c, const float* x, const float* y, float* __restrict z) {
  if (x && y)
    for (int64_t i = 0; i < c; i++) z[i] = x[i] - y[i];
  else if (x)
    std::memcpy(z, x, size_t(c) * sizeof(float));
  else if (y)
    for (int64_t i = 0; i < c; i++) z[i] = -y[i];
  else
    std::memset(z, 0, size_t(c) * sizeof(float));
}

/// Rows [row, row + rows) of pictures [image, image + images): one row block of one picture, or some whole small pictures.
/// Where there are several they are interleaved, the picture innermost, so that every product's operand is a contiguous run of
/// rows of a difference map.
struct Chunk {
  int64_t image, images, row, rows;
};

struct ForwardPlan {
  int64_t images, rows;                            // of a chunk
  int64_t chunks_per_image_row, chunks;            // chunks below one another in a picture; all
  int64_t map_floats, product_floats, block;       // of a thread's buffers; output channels at a time
  explicit ForwardPlan(const UpsampleShape& s) {
    const int64_t side = s.h * s.w;
    images = side >= kPixels ? 1 : std::min(s.n, std::max<int64_t>(1, kPixels / side));
    rows = images > 1 ? s.h : std::min(s.h, std::max<int64_t>(1, (s.c <= 128 ? 2 : 1) * kPixels / s.w));
    chunks_per_image_row = (s.h + rows - 1) / rows;
    chunks = (s.n + images - 1) / images * chunks_per_image_row;
    block = std::min(s.oc, rows * s.w * images > kPixels ? kOutputBlock / 2 : kOutputBlock);
    const int64_t x = images * rows * s.w, dv = images * (rows + 1) * s.w, dh = images * rows * (s.w + 1),
                  dd = images * (rows + 1) * (s.w + 1);
    map_floats = (x + dv + dh + dd) * s.c;
    product_floats = (5 * x + 4 * images * rows * (s.w + 1)) * block;
  }
  Chunk chunk(const UpsampleShape& s, int64_t i) const {
    const int64_t image = i / chunks_per_image_row * images, row = i % chunks_per_image_row * rows;
    return {image, std::min(images, s.n - image), row, std::min(rows, s.h - row)};
  }
};

/// The four maps of a chunk: x, its vertical, horizontal and mixed differences. x is not copied where it lies right already.
struct Maps {
  const float* x;
  float *dv, *dh, *dd;
};

Maps gather(const UpsampleShape& s, const Chunk& k, const float* x, float* buffer) {
  const int64_t c = s.c, w = s.w, images = k.images, rows = k.rows;
  const auto at = [&](int64_t image, int64_t r, int64_t j) -> const float* {
    r += k.row;
    return r < 0 || r >= s.h || j < 0 || j >= w ? nullptr : x + (((k.image + image) * s.h + r) * w + j) * c;
  };
  float* copy = buffer;
  Maps m{at(0, 0, 0), nullptr, nullptr, nullptr};
  if (images > 1) {
    m.x = copy;
    buffer += images * rows * w * c;
    for (int64_t i = 0; i < images; i++)
      for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < w; j++) std::memcpy(copy + ((r * w + j) * images + i) * c, at(i, r, j), size_t(c) * sizeof(float));
  }
  m.dv = buffer;
  m.dh = m.dv + images * (rows + 1) * w * c;
  m.dd = m.dh + images * rows * (w + 1) * c;
  for (int64_t i = 0; i < images; i++) {
    for (int64_t r = 0; r <= rows; r++)
      for (int64_t j = 0; j <= w; j++) {
        const float* const here = m.dv + ((r * w + j) * images + i) * c;
        if (j < w) subtract(c, at(i, r, j), at(i, r - 1, j), m.dv + ((r * w + j) * images + i) * c);
        subtract(c, j < w ? here : nullptr, j > 0 ? here - images * c : nullptr, m.dd + ((r * (w + 1) + j) * images + i) * c);
        if (r < rows) subtract(c, at(i, r, j), at(i, r, j - 1), m.dh + ((j * rows + r) * images + i) * c);
      }
  }
  return m;
}

/// The products of one input pixel for a block of channels, and what they are added up to.
struct PixelProducts {
  const float *ss, *v0, *v2, *h0, *h2, *d00, *d02, *d20, *d22;
  /// Output (0 or 1, 0 or 1) of the pixel, channel o of the block. Load gives a number or a pack of them.
  template <class Load>
  auto output(int down, int right, int64_t o, Load load) const {
    const auto t = load(ss + o) + load((down ? v2 : v0) + o);
    return t + load((right ? h2 : h0) + o) + load((down ? (right ? d22 : d20) : (right ? d02 : d00)) + o);
  }
};

/// y of a chunk for output channels [first, first + block).
void outputs(const UpsampleShape& s, const Chunk& k, const Maps& m, const float* u, int64_t first, int64_t block, float* p, float* y,
             const GluRows* tail) {
  const int64_t c = s.c, w = s.w, images = k.images, rows = k.rows, x = images * rows * w, d = images * (rows * (w + 1) - 1);
  const auto product = [&](Product which, const float* map, int64_t count) {
    thread_sgemm('N', 'T', count, block, c, map, c, u + (which * s.oc + first) * c, c, 0.f, p, block);
    const float* made = p;
    p += count * block;
    return made;
  };
  const int64_t down = images * w * c, right_dh = images * rows * c, right_dd = images * c, down_dd = images * (w + 1) * c;
  const float* ss = product(SS, m.x, x);
  const float *v0 = product(_0S, m.dv, x), *v2 = product(_2S, m.dv + down, x);
  const float *h0 = product(S0, m.dh, x), *h2 = product(S2, m.dh + right_dh, x);
  const float *d00 = product(_00, m.dd, d), *d02 = product(_02, m.dd + right_dd, d);
  const float *d20 = product(_20, m.dd + down_dd, d), *d22 = product(_22, m.dd + down_dd + right_dd, d);
  const auto each_pixel = [&](auto finish) {
    for (int64_t i = 0; i < images; i++)
      for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < w; j++) {
          const int64_t a = ((r * w + j) * images + i) * block, b = ((j * rows + r) * images + i) * block,
                        e = ((r * (w + 1) + j) * images + i) * block;
          const int64_t picture = k.image + i, pixel = (picture * 2 * s.h + 2 * (k.row + r)) * 2 * w + 2 * j;
          finish(PixelProducts{ss + a, v0 + a, v2 + a, h0 + b, h2 + b, d00 + e, d02 + e, d20 + e, d22 + e}, picture, pixel);
        }
  };
  if (!tail) {
    each_pixel([&](const PixelProducts& q, int64_t, int64_t pixel) {
      float* __restrict y0 = y + pixel * s.oc + first;
      float* __restrict y1 = y0 + 2 * w * s.oc;
      const auto number = [](const float* v) { return *v; };
      for (int64_t o = 0; o < block; o++) {
        y0[o] = q.output(0, 0, o, number);
        y0[s.oc + o] = q.output(0, 1, o, number);
        y1[o] = q.output(1, 0, o, number);
        y1[s.oc + o] = q.output(1, 1, o, number);
      }
    });
    return;
  }
  with_glu_pack(tail->h, [&]<int P>() {
    each_pixel([&](const PixelProducts& q, int64_t picture, int64_t pixel) {
      const auto pack = [](const float* v) { return cpu::load<P>(v); };
      for (int64_t o = 0; o < block; o += 2 * P)
        for (int down = 0; down < 2; down++)
          for (int right = 0; right < 2; right++)
            tail->store<P>(q.output(down, right, o, pack), q.output(down, right, o + P, pack), (first + o) / 2, picture, pixel + down * 2 * w + right, y);
    });
  });
}

// ---- backward ----------------------------------------------------------------------------------------------------------
// The adjoint takes the differences of dy instead: along one axis, with a = dy(2i) and b = dy(2i + 1), the sum's product sees
// a(i) + b(i), tap 0's a(i) - a(i + 1), tap 2's b(i - 1) - b(i). So every input pixel has one row of 9 oc numbers, and both
// gradients are one matrix product with it.

/// g [9, oc] of one input pixel, from the four rows and four columns of dy that it touches; rows point at the first column.
inline void gather_pixel(int64_t oc, const float* r0, const float* r1, const float* r2, const float* r3, float* __restrict g) {
  for (int64_t k = 0; k < oc; k++) {
    float s[4], t[4], u[4];  // vertical: sum, tap 0, tap 2
    for (int j = 0; j < 4; j++) {
      const float a = r1[j * oc + k], b = r2[j * oc + k];
      s[j] = a + b;
      t[j] = a - r3[j * oc + k];
      u[j] = r0[j * oc + k] - b;
    }
    g[SS * oc + k] = s[1] + s[2];
    g[S0 * oc + k] = s[1] - s[3];
    g[S2 * oc + k] = s[0] - s[2];
    g[_0S * oc + k] = t[1] + t[2];
    g[_00 * oc + k] = t[1] - t[3];
    g[_02 * oc + k] = t[0] - t[2];
    g[_2S * oc + k] = u[1] + u[2];
    g[_20 * oc + k] = u[1] - u[3];
    g[_22 * oc + k] = u[0] - u[2];
  }
}

/// g [count, 9 oc] of pixels [first, first + count) in memory order. patch: 16 oc floats.
void gather_gradients(const UpsampleShape& s, int64_t first, int64_t count, const float* dy, float* g, float* patch) {
  const int64_t oc = s.oc, H = 2 * s.h, W = 2 * s.w;
  for (int64_t p = first; p < first + count; p++, g += 9 * oc) {
    const int64_t image = p / (s.h * s.w), i = p / s.w % s.h, j = p % s.w;
    const float* picture = dy + image * H * W * oc;
    const float* row[4];
    for (int64_t r = 0; r < 4; r++) row[r] = picture + ((2 * i - 1 + r) * W + 2 * j - 1) * oc;
    if (i == 0 || j == 0 || i == s.h - 1 || j == s.w - 1) {  // at a border: a copy, with zeros outside
      for (int64_t r = 0; r < 4; r++) {
        const int64_t y = 2 * i - 1 + r;
        float* to = patch + r * 4 * oc;
        for (int64_t q = 0; q < 4; q++) {
          const int64_t x = 2 * j - 1 + q;
          if (y < 0 || y >= H || x < 0 || x >= W)
            std::memset(to + q * oc, 0, size_t(oc) * sizeof(float));
          else
            std::memcpy(to + q * oc, picture + (y * W + x) * oc, size_t(oc) * sizeof(float));
        }
        row[r] = to;
      }
    }
    gather_pixel(oc, row[0], row[1], row[2], row[3], g);
  }
}

struct BackwardPlan {
  int64_t pixels, groups;  // groups of chunks, each with a partial sum of the weight's gradient; 0: the deep way
  BackwardPlan(const UpsampleShape& s) : pixels(s.n * s.h * s.w) {
    const int64_t fit = kPartials / s.products_count(), chunks = (pixels + kPixels - 1) / kPixels;
    groups = fit < 2 || chunks < 8 ? 0 : std::min<int64_t>({16, fit, chunks});
  }
};

/// Many pixels and a small weight: threads take groups of chunks, and each group adds up a weight gradient of its own.
void backward_wide(const UpsampleShape& s, const BackwardPlan& plan, const float* dy, const float* u, const float* x, float* dx,
                   float* du) {
  const int64_t k9 = 9 * s.oc, per_thread = (kPixels * 9 + 16) * s.oc, weight = s.products_count();
  const int threads = omp_get_max_threads();
  const Tensor buffers(Shape{threads, per_thread}), partials(Shape{du ? plan.groups : 1, du ? weight : 1});
  if (context().planning) return;
  float* const all = partials.f32();
  const int64_t chunks = (plan.pixels + kPixels - 1) / kPixels;
#pragma omp parallel
  {
    float* const g = buffers.f32() + omp_get_thread_num() * per_thread;
#pragma omp for schedule(dynamic)
    for (int64_t group = 0; group < plan.groups; group++) {
      const int64_t from = chunks * group / plan.groups, to = chunks * (group + 1) / plan.groups;
      for (int64_t k = from; k < to; k++) {
        const int64_t first = k * kPixels, count = std::min(kPixels, plan.pixels - first);
        gather_gradients(s, first, count, dy, g, g + kPixels * k9);
        if (dx) thread_sgemm('N', 'N', count, s.c, k9, g, k9, u, s.c, 0.f, dx + first * s.c, s.c);
        if (du) thread_sgemm('T', 'N', k9, s.c, count, g, k9, x + first * s.c, s.c, k == from ? 0.f : 1.f, all + group * weight, s.c);
      }
    }
    if (du) {
#pragma omp for schedule(static)
      for (int64_t i = 0; i < weight; i += 1024) {
        const int64_t end = std::min(weight, i + 1024);
        for (int64_t j = i; j < end; j++) du[j] = all[j];
        for (int64_t group = 1; group < plan.groups; group++)
          for (int64_t j = i; j < end; j++) du[j] += all[group * weight + j];
      }
    }
  }
}

/// Few pixels and a large weight: threads share a block of gathered pixels and take parts of the results.
void backward_deep(const UpsampleShape& s, const BackwardPlan& plan, const float* dy, const float* u, const float* x, float* dx,
                   float* du) {
  const int64_t k9 = 9 * s.oc, at_once = std::max(kPixels, std::min(plan.pixels, kGathered / k9)), block = kOutputBlock;
  const Tensor gathered(Shape{std::min(at_once, plan.pixels), k9}), patches(Shape{omp_get_max_threads(), 16 * s.oc});
  if (context().planning) return;
  float* const g = gathered.f32();
  const int64_t column_blocks = (s.c + block - 1) / block, weight_blocks = (k9 + block - 1) / block;
#pragma omp parallel
  for (int64_t first = 0; first < plan.pixels; first += at_once) {
    const int64_t count = std::min(at_once, plan.pixels - first);
#pragma omp for schedule(static)
    for (int64_t p = 0; p < count; p++)
      gather_gradients(s, first + p, 1, dy, g + p * k9, patches.f32() + omp_get_thread_num() * 16 * s.oc);
    if (dx) {
      const int64_t row_blocks = (count + kPixels - 1) / kPixels;
#pragma omp for schedule(dynamic) nowait
      for (int64_t t = 0; t < row_blocks * column_blocks; t++) {
        const int64_t p = t / column_blocks * kPixels, col = t % column_blocks * block;
        thread_sgemm('N', 'N', std::min(kPixels, count - p), std::min(block, s.c - col), k9, g + p * k9, k9, u + col, s.c, 0.f,
                 dx + (first + p) * s.c + col, s.c);
      }
    }
    if (du) {
#pragma omp for schedule(dynamic) nowait
      for (int64_t t = 0; t < weight_blocks; t++) {
        const int64_t r = t * block;
        thread_sgemm('T', 'N', std::min(block, k9 - r), s.c, count, g + r, k9, x + first * s.c, s.c, first == 0 ? 0.f : 1.f, du + r * s.c, s.c);
      }
    }
#pragma omp barrier
  }
}

}  // namespace

void upsample_conv_forward(const UpsampleShape& s, const Tensor& x, const Tensor& u, const Tensor& y, const GluTail* tail) {
  Booking booking(Work::convolution);
  const Bytes all{x.count() + u.count() + y.count(), 0};
  count_call({"upsample_conv_forward", 1, sizeof(float), all, all, s.flops()});
  const ForwardPlan plan(s);
  const int threads = omp_get_max_threads();
  const int64_t blocks = (s.oc + plan.block - 1) / plan.block, per_thread = plan.map_floats + plan.product_floats;
  const Tensor buffers(Shape{threads, per_thread});
  if (context().planning) return;
  note_launch("upsample_conv_forward", s, x.data(), u.data(), y.data(), buffers.data());
  const std::optional<GluRows> rows = tail ? std::optional<GluRows>(*tail) : std::nullopt;
  const float *from = x.f32(), *weight = u.f32();
  float* const to = y.f32();
  const bool split = plan.chunks < 4 * threads;  // deep layers: a task is a chunk and a block of its output channels
  const int64_t tasks = plan.chunks * (split ? blocks : 1);
#pragma omp parallel for schedule(dynamic)
  for (int64_t t = 0; t < tasks; t++) {
    float* const buffer = buffers.f32() + omp_get_thread_num() * per_thread;
    const Chunk k = plan.chunk(s, split ? t / blocks : t);
    const Maps maps = gather(s, k, from, buffer);
    for (int64_t b = split ? t % blocks : 0; b < (split ? t % blocks + 1 : blocks); b++)
      outputs(s, k, maps, weight, b * plan.block, std::min(plan.block, s.oc - b * plan.block), buffer + plan.map_floats, to,
              rows ? &*rows : nullptr);
  }
}

void upsample_conv_backward(const UpsampleShape& s, const Tensor& dy, const Tensor& u, const Tensor& x, const Tensor& dx,
                            const Tensor& du) {
  Booking booking(Work::convolution);
  const Bytes all{dy.count() + (dx ? u.count() + dx.count() : 0) + (du ? x.count() + du.count() : 0), 0};
  count_call({"upsample_conv_backward", 1, sizeof(float), all, all, s.flops() * ((dx ? 1 : 0) + (du ? 1 : 0))});
  const BackwardPlan plan(s);
  if (!context().planning) note_launch("upsample_conv_backward", s, dy.data(), u.data(), x.data(), dx.data(), du.data());
  float *const to_x = dx ? dx.f32() : nullptr, *const to_u = du ? du.f32() : nullptr;
  (plan.groups ? backward_wide : backward_deep)(s, plan, dy.f32(), u ? u.f32() : nullptr, x ? x.f32() : nullptr, to_x, to_u);
}

}  // namespace kiln
