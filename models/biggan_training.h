// BigGAN's training iteration, and sampling from the averaged generator.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/orthogonal.h"
#include "engine/step_memory.h"
#include "models/biggan.h"

namespace kiln::biggan {

struct TrainOptions {
  AdamOptions adam_g{1e-4f, 0.f, 0.999f, 1e-6f}, adam_d{4e-4f, 0.f, 0.999f, 1e-6f};
  EmaOptions ema{0.9999f, false};  // its start: before that step of G (counted from 1) the average is the network itself
  AugmentPolicy augment{false, false, false};
  int d_steps = 1;     // of D for each step of G
  int parts = 1;       // that a batch is computed in; batch norm and spectral norm advance with each
  float ortho_g = 0, ortho_d = 0;
  OrthogonalForm ortho_form = OrthogonalForm::off_diagonal;
};

/// Real pictures [n, R, R, 3], already augmented, with their labels i32 [n].
struct RealPart {
  Tensor pictures, labels;
};
/// Makes part `part` of D's batch number `d_step` of this iteration.
using RealSource = std::function<RealPart(int d_step, int part)>;

/// What an iteration reports: means over its D steps. Single numbers in device memory.
struct Losses {
  Tensor d_real, d_fake, g, logit_real, logit_fake;
};

/// The largest singular value of a layer, as the power iteration has it.
struct SingularValue {
  std::string layer;
  float value;
};

/// Both networks with everything that training needs. Not copyable: the parts point at each other.
class Model {
 public:
  explicit Model(const Config& c);
  Model(const Model&) = delete;

  /// Draws all weights from the random source (sites "init.G....", "init.D...."); the average starts as a copy.
  void initialise(RandomSource& random);

  /// d_steps times D on a real batch and as many fakes, concatenated in one forward; then G. Ends by counting memory's step up. The
  /// number of pictures in a part is the real parts'. Random numbers come from context().random: sites "z.dK", "y.dK", "augment.dK" of
  /// D's step K, "z.g", "y.g", "augment.g".
  Losses iteration(const RealSource& real, const TrainOptions& o);

  /// All that training changes, for ranks to begin alike: parameters, statistics, singular vectors, optimisers.
  std::vector<Tensor> state() const;

  /// Pictures [n, R, R, 3] on (-1, 1) of the averaged generator, in evaluation mode, from z [n, latent()].
  Tensor sample(const Tensor& z, const Labels& labels);

  /// Singular values of every layer that iterate() went through last; waits for the device.
  std::vector<SingularValue> singular_values_g() const { return values_of(g_spectral_); }
  std::vector<SingularValue> singular_values_d() const { return values_of(d_spectral_); }
  /// The largest of them.
  float largest_sigma_g() const { return g_spectral_.largest_sigma(); }
  float largest_sigma_d() const { return d_spectral_.largest_sigma(); }

  const Config config;
  Generator g, g_average;
  Discriminator d;
  ParameterSet g_params, average_params, d_params;
  StepMemory memory;  // the step, the loss scale and both optimisers' states

 private:
  friend class StandingStatistics;
  static std::vector<SingularValue> values_of(const SpectralGroup& group);
  struct Fakes {
    Tensor z;
    Labels labels;
  };
  Fakes draw(const std::string& site, int64_t n);
  void train_discriminator(const RealPart& real, int d_step, float share, bool last, const TrainOptions& o, Losses& out);
  void train_generator(int64_t n, float share, bool last, const TrainOptions& o, Losses& out);

  SpectralGroup g_spectral_, average_spectral_, d_spectral_;
};

/// Standing statistics (paper, section 4.2 and appendix D): while this object lives, the averaged generator's batch norms use the plain
/// mean of the statistics of `batches` training-mode forwards on latents from `draw`; its own running statistics come back afterwards.
/// Truncated sampling needs statistics of equally truncated latents.
class StandingStatistics {
 public:
  struct Batch {
    Tensor z;
    Labels labels;
  };
  StandingStatistics(Model& model, int batches, const std::function<Batch(int)>& draw);
  ~StandingStatistics();
  StandingStatistics(const StandingStatistics&) = delete;

 private:
  Model& model_;
  Tensor statistics_, vectors_;
};

}  // namespace kiln::biggan
