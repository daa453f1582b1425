#include "kernels/embedding.h"

#include "kernels/exec/primitives.h"

namespace kiln::KILN_EXEC {
namespace {

struct Labels {
  int classes;
  const float* u;
  int32_t* labels;
  KILN_HD void operator()(int64_t i) const {
    const int k = int(u[i] * float(classes));
    labels[i] = k < classes ? k : classes - 1;
  }
};

struct ConcatLabels {
  int64_t n;
  const int32_t *a, *b;
  int32_t* y;
  KILN_HD void operator()(int64_t i) const { y[i] = i < n ? a[i] : b[i - n]; }
};

struct Gather {
  int c;
  const float* table;
  const int32_t* labels;
  float* y;
  template <int P>
  KILN_HD void operator()(int64_t r, int j) const {
    store<P>(y + r * c + j, load<P>(table + int64_t(labels[r]) * c + j));
  }
};

/// One row of the table looks through all labels for its own: no two threads write to one place, and the order is n's.
struct Scatter {
  int64_t n;
  int c;
  const float* dy;
  const int32_t* labels;
  float* dtable;
  template <int P>
  KILN_HD void operator()(int64_t r, int j) const {
    Pack<P> acc = load<P>(dtable + r * c + j);
    for (int64_t i = 0; i < n; i++)
      if (labels[i] == r) acc += load<P>(dy + i * c + j);
    store<P>(dtable + r * c + j, acc);
  }
};

/// Columns [first, first + count) of `to` rows of `width` from those of `from` starting at column `skip`; no source: zeros.
template <class T>
struct Columns {
  int width, first, from_width, skip;
  const T* from;
  T* to;
  template <int P>
  KILN_HD void operator()(int64_t r, int j) const {
    for (int i = j; i < j + P; i++) to[r * width + first + i] = from ? from[r * from_width + skip + i] : from_float<T>(0.f);
  }
};

}  // namespace

void labels_from_uniform(Stream stream, int64_t n, int classes, const float* u, int32_t* labels) {
  map_each(stream, n, Labels{classes, u, labels});
}
void concat_labels(Stream stream, int64_t n, int64_t m, const int32_t* a, const int32_t* b, int32_t* y) {
  map_each(stream, n + m, ConcatLabels{n, a, b, y});
}
void embedding_forward(Stream stream, int64_t n, int c, const float* table, const int32_t* labels, float* y) {
  map_rows<float>(stream, n, c, Gather{c, table, labels, y});
}
void embedding_backward(Stream stream, int64_t n, int classes, int c, const float* dy, const int32_t* labels, float* dtable) {
  map_rows<float>(stream, classes, c, Scatter{n, c, dy, labels, dtable});
}
void concat_columns(Stream stream, DType t, int64_t rows, int a, int b, const void* x, const void* z, void* y) {
  with_dtype(t, [&]<class T>() {
    map_rows<T>(stream, rows, a, Columns<T>{a + b, 0, a, 0, (const T*)x, (T*)y});
    map_rows<T>(stream, rows, b, Columns<T>{a + b, a, b, 0, (const T*)z, (T*)y});
  });
}
void take_columns(Stream stream, DType t, int64_t rows, int c, int first, int count, const void* x, void* y) {
  with_dtype(t, [&]<class T>() { map_rows<T>(stream, rows, count, Columns<T>{count, 0, c, first, (const T*)x, (T*)y}); });
}

}  // namespace kiln::KILN_EXEC
