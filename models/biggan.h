// BigGAN and BigGAN-deep (Brock, Donahue, Simonyan: "Large Scale GAN Training for High Fidelity Natural Image Synthesis", ICLR
// 2019): a generator whose batch norms are told the class and a piece of the latent vector, and a projection discriminator, both
// of residual blocks with spectral norm and one layer of self-attention.
//
// One rule for every size that is a power of two from 32 to 1024; 32 to 256 are the public tables (docs/biggan.md).
#pragma once
#include <string>
#include <vector>

#include "models/biggan_layers.h"

namespace kiln::biggan {

struct Config {
  int size = 128;
  int g_width = 64, d_width = 64;  // base widths ("ch")
  bool deep = false;               // BigGAN-deep: bottleneck blocks, twice as many
  int classes = 0;                 // 0 and 1: unconditional
  int z = 120;                     // latent numbers asked for; latent() are used
  bool shared = true;              // one embedding for all norms; otherwise a table per norm (the CIFAR recipe)
  int shared_dim = 128;
  bool hierarchical = true;        // a chunk of z for every block
  int g_attention = 64, d_attention = 64;  // side of the maps that self-attention looks at; 0: none
  float bn_eps = 1e-5f;            // of the conditional norms; the output norm's is 1e-5 whatever this is
  InitKind init = InitKind::orthogonal;
  bool fold = true;                // upsampling and pooling folded into convolutions: the same numbers, faster

  bool conditional() const { return classes > 1; }
  int slots() const { return blocks() + 1; }  // pieces of z: the first linear's, and one a block
  int blocks() const;                         // of the generator, by resolution
  int chunk() const { return z / slots(); }
  int latent() const { return hierarchical && !deep ? chunk() * slots() : z; }
  bool operator==(const Config&) const = default;
};

/// Throws kiln::Error, naming the flag, if a value is out of range or two do not fit together.
void check(const Config& c);

/// A residual block's place in a table: channels in and out as multiples of the base width, whether it changes the size, and the
/// side of the maps it puts out.
struct BlockPlan {
  int in, out;
  bool resize;
  int side;
};
/// The published tables for 32 (CIFAR), 64, 128 and 256 pixels, and their rule beyond. D's first block has in = 0: the picture.
std::vector<BlockPlan> generator_plan(int size);
std::vector<BlockPlan> discriminator_plan(int size);

/// Residual block of the generator (figure 15b of the paper): norm, relu, 2x up, 3x3; norm, relu, 3x3; skip: 1x1, up.
struct UpBlock {
  Conv conv1, conv2, skip;
  CondBatchNorm bn1, bn2;
  UpBlock() = default;
  UpBlock(int64_t in, int64_t out, const Config& c, int64_t condition);
  Var operator()(const Var& x, const Condition& y, bool fold);
  template <class F>
  void visit(F&& f) {
    f("conv1", conv1);
    f("conv2", conv2);
    f("conv_sc", skip);
    f("bn1", bn1);
    f("bn2", bn2);
  }
};

/// BigGAN-deep's: 1x1 to a quarter of the channels, (up,) 3x3, 3x3, 1x1 back, a conditional norm before each; the skip drops the
/// channels that are too many (appendix B.2).
struct DeepUpBlock {
  Conv conv1, conv2, conv3, conv4;
  CondBatchNorm bn1, bn2, bn3, bn4;
  int64_t out = 0;
  bool up = false;
  DeepUpBlock() = default;
  DeepUpBlock(int64_t in, int64_t out_channels, bool upsample, const Config& c, int64_t condition);
  Var operator()(const Var& x, const Condition& y, bool fold);
  template <class F>
  void visit(F&& f) {
    f("conv1", conv1);
    f("conv2", conv2);
    f("conv3", conv3);
    f("conv4", conv4);
    f("bn1", bn1);
    f("bn2", bn2);
    f("bn3", bn3);
    f("bn4", bn4);
  }
};

class Generator {
 public:
  explicit Generator(const Config& c);
  /// z [n, latent()] f32 -> pictures [n, R, R, 3] on (-1, 1). The weights must have been prepared.
  Var operator()(const Tensor& z, const Labels& labels);
  template <class F>
  void visit(F&& f) {
    if (config_.shared && config_.conditional()) f("shared", shared_);
    f("linear", linear_);
    for (size_t i = 0; i < blocks_.size(); i++) f("blocks." + std::to_string(i), blocks_[i]);
    for (size_t i = 0; i < deep_.size(); i++) f("blocks." + std::to_string(i), deep_[i]);
    if (config_.g_attention) f("attention", attention_);
    f("output.bn", output_norm_);
    f("output.conv", output_conv_);
  }
  const Config& config() const { return config_; }

 private:
  Config config_;
  Param shared_;  // [classes, shared_dim], not normalised
  Linear linear_;
  std::vector<UpBlock> blocks_;
  std::vector<DeepUpBlock> deep_;
  SelfAttention attention_;
  size_t attention_after_ = 0;  // index of the block before it
  BatchNorm output_norm_;
  Conv output_conv_;
};

/// Residual block of the discriminator: (relu,) 3x3, relu, 3x3, (pool); skip: (pool, 1x1). The skip sees x before its relu.
struct DownBlock {
  Conv conv1, conv2, skip;
  bool first = false, pool = false, has_skip = false;
  DownBlock() = default;
  DownBlock(int64_t in, int64_t out, bool is_first, bool downsample, const Config& c);
  Var operator()(const Var& x, bool fold);
  template <class F>
  void visit(F&& f) {
    f("conv1", conv1);
    f("conv2", conv2);
    if (has_skip) f("conv_sc", skip);
  }
};

/// BigGAN-deep's: relu before each of 1x1, 3x3, 3x3, (pool,) 1x1; the skip keeps x and adds the missing channels by a 1x1.
struct DeepDownBlock {
  Conv conv1, conv2, conv3, conv4, skip;
  bool pool = false, has_skip = false;
  DeepDownBlock() = default;
  DeepDownBlock(int64_t in, int64_t out, bool downsample, const Config& c);
  Var operator()(const Var& x, bool fold);
  template <class F>
  void visit(F&& f) {
    f("conv1", conv1);
    f("conv2", conv2);
    f("conv3", conv3);
    f("conv4", conv4);
    if (has_skip) f("conv_sc", skip);
  }
};

class Discriminator {
 public:
  explicit Discriminator(const Config& c);
  /// x [n, R, R, 3], labels i32 [n] (not read if unconditional) -> logits [n] f32.
  Var operator()(const Var& x, const Tensor& labels);
  template <class F>
  void visit(F&& f) {
    if (config_.deep) f("stem", stem_);
    for (size_t i = 0; i < blocks_.size(); i++) f("blocks." + std::to_string(i), blocks_[i]);
    for (size_t i = 0; i < deep_.size(); i++) f("blocks." + std::to_string(i), deep_[i]);
    if (config_.d_attention) f("attention", attention_);
    f("linear", linear_);
    if (config_.conditional()) f("embed", embed_);
  }
  const Config& config() const { return config_; }

 private:
  Config config_;
  Conv stem_;
  std::vector<DownBlock> blocks_;
  std::vector<DeepDownBlock> deep_;
  SelfAttention attention_;
  size_t attention_after_ = 0;
  Linear linear_;
  SpectralWeight embed_;  // [classes, 1, 1, C]: normalised as a matrix with a row a class
};

}  // namespace kiln::biggan
