// Spectral normalisation of a group of convolutions: the layer, and the group that prepares all its weights at once.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "engine/gradient_sum.h"
#include "engine/module.h"
#include "engine/tape.h"
#include "kernels/spectral.h"

namespace kiln {

/// A convolution weight [C_out, kh, kw, C_in], or [C_out, kt, kh, kw, C_in] for clips, with its singular vectors; the matrix is
/// [C_out, all others]. `normalised` is W / sigma, set by the group at the
/// start of a forward. (Miyato et al. 2018; the semantics are kernels/spectral.h's.)
struct SpectralWeight {
  Param weight;
  Buffer u, v;
  Var normalised;

  SpectralWeight() = default;
  SpectralWeight(int64_t out, int64_t kh, int64_t kw, int64_t in, float init_std = 0.02f);
  explicit SpectralWeight(const Shape& shape, float init_std = 0.02f);
  template <class F>
  void visit(F&& f) {
    f("weight", weight);
    f("u", u);
    f("v", v);
  }
};

/// All spectral weights below a part of a network. The parts must be bound (ParameterSet) before and stay where they are.
class SpectralGroup {
 public:
  SpectralGroup() = default;
  template <class Part>
  explicit SpectralGroup(Part& part) {
    walk_parts<SpectralWeight>(part, "", [&](const std::string& name, SpectralWeight& w) {
      weights_.push_back(&w);
      names_.push_back(name);
    });
    build();
  }
  /// values, grads: the flat buffers of the ParameterSet; vectors: its flat buffer of u and v. Sets every weight's
  /// `normalised`, stored in the context's type; in training mode runs one power iteration. Records one entry, which turns the gradients of all the
  /// normalised weights into gradients of the weights. sum: given where the backward of this forward is the last to add to these
  /// weights' gradients in a step: on several ranks it starts their sums, a bucket of layers at a time, as soon as the bucket is
  /// computed. Nobody may hold a normalised weight's node then but records of the tape.
  void prepare(const Tensor& values, const Tensor& grads, const Tensor& vectors, GradientSum* sum = nullptr);
  /// In evaluation mode: iterate once from the stored vectors all the same and use the result, but do not store it (BigGAN's public
  /// code), in place of using the stored vectors as they are (everybody else's).
  void step_in_evaluation(bool on) { step_in_evaluation_ = on; }
  /// Drops the normalised weights (their memory).
  void release();
  size_t size() const { return weights_.size(); }
  /// The largest singular value, of all weights, at the last prepare; not a number if one is none. Waits for the device.
  float largest_sigma() const;
  /// sigma of every weight at the last prepare(), in order of names(): the largest singular values, as far as iterated. Empty for
  /// a group that was not built.
  const Tensor& sigmas() const { return sigma_; }
  const std::vector<std::string>& names() const { return names_; }
  /// What the kernels take, and the floats that all normalised weights take; for benchmarks.
  SpectralTables tables() const;
  int64_t packed_count() const { return packed_count_; }

 private:
  /// What one recorded forward needs in its backward.
  struct Step {
    Tensor values, grads, gradients, vectors, sigma;  // gradients: of the normalised weights
    std::vector<std::shared_ptr<Node>> nodes;
    GradientSum* sum = nullptr;
    size_t left = 0;  // layers that are not turned yet: [0, left)
  };
  void build();
  void turn(Step& step, size_t first, size_t end) const;
  void turn_finished(Step& step) const;

  std::vector<SpectralWeight*> weights_;
  std::vector<int64_t> packed_offsets_;
  std::vector<int> first_row_tile_;  // of each layer, and their number
  int64_t packed_count_ = 0, element_count_ = 0;
  int n_column_tiles_ = 0, n_row_tiles_ = 0;
  std::vector<std::string> names_;
  bool step_in_evaluation_ = false;
  Tensor layers_, column_tiles_, row_tiles_, scratch_, counters_, sigma_;
};

}  // namespace kiln
