// The non-linearities themselves, for the pointwise kernels and for those that fuse them.
#pragma once
#include "kernels/activation.h"
#include "kernels/exec/pack.h"

namespace kiln::KILN_EXEC {

/// act(x)
template <Activation A, int P>
KILN_HD Pack<P> activate(const Pack<P>& x) {
  if constexpr (A == Activation::relu) return select_positive(x, x, Pack<P>(0.f));
  if constexpr (A == Activation::leaky_relu) return leaky_relu(x, kLeakySlope);
  if constexpr (A == Activation::swish) return x * sigmoid(x);
  if constexpr (A == Activation::sigmoid) return sigmoid(x);
  if constexpr (A == Activation::tanh) return 2.0f * sigmoid(2.0f * x) - 1.0f;
  return x;
}

/// act'(x), from x; for sigmoid and tanh from y = act(x).
template <Activation A, int P>
KILN_HD Pack<P> slope(const Pack<P>& saved) {
  if constexpr (A == Activation::relu) return select_positive(saved, Pack<P>(1.f), Pack<P>(0.f));
  if constexpr (A == Activation::leaky_relu) return select_positive(saved, Pack<P>(1.f), Pack<P>(kLeakySlope));
  if constexpr (A == Activation::swish) {
    const Pack<P> s = sigmoid(saved);
    return s + saved * s * (1.0f - s);
  }
  if constexpr (A == Activation::sigmoid) return saved * (1.0f - saved);
  if constexpr (A == Activation::tanh) return 1.0f - saved * saved;
  return Pack<P>(1.f);
}

}  // namespace kiln::KILN_EXEC
