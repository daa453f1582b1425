// Inside of sswgan_run.cpp: a stage's side of a training run.
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/clip_grid.h"
#include "engine/clip_metrics.h"
#include "engine/clip_source.h"
#include "engine/step_graph.h"
#include "models/sswgan_conditions.h"
#include "models/sswgan_run.h"

namespace kiln::sswgan {

class SswganTrainee : public Trainee {
 public:
  /// before: the frozen stages before this one; null for stage 1.
  SswganTrainee(const RunOptions& o, std::shared_ptr<const ClipDataset> data, std::shared_ptr<Sampler> before);

  void step(int64_t step) override;
  void use_stream(int stream) override;
  std::vector<std::pair<std::string, double>> numbers() override;
  std::vector<std::pair<std::string, double>> vitals() override;
  bool finite() override;
  bool go_on(int64_t steps_done) override { return !o_.on_step || o_.on_step(steps_done); }
  std::string summary() override;
  Tensor sample(int64_t first, int64_t n) override;
  void write_sheets(const RunDirectory& directory, int64_t step) override;
  std::vector<Tensor> state() override { return model_.state(); }
  void initialise() override { model_.initialise(*random_); }
  void save(CheckpointWriter& w) override;
  void load(const SafetensorsFile& file) override;

  /// How the run measures this trainee; needs the real clips, which it reads now. The trainee must live as long.
  RunData run_data();
  /// samples/real.png: clips of the data as this stage sees them, a row each.
  void write_real(const std::filesystem::path& samples);
  const Model& model() const { return model_; }

 private:
  int ranks() const { return o_.rank_count(); }
  int rank() const { return o_.ranks ? o_.ranks->rank() : 0; }
  int64_t at_once() const { return o_.batch / (int64_t(o_.train.parts) * ranks()); }  // clips
  const StageConfig& here() const { return o_.network.stage(o_.stage); }
  RealPart real_part(int d_step, int part);
  std::vector<PictureClip> real_clips(int64_t count);
  /// Clips of the averaged generator, numbers first ... of an endless row: of `window` frames, or whole.
  Tensor clips_of(int64_t first, int64_t n, bool whole);
  double measure(std::vector<std::pair<std::string, double>>& log);
  void settle();

  const RunOptions& o_;
  std::shared_ptr<const ClipDataset> data_;
  std::shared_ptr<Sampler> before_;
  std::shared_ptr<Philox> random_;
  Model model_;
  FixedStage average_;  // what samples come from: the model's average with standing statistics
  int64_t settled_step_ = -1, steps_done_ = 0;
  std::unique_ptr<ClipSource> source_;
  std::unique_ptr<ConditionSource> conditions_;
  std::vector<float> shown_;  // conditions of samples: whole clips of the stage before
  int64_t shown_count_ = 0;
  std::unique_ptr<ClipSwdReference> reference_;
  ClipMotion real_motion_;
  StepGraph graph_;
  Losses losses_;
  int64_t next_step_ = -1;
};

}  // namespace kiln::sswgan
