// fastgan_stylemix CHECKPOINT: the content of some pictures under the style of others, as a sheet.
#include "apps/program.h"

using namespace kiln;
using namespace kiln::fastgan;

int main(int argc, char** argv) {
  GeneratorFlags generator;
  std::string content = "0-7", style = "8-15", out = "stylemix.png";
  double truncation = 0;
  int quality = 92;
  const auto add = [&](CLI::App& app) {
    generator.add(app);
    app.add_option("--content", content, "seeds of the first column: a list with ranges")->capture_default_str();
    app.add_option("--style", style, "seeds of the top row")->capture_default_str();
    app.add_option("--truncation", truncation, "draw numbers of z beyond this again (0: do not)")->capture_default_str();
    app.add_option("--out", out, "the sheet: .png, .jpg or .webp")->capture_default_str();
    app.add_option("--quality", quality, "of JPEG and WebP, 1 to 100")->check(CLI::Range(1, 100))->capture_default_str();
  };
  const char* about =
      "Style mixing (Liu et al., ICLR 2021): each picture has the main path of its row's seed and the skip-layer excitations of its column's.";
  return run_program(argc, argv, "fastgan_stylemix", about, add, [&] {
    const std::vector<uint64_t> rows = parse_seeds("--content", content), columns = parse_seeds("--style", style);
    if (rows.size() > 64 || columns.size() > 64) fail("--content, --style: at most 64 seeds each, this sheet would have {} x {}", rows.size(), columns.size());
    picture_format(out);
    Sampler sampler = generator.open();
    const auto latents = [&](const std::vector<uint64_t>& seeds) {
      std::vector<Latent> l;
      for (const uint64_t s : seeds) l.push_back(sampler.latent(s, truncation));
      return l;
    };
    const std::vector<Latent> a = latents(rows), b = latents(columns);
    std::vector<Latent> contents, styles;
    for (const Latent& r : a)
      for (const Latent& c : b) {
        contents.push_back(r);
        styles.push_back(c);
      }
    const std::vector<Picture> mixed = sampler.mix(contents, styles), first = sampler.render(a), top = sampler.render(b);
    Picture corner{sampler.size(), sampler.size(), std::vector<uint8_t>(first[0].rgb.size(), 255)};
    std::vector<Picture> sheet{corner};
    sheet.insert(sheet.end(), top.begin(), top.end());
    for (size_t r = 0; r < a.size(); r++) {
      sheet.push_back(first[r]);
      sheet.insert(sheet.end(), mixed.begin() + std::ptrdiff_t(r * b.size()), mixed.begin() + std::ptrdiff_t((r + 1) * b.size()));
    }
    PngText text = origin("fastgan_stylemix", sampler);
    text.emplace_back("content", content);
    text.emplace_back("style", style);
    if (truncation > 0) text.emplace_back("truncation", fmt::format("{}", truncation));
    write_picture(out, make_grid(sheet, int(b.size()) + 1, 2), text, quality);
    fmt::print("{} x {} pictures of {} px, {} skip-layer excitations exchanged: {}\n", a.size(), b.size(), sampler.size(), sampler.gates(), out);
  });
}
