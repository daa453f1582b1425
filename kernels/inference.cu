#include "kernels/inference.h"

#include "kernels/activation_math.h"
#include "kernels/exec/primitives.h"

namespace kiln::KILN_EXEC {
namespace {

template <class T, bool Noisy>
struct BiasedGlu {
  int h;
  const T* x;
  const float *bias, *noise, *strength;
  int64_t pixels;
  const float* gate;
  T* y;
  template <int P>
  KILN_HD Pack<P> at(int64_t r, int c) const {
    Pack<P> z = load<P>(x + r * 2 * h + c) + load<P>(bias + c);
    if constexpr (Noisy) z += load<P>(strength + c) * noise[r];
    return z;
  }
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {
    Pack<P> out = at<P>(r, c) * sigmoid(at<P>(r, h + c));
    if (gate) out = out * load<P>(gate + r / pixels * h + c);
    store<P>(y + r * h + c, out);
  }
};

}  // namespace

void biased_glu(Stream stream, DType t, int64_t rows, int h, const void* x, const float* bias, const float* noise,
                const float* strength, int64_t pixels, const float* gate, void* y) {
  with_dtype(t, [&]<class T>() {
    if (noise)
      map_rows<T>(stream, rows, h, BiasedGlu<T, true>{h, (const T*)x, bias, noise, strength, pixels, gate, (T*)y});
    else
      map_rows<T>(stream, rows, h, BiasedGlu<T, false>{h, (const T*)x, bias, nullptr, nullptr, pixels, gate, (T*)y});
  });
}

}  // namespace kiln::KILN_EXEC
