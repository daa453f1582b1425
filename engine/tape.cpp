#include "engine/tape.h"

#include "engine/error.h"
#include "kernels/loss.h"
#include "kernels/pointwise.h"

namespace kiln {

Tensor Node::target(const Shape& shape, DType t) {
  if (slot_ && !slot_used_) {
    KILN_ASSERT(slot_.shape() == shape && slot_.dtype() == t);
    return slot_;
  }
  return Tensor(shape, t);
}

void Node::add(Tensor gradient) {
  if (!gradient_) {
    if (slot_ && gradient.data() == slot_.data()) slot_used_ = true;
    gradient_ = std::move(gradient);
    return;
  }
  KILN_ASSERT(gradient.shape() == gradient_.shape() && gradient.dtype() == gradient_.dtype());
  // Into new memory unless the old gradient is this node's alone: an op may have handed one tensor to two inputs.
  Tensor sum = slot_used_ || gradient_.unique() ? gradient_ : Tensor(gradient_.shape(), gradient_.dtype());
  KILN_RUN(Work::pointwise, linear_combination(stream, sum.dtype(), sum.count(), 1.f, gradient_.data(), 1.f, gradient.data(),
                                               sum.data()));
  gradient_ = std::move(sum);
}

Tensor Node::take() {
  Tensor t = std::move(gradient_);
  gradient_ = Tensor();
  return t;
}

void Tape::run() {
  NoGrad none;
  for (auto& f : first_) f();
  first_.clear();
  while (!records_.empty()) {
    {
      const std::function<void()> record = std::move(records_.back());
      records_.pop_back();
      record();
    }
    for (auto& f : hooks_) f();
  }
  hooks_.clear();
}

void Tape::backward(const std::vector<std::pair<Var, float>>& roots, const float* scale) {
  for (const auto& [root, weight] : roots) {
    if (!root.node) continue;  // nothing that wants a gradient took part in it
    KILN_ASSERT(root.value.count() == 1);
    Tensor seed(root.value.shape(), root.value.dtype());
    if (scale)
      KILN_RUN(Work::pointwise, broadcast(stream, seed.dtype(), 1, weight, scale, seed.data()));
    else
      KILN_RUN(Work::pointwise, fill(stream, seed.dtype(), 1, weight, seed.data()));
    root.node->add(seed);
  }
  run();
}

void Tape::backward_from(const std::vector<std::pair<Var, Tensor>>& roots) {
  for (const auto& [root, gradient] : roots) {
    if (!root.node) continue;
    KILN_ASSERT(gradient.shape() == root.value.shape());
    root.node->add(gradient);
  }
  run();
}

bool recording(std::initializer_list<const Var*> inputs) {
  if (!context().tape) return false;
  for (const Var* v : inputs)
    if (v->node) return true;
  return false;
}

}  // namespace kiln
