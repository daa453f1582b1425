// What a convolution of our own does with its results where a GluTail follows it, pack by pack, before they leave the cache.
#pragma once
#include "engine/error.h"
#include "engine/inference.h"
#include "kernels/exec/pack.h"

namespace kiln {

/// A GluTail as plain memory. Its convolution's weights are in glu_order(h), so that a pack of values lies before the pack of
/// gates that belongs to it.
struct GluRows {
  const float *bias, *strength, *noise, *gate;  // all but bias may be null
  int64_t h;

  GluRows(const GluTail& t)
      : bias(t.bias.f32()), strength(t.strength ? t.strength.f32() : nullptr), noise(t.noise ? t.noise.f32() : nullptr),
        gate(t.gate ? t.gate.f32() : nullptr), h(t.bias.count() / 2) {
    KILN_ASSERT(bool(strength) == bool(noise));
  }

  /// Channels [c, c + P) of one pixel of one picture: y[pixel, c] from the convolution's value and sigmoid inputs.
  template <int P>
  void store(cpu::Pack<P> value, cpu::Pack<P> switched, int64_t c, int64_t picture, int64_t pixel, float* y) const {
    value += cpu::load<P>(bias + c);
    switched += cpu::load<P>(bias + h + c);
    if (noise) {
      value += cpu::load<P>(strength + c) * noise[pixel];
      switched += cpu::load<P>(strength + h + c) * noise[pixel];
    }
    cpu::Pack<P> out = value * cpu::sigmoid(switched);
    if (gate) out = out * cpu::load<P>(gate + picture * h + c);
    cpu::store<P>(y + pixel * h + c, out);
  }
};

/// Calls body with the pack that glu_order(h) is made of: the largest power of two up to 16 that divides h.
template <class Body>
void with_glu_pack(int64_t h, Body body) {
  switch (glu_pack(h)) {
    case 16: return body.template operator()<16>();
    case 8: return body.template operator()<8>();
    case 4: return body.template operator()<4>();
    case 2: return body.template operator()<2>();
    default: return body.template operator()<1>();
  }
}

}  // namespace kiln
