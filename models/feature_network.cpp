#include "models/feature_network.h"

#include "engine/error.h"
#include "models/feature_weights.h"

namespace kiln {
namespace {

Tensor mean_over_pixels(const Var& x) {
  const Shape s = x.shape();
  return area_resize(x, 1, 1).value.reshape(Shape{s[0], s[3]});
}

/// a x + b with one number per channel of a picture.
Var scaled(const Var& x, float a, std::vector<float> b) {
  const Tensor scale = from_vector(Shape{3}, {a, a, a});
  return affine_activation(x, scale, from_vector(Shape{3}, b), 1.f);
}

// ---- Inception v3 as pytorch-fid has it ------------------------------------------------------------------------------------

class Inception : public FeatureNetwork {
 public:
  explicit Inception(const std::filesystem::path& file) {
    const FeatureWeights w(file, "pt_inception-2015-12-05-6726825d.pth (92 MB; among the releases of github.com/mseitzer/pytorch-fid, tag fid_weights)");
    key_ = "inception";
    name_ = "Inception v3 (pt_inception-2015-12-05), 2048 features";
    resize_ = "bilinear to 299 px without antialiasing, on [-1, 1]";
    fingerprint_ = w.fingerprint();
    const auto add = [&](const std::string& name, int stride, bool same) { layers_.emplace(name, torch_conv_norm(w, name, stride, same)); };
    add("Conv2d_1a_3x3", 2, false);
    add("Conv2d_2a_3x3", 1, false);
    add("Conv2d_2b_3x3", 1, true);
    add("Conv2d_3b_1x1", 1, false);
    add("Conv2d_4a_3x3", 1, false);
    const auto block = [&](const std::string& name, std::initializer_list<const char*> branches) {
      for (const char* b : branches) add(name + "." + b, 1, true);
    };
    for (const char* m : {"Mixed_5b", "Mixed_5c", "Mixed_5d"})
      block(m, {"branch1x1", "branch5x5_1", "branch5x5_2", "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3", "branch_pool"});
    add("Mixed_6a.branch3x3", 2, false);
    block("Mixed_6a", {"branch3x3dbl_1", "branch3x3dbl_2"});
    add("Mixed_6a.branch3x3dbl_3", 2, false);
    for (const char* m : {"Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"})
      block(m, {"branch1x1", "branch7x7_1", "branch7x7_2", "branch7x7_3", "branch7x7dbl_1", "branch7x7dbl_2", "branch7x7dbl_3", "branch7x7dbl_4",
                "branch7x7dbl_5", "branch_pool"});
    block("Mixed_7a", {"branch3x3_1", "branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3"});
    add("Mixed_7a.branch3x3_2", 2, false);
    add("Mixed_7a.branch7x7x3_4", 2, false);
    for (const char* m : {"Mixed_7b", "Mixed_7c"})
      block(m, {"branch1x1", "branch3x3_1", "branch3x3_2a", "branch3x3_2b", "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3a", "branch3x3dbl_3b",
                "branch_pool"});
  }
  int64_t dimensions() const override { return 2048; }

  Tensor features(const Tensor& pictures) const override {
    const NoGrad none;
    Var x = scaled(bilinear_resize(Var(pictures), 299, 299), 2.f / 255.f, {-1.f, -1.f, -1.f});
    x = max_pool(run("Conv2d_2b_3x3", run("Conv2d_2a_3x3", run("Conv2d_1a_3x3", x))), 3, 2);
    x = max_pool(run("Conv2d_4a_3x3", run("Conv2d_3b_1x1", x)), 3, 2);
    for (const char* m : {"Mixed_5b", "Mixed_5c", "Mixed_5d"}) x = block_a(m, x);
    x = concat_channels({run("Mixed_6a.branch3x3", x), chain("Mixed_6a.branch3x3dbl_", 3, x), max_pool(x, 3, 2)});
    for (const char* m : {"Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"}) x = block_c(m, x);
    x = concat_channels({chain("Mixed_7a.branch3x3_", 2, x), chain("Mixed_7a.branch7x7x3_", 4, x), max_pool(x, 3, 2)});
    x = block_e("Mixed_7b", x, false);
    x = block_e("Mixed_7c", x, true);
    return mean_over_pixels(x);
  }

 private:
  Var run(const std::string& name, const Var& x) const { return layers_.at(name)(x); }
  /// Layers prefix1, prefix2, ...
  Var chain(const std::string& prefix, int count, Var x) const {
    for (int i = 1; i <= count; i++) x = run(prefix + std::to_string(i), x);
    return x;
  }
  Var block_a(const std::string& m, const Var& x) const {
    return concat_channels({run(m + ".branch1x1", x), chain(m + ".branch5x5_", 2, x), chain(m + ".branch3x3dbl_", 3, x),
                            run(m + ".branch_pool", average_pool_same(x, 3))});
  }
  Var block_c(const std::string& m, const Var& x) const {
    return concat_channels({run(m + ".branch1x1", x), chain(m + ".branch7x7_", 3, x), chain(m + ".branch7x7dbl_", 5, x),
                            run(m + ".branch_pool", average_pool_same(x, 3))});
  }
  Var block_e(const std::string& m, const Var& x, bool by_maximum) const {
    const Var a = run(m + ".branch3x3_1", x), b = chain(m + ".branch3x3dbl_", 2, x);
    return concat_channels({run(m + ".branch1x1", x), run(m + ".branch3x3_2a", a), run(m + ".branch3x3_2b", a), run(m + ".branch3x3dbl_3a", b),
                            run(m + ".branch3x3dbl_3b", b), run(m + ".branch_pool", by_maximum ? max_pool(x, 3, 1, 1) : average_pool_same(x, 3))});
  }
  std::map<std::string, FeatureConv> layers_;
};

// ---- SqueezeNet v1.1 and Tiny Darknet under Keras' names -------------------------------------------------------------------

/// Bilinear to 227 px; blue first, less the means of ImageNet's channels: how Keras' SqueezeNet was trained.
class KerasSqueezeNet : public FeatureNetwork {
 public:
  explicit KerasSqueezeNet(const std::filesystem::path& file) {
    const FeatureWeights w(file, "a SqueezeNet v1.1 with Keras' names (conv1/kernel:0, fire2/squeeze1x1/kernel:0, ...) as .safetensors");
    key_ = "squeezenet";
    name_ = "SqueezeNet v1.1, 512 features";
    resize_ = "bilinear to 227 px without antialiasing, BGR less ImageNet's means";
    fingerprint_ = w.fingerprint();
    first_ = keras_conv(w, "conv1/kernel:0", "conv1/bias:0", "", 2, false, 0);
    // The network wants blue first: its first kernel is turned round in place of every picture.
    const Shape s = first_.weight.shape();
    std::vector<float> k = first_.weight.to_vector();
    for (size_t i = 0; i < k.size(); i += 3) std::swap(k[i], k[i + 2]);
    first_.weight = from_vector(s, k);
    for (int f = 2; f <= 9; f++)
      for (const char* part : {"squeeze1x1", "expand1x1", "expand3x3"}) {
        const std::string name = fmt::format("fire{}/{}", f, part);
        fire_.push_back(keras_conv(w, name + "/kernel:0", name + "/bias:0", "", 1, true, 0));
      }
  }
  int64_t dimensions() const override { return 512; }
  Tensor features(const Tensor& pictures) const override {
    const NoGrad none;
    Var x = scaled(bilinear_resize(Var(pictures), 227, 227), 1.f, {-123.68f, -116.779f, -103.939f});
    x = max_pool(first_(x), 3, 2);
    for (int f = 2; f <= 9; f++) {
      const auto* part = &fire_[size_t(f - 2) * 3];
      const Var s = part[0](x);
      x = concat_channels({part[1](s), part[2](s)});
      if (f == 3 || f == 5) x = max_pool(x, 3, 2);
    }
    return mean_over_pixels(x);
  }

 private:
  FeatureConv first_;
  std::vector<FeatureConv> fire_;
};

class TinyDarknet : public FeatureNetwork {
 public:
  explicit TinyDarknet(const std::filesystem::path& file) {
    const FeatureWeights w(file, "a Tiny Darknet with Keras' names (conv2d_1/kernel, batch_normalization_1/gamma, ...) as .safetensors");
    key_ = "darknet";
    name_ = "Tiny Darknet, 512 features";
    resize_ = "bilinear to 224 px without antialiasing, on [0, 1]";
    fingerprint_ = w.fingerprint();
    for (int i = 1; i <= 14; i++) {
      const std::string n = std::to_string(i);
      convs_.push_back(keras_conv(w, "conv2d_" + n + "/kernel", "", "batch_normalization_" + n, 1, true, 0.1f));
    }
  }
  int64_t dimensions() const override { return 512; }
  Tensor features(const Tensor& pictures) const override {
    const NoGrad none;
    Var x = scaled(bilinear_resize(Var(pictures), 224, 224), 1.f / 255.f, {0.f, 0.f, 0.f});
    for (int i = 1; i <= 14; i++) {
      x = convs_[size_t(i - 1)](x);
      if (i == 1 || i == 2 || i == 6 || i == 10) x = max_pool(x, 2, 2);
    }
    return mean_over_pixels(x);
  }

 private:
  std::vector<FeatureConv> convs_;
};

}  // namespace

std::vector<std::string> feature_network_names() { return {"inception", "squeezenet", "darknet"}; }

std::unique_ptr<FeatureNetwork> open_feature_network(const std::string& name, const std::filesystem::path& weights) {
  if (name == "inception") return std::make_unique<Inception>(weights);
  if (name == "squeezenet") return std::make_unique<KerasSqueezeNet>(weights);
  if (name == "darknet") return std::make_unique<TinyDarknet>(weights);
  fail("the feature network '{}' is not known; use inception, squeezenet or darknet", name);
}

}  // namespace kiln
