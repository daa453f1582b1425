// Winograd's 3x3 convolution (engine/winograd.h) on the CPU. Layers with many tiles go chunk by chunk through a thread's own
// buffers, which stay in the second-level cache; deep layers with few tiles and large weights share one set of buffers, and
// threads take parts of the matrix products.
#include "engine/winograd.h"

#include <omp.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "engine/backend/glu_tail.h"
#include "engine/backend/sgemm.h"
#include "engine/context.h"
#include "kernels/exec/log.h"

namespace kiln {
namespace {

constexpr int kProducts = 16;
constexpr int64_t kTiles = 64;          // of a chunk
constexpr int64_t kBlock = 128;         // channels of a result that one task computes at a time
constexpr int64_t kDeepTiles = 512;     // fewer tiles than that: the deep way
constexpr int64_t kPartials = 4 << 20;  // floats that the partial sums of a weight gradient may take

/// Where a tile's 2x2 outputs lie.
struct Tile {
  int64_t image, row, column;
};
Tile tile_of(const WinogradShape& s, int64_t t) {
  const int64_t across = (s.w + 1) / 2, down = (s.h + 1) / 2;
  return {t / (across * down), t / across % down * 2, t % across * 2};
}

/// A tile's 16 transformed rows of c numbers lie one after the other, a cache line apart: with all of a product's rows together they
/// would be a power of two apart, and evict one another from the first-level cache.
int64_t stride_of(int64_t c) { return c + 16; }

/// v[k][...] = (B' d B)_k of the 4x4 inputs around a tile, k * stride floats apart. x has `c` channels; patch: 16 c floats.
void input_tile(const WinogradShape& s, int64_t c, const Tile& t, const float* x, float* __restrict v, int64_t stride, float* patch) {
  const float* rows[4];
  const float* picture = x + t.image * s.h * s.w * c;
  if (t.row > 0 && t.column > 0 && t.row + 2 < s.h && t.column + 2 < s.w) {
    for (int64_t r = 0; r < 4; r++) rows[r] = picture + ((t.row - 1 + r) * s.w + t.column - 1) * c;
  } else {
    for (int64_t r = 0; r < 4; r++) {
      const int64_t i = t.row - 1 + r;
      rows[r] = patch + r * 4 * c;
      for (int64_t q = 0; q < 4; q++) {
        const int64_t j = t.column - 1 + q;
        float* const to = patch + (r * 4 + q) * c;
        if (i < 0 || i >= s.h || j < 0 || j >= s.w)
          std::memset(to, 0, size_t(c) * sizeof(float));
        else
          std::memcpy(to, picture + (i * s.w + j) * c, size_t(c) * sizeof(float));
      }
    }
  }
  const float *r0 = rows[0], *r1 = rows[1], *r2 = rows[2], *r3 = rows[3];
  for (int64_t k = 0; k < c; k++) {
    float a[4], b[4], d[4], e[4];  // the vertical combinations, a column each
    for (int j = 0; j < 4; j++) {
      const float p = r0[j * c + k], q = r1[j * c + k], r = r2[j * c + k], z = r3[j * c + k];
      a[j] = p - r;
      b[j] = q + r;
      d[j] = r - q;
      e[j] = q - z;
    }
    const auto across = [&](const float* m, int64_t first) {
      v[(first + 0) * stride + k] = m[0] - m[2];
      v[(first + 1) * stride + k] = m[1] + m[2];
      v[(first + 2) * stride + k] = m[2] - m[1];
      v[(first + 3) * stride + k] = m[1] - m[3];
    };
    across(a, 0);
    across(b, 4);
    across(d, 8);
    across(e, 12);
  }
}

/// y of a tile from its products m, k * stride floats apart: channels [first, first + count) of `oc`.
void output_tile(const WinogradShape& s, int64_t oc, const Tile& t, const float* m, int64_t stride, int64_t first, int64_t count, float* y) {
  float* const y0 = y + ((t.image * s.h + t.row) * s.w + t.column) * oc + first;
  const bool right = t.column + 1 < s.w, below = t.row + 1 < s.h;
  float* __restrict out[4] = {y0, right ? y0 + oc : nullptr, below ? y0 + s.w * oc : nullptr, right && below ? y0 + (s.w + 1) * oc : nullptr};
  const auto each = [&]<bool Inside>() {
    for (int64_t k = 0; k < count; k++) {
      float a[4], b[4];
      for (int j = 0; j < 4; j++) {
        const float p = m[j * stride + k], q = m[(4 + j) * stride + k], r = m[(8 + j) * stride + k], z = m[(12 + j) * stride + k];
        a[j] = p + q + r;
        b[j] = q - r - z;
      }
      out[0][k] = a[0] + a[1] + a[2];
      if (Inside || right) out[1][k] = a[1] - a[2] - a[3];
      if (Inside || below) out[2][k] = b[0] + b[1] + b[2];
      if (Inside || (right && below)) out[3][k] = b[1] - b[2] - b[3];
    }
  };
  if (right && below)
    each.template operator()<true>();
  else
    each.template operator()<false>();
}

/// The same with a GLU behind it, from weights in glu_order: y has oc / 2 channels.
void output_glu(const WinogradShape& s, const Tile& t, const float* m, int64_t stride, int64_t first, int64_t count, float* y, const GluRows& tail) {
  const int64_t pixel = (t.image * s.h + t.row) * s.w + t.column;
  const bool right = t.column + 1 < s.w, below = t.row + 1 < s.h;
  with_glu_pack(tail.h, [&]<int P>() {
    struct Outputs {
      cpu::Pack<P> y[4];
    };
    const auto outputs = [&](int64_t k) {
      const auto at = [&](int product) { return cpu::load<P>(m + product * stride + k); };
      cpu::Pack<P> a[4], b[4];
      for (int j = 0; j < 4; j++) {
        const cpu::Pack<P> q = at(4 + j), r = at(8 + j);
        a[j] = at(j) + q + r;
        b[j] = q - r - at(12 + j);
      }
      return Outputs{{a[0] + a[1] + a[2], a[1] - a[2] - a[3], b[0] + b[1] + b[2], b[1] - b[2] - b[3]}};
    };
    for (int64_t k = 0; k < count; k += 2 * P) {
      const Outputs value = outputs(k), switched = outputs(k + P);
      const auto put = [&](int which, int64_t where) { tail.store<P>(value.y[which], switched.y[which], (first + k) / 2, t.image, where, y); };
      put(0, pixel);
      if (right) put(1, pixel + 1);
      if (below) put(2, pixel + s.w);
      if (right && below) put(3, pixel + s.w + 1);
    }
  });
}

/// z[k][...] = (A dy A')_k of a tile's gradients. zeros: oc zeros, for what lies outside of the picture.
void gradient_tile(const WinogradShape& s, int64_t oc, const Tile& t, const float* dy, float* __restrict z, int64_t stride, const float* zeros) {
  const float* y0 = dy + ((t.image * s.h + t.row) * s.w + t.column) * oc;
  const bool right = t.column + 1 < s.w, below = t.row + 1 < s.h;
  const float *y1 = right ? y0 + oc : zeros, *y2 = below ? y0 + s.w * oc : zeros, *y3 = right && below ? y0 + (s.w + 1) * oc : zeros;
  for (int64_t k = 0; k < oc; k++) {
    const auto across = [&](float a, float b, int64_t first) {
      z[(first + 0) * stride + k] = a;
      z[(first + 1) * stride + k] = a + b;
      z[(first + 2) * stride + k] = a - b;
      z[(first + 3) * stride + k] = -b;
    };
    const float p = y0[k], q = y1[k], r = y2[k], w = y3[k];
    across(p, q, 0);
    across(p + r, q + w, 4);
    across(p - r, q - w, 8);
    across(-r, -w, 12);
  }
}

void count(const char* name, const WinogradShape& s, const Tensor& a, const Tensor& b, const Tensor& c) {
  const Bytes all{a.count() + b.count() + c.count(), 0};
  count_call({name, 1, sizeof(float), all, all, s.flops()});
}

/// y = the convolution of x with products u. `back`: the adjoint, from gradients with s.oc channels to ones with s.c. Turning a
/// kernel around exchanges the first and the last product of an axis and leaves the others, so both use the same u.
void convolve(const WinogradShape& s, const Tensor& from, const Tensor& weights, const Tensor& to, bool back, const GluTail* tail = nullptr) {
  Booking booking(Work::convolution);
  count(back ? "winograd_backward_data" : "winograd_forward", s, from, weights, to);
  const int64_t in = back ? s.oc : s.c, out = back ? s.c : s.oc, tiles = s.tiles();
  const bool deep = tiles < kDeepTiles;
  const int64_t at_once = deep ? tiles : std::min(kTiles, tiles), block = std::min(out, kBlock);
  const int64_t v_stride = stride_of(in), v_row = kProducts * v_stride, m_stride = stride_of(deep ? out : block), m_row = kProducts * m_stride;
  const int64_t v_floats = at_once * v_row, m_floats = at_once * m_row;
  const int64_t shared = deep ? v_floats + m_floats : 0, own = 16 * in + (deep ? 0 : v_floats + m_floats);
  const Tensor buffer(Shape{shared + omp_get_max_threads() * own});
  if (context().planning) return;
  note_launch(back ? "winograd_backward_data" : "winograd_forward", s, from.data(), weights.data(), to.data(), buffer.data());
  const float *x = from.f32(), *u = weights.f32();
  float *const y = to.f32(), *const memory = buffer.f32();
  const auto multiply = [&](int64_t product, const float* v, int64_t rows, int64_t first, int64_t count, float* m) {
    const int64_t i = product / 4, j = product % 4;
    const auto turned = [](int64_t q) { return q == 0 ? 3 : q == 3 ? 0 : q; };
    const float* w = u + (back ? turned(i) * 4 + turned(j) : product) * s.oc * s.c;
    if (back)
      thread_sgemm('N', 'N', rows, count, in, v + product * v_stride, v_row, w + first, s.c, 0.f, m + product * m_stride, m_row);
    else
      thread_sgemm('N', 'T', rows, count, in, v + product * v_stride, v_row, w + first * s.c, s.c, 0.f, m + product * m_stride, m_row);
  };
  const std::optional<GluRows> glu = tail ? std::optional<GluRows>(*tail) : std::nullopt;
  const auto finish = [&](const Tile& t, const float* m, int64_t first, int64_t count) {
    glu ? output_glu(s, t, m, m_stride, first, count, y, *glu) : output_tile(s, out, t, m, m_stride, first, count, y);
  };
  const int64_t blocks = (out + block - 1) / block, chunks = (tiles + at_once - 1) / at_once;
#pragma omp parallel
  {
    float* const patch = memory + shared + omp_get_thread_num() * own;
    if (deep) {
      float *const v = memory, *const m = memory + v_floats;
#pragma omp for schedule(static)
      for (int64_t t = 0; t < tiles; t++) input_tile(s, in, tile_of(s, t), x, v + t * v_row, v_stride, patch);
#pragma omp for schedule(dynamic)
      for (int64_t task = 0; task < kProducts * blocks; task++) {
        const int64_t product = task / blocks, first = task % blocks * block;
        multiply(product, v, tiles, first, std::min(block, out - first), m + first);
      }
#pragma omp for schedule(static)
      for (int64_t t = 0; t < tiles; t++) finish(tile_of(s, t), m + t * m_row, 0, out);
    } else {
      float *const v = patch + 16 * in, *const m = v + v_floats;
#pragma omp for schedule(dynamic)
      for (int64_t chunk = 0; chunk < chunks; chunk++) {
        const int64_t from_tile = chunk * at_once, rows = std::min(at_once, tiles - from_tile);
        for (int64_t t = 0; t < rows; t++) input_tile(s, in, tile_of(s, from_tile + t), x, v + t * v_row, v_stride, patch);
        for (int64_t first = 0; first < out; first += block) {
          const int64_t count = std::min(block, out - first);
          for (int64_t p = 0; p < kProducts; p++) multiply(p, v, rows, first, count, m);
          for (int64_t t = 0; t < rows; t++) finish(tile_of(s, from_tile + t), m + t * m_row, first, count);
        }
      }
    }
  }
}

}  // namespace

bool WinogradShape::wins() const { return std::min(c, oc) >= 128; }  // measured: 1.2 to 1.8 times as fast; below, the transforms eat it

void winograd_forward(const WinogradShape& s, const Tensor& x, const Tensor& u, const Tensor& y, const GluTail* tail) { convolve(s, x, u, y, false, tail); }

void winograd_backward_data(const WinogradShape& s, const Tensor& dy, const Tensor& u, const Tensor& dx) { convolve(s, dy, u, dx, true); }

void winograd_backward_weights(const WinogradShape& s, const Tensor& x, const Tensor& dy, const Tensor& du) {
  Booking booking(Work::convolution);
  count("winograd_backward_weights", s, x, dy, du);
  const int64_t tiles = s.tiles(), weight = s.products_count();
  const int64_t fit = kPartials / weight, all_chunks = (tiles + kTiles - 1) / kTiles;
  const bool deep = fit < 2 || tiles < kDeepTiles;
  const int64_t groups = deep ? 1 : std::min<int64_t>({16, fit, all_chunks});
  const int64_t at_once = deep ? std::min(tiles, kDeepTiles) : kTiles, v_stride = stride_of(s.c), v_row = kProducts * v_stride,
                z_stride = stride_of(s.oc), z_row = kProducts * z_stride, v_floats = at_once * v_row, z_floats = at_once * z_row;
  const int64_t shared = deep ? v_floats + z_floats : groups * weight, own = 16 * s.c + s.oc + (deep ? 0 : v_floats + z_floats);
  const Tensor buffer(Shape{shared + omp_get_max_threads() * own});
  if (context().planning) return;
  note_launch("winograd_backward_weights", s, x.data(), dy.data(), du.data(), buffer.data());
  const float *from_x = x.f32(), *from_y = dy.f32();
  float *const to = du.f32(), *const memory = buffer.f32();
  const auto transform = [&](int64_t tile, float* v, float* z, float* patch) {
    const Tile t = tile_of(s, tile);
    input_tile(s, s.c, t, from_x, v, v_stride, patch);
    gradient_tile(s, s.oc, t, from_y, z, z_stride, patch + 16 * s.c);
  };
#pragma omp parallel
  {
    float* const patch = memory + shared + omp_get_thread_num() * own;
    std::memset(patch + 16 * s.c, 0, size_t(s.oc) * sizeof(float));
    if (deep) {
      float *const v = memory, *const z = memory + v_floats;
      const int64_t blocks = (s.oc + kBlock - 1) / kBlock;
      for (int64_t first = 0; first < tiles; first += at_once) {
        const int64_t rows = std::min(at_once, tiles - first);
#pragma omp for schedule(static)
        for (int64_t t = 0; t < rows; t++) transform(first + t, v + t * v_row, z + t * z_row, patch);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < kProducts * blocks; task++) {
          const int64_t p = task / blocks, o = task % blocks * kBlock;
          thread_sgemm('T', 'N', std::min(kBlock, s.oc - o), s.c, rows, z + p * z_stride + o, z_row, v + p * v_stride, v_row,
                       first == 0 ? 0.f : 1.f, to + (p * s.oc + o) * s.c, s.c);
        }
      }
    } else {
      float *const v = patch + 16 * s.c + s.oc, *const z = v + v_floats;
#pragma omp for schedule(dynamic)
      for (int64_t group = 0; group < groups; group++) {
        const int64_t begin = all_chunks * group / groups, end = all_chunks * (group + 1) / groups;
        for (int64_t chunk = begin; chunk < end; chunk++) {
          const int64_t first = chunk * kTiles, rows = std::min(kTiles, tiles - first);
          for (int64_t t = 0; t < rows; t++) transform(first + t, v + t * v_row, z + t * z_row, patch);
          for (int64_t p = 0; p < kProducts; p++)
            thread_sgemm('T', 'N', s.oc, s.c, rows, z + p * z_stride, z_row, v + p * v_stride, v_row, chunk == begin ? 0.f : 1.f,
                         memory + group * weight + p * s.oc * s.c, s.c);
        }
      }
#pragma omp for schedule(static)
      for (int64_t i = 0; i < weight; i += 1024) {
        const int64_t end = std::min(weight, i + 1024);
        for (int64_t j = i; j < end; j++) to[j] = memory[j];
        for (int64_t group = 1; group < groups; group++)
          for (int64_t j = i; j < end; j++) to[j] += memory[group * weight + j];
      }
    }
  }
}

}  // namespace kiln
