// fastgan_sample CHECKPOINT: pictures from a trained generator, one file each or on one sheet.
#include "apps/program.h"
#include "engine/progress.h"

using namespace kiln;
using namespace kiln::fastgan;
namespace fs = std::filesystem;

int main(int argc, char** argv) {
  GeneratorFlags generator;
  LatentFlags latents;
  int64_t n = 16;
  uint64_t seed = 0;
  int columns = 0, quality = 92;
  std::string out, format = "png";
  CLI::Option* n_flag = nullptr;
  CLI::Option* seed_flag = nullptr;
  CLI::Option* grid_flag = nullptr;
  const auto add = [&](CLI::App& app) {
    generator.add(app);
    n_flag = app.add_option("-n,--n", n, "number of pictures")->check(CLI::Range(1, 10'000'000))->capture_default_str();
    seed_flag = app.add_option("--seed", seed, "of the first picture; the others count up from it")->capture_default_str();
    latents.add(app, "of all pictures, in place of --n and --seed: a list with ranges, 1,5,8-12");
    grid_flag = app.add_option("--grid", columns, "all on one sheet, with that many columns (default: about square)")->expected(0, 1)->check(CLI::Range(1, 1000));
    app.add_option("--out", out, "folder, or with --grid a file (default: samples, samples.png)");
    app.add_option("--format", format, "of the files in a folder: png, jpg, webp; a sheet's is its name's")->check(CLI::IsMember({"png", "jpg", "webp"}))->capture_default_str();
    app.add_option("--quality", quality, "of JPEG and WebP, 1 to 100")->check(CLI::Range(1, 100))->capture_default_str();
  };
  return run_program(argc, argv, "fastgan_sample", "Makes pictures with a trained FastGAN. The picture of a seed does not depend on the others.", add, [&] {
    const bool grid = grid_flag->count() > 0;
    if (!latents.seeds.empty() && (n_flag->count() || seed_flag->count())) fail("--seeds names all pictures: leave --n and --seed out");
    if (!latents.file.empty() && (n_flag->count() || seed_flag->count())) fail("--latents names all pictures: leave --n and --seed out");
    if (out.empty()) out = grid ? "samples.png" : "samples";
    if (grid) picture_format(out);  // a wrong name is told before the work is done
    Sampler sampler = generator.open();
    std::vector<uint64_t> counted;
    for (int64_t i = 0; i < n; i++) counted.push_back(seed + uint64_t(i));
    const LatentFlags::Chosen chosen = latents.choose(sampler, counted);
    const size_t count = chosen.latents.size();
    const bool seeds = !chosen.seeds.empty();
    const auto text = [&](size_t i) {
      PngText t = origin("fastgan_sample", sampler);
      t.emplace_back(seeds ? "seed" : "latent", seeds ? std::to_string(chosen.seeds[i]) : chosen.names[i]);
      if (latents.truncation > 0) t.emplace_back("truncation", fmt::format("{}", latents.truncation));
      return t;
    };
    std::error_code error;
    if (!grid) {
      fs::create_directories(out, error);
      if (!fs::is_directory(out)) fail("{}: cannot make the folder: {}", out, error ? error.message() : "there is a file of that name");
    }
    const Stopwatch watch;
    ProgressLine line;
    std::vector<Picture> sheet;
    sampler.render(chosen.latents, [&](size_t i, Picture p) {
      if (grid) {
        sheet.push_back(std::move(p));
      } else {
        // A seed's file has its name; inverted pictures are numbered.
        const std::string stem = seeds ? fmt::format("seed{:06}", chosen.seeds[i]) : fmt::format("{:06}", i);
        write_picture(fs::path(out) / (stem + "." + format), p, text(i), quality);
      }
      line.show(fmt::format("{}/{} pictures", i + 1, count));
    });
    if (grid) {
      if (columns == 0)
        while (size_t(columns) * size_t(columns) < count) columns++;
      std::string all;
      for (const std::string& s : chosen.names) all += (all.empty() ? "" : ", ") + s;
      PngText t = origin("fastgan_sample", sampler);
      t.emplace_back("pictures", all);
      if (latents.truncation > 0) t.emplace_back("truncation", fmt::format("{}", latents.truncation));
      write_picture(out, make_grid(sheet, columns, 2), t, quality);
    }
    line.print(fmt::format("{} pictures of {} px in {:.1f} s ({:.1f} a second, {} at once): {}", count, sampler.size(), watch.seconds(),
                           double(count) / std::max(watch.seconds(), 1e-9), sampler.batch(), out));
  });
}
