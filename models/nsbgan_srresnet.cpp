#include "models/nsbgan_srresnet.h"

#include <algorithm>

#include "engine/error.h"
#include "engine/wavelet.h"  // depth_to_space

namespace kiln::nsbgan {
namespace {
constexpr float kSlope = 0.1f, kGain = 0.1f;
}

SrResNet::SrResNet(int64_t width, int blocks, int doublings) : first_(3, width), hr_(width, width), last_(width, 3) {
  for (Conv* c : {&first_, &hr_, &last_}) c->he(kGain);
  for (int i = 0; i < blocks; i++) blocks_.push_back({Conv(width, width).he(kGain), Conv(width, width).he(kGain)});
  for (int i = 0; i < doublings; i++) up_.push_back(Conv(width, 4 * width).he(kGain));
}

Var SrResNet::operator()(const Var& x) {
  Var y = first_.with_slope(x, kSlope);
  for (Block& b : blocks_) y = residual_sum(b.conv2(b.conv1.with_slope(y, 0.f)), y, false, &b.conv2.bias, nullptr);
  for (Conv& up : up_) y = depth_to_space(up.with_slope(y, kSlope));  // the slope first: the same numbers, in another order
  return last_.with_slope(hr_.with_slope(y, kSlope), 1.f);
}

// The doublings' convolutions reach 1, 1/2, 1/4, ... pixels of x, the two behind them 2 of their own: 2 together, however many there are.
int SrResNet::reach() const { return 1 + 2 * int(blocks_.size()) + 2; }

Discriminator::Discriminator(int size, int64_t width) {
  int halvings = 0;
  for (int s = size; s > 4; s /= 2) halvings++;
  KILN_ASSERT(halvings >= 2 && 4 << halvings == size);
  first_ = Conv(3, width);
  int64_t channels = width;
  for (int i = 0; i < halvings; i++) {
    const int64_t out = width * std::min(1 << i, 8);
    if (i > 0) convs_.emplace_back(channels, out, 3, 1, false);
    convs_.emplace_back(out, out, 4, 2, false);
    channels = out;
  }
  for (Conv& c : convs_) norms_.emplace_back(c.weight.shape[0], 0.f);
  linear1_ = Linear(channels * 16, 100);
  linear2_ = Linear(100, 1);
}

Var Discriminator::operator()(const Var& x) {
  Var y = first_.with_slope(x, kLeakySlope);
  for (size_t i = 0; i < convs_.size(); i++) y = norm_act(convs_[i](y), norms_[i], Activation::leaky_relu);
  const int64_t n = y.shape()[0];
  y = reshape(cast_to(y, DType::f32), Shape{n, y.value.count() / n});
  return reshape(linear2_.with_slope(linear1_.with_slope(y, kLeakySlope), 1.f), Shape{n});
}

}  // namespace kiln::nsbgan
