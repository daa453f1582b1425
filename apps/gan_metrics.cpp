// gan_metrics REAL FAKE: how far generated pictures are from real ones.
#include <omp.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <optional>
#include <nlohmann/json.hpp>

#include "apps/start.h"
#include "engine/error.h"
#include "engine/progress.h"
#include "models/nearest_sheet.h"

using namespace kiln;
namespace fs = std::filesystem;

namespace {

struct Flags {
  std::string real, fake, fit = "crop", network, weights, lpips, lpips_weights, lpips_heads, sheet, device = "cpu";
  int size = 0, threads = 0, batch = 8;
  int64_t pictures = SwdOptions().pictures, fakes = 5000, pairs = 200, seed = -1;
  bool json = false, no_cache = false;
};

const char* kAbout =
    "Distance between a folder of real pictures and generated ones: a second folder, or a FastGAN checkpoint, whose averaged "
    "generator makes them. Every number comes with its protocol.";

void add_flags(CLI::App& app, Flags& f) {
  app.get_formatter()->column_width(34);
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  app.add_option("REAL", f.real, "folder of real pictures (searched recursively: jpg, png, webp, bmp, tga)")->required();
  app.add_option("FAKE", f.fake, "folder of generated pictures, or a checkpoint (.safetensors)")->required();
  app.add_option("--size", f.size, "side in pixels at which the sets are compared (default: the checkpoint's; of two folders, that of FAKE's first picture)");
  app.add_option("--fit", f.fit, "how other shapes become square: crop, squash, pad (a checkpoint brings its own)")->capture_default_str();
  app.add_option("--pictures", f.pictures, "pictures a side of the sliced Wasserstein distance; half of the real ones at most")->capture_default_str();
  app.add_option("--network", f.network, "measure FID, KID, precision and recall on this network's features: inception, squeezenet, darknet");
  app.add_option("--weights", f.weights, "the network's file (.pth or .safetensors; docs/metrics.md says where people get it)");
  app.add_option("--fakes", f.fakes, "pictures that a checkpoint makes for --network")->capture_default_str();
  app.add_option("--lpips", f.lpips, "measure how varied the pictures are by LPIPS on this network: vgg, alex, squeeze");
  app.add_option("--lpips-weights", f.lpips_weights, "torchvision's file of that network");
  app.add_option("--lpips-heads", f.lpips_heads, "LPIPS v0.1's linear heads of that network");
  app.add_option("--pairs", f.pairs, "pairs of pictures that LPIPS compares, a side")->capture_default_str();
  app.add_option("--sheet", f.sheet, "write a PNG: generated pictures beside the real ones nearest to them");
  app.add_option("--seed", f.seed, "of a checkpoint's pictures (default: the training run's, so that the number is that of its log)");
  app.add_option("--batch", f.batch, "pictures that a network makes or sees at once")->capture_default_str();
  app.add_option("--device", f.device, "cpu or gpu")->check(CLI::IsMember({"cpu", "gpu"}))->capture_default_str();
  app.add_option("--threads", f.threads, "CPU threads (0: all cores)")->capture_default_str();
  app.add_flag("--no-cache", f.no_cache, "do not keep the decoded pictures and the real ones' features");
  app.add_flag("--json", f.json, "print one JSON object");
}

void check_range(const char* flag, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) fail("{} {}: the value must be from {} to {}", flag, value, low, high);
}

void check(const Flags& f) {
  check_range("--pictures", f.pictures, 1, 1'000'000);
  check_range("--fakes", f.fakes, 10, 1'000'000);
  check_range("--pairs", f.pairs, 1, 1'000'000);
  check_range("--batch", f.batch, 1, 4096);
  check_range("--threads", f.threads, 0, 4096);
  if (f.size != 0) check_range("--size", f.size, 16, 4096);
  if (f.network.empty() && !f.weights.empty()) fail("--weights: name the network with --network (inception, squeezenet or darknet)");
  if (f.lpips.empty() && !(f.lpips_weights.empty() && f.lpips_heads.empty())) fail("--lpips-weights, --lpips-heads: name the network with --lpips (vgg, alex or squeeze)");
  if (!f.sheet.empty() && fs::path(f.sheet).extension() != ".png") fail("--sheet {}: the sheet is a PNG; give a name that ends in .png", f.sheet);
  if (!fs::is_directory(f.real)) fail("{}: not a folder; the first argument is the folder of real pictures", f.real);
}

DatasetOptions dataset(const Flags& f, const std::string& folder, const CheckpointPictures& how) {
  DatasetOptions d;
  d.folder = folder;
  d.size = how.size;
  d.fit = how.fit;
  d.background = how.background;
  d.threads = f.threads;
  if (!f.no_cache) d.cache_folder = default_cache_folder();
  return d;
}

void print(const Flags& f, const MetricPictures& real, const MetricPictures& fake, const std::vector<Metric>& metrics) {
  if (!f.json) {
    fmt::print("real  {}\nfake  {}\n", real.description(), fake.description());
    for (const Metric& m : metrics) fmt::print("\n{} = {:.4g}\n  {}\n  protocol: {}\n", m.name, m.value, m.reading, m.protocol);
    if (!f.sheet.empty()) fmt::print("\nsheet {}\n", f.sheet);
    return;
  }
  nlohmann::ordered_json j{{"real", real.description()}, {"fake", fake.description()}, {"size", real.size()}};
  for (const Metric& m : metrics) {
    j[m.key] = m.value;
    for (const auto& [key, value] : m.more) j[key] = value;
    j[m.key + "_protocol"] = m.protocol;
  }
  fmt::print("{}\n", j.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

std::vector<Metric> measure(const Flags& f, MetricPictures& real, MetricPictures& fake, const FeatureNetwork* network, const Lpips* lpips) {
  ProgressLine line(isatty(STDOUT_FILENO) && !f.json);
  const auto progress = [&](const char* what) {
    return [&line, what](int64_t done, int64_t total) { line.show(fmt::format("{} {}/{}", what, done, total)); };
  };
  std::vector<Metric> metrics{measure_swd(real, fake, f.pictures)};
  FeatureSet reals, fakes;
  if (network) {
    FeatureOptions o{f.batch, f.no_cache ? fs::path() : default_cache_folder(), progress("real pictures")};
    reals = picture_features(real, real.count(), *network, o);
    o.progress = progress("generated pictures");
    fakes = picture_features(fake, fake.count() < 0 ? f.fakes : fake.count(), *network, o);
    for (Metric& m : measure_features(reals, fakes, *network, real.size())) metrics.push_back(std::move(m));
  }
  if (lpips) metrics.push_back(measure_lpips(real, fake, *lpips, f.pairs, progress("pairs")));
  if (!f.sheet.empty()) {
    NearestOptions o;
    if (network) o.fakes = std::min(o.fakes, fakes.count);
    NearestSheet s = nearest_sheet(real, fake, o, network, &reals, &fakes);
    write_png(f.sheet, s.sheet, {{"Software", "kiln gan_metrics"}, {"real", real.description()}, {"fake", fake.description()}});
    metrics.push_back(std::move(s.metric));
  }
  return metrics;
}

int run(const Flags& f) {
  check(f);
  if (f.threads > 0) omp_set_num_threads(f.threads);
  const Device device = f.device == "gpu" ? Device::gpu : Device::cpu;
  Context context(device);
  const UseContext use(context);
  // The networks first: a file that is missing is told before an hour of work.
  std::unique_ptr<FeatureNetwork> network;
  if (!f.network.empty()) network = open_feature_network(f.network, f.weights);
  std::optional<Lpips> lpips;
  if (!f.lpips.empty()) lpips.emplace(f.lpips, f.lpips_weights, f.lpips_heads);

  CheckpointPictures how{f.size, fit_from_name(f.fit), {}};
  std::unique_ptr<MetricPictures> fake;
  if (fs::is_directory(f.fake)) {
    if (how.size == 0) how.size = first_picture_side(f.fake);
    fake = folder_source(dataset(f, f.fake, how));
  } else {
    how = checkpoint_pictures(f.fake);
    if (f.size != 0 && f.size != how.size) fail("--size {}: {} makes pictures of {} px; leave --size out", f.size, f.fake, how.size);
    fake = keep_pictures(generator_source({f.fake, f.seed, f.batch, device}), size_t{1} << 29);
  }
  const std::unique_ptr<MetricPictures> real = folder_source(dataset(f, f.real, how));

  print(f, *real, *fake, measure(f, *real, *fake, network.get(), lpips ? &*lpips : nullptr));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  start(argv);
  Flags f;
  CLI::App app(kAbout, "gan_metrics");
  add_flags(app, f);
  try {
    app.parse(argc, argv);
    return run(f);
  } catch (const CLI::CallForHelp&) {
    std::fputs(app.help().c_str(), stdout);
    return 0;
  } catch (const CLI::Error& e) {
    fmt::print(stderr, "gan_metrics: {}; see --help\n", e.what());
    return 2;
  } catch (const std::exception& e) {
    fmt::print(stderr, "gan_metrics: {}\n", e.what());
    return 2;
  }
}
