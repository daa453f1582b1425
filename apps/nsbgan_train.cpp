// nsbgan_train sampler DIR, nsbgan_train decoder DIR: NSB-GAN's two networks, each trained by itself on the same pictures.
#include "apps/biggan_flags.h"
#include "apps/nsbgan_decoder_flags.h"

using namespace kiln;

namespace {

constexpr const char* kUsage =
    "Trains the two networks of NSB-GAN (Han et al. 2020) on a folder of pictures. Neither needs the other: they can train at the same time, on two machines.\n"
    "\n"
    "  nsbgan_train sampler DIR   a BigGAN that makes the low wavelet band of pictures\n"
    "  nsbgan_train decoder DIR   a network that makes pictures of their low bands\n"
    "\n"
    "Flags of each: nsbgan_train sampler --help, nsbgan_train decoder --help. nsbgan_sample makes pictures with both.\n";

}  // namespace

int main(int argc, char** argv) {
  const std::string which = argc > 1 ? argv[1] : "";
  // The words after the first are a program's own; the record has them all.
  const auto whole = [&](auto options) {
    options.commands.back() = command_line(argc, argv);
    return options;
  };
  if (which == "sampler") {
    const auto read = [](int n, char** words) { return read_biggan_flags(n, words, true); };
    const auto settle = [&](const BigganFlags& f, const std::string& saved, int n, char** words, const std::shared_ptr<Ranks>& ranks) {
      return whole(settle_biggan(f, saved, n, words, ranks));
    };
    const auto run = [&](const std::shared_ptr<Ranks>& ranks) { return run_training("nsbgan_train sampler", argc - 1, argv + 1, ranks, read, settle); };
    return training_program(argv, "nsbgan_train sampler", run, [] { print_biggan_help(true); });
  }
  if (which == "decoder") {
    namespace flags = nsbgan::decoder_flags;
    const auto settle = [&](const flags::Flags& f, const std::string& saved, int n, char** words, const std::shared_ptr<Ranks>& ranks) {
      return whole(flags::settle(f, saved, n, words, ranks));
    };
    const auto run = [&](const std::shared_ptr<Ranks>& ranks) { return run_training("nsbgan_train decoder", argc - 1, argv + 1, ranks, flags::read_flags, settle); };
    return training_program(argv, "nsbgan_train decoder", run, [] { flags::print_help(); });
  }
  const auto run = [&](const std::shared_ptr<Ranks>&) -> int {
    if (which == "--help" || which == "-h") throw CLI::CallForHelp();
    fail("{}say what to train: nsbgan_train sampler DIR or nsbgan_train decoder DIR; more with --help", which.empty() ? "" : fmt::format("'{}' is not known; ", which));
  };
  return training_program(argv, "nsbgan_train", run, [] { std::fputs(kUsage, stdout); });
}
