// video_metrics REAL FAKE: how far generated clips are from real ones.
#include <omp.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "apps/program.h"
#include "engine/clip_grid.h"
#include "engine/progress.h"
#include "models/fvd.h"

using namespace kiln;
namespace fs = std::filesystem;

namespace {

struct Flags {
  std::string real, fake, fit = "crop", pictures = "auto", i3d, sheet, device = "cpu";
  int size = 64, frames = 16, stride = 1, windows = 1, threads = 0;
  bool json = false, no_cache = false;
};

ClipDatasetOptions clips_of(const Flags& f, const std::string& folder) {
  ClipDatasetOptions o;
  o.folder = folder;
  o.size = f.size;
  o.frames = f.frames;
  o.stride = f.stride;
  o.fit = fit_from_name(f.fit);
  o.pictures = clip_pictures_from_name(f.pictures);
  o.threads = f.threads;
  if (!f.no_cache) o.cache_folder = default_cache_folder();
  return o;
}

struct Side {
  ClipDataset data;
  ClipBytes clips;
  explicit Side(const Flags& f, const std::string& folder) : data(clips_of(f, folder)), clips(clip_windows(data, f.windows)) {
    for (const PictureFailure& p : data.failures()) fmt::print(stderr, "{}: left out: {}: {}\n", folder, printable(p.path), p.reason);
    for (const std::string& n : data.notes()) fmt::print(stderr, "{}: {}\n", folder, n);
  }
};

std::vector<Metric> motion(const Side& real, const Side& fake) {
  const ClipMotion a = clip_motion(real.clips), b = clip_motion(fake.clips);
  const auto one = [](const char* key, const char* name, double r, double f, const char* what) {
    Metric m;
    m.key = key;
    m.name = name;
    m.value = f;
    m.more = {{fmt::format("{}_real", key), r}};
    m.reading = fmt::format("{:.4g} of the real clips", r);
    m.protocol = what;
    return m;
  };
  return {one("motion_energy", "motion energy", a.energy, b.energy, "mean |x[t+1] - x[t]|, pixels on [-1, 1]"),
          one("frame_diversity", "frame diversity", a.frame_diversity, b.frame_diversity,
              "root mean square distance of a clip's frames from their mean, pixels on [-1, 1]"),
          one("clip_diversity", "clip diversity", a.clip_diversity, b.clip_diversity,
              "root mean square distance of the clips' mean frames from the mean of all, pixels on [-1, 1]")};
}

Metric distance(const Side& real, const Side& fake) {
  const ClipSwdReference reference(real.clips);
  if (fake.clips.count < reference.clips())
    fail("{} fake clips are too few for {} real ones: {} are needed for the clip SWD; make more, or take more windows of each (--windows)", fake.clips.count,
         real.clips.count, reference.clips());
  const ClipSwd d = reference.compare(fake.clips), floor = reference.baseline();
  Metric m;
  m.key = "clip_swd";
  m.name = "clip SWD x1e3";
  m.value = d.mean();
  m.more = {{"clip_swd_frames", d.frames.mean},
            {"clip_swd_steps", d.steps.mean},
            {"clip_swd_spans", d.spans.mean},
            {"clip_swd_floor", floor.mean()},
            {"clip_swd_frames_floor", floor.frames.mean},
            {"clip_swd_steps_floor", floor.steps.mean},
            {"clip_swd_spans_floor", floor.spans.mean}};
  m.reading = fmt::format("frames {:.4g}, steps {:.4g}, spans {:.4g}; real clips among themselves {:.4g} (frames {:.4g}, steps {:.4g}, spans {:.4g})", d.frames.mean,
                          d.steps.mean, d.spans.mean, floor.mean(), floor.frames.mean, floor.steps.mean, floor.spans.mean);
  m.protocol = reference.description();
  return m;
}

Metric coverage(const Flags& f, const Side& real, const Side& fake) {
  if (real.clips.count < 2) fail("{}: one clip is no set; 2 are needed", f.real);
  int side = 1;  // the largest divisor of the size up to 16
  for (int s = 2; s <= 16; s++)
    if (f.size % s == 0) side = s;
  const ClipCoverage c = clip_coverage(clip_descriptors(real.clips, side), clip_descriptors(fake.clips, side));
  Metric m;
  m.key = "coverage";
  m.name = "coverage";
  m.value = c.coverage;
  m.more = {{"coverage_by_chance", c.by_chance}, {"nearest", c.nearest}, {"nearest_real", c.real_nearest}};
  m.reading = fmt::format("{:.4g} if each fake were a random real clip; a fake is {:.4g} grey levels from its nearest real clip, real ones are {:.4g} from each "
                          "other{}",
                          c.by_chance, c.nearest, c.real_nearest, c.nearest < 0.5 * c.real_nearest ? ": are they copies?" : "");
  m.protocol = fmt::format("share of the real clips that are nearest to some fake; root mean square over clips averaged down to {}x{} px", side, side);
  if (!f.sheet.empty()) {
    std::vector<PictureClip> rows;
    const auto pictures = [&](const ClipBytes& clips, int64_t i) {
      std::vector<uint8_t> bytes(clips.bytes());
      clips.read(i, bytes.data());
      PictureClip clip;
      const size_t one = bytes.size() / size_t(clips.frames);
      for (int t = 0; t < clips.frames; t++) {
        const auto at = bytes.begin() + std::ptrdiff_t(size_t(t) * one);
        clip.push_back({clips.width, clips.height, std::vector<uint8_t>(at, at + std::ptrdiff_t(one))});
      }
      return clip;
    };
    for (int64_t i = 0; i < std::min<int64_t>(8, fake.clips.count); i++) {
      rows.push_back(pictures(fake.clips, i));
      rows.push_back(pictures(real.clips, c.index[size_t(i)]));
    }
    write_png(f.sheet, clip_sheet(rows, 12), {{"Software", "kiln video_metrics"}, {"rows", "a fake clip, then the real one nearest to it, and so on"}});
  }
  return m;
}

void run(const Flags& f) {
  if (!f.sheet.empty() && fs::path(f.sheet).extension() != ".png") fail("--sheet {}: the sheet is a PNG; give a name that ends in .png", f.sheet);
  if (f.threads > 0) omp_set_num_threads(f.threads);
  Context context(f.device == "gpu" ? Device::gpu : Device::cpu);
  const UseContext use(context);
  std::unique_ptr<I3d> network;  // first: a file that is missing is told before an hour of work
  if (!f.i3d.empty()) network = std::make_unique<I3d>(f.i3d);
  const Side real(f, f.real), fake(f, f.fake);
  std::vector<Metric> metrics = motion(real, fake);
  metrics.push_back(distance(real, fake));
  metrics.push_back(coverage(f, real, fake));
  if (network) {
    ProgressLine line(isatty(STDOUT_FILENO) && !f.json);
    const auto progress = [&](const char* what) {
      return [&line, what](int64_t done, int64_t total) { line.show(fmt::format("{} {}/{}", what, done, total)); };
    };
    const FeatureSet a = i3d_features(real.clips, *network, progress("real clips")), b = i3d_features(fake.clips, *network, progress("fake clips"));
    metrics.push_back(measure_fvd(a, b, real.clips, *network,
                                  fmt::format("every {} of the source, {} window{} of a clip at most", f.stride, f.windows, f.windows == 1 ? "" : "s")));
  }
  if (f.json) {
    nlohmann::ordered_json j{{"real", f.real}, {"fake", f.fake}, {"real_clips", real.clips.count},
                             {"fake_clips", fake.clips.count}, {"frames", f.frames}, {"size", f.size}};
    for (const Metric& m : metrics) {
      j[m.key] = m.value;
      for (const auto& [key, value] : m.more) j[key] = value;
      j[m.key + "_protocol"] = m.protocol;
    }
    fmt::print("{}\n", j.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
    return;
  }
  fmt::print("real  {}: {}\nfake  {}: {}\n", f.real, real.data.description(), f.fake, fake.data.description());
  for (const Metric& m : metrics) fmt::print("\n{} = {:.4g}\n  {}\n  protocol: {}\n", m.name, m.value, m.reading, m.protocol);
  if (!network) fmt::print("\nno FVD: it needs an I3D's weights (--i3d; docs/video.md says which file)\n");
  if (!f.sheet.empty()) fmt::print("\nsheet {}\n", f.sheet);
}

}  // namespace

int main(int argc, char** argv) {
  Flags f;
  return run_program(
      argc, argv, "video_metrics", "Distance between a folder of real clips and one of generated ones. Every number comes with its protocol.",
      [&](CLI::App& app) {
        app.add_option("REAL", f.real, "folder of real clips: videos, folders of frames, strips (docs/video.md)")->required();
        app.add_option("FAKE", f.fake, "folder of generated clips")->required();
        app.add_option("--size", f.size, "side in pixels at which the sets are compared")->check(CLI::Range(16, 1024))->capture_default_str();
        app.add_option("--frames", f.frames, "frames of a clip that are compared; shorter clips are left out")->check(CLI::Range(2, 10000))->capture_default_str();
        app.add_option("--stride", f.stride, "take every n-th frame")->check(CLI::Range(1, 1000))->capture_default_str();
        app.add_option("--windows", f.windows, "windows of a clip at most, evenly spread")->check(CLI::Range(1, 10000))->capture_default_str();
        app.add_option("--fit", f.fit, "how other shapes become square: crop, squash, pad")->capture_default_str();
        app.add_option("--pictures", f.pictures, "what pictures are: frames of a folder's clip, strips, or by their shape (auto)")->capture_default_str();
        app.add_option("--i3d", f.i3d, "measure FVD with this I3D network's weights (.pt, .pth, .safetensors)");
        app.add_option("--sheet", f.sheet, "write a PNG: generated clips above the real ones nearest to them");
        app.add_option("--device", f.device, "where I3D runs: cpu or gpu")->check(CLI::IsMember({"cpu", "gpu"}))->capture_default_str();
        app.add_option("--threads", f.threads, "CPU threads (0: all cores)")->check(CLI::Range(0, 4096))->capture_default_str();
        app.add_flag("--no-cache", f.no_cache, "do not keep the decoded frames");
        app.add_flag("--json", f.json, "print one JSON object");
      },
      [&] { run(f); });
}
