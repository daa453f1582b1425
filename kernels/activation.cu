#include "kernels/activation.h"

#include "kernels/activation_math.h"
#include "kernels/exec/primitives.h"

namespace kiln::KILN_EXEC {
namespace {

template <class T, Activation A>
struct Forward {
  const T* x;
  T* y;
  template <int P>
  KILN_HD void operator()(int64_t i) const {
    store<P>(y + i, activate<A>(load<P>(x + i)));
  }
};

template <class T, Activation A>
struct Backward {
  const T *saved, *dy;
  T* dx;
  template <int P>
  KILN_HD void operator()(int64_t i) const {
    store<P>(dx + i, load<P>(dy + i) * slope<A>(load<P>(saved + i)));
  }
};

template <class T>
struct GluForward {
  int h;
  const T* x;
  T* y;
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {
    const T* row = x + r * 2 * h;
    store<P>(y + r * h + c, load<P>(row + c) * sigmoid(load<P>(row + h + c)));
  }
};

template <class T>
struct GluBackward {
  int h;
  const T *x, *dy;
  T* dx;
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {
    const T* row = x + r * 2 * h;
    const Pack<P> u = load<P>(row + c), s = sigmoid(load<P>(row + h + c)), g = load<P>(dy + r * h + c);
    store<P>(dx + r * 2 * h + c, g * s);
    store<P>(dx + r * 2 * h + h + c, g * u * s * (1.0f - s));
  }
};

template <class Body>
void with_activation(Activation a, Body body) {
  switch (a) {
    case Activation::none: return body.template operator()<Activation::none>();
    case Activation::relu: return body.template operator()<Activation::relu>();
    case Activation::leaky_relu: return body.template operator()<Activation::leaky_relu>();
    case Activation::swish: return body.template operator()<Activation::swish>();
    case Activation::sigmoid: return body.template operator()<Activation::sigmoid>();
    case Activation::tanh: return body.template operator()<Activation::tanh>();
  }
}

}  // namespace

void activation_forward(Stream stream, DType t, Activation act, int64_t n, const void* x, void* y) {
  with_dtype(t, [&]<class T>() {
    with_activation(act, [&]<Activation A>() { map<T>(stream, n, Forward<T, A>{(const T*)x, (T*)y}); });
  });
}

void activation_backward(Stream stream, DType t, Activation act, int64_t n, const void* saved, const void* dy, void* dx) {
  with_dtype(t, [&]<class T>() {
    with_activation(act,
                    [&]<Activation A>() { map<T>(stream, n, Backward<T, A>{(const T*)saved, (const T*)dy, (T*)dx}); });
  });
}

void glu_forward(Stream stream, DType t, int64_t rows, int h, const void* x, void* y) {
  with_dtype(t, [&]<class T>() { map_rows<T>(stream, rows, h, GluForward<T>{h, (const T*)x, (T*)y}); });
}

void glu_backward(Stream stream, DType t, int64_t rows, int h, const void* x, const void* dy, void* dx) {
  with_dtype(t, [&]<class T>() { map_rows<T>(stream, rows, h, GluBackward<T>{h, (const T*)x, (const T*)dy, (T*)dx}); });
}

}  // namespace kiln::KILN_EXEC
