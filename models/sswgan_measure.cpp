#include "models/sswgan_measure.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "engine/error.h"
#include "engine/watch.h"

namespace kiln::sswgan {
namespace {

using Clips = std::vector<std::vector<Picture>>;

std::vector<uint8_t> frame_bytes(const Clips& clips) {
  std::vector<uint8_t> out;
  for (const auto& clip : clips)
    for (const Picture& p : clip) out.insert(out.end(), p.rgb.begin(), p.rgb.end());
  return out;
}

/// Half of what a frame adds to the one before, on middle grey.
std::vector<uint8_t> difference_bytes(const Clips& clips) {
  std::vector<uint8_t> out;
  for (const auto& clip : clips)
    for (size_t t = 1; t < clip.size(); t++)
      for (size_t i = 0; i < clip[t].rgb.size(); i++) out.push_back(uint8_t(128 + (int(clip[t].rgb[i]) - int(clip[t - 1].rgb[i])) / 2));
  return out;
}

/// Of the middle frames.
double spread(const Clips& clips) {
  std::vector<Picture> middles;
  for (size_t i = 0; i < clips.size() && i < 64; i++) middles.push_back(fit_picture(clips[i][clips[i].size() / 2], kDiversitySide, Fit::squash));
  return mean_pairwise_distance(middles);
}

}  // namespace

double motion_energy(const Clips& clips) {
  double sum = 0;
  int64_t count = 0;
  for (const auto& clip : clips)
    for (size_t t = 1; t < clip.size(); t++) {
      int64_t differences = 0;
      for (size_t i = 0; i < clip[t].rgb.size(); i++) differences += std::abs(int(clip[t].rgb[i]) - int(clip[t - 1].rgb[i]));
      sum += double(differences) / 127.5;
      count += int64_t(clip[t].rgb.size());
    }
  return count ? sum / double(count) : 0;
}

double frame_diversity(const Clips& clips) {
  double sum = 0;
  for (const auto& clip : clips) sum += mean_pairwise_distance(clip);
  return clips.empty() ? 0 : sum / double(clips.size());
}

ClipDistance::ClipDistance(const Clips& real) {
  KILN_ASSERT(!real.empty() && real[0].size() >= 2);
  const int side = real[0][0].width;
  const int64_t t = int64_t(real[0].size()), n = int64_t(real.size());
  frames_ = std::make_unique<SwdReference>(frame_bytes(real).data(), n * t, side, side);
  differences_ = std::make_unique<SwdReference>(difference_bytes(real).data(), n * (t - 1), side, side);
  clips_ = std::max((frames_->pictures() + t - 1) / t, (differences_->pictures() + t - 2) / (t - 1));
  baseline_ = (frames_->baseline().mean + differences_->baseline().mean) / 2;
  real_motion_ = motion_energy(real);
  real_frames_ = frame_diversity(real);
  real_spread_ = spread(real);
  description_ = fmt::format("clip distance: mean of the sliced Wasserstein distances of frames and of frame differences, {} clips of {} frames of {} px on "
                             "each side; real against real {:.1f}", clips_, t, side, baseline_);
}

double ClipDistance::compare(const Clips& generated, std::vector<std::pair<std::string, double>>& log) const {
  const int64_t t = int64_t(generated.at(0).size()), n = int64_t(generated.size());
  const double frames = frames_->compare(frame_bytes(generated).data(), n * t).mean, motion = differences_->compare(difference_bytes(generated).data(), n * (t - 1)).mean;
  const double distance = (frames + motion) / 2;
  log.insert(log.end(), {{"clip_distance", distance},
                         {"clip_distance_baseline", baseline_},
                         {"swd_frames", frames},
                         {"swd_frames_baseline", frames_->baseline().mean},
                         {"swd_motion", motion},
                         {"swd_motion_baseline", differences_->baseline().mean},
                         {"motion_energy", motion_energy(generated)},
                         {"motion_energy_baseline", real_motion_},
                         {"frame_diversity", real_frames_ > 0 ? frame_diversity(generated) / real_frames_ : 0}});
  if (real_spread_ > 0 && n > 1) log.emplace_back("diversity", spread(generated) / real_spread_);
  return distance;
}

}  // namespace kiln::sswgan
