// biggan_sample CHECKPOINT: pictures of a trained BigGAN, by class: a sheet with a row a class, files, interpolation, a truncation curve.
#include "apps/biggan_sheets.h"
#include "engine/classes.h"
#include "engine/dataset.h"
#include "engine/file.h"
#include "engine/progress.h"
#include "engine/swd.h"
#include "models/biggan_run.h"
#include "models/biggan_sampler.h"

using namespace kiln;
namespace fs = std::filesystem;

namespace {

struct Flags : SheetFlags {
  std::string checkpoint, thresholds = "0.1,0.2,0.4,0.6,0.8,1,1.5,2", data;
  int samples = 200;
  bool no_cache = false;

  void add(CLI::App& app) {
    app.add_option("CHECKPOINT", checkpoint, "a kiln checkpoint (.safetensors) of BigGAN")->required();
    SheetFlags::add(app, {"curve"}, "; curve: truncation against quality and variety");
    app.add_option("--data", data, "real pictures in class folders that a curve compares with");
    app.add_option("--thresholds", thresholds, "of a curve, separated by commas")->capture_default_str();
    app.add_option("--samples", samples, "pictures behind each point of a curve")->check(CLI::Range(10, 100000))->capture_default_str();
    app.add_flag("--no-cache", no_cache, "do not keep the decoded pictures of --data for the next run");
    add_output(app, "file of a sheet, folder of files, name of a curve's files (default: samples.png, samples, curve)");
  }
};

void write_text(const std::string& path, const std::string& text) {
  AtomicFile file(path, text.size());
  file.write(text.data(), text.size());
  file.commit();
}

/// Real pictures with their labels by the generator's class names.
struct Reals {
  std::vector<Picture> pictures;
  std::vector<int> labels;
};
Reals read_reals(const Flags& f, const biggan::Sampler& s) {
  if (f.data.empty()) fail("--make curve: compares with real pictures; name their folder with --data");
  DatasetOptions d;
  d.folder = f.data;
  d.size = s.size();
  d.threads = f.threads;
  if (!f.no_cache) d.cache_folder = default_cache_folder();
  const Dataset data(d);
  const ClassIndex index = s.classes().empty() ? ClassIndex{} : index_classes(data.names(), f.data);
  Reals r;
  for (size_t i = 0; i < data.count(); i++) {
    r.pictures.push_back({s.size(), s.size(), std::vector<uint8_t>(data.picture_bytes())});
    data.read(i, r.pictures.back().rgb.data());
    r.labels.push_back(s.classes().empty() ? 0 : s.class_number(index.names.empty() ? "" : index.names[size_t(index.labels[i])]));
  }
  return r;
}

void make_curve(const Flags& f, biggan::Sampler& s) {
  if (f.kind == "none") fail("--make curve: name what is varied with --truncation-kind resample, scaled or spread");
  std::vector<biggan::Truncation> truncations;
  for (const std::string& word : split(f.thresholds)) {
    char* end = nullptr;
    const double v = std::strtod(word.c_str(), &end);
    if (word.empty() || *end) fail("--thresholds {}: '{}' is not a number", f.thresholds, word);
    truncations.push_back(biggan::truncation_from_name(f.kind, v));
  }
  const Reals reals = read_reals(f, s);
  const std::vector<int> classes = chosen(f, s);
  std::vector<uint8_t> bytes;
  for (const Picture& p : reals.pictures) bytes.insert(bytes.end(), p.rgb.begin(), p.rgb.end());
  SwdOptions swd;
  swd.pictures = f.samples;
  const SwdReference reference(bytes.data(), int64_t(reals.pictures.size()), s.size(), s.size(), swd);
  const int count = std::max(f.samples, int(reference.pictures()));
  std::vector<biggan::CurvePoint> points;
  std::vector<Picture> sheet;
  std::string table = fmt::format("| threshold ({}) | distance to real (SWD x 1000, real {:.1f}) | nearest real picture (real 1) | variety in a class (real 1) |\n|---|---|---|---|\n",
                                  f.kind, reference.baseline().mean);
  for (const biggan::Truncation& t : truncations) {
    std::vector<biggan::Draw> draws;
    std::vector<int> labels;
    for (int i = 0; i < count; i++) {
      labels.push_back(classes[size_t(i) % classes.size()]);
      draws.push_back({s.latent(f.seed + uint64_t(i), t), labels.back()});
    }
    std::vector<Picture> pictures = s.render(draws, t);
    biggan::CurvePoint p = biggan::compare_sets(pictures, labels, reals.pictures, reals.labels);
    p.threshold = t.threshold;
    std::vector<uint8_t> fakes;
    for (const Picture& q : pictures) fakes.insert(fakes.end(), q.rgb.begin(), q.rgb.end());
    p.distance = reference.compare(fakes.data(), count).mean;
    points.push_back(p);
    table += fmt::format("| {} | {:.1f} | {:.2f} | {:.2f} |\n", p.threshold, p.distance, p.fidelity, p.variety);
    for (int i = 0; i < 16; i++) sheet.push_back(pictures[size_t(i) % pictures.size()]);
  }
  fmt::print("{}", table);
  write_text(f.out + ".md", table);
  write_text(f.out + ".svg", biggan::curve_svg(points, fmt::format("{}, step {}", printable(fs::path(f.checkpoint).filename().string()), s.step())));
  write_picture(f.out + ".png", make_grid(sheet, 16, 2), f.origin);
}

}  // namespace

int main(int argc, char** argv) {
  Flags f;
  return run_program(argc, argv, "biggan_sample", "Makes pictures with a trained BigGAN, by class.", [&](CLI::App& app) { f.add(app); }, [&] {
    f.settle(f.make == "curve" ? "curve" : "samples.png");
    if (f.make != "files" && f.make != "curve") picture_format(f.out);  // a wrong name is told before the work is done
    const biggan::Truncation truncation = biggan::truncation_from_name(f.kind, f.make == "curve" ? 1 : f.truncation);
    biggan::Sampler sampler(f.checkpoint, f.options);
    f.origin = {{"Software", "kiln biggan_sample"}, {"checkpoint", printable(fs::path(f.checkpoint).filename().string())}, {"step", std::to_string(sampler.step())}};
    f.add_draw(f.origin);
    const Stopwatch watch;
    make_sheets(f, sampler, truncation);
    if (f.make == "curve") make_curve(f, sampler);
    fmt::print("{} in {:.1f} s\n", f.out, watch.seconds());
  });
}
