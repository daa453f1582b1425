#include "models/nsbgan_unet.h"

#include "engine/error.h"

namespace kiln::nsbgan {
namespace {

/// Down as often as there are blocks, then up again with what had that size before: the skip's channels lie first.
template <size_t N>
Var through(Var x, DoubleConv (&down)[N], DoubleConv (&up)[N]) {
  std::vector<Var> skips;
  for (DoubleConv& block : down) {
    skips.push_back(x);
    x = block(max_pool2x2(x));
  }
  for (DoubleConv& block : up) {
    x = block(concat_channels(skips.back(), upsample_bilinear2x(x)));
    skips.pop_back();
  }
  return x;
}

}  // namespace

TailUNet::TailUNet(int64_t in, int64_t tails, int64_t width) : tails_(tails), inc_(in, width), tail_(width, width / 2 * tails), last_(width / 2, 3 * tails) {
  KILN_ASSERT(width % 2 == 0);
  for (DoubleConv& block : down_) block = DoubleConv(width, width);
  for (DoubleConv& block : up_) block = DoubleConv(2 * width, width);
}

Var TailUNet::operator()(const Var& x) {
  KILN_ASSERT(x.shape()[1] % 8 == 0 && x.shape()[2] % 8 == 0);
  const Var heads = tail_(through(inc_(x), down_, up_));
  return bias_slope(grouped_conv2d(heads, stored_parameter(last_.weight), int(tails_), 1, 1), last_.bias, 1.f);
}

ResidualUNet::ResidualUNet(int64_t width) : inc_(3, width), last_(width, 3, 1) {
  const int64_t widths[] = {1, 2, 4, 8, 8}, in[] = {16, 8, 4, 2}, out[] = {4, 2, 1, 1};  // times width
  for (size_t i = 0; i < 4; i++) {
    down_[i] = DoubleConv(widths[i] * width, widths[i + 1] * width);
    up_[i] = DoubleConv(in[i] * width, out[i] * width);
  }
}

Var ResidualUNet::operator()(const Var& x) {
  KILN_ASSERT(x.shape()[1] % 16 == 0 && x.shape()[2] % 16 == 0);
  return last_.with_slope(through(inc_(x), down_, up_), 1.f);
}

}  // namespace kiln::nsbgan
