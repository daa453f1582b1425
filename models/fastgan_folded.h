// The averaged generator of a checkpoint, and the form of it that is fast to sample from.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "engine/inference.h"
#include "engine/parameters.h"
#include "engine/picture.h"
#include "engine/safetensors.h"
#include "models/fastgan.h"

namespace kiln::fastgan {

/// What a checkpoint says about itself.
struct CheckpointInfo {
  Config network;
  int64_t step = 0;     // training steps done
  Fit fit = Fit::crop;  // how its training pictures became square
  Rgb background;       // under transparent ones
  std::string name;     // of the file, without its folder
  std::string fingerprint;  // of the averaged weights: 16 hexadecimal digits, equal for equal generators
};
/// Throws kiln::Error naming the file if it is not a FastGAN checkpoint of kiln.
CheckpointInfo checkpoint_info(const SafetensorsFile& file);

/// The averaged generator as the tape knows it, its weights normalised once by the stored singular vectors: for evaluation
/// mode (Evaluation), with frozen weights where a gradient is to flow to z (FrozenWeights). Needs a current context.
class AveragedGenerator {
 public:
  /// Throws kiln::Error naming the file and the tensor that is missing or has another shape.
  explicit AveragedGenerator(const SafetensorsFile& file);
  AveragedGenerator(const AveragedGenerator&) = delete;

  const CheckpointInfo info;
  Generator g;
  ParameterSet parameters;

 private:
  SpectralGroup spectral_;
};

/// A generator in evaluation mode with everything folded that can be: W / sigma computed once, batch norm's scale multiplied
/// into the convolution before it and its shift left as a bias, upsampling folded into the convolution after it. Noise is
/// injected between a convolution and its batch norm, whose scale it gets too: weight * noise becomes one strength per
/// channel. Equal to the generator to rounding. One picture only: the small second head is left out.
class FoldedGenerator {
 public:
  /// Reads the generator's normalised weights, which may be dropped afterwards.
  explicit FoldedGenerator(const Generator& g);

  /// z [n, nz] -> pictures [n, R, R, 3], nominally on [-1, 1], not clamped. Noise is context().random's, at the sites of
  /// Generator.
  Tensor operator()(const Tensor& z) const { return run(z, nullptr); }
  /// The gates that the skip-layer excitations make of these z: [n, 1, 1, c] each, in the order of their resolutions.
  std::vector<Tensor> excitations(const Tensor& z) const;
  /// The pictures of z under the gates of other ones: style mixing (Liu et al. 2021, section 4 and appendix C).
  Tensor operator()(const Tensor& z, const std::vector<Tensor>& gates) const { return run(z, &gates); }
  size_t gates() const { return gates_.size(); }

 private:
  using Stage = std::vector<FixedGlu>;  // one or two
  struct Gate {
    int from, to;
    FixedConvolution conv1, conv2;
    bool leaky;
    Tensor operator()(const Tensor& x) const;
  };
  static FixedGlu fold(const SpectralConv& conv, const BatchNorm& norm, const NoiseInjection* noise, bool upsample);
  Tensor run(const Tensor& z, const std::vector<Tensor>* gates) const;
  Tensor start(const Tensor& z) const;
  /// Times the gate, if there is one.
  Tensor stage(size_t i, Tensor x, const Tensor& gate, int* site) const;

  int size_;
  bool tanh_;
  Tensor init_weight_, init_bias_;
  std::vector<Stage> stages_;
  std::vector<Gate> gates_;
  FixedConvolution to_big_;
};

}  // namespace kiln::fastgan
