// What a user is told when there is no GPU to train on: one line, with the reason and a remedy, for each of the reasons.
#include "engine/backend/cudnn.h"
#include "engine/backend/gpu_runtime.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::gpu_runtime;
using namespace kiln::test;

TEST_CASE("gpu_runtime: each trouble is told in one line, with its remedy") {
  struct Told {
    Trouble trouble;
    std::vector<std::string> words;
  };
  const Told all[] = {
      {Trouble::no_cuda, {"without CUDA", "build it again"}},
      {Trouble::no_libraries, {"without cuDNN", "build it again"}},
      {Trouble::no_driver, {"no NVIDIA driver", "install"}},
      {Trouble::old_driver, {"too old", "12.4", "13.0", "update"}},
      {Trouble::mixed_driver, {"different versions", "restart"}},
      {Trouble::no_device, {"no GPU", "nvidia-smi", "CUDA_VISIBLE_DEVICES"}},
      {Trouble::old_gpu, {"GTX 1080 Ti", "6.1", "7.5"}},
      {Trouble::no_code, {"GTX 1080 Ti", "CMAKE_CUDA_ARCHITECTURES=61"}},
      {Trouble::busy, {"another program", "nvidia-smi"}},
      {Trouble::no_memory, {"no memory left", "other programs", "nvidia-smi"}},
      {Trouble::other, {"the device is on fire"}},
  };
  Facts f;
  f.driver = 12040;
  f.runtime = 13000;
  f.name = "NVIDIA GeForce GTX 1080 Ti";
  f.major = 6;
  f.minor = 1;
  f.detail = "the device is on fire";
  for (const Told& t : all) {
    f.trouble = t.trouble;
    const std::string line = describe(f);
    CAPTURE(line);
    CHECK(!contains(line, "\n"));
    for (const std::string& w : t.words) CHECK_MESSAGE(contains(line, w), w);
  }
  f.trouble = Trouble::none;
  CHECK(describe(f).empty());
}

TEST_CASE("gpu_runtime: what CUDA says is understood") {
  const auto words = [](int error, int driver) {
    Facts f;
    f.trouble = trouble_of(error, driver);
    return describe(f);
  };
  CHECK(words(0, 13000).empty());
  CHECK(contains(words(35, 0), "no NVIDIA driver"));
  CHECK(contains(words(100, 0), "no NVIDIA driver"));
  CHECK(contains(words(34, 0), "no NVIDIA driver"));
  CHECK(contains(words(35, 12040), "too old"));
  CHECK(contains(words(222, 12040), "too old"));
  CHECK(contains(words(804, 12040), "too old"));
  CHECK(contains(words(803, 13000), "restart"));
  CHECK(contains(words(100, 13000), "shows no GPU"));
  CHECK(contains(words(46, 13000), "another program"));
  CHECK(contains(words(2, 13000), "no memory left"));
  CHECK(contains(words(209, 13000), "no code"));
  CHECK(contains(words(98, 13000), "no code"));
  CHECK(contains(words(999, 13000), "cannot be used"));
}

TEST_CASE("gpu_runtime: a failure while running is told in one line that offers the CPU") {
  const Memory m{size_t(20) << 20, size_t(8192) << 20};
  for (int error : {2, 46, 700}) {
    const std::string line = failure(error, "an illegal memory access was encountered", "making a CUDA graph", m);
    CAPTURE(line);
    CHECK(contains(line, "while making a CUDA graph"));
    CHECK(contains(line, "--device cpu"));
    CHECK(!contains(line, "\n"));
  }
  CHECK(contains(failure(2, "out of memory", "computing", m), "20 of its 8192 MB are free"));
  CHECK(contains(failure(46, "busy", "computing", m), "another program"));
  CHECK(contains(failure(700, "an illegal memory access", "computing", m), "an illegal memory access; start again"));
}

TEST_CASE("gpu_runtime: out of memory says what is free, what others hold and what to do") {
  const std::string line = out_of_memory(size_t(512) << 20, size_t(3000) << 20, {size_t(300) << 20, size_t(11264) << 20});
  CHECK(contains(line, "512 MB more"));
  CHECK(contains(line, "300 of its 11264 MB are free"));
  CHECK(contains(line, "this run holds 3000 MB"));
  CHECK(contains(line, "other programs about 7964 MB"));
  for (const char* remedy : {"nvidia-smi", "--batch", "--size", "--accumulate", "--device cpu"}) CHECK(contains(line, remedy));
  CHECK(!contains(line, "\n"));
}

TEST_CASE("gpu_runtime: without a GPU, a context for one is refused") {
  std::string why;
  if (available(&why) && cudnn::compiled_in()) return;  // the tests of ops and networks run on it
  const std::string error = error_of([] { Context context(Device::gpu); });
  CHECK(contains(error, "--device gpu: "));
  CHECK(contains(error, "--device cpu"));
  CHECK(contains(error, why));
}
