#include "kernels/fold.h"

#include "kernels/exec/primitives.h"

namespace kiln::KILN_EXEC {
namespace {

// Which of the three taps each of the four adds: tap t of w goes to positions 3 - t and 2 - t, bounds permitting, but the
// outer taps once only: K = (w2, w1 + w2, w0 + w1, w0) = rows {2}, {1, 2}, {0, 1}, {0}.
KILN_HD inline int first_tap(int k) { return k == 0 ? 2 : k == 1 ? 1 : 0; }
KILN_HD inline int last_tap(int k) { return k <= 1 ? 2 : k == 2 ? 1 : 0; }

struct Fold {
  int channels;
  const float* w;
  float* k;
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {  // r = (o, ky, kx)
    const int64_t o = r / 16;
    const int ky = int(r / 4 % 4), kx = int(r % 4);
    Pack<P> acc(0.f);
    for (int y = first_tap(ky); y <= last_tap(ky); y++)
      for (int x = first_tap(kx); x <= last_tap(kx); x++) acc += load<P>(w + ((o * 3 + y) * 3 + x) * channels + c);
    store<P>(k + r * channels + c, acc);
  }
};

struct Unfold {
  int channels;
  const float* dk;
  float* dw;
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {  // r = (o, y, x)
    const int64_t o = r / 9;
    const int y = int(r / 3 % 3), x = int(r % 3);
    Pack<P> acc(0.f);
    for (int ky = 0; ky < 4; ky++) {
      if (y < first_tap(ky) || y > last_tap(ky)) continue;
      for (int kx = 0; kx < 4; kx++)
        if (x >= first_tap(kx) && x <= last_tap(kx)) acc += load<P>(dk + ((o * 4 + ky) * 4 + kx) * channels + c);
    }
    store<P>(dw + r * channels + c, acc);
  }
};

}  // namespace

void upsample_fold(Stream stream, int o, int i, const float* w, float* k) {
  map_rows<float>(stream, int64_t(o) * 16, i, Fold{i, w, k});
}
void upsample_fold_backward(Stream stream, int o, int i, const float* dk, float* dw) {
  map_rows<float>(stream, int64_t(o) * 9, i, Unfold{i, dk, dw});
}

}  // namespace kiln::KILN_EXEC
