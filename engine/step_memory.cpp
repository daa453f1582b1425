#include "engine/step_memory.h"

#include <cstddef>

#include "engine/context.h"
#include "engine/error.h"

namespace kiln {

StepMemory::StepMemory() : scaled_(context().storage == DType::f16), state_(zeros(Shape{sizeof(StepState) / 4}, DType::i32)) {
  StepState s{};
  s.loss_scale = scaled_ ? options.first : 1.f;
  write(s);
}

Tensor StepMemory::network(int k) const {
  KILN_ASSERT(k >= 0 && k < int(std::size(StepState{}.network)));
  constexpr int64_t ints = sizeof(OptimiserState) / 4;
  return state_.slice(int64_t(offsetof(StepState, network)) / 4 + k * ints, Shape{ints});
}

void StepMemory::end_step(int networks) {
  KILN_RUN(Work::optimiser, end_step(stream, networks, scaled_, options, state_.as<StepState>()));
}

StepState StepMemory::read() const {
  StepState s{};
  state_.download(&s);
  return s;
}

void StepMemory::write(const StepState& s) { state_.upload(&s); }

}  // namespace kiln
