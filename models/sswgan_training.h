// The training iteration of one stage of SSW-GAN, and the clips of a stage that is trained no more.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/checkpoint.h"
#include "models/sswgan_discriminators.h"

namespace kiln::sswgan {

/// How the matching discriminator is kept from winning by a hair: the halves of a real pair are equal to the last bit, those of a generated
/// pair are not.
struct MatchingOptions {
  float weight = 1;     // of its word in the generator's loss: lambda_M
  float noise = 0.05f;  // standard deviation of Gaussian noise on both halves of every pair
  float label = 1;      // the margin of real pairs: below 1 is a one-sided label
  float drop = 0;       // probability that a pair comes without its condition: zeros
  bool blur = false;    // both halves through a fixed 1 2 1 filter first
  float mismatch = 0;   // part of the loss of wrong pairs that is of real clips with another clip's condition; 0: none. Needs two clips
};

struct TrainOptions {
  AdamOptions adam_g{2e-4f, 0.f, 0.999f, 1e-6f}, adam_d{4e-4f, 0.f, 0.999f, 1e-6f};
  EmaOptions ema{0.999f, true};
  AugmentPolicy augment{false, false, false};  // of what D_S and D_T see, one draw for all frames of a clip
  int d_steps = 1;
  int parts = 1;
  float spatial = 1, temporal = 1;  // weights of D_S and D_T in the generator's loss
  MatchingOptions matching;
  float condition_noise = 0;  // probability that a later stage's generator is given its condition with noise of kConditionNoise
};
constexpr float kConditionNoise = 0.08f;

/// Real clips [n, window, S, S, 3] of the stage's own rate and size, with their labels i32 [n].
struct RealPart {
  Tensor clips, labels;
};
/// Clips of the stage before, [n, window / rho, s, s, 3], and the labels they were made with. Empty in stage 1.
struct ConditionPart {
  Tensor clips, labels;
};
/// Part `part` of D's batch number `d_step`; for conditions d_step = d_steps is the generator's batch.
struct Sources {
  std::function<RealPart(int d_step, int part)> real;
  std::function<ConditionPart(int d_step, int part)> condition;
};

/// Names of the discriminators in the log, in order.
inline constexpr const char* kCritics[] = {"spatial", "temporal", "matching"};

/// What an iteration reports, means over its D steps: single numbers in device memory.
struct Losses {
  struct Critic {
    Tensor d_real, d_fake, g, logit_real, logit_fake;
  };
  Critic critic[3];
  Tensor mismatch;   // D_M's mean score of real clips with another clip's condition
  Tensor grounding;  // mean squared difference of the generated clips' view from their conditions
  Tensor motion;     // mean difference of neighbouring frames of generated clips
};

/// A stage's networks with everything that training needs. Not copyable.
class Model {
 public:
  Model(const Config& c, int stage);
  Model(const Model&) = delete;

  void initialise(RandomSource& random);
  /// D first, d_steps times, on real clips and as many generated ones; then G. Ends by counting memory's step up. Random numbers come from
  /// context().random.
  Losses iteration(const Sources& sources, const TrainOptions& o);
  /// All that training changes.
  std::vector<Tensor> state() const;
  /// Scores [n] of the matching discriminator as it is now, in evaluation mode and without noise: condition and view [n, t, s, s, 3].
  Tensor match(const Tensor& condition, const Tensor& seen);

  std::vector<std::pair<std::string, float>> singular_values_g() const { return values_of(g_spectral_); }
  std::vector<std::pair<std::string, float>> singular_values_d() const { return values_of(d_spectral_); }
  float largest_sigma_g() const { return g_spectral_.largest_sigma(); }
  float largest_sigma_d() const { return d_spectral_.largest_sigma(); }

  const Config config;
  const int stage;
  Generator g, g_average;
  Critics d;
  ParameterSet g_params, average_params, d_params;
  StepMemory memory;

 private:
  static std::vector<std::pair<std::string, float>> values_of(const SpectralGroup& group);
  struct Draw {
    Tensor z;
    Labels labels;
    Tensor condition, told;  // the condition as it is, and as G is told it
  };
  Draw draw(const std::string& site, int64_t n, const ConditionPart& condition, const TrainOptions& o);
  struct Views;
  Views views(const Var& clips, const std::string& site, const TrainOptions& o);
  Var pair(const Var& condition, const Var& seen, const std::string& site, const MatchingOptions& o);
  Tensor draws(const std::string& site, int64_t n, int64_t c, float p, float off, float on);
  const Tensor& constant(const std::string& name, const Shape& shape, const std::vector<float>& values);
  void train_discriminators(const RealPart& real, const ConditionPart& condition, int d_step, float share, bool last, const TrainOptions& o, Losses& out);
  void train_generator(int64_t n, const ConditionPart& condition, float share, bool last, const TrainOptions& o, Losses& out);

  SpectralGroup g_spectral_, d_spectral_;
  std::map<std::string, Tensor> constants_;
};

/// An averaged generator that is only used, with batch statistics of its own: the plain means of those of some batches (standing statistics).
class FixedStage {
 public:
  FixedStage(const Config& c, int stage);
  FixedStage(const FixedStage&) = delete;
  /// From a checkpoint, or from a model in training.
  void load(const SafetensorsFile& file);
  void take(const ParameterSet& average);
  /// Makes the statistics those of `batches` batches; draw(k, generator) runs the generator on batch k. 0: leaves them as they are.
  using Run = std::function<void(int k, Generator& g)>;
  void stand(int batches, const Run& draw);
  /// In evaluation mode, nothing recorded; see Generator.
  Tensor clips(const Tensor& z, const Labels& labels, const Tensor& condition, int64_t frames = 0);
  /// Gives the memory of the normalised weights back; the next clips make them again.
  void release();
  Generator& generator() { return g_; }
  int stage() const { return stage_; }

 private:
  int stage_;
  Generator g_;
  ParameterSet params_;
  SpectralGroup spectral_;
  bool ready_ = false;
};

}  // namespace kiln::sswgan
