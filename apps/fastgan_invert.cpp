// fastgan_invert CHECKPOINT PICTURES: finds the latents of real pictures (back-tracking).
#include <algorithm>
#include <nlohmann/json.hpp>

#include "apps/program.h"
#include "engine/dataset.h"
#include "engine/file.h"
#include "engine/progress.h"
#include "engine/random.h"
#include "models/fastgan_inversion.h"

using namespace kiln;
using namespace kiln::fastgan;
namespace fs = std::filesystem;
using nlohmann::json;

namespace {

struct Flags {
  GeneratorFlags generator;
  std::string pictures, out = "inversion", trained_on, split;
  InversionOptions inversion;
  int steps = 8;
};

struct Reals {
  std::vector<Picture> pictures;
  std::vector<std::string> names;
};

/// One picture or all of a folder, made square as the training pictures were.
Reals read_reals(const fs::path& path, const Inverter& inverter) {
  Reals r;
  if (!fs::is_directory(path)) {
    r.pictures.push_back(fit_picture(read_picture(path, inverter.background()), inverter.size(), inverter.fit(), inverter.background()));
    r.names.push_back(path.filename().string());
    return r;
  }
  DatasetOptions o;
  o.folder = path;
  o.size = inverter.size();
  o.fit = inverter.fit();
  o.background = inverter.background();
  const Dataset data(o);
  for (const auto& f : data.failures()) fmt::print("skipped {}: {}\n", f.path, f.reason);
  for (size_t i = 0; i < data.count(); i++) {
    r.pictures.push_back({data.size(), data.size(), {data.pixels(i), data.pixels(i) + data.picture_bytes()}});
    r.names.push_back(data.names()[i]);
  }
  return r;
}

/// Links the pictures of a folder into out/train and out/test, nine to one, in an order that the seed draws.
void split_folder(const fs::path& folder, const fs::path& out, uint64_t seed) {
  DatasetOptions o;
  o.folder = folder;
  o.size = 8;  // only which files are sound pictures matters here
  const Dataset data(o);
  const int64_t n = int64_t(data.count()), held_out = std::max<int64_t>(1, (n + 5) / 10);
  if (n < 2) fail("{}: only {} picture; a split needs two or more", folder.string(), n);
  if (fs::exists(out / "train") || fs::exists(out / "test")) fail("{}: there is a split already; name another folder with --out", out.string());
  const std::vector<int32_t> order = permutation(seed, "split", 0, n);
  std::error_code error;
  for (int64_t i = 0; i < n && !error; i++) {
    const std::string& name = data.names()[size_t(order[size_t(i)])];
    const fs::path link = out / (i < held_out ? "test" : "train") / name;
    fs::create_directories(link.parent_path(), error);
    if (!error) fs::create_symlink(fs::absolute(folder / name), link, error);
  }
  if (error) fail("{}: cannot write the split: {}", out.string(), error.message());
  fmt::print("{} pictures linked into {}, {} into {}\n", n - held_out, (out / "train").string(), held_out, (out / "test").string());
}

double mean(const std::vector<double>& v) {
  double sum = 0;
  for (const double x : v) sum += x / double(v.size());
  return sum;
}

/// Rows of up to eight pictures, each with the reconstructions below.
Picture reconstruction_sheet(const Reals& reals, const Inversion& inverted) {
  const size_t columns = std::min<size_t>(8, reals.pictures.size());
  std::vector<Picture> all;
  for (size_t first = 0; first < reals.pictures.size(); first += columns)
    for (const auto* row : {&reals.pictures, &inverted.pictures})
      for (size_t i = first; i < first + columns; i++)
        all.push_back(i < row->size() ? (*row)[i] : Picture{(*row)[0].width, (*row)[0].height, std::vector<uint8_t>((*row)[0].rgb.size(), 255)});
  return make_grid(all, int(columns), 2);
}

/// Rows from one inverted picture to the next, with the real ones at both ends (Figure 6 of the paper).
Picture interpolation_sheet(Sampler& sampler, const Reals& reals, const Inversion& inverted, int steps) {
  std::vector<Picture> all;
  for (size_t i = 0; i + 1 < reals.pictures.size() && i < 8; i++) {
    std::vector<Latent> row;
    for (int k = 0; k < steps; k++) row.push_back(between(inverted.latents[i], inverted.latents[i + 1], steps == 1 ? 0.5 : double(k) / (steps - 1)));
    all.push_back(reals.pictures[i]);
    for (Picture& p : sampler.render(row)) all.push_back(std::move(p));
    all.push_back(reals.pictures[i + 1]);
  }
  return make_grid(all, steps + 2, 2);
}

void run(Flags& f, InversionOptions o) {
  const fs::path out = f.out;
  std::error_code error;
  Inverter inverter(f.generator.checkpoint, f.generator.settled());
  if (f.generator.options.batch > 0) o.batch = f.generator.options.batch;
  const Reals reals = read_reals(f.pictures, inverter);
  Reals trained;
  if (!f.trained_on.empty()) {
    const Reals all = read_reals(f.trained_on, inverter);
    const size_t n = std::min(all.pictures.size(), reals.pictures.size());
    for (size_t k = 0; k < n; k++) {  // as many as there are others, from the whole folder
      trained.pictures.push_back(all.pictures[k * all.pictures.size() / n]);
      trained.names.push_back(all.names[k * all.pictures.size() / n]);
    }
  }
  fs::create_directories(out, error);
  if (!fs::is_directory(out)) fail("{}: cannot make the folder: {}", f.out, error ? error.message() : "there is a file of that name");
  watch_interrupts();
  ProgressLine line;
  o.progress = [&](size_t first, size_t all, int iteration, int iterations) {
    if (interrupted()) fail("interrupted; nothing was written");
    line.show(fmt::format("pictures {} to {} of {}: iteration {}/{}", first + 1, std::min(first + size_t(o.batch), all), all, iteration, iterations));
  };
  const Stopwatch watch;
  const Inversion inverted = inverter.invert(reals.pictures, o);
  json report{{"checkpoint", inverter.name()}, {"generator", inverter.fingerprint()}, {"iterations", o.iterations}, {"lr", o.lr}, {"seed", o.seed}};
  for (size_t i = 0; i < reals.names.size(); i++) {
    line.print(fmt::format("{}  mse {:.5f}  PSNR {:.2f} dB", reals.names[i], inverted.errors[i], psnr(inverted.errors[i])));
    report["pictures"].push_back({{"name", reals.names[i]}, {"mse", inverted.errors[i]}, {"psnr", psnr(inverted.errors[i])}});
  }
  report["mean_mse"] = mean(inverted.errors);
  write_latents(out / "latents.safetensors", {inverted.latents, reals.names, inverter.fingerprint()});
  const PngText text{{"Software", "kiln fastgan_invert"}, {"checkpoint", inverter.name()}, {"generator", inverter.fingerprint()}, {"iterations", std::to_string(o.iterations)}};
  write_png(out / "reconstructions.png", reconstruction_sheet(reals, inverted), text);
  if (f.steps > 0 && reals.pictures.size() > 1) {
    Sampler sampler(f.generator.checkpoint, f.generator.options);
    write_png(out / "interpolations.png", interpolation_sheet(sampler, reals, inverted, f.steps), text);
  }
  line.print(fmt::format("{} pictures, {} iterations in {:.1f} s: mean squared error {:.5f} on [0, 1], as PSNR {:.2f} dB", reals.pictures.size(), o.iterations, watch.seconds(),
                         mean(inverted.errors), psnr(mean(inverted.errors))));
  if (!trained.pictures.empty()) {
    const Inversion known = inverter.invert(trained.pictures, o);
    write_png(out / "reconstructions_trained_on.png", reconstruction_sheet(trained, known), text);
    report["trained_on_mean_mse"] = mean(known.errors);
    report["trained_on_pictures"] = trained.pictures.size();
    line.print(fmt::format("Table 5's protocol: held-out pictures {:.5f} ({}), pictures trained on {:.5f} ({}); ratio {:.2f}", mean(inverted.errors), reals.pictures.size(),
                           mean(known.errors), trained.pictures.size(), mean(inverted.errors) / std::max(mean(known.errors), 1e-12)));
  }
  const std::string words = report.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
  AtomicFile file(out / "distances.json", words.size());
  file.write(words.data(), words.size());
  file.commit();
  line.print(fmt::format("latents {}\nsheet   {}", (out / "latents.safetensors").string(), (out / "reconstructions.png").string()));
}

}  // namespace

int main(int argc, char** argv) {
  Flags f;
  const auto add = [&](CLI::App& app) {
    f.generator.add(app, false);
    app.add_option("PICTURES", f.pictures, "a picture, or a folder of them");
    app.add_option("--out", f.out, "folder for the latents, the sheets and the distances")->capture_default_str();
    app.add_option("--iterations", f.inversion.iterations, "Adam steps on each latent; more drive it from where latents are")->check(CLI::Range(1, 1'000'000))->capture_default_str();
    app.add_option("--lr", f.inversion.lr, "Adam's learning rate")->check(CLI::Range(1e-6, 10.0))->capture_default_str();
    app.add_option("--pixel-weight", f.inversion.pixel_weight, "of the squared error at full size, beside that at half size")->check(CLI::Range(0.0, 1e6))->capture_default_str();
    app.add_option("--seed", f.inversion.seed, "of the starts and of the noise")->capture_default_str();
    app.add_option("--interpolate", f.steps, "pictures between one inverted picture and the next, in a sheet (0: no sheet)")->check(CLI::Range(0, 64))->capture_default_str();
    app.add_option("--trained-on", f.trained_on, "the folder that the generator was trained on: its distance is reported beside (Table 5 of the paper)");
    app.add_option("--split", f.split, "no inversion: link the pictures of that folder into OUT/train and OUT/test, nine to one")->type_name("FOLDER");
  };
  return run_program(argc, argv, "fastgan_invert", "Finds the latents whose pictures are nearest to real ones (back-tracking; Liu et al., ICLR 2021).", add, [&] {
    if (!f.split.empty()) {
      if (!f.generator.checkpoint.empty()) fail("--split: takes no checkpoint; it only divides a folder");
      return split_folder(f.split, f.out, f.inversion.seed);
    }
    if (f.generator.checkpoint.empty() || f.pictures.empty()) fail("a checkpoint and pictures are needed; usage: fastgan_invert CHECKPOINT PICTURES, more with --help");
    run(f, f.inversion);
  });
}
