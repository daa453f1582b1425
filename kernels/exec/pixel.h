// Which pixel of a stack of pictures a row is.
#pragma once
#include <cstdint>

#include "kernels/exec/exec.h"

namespace kiln::KILN_EXEC {

struct Pixel {
  int64_t n;
  int i, j;
};
/// Row r of a [n, h, w] stack of pictures, fewer than 2^32 of them: 64-bit divisions took most of a pooling's time.
KILN_HD inline Pixel pixel_of(int64_t r, int h, int w) {
  const uint32_t row = uint32_t(r), line = row / uint32_t(w), n = line / uint32_t(h);
  return {int64_t(n), int(line - n * uint32_t(h)), int(row - line * uint32_t(w))};
}

}  // namespace kiln::KILN_EXEC
