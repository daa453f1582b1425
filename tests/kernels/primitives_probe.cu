#include "tests/kernels/primitives_probe.h"

#include "kernels/exec/primitives.h"

namespace kiln::KILN_EXEC {
namespace {

template <int P>
struct Apply {
  PackFunction f;
  const float* x;
  float* y;
  KILN_HD void operator()(int64_t i) const {
    const Pack<P> v = load<P>(x + i * P);
    Pack<P> r = v;
    switch (f) {
      case PackFunction::exp: r = exp(v); break;
      case PackFunction::sigmoid: r = sigmoid(v); break;
      case PackFunction::sqrt: r = sqrt(v); break;
      case PackFunction::leaky_relu: r = leaky_relu(v, 0.2f); break;
      case PackFunction::select_positive: r = select_positive(v, Pack<P>(1.f), v); break;
    }
    store<P>(y + i * P, r);
  }
};

template <int P>
struct PackSum {
  const float* x;
  float* y;
  KILN_HD void operator()(int64_t i) const { y[i] = sum(load<P>(x + i * P)); }
};

template <class T, int P>
struct Copy {
  const T* x;
  T* y;
  KILN_HD void operator()(int64_t i) const { store<P>(y + i * P, load<P>(x + i * P)); }
};

template <class Body>
void with_width(int pack, Body body) {
  switch (pack) {
    case 1: return body.template operator()<1>();
    case 2: return body.template operator()<2>();
    case 4: return body.template operator()<4>();
    case 8: return body.template operator()<8>();
    default: return body.template operator()<16>();
  }
}

struct Visit {
  int64_t stride;  // elements a row, for map_rows
  int32_t *visits, *packs;
  template <int P>
  KILN_HD void operator()(int64_t i) const {
    for (int k = 0; k < P; k++) {
      visits[i + k]++;
      packs[i + k] = P;
    }
  }
  template <int P>
  KILN_HD void operator()(int64_t r, int c) const {
    operator()<P>(r * stride + c);
  }
};

struct VisitEach {
  int32_t* visits;
  KILN_HD void operator()(int64_t i) const { visits[i]++; }
};

template <class T>
struct AddUp {
  int64_t stride;
  const T* x;
  template <int P, class C>
  KILN_HD void operator()(int64_t r, C c, Sums<kProbeSums, P>& acc) const {
    const Pack<P> v = load<P>(x + r * stride + c);
    acc.s[0] += v;
    acc.s[1] += v * v;
    acc.s[2] += Pack<P>(1.f);
  }
};

struct AddMany {
  int channels;
  const float* x;
  template <int P>
  KILN_HD void operator()(int64_t r, int c, Sums<kProbeManySums, P>& acc) const {
    const Pack<P> v = load<P>(x + r * channels + c);
    for (int k = 0; k < kProbeManySums; k++) acc.s[k] += v * float(k + 1);
  }
};

}  // namespace

void probe_force_wide(bool wide) { force_wide_shapes() = wide; }

void probe_pack(Stream stream, PackFunction f, int pack, int64_t n, const float* x, float* y) {
  with_width(pack, [&]<int P>() { map_each(stream, n / P, Apply<P>{f, x, y}); });
}

void probe_pack_sum(Stream stream, int pack, int64_t n, const float* x, float* y) {
  with_width(pack, [&]<int P>() { map_each(stream, n / P, PackSum<P>{x, y}); });
}

void probe_copy(Stream stream, DType t, int pack, int64_t n, const void* x, void* y) {
  with_dtype(t, [&]<class T>() {
    with_width(pack, [&]<int P>() { map_each(stream, n / P, Copy<T, P>{(const T*)x, (T*)y}); });
  });
}

void probe_map(Stream stream, DType t, int64_t n, int32_t* visits, int32_t* packs) {
  with_dtype(t, [&]<class T>() { map<T>(stream, n, Visit{0, visits, packs}); });
}

void probe_map_each(Stream stream, int64_t n, int32_t* visits) { map_each(stream, n, VisitEach{visits}); }

void probe_map_rows(Stream stream, DType t, int64_t rows, int channels, int32_t* visits, int32_t* packs) {
  with_dtype(t, [&]<class T>() { map_rows<T>(stream, rows, channels, Visit{channels, visits, packs}); });
}

void probe_column_sums(Stream stream, DType t, int64_t groups, int64_t rows, int channels, const void* x, float* out,
                       float* scratch) {
  with_dtype(t, [&]<class T>() {
    column_sums<T, kProbeSums>(stream, groups, rows, channels, AddUp<T>{channels, (const T*)x}, out, scratch);
  });
}

void probe_many_column_sums(Stream stream, int64_t rows, int channels, const float* x, float* out, float* scratch) {
  column_sums<float, kProbeManySums>(stream, 1, rows, channels, AddMany{channels, x}, out, scratch);
}

void probe_segment_sums(Stream stream, DType t, int64_t segments, int64_t n, const void* x, float* out,
                        float* scratch) {
  with_dtype(t, [&]<class T>() {
    segment_sums<T, kProbeSums>(stream, segments, n, AddUp<T>{n, (const T*)x}, out, scratch);
  });
}

int64_t probe_column_scratch(int k, int channels, int64_t groups) {
  return int64_t(column_scratch_bytes(k, channels, groups) / sizeof(float));
}
int64_t probe_segment_scratch(int k, int64_t segments) {
  return int64_t(segment_scratch_bytes(k, segments) / sizeof(float));
}

}  // namespace kiln::KILN_EXEC
