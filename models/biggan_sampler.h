// Pictures from a trained BigGAN: classes, latents with three kinds of truncation, interpolation.
//
//   kiln::biggan::Sampler sampler("runs/clothing-biggan-32/checkpoints/001000.safetensors");
//   kiln::write_png("hat.png", sampler.render({{sampler.latent(7), sampler.class_number("hat")}})[0]);
//
// A sampler needs its checkpoint and nothing else. One object is used by one thread at a time. All errors are kiln::Error.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/picture.h"
#include "models/biggan_training.h"
#include "models/nsbgan_band.h"

namespace kiln::biggan {

/// How latents are kept near the middle of their distribution: fewer kinds of pictures, more typical ones. All are called "truncation", and
/// are not the same numbers:
///   resample  N(0, 1), numbers beyond the threshold drawn again: the paper's trick (section 3.1)
///   scaled    threshold * (N(0, 1) drawn again beyond 2): the published weights' demonstration
///   spread    threshold * N(0, 1): the public code's --sample_trunc_curves
enum class TruncationKind : uint8_t { none, resample, scaled, spread };
struct Truncation {
  TruncationKind kind = TruncationKind::none;
  double threshold = 1;
};
/// "none", "resample", "scaled", "spread"; throws Error for any other word, or a threshold that the kind does not take (resample: 0.05 and
/// more; the others: above 0).
Truncation truncation_from_name(const std::string& kind, double threshold);

/// A picture to be: a latent, and a class, or a point between two.
struct Draw {
  std::vector<float> z;
  int label = 0, other = 0;
  float t = 0;  // 0: label, 1: other
};

struct SamplerOptions {
  int batch = 32;     // pictures computed at once
  int standing = 16;  // batches behind the standing statistics; 0: the checkpoint's running statistics
  double memory_gb = 0;
  bool of_band = false;  // the checkpoint is of NSB-GAN's sampler, whose samples are bands (models/nsbgan_sampler.h)
};

class Sampler {
 public:
  /// Loads the averaged generator. Throws kiln::Error: no such file, damaged, not a BigGAN checkpoint, no memory.
  explicit Sampler(const std::filesystem::path& checkpoint, const SamplerOptions& options = {});
  ~Sampler();

  int size() const;
  int latent_size() const;
  int64_t step() const { return step_; }
  const std::vector<std::string>& classes() const { return classes_; }  // none: unconditional
  /// A class by name or number. Throws kiln::Error that lists what there is.
  int class_number(const std::string& name) const;

  /// The latent of a seed; the same everywhere to 1e-6.
  std::vector<float> latent(uint64_t seed, const Truncation& truncation = {}) const;
  /// Pictures, in order. Batch norm uses standing statistics of latents of this truncation and of all classes, made when a truncation is first
  /// used and kept; draws of one call with different t are computed in groups. Throws kiln::Error if a z has another length.
  std::vector<Picture> render(const std::vector<Draw>& draws, const Truncation& truncation = {});
  /// The same as the generator puts them out, in groups of at most `batch`, in order: [n, R, R, 3] on (-1, 1) of this sampler's context, which
  /// is the current one while `each` runs.
  void generate(const std::vector<Draw>& draws, const Truncation& truncation, const std::function<void(const Tensor&)>& each);
  const std::optional<nsbgan::Band>& band() const { return band_; }
  Context& context() { return *context_; }

 private:
  /// Makes the statistics of a truncation the generator's.
  void use_statistics(const Truncation& truncation);

  SamplerOptions options_;
  std::unique_ptr<Context> context_;
  std::unique_ptr<Model> model_;
  std::vector<std::string> classes_;
  std::optional<nsbgan::Band> band_;
  int64_t step_ = 0;
  Tensor running_;                                              // the checkpoint's
  std::map<std::pair<TruncationKind, double>, Tensor> standing_;  // by truncation
};

/// One row of a truncation curve.
struct CurvePoint {
  double threshold = 0;
  double distance = 0;  // sliced Wasserstein x 1e3 to the real pictures: quality and variety in one number
  double fidelity = 0;  // mean distance of a sample to the nearest real picture, over that of real ones to each other: 1 is as near
  double variety = 0;   // mean distance between samples of one class, over that between real pictures of one class
};
/// Mean distances of pictures scaled to 16 x 16, root mean squares of the differences. samples, reals: with their labels.
CurvePoint compare_sets(const std::vector<Picture>& samples, const std::vector<int>& sample_labels, const std::vector<Picture>& reals,
                        const std::vector<int>& real_labels);
/// The curve as an SVG picture: fidelity against variety, a dot a threshold.
std::string curve_svg(const std::vector<CurvePoint>& points, const std::string& title);

}  // namespace kiln::biggan
