#include "kernels/gram.h"

#include "kernels/exec/primitives.h"

namespace kiln::KILN_EXEC {
namespace {

struct Residual {
  int n;
  bool off_diagonal;
  float factor;
  const float* loss_scale;
  float* g;
  KILN_HD void operator()(int64_t i) const {
    const bool diagonal = i / n == i % n;
    g[i] = factor * (loss_scale ? *loss_scale : 1.f) * (diagonal ? (off_diagonal ? 0.f : g[i] - 1.f) : g[i]);
  }
};

}  // namespace

void gram_residual(Stream stream, int n, bool off_diagonal, float factor, const float* loss_scale, float* g) {
  map_each(stream, int64_t(n) * n, Residual{n, off_diagonal, factor, loss_scale, g});
}

}  // namespace kiln::KILN_EXEC
