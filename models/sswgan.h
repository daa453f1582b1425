// SSW-GAN (the seed paper of docs/sswgan.md): video by stages, each a GAN of its own. Stage 1 makes a whole clip, small and at a low
// frame rate; every later stage doubles sides and interpolates frames of the stage before, on windows while it trains and over whole clips
// when it is used. The paper's text says so much; sizes, layers and losses here are a reconstruction, called so in docs/sswgan.md.
//
// Clips are [n, t, h, w, 3] on [-1, 1]. A clip's frames at the final rate and size are the data's; what a stage sees of them is its view
// (view() below), one piece of code for the data and for the matching discriminator.
#pragma once
#include <string>
#include <vector>

#include "engine/ops_clip.h"
#include "models/biggan_layers.h"

namespace kiln::sswgan {

using biggan::InitKind;
using biggan::Labels;

/// One stage: what it makes, and what it is trained on.
struct StageConfig {
  int frames = 0;  // of a whole clip at this stage's rate
  int size = 0;    // side in pixels
  int stride = 1;  // final frames from one of this stage's to the next: tau
  int window = 0;  // frames that it is trained on, of its own rate; all of them in stage 1
  int g_width = 16, d_width = 16;  // base widths ("ch")
  /// Whether whole clips are of the same frames, sides and rate.
  bool same_clips(const StageConfig& o) const { return frames == o.frames && size == o.size && stride == o.stride; }
  bool operator==(const StageConfig&) const = default;
};

struct Config {
  std::vector<StageConfig> stages;
  int classes = 0;          // 0 and 1: unconditional
  int z = 120;              // latent numbers of a clip, drawn for each stage anew
  int shared_dim = 120;     // numbers of the class embedding
  int d_frames = 8;         // frames that the spatial discriminator looks at
  bool gru_tanh = false;    // the recurrent layers' candidate: relu as DVD-GAN's, or tanh
  int gru_truncate = 0;     // back-propagation through time by pieces of so many frames; 0: through all
  bool residual = true;     // later stages add to their enlarged condition
  bool matching = true;     // later stages have the discriminator that compares with the condition
  float bn_eps = 1e-5f;
  InitKind init = InitKind::orthogonal;

  bool conditional() const { return classes > 1; }
  int count() const { return int(stages.size()); }
  const StageConfig& stage(int k) const { return stages.at(size_t(k - 1)); }  // from 1
  /// Frames of stage k for one of the stage before, and pixels likewise. k >= 2.
  int rho(int k) const { return stage(k - 1).stride / stage(k).stride; }
  int scale(int k) const { return stage(k).size / stage(k - 1).size; }
  /// Side of the data over a stage's: sigma.
  int shrink(int k) const { return stages.back().size / stage(k).size; }
  int final_size() const { return stages.back().size; }
  int final_frames() const { return stages[0].frames * stages[0].stride; }
  /// Data frames of a training window of stage k.
  int data_frames(int k) const { return stage(k).window * stage(k).stride; }
  bool operator==(const Config&) const = default;
};

/// The sizes of the presets: ssw-tiny, ssw-sprites, ssw-actions, ssw-128, ssw-100f, hvg-48. Throws kiln::Error for another name.
Config preset_network(const std::string& name);
const std::vector<std::string>& preset_names();

/// "12x32/2,24x64": frames x side / stride of every stage (a stride of 1 may be left out); with @, the frames of a training window: "24x64@12".
/// Widths stay those of `base` where it has such a stage. Throws kiln::Error naming --stages.
std::vector<StageConfig> parse_stages(const std::string& text, const std::vector<StageConfig>& base);
std::string stages_text(const std::vector<StageConfig>& stages);

/// Throws kiln::Error, naming the flag, if a value is out of range or two do not fit together.
void check(const Config& c);

/// The view operator V: every `stride`-th frame, beginning with the first, each the mean of shrink x shrink pixels: [n, t, h, w, c] ->
/// [n, ceil(t / stride), h / shrink, w / shrink, c]. Linear, and differentiable.
Var view(const Var& clips, int stride, int shrink);

}  // namespace kiln::sswgan
