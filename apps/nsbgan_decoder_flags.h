// The flags of nsbgan_train's `decoder`.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "apps/training_program.h"
#include "models/nsbgan_decoder_run.h"

namespace kiln::nsbgan::decoder_flags {

constexpr const char* kProgram = "nsbgan_train decoder";
constexpr const char* kDescription =
    "Trains a decoder of NSB-GAN (Han et al. 2020) on a folder of pictures: a network that makes pictures of their low bands, or of small pictures. "
    "Results, log and checkpoints go to the run directory.";

struct Flags : TrainingFlags {
  decoding::RunOptions run = decoding::preset("small");
  std::string preset_name = "small", kind = "srresnet", domain = "wavelet", wavelet, gan = "off", test, vgg;
  std::vector<double> normalisation;
  double lr = 0, beta1 = 0, beta2 = 0;
};

/// All flags, bound to f. The same set is parsed twice: for the preset or the run to go on with, then over its settings.
inline void add_flags(CLI::App& app, Flags& f) {
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);  // a flag given twice: the last one counts
  decoding::RunOptions& o = f.run;
  decoding::TrainOptions& t = o.train;
  const auto group = [&](const char* name) {
    return [name](CLI::Option* option) { return option->group(name); };
  };
  app.add_option("DIR", f.data, "folder of pictures (jpg, png, webp, bmp, tga; deeper folders too)");
  app.add_option("--preset", f.preset_name, "settings to start from: small (32 -> 128 px, CPU), 64-256, 128-512")->check(CLI::IsMember({"small", "64-256", "128-512"}))->capture_default_str();
  const auto data = group("Pictures");
  data(app.add_option("--size", o.network.band.picture_size, "side of the pictures in pixels")->capture_default_str());
  const char* shaping = "Pictures";
  app.add_option("--fit", f.fit, "how other shapes become square: crop, squash, pad")->capture_default_str()->group(shaping);
  app.add_option("--background", f.background, "under transparent and around padded pictures: R G B, 0 to 255")->expected(3)->capture_default_str()->group(shaping);
  app.add_option("--flip", o.flip, "probability of mirroring a picture")->capture_default_str()->group(shaping);
  app.add_flag("--strict", o.strict, "stop at a broken picture, in place of skipping it")->group(shaping);
  app.add_flag("--no-cache", f.no_cache, "do not keep the decoded pictures for the next run")->group(shaping);
  data(app.add_option("--picture-memory", o.picture_memory_gb, "GiB of decoded pictures in memory; a larger set streams (0: a quarter of the machine's, 4 at most)")->capture_default_str());
  data(app.add_option("--hold-out", o.hold_out, "share of the pictures to measure on and not to train on, by a hash of their names")->capture_default_str());
  data(app.add_option("--test", f.test, "folder of pictures to measure on, in place of --hold-out"));
  data(app.add_option("--measured", o.measured, "pictures to measure on, at most")->capture_default_str());
  const auto output = group("Run");
  output(app.add_option("--out", f.out, "run directory (default: runs/NAME-decoder-SIZE)"));
  output(app.add_option("--resume", f.resume, "go on with the run in --out; with a FILE, start from that checkpoint: of a first stage, too, for --gan on")->expected(0, 1));
  output(app.add_option("--steps", o.steps, "training steps in all")->capture_default_str());
  output(app.add_option("--minutes", o.minutes, "stop after that many minutes, saved (0: never)")->capture_default_str());
  output(app.add_option("--seed", o.seed, "of all random numbers: equal seeds give equal runs")->capture_default_str());
  output(app.add_option("--log-every", o.log_every, "steps between lines of log.jsonl")->capture_default_str());
  output(app.add_option("--sample-every", o.sample_every, "steps between sample grids (0: only the last)")->capture_default_str());
  output(app.add_option("--metric-every", o.metric_every, "steps between measurements of psnr, ssim and the sliced Wasserstein distance (0: never)")->capture_default_str());
  output(app.add_option("--checkpoint-every", o.checkpoint_every, "steps between checkpoints")->capture_default_str());
  output(app.add_option("--keep", o.keep, "checkpoints to keep, beside the best by distance (0: all)")->capture_default_str());
  output(app.add_option("--grid", o.grid, "sample grids show GRID x GRID pictures")->capture_default_str());
  f.add_collapse(app, o);
  output(app.add_flag("--dry-run", f.dry_run, "print the parameters and the memory that the run needs, and stop"));
  output(app.add_flag("--profile", o.profile, "print where the time went"));
  const auto training = group("Training");
  training(app.add_option("--gan", f.gan, "on: the second stage, the srresnet against a discriminator")->check(CLI::IsMember({"on", "off"}))->capture_default_str());
  training(app.add_option("--vgg", f.vgg, "torchvision's VGG19 weights, for the second stage's perceptual loss (default: trained without it)"));
  training(app.add_option("--batch", o.batch, "pictures a step")->capture_default_str());
  training(app.add_option("--accumulate", t.parts, "compute the batch in this many parts: less memory; batch norm sees a part at a time")->capture_default_str());
  training(app.add_option("--lr", f.lr, "learning rate of both networks"));
  training(app.add_option("--d-lr", t.adam_d.lr, "learning rate of the discriminator")->capture_default_str());
  training(app.add_option("--lr-period", o.lr_period, "steps of a cosine that the learning rate falls along, again and again (0: it does not)")->capture_default_str());
  training(app.add_option("--halve-at", o.halve_at, "steps at which the learning rate is halved")->delimiter(',')->multi_option_policy(CLI::MultiOptionPolicy::TakeAll));
  training(app.add_option("--beta1", f.beta1, "Adam's first decay (default: 0.9)"));
  training(app.add_option("--beta2", f.beta2, "Adam's second decay (default: 0.99; unet 0.999)"));
  training(app.add_option("--pixel-weight", t.pixel_weight, "of L1 in the second stage (default: the published 0.01 with --vgg; 1 without)"));
  training(app.add_option("--perceptual-weight", t.perceptual_weight, "of the perceptual loss")->capture_default_str());
  training(app.add_option("--gan-weight", t.gan_weight, "of the discriminator's judgement")->capture_default_str());
  const auto network = group("Network");
  network(app.add_option("--kind", f.kind, "srresnet: one network for all levels; unet: one for each")->check(CLI::IsMember({"srresnet", "unet"}))->capture_default_str());
  network(app.add_option("--domain", f.domain, "wavelet: from the low band; pixels: from the picture made smaller")->check(CLI::IsMember({"wavelet", "pixels"}))->capture_default_str());
  network(app.add_option("--wavelet", f.wavelet, "haar, bior2.2, bior2.2-reflect (default: small haar, others bior2.2)"));
  network(app.add_option("--levels", o.network.band.levels, "times that the band is half as large")->capture_default_str());
  network(app.add_option("--normalisation", f.normalisation, "SHIFT SCALE: the band x becomes 2 (x + SHIFT) / SCALE - 1 (default: measured on the pictures)")->expected(2));
  network(app.add_option("--width", o.network.width, "channels of the decoder's layers")->capture_default_str());
  network(app.add_option("--blocks", o.network.blocks, "residual blocks of the srresnet")->capture_default_str());
  network(app.add_flag("--published-base", o.network.published_base, "the srresnet adds to a faint picture of the normalised band, as published, in place of the picture that the band makes"));
  network(app.add_option("--d-width", o.d_width, "channels of the discriminator's first layer")->capture_default_str());
  f.add_machine(app, o);
  group("Machine")(app.add_option("--memory", o.memory_gb, "limit for tensors in GiB (0: none)")->capture_default_str());
}

/// Flags that are not stored as the library stores them.
inline void finish(Flags& f, const CLI::App& app) {
  decoding::RunOptions& o = f.run;
  const auto given = [&](const char* name) { return app.count(name) > 0; };
  f.TrainingFlags::finish(app, o);
  if (given("--test")) o.test = f.test;
  if (given("--vgg")) o.vgg = f.vgg;
  if (given("--kind")) o.network.kind = decoder_kind(f.kind);
  if (given("--gan")) o.train.gan = f.gan == "on";
  if (given("--domain")) o.network.band.domain = domain_from_name(f.domain);
  for (const char* flag : {"--wavelet", "--normalisation"})
    if (given(flag) && o.network.band.domain == Domain::pixels) fail("{}: belongs to --domain wavelet; leave it out", flag);
  if (given("--wavelet")) o.network.band.wavelet = wavelet_from_name(f.wavelet);
  if (given("--normalisation")) {
    o.network.band.shift = f.normalisation[0];
    o.network.band.scale = f.normalisation[1];
    o.measure_band = false;
  }
  if (given("--lr")) o.train.adam_g.lr = float(f.lr);
  if (given("--lr") && !given("--d-lr")) o.train.adam_d.lr = float(f.lr);
  for (AdamOptions* a : {&o.train.adam_g, &o.train.adam_d}) {
    if (given("--beta1")) a->beta1 = float(f.beta1);
    if (given("--beta2")) a->beta2 = float(f.beta2);
  }
}

/// What a resumed run may not change: it would be another run.
inline void refuse_changes(const decoding::RunOptions& now, const decoding::RunOptions& saved) {
  if (to_json(now, false) == to_json(saved, false)) return;
  const auto differs = [](const char* flag) { fail("--resume: {} differs from the run's own; leave it out, or start a new run with --resume FILE", flag); };
  if (now.network != saved.network) differs("the network (--size, --kind, --domain, --width, ...)");
  if (now.train.gan != saved.train.gan) differs("--gan");
  if (now.batch != saved.batch) differs("--batch");
  if (now.seed != saved.seed) differs("--seed");
  if (now.precision != saved.precision) differs("--precision");
  if (now.flip != saved.flip) differs("--flip");
  if (now.hold_out != saved.hold_out) differs("--hold-out");
  differs("a training option");
}

/// The command line as it is, before the settings of a preset or of a resumed run.
inline Flags read_flags(int argc, char** argv) {
  Flags f;
  CLI::App app(kDescription, kProgram);
  app.get_formatter()->column_width(34);
  add_flags(app, f);
  app.parse(argc, argv);
  finish(f, app);
  if (f.run.goes_on() && f.run.out.empty()) fail("--resume: name the run's directory with --out");
  return f;
}

/// The options of the run; `saved` is config.json of the one that is resumed.
inline decoding::RunOptions settle(const Flags& first, const std::string& saved, int argc, char** argv, const std::shared_ptr<Ranks>& ranks) {
  const bool resumed = first.run.goes_on();
  const decoding::RunOptions base = resumed ? decoding::from_json(saved, (first.run.out / "config.json").string())
                                            : decoding::preset(first.preset_name, first.run.network.kind, first.run.network.band.domain, first.run.train.gan);
  Flags f;
  f.run = base;
  CLI::App app(kDescription, kProgram);
  add_flags(app, f);
  app.parse(argc, argv);
  finish(f, app);
  if (resumed)
    refuse_changes(f.run, base);
  else if (app.count("--precision") == 0)
    f.run.precision = precision_from_name("auto", f.run.device);
  // The published 0.01 leaves the likeness to the perceptual loss: without it, the discriminator alone leads the decoder away from it.
  if (!resumed && f.run.train.gan && f.run.vgg.empty() && app.count("--pixel-weight") == 0) f.run.train.pixel_weight = 1;
  complete(f.run, f, argc, argv, kProgram, fmt::format("decoder-{}", f.run.network.band.picture_size), ranks);
  return f.run;
}

inline void print_help() {
  CLI::App app(kDescription, kProgram);
  app.get_formatter()->column_width(34);
  Flags f;
  add_flags(app, f);
  std::fputs(app.help().c_str(), stdout);
}

}  // namespace kiln::nsbgan::decoder_flags
