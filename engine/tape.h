// The tape: define-by-run reverse-mode differentiation. An op computes its value, keeps what its backward needs, and pushes
// one record. A training step may use several tapes, each with its own backward; an op records on the context's tape.
#pragma once
#include <functional>
#include <initializer_list>
#include <memory>
#include <vector>

#include "engine/context.h"
#include "engine/tensor.h"

namespace kiln {

/// Where a value's gradient is gathered. Shared by the Var, by the record that made it and by the records that use it.
class Node {
 public:
  /// Memory that the first gradient is to be written to (a network's flat gradient buffer), if any.
  void set_slot(Tensor slot) { slot_ = std::move(slot); }
  /// A tensor for an op to write its contribution to: the slot if it is free, else new memory. Pass it to add().
  Tensor target(const Shape& shape, DType t);
  /// Adds a contribution. The first one is taken as it is.
  void add(Tensor gradient);
  bool has_gradient() const { return bool(gradient_); }
  /// Hands the gradient over and forgets it.
  Tensor take();
  const Tensor& gradient() const { return gradient_; }

 private:
  Tensor gradient_, slot_;
  bool slot_used_ = false;
};

/// A value in a computation: a tensor, and a node if a gradient is wanted for it.
struct Var {
  Tensor value;
  std::shared_ptr<Node> node;

  Var() = default;
  explicit Var(Tensor v, bool wants_gradient = false)
      : value(std::move(v)), node(wants_gradient ? std::make_shared<Node>() : nullptr) {}
  explicit operator bool() const { return bool(value); }
  const Shape& shape() const { return value.shape(); }
  Var detach() const { return Var(value); }
};

class Tape {
 public:
  /// A record is a function that takes the gradient of the op's output from its node and adds to the nodes of its inputs.
  void push(std::function<void()> record) { records_.push_back(std::move(record)); }
  /// Runs before the records, once: for buffers that only backward needs.
  void before_backward(std::function<void()> f) { first_.push_back(std::move(f)); }
  /// Seeds each root with its weight and runs all records, last to first, freeing what each kept as soon as it has run.
  /// Roots are single numbers (losses). scale: one more factor of all seeds, in device memory (a loss scale), or null.
  void backward(const std::vector<std::pair<Var, float>>& roots, const float* scale = nullptr);
  /// The same from given gradients, of the roots' shapes.
  void backward_from(const std::vector<std::pair<Var, Tensor>>& roots);
  /// Runs after each record of backward, when what that record kept is free again.
  void after_each_record(std::function<void()> f) { hooks_.push_back(std::move(f)); }
  size_t size() const { return records_.size(); }

 private:
  void run();
  std::vector<std::function<void()>> records_, first_, hooks_;
};

/// True if an op on these inputs must record: there is a tape and one of them wants a gradient.
bool recording(std::initializer_list<const Var*> inputs);

/// Makes a tape current for a scope.
class Recording {
 public:
  explicit Recording(Tape& t) : scope_(&Context::tape, &t) {}

 private:
  Scoped<Tape*> scope_;
};
/// No op records in this scope.
class NoGrad {
 public:
  NoGrad() : scope_(&Context::tape, static_cast<Tape*>(nullptr)) {}

 private:
  Scoped<Tape*> scope_;
};
/// Parameters enter as constants in this scope: gradients flow through the network to its input, and none is computed for its
/// weights.
class FrozenWeights {
 public:
  FrozenWeights() : scope_(&Context::weights_frozen, true) {}

 private:
  Scoped<bool> scope_;
};
/// Evaluation mode for a scope: running statistics, stored singular vectors.
class Evaluation {
 public:
  Evaluation() : scope_(&Context::training, false) {}

 private:
  Scoped<bool> scope_;
};

}  // namespace kiln
