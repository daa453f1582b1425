// FastGAN (Liu, Zhu, Song, Elgammal: "Towards Faster and Stabilized GAN Training for High-fidelity Few-shot Image
// Synthesis", ICLR 2021): a generator with skip-layer excitation, and a discriminator that is regularised by having to
// reconstruct the real pictures.
//
// One definition, tied to resolutions, for every size R that is a power of two from 32 to 1024. At 256, 512 and 1024 it is
// the published network; below, layers above R are left out (docs/fastgan.md). S = min(128, R / 2) is the side of the second
// picture, of the reconstructions and of their targets.
#pragma once
#include <string>
#include <vector>

#include "engine/parameters.h"
#include "models/blocks.h"

namespace kiln::fastgan {

struct Config {
  int size = 256;         // R
  int ngf = 64, ndf = 64;  // base widths
  int nz = 256;           // latent numbers
  // Differences between the paper's text and its public code, and our own choices; docs/fastgan.md says what each does.
  bool tanh = false;        // tanh on both of G's pictures at every size; at 1024 it always is
  bool noise = true;        // noise injection (not in the paper)
  bool sle_64 = true;       // the 4 -> 64 gate (not in the paper)
  bool d_gates = true;      // gates in the discriminator (not in the paper)
  bool sle_leaky = false;   // LeakyReLU in the gates, as the paper says; Swish otherwise
  bool fold_upsample = true;  // upsampling folded into the convolution after it: the same numbers, faster

  int small() const { return size / 2 < 128 ? size / 2 : 128; }  // S
  bool operator==(const Config&) const = default;
};

/// Throws kiln::Error, naming the flag, if a value is out of range.
void check(const Config& c);

/// Channels at a resolution: G's table, D's table, the decoders' table (docs/fastgan.md).
int64_t generator_channels(int resolution, int ngf);
int64_t discriminator_channels(int resolution, int ndf);
int64_t decoder_channels(int resolution, int base);

/// Skip-layer excitation: pools to 4x4, convolves to a gate per channel (paper, section 3.1).
struct SkipExcitation {
  SpectralConv conv1, conv2;
  bool leaky = false;
  SkipExcitation() = default;
  SkipExcitation(int64_t in, int64_t out, bool leaky_relu);
  Var operator()(const Var& x) const;  // [n, h, w, in] -> [n, 1, 1, out], in (0, 1)
  template <class F>
  void visit(F&& f) {
    f("conv1", conv1);
    f("conv2", conv2);
  }
};

/// Doubles the resolution: upsample, convolve, (noise,) norm, GLU; `two` adds a second convolution with the same tail.
struct UpBlock {
  bool two = false, noisy = false;
  SpectralConv conv1, conv2;
  NoiseInjection noise1, noise2;
  BatchNorm bn1, bn2;
  UpBlock() = default;
  UpBlock(int64_t in, int64_t out, bool second, bool noise);
  /// noise_site: running number of the noise sites, in forward order.
  Var operator()(const Var& x, bool fold, int* noise_site);
  template <class F>
  void visit(F&& f) {
    f("conv1", conv1);
    if (noisy) f("noise1", noise1);
    f("bn1", bn1);
    if (!two) return;
    f("conv2", conv2);
    if (noisy) f("noise2", noise2);
    f("bn2", bn2);
  }
};

struct Pictures {
  Var big, small;  // [n, R, R, 3] and [n, S, S, 3]
};

class Generator {
 public:
  explicit Generator(const Config& c);
  /// z [n, nz] -> pictures, nominally on [-1, 1]. Noise comes from context().random at sites "noise.0", "noise.1", ...
  /// The weights must have been prepared (Network::prepare).
  Pictures operator()(const Var& z);
  template <class F>
  void visit(F&& f) {
    f("init.conv", init_conv_);
    f("init.bn", init_bn_);
    // The order of registration of the public code, so that lists without names (its averages, its Adam state) can be mapped.
    for (size_t i = 0; i < stages_.size(); i++)
      if (resolution(i) <= 256) f("feat_" + std::to_string(resolution(i)), stages_[i]);
    for (auto& g : gates_)
      if (g.to <= 256) f("se_" + std::to_string(g.to), g.se);
    f("to_small", to_small_);
    f("to_big", to_big_);
    for (size_t i = 0; i < stages_.size(); i++) {
      if (resolution(i) <= 256) continue;
      f("feat_" + std::to_string(resolution(i)), stages_[i]);
      for (auto& g : gates_)
        if (g.to == resolution(i)) f("se_" + std::to_string(g.to), g.se);
    }
  }
  const Config& config() const { return config_; }

 private:
  friend class FoldedGenerator;  // reads the parts, to make them into fixed weights
  struct Gate {
    int from, to;
    SkipExcitation se;
  };
  static int resolution(size_t stage) { return 8 << stage; }

  Config config_;
  SpectralWeight init_conv_;
  BatchNorm init_bn_;
  std::vector<UpBlock> stages_;  // 8, 16, ... R
  std::vector<Gate> gates_;
  SpectralConv to_small_, to_big_;
};

/// Halves the resolution: the mean of a two-convolution branch and a pooled 1x1 branch.
struct DownBlock {
  SpectralConv conv1, conv2, conv3;
  BatchNorm bn1, bn2, bn3;
  DownBlock() = default;
  DownBlock(int64_t in, int64_t out);
  Var operator()(const Var& x);
  template <class F>
  void visit(F&& f) {
    f("conv1", conv1);
    f("bn1", bn1);
    f("conv2", conv2);
    f("bn2", bn2);
    f("conv3", conv3);
    f("bn3", bn3);
  }
};

/// 4x4 convolution of stride 2, norm, LeakyReLU.
struct DownStep {
  SpectralConv conv1;
  BatchNorm bn1;
  template <class F>
  void visit(F&& f) {
    f("conv1", conv1);
    f("bn1", bn1);
  }
};

/// Reconstructs a picture of side S from an 8x8 map (paper, section 3.2).
struct Decoder {
  std::vector<UpBlock> ups;
  SpectralConv conv;
  Decoder() = default;
  Decoder(int64_t in, int base, int side);
  Var operator()(const Var& x, bool fold);  // [n, 8, 8, in] -> [n, side, side, 3] on [-1, 1]
  template <class F>
  void visit(F&& f) {
    for (size_t i = 0; i < ups.size(); i++) f("up" + std::to_string(i + 1), ups[i]);
    f("conv", conv);
  }
};

struct Features {
  Var logits;  // [50 n]: 25 of each picture from the big path, then 25 of each from the small one
  Var last, mid, small;  // 8x8, 16x16 and the small path's 8x8 map: what the decoders see
};

struct Reconstructions {
  Var all, small, part;  // [n, S, S, 3] each
};

class Discriminator {
 public:
  explicit Discriminator(const Config& c);
  /// big [n, R, R, 3], small [n, S, S, 3].
  Features operator()(const Pictures& x);
  /// For real pictures: from the last map, the small path's, and one corner (i32 [1], 0..3) of the middle map.
  Reconstructions reconstruct(const Features& f, const Tensor& corner);

  /// The decoders, and the rest: they are prepared separately, since only real pictures go through the decoders.
  struct Core {
    Discriminator& d;
    template <class F>
    void visit(F&& f) {
      d.visit_core(f);
    }
  };
  struct Decoders {
    Discriminator& d;
    template <class F>
    void visit(F&& f) {
      f("decoder_big", d.decoder_big_);
      f("decoder_part", d.decoder_part_);
      f("decoder_small", d.decoder_small_);
    }
  };
  Core core() { return {*this}; }
  Decoders decoders() { return {*this}; }
  template <class F>
  void visit(F&& f) {
    visit_core(f);
    decoders().visit(f);
  }
  const Config& config() const { return config_; }

 private:
  template <class F>
  void visit_core(F&& f) {
    f("stem.conv1", stem1_);
    if (two_stems_) {
      f("stem.conv2", stem2_);
      f("stem.bn2", stem_bn2_);
    }
    for (auto& d : downs_) f("down_" + std::to_string(1024 / d.resolution / 2), d.block);
    f("rf_big.conv1", rf_big1_);
    f("rf_big.bn1", rf_big_bn1_);
    f("rf_big.conv2", rf_big2_);
    for (auto& g : gates_) f("se_" + std::to_string(512 / g.from) + "_" + std::to_string(512 / g.to), g.se);
    f("down_small.conv1", small1_);
    for (size_t i = 0; i < small_steps_.size(); i++) f("down_small.down" + std::to_string(i + 1), small_steps_[i]);
    f("rf_small", rf_small_);
  }
  struct Down {
    int resolution;  // of its output
    DownBlock block;
  };
  struct Gate {
    int from, to;  // resolutions
    SkipExcitation se;
  };

  Config config_;
  int stem_resolution_ = 256;
  bool two_stems_ = false;
  SpectralConv stem1_, stem2_;
  BatchNorm stem_bn2_;
  std::vector<Down> downs_;
  std::vector<Gate> gates_;
  SpectralConv rf_big1_, rf_big2_, small1_, rf_small_;
  BatchNorm rf_big_bn1_;
  std::vector<DownStep> small_steps_;
  Decoder decoder_big_, decoder_part_, decoder_small_;
};

}  // namespace kiln::fastgan
