// fastgan_interpolate CHECKPOINT: a video that walks through latents.
#include <cmath>

#include "apps/program.h"
#include "engine/progress.h"
#include "engine/video.h"

using namespace kiln;
using namespace kiln::fastgan;

namespace {

enum class Easing { linear, sine, quad, cubic };
const std::map<std::string, Easing> kEasings{{"linear", Easing::linear}, {"sine", Easing::sine}, {"quad", Easing::quad}, {"cubic", Easing::cubic}};

/// From 0 to 1 as t goes from 0 to 1; all but linear start and end at rest.
double ease(Easing e, double t) {
  const auto both_ends = [&](double power) { return t < 0.5 ? std::pow(2 * t, power) / 2 : 1 - std::pow(2 - 2 * t, power) / 2; };
  switch (e) {
    case Easing::sine: return (1 - std::cos(M_PI * t)) / 2;
    case Easing::quad: return both_ends(2);
    case Easing::cubic: return both_ends(3);
    default: return t;
  }
}

}  // namespace

int main(int argc, char** argv) {
  GeneratorFlags generator;
  LatentFlags latents;
  std::string path = "spherical", easing = "sine", out = video_compiled_in() ? "interpolation.mp4" : "interpolation";
  double seconds = 2;
  bool loop = false;
  VideoOptions video;
  const auto add = [&](CLI::App& app) {
    generator.add(app);
    latents.add(app, "the pictures to walk through: a list with ranges, 1,5,8-12 (default: 0-7)");
    app.add_option("--path", path, "between two pictures: spherical or linear")->check(CLI::IsMember({"spherical", "linear"}))->capture_default_str();
    app.add_option("--easing", easing, "how it moves from one to the next: linear, sine, quad, cubic")->check(CLI::IsMember(kEasings))->capture_default_str();
    app.add_flag("--loop", loop, "back to the first, so that the video can be repeated without a seam");
    app.add_option("--seconds", seconds, "from one picture to the next")->check(CLI::Range(0.02, 3600.0))->capture_default_str();
    app.add_option("--fps", video.fps, "pictures a second")->check(CLI::Range(1.0, 240.0))->capture_default_str();
    app.add_option("--quality", video.quality, "of MP4: 0 (lossless) to 51, lower is better and larger")->check(CLI::Range(0, 51))->capture_default_str();
    app.add_option("--out", out, "NAME.mp4, NAME.gif, or a folder for PNG frames")->capture_default_str();
  };
  return run_program(argc, argv, "fastgan_interpolate", "A video of a trained FastGAN's pictures, from one to the next through its latent space.", add, [&] {
    const VideoFormat format = video_format(out);
    Sampler sampler = generator.open();
    LatentFlags::Chosen stops = latents.choose(sampler, {0, 1, 2, 3, 4, 5, 6, 7});
    if (stops.latents.size() < 2) fail("only one picture to walk through; give two or more with --seeds or --latents");
    if (loop) stops.latents.push_back(stops.latents.front());
    const int64_t legs = int64_t(stops.latents.size()) - 1, steps = std::max<int64_t>(1, std::llround(seconds * video.fps));
    if (legs * steps > 1'000'000) fail("--seconds {}: the video would have {} pictures; at most a million", seconds, legs * steps);
    const Path along = path == "linear" ? Path::linear : Path::spherical;
    std::vector<Latent> frames;
    for (int64_t leg = 0; leg < legs; leg++)
      for (int64_t i = 0; i < steps; i++)
        frames.push_back(between(stops.latents[size_t(leg)], stops.latents[size_t(leg) + 1], ease(kEasings.at(easing), double(i) / double(steps)), along));
    if (!loop) frames.push_back(stops.latents.back());  // a loop's last picture is its first one
    for (Latent& f : frames) f.noise = stops.latents[0].noise;  // noise that changed would flicker
    std::string all;
    for (const std::string& s : stops.names) all += (all.empty() ? "" : ", ") + s;
    video.comment = fmt::format("kiln fastgan_interpolate; checkpoint {}, generator {}, step {}; {}", sampler.name(), sampler.fingerprint(), sampler.step(), all);
    const Stopwatch watch;
    ProgressLine line;
    VideoWriter writer(out, sampler.size(), sampler.size(), video);
    sampler.render(frames, [&](size_t i, Picture p) {
      writer.add(p);
      line.show(fmt::format("{}/{} pictures", i + 1, frames.size()));
    });
    writer.finish();
    line.print(fmt::format("{} pictures of {} px, {:.1f} s at {} a second, made in {:.1f} s: {}{}", frames.size(), sampler.size(), double(frames.size()) / video.fps,
                           video.fps, watch.seconds(), out, format == VideoFormat::frames ? "/000000.png ..." : ""));
  });
}
