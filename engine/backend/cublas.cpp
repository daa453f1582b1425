// Matrix products on a GPU: cuBLASLt. Row-major c = op(a) op(b) is column-major c' = op(b)' op(a)', and cuBLAS is column-major:
// so b comes first, and sizes and leading dimensions are those of the transposes. What its heuristics pick is kept by shape.
//
// The library is loaded at the first product: it is half a gigabyte, and to load it takes 200 MB of memory and a tenth of a
// second, which a run on the CPU should not pay.
#include "engine/backend/cublas.h"

#include "engine/error.h"

#if KILN_GPU_LIBRARIES

#include <cublasLt.h>
#include <cuda_runtime.h>
#include <dlfcn.h>

#include <map>
#include <tuple>

#include "engine/context.h"

namespace kiln::cublas {
namespace {

constexpr size_t kWorkspaceLimit = 32 << 20;  // bytes: what cuBLAS recommends on the largest cards
// Views into flat buffers start at multiples of 64 bytes at least; cuBLAS would assume 256.
constexpr uint32_t kAlignment = 16;

#define KILN_TEXT_OF(x) #x
#define KILN_TEXT(x) KILN_TEXT_OF(x)
constexpr const char* kName = "libcublasLt.so." KILN_TEXT(CUBLAS_VER_MAJOR);

/// The library's functions that are used here, by their own names.
struct Library {
  void* file = nullptr;
  template <class F>
  F* function(const char* name) const {
    void* f = dlsym(file, name);
    if (!f) fail("{} has no {}: it is another version than kiln was built with; install that one, or use --device cpu", kName, name);
    return reinterpret_cast<F*>(f);
  }
  Library() {
    for (const char* place : {kName, KILN_CUBLASLT})  // where the system looks, then where it was at build time
      if ((file = dlopen(place, RTLD_NOW | RTLD_LOCAL))) break;
    if (!file) fail("{} cannot be loaded ({}); install cuBLAS {}, or use --device cpu", kName, dlerror(), CUBLAS_VER_MAJOR);
#define KILN_FUNCTION(name) name = function<decltype(::cublasLt##name)>("cublasLt" #name)
    KILN_FUNCTION(Create);
    KILN_FUNCTION(Destroy);
    KILN_FUNCTION(GetStatusString);
    KILN_FUNCTION(MatrixLayoutCreate);
    KILN_FUNCTION(MatrixLayoutDestroy);
    KILN_FUNCTION(MatmulDescCreate);
    KILN_FUNCTION(MatmulDescDestroy);
    KILN_FUNCTION(MatmulDescSetAttribute);
    KILN_FUNCTION(MatmulPreferenceCreate);
    KILN_FUNCTION(MatmulPreferenceDestroy);
    KILN_FUNCTION(MatmulPreferenceSetAttribute);
    KILN_FUNCTION(MatmulAlgoGetHeuristic);
    KILN_FUNCTION(Matmul);
#undef KILN_FUNCTION
  }
  decltype(&::cublasLtCreate) Create;
  decltype(&::cublasLtDestroy) Destroy;
  decltype(&::cublasLtGetStatusString) GetStatusString;
  decltype(&::cublasLtMatrixLayoutCreate) MatrixLayoutCreate;
  decltype(&::cublasLtMatrixLayoutDestroy) MatrixLayoutDestroy;
  decltype(&::cublasLtMatmulDescCreate) MatmulDescCreate;
  decltype(&::cublasLtMatmulDescDestroy) MatmulDescDestroy;
  decltype(&::cublasLtMatmulDescSetAttribute) MatmulDescSetAttribute;
  decltype(&::cublasLtMatmulPreferenceCreate) MatmulPreferenceCreate;
  decltype(&::cublasLtMatmulPreferenceDestroy) MatmulPreferenceDestroy;
  decltype(&::cublasLtMatmulPreferenceSetAttribute) MatmulPreferenceSetAttribute;
  decltype(&::cublasLtMatmulAlgoGetHeuristic) MatmulAlgoGetHeuristic;
  decltype(&::cublasLtMatmul) Matmul;
};

const Library& lt() {
  static const Library library;
  return library;
}

void check(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) fail("cuBLAS failed in {}: {}; --device cpu works without it", what, lt().GetStatusString(status));
}

cublasLtHandle_t handle() {
  struct Owner {
    cublasLtHandle_t h = nullptr;
    Owner() { check(lt().Create(&h), "starting"); }
    ~Owner() { (void)lt().Destroy(h); }
  };
  static thread_local Owner owner;
  return owner.h;
}

cudaDataType_t type_of(DType t) {
  KILN_ASSERT(t == DType::f32 || t == DType::f16 || t == DType::bf16);
  return t == DType::f32 ? CUDA_R_32F : t == DType::f16 ? CUDA_R_16F : CUDA_R_16BF;
}

/// A matrix as column-major cuBLAS sees our row-major one of rows x cols.
struct Layout {
  cublasLtMatrixLayout_t l = nullptr;
  Layout(DType t, int64_t rows, int64_t cols) {
    check(lt().MatrixLayoutCreate(&l, type_of(t), uint64_t(cols), uint64_t(rows), cols), "describing a matrix");
  }
  ~Layout() { (void)lt().MatrixLayoutDestroy(l); }
  Layout(const Layout&) = delete;
};

struct Plan {
  Layout a, b, c;
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
  size_t workspace = 0;

  Plan(bool ta, bool tb, int64_t m, int64_t n, int64_t k, DType in, DType out, bool tf32)
      : a(in, ta ? k : m, ta ? m : k), b(in, tb ? n : k, tb ? k : n), c(out, m, n) {
    const bool rounds = in == DType::f32 && tf32;
    check(lt().MatmulDescCreate(&product, rounds ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F), "describing a product");
    const cublasOperation_t first = tb ? CUBLAS_OP_T : CUBLAS_OP_N, second = ta ? CUBLAS_OP_T : CUBLAS_OP_N;
    check(lt().MatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first), "describing a product");
    check(lt().MatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second), "describing a product");
    cublasLtMatmulPreference_t wish = nullptr;
    check(lt().MatmulPreferenceCreate(&wish), "choosing an algorithm");
    (void)lt().MatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspaceLimit, sizeof kWorkspaceLimit);
    for (const auto name : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                            CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
      (void)lt().MatmulPreferenceSetAttribute(wish, name, &kAlignment, sizeof kAlignment);
    cublasLtMatmulHeuristicResult_t result{};
    int found = 0;
    const cublasStatus_t status = lt().MatmulAlgoGetHeuristic(handle(), product, b.l, a.l, c.l, c.l, wish, 1, &result, &found);
    (void)lt().MatmulPreferenceDestroy(wish);
    if (status != CUBLAS_STATUS_SUCCESS || found == 0)
      fail("cuBLAS has no matrix product {} x {} x {} in {}: {}; use --device cpu", m, n, k, name_of(in), lt().GetStatusString(status));
    algorithm = result.algo;
    workspace = result.workspaceSize;
  }
  ~Plan() { (void)lt().MatmulDescDestroy(product); }
  Plan(const Plan&) = delete;
};

const Plan& plan(bool ta, bool tb, int64_t m, int64_t n, int64_t k, DType in, DType out, bool tf32) {
  using Key = std::tuple<bool, bool, int64_t, int64_t, int64_t, int, int, bool>;
  static thread_local std::map<Key, Plan> plans;
  return plans.try_emplace(Key{ta, tb, m, n, k, int(in), int(out), tf32}, ta, tb, m, n, k, in, out, tf32).first->second;
}

}  // namespace

void matrix_product(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const Tensor& a, const Tensor& b, const Tensor& c) {
  Booking booking(Work::matrix);
  const Plan& p = plan(ta, tb, m, n, k, a.dtype(), c.dtype(), context().library.tf32);
  const Tensor workspace = p.workspace ? Tensor(Shape{int64_t(p.workspace)}, DType::u8) : Tensor();
  if (context().planning) return;
  for (const Tensor* t : {&a, &b, &c}) KILN_ASSERT(reinterpret_cast<uintptr_t>(t->data()) % kAlignment == 0);
  const float one = 1, zero = 0;
  check(lt().Matmul(handle(), p.product, &one, b.data(), p.b.l, a.data(), p.a.l, &zero, c.data(), p.c.l, c.data(), p.c.l, &p.algorithm,
                       workspace.data(), p.workspace, static_cast<cudaStream_t>(context().stream)),
        "a matrix product");
}

}  // namespace kiln::cublas

#else

namespace kiln::cublas {

void matrix_product(bool, bool, int64_t, int64_t, int64_t, const Tensor&, const Tensor&, const Tensor&) {
  fail("this kiln was built without cuBLAS; use --device cpu");
}

}  // namespace kiln::cublas

#endif
