#include "engine/training_run.h"

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "engine/error.h"
#include "engine/file.h"
#include "engine/picture_tensor.h"
#include "engine/process_memory.h"

namespace kiln {

using nlohmann::json;

namespace {

/// Pictures that the diversity of samples is measured with.
constexpr int64_t kDiversityPictures = 64;

/// The sliced Wasserstein distance is seldom dear, and what it tells must not depend on the clock: only a run that has spent that
/// many seconds more than its share on it leaves measurements out.
constexpr double kSwdHeadStart = 10;
/// What ranks tell each other after a step, so that all do the same next.
constexpr int64_t kStop = 1, kReport = 2;
/// What the root tells when it has measured and reported.
constexpr int64_t kEnd = 1, kRewound = 2;

/// Names the checkpoint that a run was started from: until its own first one, --resume begins there again.
constexpr const char* kStartedFrom = "started_from";

/// Whether it goes on with the run in its directory (it may also start a new one from a checkpoint).
bool resumes(const RunPlan& plan) { return plan.resume && plan.resume_file.empty(); }

RunDirectory open_directory(const RunPlan& plan) {
  RunDirectory d;
  const auto open = [&] {
    d = resumes(plan) ? RunDirectory::open(plan.out) : RunDirectory::create(plan.out);
    d.claim();
  };
  if (plan.ranks)
    plan.ranks->alone(open);
  else
    open();
  return d;
}

}  // namespace

std::shared_ptr<const Dataset> load_pictures(DatasetOptions options, ProgressLine& line, Ranks* ranks) {
  options.progress = [&](size_t done, size_t total) {
    if (interrupted()) fail("interrupted while reading the pictures; nothing was written");
    line.show(fmt::format("reading pictures {}/{}", done, total));
  };
  std::shared_ptr<const Dataset> data;
  if (ranks) {
    options.max_bytes /= uint64_t(ranks->local_size());
    ranks->in_turns([&] { data = std::make_shared<const Dataset>(options); });
    ranks->agree("its set of pictures", fmt::format("{} pictures, {:016x}", data->count(), data->fingerprint()), true,
                 "give every machine the same pictures");
  } else {
    data = std::make_shared<const Dataset>(options);
  }
  for (const auto& f : data->failures()) line.print(fmt::format("skipped {}: {}", f.path, f.reason));
  line.print(fmt::format("{} pictures at {} px from {}{}{}{}", data->count(), data->size(), options.folder.string(),
                         data->from_cache() ? " (cached)" : "",
                         data->failures().empty() ? "" : fmt::format("; {} skipped", data->failures().size()),
                         data->in_memory() ? ""
                                           : fmt::format("; {} of them stream from the disk, {} are the most in memory (--picture-memory)",
                                                         human_bytes(data->count() * data->picture_bytes()), human_bytes(options.max_bytes))));
  if (data->count() < 10)
    line.print(fmt::format("only {} pictures: a generator will memorise them; 60 or more are better", data->count()));
  return data;
}

TrainingRun::TrainingRun(RunPlan plan)
    : plan_(std::move(plan)), line_(plan_.console && root()), directory_(open_directory(plan_)), rewinds_(plan_.rewinds) {
  if (!plan_.console) return;
  watch_interrupts();
  keep_freed_memory(false);  // while pictures are decoded
}

TrainingRun::~TrainingRun() {
  if (root() && !kept_ && !resumes(plan_)) directory_.withdraw();
}

void TrainingRun::use_pictures(std::shared_ptr<const Dataset> data) {
  data_ = std::move(data);
  if (!root()) return;
  const int side = data_->size();
  if (plan_.metric_every > 0 && data_->count() >= 2)
    reference_ = std::make_unique<SwdReference>([&](int64_t i, uint8_t* to) { data_->read(size_t(i), to); }, int64_t(data_->count()), side, side);
  const auto picture = [&](size_t i) {
    Picture p{side, side, std::vector<uint8_t>(data_->picture_bytes())};
    data_->read(i, p.rgb.data());
    return p;
  };
  if (reference_) {
    std::vector<Picture> some;
    for (size_t i = 0, n = std::min(data_->count(), size_t(kDiversityPictures)); i < n; i++)
      some.push_back(fit_picture(picture(i * data_->count() / n), kDiversitySide, Fit::squash));
    real_distance_ = mean_pairwise_distance(some);
  }
  std::vector<Picture> reals;
  for (size_t i = 0; i < data_->count() && int(i) < plan_.grid * plan_.grid; i++) reals.push_back(picture(i));
  write_png(directory_.path() / "samples" / "real.png", make_grid(reals, plan_.grid, 2));
}

void TrainingRun::load(Trainee& trainee, const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  if (!file.metadata().contains("config")) fail("{}: not a checkpoint of kiln (it has no configuration); name one that this program wrote", path.string());
  trainee.load(file);
  // A run that was killed between a rewind and its next checkpoint has counted it in config.json only.
  rewinds_ = std::max(rewinds_, file.metadata().contains("rng.stream") ? int(metadata_integer(file, "rng.stream")) : 0);
  if (rewinds_ != stream_) trainee.use_stream(stream_ = rewinds_);
  step_ = metadata_integer(file, "step");
  best_step_ = metadata_integer(file, "best_step");
  best_distance_ = metadata_number(file, "best_distance");
  const bool same_pictures = metadata_text(file, "data") == fmt::format("{:016x}", fingerprint());
  // The best so far counts only where its checkpoint is, and for the pictures that it was measured with.
  if (!plan_.resume_file.empty() || !same_pictures) best_step_ = -1;
  if (!same_pictures) line_.print(fmt::format("the {} are not those that this run began with: it goes on, but not bit for bit", other_ ? "clips" : "pictures"));
}

void TrainingRun::start(Trainee& trainee) {
  KILN_ASSERT(data_ || other_);
  alone([&] {
    if (!plan_.resume_file.empty()) {
      load(trainee, plan_.resume_file);
      directory_.write_text(kStartedFrom, std::filesystem::absolute(plan_.resume_file).string());
    } else {
      const std::vector<int64_t> steps = directory_.checkpoints();
      if (!steps.empty()) {
        try {
          load(trainee, directory_.checkpoint(steps.back()));
        } catch (const Error& e) {
          if (steps.size() < 2) throw;
          fail("{}; without it, --resume goes on from step {}", e.what(), steps[steps.size() - 2]);
        }
        saved_step_ = step_;
      } else if (std::filesystem::exists(directory_.path() / kStartedFrom)) {
        const std::string from = directory_.read_text(kStartedFrom);
        load(trainee, from);
        best_step_ = -1;
        line_.print(fmt::format("the run was stopped before its first checkpoint: it begins again, from {}", from));
      } else {
        trainee.initialise();
        if (plan_.resume) line_.print("the run was stopped before its first checkpoint: it begins again");
      }
      directory_.trim_log(step_);
      watch_.replay(directory_.path() / "log.jsonl");
    }
    if (step_ >= plan_.steps) fail("{}: the run has done {} steps already; give more with --steps", plan_.out.string(), step_);
    directory_.write_text("config.json", plan_.config_file + "\n");
  });
  begin_alike(trainee);
  first_step_ = last_report_step_ = step_;
  give_back_freed_memory();  // decoded pictures, initial weights
  if (plan_.console) keep_freed_memory(true);
}

/// What the root has loaded or made, to the other ranks.
void TrainingRun::begin_alike(Trainee& trainee) {
  if (!plan_.ranks) return;
  const std::vector<Tensor> state = trainee.state();
  KILN_ASSERT(!state.empty());
  int64_t numbers[] = {step_, rewinds_};
  const std::string text = plan_.ranks->from_root(std::string(reinterpret_cast<const char*>(numbers), sizeof numbers));
  std::memcpy(numbers, text.data(), sizeof numbers);
  step_ = numbers[0];
  rewinds_ = int(numbers[1]);
  if (rewinds_ != stream_) trainee.use_stream(stream_ = rewinds_);
  plan_.ranks->share(state);
}

/// Writes a line of the log and lets the watch look at it.
void TrainingRun::note(const std::string& line) {
  directory_.log(line);
  kept_ = true;
  for (const Warning& w : watch_.look(line)) {
    line_.print(fmt::format("warning: step {}: {}", w.step, w.text));
    directory_.log(json{{"step", w.step}, {"rule", w.rule}, {"since", w.since}, {"warning", w.text}}.dump());
    if (!trouble_ || w.rule == "not_finite" || w.since < trouble_->since) trouble_ = w;
  }
}

/// A network that has diverged must not become a checkpoint, whether or not the log has a line of this step.
void TrainingRun::require_finite(Trainee& trainee) {
  bool finite = trainee.finite();
  for (const auto& [key, value] : trainee.numbers()) finite = finite && std::isfinite(value);
  if (finite || trouble_) return;
  trouble_ = Warning{"not_finite", step_, step_, "a loss or a weight is not a finite number: training has diverged; try a smaller --lr"};
  line_.print(fmt::format("warning: step {}: {}", step_, trouble_->text));
  directory_.log(json{{"step", step_}, {"rule", trouble_->rule}, {"since", step_}, {"warning", trouble_->text}}.dump());
  kept_ = true;
}

/// Acts on what the watch told; false: give up. What is not finite cannot be trained on, so that a mere warning does not do.
bool TrainingRun::act(Trainee& trainee) {
  if (plan_.on_collapse == OnCollapse::rewind) return rewinds_ < plan_.max_rewinds && rewind(trainee);
  if (plan_.on_collapse == OnCollapse::stop || trouble_->rule == "not_finite") return false;
  trouble_.reset();
  return true;
}

/// Back to the newest checkpoint from before the trouble; those after it are what the trouble made. After a rewind to the same
/// one, to the one before it, where there is one. False if no checkpoint is from before.
bool TrainingRun::rewind(Trainee& trainee) {
  std::optional<int64_t> target, older;
  for (const int64_t step : directory_.checkpoints()) {
    if (step >= trouble_->since) continue;
    older = target;
    target = step;
  }
  if (target && older && *target == rewound_to_) target = older;
  if (!target) return false;
  for (const int64_t step : directory_.checkpoints())
    if (step > *target) std::filesystem::remove(directory_.checkpoint(step));
  const Warning w = *trouble_;
  rewinds_++;
  // Before the load: a kill in between leaves a run that begins the new stream at its newest checkpoint, which is this one.
  json config = json::parse(plan_.config_file);
  config["rewinds"] = rewinds_;
  directory_.write_text("config.json", config.dump(2) + "\n");
  load(trainee, directory_.checkpoint(*target));
  directory_.trim_log(step_);
  const std::string text = fmt::format("at step {}: {}. Went back to step {} with other random numbers (time {} of at most {})", w.step, w.text,
                                       step_, rewinds_, plan_.max_rewinds);
  directory_.log(json{{"step", step_}, {"rule", w.rule}, {"since", w.since}, {"rewinds", rewinds_}, {"warning", text}}.dump());
  line_.print(fmt::format("rewind: back to step {} with other random numbers ({} of at most {})", step_, rewinds_, plan_.max_rewinds));
  watch_ = Watch();
  watch_.replay(directory_.path() / "log.jsonl");
  trouble_.reset();
  rewound_to_ = saved_step_ = last_report_step_ = step_;
  measured_step_ = -1;
  return true;
}

void TrainingRun::save(Trainee& trainee) {
  // A run that stops between two checkpoints saves once more. That one counts for nothing else: the run that goes on from it has
  // the log, and the best checkpoint, of one that never stopped.
  const bool planned = step_ % plan_.checkpoint_every == 0;
  if (measures() && measured_step_ != step_) measure(trainee, !planned);
  if (measures() && planned && (best_step_ < 0 || distance_ < best_distance_)) {
    best_step_ = step_;
    best_distance_ = distance_;
  }
  CheckpointWriter w;
  trainee.save(w);
  w.set("config", plan_.config);
  w.set("step", std::to_string(step_));
  w.set("rng.stream", std::to_string(rewinds_));
  w.set("rng.seed", std::to_string(plan_.seed));  // seed, stream and step are all of the random state
  w.set("best_step", std::to_string(best_step_));
  w.set("best_distance", fmt::format("{:.17g}", best_distance_));
  w.set("data", fmt::format("{:016x}", fingerprint()));
  w.write(directory_.checkpoint(step_));
  saved_step_ = step_;
  kept_ = true;
  directory_.prune(plan_.keep, best_step_ >= 0 ? std::optional(best_step_) : std::nullopt);
}

void TrainingRun::measure(Trainee& trainee, bool at_stop) {
  const Stopwatch watch;
  json j{{"step", step_}};
  std::vector<std::pair<std::string, double>> measured;
  distance_ = reference_ ? measure_pictures(trainee, measured) : other_->measure(measured);
  measured_step_ = step_;
  for (const auto& [key, value] : measured) j[key] = value;
  for (const auto& [key, value] : trainee.measures()) j[key] = value;
  if (at_stop) j["at_stop"] = true;
  note(j.dump());
  swd_seconds_ = watch.seconds();
  swd_share_.spend(swd_seconds_);
}

double TrainingRun::measure_pictures(Trainee& trainee, std::vector<std::pair<std::string, double>>& log) {
  std::vector<Picture> some;  // of the samples from `first` on
  int64_t first = 0;
  const int64_t count = reference_->pictures();
  std::vector<Picture> compared;
  const SwdResult r = reference_->compare(
      [&](int64_t i, uint8_t* to) {
        if (i >= first + int64_t(some.size())) {
          first = i;
          some = to_pictures(trainee.sample(first, count - first));
        }
        const Picture& p = some[size_t(i - first)];
        std::copy(p.rgb.begin(), p.rgb.end(), to);
        if (i < kDiversityPictures) compared.push_back(fit_picture(p, kDiversitySide, Fit::squash));
      },
      count);
  log.emplace_back("swd", r.mean);
  log.emplace_back("swd_baseline", reference_->baseline().mean);
  const std::vector<int> levels = reference_->levels();
  for (size_t i = 0; i < levels.size(); i++) log.emplace_back(fmt::format("swd_{}", levels[i]), r.per_level[i]);
  if (real_distance_ > 0 && compared.size() > 1) log.emplace_back("diversity", mean_pairwise_distance(compared) / real_distance_);
  return r.mean;
}

/// Something that is said once, on the console and in the log.
void TrainingRun::tell(const std::string& text) {
  line_.print(fmt::format("step {}: {}", step_, text));
  directory_.log(json{{"step", step_}, {"note", text}}.dump());
}

/// Whether the run can afford the distance now. One that its --metric-every makes too dear is measured less often.
bool TrainingRun::may_measure() {
  if (swd_share_.allows(swd_seconds_, loop_clock_.seconds(), kSwdHeadStart)) return true;
  if (!told_swd_)
    tell(fmt::format("the distance takes {:.2g} s, more often than {:.2g}% of the time allow: some measurements are left out (every planned checkpoint has its own)",
                     swd_seconds_, swd_share_.share() * 100));
  told_swd_ = true;
  return false;
}

/// The meter's turn, as far as its share of the time goes: first the real pictures, a piece at a time, then the samples.
void TrainingRun::measure_more(Trainee& trainee) {
  const double left = meter_share_.left(loop_clock_.seconds());
  const Stopwatch watch;
  if (!meter_ready_) {
    if (left > 0) meter_ready_ = meter_->prepare(left);
    meter_share_.spend(watch.seconds());
    return;
  }
  const double expected = meter_seconds_ > 0 ? meter_seconds_ : meter_->expected_seconds();
  if (expected > left) {
    if (!told_meter_)
      tell(fmt::format("{} takes {:.2g} s, which {:.2g}% of the time allow once in {}: it is left out in between", meter_->name(), expected,
                       meter_share_.share() * 100, duration_text(expected / meter_share_.share())));
    told_meter_ = true;
    return;
  }
  json j{{"step", step_}};
  for (const auto& [key, value] : meter_->measure([&](int64_t first, int64_t n) { return trainee.sample(first, n); })) j[key] = value;
  meter_seconds_ = watch.seconds();
  meter_share_.spend(meter_seconds_);
  j["metric_seconds"] = meter_seconds_;
  note(j.dump());
}

void TrainingRun::write_grids(Trainee& trainee) {
  if (data_) {
    const int64_t count = int64_t(plan_.grid) * plan_.grid;
    std::vector<Picture> samples;
    while (int64_t(samples.size()) < count)
      for (Picture& p : to_pictures(trainee.sample(int64_t(samples.size()), count - int64_t(samples.size())))) samples.push_back(std::move(p));
    write_png(directory_.sample(step_), make_grid(samples, plan_.grid, 2),
              {{"Software", "kiln " + plan_.program}, {"step", std::to_string(step_)}, {"seed", std::to_string(plan_.seed)}});
  }
  trainee.write_sheets(directory_, step_);
  kept_ = true;
  grid_step_ = step_;
}

void TrainingRun::report(Trainee& trainee, bool log_now, bool important) {
  const double now = seconds_training_;
  if (now > last_report_) images_per_second_ = double((step_ - last_report_step_) * plan_.batch) / (now - last_report_);
  last_report_ = now;
  last_report_step_ = step_;
  const size_t memory = context().arena->stats().peak;
  if (log_now) {
    json j{{"step", step_}, {"images", step_ * plan_.batch}, {"seconds", now}, {"images_per_second", images_per_second_},
           {"memory_mb", double(memory) / 1048576.0}};
    for (const auto& [key, value] : trainee.numbers()) j[key] = value;
    for (const auto& [key, value] : trainee.vitals()) j[key] = value;
    note(j.dump());
  }
  double eta = double(plan_.steps - step_) * plan_.batch / (images_per_second_ > 0 ? images_per_second_ : 1e-9);
  if (plan_.minutes > 0) eta = std::min(eta, plan_.minutes * 60 - clock_.seconds());
  std::string text = fmt::format("step {}/{}  {:.1f} {}/s  ETA {}  {}", step_, plan_.steps, images_per_second_, other_ ? "clips" : "img", duration_text(eta), trainee.summary());
  if (measured_step_ >= 0) text += fmt::format("  {} {:.1f} (real {:.1f})", other_ ? "distance" : "SWD", distance_, baseline());
  text += fmt::format("  mem {} MB", memory >> 20);
  line_.show(text, important);
}

void TrainingRun::loop(Trainee& trainee) {
  const auto due = [&](int64_t every) { return every > 0 && step_ % every == 0; };
  const auto asked_to_end = [&] { return interrupted() || (root() && plan_.minutes > 0 && clock_.seconds() > plan_.minutes * 60); };
  double last_shown = -1e9;
  bool stop = false;
  loop_clock_ = Stopwatch();
  if (plan_.ranks) plan_.ranks->set_training(true);
  while (!stop) {
    const Stopwatch watch;
    trainee.step(step_);
    step_++;
    stop = asked_to_end() || step_ == plan_.steps;
    if (!trainee.go_on(step_)) stop = true;
    // Clocks differ, and a signal may have come to one rank only.
    const int64_t signs = any_bits((stop ? kStop : 0) | (root() && clock_.seconds() - last_shown > 1 ? kReport : 0));
    stop = signs & kStop;
    const bool reported = due(plan_.log_every) || (signs & kReport) || stop;
    const bool paused = reported || due(plan_.metric_every) || due(plan_.sample_every) || due(plan_.checkpoint_every);
    if (paused) wait_for_device();  // steps are queued on a GPU; the clock is right where something is read from it
    seconds_training_ += watch.seconds();
    if (!paused) continue;
    if (due(plan_.checkpoint_every) && plan_.ranks) plan_.ranks->require_equal(trainee.state(), "its copy of the weights");
    int64_t verdict = 0;
    alone([&] { verdict = pause(trainee, reported, stop, last_shown); });
    verdict = any_bits(verdict);
    if (verdict == kEnd) break;
    if (verdict == kRewound) {
      begin_alike(trainee);
      stop = any_bits(asked_to_end()) != 0;
    }
  }
  if (plan_.ranks) plan_.ranks->set_training(false);
  alone([&] {
    if (grid_step_ != step_) write_grids(trainee);
    if (saved_step_ != step_ && !trouble_) save(trainee);
    write_page();
  });
}

/// What the root does between two steps; its verdict is what all do next.
int64_t TrainingRun::pause(Trainee& trainee, bool reported, bool stop, double& last_shown) {
  const auto due = [&](int64_t every) { return every > 0 && step_ % every == 0; };
  // A planned checkpoint has its distance; what that tells about a collapse must be known before it is written.
  const bool measured = measures() && (due(plan_.checkpoint_every) || (due(plan_.metric_every) && may_measure()));
  if (measured) measure(trainee);
  if (meter_ && due(plan_.metric_every)) measure_more(trainee);
  if (reported) {
    report(trainee, due(plan_.log_every), measured || stop);
    last_shown = clock_.seconds();
  }
  if (due(plan_.checkpoint_every) || stop) require_finite(trainee);
  if (trouble_) {
    const int before = rewinds_;
    if (!act(trainee)) return kEnd;
    if (rewinds_ != before) return kRewound;
  }
  if (due(plan_.sample_every)) write_grids(trainee);
  if (due(plan_.checkpoint_every)) {
    save(trainee);
    write_page();
  }
  return 0;
}

/// The run's report.html. It can be made again at any time, so that a failure is told and ends nothing.
void TrainingRun::write_page() {
  if (!page_) page_ = std::make_unique<Report>(plan_.out);
  try {
    page_->write();
  } catch (const Error& e) {
    line_.print(fmt::format("no report.html: {}", e.what()));
  }
}

void TrainingRun::print_profile() {
  const Profile& profile = context().profile;
  double total = 0;
  for (double s : profile.seconds) total += s;
  const double n = double(step_ - first_step_);
  line_.print(fmt::format("profile: {:.1f} ms a step in training; booked {:.1f} ms:", seconds_training_ / n * 1e3, total / n * 1e3));
  for (int k = 0; k < int(Work::count); k++)
    if (Work(k) != Work::ranks || plan_.ranks)
      line_.print(fmt::format("  {:12} {:8.2f} ms {:5.1f} %  {:6.1f} launches", name_of(Work(k)), profile.seconds[size_t(k)] / n * 1e3,
                            profile.seconds[size_t(k)] / seconds_training_ * 100, double(profile.launches[size_t(k)]) / n));
  // A captured step is counted once.
  if (plan_.ranks && context().device == Device::cpu) {
    const Ranks::Traffic& t = plan_.ranks->traffic();
    line_.print(fmt::format("  {}; waited for others {:.1f} ms a step", t.text(plan_.ranks->size(), n), t.seconds_waiting / n * 1e3));
  }
}

RunResult TrainingRun::train(Trainee& trainee) {
  if (reference_) line_.print(reference_->description());
  if (other_ && !other_->description.empty()) line_.print(other_->description);
  if (meter_) line_.print(meter_->description());
  if (step_ > 0) line_.print(fmt::format("going on from step {}", step_));
  context().profile.on = plan_.profile;
  try {
    loop(trainee);
  } catch (const WriteError& e) {
    if (saved_step_ < 0) throw;
    fail("{}; step {} is saved: then go on with --resume --out {}", e.what(), saved_step_, plan_.out.string());
  }
  if (interrupted()) line_.print(fmt::format("interrupted: step {} is saved; go on with --resume --out {}", step_, plan_.out.string()));
  if (plan_.profile) print_profile();
  RunResult r;
  r.step = step_;
  if (!root()) return r;
  r.distance = distance_;
  r.baseline = baseline();
  if (other_) r.distance_name = other_->distance;
  r.grid = directory_.sample(step_);
  if (trouble_) r.collapse = fmt::format("step {}: {}", trouble_->step, trouble_->text);
  for (const int64_t step : directory_.checkpoints())
    if (!trouble_ || step < trouble_->since) r.checkpoint = directory_.checkpoint(step);
  r.peak_bytes = context().arena->stats().peak;
  r.process_bytes = process_memory().peak;
  return r;
}

}  // namespace kiln
