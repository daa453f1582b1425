// A network's gradients, added up over the ranks in ranges, each as soon as this rank has it whole: the sums run while backward
// computes the rest.
#pragma once
#include <cstdint>
#include <vector>

#include "engine/tensor.h"

namespace kiln {

class GradientSum {
 public:
  /// Starts the sum of gradients [offset, offset + count) of a network's flat buffer. Until finish() nothing may be added there.
  /// Every rank starts the same ranges in the same order.
  void start(const Tensor& gradients, int64_t offset, int64_t count);
  /// Starts what has not been started and waits for all. Does nothing where there are no other ranks.
  void finish(const Tensor& gradients);

 private:
  struct Range {
    int64_t begin, end;
  };
  std::vector<Range> started_;
};

}  // namespace kiln
