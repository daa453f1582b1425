#include "engine/tensor.h"

#include <cstring>

#include "engine/backend/gpu_runtime.h"
#include "engine/context.h"
#include "engine/error.h"
#include "kernels/exec/half.h"
#include "kernels/pointwise.h"

namespace kiln {

size_t size_of(DType t) {
  switch (t) {
    case DType::f32:
    case DType::i32: return 4;
    case DType::f16:
    case DType::bf16: return 2;
    case DType::u8: return 1;
  }
  return 0;
}

const char* name_of(DType t) {
  switch (t) {
    case DType::f32: return "f32";
    case DType::f16: return "f16";
    case DType::bf16: return "bf16";
    case DType::u8: return "u8";
    case DType::i32: return "i32";
  }
  return "?";
}

const char* name_of(Device device) { return device == Device::cpu ? "cpu" : "gpu"; }

Shape::Shape(std::initializer_list<int64_t> sizes) {
  KILN_ASSERT(sizes.size() <= d_.size());
  for (int64_t s : sizes) d_[size_t(rank_++)] = s;
}

int64_t Shape::count() const {
  int64_t n = 1;
  for (int i = 0; i < rank_; i++) n *= d_[size_t(i)];
  return rank_ == 0 ? 0 : n;
}

Shape Shape::with(int axis, int64_t size) const {
  Shape s = *this;
  s.d_[size_t(axis < 0 ? rank_ + axis : axis)] = size;
  return s;
}

std::string Shape::text() const {
  std::string s;
  for (int i = 0; i < rank_; i++) s += (i ? "x" : "") + std::to_string(d_[size_t(i)]);
  return s;
}

Tensor::Tensor(const Shape& shape, DType t) : shape_(shape), dtype_(t), device_(context().device) {
  memory_ = context().arena->allocate(bytes());
  data_ = memory_.get();
}

Tensor::Tensor(const Shape& shape, DType t, std::shared_ptr<void> memory)
    : memory_(std::move(memory)), data_(memory_.get()), shape_(shape), dtype_(t) {
  KILN_ASSERT(context().device == Device::cpu);
}

float* Tensor::f32() const {
  KILN_ASSERT(dtype_ == DType::f32);
  return static_cast<float*>(data_);
}

Tensor Tensor::reshape(const Shape& shape) const {
  KILN_ASSERT(shape.count() == count());
  Tensor t = *this;
  t.shape_ = shape;
  return t;
}

Tensor Tensor::slice(int64_t offset, const Shape& shape) const {
  KILN_ASSERT(offset >= 0 && offset + shape.count() <= count());
  Tensor t = *this;
  t.shape_ = shape;
  t.data_ = static_cast<char*>(data_) + size_t(offset) * size_of(dtype_);
  return t;
}

void Tensor::upload(const void* from) const {
  KILN_ASSERT(!context().capturing);
  if (context().planning) return;
  if (device_ == Device::cpu)
    std::memcpy(data_, from, bytes());
  else
    gpu_runtime::copy_to(data_, from, bytes());
}

void Tensor::download(void* to) const {
  KILN_ASSERT(!context().capturing);
  if (context().planning) {
    std::memset(to, 0, bytes());
    return;
  }
  if (device_ == Device::cpu)
    std::memcpy(to, data_, bytes());
  else
    gpu_runtime::copy_from(to, data_, bytes());
}

std::vector<float> Tensor::to_vector() const {
  std::vector<float> v(static_cast<size_t>(count()));
  if (dtype_ == DType::f32) {
    download(v.data());
  } else if (dtype_ == DType::f16) {
    std::vector<half_t> h(v.size());
    download(h.data());
    for (size_t i = 0; i < v.size(); i++) v[i] = to_float(h[i]);
  } else {
    KILN_ASSERT(dtype_ == DType::bf16);
    std::vector<bf16_t> h(v.size());
    download(h.data());
    for (size_t i = 0; i < v.size(); i++) v[i] = to_float(h[i]);
  }
  return v;
}

float Tensor::item() const {
  KILN_ASSERT(count() == 1);
  return to_vector()[0];
}

Tensor zeros(const Shape& shape, DType t) {
  Tensor x(shape, t);
  if (t == DType::u8) {
    const std::vector<char> z(x.bytes(), 0);
    x.upload(z.data());
  } else {
    // The bits of the integer 0 are those of 0.f.
    KILN_RUN(Work::pointwise, fill(stream, t == DType::i32 ? DType::f32 : t, x.count(), 0.f, x.data()));
  }
  return x;
}

Tensor filled(const Shape& shape, float value) {
  const Tensor x(shape);
  KILN_RUN(Work::pointwise, fill(stream, DType::f32, x.count(), value, x.data()));
  return x;
}

Tensor from_vector(const Shape& shape, const std::vector<float>& values) {
  KILN_ASSERT(int64_t(values.size()) == shape.count());
  Tensor x(shape);
  x.upload(values.data());
  return x;
}

}  // namespace kiln
