// A training run around a model: pictures in, a run directory out. It knows when to log, measure, sample and save, which
// checkpoints to keep, how to stop and how to go on; what it trains is behind the interface Trainee.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/checkpoint.h"
#include "engine/context.h"
#include "engine/dataset.h"
#include "engine/picture.h"
#include "engine/picture_meter.h"
#include "engine/progress.h"
#include "engine/ranks.h"
#include "engine/report.h"
#include "engine/run_directory.h"
#include "engine/swd.h"
#include "engine/watch.h"

namespace kiln {

/// What a run does and when, whatever the model.
struct RunPlan {
  std::filesystem::path out;          // the run's directory
  bool resume = false;                // go on with the run in `out`, or
  std::filesystem::path resume_file;  // start a new one from a checkpoint
  int64_t steps = 0;
  double minutes = 0;  // stop by the clock; 0: never
  int64_t log_every = 1, sample_every = 0, metric_every = 0, checkpoint_every = 1;  // sample, metric: 0: never
  int keep = 0;                    // checkpoints, beside the best by distance; 0: all
  int grid = 6;                    // sample grids show grid x grid pictures
  int batch = 1;                   // pictures a step, for the figures
  uint64_t seed = 0;
  std::string config, config_file;  // JSON: in checkpoints, and with paths as config.json
  std::string program;              // in the grids' metadata
  bool profile = false;
  OnCollapse on_collapse = OnCollapse::warn;
  int max_rewinds = 3;  // after that many it stops
  int rewinds = 0;      // so often the run that is resumed went back
  bool console = true;  // prints to standard output, and saves and ends at SIGINT and SIGTERM; without it: neither
  std::shared_ptr<Ranks> ranks;  // that train together: the root writes and prints, all take the same steps; null: there are no others
};

/// A model family's side of a run.
class Trainee {
 public:
  virtual ~Trainee() = default;
  /// One training step. Steps count from 0; random numbers and data depend on nothing but the seed and this number.
  virtual void step(int64_t step) = 0;
  /// Random numbers and the order of pictures from here on: 0 is the seed's own stream, which a run begins with; after its
  /// first rewind it takes 1, and so on. What samples show does not depend on it.
  virtual void use_stream(int stream) = 0;
  /// What the last step reports: keys of log.jsonl and their values. Waits for the device. One that is not finite says that
  /// training diverged.
  virtual std::vector<std::pair<std::string, double>> numbers() = 0;
  /// More for lines of the log, which the watch reads (engine/watch.h): singular values, gradient norms. Costs more.
  virtual std::vector<std::pair<std::string, double>> vitals() = 0;
  /// Whether all weights are finite: asked before a checkpoint.
  virtual bool finite() = 0;
  /// After every step; false: save and end.
  virtual bool go_on(int64_t /*steps_done*/) { return true; }
  /// The same for people: the middle of the progress line.
  virtual std::string summary() = 0;
  /// More to log with each measurement of the distance: keys and values.
  virtual std::vector<std::pair<std::string, double>> measures() { return {}; }
  /// Samples first .. first + n - 1 of the same endless row at every call, as far as one forward takes: [m, h, w, 3] on
  /// [-1, 1], 1 <= m <= n.
  virtual Tensor sample(int64_t first, int64_t n) = 0;
  /// Further sheets beside the sample grid of a step.
  virtual void write_sheets(const RunDirectory& directory, int64_t step) = 0;
  /// All tensors that training changes and that a rank must have to go on as another one; empty: this model trains on one rank only.
  virtual std::vector<Tensor> state() { return {}; }
  virtual void initialise() = 0;
  virtual void save(CheckpointWriter& writer) = 0;
  /// Throws kiln::Error: a checkpoint of another model, size or width.
  virtual void load(const SafetensorsFile& file) = 0;
};

/// What a run measures and calls its own of data that is no set of pictures; of pictures it knows by itself.
struct RunData {
  uint64_t fingerprint = 0;
  std::string distance;     // the name of the distance, for people
  std::string description;  // a line about how it is measured; empty: it is not
  double baseline = 0;      // between real data
  /// The distance of the trainee's samples as they are now; more to log goes to `log`.
  std::function<double(std::vector<std::pair<std::string, double>>& log)> measure;
};

struct RunResult {
  int64_t step = 0;                   // the last one done
  std::string distance_name = "sliced Wasserstein distance";
  double distance = 0, baseline = 0;  // x 1e3, of the last measurement, and of real against real
  std::filesystem::path grid, checkpoint;
  size_t peak_bytes = 0;     // of tensors
  size_t process_bytes = 0;  // of the whole process: its resident memory at the peak
  std::string collapse;  // why training was given up; empty if it was not. `checkpoint` is then the last from before, or empty
};

/// Reads a folder of pictures, with progress, and prints what was skipped and why. Every rank reads it, on a machine one before the
/// others, for which it leaves the cache, and all must find the same. Throws kiln::Error, also at Ctrl-C.
std::shared_ptr<const Dataset> load_pictures(DatasetOptions options, ProgressLine& line, Ranks* ranks = nullptr);

class TrainingRun {
 public:
  /// Makes or opens the run's directory: the root of several ranks. Throws kiln::Error.
  explicit TrainingRun(RunPlan plan);
  TrainingRun(const TrainingRun&) = delete;
  /// A new run that failed before it had a line of its log or a checkpoint leaves no directory.
  ~TrainingRun();

  /// The pictures: what the distance is measured against, if it is measured, and the sheet of real ones.
  void use_pictures(std::shared_ptr<const Dataset> data);
  /// In their place: other data. Its trainee writes all sheets, the step's sample among them.
  void use_data(RunData data) { other_ = std::make_unique<RunData>(std::move(data)); }
  /// A further distance, measured every metric_every steps as far as it takes no more than a fortieth of the time.
  void use_meter(std::unique_ptr<PictureMeter> meter) { meter_ = std::move(meter); }
  /// Loads the newest checkpoint or the one named, or initialises. Afterwards step() is the number of steps done.
  void start(Trainee& trainee);
  /// Trains to the end, to Ctrl-C or to the clock, and saves. A run that cannot write ends with a kiln::Error that says
  /// which step is saved.
  RunResult train(Trainee& trainee);

  ProgressLine& line() { return line_; }
  int64_t step() const { return step_; }

 private:
  void load(Trainee& trainee, const std::filesystem::path& path);
  void save(Trainee& trainee);
  void measure(Trainee& trainee, bool at_stop = false);
  double measure_pictures(Trainee& trainee, std::vector<std::pair<std::string, double>>& log);
  bool may_measure();
  void measure_more(Trainee& trainee);
  void tell(const std::string& text);
  void write_grids(Trainee& trainee);
  void report(Trainee& trainee, bool log_now, bool important);
  void note(const std::string& line);
  void require_finite(Trainee& trainee);
  bool act(Trainee& trainee);
  bool rewind(Trainee& trainee);
  void loop(Trainee& trainee);
  int64_t pause(Trainee& trainee, bool reported, bool stop, double& last_shown);
  void print_profile();
  void begin_alike(Trainee& trainee);
  bool root() const { return !plan_.ranks || plan_.ranks->root(); }
  void alone(const std::function<void()>& f) { plan_.ranks ? plan_.ranks->alone(f) : f(); }
  int64_t any_bits(int64_t bits) { return plan_.ranks ? plan_.ranks->any_bits(bits) : bits; }
  void write_page();

  const RunPlan plan_;
  Stopwatch clock_;
  ProgressLine line_;
  RunDirectory directory_;  // the root's; other ranks have none, and use none
  bool measures() const { return reference_ || (other_ && other_->measure); }
  double baseline() const { return reference_ ? reference_->baseline().mean : other_ ? other_->baseline : 0; }
  uint64_t fingerprint() const { return other_ ? other_->fingerprint : data_->fingerprint(); }

  std::shared_ptr<const Dataset> data_;
  std::unique_ptr<RunData> other_;  // or this
  std::unique_ptr<SwdReference> reference_;
  std::unique_ptr<Report> page_;
  int64_t step_ = 0, first_step_ = 0, measured_step_ = -1, saved_step_ = -1, grid_step_ = -1, best_step_ = -1, last_report_step_ = 0;
  double seconds_training_ = 0, last_report_ = 0, images_per_second_ = 0;
  double distance_ = 0, best_distance_ = -1;
  Watch watch_;
  std::optional<Warning> trouble_;  // what the watch told and nobody has acted on
  int rewinds_ = 0, stream_ = 0;    // times that the run went back; the stream that the trainee uses
  int64_t rewound_to_ = -1;
  bool kept_ = false;  // there is something in the directory that nobody should lose
  double real_distance_ = 0;  // between real pictures
  std::unique_ptr<PictureMeter> meter_;
  bool meter_ready_ = false, told_swd_ = false, told_meter_ = false;
  TimeShare swd_share_{0.025}, meter_share_{0.025};  // of the loop's time
  double swd_seconds_ = 0, meter_seconds_ = 0;  // of the last measurement
  Stopwatch loop_clock_;
};

}  // namespace kiln
