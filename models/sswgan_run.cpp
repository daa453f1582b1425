#include "models/sswgan_run.h"

#include <omp.h>

#include "engine/error.h"
#include "models/sswgan_trainee.h"

namespace kiln::sswgan {

namespace fs = std::filesystem;

namespace {

ClipDatasetOptions clip_options(const RunOptions& o) {
  const DatasetOptions base = dataset_options(o, o.network.final_size());
  ClipDatasetOptions d;
  d.folder = base.folder;
  d.size = base.size;
  d.frames = o.network.final_frames();
  d.stride = o.frame_stride;
  d.frames_flag = "--stages";
  d.fit = base.fit;
  d.background = base.background;
  d.pictures = o.clip_pictures;
  d.classes = o.by_class;
  d.strict = base.strict;
  d.threads = base.threads;
  d.cache_folder = base.cache_folder;
  d.max_bytes = base.max_bytes;
  return d;
}

/// Every rank reads the clips, on a machine one before the others, for which it leaves the cache.
std::shared_ptr<const ClipDataset> load_clips(const RunOptions& o, ProgressLine& line) {
  ClipDatasetOptions options = clip_options(o);
  options.progress = [&](size_t done, size_t total) {
    if (interrupted()) fail("interrupted while reading the clips; nothing was written");
    line.show(fmt::format("reading clips {}/{}", done, total));
  };
  std::shared_ptr<const ClipDataset> data;
  if (o.ranks) {
    options.max_bytes /= uint64_t(o.ranks->local_size());
    o.ranks->in_turns([&] { data = std::make_shared<const ClipDataset>(options); });
    o.ranks->agree("its set of clips", fmt::format("{} clips, {:016x}", data->count(), data->fingerprint()), true, "give every machine the same clips");
  } else {
    data = std::make_shared<const ClipDataset>(options);
  }
  for (const auto& f : data->failures()) line.print(fmt::format("skipped {}: {}", f.path, f.reason));
  for (const std::string& note : data->notes()) line.print(note);
  line.print(fmt::format("{} at {} px from {}{}", data->description(), data->size(), o.data.string(), data->from_cache() ? " (cached)" : ""));
  if (!data->classes().names.empty()) line.print(data->classes().balance());
  return data;
}

RunPlan stage_plan(const RunOptions& o) {
  RunPlan p = kiln::plan_of(o);
  p.out = stage_folder(o.out, o.stage);
  p.batch = o.batch * o.train.d_steps;
  p.config = to_json(o, false);
  p.config_file = to_json(o, true);
  p.program = "sswgan_train";
  return p;
}

/// The step of a stage's newest checkpoint; -1 if there is none.
int64_t steps_of(const fs::path& run, int stage) {
  const fs::path path = newest_checkpoint(run, stage);
  return path.empty() ? -1 : std::stoll(path.stem().string());
}

/// What the stage is trained on, and its newest checkpoint, where it has one.
void note_in_manifest(const RunOptions& o) {
  ManifestStage now{o.stage, "", "", o.fed_checkpoint, o.fed_weights};
  if (const fs::path path = newest_checkpoint(o.out, o.stage); !path.empty()) {
    now.checkpoint = fs::relative(path, o.out).generic_string();
    now.weights = weights_hash(SafetensorsFile(path));
  }
  std::vector<ManifestStage> stages = read_manifest(o.out);
  std::erase_if(stages, [&](const ManifestStage& m) { return m.stage == o.stage; });
  const auto place = std::find_if(stages.begin(), stages.end(), [&](const ManifestStage& m) { return m.stage > o.stage; });
  stages.insert(place, now);
  write_manifest(o.out, o.network, stages);
}

/// A stage belongs to the stages before it: their clips must be those that this run's options say. Their widths and windows are their own.
void agree_with_stages_before(RunOptions& o, const SafetensorsFile& file) {
  const RunOptions theirs = from_json(metadata_text(file, "config"), file.path());
  for (int j = 1; j < o.stage; j++) {
    if (j > theirs.network.count() || !theirs.network.stage(j).same_clips(o.network.stage(j)))
      fail("--stages {}: stage {} is trained on clips of {}, a network of {}; give the same sizes to the stages before, with --stages or --preset",
           stages_text(o.network.stages), o.stage, file.path(), stages_text(theirs.network.stages));
    o.network.stages[size_t(j - 1)] = theirs.network.stage(j);
  }
  if (theirs.network.z != o.network.z) fail("--z {}: stage {} is trained on clips of {}, which has --z {}; give the same", o.network.z, o.stage, file.path(), theirs.network.z);
  if (theirs.class_names != o.class_names) {
    const auto text = [](const std::vector<std::string>& names) {
      std::string all;
      for (const std::string& name : names) all += (all.empty() ? "the classes " : ", ") + name;
      return all.empty() ? "no classes" : all;
    };
    fail("--classes: stage {} is trained on clips of {}, which has {}, and this run has {}; give or leave out --classes as there, and put the folders back",
         o.stage, file.path(), text(theirs.class_names), text(o.class_names));
  }
}

/// What stage o.stage is trained on: the newest checkpoint of the stage before, or, when it goes on, the one that it began with.
void find_condition(RunOptions& o) {
  if (o.stage == 1) return;
  fs::path path;
  if (!o.fed_weights.empty() && !newest_checkpoint(o.out, o.stage).empty()) {
    path = fed_checkpoint(o.out, o.stage, o.fed_weights);
  } else {
    path = newest_checkpoint(o.out, o.stage - 1);
    if (path.empty())
      fail("{}: stage {} is trained on the clips of stage {}, which has no checkpoint here; train it first, with --stage {} or --all-stages", o.out.string(),
           o.stage, o.stage - 1, o.stage - 1);
  }
  const SafetensorsFile file(path);
  o.fed_checkpoint = fs::relative(path, o.out).generic_string();
  o.fed_weights = weights_hash(file);
  agree_with_stages_before(o, file);
}

RunResult train_stage(RunOptions o, const std::shared_ptr<const ClipDataset>& data) {
  if (o.ranks)
    o.ranks->together([&] { find_condition(o); });
  else
    find_condition(o);
  Context context(o.device, false, tensor_limit(o));
  UseContext use(context);
  configure(context, o);
  check(o);
  if (o.ranks) o.ranks->agree_on_options(to_json(o, true), {"commands", "data", "rewinds"});
  const RunPlan plan = stage_plan(o);
  TrainingRun run(plan);
  std::shared_ptr<Sampler> before;
  if (o.stage > 1) {
    run.line().print(fmt::format("stage {} is trained on clips of {} (weights {}), {}", o.stage, o.fed_checkpoint, o.fed_weights,
                                 o.kept_conditions ? fmt::format("{} of them, made now", o.kept_conditions) : "made for every step"));
    SamplerOptions s;
    s.stage = o.stage - 1;
    s.batch = int(std::max<int64_t>(1, o.batch / (int64_t(o.train.parts) * o.rank_count())));
    s.standing = o.standing;
    s.chunk = o.chunk;
    s.device = o.device;
    s.checkpoint = o.out / o.fed_checkpoint;
    before = std::make_shared<Sampler>(o.out, s);
  }
  SswganTrainee trainee(o, data, before);
  run.use_data(trainee.run_data());
  const bool root = !o.ranks || o.ranks->root();
  if (root) trainee.write_real(plan.out / "samples");
  run.start(trainee);
  const auto note = [&] { o.ranks ? o.ranks->alone([&] { note_in_manifest(o); }) : note_in_manifest(o); };  // other ranks read it for the next stage
  note();  // so that clips can be made while it trains, and if it is killed
  run.line().print(fmt::format("stage {}: {} frames of {} px, windows of {}; G {:.2f} M parameters, D {:.2f} M; batch {} x {} D steps, {} on {}; to {}", o.stage,
                               o.network.stage(o.stage).frames, o.network.stage(o.stage).size, o.network.stage(o.stage).window,
                               double(trainee.model().g_params.parameter_count()) / 1e6, double(trainee.model().d_params.parameter_count()) / 1e6, o.batch,
                               o.train.d_steps, name_of(o.precision), machine_text(o), plan.out.string()));
  const RunResult result = run.train(trainee);
  note();
  return result;
}

/// A stage that goes on among all of them: under its own recorded options. Of `o` are when it ends, where it is, and on what it computes.
RunOptions recorded(const RunOptions& o, int stage) {
  const fs::path folder = stage_folder(o.out, stage);
  RunOptions s = from_json(RunDirectory::open(folder).read_text("config.json"), folder.string());
  if (s.network.final_size() != o.network.final_size() || s.network.final_frames() != o.network.final_frames() || s.frame_stride != o.frame_stride ||
      s.by_class != o.by_class || s.clip_pictures != o.clip_pictures || s.fit != o.fit)
    fail("{}: was trained on clips read in another way than those of stage 1 (--stages, --stride, --classes, --pictures, --fit); go on with it alone, with --stage {}",
         folder.string(), stage);
  const TrainingOptions own = s;
  static_cast<TrainingOptions&>(s) = o;
  s.augment = own.augment;
  s.batch = own.batch;
  s.flip = own.flip;
  s.seed = own.seed;
  s.precision = own.precision;
  s.fit = own.fit;
  s.background = own.background;
  s.rewinds = own.rewinds;
  s.commands = own.commands;
  if (!o.commands.empty()) s.commands.push_back(o.commands.back());
  s.class_names = o.class_names;
  s.network.classes = o.network.classes;
  s.stage = stage;
  s.all_stages = o.all_stages;
  s.on_step = o.on_step;
  return s;
}

}  // namespace

RunResult train(const RunOptions& options) {
  check(options);
  if (options.threads > 0) omp_set_num_threads(options.threads);
  if (options.ranks && options.device == Device::gpu) options.ranks->use_gpus();
  RunOptions o = options;
  ProgressLine reading(o.console && (!o.ranks || o.ranks->root()));
  const std::shared_ptr<const ClipDataset> data = load_clips(o, reading);
  o.class_names = data->classes().names;
  o.network.classes = int(o.class_names.size());
  if (!o.all_stages) return train_stage(o, data);
  RunResult result;
  const bool resume = o.resume;
  for (int k = 1; k <= o.network.count(); k++) {
    RunOptions s = o;
    s.stage = k;
    if (resume) {
      const int64_t done = steps_of(o.out, k);
      if (done >= o.steps) {
        reading.print(fmt::format("stage {}: has done its {} steps", k, done));
        continue;
      }
      if (k < o.network.count() && steps_of(o.out, k + 1) >= 0) {
        reading.print(fmt::format("stage {}: stays as it is, for stage {} is trained on its clips (--stage {} trains it further)", k, k + 1, k));
        continue;
      }
      const bool begun = fs::exists(stage_folder(o.out, k) / "config.json");
      if (begun && k > 1) s = recorded(o, k);
      s.resume = begun;
      if (!begun) s.fed_checkpoint = s.fed_weights = "";
    }
    result = train_stage(s, data);
    if (!result.collapse.empty() || interrupted()) break;
    if (result.step < o.steps && o.minutes == 0) break;
  }
  return result;
}

namespace {

/// Runs two iterations of a stage in the current context, which plans, and returns its model's table.
void plan_stage(const RunOptions& o, int stage, bool print) {
  context().random = std::make_shared<Philox>(o.seed);
  Model model(o.network, stage);
  const auto total = [](const ParameterSet& set) { return double(set.parameter_count()) / 1e6; };
  if (print) {
    const auto table = [](const char* title, const ParameterSet& set) {
      fmt::print("{}\n", title);
      for (const auto& e : set.entries())
        if (e.kind == ParameterSet::Entry::parameter) fmt::print("  {:36} {:>18} {:>12}\n", e.name, e.shape.text(), e.count());
    };
    table(fmt::format("stage {}: G", stage).c_str(), model.g_params);
    table(fmt::format("stage {}: D", stage).c_str(), model.d_params);
    fmt::print("stage {}: G {:.3f} M parameters, D {:.3f} M\n", stage, total(model.g_params), total(model.d_params));
  }
  const int64_t n = o.batch / (int64_t(o.train.parts) * o.rank_count());
  const StageConfig& s = o.network.stage(stage);
  const Sources sources{[&](int, int) {
                          const Tensor clips(Shape{n, o.network.data_frames(stage), o.network.final_size(), o.network.final_size(), 3}, context().storage);
                          return RealPart{view(Var(clips), s.stride, o.network.shrink(stage)).value, Tensor(Shape{n}, DType::i32)};
                        },
                        [&](int, int) {
                          if (stage == 1) return ConditionPart{};
                          const int side = o.network.stage(stage - 1).size;
                          return ConditionPart{Tensor(Shape{n, s.window / o.network.rho(stage), side, side, 3}, context().storage), Tensor(Shape{n}, DType::i32)};
                        }};
  for (int i = 0; i < 2; i++) model.iteration(sources, o.train);
}

}  // namespace

size_t planned_peak(const RunOptions& o, int stage) {
  Context context(o.device, true, tensor_limit(o));
  UseContext use(context);
  configure(context, o);
  plan_stage(o, stage, false);
  return context.arena->stats().peak;
}

void dry_run(const RunOptions& options) {
  RunOptions o = options;
  if (!o.data.empty()) {
    ProgressLine line(o.console);
    RunOptions alone = o;
    alone.ranks = nullptr;  // the others are not here
    const std::shared_ptr<const ClipDataset> data = load_clips(alone, line);
    o.class_names = data->classes().names;
  }
  o.network.classes = int(o.class_names.size());
  check(o);
  for (int k = 1; k <= o.network.count(); k++) {
    if (!o.all_stages && k != o.stage) continue;
    Context context(o.device, true, tensor_limit(o));
    UseContext use(context);
    configure(context, o);
    plan_stage(o, k, true);
    const Arena::Stats s = context.arena->stats();
    const StageConfig& c = o.network.stage(k);
    fmt::print("stage {}: {} frames of {} px, trained on {}; {} MB of tensors at the peak of a step with batch {} in {} parts ({} MB reserved)\n", k, c.frames, c.size,
               c.window, s.peak >> 20, o.batch, o.train.parts, s.reserved >> 20);
  }
}

}  // namespace kiln::sswgan
