// Clips from a trained SSW-GAN: stage by stage over whole clips, in chunks that give what one piece would.
//
//   kiln::sswgan::Sampler sampler("runs/shapes-ssw-tiny");
//   std::vector<kiln::sswgan::Clip> clips = sampler.render({{7, 0}});
//
// One object is used by one thread at a time. All errors are kiln::Error.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "engine/picture.h"
#include "models/sswgan_training.h"

namespace kiln::sswgan {

/// A later stage over a whole clip: condition [n, t, s, s, 3] f32 -> [n, rho t, S, S, 3]. chunk: frames of the condition that are worked on at
/// a time, beside the generator's radius() on both sides, which are computed and dropped; 0: all at once. In evaluation mode, a generator's
/// chunks give what one piece gives, to rounding. z [n, z] is the same for all chunks.
Tensor enlarge_clips(FixedStage& stage, const Tensor& z, const Labels& labels, const Tensor& condition, int rho, int64_t chunk);

/// A clip to be: its seed, and its class.
struct ClipDraw {
  uint64_t seed = 0;
  int label = 0;
};
using Clip = std::vector<Picture>;

struct SamplerOptions {
  int batch = 8;      // clips computed at once
  int standing = 16;  // batches behind each stage's standing statistics; 0: the checkpoint's running ones
  int64_t chunk = 8;  // see enlarge_clips
  int stage = 0;      // the last stage to use; 0: all that are trained
  double memory_gb = 0;
  Device device = Device::cpu;
  std::filesystem::path checkpoint = {};  // of the last stage; empty: its newest
};

class Sampler {
 public:
  /// Loads the averaged generators of a run's directory: of the last stage its newest checkpoint (or options.checkpoint), of the others
  /// those that it was trained on.
  /// Throws kiln::Error: no such run, a stage without a checkpoint, stages that do not belong together, no memory.
  explicit Sampler(const std::filesystem::path& run, const SamplerOptions& options = {});
  ~Sampler();

  const Config& config() const { return config_; }
  int stages() const { return int(stages_.size()); }
  /// Of the last stage.
  int64_t step() const { return step_; }
  const std::vector<std::string>& classes() const { return classes_; }
  int class_number(const std::string& name) const;

  /// A stage's clips [n, t, S, S, 3] as numbers, nominally on [-1, 1]. stage 0: the last. first_frames: frames of stage 1, 0 as many as it was
  /// trained on; more make a longer clip. A clip is its seed's, whatever it is computed with.
  std::vector<float> numbers(const std::vector<ClipDraw>& draws, int stage = 0, int64_t first_frames = 0);
  std::vector<Clip> render(const std::vector<ClipDraw>& draws, int stage = 0, int64_t first_frames = 0);
  /// Frames of a stage's clip for so many of stage 1.
  int64_t frames(int stage, int64_t first_frames = 0) const;

 private:
  Tensor clips(const std::vector<ClipDraw>& draws, int stage, int64_t first_frames);
  void stand();

  SamplerOptions options_;
  Config config_;
  std::vector<std::string> classes_;
  int64_t step_ = 0;
  std::unique_ptr<Context> context_;
  std::vector<std::unique_ptr<FixedStage>> stages_;
  std::vector<int> standing_batch_;  // clips of a batch of training, of each stage
};

// ---- the run's directory --------------------------------------------------------------------------------------------

/// RUN/stage2
std::filesystem::path stage_folder(const std::filesystem::path& run, int stage);
/// The newest checkpoint of a stage; empty if there is none.
std::filesystem::path newest_checkpoint(const std::filesystem::path& run, int stage);
/// A number of 16 digits that is equal for equal averaged generators.
std::string weights_hash(const SafetensorsFile& file);

/// RUN/manifest.json: which network feeds which. A stage is in it from its start on.
struct ManifestStage {
  int stage = 0;
  std::string checkpoint, weights;            // its newest when it was last started or ended, relative to RUN; empty while it has none
  std::string fed_checkpoint, fed_weights;    // of the stage before, whose clips it was trained on; empty in stage 1
};
std::vector<ManifestStage> read_manifest(const std::filesystem::path& run);
void write_manifest(const std::filesystem::path& run, const Config& c, const std::vector<ManifestStage>& stages);
/// The checkpoint of the stage before `stage` that has the weights (weights_hash) that it was trained on, be it the newest or not. Throws
/// kiln::Error with the remedy if there is none.
std::filesystem::path fed_checkpoint(const std::filesystem::path& run, int stage, const std::string& trained_on);

}  // namespace kiln::sswgan
