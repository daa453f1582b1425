// The decoders' presets, the run options' JSON form and their limits.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/error.h"
#include "engine/hash.h"
#include "engine/precision.h"
#include "models/nsbgan_band_json.h"
#include "models/nsbgan_decoder_run.h"

namespace kiln::nsbgan::decoding {

using nlohmann::json;

RunOptions preset(const std::string& name, DecoderKind kind, Domain domain, bool gan) {
  RunOptions o;
  o.preset = name;
  DecoderConfig& n = o.network;
  n.kind = kind;
  const bool small = name == "small", unet = kind == DecoderKind::unet, wavelet = domain == Domain::wavelet;
  n.band.domain = domain;
  n.band.wavelet = small ? Wavelet::haar : Wavelet::bior22;
  n.band.levels = 2;
  if (small)  // ours: a few hundred pictures, on a CPU in minutes
    n.band.picture_size = 128;
  else if (name == "64-256")
    n.band.picture_size = 256;
  else if (name == "128-512")
    n.band.picture_size = 512;
  else
    fail("--preset {}: not known; use small, 64-256 or 128-512", name);
  TrainOptions& t = o.train;
  t.gan = gan;
  if (unet) {
    n.width = small ? (wavelet ? 48 : 16) : wavelet ? 512 : 64;
    const float lr = small || !wavelet ? 1e-3f : 1e-4f;
    t.adam_g = t.adam_d = {lr, 0.9f, 0.999f, 1e-8f};
    o.batch = small ? 16 : 64;
    o.flip = small ? 0.5 : 0;
    o.steps = small ? 4000 : 200000;
  } else {
    n.width = small ? 32 : 64;
    n.blocks = small ? 4 : 16;
    o.d_width = small ? 16 : 64;
    t.adam_g = t.adam_d = {small && !gan ? 1e-3f : 1e-4f, 0.9f, 0.99f, 1e-8f};
    o.batch = small ? 8 : 32;
    o.flip = small ? 0.5 : 0;
    o.steps = small ? 4000 : 150000;
    if (!gan) o.lr_period = small ? 4000 : 250000;
    if (gan && !small) o.halve_at = {50000, 100000, 200000, 300000};
  }
  if (gan) t.pixel_weight = 1e-2f;
  if (!small) o.log_every = 100, o.sample_every = o.metric_every = 2000, o.checkpoint_every = 5000;
  return o;
}

namespace {

/// Calls f(key, value) for every plain option; `paths` adds those that do not make the run what it is.
template <class Options, class F>
void fields(Options& o, bool paths, F f) {
  auto& n = o.network;
  auto& t = o.train;
  f("preset", o.preset);
  f("width", n.width);
  f("blocks", n.blocks);
  f("published_base", n.published_base);
  f("gan", t.gan);
  f("d_width", o.d_width);
  f("lr", t.adam_g.lr);
  f("d_lr", t.adam_d.lr);
  f("beta1", t.adam_g.beta1);
  f("beta2", t.adam_g.beta2);
  f("lr_period", o.lr_period);
  f("halve_at", o.halve_at);
  f("first_step", o.first_step);
  f("pixel_weight", t.pixel_weight);
  f("perceptual_weight", t.perceptual_weight);
  f("gan_weight", t.gan_weight);
  f("accumulate", t.parts);
  f("hold_out", o.hold_out);
  f("measured", o.measured);
  f("batch", o.batch);
  f("flip", o.flip);
  f("seed", o.seed);
  if (!paths) return;
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
  json j{{"model", "nsbgan-decoder"}};
  fields(o, with_paths, [&](const char* key, const auto& value) { j[key] = value; });
  j["kind"] = name_of(o.network.kind);
  j["band"] = o.network.band;
  j["precision"] = name_of(o.precision);
  j["fit"] = fit_name(o.fit);
  j["background"] = {o.background.r, o.background.g, o.background.b};
  j["perceptual"] = !o.vgg.empty();
  if (with_paths) {
    j["data"] = o.data.string();
    j["test"] = o.test.string();
    j["vgg"] = o.vgg.string();
    j["device"] = name_of(o.device);
    j["on_collapse"] = name_of(o.on_collapse);
    j["sync_norm"] = o.sync_norm;
  }
  return j.dump(2, ' ', false, json::error_handler_t::replace);  // a path need not be UTF-8
}

RunOptions from_json(const std::string& text, const std::string& source) {
  try {
    const json j = json::parse(text);
    if (j.at("model") != "nsbgan-decoder")
      fail("{}: is of the model '{}', not of a decoder of NSB-GAN; use that model's program", source, j.at("model").get<std::string>());
    RunOptions o;
    fields(o, j.contains("data"), [&](const char* key, auto& value) { j.at(key).get_to(value); });
    o.train.adam_d.beta1 = o.train.adam_g.beta1;
    o.train.adam_d.beta2 = o.train.adam_g.beta2;
    o.network.kind = decoder_kind(j.at("kind"));
    j.at("band").get_to(o.network.band);
    o.measure_band = false;
    o.precision = precision_from_name(j.at("precision"), Device::cpu);
    o.fit = fit_from_name(j.at("fit").get<std::string>());
    const json& back = j.at("background");
    o.background = {back.at(0), back.at(1), back.at(2)};
    o.sync_norm = j.value("sync_norm", true);
    if (j.contains("data")) {
      o.data = j.at("data").get<std::string>();
      o.test = j.at("test").get<std::string>();
      o.vgg = j.at("vgg").get<std::string>();
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
  check_range("--size", o.network.band.picture_size, 16, 65536);
  check_range("--batch", o.batch, 1, 65536);
  check_parts(o, o.train.parts);
  const int at_once = o.batch / (o.train.parts * o.rank_count());
  if ((o.network.kind == DecoderKind::unet || o.train.gan) && at_once < 2)
    fail("--batch {}: batch norm needs at least two pictures at a time; use a larger batch or fewer parts", o.batch);
  for (const auto& [flag, adam] : {std::pair{"--lr", o.train.adam_g}, std::pair{"--d-lr", o.train.adam_d}}) {
    check_range(flag, double(adam.lr), 1e-9, 1);
    check_range("--beta1", double(adam.beta1), 0, 0.9999);
    check_range("--beta2", double(adam.beta2), 0, 0.999999);
  }
  check_range("--lr-period", double(o.lr_period), 0, 1e9);
  for (const int64_t step : o.halve_at) check_range("--halve-at", double(step), 1, 1e9);
  check_range("--pixel-weight", double(o.train.pixel_weight), 0, 1e6);
  check_range("--perceptual-weight", double(o.train.perceptual_weight), 0, 1e6);
  check_range("--gan-weight", double(o.train.gan_weight), 0, 1e6);
  check_range("--hold-out", o.hold_out, 0, 0.9);
  check_range("--measured", o.measured, 1, 100000);
  if (o.train.gan) {
    const int size = o.network.band.picture_size;
    if (o.network.kind != DecoderKind::srresnet) fail("--gan on: is of the srresnet decoder; use --kind srresnet, or --gan off");
    if (size & (size - 1)) fail("--size {}: the discriminator takes powers of two; use one of them, or --gan off", size);
    check_range("--d-width", o.d_width, 4, 1024);
  }
  if (!o.vgg.empty() && !o.train.gan) fail("--vgg: the perceptual loss belongs to the second stage; give --gan on, or leave --vgg out");
  check_training(o);
}

float rate_at(const RunOptions& o, int64_t step) {
  double rate = 1;
  step -= o.first_step;
  for (const int64_t at : o.halve_at)
    if (step >= at) rate /= 2;
  if (o.lr_period > 0) {
    // In stairs: on a GPU a step is captured with its learning rate.
    const int64_t stair = std::max<int64_t>(1, o.lr_period / 256), at = step % o.lr_period / stair * stair;
    const double least = std::min(1.0, 1e-7 / double(o.train.adam_g.lr));
    rate *= least + (1 - least) * 0.5 * (1 + std::cos(3.14159265358979 * double(at) / double(o.lr_period)));
  }
  return float(rate);
}

Split split_by_name(const std::vector<std::string>& names, double share) {
  Split s;
  if (share <= 0) {
    for (size_t i = 0; i < names.size(); i++) s.train.push_back(int32_t(i));
    return s;
  }
  size_t least = 0;
  const auto hash = [&](size_t i) { return hash_bytes(names[i].data(), names[i].size(), 7); };
  for (size_t i = 0; i < names.size(); i++) {
    if (hash(i) < hash(least)) least = i;
    (double(hash(i) >> 11) * 0x1p-53 < share ? s.held_out : s.train).push_back(int32_t(i));
  }
  if (names.size() < 2) return {s.train.empty() ? s.held_out : s.train, {}};
  if (s.held_out.empty()) {
    s.train.erase(std::find(s.train.begin(), s.train.end(), int32_t(least)));
    s.held_out.push_back(int32_t(least));
  }
  if (s.train.empty()) {
    s.train.push_back(s.held_out.back());
    s.held_out.pop_back();
  }
  return s;
}

}  // namespace kiln::nsbgan::decoding
