#include "bench/kernel_bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "bench/composition.h"
#include "engine/backend/gpu_runtime.h"
#include "engine/error.h"
#include "engine/matrix.h"
#include "engine/random.h"
#include "kernels/pointwise.h"

// An unfused composition's bytes are nobody's limit.
namespace kiln::traffic {
void multiply(Stream, DType, int64_t, const void*, const void*, void*) {}
void sum_pixels(Stream, DType, int64_t, int64_t, int, const void*, float*, float*) {}
void adam_apply(Stream, int64_t, float, float, float, const float*, const float*, float*) {}
}  // namespace kiln::traffic

namespace kiln::bench {
namespace {

constexpr double kArithmetic = 2e-5;

double half_unit(DType t) { return t == DType::f16 ? 0x1p-11 : t == DType::bf16 ? 0x1p-8 : 0; }

/// Odd, so that it meets every channel.
size_t sample_step(int64_t n, int64_t most) { return n > most ? size_t(n / most) | 1 : 1; }

}  // namespace

std::vector<Case> all_cases(const Scale& s, DType t) {
  std::vector<Case> cases;
  add_clip_cases(cases, s, t);
  add_convolution_cases(cases, s, t);
  add_norm_cases(cases, s, t);
  add_pointwise_cases(cases, s, t);
  add_training_cases(cases, s, t);
  add_wavelet_cases(cases, s, t);
  add_biggan_cases(cases, s, t);
  add_feature_cases(cases, s, t);
  return cases;
}

Tensor normals(const std::string& name, const Shape& shape, DType t) {
  const Tensor x = context().random->normal(name, Shape{1, shape.count()}).reshape(shape);
  if (t == DType::f32) return x;
  const Tensor y(shape, t);
  KILN_RUN(Work::data, cast(stream, DType::f32, t, x.count(), x.data(), y.data()));
  return y;
}

Tensor uniforms(const std::string& name, const Shape& shape) {
  return context().random->uniform(name, Shape{1, shape.count()}).reshape(shape);
}

Tensor in_f32(const Tensor& x) {
  if (x.dtype() == DType::f32) return x;
  const Tensor y(x.shape());
  KILN_RUN(Work::data, cast(stream, x.dtype(), DType::f32, x.count(), x.data(), y.data()));
  return y;
}

void poison(const Tensor& x) {
  KILN_RUN(Work::data, fill(stream, x.dtype(), x.count(), std::numeric_limits<float>::quiet_NaN(), x.data()));
}

Tensor poisoned(const Shape& shape, DType t) {
  const Tensor x(shape, t);
  poison(x);
  return x;
}

void Comparison::add(double got, double want) { pairs_.emplace_back(got, want); }

void Comparison::add(const Tensor& got, const Tensor& want) {
  KILN_ASSERT(got.count() == want.count());
  const std::vector<float> g = got.to_vector(), w = want.to_vector();
  for (size_t i = 0; i < g.size(); i += sample_step(got.count(), 65536)) add(double(g[i]), double(w[i]));
}

void Comparison::add(const Tensor& got, const std::function<double(int64_t)>& want) {
  const std::vector<float> g = got.to_vector();
  for (int64_t i = 0; i < got.count(); i += int64_t(sample_step(got.count(), 4096))) add(double(g[size_t(i)]), want(i));
}

double Comparison::error() const {
  if (pairs_.empty()) return std::numeric_limits<double>::quiet_NaN();
  double size = 1e-30;
  for (const auto& [got, want] : pairs_) size = std::max(size, std::fabs(want));
  double worst = 0;
  for (const auto& [got, want] : pairs_) {
    const double e = std::fabs(got - want) / (half_unit(type_) * std::fabs(want) + kArithmetic * size);
    if (!(e <= worst)) worst = e;  // a NaN stays
    if (std::isnan(worst)) break;
  }
  return worst;
}

Spread time_of(const std::function<void()>& f, const Method& m) {
  const bool gpu = context().device == Device::gpu;
  const Tensor flush(Shape{int64_t(m.flush_bytes / 4)});
  std::vector<double> ms;
  f();  // plans, first touches
  for (int i = 0; i < m.repeats; i++) {
    KILN_RUN(Work::data, fill(stream, DType::f32, flush.count(), float(i), flush.data()));
    if (gpu) {
      gpu_runtime::Timer timer(context().stream);
      f();
      ms.push_back(timer.stop());
    } else {
      const auto start = std::chrono::steady_clock::now();
      f();
      ms.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
    }
  }
  std::sort(ms.begin(), ms.end());
  return {ms[ms.size() / 2], ms[ms.size() / 4], ms[ms.size() * 3 / 4]};
}

Amount amount_of(const std::function<void()>& f) {
  std::vector<Moved> moved;
  {
    const Scoped<bool> planning(&Context::planning, true);
    const Scoped<std::vector<Moved>*> counts(&Context::counts, &moved);
    f();
  }
  Amount w;
  for (const Moved& m : moved) {
    w.bytes += m.passes.at(m.element_size);
    w.flops += m.flops;
  }
  return w;
}

double copy_gb_per_s(const Method& m, bool quick) {
  const int64_t n = (quick ? 16 : 256) << 18;  // 16 or 256 MB
  const Tensor x = uniforms("copy", Shape{n}), y(Shape{n});
  const auto copy = [&] { KILN_RUN(Work::pointwise, scale(stream, DType::f32, n, 1.f, x.data(), y.data())); };
  return double(amount_of(copy).bytes) / (time_of(copy, m).median * 1e6);
}

double matrix_tflop_per_s(DType t, const Method& m, bool quick) {
  const int64_t side = quick ? 512 : context().device == Device::gpu ? 8192 : 2048;
  try {
    const Tensor a = normals("a", Shape{side, side}, t), b = normals("b", Shape{side, side}, t),
                 c(Shape{side, side}, t);
    const auto product = [&] { matrix_product(false, false, side, side, side, a, b, c); };
    return amount_of(product).flops / (time_of(product, m).median * 1e9);
  } catch (const Error&) {
    return 0;  // the device has no matrix product of this type
  }
}

}  // namespace kiln::bench
