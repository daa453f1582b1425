// What several tests share: a context, hashed numbers equal to tests/golden/make_golden.py's, and comparisons.
#pragma once
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "engine/context.h"
#include "engine/error.h"
#include "engine/random.h"
#include "engine/safetensors.h"
#include "engine/tape.h"

namespace kiln::test {

/// Where the tests of ops and networks run: the CPU, or the GPU where the environment's KILN_TEST_DEVICE is gpu.
Device test_device();

/// A context of its own for a test.
struct Fixture {
  Context context{test_device()};
  UseContext use{context};
  Fixture() { context.library.deterministic = true; }  // tests compare bits
};

/// U of the golden files' hash: see "2. Hash" in tests/golden/make_golden.py.
float hash_uniform(const std::string& name, uint64_t i);
std::vector<float> hashed_uniform(const std::string& name, int64_t n);  // [0, 1)
std::vector<float> hashed_signed(const std::string& name, int64_t n);   // [-1, 1)
std::vector<float> hashed_normal(const std::string& name, int64_t n);   // unit variance
/// The initial value of a parameter or buffer by its kiln name.
std::vector<float> hashed_initial(const std::string& name, int64_t n);

inline Tensor tensor_of(const Shape& s, const std::vector<float>& v) { return from_vector(s, v); }

/// What the kiln::Error says that f throws; empty if it throws none.
template <class F>
std::string error_of(F f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// max |a - b| / max |b|
double relative_error(const std::vector<float>& a, const std::vector<float>& b);

/// Compares a tensor with a golden file's entry of that name (its strided subset and its moments). Returns the largest
/// error relative to the entry's largest magnitude.
double golden_error(const SafetensorsFile& file, const std::string& name, const std::vector<float>& whole);

/// Replays the hashed numbers; suffix "#k" picks an iteration.
class ReplaySource : public RandomSource {
 public:
  std::string suffix;
  int part = -1;  // the corner that "part" is to draw
  Tensor normal(std::string_view site, const Shape& shape) override;
  Tensor uniform(std::string_view site, const Shape& shape) override;
};

}  // namespace kiln::test
