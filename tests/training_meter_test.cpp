// What a run measures beside training takes no more than its share of the time, and it says what it left out.
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "engine/feature_distance.h"
#include "engine/training_run.h"
#include "models/feature_meter.h"
#include "tests/feature_fixtures.h"
#include "tests/training_runs.h"

using namespace kiln;
using namespace kiln::test;
using nlohmann::json;

namespace {

void work(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

/// Steps of a millisecond that train nothing.
class Idle : public Trainee {
 public:
  void step(int64_t) override { work(0.001); }
  void use_stream(int) override {}
  std::vector<std::pair<std::string, double>> numbers() override { return {}; }
  std::vector<std::pair<std::string, double>> vitals() override { return {}; }
  bool finite() override { return true; }
  std::string summary() override { return "idle"; }
  Tensor sample(int64_t, int64_t) override { return zeros(Shape{1, 32, 32, 3}); }
  void write_sheets(const RunDirectory&, int64_t) override {}
  void initialise() override {}
  void save(CheckpointWriter&) override {}
  void load(const SafetensorsFile&) override {}
};

struct Counts {
  int prepared = 0, measured = 0;
};

/// Needs three pieces of 20 ms to get ready, and 20 ms a measurement.
class Slow : public PictureMeter {
 public:
  explicit Slow(Counts& c) : c_(c) {}
  std::string description() const override { return "slow"; }
  std::string name() const override { return "the slow distance"; }
  bool prepare(double) override {
    work(0.02);
    return ++c_.prepared == 3;
  }
  double expected_seconds() const override { return 0.02; }
  std::vector<std::pair<std::string, double>> measure(const std::function<Tensor(int64_t, int64_t)>& sample) override {
    CHECK(sample(0, 1).shape() == Shape{1, 32, 32, 3});
    work(0.02);
    c_.measured++;
    return {{"slow", 1.5}};
  }

 private:
  Counts& c_;
};

std::vector<json> log_of(const std::string& run) {
  std::vector<json> lines;
  std::ifstream f(run + "/log.jsonl");
  for (std::string line; std::getline(f, line);) lines.push_back(json::parse(line));
  return lines;
}

}  // namespace

TEST_CASE("time share: what is done now and then stays below its share of the time") {
  TimeShare share(0.05);
  CHECK_FALSE(share.allows(1, 19.9));
  CHECK(share.allows(1, 20));
  // Work of 1 to 7 seconds that asks every 10 seconds, for an hour.
  double now = 0;
  int done = 0;
  for (int i = 0; now < 3600; i++) {
    now += 10;
    const double cost = 1 + i % 7;
    if (!share.allows(cost, now)) continue;
    share.spend(cost);
    now += cost;
    done++;
    CHECK(share.spent() <= 0.05 * now);
  }
  CHECK(share.spent() > 0.04 * now);
  CHECK(done > 20);
  CHECK(TimeShare(0.05).allows(9, 0, 10));
  CHECK_FALSE(TimeShare(0.05).allows(11, 0, 10));
}

TEST_CASE("training run: a meter that wants to measure at every step gets a fortieth of the time, and the log says so") {
  Fixture fixture;
  const TempFolder t;
  DatasetOptions d;
  d.folder = draw_faces(t, 12, 32);
  d.size = 32;
  const auto data = std::make_shared<const Dataset>(d);
  RunPlan plan;
  plan.out = t / "run";
  plan.minutes = 5.0 / 60;
  plan.steps = 1'000'000;
  plan.log_every = 1'000'000;
  plan.metric_every = 1;
  plan.checkpoint_every = 1'000'000;
  plan.config = plan.config_file = "{}";
  plan.grid = 1;
  plan.console = false;
  Counts counts;
  Idle idle;
  const Stopwatch watch;
  {
    TrainingRun run(plan);
    run.use_pictures(data);
    run.use_meter(std::make_unique<Slow>(counts));
    run.start(idle);
    run.train(idle);
  }
  const double seconds = watch.seconds();
  CHECK(counts.prepared == 3);
  // 60 ms to get ready, then 20 ms each: of 5 s a fortieth is 125 ms.
  CHECK(counts.measured >= 1);
  CHECK(counts.measured <= int((0.025 * seconds - 0.06) / 0.02));
  int lines = 0, notes = 0;
  for (const json& j : log_of(t / "run")) {
    if (j.contains("slow")) {
      CHECK(j.at("slow") == 1.5);
      CHECK(j.at("metric_seconds").get<double>() >= 0.02);
      lines++;
    }
    if (!j.contains("note")) continue;
    const std::string note = j.at("note");
    if (note.find("the slow distance takes 0.02") == 0) notes++;
  }
  CHECK(lines == counts.measured);
  CHECK(notes == 1);
}

TEST_CASE("feature meter: what it measures is the distance of the features, and real pictures are looked at once") {
  Fixture fixture;
  const TempFolder t, cache;
  DatasetOptions d;
  d.folder = draw_faces(t, 13, 32);
  d.size = 32;
  const auto data = std::make_shared<const Dataset>(d);
  const std::string weights = write_keras_weights(t, "darknet");
  const auto network = open_feature_network("darknet", weights);
  FeatureMeter meter(open_feature_network("darknet", weights), data, cache.path(), 10);
  CHECK(meter.name() == "the kernel distance (KID) on Tiny Darknet");
  CHECK_FALSE(meter.prepare(1e-9));  // one batch: 8 of 13
  CHECK_FALSE(meter.prepare(1e-9));  // no time for another
  CHECK(meter.prepare(1e9));
  CHECK(meter.expected_seconds() > 0);

  // Samples in batches of 3: the real pictures themselves, on [-1, 1].
  const auto pictures = [&](int64_t first, int64_t n) {
    std::vector<float> v;
    for (int64_t i = first; i < first + n; i++)
      for (size_t k = 0; k < data->picture_bytes(); k++) v.push_back(float(data->pixels(size_t(i))[k]) / 127.5f - 1.f);
    return from_vector(Shape{n, 32, 32, 3}, v);
  };
  const auto numbers = meter.measure([&](int64_t first, int64_t n) { return pictures(first, std::min<int64_t>(n, 3)); });
  FeatureSet all{13, 512, {}};
  all.values = network->features(byte_pictures(data->pixels(), 13, 32)).to_vector();
  REQUIRE(numbers.size() == 2);
  CHECK(numbers[0].first == "kid_darknet");
  CHECK(numbers[0].second == doctest::Approx(1e3 * kernel_distance(all, all.part(0, 10))).epsilon(1e-3));
  CHECK(numbers[1].first == "fid_darknet");
  CHECK(numbers[1].second == doctest::Approx(frechet_distance(all, all.part(0, 10))).epsilon(1e-3));

  // The next run finds the real pictures' features; other pictures, sizes and weights do not.
  FeatureMeter again(open_feature_network("darknet", weights), data, cache.path(), 10);
  CHECK(again.prepare(1e-9));
  CHECK(again.measure(pictures)[0].second == doctest::Approx(numbers[0].second).epsilon(1e-6));
  d.size = 48;
  FeatureMeter other(open_feature_network("darknet", weights), std::make_shared<const Dataset>(d), cache.path(), 10);
  CHECK_FALSE(other.prepare(1e-9));
}

TEST_CASE("fastgan_train: --metric-network measures beside the run, and mistakes are told before anything is made") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 12, 48), weights = write_keras_weights(t, "darknet");
  const Finished f = run_program("fastgan_train", tiny(faces, t / "run", {"--steps", "40", "--metric-every", "1", "--metric-network", "darknet", "--metric-weights", weights}));
  CAPTURE(f.err);
  REQUIRE(f.code == 0);
  CHECK(f.out.find("KID) on Tiny Darknet: 256 samples against 12 real pictures of 32 px, bilinear to 224 px") != std::string::npos);
  const Finished plan = run_program("fastgan_train", tiny(faces, t / "new", {"--dry-run", "--metric-network", "darknet", "--metric-weights", weights}));
  CHECK(plan.code == 0);
  CHECK(std::stoi(plan.out.substr(plan.out.find("memory: ") + 8)) > 60);  // a batch of 224 px
  refuses(tiny(faces, t / "new", {"--metric-network", "inception"}), {"pt_inception-2015-12-05-6726825d.pth", "pytorch-fid"});
  refuses(tiny(faces, t / "new", {"--metric-network", "resnet"}), {"resnet", "darknet"});
  refuses(tiny(faces, t / "new", {"--metric-weights", weights}), {"--metric-network"});
  refuses(tiny(faces, t / "new", {"--metric-every", "0", "--metric-network", "darknet", "--metric-weights", weights}), {"--metric-every 0"});
  refuses(tiny(faces, t / "new", {"--metric-network", "squeezenet", "--metric-weights", weights}), {"conv1/kernel:0"});
  CHECK(!std::filesystem::exists(t / "new"));
}
