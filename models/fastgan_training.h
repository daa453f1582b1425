// FastGAN's training iteration, and sampling from the averaged generator.
#pragma once
#include <algorithm>
#include <memory>

#include "engine/step_memory.h"
#include "models/fastgan.h"
#include "models/lpips.h"

namespace kiln::fastgan {

struct TrainOptions {
  AdamOptions adam{2e-4f, 0.5f, 0.999f, 1e-8f};
  EmaOptions ema{0.999f, true};
  AugmentPolicy augment{true, true, false};
  float margin_low = 0.8f;  // hinge margins are drawn from [margin_low, 1); 1 gives the paper's constant margin
  int recon_power = 2;      // 2: mean squared error, 1: mean absolute error
  std::shared_ptr<const Lpips> perceptual;  // if there is one, its distance in place of recon_power's; of context().storage
  float recon_weight = 1;   // times (mean over a picture, summed over the batch and the three reconstructions)
};

/// What an iteration reports. Single numbers in device memory: reading one waits for the device.
struct Losses {
  Tensor d_real, d_fake, g;                 // hinge losses of D, -mean logit of G
  Tensor recon_all, recon_small, recon_part;  // before the weight
  Tensor logit_real, logit_fake;            // mean logits
};

/// Pictures to look at: the augmented real ones and what the decoders made of them.
struct ReconstructionSheet {
  Tensor real, all, small, part, part_target;  // [n, S, S, 3]
};

/// Both networks with everything that training needs. Not copyable: the parts point at each other.
class Model {
 public:
  /// Needs a current context; uninitialised until initialise() or a checkpoint is loaded.
  explicit Model(const Config& c);
  Model(const Model&) = delete;

  /// Draws all weights from the random source (sites "init.G....", "init.D...."); the average starts as a copy.
  void initialise(RandomSource& random);

  /// One iteration on a batch of real pictures [n, R, R, 3] that are already augmented; on several ranks (context().ranks) on each
  /// one's share of it, as many pictures on each: the whole batch's part p is the parts p of rank 0, 1, ... In the order of the published loop:
  /// fakes; D on reals with reconstructions; D on the detached fakes; Adam for D; G through the updated D; Adam for G and its
  /// average. Random numbers come from context().random: sites "z", "noise.*", "augment.fake.big", "augment.fake.small",
  /// "part", "margin.real.big", "margin.real.small", "margin.fake.big", "margin.fake.small".
  Losses iteration(const Tensor& real, const TrainOptions& o) { return iteration(std::vector<Tensor>{real}, o); }
  /// The same with the batch in parts, whose gradients are added up: less memory for the activations of one part, one more
  /// forward of G a part. Batch norm sees a part at a time: of all ranks where context().sync_norm, else of this one; then the
  /// ranks' running statistics are averaged. Both end by counting memory's step up. Losses are those of the whole batch.
  Losses iteration(const std::vector<Tensor>& parts, const TrainOptions& o);

  /// All that training changes, for ranks to begin alike: parameters, statistics, singular vectors, optimisers.
  std::vector<Tensor> state() const;

  /// Reconstructions of a batch by the live D in evaluation mode.
  ReconstructionSheet reconstruct(const Tensor& real);

  /// Pictures of the averaged generator, in evaluation mode, from z [n, nz]: the big ones [n, R, R, 3], not clamped. Noise is
  /// context().random's.
  Tensor sample(const Tensor& z);

  /// The largest singular value of any layer of G, and of D with its decoders, at their last forward.
  float largest_sigma_g() const { return g_spectral_.largest_sigma(); }
  float largest_sigma_d() const { return std::max(d_spectral_.largest_sigma(), decoder_spectral_.largest_sigma()); }

  const Config config;
  Generator g, g_average;
  Discriminator d;
  ParameterSet g_params, average_params, d_params;
  StepMemory memory;  // the step, the loss scale and both optimisers' states

 private:
  Pictures augmented_fakes(int64_t n, bool last, const TrainOptions& o);
  void perceptual_loss(const Reconstructions& r, const Tensor& small, const Tensor& part, const TrainOptions& o, Losses& out);
  void train_on_real(const Tensor& real, const Tensor& corner, float share, bool last, const TrainOptions& o, Losses& out);
  void train_on_fakes(const Pictures& fakes, float share, bool last, const TrainOptions& o, Losses& out);
  void train_generator(Tape& tape, Pictures fakes, float share, Losses& out);

  SpectralGroup g_spectral_, average_spectral_, d_spectral_, decoder_spectral_;
};

}  // namespace kiln::fastgan
