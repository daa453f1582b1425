// sswgan_sample RUN: clips of a trained SSW-GAN: as one video of many, as single videos, as frames, as sheets; longer than trained, and of
// any stage.
#include "apps/device.h"
#include "apps/program.h"
#include "engine/clip_grid.h"
#include "engine/progress.h"
#include "models/sswgan_sampler.h"

using namespace kiln;
namespace fs = std::filesystem;

namespace {

struct Flags {
  std::string run, make = "grid", classes, seeds = "0-15", out, device = "cpu";
  double fps = 12;
  int frames = 0, columns = 4, scale = 1, threads = 0;
  bool all_stages = false;
  sswgan::SamplerOptions options;

  void add(CLI::App& app) {
    app.add_option("RUN", run, "directory that sswgan_train wrote")->required();
    app.add_option("--make", make, "grid: one video of all clips; videos: a file a clip; frames: a folder of pictures a clip; sheet: a picture with a row a clip")
        ->check(CLI::IsMember({"grid", "videos", "frames", "sheet"}))->capture_default_str();
    app.add_option("--seeds", seeds, "numbers and ranges: 0-15 or 3,7,20-24; a clip is its seed's, whatever is made beside it")->capture_default_str();
    app.add_option("--classes", classes, "names or numbers, separated by commas: every seed of each (default: that of number SEED modulo their count)");
    app.add_option("--stage", options.stage, "the last stage to use (0: the last that is trained)")->check(CLI::Range(0, 6))->capture_default_str();
    app.add_flag("--all-stages", all_stages, "show every stage's clip, one beside the other, enlarged and slowed to the last one's (grid, sheet)");
    app.add_option("--frames", frames, "length of the clips; more than trained continues the motion (0: as trained)")->check(CLI::Range(0, 100000))->capture_default_str();
    app.add_option("--fps", fps, "pictures a second of a video; a GIF takes 50 at most")->check(CLI::Range(1.0, 240.0))->capture_default_str();
    app.add_option("--columns", columns, "clips a row of a grid")->check(CLI::Range(1, 64))->capture_default_str();
    app.add_option("--scale", scale, "every pixel of a grid or sheet becomes SCALE x SCALE")->check(CLI::Range(1, 32))->capture_default_str();
    app.add_option("--out", out, "a video (.mp4, .gif) or picture (.png, .jpg, .webp); folder of videos or frames (default: clips.gif, clips.png, clips)");
    const auto machine = [&](CLI::Option* o) { o->group("Machine"); };
    machine(app.add_option("--standing", options.standing, "batches of standing statistics of each stage (0: the checkpoints' running ones)")->check(CLI::Range(0, 100000))->capture_default_str());
    machine(app.add_option("--chunk", options.chunk, "frames of the stage before that are enlarged at a time: memory; the clip is the same (0: all)")->check(CLI::Range(0, 1000000))->capture_default_str());
    machine(app.add_option("--batch", options.batch, "clips computed at once")->check(CLI::Range(1, 4096))->capture_default_str());
    machine(app.add_option("--device", device, "cpu or gpu")->check(CLI::IsMember({"cpu", "gpu"}))->capture_default_str());
    machine(app.add_option("--threads", threads, "CPU threads (0: all cores)")->check(CLI::Range(0, 4096))->capture_default_str());
    machine(app.add_option("--memory", options.memory_gb, "limit for tensors in GiB (0: none)")->check(CLI::Range(0.0, 1e5))->capture_default_str());
  }
};

/// What is made: draws with names for files.
struct Wanted {
  std::vector<sswgan::ClipDraw> draws;
  std::vector<std::string> names;
};

Wanted wanted(const Flags& f, const sswgan::Sampler& s) {
  Wanted w;
  const std::vector<uint64_t> seeds = parse_seeds("--seeds", f.seeds);
  std::vector<int> classes;
  for (size_t at = 0; !f.classes.empty() && at <= f.classes.size();) {
    const size_t comma = std::min(f.classes.find(',', at), f.classes.size());
    classes.push_back(s.class_number(f.classes.substr(at, comma - at)));
    at = comma + 1;
  }
  const auto add = [&](uint64_t seed, int label) {
    std::string name = s.classes().empty() ? "" : s.classes()[size_t(label)] + "-";
    std::replace(name.begin(), name.end(), '/', '_');
    w.draws.push_back({seed, label});
    w.names.push_back(fmt::format("{}seed{:06}", name, seed));
  };
  if (classes.empty())
    for (const uint64_t seed : seeds) add(seed, int(seed % std::max<size_t>(s.classes().size(), 1)));
  else
    for (const int label : classes)
      for (const uint64_t seed : seeds) add(seed, label);
  return w;
}

/// Every pixel and every frame repeated until a clip is of that side and has that many frames.
PictureClip slowed(const PictureClip& clip, size_t frames, int side) {
  PictureClip out;
  for (size_t i = 0; i < frames; i++) {
    const Picture& p = clip[i * clip.size() / frames];
    Picture big{side, side, std::vector<uint8_t>(size_t(side) * size_t(side) * 3)};
    for (int y = 0; y < side; y++)
      for (int x = 0; x < side; x++)
        std::copy_n(p.rgb.begin() + (int64_t(y) * p.height / side * p.width + int64_t(x) * p.width / side) * 3, 3,
                    big.rgb.begin() + (int64_t(y) * side + x) * 3);
    out.push_back(std::move(big));
  }
  return out;
}

/// The clips, cut to the length asked for. With --all-stages every clip in as many as there are stages.
std::vector<PictureClip> make_clips(const Flags& f, sswgan::Sampler& s, const std::vector<sswgan::ClipDraw>& draws) {
  const int stride = s.config().stage(1).stride / s.config().stage(s.stages()).stride;
  const int64_t first = f.frames == 0 ? 0 : std::max<int64_t>(2, (f.frames + stride - 1) / stride);
  std::vector<std::vector<PictureClip>> by_stage;
  for (int k = f.all_stages ? 1 : s.stages(); k <= s.stages(); k++) by_stage.push_back(s.render(draws, k, first));
  std::vector<PictureClip> out;
  for (size_t i = 0; i < draws.size(); i++)
    for (auto& stage : by_stage) {
      PictureClip clip = std::move(stage[i]);
      if (f.all_stages) clip = slowed(clip, size_t(s.frames(0, first)), s.config().stage(s.stages()).size);
      if (f.frames > 0 && int(clip.size()) > f.frames) clip.resize(size_t(f.frames));
      out.push_back(std::move(clip));
    }
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  Flags f;
  return run_program(argc, argv, "sswgan_sample", "Makes clips with a trained SSW-GAN.", [&](CLI::App& app) { f.add(app); }, [&] {
    if (f.threads > 0) omp_set_num_threads(f.threads);
    const bool files = f.make == "videos" || f.make == "frames";
    if (f.all_stages && files) fail("--all-stages: is for --make grid and sheet");
    if (f.out.empty()) f.out = files ? "clips" : f.make == "sheet" ? "clips.png" : video_compiled_in() ? "clips.gif" : "clips";
    if (f.make == "sheet") picture_format(f.out);  // a wrong name is told before the work is done
    if (f.make == "grid") video_format(f.out);
    f.options.device = device_from(f.device);
    sswgan::Sampler sampler(f.run, f.options);
    const Stopwatch watch;
    const Wanted w = wanted(f, sampler);
    VideoOptions video;
    video.fps = f.fps;
    video.comment = fmt::format("kiln sswgan_sample: stage {} step {}, seeds {}", sampler.stages(), sampler.step(), f.seeds);
    ClipGridOptions grid;
    grid.scale = f.scale;
    grid.columns = f.all_stages ? std::max(f.columns, sampler.stages()) / sampler.stages() * sampler.stages() : f.columns;
    if (f.make == "grid") {
      write_clip_grid(f.out, make_clips(f, sampler, w.draws), grid, video);
    } else if (f.make == "sheet") {
      write_picture(f.out, clip_sheet(make_clips(f, sampler, w.draws), 12, grid), {{"Software", "kiln sswgan_sample"}, {"stage", std::to_string(sampler.stages())},
                    {"step", std::to_string(sampler.step())}, {"seeds", f.seeds}});
    } else {
      std::error_code error;
      fs::create_directories(f.out, error);
      if (!fs::is_directory(f.out)) fail("{}: cannot make the folder: {}", f.out, error ? error.message() : "there is a file of that name");
      const std::string ending = f.make == "frames" ? "" : video_compiled_in() ? ".mp4" : "";
      for (size_t i = 0; i < w.draws.size(); i++) {
        const PictureClip clip = make_clips(f, sampler, {w.draws[i]})[0];
        VideoWriter writer(fs::path(f.out) / (w.names[i] + ending), clip[0].width, clip[0].height, video);
        for (const Picture& p : clip) writer.add(p);
        writer.finish();
      }
    }
    fmt::print("{} clips of {} frames, stage {} of {}: {} in {:.1f} s\n", w.draws.size(), f.frames > 0 ? f.frames : sampler.frames(0), sampler.stages(),
               sampler.config().count(), f.out, watch.seconds());
  });
}
