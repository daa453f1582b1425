// SSW-GAN's presets, the run options' JSON form and their limits.
#include <nlohmann/json.hpp>

#include "engine/error.h"
#include "engine/precision.h"
#include "models/sswgan_run.h"

namespace kiln::sswgan {

using nlohmann::json;

RunOptions preset(const std::string& name) {
  RunOptions o;
  o.preset = name;
  o.network = preset_network(name);
  o.metric_every = 250;
  o.sample_every = 250;
  o.checkpoint_every = 500;
  o.steps = 2000;
  // Scores are sums over frames and pixels: at the rates that BigGAN's small preset has they swing by more than the hinge's margin a step.
  o.train.adam_g.lr = o.train.adam_d.lr = 1e-4f;
  o.train.d_steps = 2;
  o.network.gru_tanh = true;  // with relu the small networks made nearly one clip of every z
  if (name == "ssw-128" || name == "ssw-100f" || name == "hvg-48") {  // for a GPU: the rates of DVD-GAN
    o.network.gru_tanh = false;
    o.train.adam_d.lr = 5e-4f;
    o.train.ema = {0.9999f, true};
    o.steps = 50000;
    o.sample_every = o.metric_every = o.checkpoint_every = 1000;
  }
  o.train.augment = augment_policy(o.augment);
  return o;
}

namespace {

const char* const kInits[] = {"orthogonal", "normal", "xavier"};

/// Calls f(key, value) for every plain option; `paths` adds those that do not make the run what it is.
template <class Options, class F>
void fields(Options& o, bool paths, F f) {
  auto& n = o.network;
  auto& t = o.train;
  f("preset", o.preset);
  f("stage", o.stage);
  f("z", n.z);
  f("shared_dim", n.shared_dim);
  f("d_frames", n.d_frames);
  f("gru_tanh", n.gru_tanh);
  f("gru_truncate", n.gru_truncate);
  f("residual", n.residual);
  f("matching", n.matching);
  f("bn_eps", n.bn_eps);
  f("g_lr", t.adam_g.lr);
  f("g_beta1", t.adam_g.beta1);
  f("g_beta2", t.adam_g.beta2);
  f("d_lr", t.adam_d.lr);
  f("d_beta1", t.adam_d.beta1);
  f("d_beta2", t.adam_d.beta2);
  f("adam_eps", t.adam_g.eps);
  f("ema_decay", t.ema.decay);
  f("ema_warmup", t.ema.warm_up);
  f("d_steps", t.d_steps);
  f("accumulate", t.parts);
  f("spatial_weight", t.spatial);
  f("temporal_weight", t.temporal);
  f("matching_weight", t.matching.weight);
  f("matching_noise", t.matching.noise);
  f("matching_label", t.matching.label);
  f("matching_drop", t.matching.drop);
  f("matching_blur", t.matching.blur);
  f("matching_mismatch", t.matching.mismatch);
  f("condition_noise", t.condition_noise);
  f("augment", o.augment);
  f("batch", o.batch);
  f("flip", o.flip);
  f("seed", o.seed);
  f("standing", o.standing);
  f("kept_conditions", o.kept_conditions);
  f("chunk", o.chunk);
  f("by_class", o.by_class);
  f("class_names", o.class_names);
  f("frame_stride", o.frame_stride);
  f("trained_on", o.fed_weights);
  if (!paths) return;
  f("trained_on_checkpoint", o.fed_checkpoint);
  f("steps", o.steps);
  f("log_every", o.log_every);
  f("sample_every", o.sample_every);
  f("metric_every", o.metric_every);
  f("checkpoint_every", o.checkpoint_every);
  f("keep", o.keep);
  f("grid", o.grid);
  f("commands", o.commands);
  f("tf32", o.library.tf32);
  f("deterministic", o.library.deterministic);
  f("autotune", o.library.autotune);
  f("max_rewinds", o.max_rewinds);
  f("rewinds", o.rewinds);
}

}  // namespace

std::string to_json(const RunOptions& o, bool with_paths) {
  json j{{"model", "sswgan"}};
  fields(o, with_paths, [&](const char* key, const auto& value) { j[key] = value; });
  j["stages"] = stages_text(o.network.stages);
  json g = json::array(), d = json::array();
  for (const StageConfig& s : o.network.stages) {
    g.push_back(s.g_width);
    d.push_back(s.d_width);
  }
  j["g_width"] = g;
  j["d_width"] = d;
  j["init"] = kInits[int(o.network.init)];
  j["precision"] = name_of(o.precision);
  j["fit"] = fit_name(o.fit);
  j["background"] = {o.background.r, o.background.g, o.background.b};
  j["clip_pictures"] = clip_pictures_name(o.clip_pictures);
  if (with_paths) {
    j["data"] = o.data.string();
    j["device"] = name_of(o.device);
    j["on_collapse"] = name_of(o.on_collapse);
    j["sync_norm"] = o.sync_norm;
  }
  return j.dump(2, ' ', false, json::error_handler_t::replace);  // a path need not be UTF-8
}

RunOptions from_json(const std::string& text, const std::string& source) {
  try {
    const json j = json::parse(text);
    if (j.at("model") != "sswgan") fail("{}: is of the model '{}', not of sswgan; use that model's program", source, j.at("model").get<std::string>());
    RunOptions o;
    fields(o, j.contains("data"), [&](const char* key, auto& value) { j.at(key).get_to(value); });
    o.train.adam_d.eps = o.train.adam_g.eps;
    o.network.classes = int(o.class_names.size());
    o.network.stages = parse_stages(j.at("stages").get<std::string>(), {});
    for (size_t i = 0; i < o.network.stages.size(); i++) {
      o.network.stages[i].g_width = j.at("g_width").at(i);
      o.network.stages[i].d_width = j.at("d_width").at(i);
    }
    for (int i = 0; i < 3; i++)
      if (j.at("init") == kInits[i]) o.network.init = InitKind(i);
    o.train.augment = augment_policy(o.augment);
    o.precision = precision_from_name(j.at("precision"), Device::cpu);
    o.fit = fit_from_name(j.at("fit").get<std::string>());
    const json& b = j.at("background");
    o.background = {b.at(0), b.at(1), b.at(2)};
    o.clip_pictures = clip_pictures_from_name(j.at("clip_pictures").get<std::string>());
    o.sync_norm = j.value("sync_norm", true);
    if (j.contains("data")) {
      o.data = j.at("data").get<std::string>();
      o.device = j.at("device") == "gpu" ? Device::gpu : Device::cpu;
      o.on_collapse = on_collapse_from_name(j.at("on_collapse").get<std::string>());
    }
    return o;
  } catch (const json::exception& e) {
    fail("{}: its configuration cannot be read ({}); was it written by another version of kiln?", source, e.what());
  }
}

void check(const RunOptions& o) {
  check(o.network);
  const TrainOptions& t = o.train;
  const MatchingOptions& m = t.matching;
  if (o.stage < 1 || o.stage > o.network.count()) fail("--stage {}: there are stages 1 to {} ({})", o.stage, o.network.count(), stages_text(o.network.stages));
  check_range("--batch", o.batch, 2, 65536);
  check_parts(o, t.parts);
  check_range("--d-steps", t.d_steps, 1, 100);
  for (const auto& [flag, adam] : {std::pair{"--g-lr", t.adam_g}, std::pair{"--d-lr", t.adam_d}}) {
    check_range(flag, double(adam.lr), 1e-9, 1);
    check_range("--beta1", double(adam.beta1), 0, 0.9999);
    check_range("--beta2", double(adam.beta2), 0, 0.999999);
    check_range("--adam-eps", double(adam.eps), 0, 1);
  }
  check_range("--ema-decay", double(t.ema.decay), 0, 0.9999999);
  check_range("--spatial-weight", double(t.spatial), 0, 1000);
  check_range("--temporal-weight", double(t.temporal), 0, 1000);
  check_range("--dm-weight", double(m.weight), 0, 1000);
  check_range("--dm-noise", double(m.noise), 0, 10);
  check_range("--dm-label", double(m.label), 0.01, 1);
  check_range("--dm-drop", double(m.drop), 0, 1);
  check_range("--dm-mismatch", double(m.mismatch), 0, 0.95);
  if (m.mismatch > 0 && o.batch / (t.parts * o.rank_count()) < 2)
    fail("--dm-mismatch {}: takes another clip of the same part of a batch, and each has one only; use a larger --batch, or --dm-mismatch 0", m.mismatch);
  check_range("--cond-aug", double(t.condition_noise), 0, 1);
  check_range("--standing", o.standing, 0, 100000);
  check_range("--cond-clips", o.kept_conditions, 0, 1e6);
  check_range("--chunk", o.chunk, 0, 1e6);
  check_range("--stride", o.frame_stride, 1, 1000);
  check_training(o);
}

}  // namespace kiln::sswgan
