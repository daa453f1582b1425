// sswgan_train DIR: a folder of clips in, generators of moving pictures out, stage by stage.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "apps/training_program.h"
#include "engine/error.h"
#include "engine/precision.h"
#include "models/sswgan_run.h"
#include "models/sswgan_sampler.h"

using namespace kiln;
using namespace kiln::sswgan;

namespace {

constexpr const char* kDescription =
    "Trains SSW-GAN on a folder of clips: stage 1 makes whole clips, small and slow; every later stage enlarges and interpolates those of the one "
    "before. Each stage has its log, samples and checkpoints in the run directory.";

struct Flags : TrainingFlags {
  RunOptions run = preset("ssw-tiny");
  std::string preset_name = "ssw-tiny", stages, clip_pictures = "auto", ema_warmup = "on", gru = "relu", init = "orthogonal";
  double lr = 0, beta1 = 0, beta2 = 0, adam_eps = 0;
  int width = 0, g_width = 0, d_width = 0;
  bool no_residual = false, no_matching = false;
};

/// All flags, bound to f. The same set is parsed twice: for the preset or the run to go on with, then over its settings.
void add_flags(CLI::App& app, Flags& f) {
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);  // a flag given twice: the last one counts
  RunOptions& o = f.run;
  Config& n = o.network;
  TrainOptions& t = o.train;
  MatchingOptions& m = t.matching;
  const auto group = [&](const char* name) {
    return [name](CLI::Option* option) { return option->group(name); };
  };
  app.add_option("DIR", f.data, "folder of clips: video files (mp4, mkv, avi, gif, ...), folders of frames, strips of square frames");
  app.add_option("--preset", f.preset_name, "sizes to start from: ssw-tiny, ssw-sprites, ssw-actions (CPU), ssw-128, ssw-100f, hvg-48")->check(CLI::IsMember(preset_names()))->capture_default_str();
  app.add_option("--stage", o.stage, "the stage to train; those before it must be trained")->capture_default_str();
  app.add_flag("--all-stages", o.all_stages, "train all stages, one after the other");
  const auto data = group("Pictures");
  data(app.add_option("--stages", f.stages, "sizes: FRAMESxSIDE/STRIDE of every stage, the last with stride 1, @FRAMES of a training window: 12x32/2,24x64@12"));
  data(app.add_flag("--classes", o.by_class, "class-conditional: clips lie in class folders, DIR/CLASS/..."));
  data(app.add_option("--stride", o.frame_stride, "use every so-manieth frame of the clips")->capture_default_str());
  data(app.add_option("--pictures", f.clip_pictures, "pictures in folders are frames of one clip, or strips, a clip each")->check(CLI::IsMember({"auto", "frames", "strips"}))->capture_default_str());
  f.add_shaping(app, o);
  data(app.add_option("--picture-memory", o.picture_memory_gb, "GiB of decoded frames in memory; a larger set streams (0: a quarter of the machine's, 4 at most)")->capture_default_str());
  const auto output = group("Run");
  output(app.add_option("--out", f.out, "run directory, of all stages (default: runs/NAME-PRESET)"));
  output(app.add_option("--resume", f.resume, "go on with the run in --out; with a FILE, start the stage from that checkpoint")->expected(0, 1));
  output(app.add_option("--steps", o.steps, "training steps (of G) of a stage in all")->capture_default_str());
  output(app.add_option("--minutes", o.minutes, "stop a stage after that many minutes, saved (0: never)")->capture_default_str());
  output(app.add_option("--seed", o.seed, "of all random numbers: equal seeds give equal runs")->capture_default_str());
  output(app.add_option("--log-every", o.log_every, "steps between lines of log.jsonl")->capture_default_str());
  output(app.add_option("--sample-every", o.sample_every, "steps between sheets of samples (0: only the last)")->capture_default_str());
  output(app.add_option("--metric-every", o.metric_every, "steps between measurements of the clip distance (0: never)")->capture_default_str());
  output(app.add_option("--checkpoint-every", o.checkpoint_every, "steps between checkpoints")->capture_default_str());
  output(app.add_option("--keep", o.keep, "checkpoints to keep, beside the best by distance (0: all)")->capture_default_str());
  output(app.add_option("--grid", o.grid, "sheets show 2 x GRID clips, those of later stages GRID and their conditions")->capture_default_str());
  output(app.add_option("--standing", o.standing, "batches of standing statistics behind samples and the frozen stages (0: averaged running ones)")->capture_default_str());
  output(app.add_option("--chunk", o.chunk, "frames of the stage before that are enlarged at a time when whole clips are made (0: all)")->capture_default_str());
  f.add_collapse(app, o);
  output(app.add_flag("--dry-run", f.dry_run, "print what the clips give, the parameters and the memory of each stage, and stop"));
  output(app.add_flag("--profile", o.profile, "print where the time went"));
  const auto training = group("Training");
  training(app.add_option("--batch", o.batch, "real clips of a D step, and generated ones of a G step")->capture_default_str());
  training(app.add_option("--accumulate", t.parts, "compute the batch in this many parts: less memory; batch norm sees a part at a time")->capture_default_str());
  training(app.add_option("--d-steps", t.d_steps, "steps of the discriminators for each of G")->capture_default_str());
  training(app.add_option("--lr", f.lr, "learning rate of all networks"));
  training(app.add_option("--g-lr", t.adam_g.lr, "learning rate of G")->capture_default_str());
  training(app.add_option("--d-lr", t.adam_d.lr, "learning rate of the discriminators")->capture_default_str());
  training(app.add_option("--beta1", f.beta1, "Adam's first decay (default: 0)"));
  training(app.add_option("--beta2", f.beta2, "Adam's second decay (default: 0.999)"));
  training(app.add_option("--adam-eps", f.adam_eps, "Adam's epsilon (default: 1e-6)"));
  training(app.add_option("--ema-decay", t.ema.decay, "decay of the generator's moving average")->capture_default_str());
  training(app.add_option("--ema-warmup", f.ema_warmup, "on: the decay grows from 0.1 as (1+t)/(10+t); off: constant (default: on)")->check(CLI::IsMember({"on", "off"})));
  training(app.add_option("--spatial-weight", t.spatial, "of the frames' discriminator in G's loss")->capture_default_str());
  training(app.add_option("--temporal-weight", t.temporal, "of the clips' discriminator in G's loss")->capture_default_str());
  const auto later = group("Later stages");
  later(app.add_option("--dm-weight", m.weight, "of the matching discriminator in G's loss")->capture_default_str());
  later(app.add_option("--dm-noise", m.noise, "standard deviation of the noise on both halves of what it sees")->capture_default_str());
  later(app.add_option("--dm-label", m.label, "margin of its real pairs; below 1: a one-sided label")->capture_default_str());
  later(app.add_option("--dm-drop", m.drop, "probability that it sees a pair without the condition")->capture_default_str());
  later(app.add_flag("--dm-blur", m.blur, "both halves through a fixed blur first"));
  later(app.add_option("--dm-mismatch", m.mismatch, "part of its loss that is of real clips with another clip's condition")->capture_default_str());
  later(app.add_flag("--no-dm", f.no_matching, "no matching discriminator"));
  later(app.add_option("--cond-aug", t.condition_noise, "probability that the generator is given its condition with noise (0.08)")->capture_default_str());
  later(app.add_option("--cond-clips", o.kept_conditions, "clips of the stage before that are made at the start; 0: new ones for every step")->capture_default_str());
  const auto network = group("Network");
  network(app.add_option("--width", f.width, "base width of all networks, of all stages"));
  network(app.add_option("--g-width", f.g_width, "base width of the generators"));
  network(app.add_option("--d-width", f.d_width, "base width of the discriminators"));
  network(app.add_option("--z", n.z, "latent numbers of each stage")->capture_default_str());
  network(app.add_option("--shared-dim", n.shared_dim, "numbers of the class embedding")->capture_default_str());
  network(app.add_option("--d-frames", n.d_frames, "frames of a clip that the frames' discriminator looks at")->capture_default_str());
  network(app.add_option("--gru", f.gru, "activation of the recurrent layers' candidate: relu (DVD-GAN) or tanh (default: tanh; relu in ssw-128, ssw-100f, hvg-48)")->check(CLI::IsMember({"relu", "tanh"})));
  network(app.add_option("--gru-truncate", n.gru_truncate, "back-propagation through time by pieces of so many frames (0: through all)")->capture_default_str());
  network(app.add_flag("--no-residual", f.no_residual, "later stages make the whole clip, not what is added to the enlarged condition"));
  network(app.add_option("--bn-eps", n.bn_eps, "epsilon of the conditional norms")->capture_default_str());
  network(app.add_option("--init", f.init, "how weights start (default: orthogonal)")->check(CLI::IsMember({"orthogonal", "normal", "xavier"})));
  const auto machine = group("Machine");
  f.add_machine(app, o);
  machine(app.add_option("--memory", o.memory_gb, "limit for tensors in GiB (0: none)")->capture_default_str());
}

/// Flags that are not stored as the library stores them.
void finish(Flags& f, const CLI::App& app) {
  RunOptions& o = f.run;
  const auto given = [&](const char* name) { return app.count(name) > 0; };
  f.TrainingFlags::finish(app, o);
  if (given("--stage") && given("--all-stages")) fail("--stage and --all-stages: give one of them");
  if (o.all_stages && !f.resume.empty()) fail("--resume FILE: is a checkpoint of one stage; name it with --stage, without --all-stages");
  if (given("--lr") && (given("--g-lr") || given("--d-lr"))) fail("--lr: is of all networks; leave it or --g-lr and --d-lr out");
  for (AdamOptions* a : {&o.train.adam_g, &o.train.adam_d}) {
    if (given("--lr")) a->lr = float(f.lr);
    if (given("--beta1")) a->beta1 = float(f.beta1);
    if (given("--beta2")) a->beta2 = float(f.beta2);
    if (given("--adam-eps")) a->eps = float(f.adam_eps);
  }
  if (given("--stages")) o.network.stages = parse_stages(f.stages, o.network.stages);
  for (StageConfig& s : o.network.stages) {
    if (given("--width")) s.g_width = s.d_width = f.width;
    if (given("--g-width")) s.g_width = f.g_width;
    if (given("--d-width")) s.d_width = f.d_width;
  }
  if (given("--ema-warmup")) o.train.ema.warm_up = f.ema_warmup == "on";
  if (given("--gru")) o.network.gru_tanh = f.gru == "tanh";
  if (given("--init")) o.network.init = f.init == "normal" ? InitKind::normal : f.init == "xavier" ? InitKind::xavier : InitKind::orthogonal;
  if (given("--pictures")) o.clip_pictures = clip_pictures_from_name(f.clip_pictures);
  if (f.no_residual) o.network.residual = false;
  if (f.no_matching) o.network.matching = false;
  o.train.augment = augment_policy(o.augment);
}

/// What a resumed stage may not change: it would be another run.
void refuse_changes(RunOptions now, const RunOptions& saved) {
  now.stage = saved.stage;
  if (to_json(now, false) == to_json(saved, false)) return;
  const auto differs = [](const char* flag) { fail("--resume: {} differs from the run's own; leave it out, or start a new run with another --out", flag); };
  if (now.network != saved.network) differs("the network (--stages, --width, --z, ...)");
  if (now.batch != saved.batch) differs("--batch");
  if (now.seed != saved.seed) differs("--seed");
  if (now.precision != saved.precision) differs("--precision");
  if (now.augment != saved.augment) differs("--augment");
  if (now.flip != saved.flip) differs("--flip");
  differs("a training option");
}

Flags read_flags(int argc, char** argv) {
  Flags f;
  CLI::App app(kDescription, "sswgan_train");
  app.get_formatter()->column_width(34);
  add_flags(app, f);
  app.parse(argc, argv);
  finish(f, app);
  if (f.run.goes_on() && f.run.out.empty()) fail("--resume: name the run's directory with --out");
  return f;
}

/// The options of the run; `saved` is config.json of the stage that goes on, or of the first.
RunOptions settle(const Flags& first, const std::string& saved, int argc, char** argv, const std::shared_ptr<Ranks>& ranks) {
  const bool resumed = first.run.goes_on();
  const RunOptions base = resumed ? from_json(saved, first.run.out.string()) : preset(first.preset_name);
  Flags f;
  f.run = base;
  CLI::App app(kDescription, "sswgan_train");
  add_flags(app, f);
  app.parse(argc, argv);
  finish(f, app);
  if (resumed)
    refuse_changes(f.run, base);
  else if (app.count("--precision") == 0)
    f.run.precision = precision_from_name("auto", f.run.device);
  f.run.preset = resumed ? base.preset : first.preset_name;
  complete(f.run, f, argc, argv, "sswgan_train", f.run.preset, ranks);
  return f.run;
}

int body(int argc, char** argv, const std::shared_ptr<Ranks>& ranks) {
  Flags flags;
  parse_together(ranks.get(), [&] { flags = read_flags(argc, argv); });
  const std::string saved = root_reads(ranks.get(), [&]() -> std::string {
    if (!flags.run.goes_on()) return "";
    return RunDirectory::open(stage_folder(flags.run.out, flags.run.all_stages ? 1 : flags.run.stage)).read_text("config.json");
  });
  RunOptions o;
  parse_together(ranks.get(), [&] { o = settle(flags, saved, argc, argv, ranks); });
  if (flags.dry_run) {
    if (Ranks::speaks()) dry_run(o);
    return 0;
  }
  const RunResult r = train(o);
  if (r.step == 0 && r.collapse.empty()) return 0;  // every stage was done already
  return report_end("sswgan_train", r);
}

void print_help() {
  CLI::App app(kDescription, "sswgan_train");
  app.get_formatter()->column_width(34);
  Flags f;
  add_flags(app, f);
  std::fputs(app.help().c_str(), stdout);
}

}  // namespace

int main(int argc, char** argv) {
  return training_program(argv, "sswgan_train", [&](const std::shared_ptr<Ranks>& ranks) { return body(argc, argv, ranks); }, print_help);
}
