#include "models/sswgan.h"

#include <bit>

#include "engine/error.h"

namespace kiln::sswgan {

const std::vector<std::string>& preset_names() {
  static const std::vector<std::string> names{"ssw-tiny", "ssw-sprites", "ssw-actions", "ssw-128", "ssw-100f", "hvg-48"};
  return names;
}

Config preset_network(const std::string& name) {
  Config c;
  // frames, side, stride, window, widths of G and D
  if (name == "ssw-tiny") {
    c.stages = {{4, 16, 2, 4, 16, 16}, {8, 32, 1, 6, 16, 16}};
    c.z = 32, c.shared_dim = 16, c.d_frames = 4;
  } else if (name == "ssw-sprites") {
    c.stages = {{4, 32, 2, 4, 16, 16}, {8, 64, 1, 8, 16, 16}};
    c.z = 64, c.shared_dim = 32, c.d_frames = 4;
  } else if (name == "ssw-actions") {
    c.stages = {{12, 32, 2, 12, 16, 16}, {24, 64, 1, 12, 16, 16}};
    c.z = 64, c.shared_dim = 32, c.d_frames = 6;
  } else if (name == "ssw-128") {
    c.stages = {{12, 32, 2, 12, 64, 64}, {24, 128, 1, 12, 48, 48}};
  } else if (name == "ssw-100f") {
    c.stages = {{25, 32, 4, 25, 64, 64}, {50, 64, 2, 12, 32, 32}, {100, 128, 1, 12, 32, 32}};
  } else if (name == "hvg-48") {
    c.stages = {{12, 64, 4, 12, 64, 64}, {24, 128, 2, 12, 48, 48}, {48, 256, 1, 12, 32, 32}};
  } else {
    std::string all;
    for (const std::string& n : preset_names()) all += (all.empty() ? "" : ", ") + n;
    fail("--preset {}: not known; use one of {}", name, all);
  }
  return c;
}

std::vector<StageConfig> parse_stages(const std::string& text, const std::vector<StageConfig>& base) {
  std::vector<StageConfig> out;
  for (size_t at = 0; at <= text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    const std::string word = text.substr(at, comma - at);
    at = comma + 1;
    StageConfig s = out.size() < base.size() ? base[out.size()] : base.empty() ? StageConfig{} : base.back();
    s.stride = 1;
    s.window = 0;
    size_t i = 0;
    const auto number = [&] {
      int v = 0;
      const size_t first = i;
      while (i < word.size() && word[i] >= '0' && word[i] <= '9' && i - first < 6) v = v * 10 + (word[i++] - '0');
      if (i == first) fail("--stages {}: '{}' is not FRAMESxSIDE, FRAMESxSIDE/STRIDE or FRAMESxSIDE@WINDOW; for instance 12x32/2,24x64@12", text, word);
      return v;
    };
    s.frames = number();
    if (i >= word.size() || word[i] != 'x') i = word.size() + 1;
    if (i++ < word.size()) s.size = number();
    else fail("--stages {}: '{}' does not say FRAMESxSIDE; for instance 12x32/2,24x64@12", text, word);
    while (i < word.size()) {
      const char mark = word[i++];
      if (mark == '/') s.stride = number();
      else if (mark == '@') s.window = number();
      else fail("--stages {}: '{}' is not FRAMESxSIDE, FRAMESxSIDE/STRIDE or FRAMESxSIDE@WINDOW; for instance 12x32/2,24x64@12", text, word);
    }
    if (s.window == 0) s.window = out.empty() ? s.frames : std::min(s.frames, 12);
    out.push_back(s);
  }
  return out;
}

std::string stages_text(const std::vector<StageConfig>& stages) {
  std::string out;
  bool first = true;
  for (const StageConfig& s : stages) {
    out += fmt::format("{}{}x{}", out.empty() ? "" : ",", s.frames, s.size);
    if (s.stride != 1) out += fmt::format("/{}", s.stride);
    if (s.window != (first ? s.frames : std::min(s.frames, 12))) out += fmt::format("@{}", s.window);
    first = false;
  }
  return out;
}

void check(const Config& c) {
  const auto range = [](const char* flag, double value, double low, double high) {
    if (!(value >= low && value <= high)) fail("{} {}: must be from {} to {}", flag, value, low, high);
  };
  const std::string text = stages_text(c.stages);
  if (c.stages.empty() || c.stages.size() > 6) fail("--stages: {} stages; 1 to 6 are possible", c.stages.size());
  for (int k = 1; k <= c.count(); k++) {
    const StageConfig& s = c.stage(k);
    if (s.size < 16 || s.size > 512 || !std::has_single_bit(unsigned(s.size))) fail("--stages {}: stage {} has a side of {}; 16, 32, 64, ... 512 are possible", text, k, s.size);
    if (s.frames < 2 || s.frames > 4096) fail("--stages {}: stage {} has {} frames; 2 to 4096 are possible", text, k, s.frames);
    if (s.stride < 1 || s.stride > 64) fail("--stages {}: stage {} has a stride of {}; 1 to 64 are possible", text, k, s.stride);
    if (s.window < 2 || s.window > s.frames) fail("--stages {}: stage {} is trained on {} of its {} frames; 2 to {} are possible", text, k, s.window, s.frames, s.frames);
    range("--g-width", s.g_width, 4, 512);
    range("--d-width", s.d_width, 4, 512);
    if (k == 1) {
      if (s.window != s.frames) fail("--stages {}: stage 1 is trained on whole clips; leave its @{} out", text, s.window);
      continue;
    }
    const StageConfig& before = c.stage(k - 1);
    if (s.size != 2 * before.size && s.size != 4 * before.size) fail("--stages {}: stage {} makes {} px of {}; it can double or quadruple sides", text, k, s.size, before.size);
    if (before.stride % s.stride || before.stride / s.stride > 4) fail("--stages {}: stage {} has a stride of {} after one of {}; it can keep it, or make it 2 to 4 times smaller", text, k, s.stride, before.stride);
    if (s.frames * s.stride != before.frames * before.stride) fail("--stages {}: stage {} has {} frames of stride {}, and stage {} {} of stride {}: they are not clips of one length", text, k, s.frames, s.stride, k - 1, before.frames, before.stride);
    if (s.window % c.rho(k)) fail("--stages {}: stage {} is trained on {} frames, which are no whole number of frames of stage {}, {} of its own each", text, k, s.window, k - 1, c.rho(k));
  }
  if (c.stages.back().stride != 1) fail("--stages {}: the last stage has a stride of {}; it must be 1 (--stride leaves frames of the data out)", text, c.stages.back().stride);
  if (c.classes < 0 || c.classes > 100000) fail("{} classes: at most 100000", c.classes);
  range("--z", c.z, 1, 65536);
  range("--shared-dim", c.shared_dim, 1, 65536);
  range("--d-frames", c.d_frames, 1, 64);
  range("--gru-truncate", c.gru_truncate, 0, 4096);
}

Var view(const Var& clips, int stride, int shrink) {
  const int64_t t = clips.shape()[1];
  const Var frames = stride == 1 ? clips : take_frames(clips, 0, stride, (t + stride - 1) / stride);
  return shrink == 1 ? frames : clip_pool(frames, 1, shrink);
}

}  // namespace kiln::sswgan
