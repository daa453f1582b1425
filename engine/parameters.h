// ParameterSet: the flat buffers behind a network's parameters. One buffer each for values, gradients and Adam's moments,
// so that the optimiser and the moving average are one launch, zeroing is one fill and a checkpoint is a few runs of bytes.
#pragma once
#include <string>
#include <vector>

#include "engine/gradient_sum.h"
#include "engine/module.h"
#include "engine/random.h"
#include "engine/tape.h"
#include "kernels/adam.h"

namespace kiln {

class ParameterSet {
 public:
  struct Entry {
    std::string name;
    Shape shape;
    int64_t offset;
    enum Kind { parameter, statistic, vector } kind;
    Init init;
    bool early = false;
    int64_t count() const { return shape.count(); }
  };

  ParameterSet() = default;
  /// Lays out all parameters and buffers of a module and binds them. Without `trainable` there are values only (an average).
  template <class Module>
  ParameterSet(Module& module, bool trainable) {
    walk(module, "", [&](const std::string& name, auto& leaf) { add(name, leaf); });
    place();
    allocate(trainable);
    size_t i = 0;
    walk(module, "", [&](const std::string&, auto& leaf) { bind(entries_[i++], leaf); });
  }

  /// Draws every parameter and buffer from its Init; site names are prefix + name.
  void initialise(RandomSource& random, const std::string& prefix);
  void zero_grad();
  /// Adds the gradients up over the ranks, if there are several; then one Adam step, and the moving average of parameters and statistics into `average` if it is given. loss_scale: what the
  /// gradients were multiplied with, one number in device memory (StepMemory), or null; with it, gradients that are not all
  /// finite change nothing.
  void adam_step(const AdamOptions& o, const EmaOptions& e, ParameterSet* average, const float* loss_scale = nullptr);
  /// The moving average of the singular vectors too, with the decay of the last adam_step. (BigGAN's average follows its whole
  /// state; who reads such vectors must normalise them again.)
  void average_vectors(ParameterSet& average);
  /// Keeps the optimiser's state in this memory (an OptimiserState, i32 [8]) from now on, as it is there.
  void keep_state_in(const Tensor& state) { state_ = state; }
  /// Replaces the statistics of batch norm by their means over the ranks.
  void average_statistics();
  /// Copies values, statistics and vectors of a set with the same layout.
  void copy_from(const ParameterSet& other);
  /// Copies the singular vectors only.
  void copy_vectors_from(const ParameterSet& other);

  /// L2 norms of all gradients, and of all parameters. Wait for the device. Of a trainable set.
  double gradient_norm() const;
  double value_norm() const;

  int64_t parameter_count() const;  // trainable numbers, without padding
  const std::vector<Entry>& entries() const { return entries_; }
  Tensor tensor(const Entry& e) const;    // the value
  Tensor gradient(const Entry& e) const;  // parameters of a trainable set
  Tensor moment(const Entry& e, int which) const;  // Adam's first (0) or second (1) moment
  GradientSum& sum() { return sum_; }  // over the ranks; adam_step finishes it
  int64_t steps() const;                  // Adam updates done
  void set_steps(int64_t steps);

  Tensor values, grads, m, v, statistics, vectors;

 private:
  void add(const std::string& name, const Param& p);
  void add(const std::string& name, const Buffer& b);
  void place();
  void allocate(bool trainable);
  void bind(const Entry& e, Param& p) const;
  void bind(const Entry& e, Buffer& b) const;

  std::vector<Entry> entries_;
  int64_t sizes_[3] = {0, 0, 0};  // of the flat buffers, by kind
  Tensor state_;                  // an OptimiserState
  GradientSum sum_;
};

}  // namespace kiln
