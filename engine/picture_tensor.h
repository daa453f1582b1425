// Pictures in and out of tensors.
#pragma once
#include <span>
#include <vector>

#include "engine/picture.h"
#include "engine/tensor.h"

namespace kiln {

/// Pictures [n, h, w, 3], nominally on [-1, 1], as bytes: rounded and clamped; what is not a number becomes black.
std::vector<Picture> to_pictures(const Tensor& x);

/// Pictures of one size as [n, h, w, 3] on [-1, 1]. Not empty.
Tensor to_tensor(std::span<const Picture> pictures);

}  // namespace kiln
