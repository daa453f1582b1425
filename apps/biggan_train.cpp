// biggan_train DIR: a folder of class folders in, a class-conditional generator out.
#include "apps/biggan_flags.h"

using namespace kiln;

int main(int argc, char** argv) {
  return training_program(argv, "biggan_train", [&](const std::shared_ptr<Ranks>& ranks) {
    const auto read = [](int n, char** words) { return read_biggan_flags(n, words, false); };
    const auto settle = [](const BigganFlags& f, const std::string& saved, int n, char** words, const std::shared_ptr<Ranks>& others) {
      return settle_biggan(f, saved, n, words, others, command_line(n, words));
    };
    return run_training("biggan_train", argc, argv, ranks, read, settle);
  }, [] { print_biggan_help(false); });
}
