// fastgan_train DIR: a folder of pictures in, a FastGAN generator out.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "apps/training_program.h"
#include "engine/error.h"
#include "engine/precision.h"
#include "models/fastgan_run.h"

using namespace kiln;
using namespace kiln::fastgan;

namespace {

constexpr const char* kAbout = "Trains FastGAN (Liu et al., ICLR 2021) on a folder of pictures. Results, log and checkpoints go to the run directory.";

struct Flags : TrainingFlags {
  RunOptions run;
  std::string recon = "mse", ema_warmup = "on", lpips = "vgg", lpips_weights, lpips_heads, metric_weights;
  bool no_noise = false, no_sle_64 = false, no_d_gates = false, no_fold = false;
};

/// All flags, bound to f. The same set is parsed twice for a resumed run: over the defaults, then over its own configuration.
void add_flags(CLI::App& app, Flags& f) {
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);  // a flag given twice: the last one counts
  RunOptions& o = f.run;
  const auto group = [&](const char* name) {
    return [&app, name](CLI::Option* option) { return option->group(name); };
  };
  app.add_option("DIR", f.data, "folder of pictures (searched recursively: jpg, png, webp, bmp, tga)");
  const auto data = group("Pictures");
  data(app.add_option("--size", o.network.size, "side of the pictures in pixels: 32, 64, 128, 256, 512, 1024 (default: 64; on a GPU 256)"));
  f.add_shaping(app, o);
  const auto output = group("Run");
  output(app.add_option("--out", f.out, "run directory (default: runs/NAME-SIZE)"));
  output(app.add_option("--resume", f.resume, "go on with the run in --out; with a FILE, start from that checkpoint")->expected(0, 1));
  output(app.add_option("--steps", o.steps, "training steps in all")->capture_default_str());
  output(app.add_option("--minutes", o.minutes, "stop after that many minutes, saved (0: never)")->capture_default_str());
  output(app.add_option("--seed", o.seed, "of all random numbers: equal seeds give equal runs")->capture_default_str());
  output(app.add_option("--log-every", o.log_every, "steps between lines of log.jsonl")->capture_default_str());
  output(app.add_option("--sample-every", o.sample_every, "steps between sample grids (0: only the last)")->capture_default_str());
  output(app.add_option("--metric-every", o.metric_every, "steps between measurements of the sliced Wasserstein distance (0: never); left out where they would take more than a fortieth of the time")->capture_default_str());
  output(app.add_option("--metric-network", o.metric_network, "measure KID and FID on this network too: inception, squeezenet, darknet (docs/metrics.md)"));
  output(app.add_option("--metric-weights", f.metric_weights, "its weights (.pth or .safetensors)"));
  output(app.add_option("--checkpoint-every", o.checkpoint_every, "steps between checkpoints")->capture_default_str());
  output(app.add_option("--keep", o.keep, "checkpoints to keep, beside the best by distance (0: all)")->capture_default_str());
  output(app.add_option("--grid", o.grid, "sample grids show GRID x GRID pictures")->capture_default_str());
  f.add_collapse(app, o);
  output(app.add_flag("--dry-run", f.dry_run, "print the layers with their outputs and parameters, and the memory that the run needs, and stop"));
  output(app.add_flag("--profile", o.profile, "print where the time went"));
  const auto training = group("Training");
  training(app.add_option("--batch", o.batch, "pictures a step")->capture_default_str());
  training(app.add_option("--accumulate", o.accumulate, "compute the batch in this many parts: less memory, slower")->capture_default_str());
  training(app.add_option("--lr", o.train.adam.lr, "learning rate of both networks")->capture_default_str());
  training(app.add_option("--beta1", o.train.adam.beta1, "Adam's first decay")->capture_default_str());
  training(app.add_option("--beta2", o.train.adam.beta2, "Adam's second decay")->capture_default_str());
  training(app.add_option("--ema-decay", o.train.ema.decay, "decay of the generator's moving average")->capture_default_str());
  training(app.add_option("--ema-warmup", f.ema_warmup, "on: the decay grows from 0.1 as (1+t)/(10+t); off: constant, as published")->check(CLI::IsMember({"on", "off"}))->capture_default_str());
  training(app.add_option("--recon", f.recon, "the discriminator's reconstruction loss: mse, l1, lpips (as the public code)")->check(CLI::IsMember({"mse", "l1", "lpips"}))->capture_default_str());
  training(app.add_option("--lpips", f.lpips, "the network of --recon lpips: vgg, alex")->check(CLI::IsMember({"vgg", "alex"}))->capture_default_str());
  training(app.add_option("--lpips-weights", f.lpips_weights, "its weights: torchvision's file"));
  training(app.add_option("--lpips-heads", f.lpips_heads, "its linear heads: LPIPS v0.1's file"));
  training(app.add_option("--recon-weight", o.train.recon_weight, "its weight")->capture_default_str());
  training(app.add_option("--margin-low", o.train.margin_low, "hinge margins are drawn from [margin-low, 1); 1: the paper's constant")->capture_default_str());
  const auto network = group("Network");
  network(app.add_option("--ngf", o.network.ngf, "base width of the generator (default: 16; on a GPU 64, as published)"));
  network(app.add_option("--ndf", o.network.ndf, "base width of the discriminator (default: 16; on a GPU 64, as published)"));
  network(app.add_option("--nz", o.network.nz, "latent numbers")->capture_default_str());
  network(app.add_flag("--tanh", o.network.tanh, "tanh on the generator's pictures below 1024 px too"));
  network(app.add_flag("--no-noise", f.no_noise, "no noise injection, as in the paper's text"));
  network(app.add_flag("--no-sle-64", f.no_sle_64, "no 4 -> 64 skip excitation, as in the paper's text"));
  network(app.add_flag("--no-d-gates", f.no_d_gates, "no gates in the discriminator, as in the paper's text"));
  network(app.add_flag("--sle-leaky", o.network.sle_leaky, "LeakyReLU in skip excitations, as in the paper's text (default: Swish)"));
  network(app.add_flag("--no-fold", f.no_fold, "do not fold upsampling into convolutions (slower, equal to rounding)"));
  const auto machine = group("Machine");
  f.add_machine(app, o);
  machine(app.add_option("--picture-memory", o.picture_memory_gb, "GiB of decoded pictures in memory; a larger set streams from the disk (0: a quarter of this machine's memory, at most 4)")->capture_default_str());
  machine(app.add_option("--memory", o.memory_gb, "limit for tensors in GiB (0: none)")->capture_default_str());
}

/// Flags that are not stored as the library stores them.
void finish(Flags& f, const CLI::App& app) {
  RunOptions& o = f.run;
  const auto given = [&](const char* name) { return app.count(name) > 0; };
  f.TrainingFlags::finish(app, o);
  if (given("--recon")) {
    o.train.recon_power = f.recon == "l1" ? 1 : 2;
    o.lpips = f.recon == "lpips" ? f.lpips : "";
  } else if (given("--lpips")) {
    if (o.lpips.empty()) fail("--lpips {}: belongs to --recon lpips", f.lpips);
    o.lpips = f.lpips;
  }
  if (given("--lpips-weights")) o.lpips_weights = f.lpips_weights;
  if (given("--lpips-heads")) o.lpips_heads = f.lpips_heads;
  if (given("--metric-weights")) o.metric_weights = f.metric_weights;
  if (given("--ema-warmup")) o.train.ema.warm_up = f.ema_warmup == "on";
  o.train.augment = augment_policy(o.augment);
  if (f.no_noise) o.network.noise = false;
  if (f.no_sle_64) o.network.sle_64 = false;
  if (f.no_d_gates) o.network.d_gates = false;
  if (f.no_fold) o.network.fold_upsample = false;
}

/// What a resumed run may not change: it would be another run.
void refuse_changes(const RunOptions& now, const RunOptions& saved) {
  const auto text = [](RunOptions o) { return to_json(o, false); };
  if (text(now) == text(saved)) return;
  const auto differs = [](const char* flag) { fail("--resume: {} differs from the run's own; leave it out, or start a new run with --resume FILE", flag); };
  if (now.network != saved.network) differs("the network (--size, --ngf, --ndf, --nz, ...)");
  if (now.batch != saved.batch) differs("--batch");
  if (now.seed != saved.seed) differs("--seed");
  if (now.precision != saved.precision) differs("--precision");
  if (now.augment != saved.augment) differs("--augment");
  if (now.flip != saved.flip) differs("--flip");
  if (now.fit != saved.fit) differs("--fit");
  differs("a training option (--recon, --lpips, --lr, ...)");
}

/// The command line as it is, before a resumed run's own configuration.
Flags read_flags(int argc, char** argv) {
  Flags f;
  CLI::App app(kAbout, "fastgan_train");
  app.get_formatter()->column_width(34);
  add_flags(app, f);
  app.parse(argc, argv);
  finish(f, app);
  if (f.run.goes_on()) {
    if (f.run.out.empty()) fail("--resume: name the run's directory with --out");
    return f;
  }
  if (app.count("--precision") == 0) f.run.precision = precision_from_name("auto", f.run.device);
  const bool gpu = f.run.device == Device::gpu;
  if (app.count("--size") == 0) f.run.network.size = gpu ? 256 : 64;
  if (app.count("--ngf") == 0) f.run.network.ngf = gpu ? 64 : 16;
  if (app.count("--ndf") == 0) f.run.network.ndf = gpu ? 64 : 16;
  return f;
}

/// The options of the run; `saved` is config.json of the one that is resumed.
RunOptions settle(Flags f, const std::string& saved, int argc, char** argv, const std::shared_ptr<Ranks>& ranks) {
  if (f.run.goes_on()) {
    const RunOptions theirs = from_json(saved, (f.run.out / "config.json").string());
    Flags g;
    g.run = theirs;
    CLI::App again("", "fastgan_train");
    add_flags(again, g);
    again.parse(argc, argv);
    finish(g, again);
    refuse_changes(g.run, theirs);
    f = g;
  }
  complete(f.run, f, argc, argv, "fastgan_train", std::to_string(f.run.network.size), ranks);
  return f.run;
}

void print_help() {
  CLI::App app(kAbout, "fastgan_train");
  app.get_formatter()->column_width(34);
  Flags f;
  add_flags(app, f);
  std::fputs(app.help().c_str(), stdout);
}

}  // namespace

int main(int argc, char** argv) {
  return training_program(argv, "fastgan_train", [&](const std::shared_ptr<Ranks>& ranks) { return run_training("fastgan_train", argc, argv, ranks, read_flags, settle); }, print_help);
}
