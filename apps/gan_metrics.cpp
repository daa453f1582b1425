// gan_metrics REAL FAKE: how far generated pictures are from real ones.
#include <omp.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "apps/start.h"
#include "engine/error.h"
#include "models/metrics.h"

using namespace kiln;
namespace fs = std::filesystem;

namespace {

struct Flags {
  std::string real, fake, fit = "crop";
  int size = 0, threads = 0, batch = 8;
  int64_t pictures = SwdOptions().pictures, seed = -1;
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
  app.add_option("--seed", f.seed, "of a checkpoint's pictures (default: the training run's, so that the number is that of its log)");
  app.add_option("--batch", f.batch, "pictures that a generator makes at once")->capture_default_str();
  app.add_option("--threads", f.threads, "CPU threads (0: all cores)")->capture_default_str();
  app.add_flag("--no-cache", f.no_cache, "do not keep the decoded pictures");
  app.add_flag("--json", f.json, "print one JSON object");
}

void check_range(const char* flag, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) fail("{} {}: the value must be from {} to {}", flag, value, low, high);
}

DatasetOptions dataset(const Flags& f, const std::string& folder, int size, Fit fit, Rgb background) {
  DatasetOptions d;
  d.folder = folder;
  d.size = size;
  d.fit = fit;
  d.background = background;
  d.threads = f.threads;
  if (!f.no_cache) d.cache_folder = default_cache_folder();
  return d;
}

int run(const Flags& f) {
  check_range("--pictures", f.pictures, 1, 1'000'000);
  check_range("--batch", f.batch, 1, 4096);
  check_range("--threads", f.threads, 0, 4096);
  if (f.size != 0) check_range("--size", f.size, 16, 4096);
  if (f.threads > 0) omp_set_num_threads(f.threads);
  if (!fs::is_directory(f.real)) fail("{}: not a folder; the first argument is the folder of real pictures", f.real);
  CheckpointPictures how{f.size, fit_from_name(f.fit), {}};
  std::unique_ptr<PictureSource> fake;
  if (fs::is_directory(f.fake)) {
    if (how.size == 0) how.size = first_picture_side(f.fake);
    fake = folder_source(dataset(f, f.fake, how.size, how.fit, how.background));
  } else {
    how = checkpoint_pictures(f.fake);
    if (f.size != 0 && f.size != how.size) fail("--size {}: {} makes pictures of {} px; leave --size out", f.size, f.fake, how.size);
    fake = generator_source({f.fake, f.seed, f.batch});
  }
  const std::unique_ptr<PictureSource> real = folder_source(dataset(f, f.real, how.size, how.fit, how.background));

  std::vector<Metric> metrics{measure_swd(*real, *fake, f.pictures)};
  if (f.json) {
    nlohmann::ordered_json j{{"real", real->description()}, {"fake", fake->description()}, {"size", how.size}};
    for (const Metric& m : metrics) {
      j[m.key] = m.value;
      for (const auto& [key, value] : m.more) j[key] = value;
      j[m.key + "_protocol"] = m.protocol;
    }
    fmt::print("{}\n", j.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
    return 0;
  }
  fmt::print("real  {}\nfake  {}\n", real->description(), fake->description());
  for (const Metric& m : metrics) fmt::print("\n{} = {:.4g}\n  {}\n  protocol: {}\n", m.name, m.value, m.reading, m.protocol);
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
