#include "models/lpips.h"

#include <functional>

#include "engine/error.h"
#include "models/feature_weights.h"

namespace kiln {

struct Lpips::Trunk {
  std::string key, name;
  uint64_t fingerprint = 0;
  int least_side = 16;
  Tensor scale, shift;              // of the input
  std::vector<Tensor> heads;        // [c] per layer
  std::vector<FeatureConv> convs;
  /// Calls layer(features) for each compared layer, in order.
  std::function<void(Var, const std::function<void(const Var&)>&)> run;

  void walk(const Var& x, const std::function<void(const Var&)>& layer) const { run(affine_activation(x, scale, shift, 1.f), layer); }
};

namespace {

void vgg(std::vector<FeatureConv>& convs, const FeatureWeights& w) {
  for (int i : {0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28}) convs.push_back(torch_conv(w, fmt::format("features.{}", i), 1, 1));
}

void run_vgg(const std::vector<FeatureConv>& convs, Var x, const std::function<void(const Var&)>& layer) {
  size_t i = 0;
  for (int block = 0; block < 5; block++) {
    if (block > 0) x = max_pool(x, 2, 2);
    for (int k = 0; k < (block < 2 ? 2 : 3); k++) x = convs[i++](x);
    layer(x);
  }
}

void alex(std::vector<FeatureConv>& convs, const FeatureWeights& w) {
  convs.push_back(torch_conv(w, "features.0", 4, 2));
  convs.push_back(torch_conv(w, "features.3", 1, 2));
  for (int i : {6, 8, 10}) convs.push_back(torch_conv(w, fmt::format("features.{}", i), 1, 1));
}

void run_alex(const std::vector<FeatureConv>& convs, Var x, const std::function<void(const Var&)>& layer) {
  for (size_t i = 0; i < convs.size(); i++) {
    if (i == 1 || i == 2) x = max_pool(x, 3, 2);
    x = convs[i](x);
    layer(x);
  }
}

void squeeze(std::vector<FeatureConv>& convs, const FeatureWeights& w) {
  convs.push_back(torch_conv(w, "features.0", 2, 0));
  for (int i : {3, 4, 6, 7, 9, 10, 11, 12}) {
    const std::string fire = fmt::format("features.{}.", i);
    convs.push_back(torch_conv(w, fire + "squeeze", 1, 0));
    convs.push_back(torch_conv(w, fire + "expand1x1", 1, 0));
    convs.push_back(torch_conv(w, fire + "expand3x3", 1, 1));
  }
}

void run_squeeze(const std::vector<FeatureConv>& convs, Var x, const std::function<void(const Var&)>& layer) {
  x = convs[0](x);
  layer(x);
  for (int fire = 0; fire < 8; fire++) {
    if (fire == 0 || fire == 2 || fire == 4) x = max_pool(x, 3, 2, 0, true);
    const FeatureConv* part = &convs[1 + 3 * size_t(fire)];
    const Var s = part[0](x);
    x = concat_channels({part[1](s), part[2](s)});
    if (fire != 0 && fire != 2) layer(x);
  }
}

}  // namespace

Lpips::Lpips(const std::string& trunk, const std::filesystem::path& weights, const std::filesystem::path& heads, DType storage)
    : trunk_(std::make_unique<Trunk>()) {
  Trunk& t = *trunk_;
  t.key = trunk;
  // The published constants: what the network's own scaling does to pictures on [-1, 1].
  const float shift[3] = {-.030f, -.088f, -.188f}, scale[3] = {.458f, .448f, .450f};
  t.scale = from_vector(Shape{3}, {1.f / scale[0], 1.f / scale[1], 1.f / scale[2]});
  t.shift = from_vector(Shape{3}, {-shift[0] / scale[0], -shift[1] / scale[1], -shift[2] / scale[2]});
  std::vector<int64_t> channels;
  std::vector<FeatureConv>& convs = t.convs;
  const auto load = [&](auto layers, const char* file, const char* size) {
    const FeatureWeights w(weights, fmt::format("{} of torchvision ({}; from download.pytorch.org/models)", file, size));
    layers(convs, w);
    for (FeatureConv& c : convs) c.weight = converted(c.weight, storage);
    t.fingerprint = w.fingerprint();
  };
  if (trunk == "vgg") {
    t.name = "LPIPS v0.1 (VGG16)";
    load(vgg, "vgg16-397923af.pth", "528 MB");
    t.run = [&convs](Var x, const auto& layer) { run_vgg(convs, std::move(x), layer); };
    channels = {64, 128, 256, 512, 512};
  } else if (trunk == "alex") {
    t.name = "LPIPS v0.1 (AlexNet)";
    t.least_side = 32;
    load(alex, "alexnet-owt-7be5be79.pth", "233 MB");
    t.run = [&convs](Var x, const auto& layer) { run_alex(convs, std::move(x), layer); };
    channels = {64, 192, 384, 256, 256};
  } else if (trunk == "squeeze") {
    t.name = "LPIPS v0.1 (SqueezeNet)";
    t.least_side = 32;
    load(squeeze, "squeezenet1_1-b8a52dc0.pth", "5 MB");
    t.run = [&convs](Var x, const auto& layer) { run_squeeze(convs, std::move(x), layer); };
    channels = {64, 128, 256, 384, 384, 512, 512};
  } else {
    fail("the LPIPS trunk '{}' is not known; use vgg, alex or squeeze", trunk);
  }
  const FeatureWeights lin(heads, fmt::format("LPIPS's heads {}.pth (a few KB; lpips/weights/v0.1 of github.com/richzhang/PerceptualSimilarity)", trunk));
  for (size_t i = 0; i < channels.size(); i++) {
    const std::string name = fmt::format("lin{}.model.1.weight", i);
    const auto& a = lin.at(name);
    if (int64_t(a.values.size()) != channels[i])
      fail("{}: {} has {} numbers, where {} wants {}; these are the heads of another trunk", lin.path(), name, a.values.size(), t.name, channels[i]);
    t.heads.push_back(from_vector(Shape{channels[i]}, a.values));
  }
  t.fingerprint ^= lin.fingerprint();
}

Lpips::~Lpips() = default;

std::vector<Tensor> Lpips::encode(const Tensor& pictures) const {
  const NoGrad none;
  std::vector<Tensor> out;
  trunk_->walk(Var(pictures), [&](const Var& f) { out.push_back(f.value); });
  return out;
}

Var Lpips::distance(const Var& x, const std::vector<Tensor>& target) const {
  Var sum;
  size_t i = 0;
  trunk_->walk(x, [&](const Var& f) {
    const Var d = perceptual_distance(f, target[i], trunk_->heads[i]);
    i++;
    sum = sum ? combine(1.f, sum, 1.f, d) : d;
  });
  KILN_ASSERT(i == target.size());
  return sum;
}

Lpips::Loss Lpips::loss(const Tensor& x, const std::vector<Tensor>& target, float weight, const float* scale) const {
  Tape tape;
  Recording recording(tape);
  const Var leaf(x, true);
  const Var sum = sum_all(distance(leaf, target));
  tape.backward({{sum, weight}}, scale);
  return {sum.value, leaf.node->take()};
}

const std::string& Lpips::name() const { return trunk_->name; }
const std::string& Lpips::key() const { return trunk_->key; }
uint64_t Lpips::fingerprint() const { return trunk_->fingerprint; }
int Lpips::least_side() const { return trunk_->least_side; }

}  // namespace kiln
