// kiln_convert IN OUT: FastGAN checkpoints between kiln (.safetensors) and the public PyTorch code (.pth).
#include <CLI/CLI.hpp>
#include <cstdio>

#include "engine/error.h"
#include "models/fastgan_convert.h"

using namespace kiln;

namespace {

struct Flags {
  std::string in, out;
  int64_t step = -1;
  bool plain = false, force = false;
};

void add_flags(CLI::App& app, Flags& f) {
  app.get_formatter()->column_width(30);
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  app.add_option("IN", f.in, "all_*.pth or {g, d}.pth of the public FastGAN code, or a checkpoint of kiln (.safetensors)")->required();
  app.add_option("OUT", f.out, "the other kind of file: .safetensors or .pth, by its name")->required();
  app.add_option("--step", f.step, "training steps that a .pth has done (default: its optimiser's, or the number in its name)");
  app.add_flag("--plain", f.plain, "into .pth: only g (the averaged weights) and d, to sample from");
  app.add_flag("--force", f.force, "overwrite OUT");
}

int run(const Flags& f) {
  const std::filesystem::path in(f.in), out(f.out);
  const auto kind = [](const std::filesystem::path& p) { return p.extension() == ".pth" || p.extension() == ".pt" ? 1 : p.extension() == ".safetensors" ? 2 : 0; };
  if (!kind(in)) fail("{}: is neither .pth nor .safetensors by its name; rename it", f.in);
  if (!kind(out)) fail("{}: is neither .pth nor .safetensors by its name; choose one of them", f.out);
  if (kind(in) == kind(out)) fail("{} and {}: are of one kind; one must be .pth and the other .safetensors", f.in, f.out);
  if (f.step < -1) fail("--step {}: must be 0 or more", f.step);
  if (f.plain && kind(out) != 1) fail("--plain: is for writing a .pth; leave it out");
  if (!f.force && std::filesystem::exists(out)) fail("{}: exists; give another name, or --force to overwrite it", f.out);
  const fastgan::ConvertResult r = kind(in) == 1 ? fastgan::convert_from_pth(in, out, f.step) : fastgan::convert_to_pth(in, out, f.plain);
  fmt::print("{}: FastGAN {} px, ngf {}, ndf {}, nz {}, step {}, {} optimiser states\n", f.out, r.network.size, r.network.ngf, r.network.ndf, r.network.nz,
             r.step, r.optimisers ? "with" : "without");
  if (!r.note.empty()) fmt::print("note: {}\n", r.note);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Flags f;
  CLI::App app("Converts FastGAN checkpoints: from the public PyTorch code's .pth into kiln's .safetensors, from which training goes on, and back.",
               "kiln_convert");
  add_flags(app, f);
  try {
    app.parse(argc, argv);
    return run(f);
  } catch (const CLI::CallForHelp&) {
    std::fputs(app.help().c_str(), stdout);
    return 0;
  } catch (const CLI::Error& e) {
    fmt::print(stderr, "kiln_convert: {}; see --help\n", e.what());
    return 2;
  } catch (const std::exception& e) {
    fmt::print(stderr, "kiln_convert: {}\n", e.what());
    return 2;
  }
}
