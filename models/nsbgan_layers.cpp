#include "models/nsbgan_layers.h"

#include <cmath>

namespace kiln::nsbgan {

Conv::Conv(int64_t in, int64_t out, int kernel, int conv_stride, bool with_bias) : biased(with_bias), stride(conv_stride), pad((kernel - 1) / 2) {
  weight.shape = Shape{out, kernel, kernel, in};
  bias.shape = Shape{out};
  weight.init.uniform = bias.init.uniform = 1.f / std::sqrt(float(in * kernel * kernel));
}

Conv& Conv::he(float gain) {
  weight.init = Init{0, gain * std::sqrt(2.f / float(weight.shape[1] * weight.shape[2] * weight.shape[3]))};
  bias.init = Init{};
  return *this;
}

Linear::Linear(int64_t in, int64_t out) {
  weight.shape = Shape{out, 1, 1, in};
  bias.shape = Shape{out};
  weight.init.uniform = bias.init.uniform = 1.f / std::sqrt(float(in));
}

}  // namespace kiln::nsbgan
