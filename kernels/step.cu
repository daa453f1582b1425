#include "kernels/step.h"

#include "kernels/exec/primitives.h"

namespace kiln::KILN_EXEC {
namespace {

/// 0 x is 0 for a finite x and a NaN for the others, and a NaN stays in the sum.
struct NotFinite {
  const float* x;
  template <int P>
  KILN_HD void operator()(int64_t, int64_t i, Sums<1, P>& acc) const {
    acc.s[0] += 0.0f * load<P>(x + i);
  }
};

struct EndStep {
  int networks;
  bool scaled;
  LossScaleOptions o;
  StepState* s;
  KILN_HD void operator()(int64_t) const {
    if (scaled) {
      bool overflow = false;
      for (int k = 0; k < networks; k++) {
        overflow = overflow || s->network[k].overflowed || !(s->network[k].check == 0.f);
        s->network[k].check = 0;
        s->network[k].overflowed = 0;
      }
      if (overflow) {
        s->overflows++;
        s->good_steps = 0;
        const float half = s->loss_scale * 0.5f;
        s->loss_scale = half < o.least ? o.least : half;
      } else if (++s->good_steps >= o.interval) {
        s->good_steps = 0;
        const float twice = s->loss_scale * 2.0f;
        s->loss_scale = twice > o.most ? o.most : twice;
      }
    }
    s->step++;
  }
};

}  // namespace

void check_finite(Stream stream, int64_t n, const float* x, float* check, float* scratch) {
  segment_sums<float, 1>(stream, 1, n, NotFinite{x}, check, scratch);
}

void end_step(Stream stream, int networks, bool scaled, const LossScaleOptions& o, StepState* state) {
  map_each(stream, 1, EndStep{networks, scaled, o, state});
}

}  // namespace kiln::KILN_EXEC
