// What every op must compute: plain loops in double precision, written from the definitions in engine/ops.h and
// kernels/augment.h, not from the kernels.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "engine/tensor.h"
#include "kernels/activation.h"
#include "kernels/augment.h"

namespace kiln::test {

/// A tensor of doubles in ordinary memory, channels last.
struct Array {
  Shape shape;
  std::vector<double> v;

  Array() = default;
  explicit Array(const Shape& s) : shape(s), v(static_cast<size_t>(s.count())) {}
  Array(const Shape& s, const std::vector<float>& values) : shape(s), v(values.begin(), values.end()) {}
  int64_t count() const { return shape.count(); }
  double& at(int64_t n, int64_t i, int64_t j, int64_t c) { return v[index(n, i, j, c)]; }
  double at(int64_t n, int64_t i, int64_t j, int64_t c) const { return v[index(n, i, j, c)]; }

 private:
  size_t index(int64_t n, int64_t i, int64_t j, int64_t c) const {
    return size_t(((n * shape[1] + i) * shape[2] + j) * shape[3] + c);
  }
};

/// Hashed numbers on [-scale, scale) that a float holds exactly.
Array random_array(const std::string& name, const Shape& shape, double scale = 1);
Tensor to_tensor(const Array& a);
Array to_array(const Tensor& t);
/// max |a - b| / max |b|; infinite where the sizes differ, not a number where one of the values is not.
double relative_error(const Array& a, const Array& b);

namespace reference {

Array conv2d(const Array& x, const Array& weight, int stride, int pad);
Array conv_transpose2d(const Array& x, const Array& weight, int stride, int pad);
Array project(const Array& z, const Array& weight);

/// Mean and biased variance per channel.
struct Statistics {
  std::vector<double> mean, variance;
};
Statistics statistics(const Array& x);
Array batch_norm(const Array& x, const Array& gamma, const Array& beta, const Statistics& s);
Array inject_noise(const Array& x, double weight, const std::vector<double>& noise);

Array activation(const Array& x, Activation act);
Array glu(const Array& x);
Array combine(double a, const Array& x, double b, const Array& y);
Array gate(const Array& x, const Array& g);
Array concat_flat(const Array& a, const Array& b);

Array nearest_resize(const Array& x, int64_t h, int64_t w);
Array area_resize(const Array& x, int64_t h, int64_t w);
Array corner_crop(const Array& x, int64_t h, int64_t w, int corner);

/// Losses are arrays of one number.
Array mean(const Array& x);
Array hinge_loss(const Array& logits, double sign, double margin_low, const std::vector<double>* uniforms);
Array difference_loss(const Array& x, const Array& target, int power);

/// uniforms [n, 7].
Array augment(const Array& x, const AugmentPolicy& policy, const std::vector<double>& uniforms);
/// Byte pictures [?, h, w, 3] on [-1, 1], mirrored where the flip says so.
Array gather(const std::vector<uint8_t>& set, int64_t h, int64_t w, const std::vector<int32_t>& index,
             const std::vector<bool>& flip);

}  // namespace reference
}  // namespace kiln::test
