// Parameters, buffers, and how a network's parts are named and visited.
//
// A model is a plain struct of parts. Its `visit(f)` calls f(name, part) for each; a part is a Param, a Buffer or another
// struct with visit. Names join with dots: "feat_8.conv1.weight". Everything else - checkpoints, optimisers, averages,
// spectral norm - walks this one description.
#pragma once
#include <concepts>
#include <string>
#include <utility>

#include "engine/tensor.h"

namespace kiln {

/// How a parameter or buffer starts: N(mean, std), a unit vector of normalised N(0, 1), a matrix [first axis, all others] with
/// orthonormal rows or columns, whichever are fewer (Saxe et al. 2014), or uniform on [-uniform, uniform).
struct Init {
  float mean = 0, std = 0;
  bool unit_vector = false, orthogonal = false;
  float uniform = 0;
};

/// A trainable tensor, f32. `value` and `grad` are views into its network's flat buffers (ParameterSet).
struct Param {
  Shape shape;
  Init init;
  Tensor value, grad;
  int64_t offset = 0;  // in the flat buffers
  bool early = false;  // lies before those that are not: large ones, so that ranges of gradients are added up as one (GradientSum)
};

/// State that is not trained: running statistics, which the moving average follows, or singular vectors, which it does not.
struct Buffer {
  Shape shape;
  Init init;
  bool averaged = true;
  Tensor value;
  int64_t offset = 0;  // in the flat buffer of its kind
};

/// "a" and "b" -> "a.b"; a part with an empty name lends its own parts its place.
inline std::string join_names(const std::string& prefix, const std::string& name) {
  return prefix.empty() ? name : name.empty() ? prefix : prefix + "." + name;
}

/// Calls leaf(full name, Param& or Buffer&) for every leaf below `part`, in order.
template <class Part, class Leaf>
void walk(Part& part, const std::string& prefix, Leaf&& leaf) {
  if constexpr (std::same_as<Part, Param> || std::same_as<Part, Buffer>) {
    leaf(prefix, part);
  } else {
    part.visit([&](const std::string& name, auto& child) { walk(child, join_names(prefix, name), leaf); });
  }
}

/// Calls f(full name, T&) for every part of type T below `part`, in order; parts inside a T are not searched.
template <class T, class Part, class F>
void walk_parts(Part& part, const std::string& prefix, F&& f) {
  if constexpr (std::same_as<Part, T>) {
    f(prefix, part);
  } else if constexpr (!std::same_as<Part, Param> && !std::same_as<Part, Buffer>) {
    part.visit([&](const std::string& name, auto& child) {
      walk_parts<T>(child, join_names(prefix, name), f);
    });
  }
}

}  // namespace kiln
