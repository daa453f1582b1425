#include "models/sswgan_sampler.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "engine/error.h"
#include "engine/file.h"
#include "engine/hash.h"
#include "engine/picture_tensor.h"
#include "models/sswgan_run.h"

namespace kiln::sswgan {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr uint64_t kStandingSeed = 1ull << 40;  // seeds that nobody asks for

Labels labels_of(const Config& c, const std::vector<ClipDraw>& draws) {
  Labels l;
  if (!c.conditional()) return l;
  std::vector<int32_t> v;
  for (const ClipDraw& d : draws) v.push_back(d.label);
  l.a = Tensor(Shape{int64_t(v.size())}, DType::i32);
  l.a.upload(v.data());
  return l;
}

Labels one_label(const Labels& all, int64_t i) {
  Labels l;
  if (all.a) l.a = all.a.slice(i, Shape{1});
  return l;
}

}  // namespace

Tensor enlarge_clips(FixedStage& stage, const Tensor& z, const Labels& labels, const Tensor& condition, int rho, int64_t chunk) {
  const int64_t n = condition.shape()[0], t = condition.shape()[1], radius = stage.generator().radius();
  if (chunk <= 0 || chunk >= t) return stage.clips(z, labels, condition);
  Tensor out;
  for (int64_t i = 0; i < n; i++) {
    const Tensor whole = take_rows(Var(condition), i, 1).value, own_z = take_rows(Var(z), i, 1).value;
    for (int64_t a = 0; a < t; a += chunk) {
      const int64_t b = std::min(t, a + chunk), low = std::max<int64_t>(0, a - radius), high = std::min(t, b + radius);
      const Tensor part = stage.clips(own_z, one_label(labels, i), take_frames(Var(whole), low, 1, high - low).value);
      const Tensor kept = take_frames(Var(part), (a - low) * rho, 1, (b - a) * rho).value;
      if (!out) out = Tensor(Shape{n, t * rho, part.shape()[2], part.shape()[3], part.shape()[4]});
      const int64_t frame = part.shape()[2] * part.shape()[3] * part.shape()[4];
      copy(kept, out.slice((i * t + a) * rho * frame, kept.shape()));
    }
  }
  return out;
}

Sampler::Sampler(const fs::path& run, const SamplerOptions& options) : options_(options) {
  int last = options.stage;
  if (last == 0)
    for (int k = 1; !newest_checkpoint(run, k).empty(); k++) last = k;
  if (last == 0) fail("{}: no stage of an SSW-GAN has a checkpoint here; train one with sswgan_train DIR --out {}", run.string(), run.string());
  const fs::path newest = options.checkpoint.empty() ? newest_checkpoint(run, last) : options.checkpoint;
  if (newest.empty()) fail("{}: stage {} has no checkpoint; train it first", run.string(), last);
  context_ = std::make_unique<Context>(options.device, false, size_t(options.memory_gb * double(1ull << 30)));
  const UseContext use(*context_);
  std::string trained_on;  // from the last stage down: each names the weights that it was trained on
  for (int k = last; k >= 1; k--) {
    const SafetensorsFile file(k == last ? newest : fed_checkpoint(run, k + 1, trained_on));
    const RunOptions o = from_json(metadata_text(file, "config"), file.path());
    if (o.stage != k || k > o.network.count()) fail("{}: is not of stage {}", file.path(), k);
    if (k == last) {
      config_ = o.network;
      classes_ = o.class_names;
      step_ = metadata_integer(file, "step");
      check(config_);
    } else if (!o.network.stage(k).same_clips(config_.stage(k)) || o.class_names != classes_ || o.network.z != config_.z) {
      fail("{}: is of another network than stage {}", file.path(), k + 1);
    }
    config_.stages[size_t(k - 1)] = o.network.stage(k);  // with the widths and the window that are its own
    trained_on = o.fed_weights;
    auto stage = std::make_unique<FixedStage>(o.network, k);
    stage->load(file);
    stages_.insert(stages_.begin(), std::move(stage));
    standing_batch_.insert(standing_batch_.begin(), o.batch / o.train.parts);
  }
  stand();
}

Sampler::~Sampler() {
  const UseContext use(*context_);
  stages_.clear();
}

/// Standing statistics, the first stage's first, whose clips the second's are made of. A later stage sees windows, as in training. The
/// batches are training's, so that a clip does not depend on how many are made at a time.
void Sampler::stand() {
  if (options_.standing == 0) return;
  for (int k = 1; k <= stages(); k++) {
    const int n = standing_batch_[size_t(k - 1)];
    stages_[size_t(k - 1)]->stand(options_.standing, [&](int batch, Generator& g) {
      std::vector<ClipDraw> draws;
      std::vector<uint64_t> seeds;
      for (int i = 0; i < n; i++) {
        const uint64_t number = uint64_t(batch) * uint64_t(n) + uint64_t(i);
        seeds.push_back(kStandingSeed + number);
        draws.push_back({seeds.back(), int(number % uint64_t(std::max(config_.classes, 1)))});
      }
      Tensor condition;
      if (k > 1) {
        Scoped<bool> evaluation(&Context::training, false);
        const int64_t w = config_.stage(k).window / config_.rho(k), all = config_.stage(k - 1).frames;
        condition = take_frames(Var(clips(draws, k - 1, 0)), (batch * 7) % (all - w + 1), 1, w).value;
      }
      PictureSeeds random(seeds);
      g(random.normal("z." + std::to_string(k), Shape{n, config_.z}), labels_of(config_, draws), condition);
    });
  }
}

int64_t Sampler::frames(int stage, int64_t first_frames) const {
  if (stage == 0) stage = stages();
  return (first_frames ? first_frames : config_.stage(1).frames) * (config_.stage(1).stride / config_.stage(stage).stride);
}

Tensor Sampler::clips(const std::vector<ClipDraw>& draws, int stage, int64_t first_frames) {
  std::vector<uint64_t> seeds;
  for (const ClipDraw& d : draws) seeds.push_back(d.seed);
  PictureSeeds random(seeds);
  const Labels labels = labels_of(config_, draws);
  const auto z = [&](int k) { return random.normal("z." + std::to_string(k), Shape{int64_t(draws.size()), config_.z}); };
  Tensor x = stages_[0]->clips(z(1), labels, Tensor(), first_frames);
  for (int k = 2; k <= stage; k++) x = enlarge_clips(*stages_[size_t(k - 1)], z(k), labels, x, config_.rho(k), options_.chunk);
  return x;
}

std::vector<float> Sampler::numbers(const std::vector<ClipDraw>& draws, int stage, int64_t first_frames) {
  if (stage == 0) stage = stages();
  if (stage < 0 || stage > stages()) fail("stage {}: this run has {}", stage, stages());
  const UseContext use(*context_);
  std::vector<float> out;
  for (size_t first = 0; first < draws.size(); first += size_t(options_.batch)) {
    const std::vector<ClipDraw> some(draws.begin() + int64_t(first), draws.begin() + int64_t(std::min(draws.size(), first + size_t(options_.batch))));
    const std::vector<float> v = clips(some, stage, first_frames).to_vector();
    out.insert(out.end(), v.begin(), v.end());
  }
  return out;
}

std::vector<Clip> Sampler::render(const std::vector<ClipDraw>& draws, int stage, int64_t first_frames) {
  if (stage == 0) stage = stages();
  const std::vector<float> v = numbers(draws, stage, first_frames);
  const UseContext use(*context_);
  const int64_t side = config_.stage(stage).size, t = frames(stage, first_frames), count = t * side * side * 3;
  std::vector<Clip> out;
  for (size_t i = 0; i < draws.size(); i++) {
    const auto first = v.begin() + int64_t(i) * count;
    out.push_back(to_pictures(from_vector(Shape{t, side, side, 3}, std::vector<float>(first, first + count))));
  }
  return out;
}

int Sampler::class_number(const std::string& name) const {
  for (size_t i = 0; i < classes_.size(); i++)
    if (classes_[i] == name) return int(i);
  if (!name.empty() && name.size() < 7 && name.find_first_not_of("0123456789") == std::string::npos && size_t(std::stoi(name)) < classes_.size()) return std::stoi(name);
  std::string all;
  for (const std::string& c : classes_) all += (all.empty() ? "" : ", ") + c;
  fail("the class '{}' is not known: {}", name, classes_.empty() ? "these generators are unconditional" : "there are " + all);
}

// ---- the run's directory --------------------------------------------------------------------------------------------

fs::path stage_folder(const fs::path& run, int stage) { return run / ("stage" + std::to_string(stage)); }

namespace {

/// A stage's checkpoints by their steps.
std::map<int64_t, fs::path> checkpoints_of(const fs::path& run, int stage) {
  std::map<int64_t, fs::path> all;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(stage_folder(run, stage) / "checkpoints", none)) {
    const std::string name = entry.path().stem().string();
    if (entry.path().extension() != ".safetensors" || name.empty() || name.size() > 12 || name.find_first_not_of("0123456789") != std::string::npos) continue;
    all[std::stoll(name)] = entry.path();
  }
  return all;
}

bool has_weights(const fs::path& checkpoint, const std::string& hash) {
  try {
    return fs::exists(checkpoint) && weights_hash(SafetensorsFile(checkpoint)) == hash;
  } catch (const Error&) {
    return false;  // a broken file has no weights
  }
}

}  // namespace

fs::path newest_checkpoint(const fs::path& run, int stage) {
  const std::map<int64_t, fs::path> all = checkpoints_of(run, stage);
  return all.empty() ? fs::path() : all.rbegin()->second;
}

std::string weights_hash(const SafetensorsFile& file) {
  Hash64 hash;
  for (const TensorView& t : file.tensors()) {
    if (!t.name.starts_with("ema.")) continue;
    hash.update(t.name.data(), t.name.size());
    hash.update(t.data, t.bytes);
  }
  return fmt::format("{:016x}", hash.value());
}

std::vector<ManifestStage> read_manifest(const fs::path& run) {
  std::vector<ManifestStage> out;
  const fs::path path = run / "manifest.json";
  if (!fs::exists(path)) return out;
  const std::vector<uint8_t> bytes = read_file(path, 1 << 20);
  try {
    const json j = json::parse(bytes.begin(), bytes.end());
    for (const json& s : j.at("stages")) {
      ManifestStage m{s.at("stage"), s.at("checkpoint"), s.at("weights"), "", ""};
      if (s.contains("trained_on")) {
        m.fed_checkpoint = s.at("trained_on").at("checkpoint");
        m.fed_weights = s.at("trained_on").at("weights");
      }
      out.push_back(m);
    }
  } catch (const json::exception& e) {
    fail("{}: cannot be read ({})", path.string(), e.what());
  }
  return out;
}

void write_manifest(const fs::path& run, const Config& c, const std::vector<ManifestStage>& stages) {
  json list = json::array();
  for (const ManifestStage& m : stages) {
    json s{{"stage", m.stage}, {"checkpoint", m.checkpoint}, {"weights", m.weights}};
    if (!m.fed_checkpoint.empty()) s["trained_on"] = {{"stage", m.stage - 1}, {"checkpoint", m.fed_checkpoint}, {"weights", m.fed_weights}};
    list.push_back(std::move(s));
  }
  const std::string text = json{{"model", "sswgan"}, {"sizes", stages_text(c.stages)}, {"stages", std::move(list)}}.dump(2) + "\n";
  AtomicFile file(run / "manifest.json", text.size());
  file.write(text.data(), text.size());
  file.commit();
}

fs::path fed_checkpoint(const fs::path& run, int stage, const std::string& trained_on) {
  for (const ManifestStage& m : read_manifest(run))
    if (m.stage == stage && m.fed_weights == trained_on && has_weights(run / m.fed_checkpoint, trained_on)) return run / m.fed_checkpoint;
  const std::map<int64_t, fs::path> all = checkpoints_of(run, stage - 1);
  for (auto i = all.rbegin(); i != all.rend(); i++)
    if (has_weights(i->second, trained_on)) return i->second;
  fail("{}: stage {} was trained on clips of stage {} with weights {}, which none of its {} checkpoints has: put that stage back as it was, or remove {} "
       "and train stage {} anew", run.string(), stage, stage - 1, trained_on, all.size(), stage_folder(run, stage).string(), stage);
}

}  // namespace kiln::sswgan
