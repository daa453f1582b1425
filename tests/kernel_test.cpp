#include "tests/kernel_test.h"

#include <omp.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>

#include "engine/backend/gpu_runtime.h"
#include "kernels/exec/half.h"
#include "tests/kernels/primitives_probe.h"

// Declared here because kernels/exec/host.h, which has it, is for .cu files.
namespace kiln::cpu::executor {
void set_order(int order);
}

#if defined(__SANITIZE_ADDRESS__)
#define KILN_UNDER_ASAN 1
#elif defined(__has_feature)
#define KILN_UNDER_ASAN __has_feature(address_sanitizer)
#else
#define KILN_UNDER_ASAN 0
#endif

namespace kiln::test {
namespace {

#if defined(__SANITIZE_THREAD__)
constexpr bool kUnderTsan = true;  // which does not know OpenMP's barriers, but sees races inside a block
#else
constexpr bool kUnderTsan = false;
#endif
constexpr size_t kAlign = 256;  // cudaMalloc's
// AddressSanitizer has guard zones of its own, which see reads too: there a buffer ends where its memory ends.
constexpr size_t kGuard = KILN_UNDER_ASAN ? 0 : kAlign;
// NaN after inputs, so that reading beyond the end shows; another pattern around outputs: a NaN written there would
// not.
constexpr uint8_t kInputGuard = 0xff, kOutputGuard = 0x6b;

size_t size_of(DType t) {
  switch (t) {
    case DType::f16:
    case DType::bf16: return 2;
    case DType::u8: return 1;
    default: return 4;
  }
}

std::vector<uint8_t> encode(DType t, const Doubles& values) {
  std::vector<uint8_t> bytes(values.size() * size_of(t));
  bool exact = true;
  for (size_t i = 0; i < values.size(); i++) {
    const float f = float(values[i]);
    exact = exact && (std::isnan(values[i]) || rounded(t, values[i]) == values[i]);
    const auto put = [&](auto item) { std::memcpy(&bytes[i * sizeof item], &item, sizeof item); };
    switch (t) {
      case DType::f16: put(from_float<half_t>(f)); break;
      case DType::bf16: put(from_float<bf16_t>(f)); break;
      case DType::i32: put(int32_t(values[i])); break;
      case DType::u8: put(uint8_t(values[i])); break;
      case DType::f32: put(f); break;
    }
  }
  REQUIRE(exact);  // the kernel must see what the reference sees
  return bytes;
}

double decode(DType t, const uint8_t* p) {
  uint16_t bits = 0;
  int32_t k = 0;
  float f = 0;
  switch (t) {
    case DType::f16: std::memcpy(&bits, p, 2); return double(to_float(half_t{bits}));
    case DType::bf16: std::memcpy(&bits, p, 2); return double(to_float(bf16_t{bits}));
    case DType::u8: return *p;
    case DType::i32: std::memcpy(&k, p, 4); return k;
    default: std::memcpy(&f, p, 4); return double(f);
  }
}

/// Half a unit in the last place relative to a normal number, and that of the smallest ones.
double unit_roundoff(DType t) { return t == DType::f16 ? 0x1p-11 : t == DType::bf16 ? 0x1p-8 : 0x1p-24; }
double smallest_step(DType t) { return t == DType::f16 ? 0x1p-25 : 0x1p-126; }

/// Sets the host executor up for a way and puts it back.
class Setting {
 public:
  explicit Setting(const Way& way) : threads_(omp_get_max_threads()) {
    cpu::probe_force_wide(way.wide);
    cpu::executor::set_order(way.order);
    omp_set_num_threads(kUnderTsan ? 1 : way.threads);
  }
  ~Setting() {
    cpu::probe_force_wide(false);
    cpu::executor::set_order(0);
    omp_set_num_threads(threads_);
  }
  Setting(const Setting&) = delete;
  Setting& operator=(const Setting&) = delete;

 private:
  int threads_;
};

bool have_gpu() {
  static const bool have = [] {
    std::string why;
    if (gpu_runtime::available(&why)) {
      std::printf("kernels are checked on the CPU and on %s\n", gpu_runtime::describe().c_str());
      return true;
    }
    std::printf("no GPU: %s: kernels are checked on the CPU only\n", why.c_str());
    return false;
  }();
  return have;
}

}  // namespace

std::string name_of_type(DType t) {
  constexpr const char* kNames[] = {"f32", "f16", "bf16", "u8", "i32"};
  return kNames[size_t(t)];
}

double rounded(DType t, double x) {
  switch (t) {
    case DType::f16: return double(to_float(from_float<half_t>(float(x))));
    case DType::bf16: return double(to_float(from_float<bf16_t>(float(x))));
    case DType::f32: return double(float(x));
    default: return std::trunc(x);
  }
}

Doubles Random::normals(DType t, int64_t n, double scale, double offset) {
  Doubles v(static_cast<size_t>(n));
  for (double& x : v) x = rounded(t, offset + scale * normal());
  return v;
}

Doubles Random::uniforms(int64_t n) {
  Doubles v(static_cast<size_t>(n));
  for (double& x : v) x = double(engine_() >> 8) * 0x1p-24;
  return v;
}

// ---- Buffer
// -----------------------------------------------------------------------------------------------------------

Buffer::Buffer(bool gpu, Role role, DType t, std::vector<uint8_t> bytes)
    : gpu_(gpu), role_(role), type_(t), before_(std::move(bytes)) {
  const uint8_t guard = role == Role::input ? kInputGuard : kOutputGuard;
  std::vector<uint8_t> image(kGuard, guard);
  image.insert(image.end(), before_.begin(), before_.end());
  image.insert(image.end(), kGuard, guard);
  if (gpu) {
    memory_ = static_cast<uint8_t*>(gpu_runtime::allocate(std::max<size_t>(image.size(), 1)));
    REQUIRE(memory_ != nullptr);
    gpu_runtime::copy_to(memory_, image.data(), image.size());
  } else {
    memory_ = static_cast<uint8_t*>(::operator new(image.size(), std::align_val_t(kAlign)));
    if (!image.empty()) std::memcpy(memory_, image.data(), image.size());
  }
  data_ = memory_ + kGuard;
}

Buffer::~Buffer() {
  if (gpu_)
    gpu_runtime::release(memory_);
  else
    ::operator delete(memory_, std::align_val_t(kAlign));
}

std::vector<uint8_t> Buffer::whole() const {
  std::vector<uint8_t> image(before_.size() + 2 * kGuard);
  if (gpu_) {
    gpu_runtime::copy_from(image.data(), memory_, image.size());
  } else if (!image.empty()) {
    std::memcpy(image.data(), memory_, image.size());
  }
  return image;
}

std::vector<uint8_t> Buffer::bytes() const {
  const std::vector<uint8_t> image = whole();
  return {image.begin() + kGuard, image.end() - kGuard};
}

Doubles Buffer::values() const {
  const std::vector<uint8_t> raw = bytes();
  const size_t size = size_of(type_);
  Doubles v(raw.size() / size);
  for (size_t i = 0; i < v.size(); i++) v[i] = decode(type_, &raw[i * size]);
  return v;
}

bool Buffer::guards_intact() const {
  const std::vector<uint8_t> image = whole();
  const uint8_t guard = role_ == Role::input ? kInputGuard : kOutputGuard;
  const auto intact = [&](auto begin) {
    return std::all_of(begin, begin + kGuard, [&](uint8_t b) { return b == guard; });
  };
  return intact(image.begin()) && intact(image.end() - kGuard);
}

// ---- Run
// --------------------------------------------------------------------------------------------------------------

std::string Way::describe() const {
  if (gpu) return "on the GPU";
  return fmt::format("on the CPU, {} shape, thread order {}, {} OpenMP thread{}", wide ? "wide" : "narrow", order,
                     threads, threads == 1 ? "" : "s");
}

Stream Run::stream() const { return on_gpu() ? gpu_runtime::stream() : nullptr; }

Buffer& Run::add(Buffer::Role role, DType t, std::vector<uint8_t> bytes) {
  buffers_.push_back(std::make_unique<Buffer>(way_.gpu, role, t, std::move(bytes)));
  return *buffers_.back();
}

Buffer& Run::in(DType t, const Doubles& values) { return add(Buffer::Role::input, t, encode(t, values)); }
Buffer& Run::inout(DType t, const Doubles& values) { return add(Buffer::Role::output, t, encode(t, values)); }
Buffer& Run::out(DType t, int64_t n) {
  return add(Buffer::Role::output, t, std::vector<uint8_t>(size_t(n) * size_of(t), 0xff));
}

void Run::compare_bits(const std::string& name, const Buffer& got) {
  if (is_first_) {
    first_.push_back(got.bytes());
    return;
  }
  REQUIRE(compared_ < first_.size());
  const bool equal = first_[compared_++] == got.bytes();
  CHECK_MESSAGE(equal, name, ": other bits than in the first run of this launch shape, ", way_.describe());
}

void Run::expect(const std::string& name, const Buffer& got, const Sums& want, double arithmetic) {
  const Doubles values = got.values();
  REQUIRE(values.size() == want.size());
  const double unit = unit_roundoff(got.type()) * 1.001, smallest = smallest_step(got.type());
  size_t wrong = 0, first = 0;
  const auto allowed = [&](const Sum& w) { return unit * std::fabs(w.value) + smallest + arithmetic * w.size; };
  for (size_t i = 0; i < values.size(); i++) {
    const bool right =
        std::isnan(want[i].value) ? std::isnan(values[i]) : std::fabs(values[i] - want[i].value) <= allowed(want[i]);
    if (!right && wrong++ == 0) first = i;
  }
  std::string report;
  if (wrong > 0)
    report = fmt::format("{}: {} of {} wrong, first [{}] = {}, must be {} +- {:.2g}; {}", name, wrong, values.size(),
                         first, values[first], want[first].value, allowed(want[first]), way_.describe());
  CHECK_MESSAGE(wrong == 0, report);
  compare_bits(name, got);
}

void Run::expect(const std::string& name, const Buffer& got, const Doubles& want, double arithmetic) {
  expect(name, got, Sums(want.begin(), want.end()), arithmetic);
}

void Run::expect_exact(const std::string& name, const Buffer& got, const Doubles& want) {
  const Doubles values = got.values();
  REQUIRE(values.size() == want.size());
  size_t wrong = 0, first = 0;
  for (size_t i = 0; i < values.size(); i++) {
    const bool right = values[i] == want[i] || (std::isnan(values[i]) && std::isnan(want[i]));
    if (!right && wrong++ == 0) first = i;
  }
  std::string report;
  if (wrong > 0)
    report = fmt::format("{}: {} of {} wrong, first [{}] = {}, must be exactly {}; {}", name, wrong, values.size(),
                         first, values[first], want[first], way_.describe());
  CHECK_MESSAGE(wrong == 0, report);
  compare_bits(name, got);
}

void Run::finish() {
  size_t touched = 0, changed = 0;
  for (const auto& b : buffers_) {
    touched += !b->guards_intact();
    changed += b->role() == Buffer::Role::input && !b->unchanged();
  }
  CHECK_MESSAGE(touched == 0, touched, " buffers were written beyond their ends, ", way_.describe());
  CHECK_MESSAGE(changed == 0, changed, " inputs were changed, ", way_.describe());
}

void for_each_executor(const std::function<void(Run&)>& body) {
  const auto in_ways = [&](const std::vector<Way>& ways) {
    Run::Results first;
    for (const Way& way : ways) {
      const Setting setting(way);
      Run run(way, first);
      body(run);
      run.finish();
    }
  };
  // KILN_TEST_EXECUTORS=gpu leaves the host executor out: compute-sanitizer is slow enough without it.
  const char* only = std::getenv("KILN_TEST_EXECUTORS");
  if (only && std::string(only) == "gpu") {
    REQUIRE(have_gpu());
  } else {
    in_ways({{false, false, 0, 1}, {false, false, 1, 2}});
    in_ways({{false, true, 0, 1}, {false, true, 1, 2}, {false, true, 7, 1}});
  }
  if (have_gpu()) in_ways({{true, true, 0, 1}, {true, true, 0, 1}});
}

}  // namespace kiln::test
