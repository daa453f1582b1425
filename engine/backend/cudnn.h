// Convolutions on a GPU, by cuDNN: what engine/convolution.cpp calls there, and what can be asked of cuDNN with no GPU at all.
// In a build without cuDNN compiled_in() is false and nothing else may be called.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "engine/convolution.h"

namespace kiln::cudnn {

bool compiled_in();
std::string version();  // of the library that runs: "9.19.0"

// engine/convolution.h's functions, for tensors on the GPU.
void conv_forward(const ConvShape& s, const Tensor& x, const Tensor& w, const Tensor& y);
void conv_backward_data(const ConvShape& s, const Tensor& dy, const Tensor& w, const Tensor& dx);
void conv_backward_weights(const ConvShape& s, const Tensor& x, const Tensor& dy, const Tensor& dw);

/// What a convolution asks of its plan, besides its shape and direction.
struct Request {
  DType type = DType::f32;
  bool tf32 = false;           // f32 products may be rounded to TF32 on tensor cores
  bool deterministic = false;  // equal inputs give equal bits
  int alignment = 16;          // bytes that all operands are aligned to
  bool operator==(const Request&) const = default;
};

/// A plan that a convolution can have.
struct Answer {
  int64_t engine = -1;  // cuDNN's number for it
  bool tensor_core = false, deterministic = true;
  bool fallback = false;  // from the heuristics' second list: the first had none
  int64_t workspace = 0;  // bytes
};

constexpr size_t kTimedPlans = 4;  // that --autotune compares

/// A GPU that need not be there: cuDNN plans for it from its properties, as the JSON text that properties() gives for a
/// real one. Throws kiln::Error if cuDNN cannot read it.
class DeviceModel {
 public:
  explicit DeviceModel(const std::string& json);
  ~DeviceModel();
  /// Up to `wanted` plans, the one that the convolution would get first. Where there is none, `why` gets what cuDNN said.
  std::vector<Answer> plans(ConvDirection direction, const ConvShape& shape, const Request& request, size_t wanted = 1,
                            std::string* why = nullptr) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The properties of the GPU that is there, as DeviceModel takes them.
std::string properties();

}  // namespace kiln::cudnn
