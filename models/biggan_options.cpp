// BigGAN's presets, the run options' JSON form and their limits.
#include <nlohmann/json.hpp>

#include "engine/error.h"
#include "engine/precision.h"
#include "models/biggan_run.h"
#include "models/nsbgan_band_json.h"

namespace kiln::biggan {

using nlohmann::json;

RunOptions preset(const std::string& name) {
  RunOptions o;
  o.preset = name;
  Config& n = o.network;
  TrainOptions& t = o.train;
  if (name == "small") {  // ours: a few hundred to a few thousand pictures, on a CPU
    n.size = 32;
    n.g_width = n.d_width = 16;
    n.z = 80;
    n.shared_dim = 32;
    n.g_attention = n.d_attention = 0;
    t.adam_g = {2e-4f, 0.f, 0.999f, 1e-6f};
    t.adam_d = {4e-4f, 0.f, 0.999f, 1e-6f};
    t.ema = {0.999f, true};
    o.augment = "color,translation";
    o.batch = 32;
  } else if (name == "cifar") {  // the public CIFAR-10 script
    n.size = 32;
    n.z = 128;
    n.shared = n.hierarchical = false;
    n.g_attention = n.d_attention = 0;
    n.init = InitKind::normal;
    t.adam_g = t.adam_d = {2e-4f, 0.f, 0.999f, 1e-8f};
    t.ema.start = 1000;
    t.d_steps = 4;
    o.batch = 50;
    o.flip = 0;
  } else if (name == "64" || name == "128" || name == "256") {  // the public ImageNet script, and its batch of 2048 in parts
    n.size = std::stoi(name);
    n.g_width = n.d_width = name == "64" ? 64 : 96;
    n.z = name == "256" ? 140 : 120;
    n.g_attention = n.d_attention = name == "64" ? 32 : 64;
    t.ema.start = name == "64" ? 1000 : 20000;
    o.batch = name == "64" ? 256 : 2048;
    t.parts = name == "64" ? 1 : name == "128" ? 8 : 32;
  } else {
    fail("--preset {}: not known; use small, cifar, 64, 128 or 256", name);
  }
  t.augment = augment_policy(o.augment);
  return o;
}

RunOptions band_preset(const std::string& name) {
  if (name != "small" && name != "64-256" && name != "128-512") fail("--preset {}: not known; use small, 64-256 or 128-512", name);
  RunOptions o = preset(name == "small" ? "small" : name == "64-256" ? "64" : "128");
  o.preset = name;
  o.band = nsbgan::Band{.wavelet = name == "small" ? Wavelet::haar : Wavelet::bior22, .levels = 2, .picture_size = 4 * o.network.size};
  o.measure_band = true;
  if (name == "small") return o;
  // The public script: one network for bands of 64 px, wide and with a batch of 1024 in parts of 256; the wide one of 128 px is BigGAN's own.
  o.network.g_width = o.network.d_width = 96;
  o.network.z = 120;
  o.train.ema.start = 20000;
  if (name == "64-256") {
    o.batch = 1024;
    o.train.parts = 4;
  }
  return o;
}

namespace {

constexpr const char* kBandModel = "nsbgan-sampler";
const char* const kInits[] = {"orthogonal", "normal", "xavier"};

/// Calls f(key, value) for every plain option; `paths` adds those that do not make the run what it is.
template <class Options, class F>
void fields(Options& o, bool paths, F f) {
  auto& n = o.network;
  auto& t = o.train;
  f("preset", o.preset);
  f("size", n.size);
  f("g_width", n.g_width);
  f("d_width", n.d_width);
  f("deep", n.deep);
  f("z", n.z);
  f("shared", n.shared);
  f("shared_dim", n.shared_dim);
  f("hierarchical", n.hierarchical);
  f("g_attention", n.g_attention);
  f("d_attention", n.d_attention);
  f("bn_eps", n.bn_eps);
  f("fold", n.fold);
  f("g_lr", t.adam_g.lr);
  f("g_beta1", t.adam_g.beta1);
  f("g_beta2", t.adam_g.beta2);
  f("d_lr", t.adam_d.lr);
  f("d_beta1", t.adam_d.beta1);
  f("d_beta2", t.adam_d.beta2);
  f("adam_eps", t.adam_g.eps);
  f("ema_decay", t.ema.decay);
  f("ema_warmup", t.ema.warm_up);
  f("ema_start", t.ema.start);
  f("d_steps", t.d_steps);
  f("accumulate", t.parts);
  f("ortho_g", t.ortho_g);
  f("ortho_d", t.ortho_d);
  f("augment", o.augment);
  f("batch", o.batch);
  f("flip", o.flip);
  f("seed", o.seed);
  f("standing", o.standing);
  f("unconditional", o.unconditional);
  f("class_names", o.class_names);
  if (!paths) return;
  f("steps", o.steps);
  f("log_every", o.log_every);
  f("sample_every", o.sample_every);
  f("metric_every", o.metric_every);
  f("checkpoint_every", o.checkpoint_every);
  f("keep", o.keep);
  f("grid", o.grid);
  f("class_metric", o.class_metric);
  f("commands", o.commands);
  f("tf32", o.library.tf32);
  f("deterministic", o.library.deterministic);
  f("autotune", o.library.autotune);
  f("max_rewinds", o.max_rewinds);
  f("rewinds", o.rewinds);
}

}  // namespace

std::string to_json(const RunOptions& o, bool with_paths) {
  json j{{"model", o.band ? kBandModel : "biggan"}};
  if (o.band) j["band"] = *o.band;
  fields(o, with_paths, [&](const char* key, const auto& value) { j[key] = value; });
  j["init"] = kInits[int(o.network.init)];
  j["ortho_form"] = o.train.ortho_form == OrthogonalForm::off_diagonal ? "off-diagonal" : "full";
  j["precision"] = name_of(o.precision);
  j["fit"] = fit_name(o.fit);
  j["background"] = {o.background.r, o.background.g, o.background.b};
  if (with_paths) {
    j["data"] = o.data.string();
    j["device"] = name_of(o.device);
    j["on_collapse"] = name_of(o.on_collapse);
    j["sync_norm"] = o.sync_norm;
  }
  return j.dump(2, ' ', false, json::error_handler_t::replace);  // a path need not be UTF-8
}

RunOptions from_json(const std::string& text, const std::string& source, bool of_band) {
  try {
    const json j = json::parse(text);
    if (j.at("model") == kBandModel && !of_band)
      fail("{}: is a sampler of NSB-GAN, which makes bands and not pictures; use nsbgan_train sampler and nsbgan_sample", source);
    if (j.at("model") != (of_band ? kBandModel : "biggan"))
      fail("{}: is of the model '{}', not of {}; use that model's program", source, j.at("model").get<std::string>(), of_band ? "NSB-GAN's sampler" : "biggan");
    RunOptions o;
    if (of_band) o.band = j.at("band").get<nsbgan::Band>();
    fields(o, j.contains("data"), [&](const char* key, auto& value) { j.at(key).get_to(value); });
    o.train.adam_d.eps = o.train.adam_g.eps;
    o.network.classes = int(o.class_names.size());
    for (int i = 0; i < 3; i++)
      if (j.at("init") == kInits[i]) o.network.init = InitKind(i);
    o.train.ortho_form = j.at("ortho_form") == "full" ? OrthogonalForm::full : OrthogonalForm::off_diagonal;
    o.train.augment = augment_policy(o.augment);
    o.precision = precision_from_name(j.at("precision"), Device::cpu);
    o.fit = fit_from_name(j.at("fit").get<std::string>());
    const json& b = j.at("background");
    o.background = {b.at(0), b.at(1), b.at(2)};
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
  if (o.band) {
    nsbgan::check(*o.band);
    const int side = o.band->size();
    if (side < 32 || side > 1024 || (side & (side - 1)))
      fail("--size {} with --levels {}: the band has {} px, and the sampler makes 32, 64, 128, 256, 512 or 1024; change one of them", o.band->picture_size,
           o.band->levels, side);
    KILN_ASSERT(o.network.size == side);
  }
  check(o.network);
  check_range("--batch", o.batch, 2, 65536);
  check_parts(o, o.train.parts);
  check_range("--d-steps", o.train.d_steps, 1, 100);
  for (const auto& [flag, adam] : {std::pair{"--g-lr", o.train.adam_g}, std::pair{"--d-lr", o.train.adam_d}})
    check_range(flag, double(adam.lr), 1e-9, 1);
  for (const AdamOptions& a : {o.train.adam_g, o.train.adam_d}) {
    check_range("--beta1", double(a.beta1), 0, 0.9999);
    check_range("--beta2", double(a.beta2), 0, 0.999999);
    check_range("--adam-eps", double(a.eps), 0, 1);
  }
  check_range("--ema-decay", double(o.train.ema.decay), 0, 0.9999999);
  check_range("--ema-start", double(o.train.ema.start), 0, 1e9);
  check_range("--ortho-g", double(o.train.ortho_g), 0, 100);
  check_range("--ortho-d", double(o.train.ortho_d), 0, 100);
  check_range("--standing", o.standing, 0, 100000);
  check_training(o);
}

}  // namespace kiln::biggan
