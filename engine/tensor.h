// Tensor: a contiguous block of numbers with a shape, channels last. Images are N,H,W,C; clips N,T,H,W,C, so that
// (N*T, H, W, C) is the same memory. No strides; the only view is another shape of the same memory.
#pragma once
#include <array>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "kernels/exec/api.h"

namespace kiln {

enum class Device : uint8_t { cpu, gpu };

size_t size_of(DType t);             // bytes of one element
const char* name_of(DType t);        // "f32", ...
const char* name_of(Device device);  // "cpu", "gpu"

/// Up to five sizes, the last one innermost.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<int64_t> sizes);
  int rank() const { return rank_; }
  /// Size of axis i; negative i counts from the end.
  int64_t operator[](int i) const { return d_[i < 0 ? size_t(rank_ + i) : size_t(i)]; }
  int64_t count() const;  // elements
  /// Product of all sizes but the last: the rows of a channels-last tensor.
  int64_t rows() const { return rank_ == 0 ? 0 : count() / (d_[size_t(rank_ - 1)] ? d_[size_t(rank_ - 1)] : 1); }
  Shape with(int axis, int64_t size) const;  // a copy with one size changed
  bool operator==(const Shape&) const = default;
  std::string text() const;  // "8x64x64x3"
  std::vector<int64_t> sizes() const { return {d_.begin(), d_.begin() + rank_}; }

 private:
  int rank_ = 0;
  std::array<int64_t, 5> d_{};
};

class Arena;

/// A value that shares its memory: copying a Tensor copies a reference. An empty Tensor has no memory.
class Tensor {
 public:
  Tensor() = default;
  /// Uninitialised memory of the current context's arena.
  explicit Tensor(const Shape& shape, DType t = DType::f32);
  /// A view of somebody else's ordinary memory, for a context on the CPU. The arena does not count it.
  Tensor(const Shape& shape, DType t, std::shared_ptr<void> memory);

  explicit operator bool() const { return data_ != nullptr; }
  const Shape& shape() const { return shape_; }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  int64_t count() const { return shape_.count(); }
  int64_t rows() const { return shape_.rows(); }
  int64_t channels() const { return shape_[-1]; }
  size_t bytes() const { return size_t(count()) * size_of(dtype_); }

  void* data() const { return data_; }
  bool unique() const { return memory_.use_count() == 1; }  // no other tensor shares this memory
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  float* f32() const;  // asserts the type

  Tensor reshape(const Shape& shape) const;  // the same memory; the count must agree
  /// Elements [offset, offset + shape.count()) of a flat tensor, as a tensor of that shape.
  Tensor slice(int64_t offset, const Shape& shape) const;

  /// Copies to and from ordinary memory; bytes() of it. In order with what the device was given before; download waits for it.
  void upload(const void* from) const;
  void download(void* to) const;
  std::vector<float> to_vector() const;  // as f32, from any floating type
  float item() const;                    // the only element, f32

 private:
  std::shared_ptr<void> memory_;
  void* data_ = nullptr;
  Shape shape_;
  DType dtype_ = DType::f32;
  Device device_ = Device::cpu;
};

Tensor zeros(const Shape& shape, DType t = DType::f32);
/// The same number everywhere, f32: made on the device, where from_vector() would upload.
Tensor filled(const Shape& shape, float value);
Tensor from_vector(const Shape& shape, const std::vector<float>& values);

}  // namespace kiln
