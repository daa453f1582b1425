// How an op is tested: its forward against a reference in double precision, its backward against central differences of
// that reference, and the modes of the tape that every op must obey.
#pragma once
#include <fmt/format.h>

#include <functional>
#include <string>
#include <vector>

#include "engine/ops.h"
#include "tests/op_reference.h"
#include "tests/support.h"

namespace kiln::test {

/// Leaves the memory that the next tensors get filled with NaN: what an op does not write, and what it reads before it
/// was written, shows.
void poison_arena();

/// A function of arrays, differentiated by central differences.
using Reference = std::function<Array(const std::vector<Array>&)>;

/// The largest disagreement of a gradient of <weights, f(inputs)> by inputs[which] with central differences, relative
/// to the gradient's largest magnitude. All elements of small inputs and a sample of large ones are checked one at a
/// time, and two random directions check all elements at once. least_scale: a magnitude to compare with where the
/// gradient may be zero.
double gradient_error(const Reference& f, std::vector<Array> inputs, size_t which, const Array& weights,
                      const Array& gradient, double least_scale = 1e-30);

struct OpCase {
  std::string name;
  std::vector<Array> inputs;       // enter as Vars
  std::vector<Param*> parameters;  // of a module that is bound and filled; their gradients are checked too
  std::function<Var(const std::vector<Var>&)> op;
  Reference reference;  // of the inputs, then of the parameters
};

/// Forward within 1e-5 and gradients within 1e-4 of the largest magnitude. Moreover: inputs stay as they are, gradients
/// of parameters are added to what was there, each input alone gets the same gradient, NoGrad records nothing, and
/// FrozenWeights changes no gradient but those of the parameters, which it leaves alone.
void check_op(const OpCase& c);

/// The gradients of all inputs from a backward with the given cotangent; empty arrays where an input got none.
std::vector<Array> gradients_of(const std::function<Var(const std::vector<Var>&)>& op, const std::vector<Array>& inputs,
                                const Array& cotangent);

}  // namespace kiln::test
