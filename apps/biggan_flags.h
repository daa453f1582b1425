// The flags of a BigGAN training: biggan_train's, and those of nsbgan_train's sampler, which is one.
#pragma once
#include <CLI/CLI.hpp>
#include <cstdio>

#include "apps/training_program.h"
#include "engine/error.h"
#include "engine/precision.h"
#include "models/biggan_run.h"

namespace kiln {

/// The flags of biggan_train as a user writes them; of NSB-GAN's sampler, whose networks are the same, also those of its band.
struct BigganFlags : TrainingFlags {
  explicit BigganFlags(bool of_band_ = false) : of_band(of_band_), run(of_band ? biggan::band_preset("small") : biggan::preset("small")) {}
  bool of_band;
  biggan::RunOptions run;
  std::string ema_warmup = "on", ortho_form = "off-diagonal", init = "orthogonal", preset_name = "small";
  double lr = 0, beta1 = 0, beta2 = 0, adam_eps = 0, ortho = 0;
  int width = 0, attention = 0;
  std::string wavelet, domain = "wavelet";
  std::vector<double> normalisation;
  bool no_shared = false, no_hier = false, no_fold = false, no_class_metric = false;

  const char* program() const { return of_band ? "nsbgan_train sampler" : "biggan_train"; }
  const char* description() const {
    return of_band ? "Trains NSB-GAN's sampler (Han et al. 2020), a BigGAN that makes the low wavelet band of pictures, on a folder of class folders. Results, log "
                     "and checkpoints go to the run directory."
                   : "Trains BigGAN (Brock et al., ICLR 2019) on a folder of class folders. Results, log and checkpoints go to the run directory.";
  }
  /// All flags, bound to this. The same set is parsed twice: for the preset or the run to go on with, then over its settings.
  void add(CLI::App& app);
  /// After parsing: flags that are not stored as the library stores them.
  void finish(const CLI::App& app);
};

inline void BigganFlags::add(CLI::App& app) {
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);  // a flag given twice: the last one counts
  BigganFlags& f = *this;
  biggan::RunOptions& o = run;
  biggan::Config& n = o.network;
  biggan::TrainOptions& t = o.train;
  const auto group = [&](const char* name) {
    return [name](CLI::Option* option) { return option->group(name); };
  };
  app.add_option("DIR", f.data, "folder of class folders: DIR/CLASS/*.jpg (png, webp, bmp, tga; deeper folders belong to their class)");
  const std::vector<std::string> presets = of_band ? std::vector<std::string>{"small", "64-256", "128-512"} : std::vector<std::string>{"small", "cifar", "64", "128", "256"};
  app.add_option("--preset", f.preset_name, of_band ? "settings to start from: small (CPU, 32 -> 128 px), 64-256, 128-512 (the published networks)" : "settings to start from: small (CPU), cifar, 64, 128, 256")
      ->check(CLI::IsMember(presets))->capture_default_str();
  const auto data = group("Pictures");
  data(app.add_option("--size", of_band ? o.band->picture_size : n.size,
                      of_band ? "side of the pictures in pixels; the band's is to be 32, 64, 128, 256, 512 or 1024" : "side of the pictures in pixels: 32, 64, 128, 256, 512, 1024")->capture_default_str());
  if (of_band) {
    const auto band = group("Band");
    band(app.add_option("--domain", domain, "wavelet: learn the low wavelet band; pixels: the picture made smaller, the paper's control")->check(CLI::IsMember({"wavelet", "pixels"}))->capture_default_str());
    band(app.add_option("--wavelet", wavelet, "haar; bior2.2, the published one; bior2.2-reflect: it with mirrored borders (default: small haar, others bior2.2)")->check(CLI::IsMember({"haar", "bior2.2", "bior2.2-reflect"})));
    band(app.add_option("--levels", o.band->levels, "how often the picture is halved")->capture_default_str());
    band(app.add_option("--normalisation", normalisation, "SHIFT SCALE: the band x is learned as 2 (x + SHIFT) / SCALE - 1 (default: measured)")->expected(2));
  }
  data(app.add_flag("--unconditional", o.unconditional, "take no notice of class folders"));
  f.add_shaping(app, o);
  data(app.add_option("--picture-memory", o.picture_memory_gb, "GiB of decoded pictures in memory; a larger set streams (0: a quarter of the machine's, 4 at most)")->capture_default_str());
  const auto output = group("Run");
  output(app.add_option("--out", f.out, "run directory (default: runs/NAME-SIZE)"));
  output(app.add_option("--resume", f.resume, "go on with the run in --out; with a FILE, start from that checkpoint, whose classes may be others")->expected(0, 1));
  output(app.add_option("--steps", o.steps, "training steps (of G) in all")->capture_default_str());
  output(app.add_option("--minutes", o.minutes, "stop after that many minutes, saved (0: never)")->capture_default_str());
  output(app.add_option("--seed", o.seed, "of all random numbers: equal seeds give equal runs")->capture_default_str());
  output(app.add_option("--log-every", o.log_every, "steps between lines of log.jsonl")->capture_default_str());
  output(app.add_option("--sample-every", o.sample_every, "steps between sample grids (0: only the last)")->capture_default_str());
  output(app.add_option("--metric-every", o.metric_every, "steps between measurements of the sliced Wasserstein distance (0: never)")->capture_default_str());
  output(app.add_flag("--no-class-metric", f.no_class_metric, "do not measure the distance of each class"));
  output(app.add_option("--checkpoint-every", o.checkpoint_every, "steps between checkpoints")->capture_default_str());
  output(app.add_option("--keep", o.keep, "checkpoints to keep, beside the best by distance (0: all)")->capture_default_str());
  output(app.add_option("--grid", o.grid, "sample grids show GRID x GRID pictures")->capture_default_str());
  output(app.add_option("--standing", o.standing, "batches of standing statistics behind samples and distances (0: averaged running ones)")->capture_default_str());
  f.add_collapse(app, o);
  output(app.add_flag("--dry-run", f.dry_run, "print the parameters and the memory that the run needs, and stop"));
  output(app.add_flag("--profile", o.profile, "print where the time went"));
  const auto training = group("Training");
  training(app.add_option("--batch", o.batch, "real pictures of a D step, and fakes of a G step")->capture_default_str());
  training(app.add_option("--accumulate", t.parts, "compute the batch in this many parts: less memory; batch norm sees a part at a time")->capture_default_str());
  training(app.add_option("--d-steps", t.d_steps, "steps of D for each of G")->capture_default_str());
  training(app.add_option("--lr", f.lr, "learning rate of both networks"));
  training(app.add_option("--g-lr", t.adam_g.lr, "learning rate of G")->capture_default_str());
  training(app.add_option("--d-lr", t.adam_d.lr, "learning rate of D")->capture_default_str());
  training(app.add_option("--beta1", f.beta1, "Adam's first decay (default: 0)"));
  training(app.add_option("--beta2", f.beta2, "Adam's second decay (default: 0.999)"));
  training(app.add_option("--adam-eps", f.adam_eps, "Adam's epsilon (default: 1e-6; cifar 1e-8)"));
  training(app.add_option("--ema-decay", t.ema.decay, "decay of the generator's moving average")->capture_default_str());
  training(app.add_option("--ema-warmup", f.ema_warmup, "on: the decay grows from 0.1 as (1+t)/(10+t); off: constant, as published (default: small on, others off)")->check(CLI::IsMember({"on", "off"})));
  training(app.add_option("--ema-start", t.ema.start, "before this step the average is the generator itself")->capture_default_str());
  training(app.add_option("--ortho", f.ortho, "orthogonal regularisation of both networks (the paper: 1e-4; default: 0)"));
  training(app.add_option("--ortho-form", f.ortho_form, "off-diagonal: BigGAN's; full: Brock et al. 2017's")->check(CLI::IsMember({"off-diagonal", "full"})));
  const auto network = group("Network");
  network(app.add_option("--width", f.width, "base width of both networks"));
  network(app.add_option("--g-width", n.g_width, "base width of the generator")->capture_default_str());
  network(app.add_option("--d-width", n.d_width, "base width of the discriminator")->capture_default_str());
  network(app.add_flag("--deep", n.deep, "BigGAN-deep"));
  network(app.add_option("--z", n.z, "latent numbers")->capture_default_str());
  network(app.add_option("--shared-dim", n.shared_dim, "numbers of the shared class embedding")->capture_default_str());
  network(app.add_flag("--no-shared", f.no_shared, "a table of gains and biases for each norm, in place of a shared embedding (with --no-hier)"));
  network(app.add_flag("--no-hier", f.no_hier, "all of z goes into the first layer"));
  network(app.add_option("--attention", f.attention, "side of the maps that both networks attend to (0: no attention)"));
  network(app.add_option("--g-attention", n.g_attention, "the same of G alone")->capture_default_str());
  network(app.add_option("--d-attention", n.d_attention, "the same of D alone")->capture_default_str());
  network(app.add_option("--bn-eps", n.bn_eps, "epsilon of the conditional norms")->capture_default_str());
  network(app.add_option("--init", f.init, "how weights start: orthogonal, normal, xavier (default: orthogonal; cifar normal)")->check(CLI::IsMember({"orthogonal", "normal", "xavier"})));
  network(app.add_flag("--no-fold", f.no_fold, "do not fold up- and downsampling into convolutions (slower, equal to rounding)"));
  const auto machine = group("Machine");
  f.add_machine(app, o);
  machine(app.add_option("--memory", o.memory_gb, "limit for tensors in GiB (0: none)")->capture_default_str());
}

inline void BigganFlags::finish(const CLI::App& app) {
  BigganFlags& f = *this;
  biggan::RunOptions& o = run;
  const auto given = [&](const char* name) { return app.count(name) > 0; };
  f.TrainingFlags::finish(app, o);
  if (given("--lr") && (given("--g-lr") || given("--d-lr"))) fail("--lr: is of both networks; leave it or --g-lr and --d-lr out");
  for (AdamOptions* a : {&o.train.adam_g, &o.train.adam_d}) {
    if (given("--lr")) a->lr = float(f.lr);
    if (given("--beta1")) a->beta1 = float(f.beta1);
    if (given("--beta2")) a->beta2 = float(f.beta2);
    if (given("--adam-eps")) a->eps = float(f.adam_eps);
  }
  if (given("--ortho")) o.train.ortho_g = o.train.ortho_d = float(f.ortho);
  if (given("--ortho-form")) o.train.ortho_form = f.ortho_form == "full" ? OrthogonalForm::full : OrthogonalForm::off_diagonal;
  if (given("--ema-warmup")) o.train.ema.warm_up = f.ema_warmup == "on";
  if (given("--width")) o.network.g_width = o.network.d_width = f.width;
  if (given("--attention")) o.network.g_attention = o.network.d_attention = f.attention;
  if (given("--init")) o.network.init = f.init == "normal" ? biggan::InitKind::normal : f.init == "xavier" ? biggan::InitKind::xavier : biggan::InitKind::orthogonal;
  o.train.augment = augment_policy(o.augment);
  if (f.no_shared) o.network.shared = false;
  if (f.no_hier) o.network.hierarchical = false;
  if (f.no_fold) o.network.fold = false;
  if (f.no_class_metric) o.class_metric = false;
  if (!of_band) return;
  nsbgan::Band& b = *o.band;
  if (given("--domain")) b.domain = nsbgan::domain_from_name(domain);
  if (given("--wavelet")) b.wavelet = wavelet_from_name(wavelet);
  if (b.domain == nsbgan::Domain::pixels && (given("--wavelet") || given("--normalisation")))
    fail("{}: belongs to --domain wavelet; leave it out", given("--wavelet") ? "--wavelet" : "--normalisation");
  if (given("--normalisation")) {
    b.shift = normalisation[0], b.scale = normalisation[1];
    o.measure_band = false;
  }
  nsbgan::check(b);
  o.network.size = b.size();
}

/// What a resumed run may not change: it would be another run.
inline void refuse_changes(const biggan::RunOptions& now, const biggan::RunOptions& saved) {
  if (to_json(now, false) == to_json(saved, false)) return;
  const auto differs = [](const char* flag) { fail("--resume: {} differs from the run's own; leave it out, or start a new run with --resume FILE", flag); };
  if (now.band != saved.band) differs("the band (--size, --domain, --wavelet, --levels, --normalisation)");
  if (now.network != saved.network) differs("the network (--size, --width, --z, ...)");
  if (now.batch != saved.batch) differs("--batch");
  if (now.seed != saved.seed) differs("--seed");
  if (now.precision != saved.precision) differs("--precision");
  if (now.augment != saved.augment) differs("--augment");
  if (now.flip != saved.flip) differs("--flip");
  differs("a training option");
}

/// The command line as it is, before the settings of a preset or of a resumed run.
inline BigganFlags read_biggan_flags(int argc, char** argv, bool of_band) {
  BigganFlags f(of_band);
  CLI::App app(f.description(), f.program());
  app.get_formatter()->column_width(34);
  f.add(app);
  app.parse(argc, argv);
  f.finish(app);
  if (f.run.goes_on() && f.run.out.empty()) fail("--resume: name the run's directory with --out");
  return f;
}

/// The options of the run; `saved` is config.json of the one that is resumed.
inline biggan::RunOptions settle_biggan(const BigganFlags& first, const std::string& saved, int argc, char** argv, const std::shared_ptr<Ranks>& ranks) {
  const bool resumed = first.run.goes_on();
  const biggan::RunOptions base = resumed ? biggan::from_json(saved, (first.run.out / "config.json").string(), first.of_band)
                                  : first.of_band ? biggan::band_preset(first.preset_name) : biggan::preset(first.preset_name);
  BigganFlags f(first.of_band);
  f.run = base;
  CLI::App app(f.description(), f.program());
  f.add(app);
  app.parse(argc, argv);
  f.finish(app);
  if (resumed) {
    refuse_changes(f.run, base);
  } else {
    if (app.count("--precision") == 0) f.run.precision = precision_from_name("auto", f.run.device);
  }
  if (!resumed && f.run.network.size != base.network.size && app.count("--attention") + app.count("--g-attention") + app.count("--d-attention") == 0) {
    // Another size than the preset's: attention where that size has it.
    const int side = f.run.network.size < 64 ? 0 : f.run.network.size == 64 ? 32 : 64;
    f.run.network.g_attention = f.run.network.d_attention = side;
  }
  complete(f.run, f, argc, argv, f.program(), f.of_band ? fmt::format("nsbgan-sampler-{}", f.run.band->picture_size) : fmt::format("biggan-{}", f.run.network.size), ranks);
  return f.run;
}

inline void print_biggan_help(bool of_band) {
  BigganFlags f(of_band);
  CLI::App app(f.description(), f.program());
  app.get_formatter()->column_width(34);
  f.add(app);
  std::fputs(app.help().c_str(), stdout);
}

}  // namespace kiln
