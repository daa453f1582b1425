// embed_sample CHECKPOINT FOLDER [COUNT]: pictures from a trained generator, inside a program of your own.
#include <kiln/engine/error.h>
#include <kiln/models/fastgan_sampler.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

int main(int argc, char** argv) {
  if (argc == 2 && std::string(argv[1]) == "--help") return std::puts("usage: embed_sample CHECKPOINT FOLDER [COUNT]") < 0;
  const int count = argc == 4 ? std::atoi(argv[3]) : 4;
  if (argc < 3 || argc > 4 || count < 1) {
    std::fputs("usage: embed_sample CHECKPOINT FOLDER [COUNT]\n", stderr);
    return 2;
  }
  try {
    kiln::fastgan::Sampler sampler(argv[1]);
    const std::filesystem::path folder = argv[2];
    std::filesystem::create_directories(folder);
    for (int seed = 0; seed < count; seed++)
      kiln::write_png(folder / ("seed" + std::to_string(seed) + ".png"), sampler.render(sampler.latent(uint64_t(seed))));
    std::printf("%d pictures of %d x %d pixels\n", count, sampler.size(), sampler.size());
  } catch (const std::exception& e) {  // kiln's own are kiln::Error
    std::fprintf(stderr, "embed_sample: %s\n", e.what());
    return 2;
  }
}
