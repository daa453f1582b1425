#include "engine/gradient_sum.h"

#include <algorithm>

#include "engine/context.h"
#include "engine/ranks.h"

namespace kiln {

void GradientSum::start(const Tensor& gradients, int64_t offset, int64_t count) {
  KILN_ASSERT(context().ranks && offset >= 0 && count > 0 && offset + count <= gradients.count());
  for (const Range& r : started_) KILN_ASSERT(offset + count <= r.begin || offset >= r.end);
  started_.push_back({offset, offset + count});
  context().ranks->start_sum(gradients.f32() + offset, count);
}

void GradientSum::finish(const Tensor& gradients) {
  Ranks* ranks = context().ranks;
  if (!ranks) return;
  std::sort(started_.begin(), started_.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
  int64_t at = 0;
  const std::vector<Range> before = started_;
  for (const Range& r : before) {
    if (r.begin > at) start(gradients, at, r.begin - at);
    at = r.end;
  }
  if (gradients.count() > at) start(gradients, at, gradients.count() - at);
  ranks->finish_sums();
  started_.clear();
}

}  // namespace kiln
