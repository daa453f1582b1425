// biggan_sample CHECKPOINT: pictures of a trained BigGAN, by class: a sheet with a row a class, files, interpolation, a truncation curve.
#include "apps/program.h"
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

struct Flags {
  std::string checkpoint, make = "rows", classes, out, kind = "none", between = "z", thresholds = "0.1,0.2,0.4,0.6,0.8,1,1.5,2", data;
  double truncation = 1;
  int n = 10, steps = 8, threads = 0, samples = 200;
  uint64_t seed = 0;
  bool no_cache = false;
  biggan::SamplerOptions options;

  void add(CLI::App& app) {
    app.add_option("CHECKPOINT", checkpoint, "a kiln checkpoint (.safetensors) of BigGAN")->required();
    app.add_option("--make", make, "rows: a sheet with a row a class; grid: one sheet of random classes; files: a folder a class; interpolate: a sheet of paths; curve: truncation against quality and variety")
        ->check(CLI::IsMember({"rows", "grid", "files", "interpolate", "curve"}))->capture_default_str();
    app.add_option("--classes", classes, "names or numbers, separated by commas (default: all)");
    app.add_option("-n,--n", n, "pictures of a class; of a grid; rows of an interpolation")->check(CLI::Range(1, 1'000'000))->capture_default_str();
    app.add_option("--seed", seed, "of the first latent; the others count up from it")->capture_default_str();
    app.add_option("--truncation", truncation, "threshold of --truncation-kind")->capture_default_str();
    app.add_option("--truncation-kind", kind, "none; resample: numbers beyond the threshold drawn again (the paper); scaled: threshold times numbers within 2; spread: threshold times all numbers")
        ->check(CLI::IsMember({"none", "resample", "scaled", "spread"}))->capture_default_str();
    app.add_option("--standing", options.standing, "batches of standing statistics of that truncation (0: the checkpoint's running ones)")->check(CLI::Range(0, 100000))->capture_default_str();
    app.add_option("--between", between, "interpolate between two latents (z), two classes (class) or both")->check(CLI::IsMember({"z", "class", "both"}))->capture_default_str();
    app.add_option("--steps", steps, "pictures between the two ends of an interpolation")->check(CLI::Range(0, 1000))->capture_default_str();
    app.add_option("--data", data, "real pictures in class folders that a curve compares with");
    app.add_option("--thresholds", thresholds, "of a curve, separated by commas")->capture_default_str();
    app.add_option("--samples", samples, "pictures behind each point of a curve")->check(CLI::Range(10, 100000))->capture_default_str();
    app.add_flag("--no-cache", no_cache, "do not keep the decoded pictures of --data for the next run");
    app.add_option("--out", out, "file of a sheet, folder of files, name of a curve's files (default: samples.png, samples, curve)");
    const auto machine = [&](CLI::Option* o) { o->group("Machine"); };
    machine(app.add_option("--threads", threads, "CPU threads (0: all cores)")->check(CLI::Range(0, 4096))->capture_default_str());
    machine(app.add_option("--batch", options.batch, "pictures computed at once")->check(CLI::Range(1, 4096))->capture_default_str());
    machine(app.add_option("--memory", options.memory_gb, "limit for tensors in GiB (0: none)")->check(CLI::Range(0.0, 1e5))->capture_default_str());
  }
};

void write_text(const std::string& path, const std::string& text) {
  AtomicFile file(path, text.size());
  file.write(text.data(), text.size());
  file.commit();
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> out;
  for (size_t at = 0; at <= text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    out.push_back(text.substr(at, comma - at));
    at = comma + 1;
  }
  return out;
}

PngText origin(const Flags& f, const biggan::Sampler& s) {
  PngText t = {{"Software", "kiln biggan_sample"}, {"checkpoint", printable(fs::path(f.checkpoint).filename().string())}, {"step", std::to_string(s.step())},
               {"seed", std::to_string(f.seed)}};
  if (f.kind != "none") t.emplace_back("truncation", fmt::format("{} {}", f.kind, f.truncation));
  return t;
}

/// The classes asked for; one number, 0, of an unconditional generator.
std::vector<int> chosen(const Flags& f, const biggan::Sampler& s) {
  std::vector<int> out;
  if (!f.classes.empty())
    for (const std::string& name : split(f.classes)) out.push_back(s.class_number(name));
  else
    for (size_t i = 0; i < std::max<size_t>(s.classes().size(), 1); i++) out.push_back(int(i));
  return out;
}

std::string name_of_class(const biggan::Sampler& s, int label) { return s.classes().empty() ? "pictures" : s.classes()[size_t(label)]; }

void make_rows(const Flags& f, biggan::Sampler& s, const biggan::Truncation& truncation) {
  std::vector<biggan::Draw> draws;
  std::string rows;
  for (int label : chosen(f, s)) {
    rows += (rows.empty() ? "" : ", ") + name_of_class(s, label);
    for (int i = 0; i < f.n; i++) draws.push_back({s.latent(f.seed + uint64_t(i), truncation), label});
  }
  PngText text = origin(f, s);
  text.emplace_back("rows", rows);
  write_picture(f.out, make_grid(s.render(draws, truncation), f.n, 2), text);
  fmt::print("rows, from the top: {}\n", rows);
}

void make_one_grid(const Flags& f, biggan::Sampler& s, const biggan::Truncation& truncation) {
  const std::vector<int> classes = chosen(f, s);
  std::vector<biggan::Draw> draws;
  for (int i = 0; i < f.n; i++) draws.push_back({s.latent(f.seed + uint64_t(i), truncation), classes[size_t(i) % classes.size()]});
  int columns = 1;
  while (columns * columns < f.n) columns++;
  write_picture(f.out, make_grid(s.render(draws, truncation), columns, 2), origin(f, s));
}

void make_files(const Flags& f, biggan::Sampler& s, const biggan::Truncation& truncation) {
  for (int label : chosen(f, s)) {
    std::string name = name_of_class(s, label);
    std::replace(name.begin(), name.end(), '/', '_');
    const fs::path folder = fs::path(f.out) / name;
    std::error_code error;
    fs::create_directories(folder, error);
    if (!fs::is_directory(folder)) fail("{}: cannot make the folder: {}", folder.string(), error ? error.message() : "there is a file of that name");
    for (int first = 0; first < f.n; first += f.options.batch) {
      std::vector<biggan::Draw> draws;
      for (int i = first; i < std::min(f.n, first + f.options.batch); i++) draws.push_back({s.latent(f.seed + uint64_t(i), truncation), label});
      const std::vector<Picture> pictures = s.render(draws, truncation);
      for (size_t i = 0; i < pictures.size(); i++)
        write_picture(folder / fmt::format("seed{:06}.png", f.seed + uint64_t(first) + i), pictures[i], origin(f, s));
    }
  }
}

void interpolate(const Flags& f, biggan::Sampler& s, const biggan::Truncation& truncation) {
  const std::vector<int> classes = chosen(f, s);
  if (f.between != "z" && classes.size() < 2) fail("--between {}: takes two classes or more; name them with --classes", f.between);
  std::vector<biggan::Draw> draws;
  const int columns = f.steps + 2;
  for (int row = 0; row < f.n; row++) {
    const std::vector<float> a = s.latent(f.seed + 2 * uint64_t(row), truncation), b = s.latent(f.seed + 2 * uint64_t(row) + 1, truncation);
    const int from = classes[size_t(row) % classes.size()], to = classes[size_t(row + 1) % classes.size()];
    for (int k = 0; k < columns; k++) {
      const float t = float(k) / float(columns - 1);
      biggan::Draw d{a, from, to, f.between == "z" ? 0.f : t};
      if (f.between != "class")
        for (size_t i = 0; i < d.z.size(); i++) d.z[i] = (1 - t) * a[i] + t * b[i];
      draws.push_back(d);
    }
  }
  write_picture(f.out, make_grid(s.render(draws, truncation), columns, 2), origin(f, s));
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
  write_picture(f.out + ".png", make_grid(sheet, 16, 2), origin(f, s));
}

}  // namespace

int main(int argc, char** argv) {
  Flags f;
  return run_program(argc, argv, "biggan_sample", "Makes pictures with a trained BigGAN, by class.", [&](CLI::App& app) { f.add(app); }, [&] {
    if (f.threads > 0) omp_set_num_threads(f.threads);
    if (f.out.empty()) f.out = f.make == "files" ? "samples" : f.make == "curve" ? "curve" : "samples.png";
    if (f.make != "files" && f.make != "curve") picture_format(f.out);  // a wrong name is told before the work is done
    const biggan::Truncation truncation = biggan::truncation_from_name(f.kind, f.make == "curve" ? 1 : f.truncation);
    biggan::Sampler sampler(f.checkpoint, f.options);
    const Stopwatch watch;
    if (f.make == "rows") make_rows(f, sampler, truncation);
    if (f.make == "grid") make_one_grid(f, sampler, truncation);
    if (f.make == "files") make_files(f, sampler, truncation);
    if (f.make == "interpolate") interpolate(f, sampler, truncation);
    if (f.make == "curve") make_curve(f, sampler);
    fmt::print("{} in {:.1f} s\n", f.out, watch.seconds());
  });
}
