// FastGAN's run options: their JSON form and their limits.
#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/error.h"
#include "engine/precision.h"
#include "models/fastgan_run.h"

namespace kiln::fastgan {

using nlohmann::json;

std::string to_json(const RunOptions& o, bool with_paths) {
  json j;
  const Config& n = o.network;
  j["model"] = "fastgan";
  j["size"] = n.size;
  j["ngf"] = n.ngf;
  j["ndf"] = n.ndf;
  j["nz"] = n.nz;
  j["tanh"] = n.tanh;
  j["noise"] = n.noise;
  j["sle_64"] = n.sle_64;
  j["d_gates"] = n.d_gates;
  j["sle_leaky"] = n.sle_leaky;
  j["fold_upsample"] = n.fold_upsample;
  const TrainOptions& t = o.train;
  j["lr"] = t.adam.lr;
  j["beta1"] = t.adam.beta1;
  j["beta2"] = t.adam.beta2;
  j["ema_decay"] = t.ema.decay;
  j["ema_warmup"] = t.ema.warm_up;
  j["margin_low"] = t.margin_low;
  j["recon"] = !o.lpips.empty() ? "lpips" : t.recon_power == 2 ? "mse" : "l1";
  if (!o.lpips.empty()) j["lpips"] = o.lpips;
  j["recon_weight"] = t.recon_weight;
  j["augment"] = o.augment;
  j["batch"] = o.batch;
  j["accumulate"] = o.accumulate;
  j["flip"] = o.flip;
  j["seed"] = o.seed;
  j["precision"] = name_of(o.precision);
  j["fit"] = fit_name(o.fit);
  j["background"] = {o.background.r, o.background.g, o.background.b};
  if (with_paths) {
    j["data"] = o.data.string();
    if (!o.lpips.empty()) j["lpips_weights"] = o.lpips_weights.string();
    if (!o.lpips.empty()) j["lpips_heads"] = o.lpips_heads.string();
    if (!o.metric_network.empty()) j["metric_network"] = o.metric_network;
    if (!o.metric_network.empty()) j["metric_weights"] = o.metric_weights.string();
    j["steps"] = o.steps;
    j["log_every"] = o.log_every;
    j["sample_every"] = o.sample_every;
    j["metric_every"] = o.metric_every;
    j["checkpoint_every"] = o.checkpoint_every;
    j["keep"] = o.keep;
    j["grid"] = o.grid;
    j["device"] = name_of(o.device);
    j["commands"] = o.commands;
    j["tf32"] = o.library.tf32;
    j["deterministic"] = o.library.deterministic;
    j["autotune"] = o.library.autotune;
    j["sync_norm"] = o.sync_norm;
    j["on_collapse"] = name_of(o.on_collapse);
    j["max_rewinds"] = o.max_rewinds;
    j["rewinds"] = o.rewinds;
  }
  return j.dump(2, ' ', false, json::error_handler_t::replace);  // a path need not be UTF-8
}

RunOptions from_json(const std::string& text, const std::string& source) {
  try {
    const json j = json::parse(text);
    if (j.at("model") != "fastgan")
      fail("{}: is of the model '{}', not of fastgan; use that model's program", source, j.at("model").get<std::string>());
    RunOptions o;
    Config& n = o.network;
    n.size = j.at("size");
    n.ngf = j.at("ngf");
    n.ndf = j.at("ndf");
    n.nz = j.at("nz");
    n.tanh = j.at("tanh");
    n.noise = j.at("noise");
    n.sle_64 = j.at("sle_64");
    n.d_gates = j.at("d_gates");
    n.sle_leaky = j.at("sle_leaky");
    n.fold_upsample = j.at("fold_upsample");
    TrainOptions& t = o.train;
    t.adam.lr = j.at("lr");
    t.adam.beta1 = j.at("beta1");
    t.adam.beta2 = j.at("beta2");
    t.ema.decay = j.at("ema_decay");
    t.ema.warm_up = j.at("ema_warmup");
    t.margin_low = j.at("margin_low");
    t.recon_power = j.at("recon") == "l1" ? 1 : 2;
    if (j.at("recon") == "lpips") o.lpips = j.at("lpips");
    t.recon_weight = j.at("recon_weight");
    o.augment = j.at("augment");
    t.augment = augment_policy(o.augment);
    o.batch = j.at("batch");
    o.accumulate = j.at("accumulate");
    o.flip = j.at("flip");
    o.seed = j.at("seed");
    o.precision = precision_from_name(j.value("precision", "f32"), Device::cpu);  // the first version had no other
    o.fit = fit_from_name(j.at("fit").get<std::string>());
    const json& b = j.at("background");
    o.background = {b.at(0), b.at(1), b.at(2)};
    if (j.contains("data")) {
      o.data = j.at("data").get<std::string>();
      o.lpips_weights = j.value("lpips_weights", "");
      o.lpips_heads = j.value("lpips_heads", "");
      o.metric_network = j.value("metric_network", "");
      o.metric_weights = j.value("metric_weights", "");
      o.steps = j.at("steps");
      o.log_every = j.at("log_every");
      o.sample_every = j.at("sample_every");
      o.metric_every = j.at("metric_every");
      o.checkpoint_every = j.at("checkpoint_every");
      o.keep = j.at("keep");
      o.grid = j.at("grid");
      o.device = j.at("device") == "gpu" ? Device::gpu : Device::cpu;
      if (j.contains("on_collapse")) {  // older runs have none
        o.on_collapse = on_collapse_from_name(j.at("on_collapse").get<std::string>());
        o.max_rewinds = j.at("max_rewinds");
        o.rewinds = j.at("rewinds");
      }
      if (j.contains("commands")) o.commands = j.at("commands").get<std::vector<std::string>>();
      o.sync_norm = j.value("sync_norm", true);
      o.library = {j.value("tf32", false), j.value("deterministic", false), j.value("autotune", false)};
    }
    return o;
  } catch (const json::exception& e) {
    fail("{}: its configuration cannot be read ({}); was it written by another version of kiln?", source, e.what());
  }
}

void check(const RunOptions& o) {
  check(o.network);
  check_range("--batch", o.batch, 1, 4096);
  check_parts(o, o.accumulate);
  check_range("--lr", double(o.train.adam.lr), 1e-9, 1);
  check_range("--beta1", double(o.train.adam.beta1), 0, 0.9999);
  check_range("--beta2", double(o.train.adam.beta2), 0, 0.999999);
  check_range("--ema-decay", double(o.train.ema.decay), 0, 0.9999999);
  check_range("--margin-low", double(o.train.margin_low), 0, 1);
  check_range("--recon-weight", double(o.train.recon_weight), 0, 1e6);
  if (o.lpips.empty() && !(o.lpips_weights.empty() && o.lpips_heads.empty())) fail("--lpips-weights, --lpips-heads: belong to --recon lpips");
  if (!o.lpips.empty() && o.lpips != "vgg" && o.lpips != "alex") fail("--lpips {}: use vgg or alex", o.lpips);
  if (!o.lpips.empty() && (o.lpips_weights.empty() || o.lpips_heads.empty()))
    fail("--recon lpips: name the network's files with --lpips-weights ({} of torchvision) and --lpips-heads ({}.pth of LPIPS v0.1); docs/metrics.md says where people get them",
         o.lpips == "vgg" ? "vgg16-397923af.pth" : "alexnet-owt-7be5be79.pth", o.lpips);
  if (o.lpips == "alex" && o.network.small() < 32) fail("--lpips alex: wants reconstructions of 32 px at least, so --size 64 or more; or use vgg");
  if (o.metric_network.empty() && !o.metric_weights.empty()) fail("--metric-weights: name the network with --metric-network");
  if (!o.metric_network.empty() && o.metric_every == 0) fail("--metric-network: nothing is measured with --metric-every 0");
  check_training(o);
}

}  // namespace kiln::fastgan
