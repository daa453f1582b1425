// The decoders' training iteration: U-Nets on real bands, level by level; the SRResNet on its pictures, alone or against a
// discriminator.
#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "engine/parameters.h"
#include "engine/step_memory.h"
#include "models/nsbgan_decoder_network.h"
#include "models/perceptual_loss.h"

namespace kiln::nsbgan::decoding {

struct TrainOptions {
  AdamOptions adam_g{1e-4f, 0.9f, 0.99f, 1e-8f}, adam_d{1e-4f, 0.9f, 0.99f, 1e-8f};
  bool gan = false;  // the SRResNet against a discriminator
  float pixel_weight = 1, perceptual_weight = 1, gan_weight = 5e-3f;
  int parts = 1;  // that a batch is computed in
};

/// What an iteration reports: single numbers in device memory, means over the whole batch. Of U-Nets `levels` only, the published losses
/// (sums over tiles, or over a picture); else the others.
struct Losses {
  std::vector<Tensor> levels;
  Tensor pixel, perceptual, adversarial, d;
  Tensor margin;  // mean logit of real pictures above that of decoded ones
};

class Model {
 public:
  /// d_width: of the discriminator, 0 for none. vgg may be null: no perceptual loss.
  Model(const DecoderConfig& c, int d_width, std::shared_ptr<const Vgg19Loss> vgg = nullptr);
  Model(const Model&) = delete;

  /// Draws all weights (sites "init.G....", "init.D....").
  void initialise(RandomSource& random);
  void initialise_discriminator(RandomSource& random);
  /// One step of the decoder, then one of the discriminator on the same pictures, if it is a part. real(part): pictures [n, R, R, 3] on
  /// [-1, 1]. Ends by counting memory's step up.
  Losses iteration(const std::function<Tensor(int part)>& real, const TrainOptions& o);
  /// All that training changes, for ranks to begin alike.
  std::vector<Tensor> state() const;
  bool adversarial() const { return d_width_ > 0; }

  /// Bands [n, h, w, 3] as they are -> pictures on [-1, 1], evaluation mode.
  Tensor decode(const Tensor& band);

  DecoderNetwork g;
  Discriminator d;
  ParameterSet g_params, d_params;
  StepMemory memory;

 private:
  void learn_levels(const Tensor& pictures, float share, Losses& out);
  Tensor learn_pictures(const Tensor& pictures, float share, const TrainOptions& o, Losses& out);
  void train_discriminator(const Tensor& real, const Tensor& fake, float share, Losses& out);

  int d_width_;
  std::shared_ptr<const Vgg19Loss> vgg_;  // may be null
};

}  // namespace kiln::nsbgan::decoding
