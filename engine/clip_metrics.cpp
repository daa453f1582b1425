#include "engine/clip_metrics.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <set>

#include "engine/error.h"

namespace kiln {
namespace {

constexpr int64_t kMostReal = 2000;  // real clips compared among themselves

/// Adds up the statistics of clips that come one by one.
class MotionSum {
 public:
  MotionSum(int frames, int64_t pixels) : frames_(frames), n_(size_t(pixels)), mean_(n_), sum_(n_), squares_(n_) {}

  /// clip: [frames, pixels] on [-1, 1].
  template <class T, class Scale>
  void add(const T* clip, Scale scale) {
    double moved = 0, apart = 0;
    std::fill(mean_.begin(), mean_.end(), 0.0);
    for (int t = 0; t < frames_; t++)
      for (size_t i = 0; i < n_; i++) mean_[i] += scale(clip[size_t(t) * n_ + i]) / frames_;
    for (int t = 0; t < frames_; t++)
      for (size_t i = 0; i < n_; i++) {
        const double v = scale(clip[size_t(t) * n_ + i]);
        apart += (v - mean_[i]) * (v - mean_[i]);
        if (t > 0) moved += std::abs(v - scale(clip[size_t(t - 1) * n_ + i]));
      }
    if (frames_ > 1) energy_ += moved / (double(frames_ - 1) * double(n_));
    frame_ += std::sqrt(apart / (double(frames_) * double(n_)));
    for (size_t i = 0; i < n_; i++) {
      sum_[i] += mean_[i];
      squares_[i] += mean_[i] * mean_[i];
    }
    clips_++;
  }
  ClipMotion result() const {
    ClipMotion m;
    if (clips_ == 0) return m;
    m.energy = energy_ / double(clips_);
    m.frame_diversity = frame_ / double(clips_);
    double variance = 0;
    for (size_t i = 0; i < n_; i++) variance += std::max(0.0, squares_[i] / double(clips_) - std::pow(sum_[i] / double(clips_), 2));
    m.clip_diversity = std::sqrt(variance / double(n_));
    return m;
  }

 private:
  const int frames_;
  const size_t n_;
  std::vector<double> mean_, sum_, squares_;
  int64_t clips_ = 0;
  double energy_ = 0, frame_ = 0;
};

/// The pictures of kind 0 (frames), 1 (steps), 2 (spans): number i * per_clip + j is clip i at moment j of per_clip.
PictureReader pictures_of(const ClipBytes& clips, int kind, int per_clip) {
  struct Last {
    int64_t clip = -1;
    std::vector<uint8_t> bytes;
  };
  const auto last = std::make_shared<Last>();
  return [=](int64_t number, uint8_t* to) {
    const int64_t i = number / per_clip;
    if (last->clip != i) {
      last->bytes.resize(clips.bytes());
      clips.read(i, last->bytes.data());
      last->clip = i;
    }
    const int lag = kind == 0 ? 0 : kind == 1 ? 1 : std::max(1, clips.frames / 2), moments = clips.frames - lag;
    const int t = int((2 * (number % per_clip) + 1) * moments / (2 * per_clip));
    const size_t n = clips.bytes() / size_t(clips.frames);
    const uint8_t *a = last->bytes.data() + size_t(t) * n, *b = a + size_t(lag) * n;
    if (kind == 0) {
      std::memcpy(to, a, n);
      return;
    }
    for (size_t k = 0; k < n; k++) to[k] = uint8_t((256 + int(b[k]) - int(a[k])) / 2);  // 127.5 + d / 2, rounded upwards
  };
}

SwdReference reference(const ClipBytes& c, int kind, const ClipSwdOptions& o) {
  if (c.frames < 2) fail("clips of one frame have no motion; compare clips of two frames at least (--frames)");
  const int per = std::min(o.per_clip, c.frames);
  return SwdReference(pictures_of(c, kind, per), c.count * per, c.height, c.width, o.swd);
}

}  // namespace

ClipBytes clips_in_memory(const uint8_t* data, int64_t count, int frames, int height, int width) {
  ClipBytes c{count, frames, height, width, {}};
  c.read = [data, bytes = c.bytes()](int64_t i, uint8_t* to) { std::memcpy(to, data + size_t(i) * bytes, bytes); };
  return c;
}

ClipBytes clip_windows(const ClipDataset& data, int per_clip) {
  KILN_ASSERT(per_clip >= 1);
  std::vector<std::pair<size_t, int64_t>> windows;
  for (int k = 0; k < per_clip; k++)
    for (size_t i = 0; i < data.count(); i++) {
      const int64_t room = data.frames_of(i) - data.span(), n = std::min<int64_t>(per_clip, room + 1);
      if (k < n) windows.push_back({i, n == 1 ? 0 : k * room / (n - 1)});
    }
  const int64_t count = int64_t(windows.size());
  return {count, data.frames(), data.size(), data.size(), [&data, windows = std::move(windows)](int64_t i, uint8_t* to) {
            data.read(windows[size_t(i)].first, windows[size_t(i)].second, data.frames(), data.stride(), to);
          }};
}

ClipMotion clip_motion(const ClipBytes& clips) {
  MotionSum sum(clips.frames, int64_t(clips.bytes()) / clips.frames);
  std::vector<uint8_t> clip(clips.bytes());
  for (int64_t i = 0; i < clips.count; i++) {
    clips.read(i, clip.data());
    sum.add(clip.data(), [](uint8_t b) { return b / 127.5 - 1; });
  }
  return sum.result();
}

ClipMotion clip_motion(const Tensor& clips) {
  const Shape s = clips.shape();
  KILN_ASSERT(s.rank() == 5);
  const std::vector<float> v = clips.to_vector();
  const int64_t per = s.count() / s[0];
  MotionSum sum(int(s[1]), per / s[1]);
  for (int64_t i = 0; i < s[0]; i++) sum.add(v.data() + i * per, [](float x) { return double(x); });
  return sum.result();
}

ClipSwdReference::ClipSwdReference(const ClipBytes& real, const ClipSwdOptions& o)
    : options_(o), frames_(real.frames), height_(real.height), width_(real.width), per_clip_(std::min(o.per_clip, real.frames)),
      references_{reference(real, 0, o), reference(real, 1, o), reference(real, 2, o)} {}

ClipSwd ClipSwdReference::compare(const ClipBytes& f) const {
  if (f.frames != frames_ || f.height != height_ || f.width != width_)
    fail("clips of {} frames of {}x{} pixels cannot be compared with clips of {} of {}x{}", f.frames, f.width, f.height, frames_, width_, height_);
  const auto one = [&](int kind) { return references_[kind].compare(pictures_of(f, kind, per_clip_), f.count * per_clip_); };
  return {one(0), one(1), one(2)};
}

ClipSwd ClipSwdReference::baseline() const { return {references_[0].baseline(), references_[1].baseline(), references_[2].baseline()}; }

int64_t ClipSwdReference::clips() const { return (references_[0].pictures() + per_clip_ - 1) / per_clip_; }

std::string ClipSwdReference::description() const {
  return fmt::format("clip SWD: no network; {} moments a clip of {} frames of {}x{} pixels, single frames, steps and spans of {} frames; each: {}", per_clip_,
                     frames_, width_, height_, std::max(1, frames_ / 2), references_[0].description());
}

FeatureSet clip_descriptors(const ClipBytes& c, int side) {
  KILN_ASSERT(side >= 1 && c.height % side == 0 && c.width % side == 0);
  const int bh = c.height / side, bw = c.width / side;
  FeatureSet out{c.count, int64_t(c.frames) * side * side * 3, {}};
  out.values.resize(size_t(out.count * out.dimensions));
  std::vector<uint8_t> clip(c.bytes());
  for (int64_t i = 0; i < c.count; i++) {
    c.read(i, clip.data());
    float* row = out.values.data() + i * out.dimensions;
    for (int t = 0; t < c.frames; t++)
      for (int y = 0; y < c.height; y++)
        for (int x = 0; x < c.width; x++)
          for (int k = 0; k < 3; k++)
            row[((size_t(t) * size_t(side) + size_t(y / bh)) * size_t(side) + size_t(x / bw)) * 3 + size_t(k)] +=
                float(clip[((size_t(t) * size_t(c.height) + size_t(y)) * size_t(c.width) + size_t(x)) * 3 + size_t(k)]);
    for (int64_t k = 0; k < out.dimensions; k++) row[k] /= float(bh * bw);
  }
  return out;
}

ClipCoverage clip_coverage(const FeatureSet& real, const FeatureSet& fake) {
  KILN_ASSERT(real.count >= 2 && fake.count >= 1 && real.dimensions == fake.dimensions);
  const double scale = 1 / std::sqrt(double(real.dimensions));
  const auto mean = [&](const std::vector<double>& v) {
    double sum = 0;
    for (double d : v) sum += d;
    return sum * scale / double(v.size());
  };
  ClipCoverage out;
  const Neighbours n = nearest_neighbours(fake, real, 1);
  out.index = n.index;
  out.nearest = mean(n.distance);
  out.coverage = double(std::set<int64_t>(n.index.begin(), n.index.end()).size()) / double(real.count);
  out.by_chance = 1 - std::pow(1 - 1.0 / double(real.count), double(fake.count));
  const FeatureSet some = real.part(0, std::min(real.count, kMostReal));
  out.real_nearest = mean(nearest_neighbours(some, some, 1, true).distance);
  return out;
}

}  // namespace kiln
