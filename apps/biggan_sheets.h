// Sheets and files of pictures by class, from what draws them: biggan::Sampler, nsbgan::Sampler.
#pragma once
#include "apps/program.h"
#include "engine/progress.h"
#include "models/biggan_sampler.h"

namespace kiln {

/// What to make, and on what.
struct SheetFlags {
  std::string make = "rows", classes, out, kind = "none", between = "z";
  double truncation = 1;
  int n = 10, steps = 8, threads = 0;
  uint64_t seed = 0;
  biggan::SamplerOptions options;
  PngText origin;  // of every PNG

  /// more: further words that --make takes, each told in what_more.
  void add(CLI::App& app, const std::vector<std::string>& more = {}, const std::string& what_more = "") {
    std::vector<std::string> words{"rows", "grid", "files", "interpolate"};
    words.insert(words.end(), more.begin(), more.end());
    app.add_option("--make", make, "rows: a sheet with a row a class; grid: one sheet of random classes; files: a folder a class; interpolate: a sheet of paths" + what_more)
        ->check(CLI::IsMember(words))->capture_default_str();
    app.add_option("--classes", classes, "names or numbers, separated by commas (default: all)");
    app.add_option("-n,--n", n, "pictures of a class; of a grid; rows of an interpolation")->check(CLI::Range(1, 1'000'000))->capture_default_str();
    app.add_option("--seed", seed, "of the first latent; the others count up from it")->capture_default_str();
    app.add_option("--truncation", truncation, "threshold of --truncation-kind")->capture_default_str();
    app.add_option("--truncation-kind", kind, "none; resample: numbers beyond the threshold drawn again (the paper); scaled: threshold times numbers within 2; spread: threshold times all numbers")
        ->check(CLI::IsMember({"none", "resample", "scaled", "spread"}))->capture_default_str();
    app.add_option("--standing", options.standing, "batches of standing statistics of that truncation (0: the checkpoint's running ones)")->check(CLI::Range(0, 100000))->capture_default_str();
    app.add_option("--between", between, "interpolate between two latents (z), two classes (class) or both")->check(CLI::IsMember({"z", "class", "both"}))->capture_default_str();
    app.add_option("--steps", steps, "pictures between the two ends of an interpolation")->check(CLI::Range(0, 1000))->capture_default_str();
  }
  /// Where the result goes and what computes it; after the program's own flags.
  void add_output(CLI::App& app, const std::string& what = "file of a sheet, folder of files (default: samples.png, samples)") {
    app.add_option("--out", out, what);
    const auto machine = [&](CLI::Option* o) { o->group("Machine"); };
    machine(app.add_option("--threads", threads, "CPU threads (0: all cores)")->check(CLI::Range(0, 4096))->capture_default_str());
    machine(app.add_option("--batch", options.batch, "pictures computed at once")->check(CLI::Range(1, 4096))->capture_default_str());
    machine(app.add_option("--memory", options.memory_gb, "limit for tensors in GiB (0: none)")->check(CLI::Range(0.0, 1e5))->capture_default_str());
  }
  /// After parsing. otherwise: the output where none was named, of a sheet.
  void settle(const std::string& otherwise = "samples.png") {
    if (threads > 0) omp_set_num_threads(threads);
    if (out.empty()) out = make == "files" ? "samples" : otherwise;
  }
  /// Which latents, for a PNG's text.
  void add_draw(PngText& text) const {
    text.emplace_back("seed", std::to_string(seed));
    if (kind != "none") text.emplace_back("truncation", fmt::format("{} {}", kind, truncation));
  }
};

inline std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> out;
  for (size_t at = 0; at <= text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    out.push_back(text.substr(at, comma - at));
    at = comma + 1;
  }
  return out;
}

/// The classes asked for; one number, 0, of an unconditional generator.
template <class S>
std::vector<int> chosen(const SheetFlags& f, const S& s) {
  std::vector<int> out;
  if (!f.classes.empty())
    for (const std::string& name : split(f.classes)) out.push_back(s.class_number(name));
  else
    for (size_t i = 0; i < std::max<size_t>(s.classes().size(), 1); i++) out.push_back(int(i));
  return out;
}

template <class S>
std::string name_of_class(const S& s, int label) { return s.classes().empty() ? "pictures" : s.classes()[size_t(label)]; }

template <class S>
void make_rows(const SheetFlags& f, S& s, const biggan::Truncation& truncation) {
  std::vector<biggan::Draw> draws;
  std::string rows;
  for (int label : chosen(f, s)) {
    rows += (rows.empty() ? "" : ", ") + name_of_class(s, label);
    for (int i = 0; i < f.n; i++) draws.push_back({s.latent(f.seed + uint64_t(i), truncation), label});
  }
  PngText text = f.origin;
  text.emplace_back("rows", rows);
  write_picture(f.out, make_grid(s.render(draws, truncation), f.n, 2), text);
  fmt::print("rows, from the top: {}\n", rows);
}

template <class S>
void make_one_grid(const SheetFlags& f, S& s, const biggan::Truncation& truncation) {
  const std::vector<int> classes = chosen(f, s);
  std::vector<biggan::Draw> draws;
  for (int i = 0; i < f.n; i++) draws.push_back({s.latent(f.seed + uint64_t(i), truncation), classes[size_t(i) % classes.size()]});
  int columns = 1;
  while (columns * columns < f.n) columns++;
  write_picture(f.out, make_grid(s.render(draws, truncation), columns, 2), f.origin);
}

template <class S>
void make_picture_files(const SheetFlags& f, S& s, const biggan::Truncation& truncation) {
  for (int label : chosen(f, s)) {
    std::string name = name_of_class(s, label);
    std::replace(name.begin(), name.end(), '/', '_');
    const std::filesystem::path folder = std::filesystem::path(f.out) / name;
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (!std::filesystem::is_directory(folder)) fail("{}: cannot make the folder: {}", folder.string(), error ? error.message() : "there is a file of that name");
    for (int first = 0; first < f.n; first += f.options.batch) {
      std::vector<biggan::Draw> draws;
      for (int i = first; i < std::min(f.n, first + f.options.batch); i++) draws.push_back({s.latent(f.seed + uint64_t(i), truncation), label});
      const std::vector<Picture> pictures = s.render(draws, truncation);
      for (size_t i = 0; i < pictures.size(); i++)
        write_picture(folder / fmt::format("seed{:06}.png", f.seed + uint64_t(first) + i), pictures[i], f.origin);
    }
  }
}

template <class S>
void make_paths(const SheetFlags& f, S& s, const biggan::Truncation& truncation) {
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
  write_picture(f.out, make_grid(s.render(draws, truncation), columns, 2), f.origin);
}

/// What --make says, but for words of a program's own.
template <class S>
void make_sheets(const SheetFlags& f, S& s, const biggan::Truncation& truncation) {
  if (f.make == "rows") make_rows(f, s, truncation);
  if (f.make == "grid") make_one_grid(f, s, truncation);
  if (f.make == "files") make_picture_files(f, s, truncation);
  if (f.make == "interpolate") make_paths(f, s, truncation);
}

}  // namespace kiln
