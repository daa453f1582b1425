// What ./bench_kernels measures: one list of cases, each with a name, its operands at the shape of a real network, a check and
// the composition that it fuses. A case is checked first and timed then.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "engine/context.h"
#include "engine/tensor.h"

namespace kiln::bench {

/// The network whose shapes the cases have: FastGAN at `size` pixels, width ngf = ndf = `width`.
struct Scale {
  int size = 256, width = 64;
  int64_t batch = 8;
};

/// A case with its operands in memory.
struct Prepared {
  std::function<void()> run;
  std::function<void()> unfused;  // the same result in one pass of memory an operation; empty where there is nothing to fuse
  /// Runs it on poisoned results and compares with `unfused` in f32 or with plain loops in double precision: the largest error
  /// as a multiple of what rounding explains. At most 1 is right; a NaN is not.
  std::function<double()> error;
};

struct Case {
  std::string kernel, shape;
  DType dtype;
  std::function<Prepared()> prepare;
};

/// All cases at one scale and storage type. Those whose operands are always f32 come with DType::f32 only.
std::vector<Case> all_cases(const Scale& s, DType t);
void add_clip_cases(std::vector<Case>& cases, const Scale& s, DType t);
void add_convolution_cases(std::vector<Case>& cases, const Scale& s, DType t);
void add_norm_cases(std::vector<Case>& cases, const Scale& s, DType t);
void add_pointwise_cases(std::vector<Case>& cases, const Scale& s, DType t);
void add_training_cases(std::vector<Case>& cases, const Scale& s, DType t);
void add_wavelet_cases(std::vector<Case>& cases, const Scale& s, DType t);
void add_biggan_cases(std::vector<Case>& cases, const Scale& s, DType t);
void add_feature_cases(std::vector<Case>& cases, const Scale& s, DType t);

// ---- operands and checks ---------------------------------------------------------------------------------------------

/// Standard normal numbers of type t, equal for equal names.
Tensor normals(const std::string& name, const Shape& shape, DType t);
Tensor uniforms(const std::string& name, const Shape& shape);
/// The same numbers in f32.
Tensor in_f32(const Tensor& x);
/// Memory full of NaN.
Tensor poisoned(const Shape& shape, DType t = DType::f32);
void poison(const Tensor& x);

/// What rounding explains: half a unit in the last place of t, and 2e-5 of the largest wanted number for f32 arithmetic.
class Comparison {
 public:
  explicit Comparison(DType t) : type_(t) {}
  void add(double got, double want);
  /// Elements spread over both, 65536 at most; want is f32.
  void add(const Tensor& got, const Tensor& want);
  /// The same, 4096 at most.
  void add(const Tensor& got, const std::function<double(int64_t)>& want);
  double error() const;

 private:
  DType type_;
  std::vector<std::pair<double, double>> pairs_;
};

// ---- time ------------------------------------------------------------------------------------------------------------

/// Milliseconds: the median and the quartiles around it.
struct Spread {
  double median = 0, low = 0, high = 0;
};

struct Method {
  int repeats = 15;
  size_t flush_bytes = 256 << 20;  // written between repeats, so that no operand is in a cache
};

/// Times f on the current context's device: by its clock on the CPU, by events on the stream on a GPU.
Spread time_of(const std::function<void()>& f, const Method& m);

/// What f's kernels move and compute, counted and not run.
struct Amount {
  int64_t bytes = 0;
  double flops = 0;
};
Amount amount_of(const std::function<void()>& f);

/// The device's own limits, measured as everything else is: a copy, and a large matrix product of type t (0 where there
/// is none).
double copy_gb_per_s(const Method& m, bool quick);
double matrix_tflop_per_s(DType t, const Method& m, bool quick);

}  // namespace kiln::bench
