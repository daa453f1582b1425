// nsbgan_sample SAMPLER DECODER: pictures of NSB-GAN's two networks, by class: a sheet with a row a class, files, interpolation.
#include "apps/biggan_sheets.h"
#include "engine/classes.h"
#include "models/nsbgan_decoder.h"
#include "models/nsbgan_sampler.h"

using namespace kiln;

namespace {

struct Flags : SheetFlags {
  std::string sampler, decoder;
  bool no_decoder = false;

  void add(CLI::App& app) {
    app.add_option("SAMPLER", sampler, "a run directory of nsbgan_train sampler (its newest checkpoint), or a checkpoint (.safetensors)")->required();
    app.add_option("DECODER", decoder, "the same of nsbgan_train decoder, trained with the same --domain, --wavelet and --levels");
    app.add_flag("--no-decoder", no_decoder, "only the band: its inverse transform, all other bands zero; small pictures are resized");
    SheetFlags::add(app);
    add_output(app);
  }
};

std::string name_of_file(const std::filesystem::path& p) { return printable(p.filename().string()); }

}  // namespace

int main(int argc, char** argv) {
  Flags f;
  return run_program(argc, argv, "nsbgan_sample", "Makes pictures with a trained NSB-GAN: its sampler makes low bands, its decoder pictures of them.",
                     [&](CLI::App& app) { f.add(app); }, [&] {
    f.settle();
    if (f.make != "files") picture_format(f.out);  // a wrong name is told before the work is done
    if (f.no_decoder && !f.decoder.empty()) fail("--no-decoder: leaves the decoder out, and one is named ({}); leave one of them out", f.decoder);
    if (!f.no_decoder && f.decoder.empty()) fail("no decoder given; usage: nsbgan_sample SAMPLER DECODER, or --no-decoder for what follows from the band alone");
    const biggan::Truncation truncation = biggan::truncation_from_name(f.kind, f.truncation);
    nsbgan::Sampler sampler(f.sampler, f.decoder, f.options);
    f.origin = {{"Software", "kiln nsbgan_sample"}, {"sampler", name_of_file(sampler.path())}, {"step", std::to_string(sampler.step())}, {"band", sampler.band().text()}};
    if (sampler.decoder()) {
      f.origin.emplace_back("decoder", name_of_file(sampler.decoder()->path()));
      f.origin.emplace_back("decoder step", std::to_string(sampler.decoder()->step()));
    }
    f.add_draw(f.origin);
    const Stopwatch watch;
    make_sheets(f, sampler, truncation);
    fmt::print("{} in {:.1f} s\n", f.out, watch.seconds());
  });
}
