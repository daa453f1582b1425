// The kernel tests' main. They run on the CPU, and on a GPU too where there is one (tests/kernel_test.h).
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
