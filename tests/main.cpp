// The tests' main. With KILN_TEST_DEVICE=gpu in the environment and no GPU to run on they say so and count as skipped.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>

#include "engine/backend/gpu_runtime.h"
#include "tests/support.h"

int main(int argc, char** argv) {
  if (kiln::test::test_device() == kiln::Device::gpu) {
    try {
      kiln::gpu_runtime::require();
    } catch (const kiln::Error& e) {
      std::printf("skipped: %s\n", e.what());
      return 0;
    }
  }
  return doctest::Context(argc, argv).run();
}
