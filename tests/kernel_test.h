// The kernel tests' harness: one list of cases, run on every executor that is present.
//
// A case makes its inputs and computes what must come out, in double precision, with plain loops written from the
// comments in the kernel's header. for_each_executor then calls its body once per way to run a kernel: the host
// executor in both launch shapes, several orders of the threads, one and two OpenMP threads; and the GPU where there is
// one. Every output starts as NaN between two guard zones. After the body the harness checks that the guards and the
// inputs are as they were, and that all ways of one launch shape gave the same bits.
#pragma once
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/exec/api.h"

/// Calls a kernel's launcher on the executor of a Run: KILN_ON(run, fill(run.stream(), ...)).
#if KILN_WITH_CUDA
#define KILN_ON(run, ...)       \
  do {                          \
    if ((run).on_gpu())         \
      ::kiln::gpu::__VA_ARGS__; \
    else                        \
      ::kiln::cpu::__VA_ARGS__; \
  } while (0)
#else
#define KILN_ON(run, ...) ::kiln::cpu::__VA_ARGS__
#endif

namespace kiln::test {

using Doubles = std::vector<double>;

constexpr DType kFloatTypes[] = {DType::f32, DType::f16, DType::bf16};
std::string name_of_type(DType t);
/// The number of type t that is nearest to x.
double rounded(DType t, double x);

/// Test numbers: the same on every machine.
class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  double uniform() { return engine_() * 0x1p-32; }  // [0, 1)
  double normal() { return std::sqrt(-2 * std::log(1 - uniform())) * std::cos(6.283185307179586 * uniform()); }
  int integer(int low, int high) { return low + int(engine_() % uint32_t(high - low + 1)); }
  /// n numbers that type t holds exactly.
  Doubles normals(DType t, int64_t n, double scale = 1, double offset = 0);
  /// n multiples of 2^-24 in [0, 1).
  Doubles uniforms(int64_t n);

 private:
  std::mt19937 engine_;
};

/// A number that must come out: its value, and the size of the terms it was added from, on which a float32 sum's
/// rounding depends.
struct Sum {
  double value = 0, size = 0;
  Sum() = default;
  Sum(double v) : value(v), size(std::fabs(v)) {}
  Sum(double v, double s) : value(v), size(s) {}
  Sum& operator+=(const Sum& b) {
    value += b.value;
    size += b.size;
    return *this;
  }
};
inline Sum operator*(const Sum& a, double f) { return {a.value * f, a.size * std::fabs(f)}; }
using Sums = std::vector<Sum>;

/// Memory of the executor that a Run stands for.
class Buffer {
 public:
  enum class Role { input, output };
  Buffer(bool gpu, Role role, DType t, std::vector<uint8_t> bytes);
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  void* data() const { return data_; }
  float* f32() const { return static_cast<float*>(data_); }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  DType type() const { return type_; }
  Role role() const { return role_; }
  std::vector<uint8_t> bytes() const;
  Doubles values() const;
  bool guards_intact() const;
  bool unchanged() const { return bytes() == before_; }

 private:
  std::vector<uint8_t> whole() const;

  bool gpu_;
  Role role_;
  DType type_;
  std::vector<uint8_t> before_;
  uint8_t* memory_;  // guard, data, guard
  void* data_;
};

/// How the kernels of one call of a case's body run.
struct Way {
  bool gpu = false, wide = false;
  int order = 0, threads = 1;
  std::string describe() const;
};

constexpr double kArithmetic = 2e-6;  // what float32 arithmetic may cost, relative to Sum::size

class Run {
 public:
  using Results = std::vector<std::vector<uint8_t>>;
  Run(const Way& way, Results& first) : way_(way), first_(first), is_first_(first.empty()) {}

  bool on_gpu() const { return way_.gpu; }
  Stream stream() const;
  const Way& way() const { return way_; }

  /// A tensor that the kernel only reads. Each value must be one that t holds.
  Buffer& in(DType t, const Doubles& values);
  /// The same of integers and structs.
  template <class T>
  Buffer& in(const std::vector<T>& items) {
    const uint8_t* p = reinterpret_cast<const uint8_t*>(items.data());
    return add(Buffer::Role::input, DType::u8, {p, p + items.size() * sizeof(T)});
  }
  /// n elements of NaN (integers: -1), for the kernel to write.
  Buffer& out(DType t, int64_t n);
  /// Memory that the kernel reads and writes.
  Buffer& inout(DType t, const Doubles& values);
  template <class T>
  Buffer& inout(const std::vector<T>& items) {
    const uint8_t* p = reinterpret_cast<const uint8_t*>(items.data());
    return add(Buffer::Role::output, DType::u8, {p, p + items.size() * sizeof(T)});
  }
  /// Scratch memory: starts as NaN, so that what a kernel reads before it wrote it shows.
  Buffer& scratch(int64_t floats) { return out(DType::f32, floats); }

  /// |got - want.value| <= half a unit in the last place of the buffer's type + arithmetic * want.size. A NaN is wanted
  /// where want.value is one.
  void expect(const std::string& name, const Buffer& got, const Sums& want, double arithmetic = kArithmetic);
  void expect(const std::string& name, const Buffer& got, const Doubles& want, double arithmetic = kArithmetic);
  /// got = want, exactly.
  void expect_exact(const std::string& name, const Buffer& got, const Doubles& want);
  /// Guards and inputs are as they were.
  void finish();

 private:
  Buffer& add(Buffer::Role role, DType t, std::vector<uint8_t> bytes);
  void compare_bits(const std::string& name, const Buffer& got);

  Way way_;
  Results& first_;  // the outputs of the first run in this launch shape
  bool is_first_;
  size_t compared_ = 0;
  std::vector<std::unique_ptr<Buffer>> buffers_;
};

/// Runs `body` in all ways; see the top of this file. Says once where there is no GPU.
void for_each_executor(const std::function<void(Run&)>& body);

}  // namespace kiln::test
