// biggan_train DIR: a folder of class folders in, a class-conditional generator out.
#include "apps/biggan_flags.h"

using namespace kiln;

int main(int argc, char** argv) {
  const auto read = [](int n, char** words) { return read_biggan_flags(n, words, false); };
  const auto run = [&](const std::shared_ptr<Ranks>& ranks) { return run_training("biggan_train", argc, argv, ranks, read, settle_biggan); };
  return training_program(argv, "biggan_train", run, [] { print_biggan_help(false); });
}
