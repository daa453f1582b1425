// The one exception type of kiln, and the checks that throw it.
//
// kiln::Error is for what a user can cause: its text names the thing that is wrong and the remedy, and every program
// prints it on one line and exits with code 2. A mistake of the programmer's is KILN_ASSERT: it stops the process.
#pragma once
#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <utility>

namespace kiln {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Throws kiln::Error with a formatted text: fail("{}: not a PNG file; convert it or remove it", path).
template <class... A>
[[noreturn]] void fail(fmt::format_string<A...> format, A&&... args) {
  throw Error(fmt::format(format, std::forward<A>(args)...));
}

}  // namespace kiln

/// For what only a programming error can break. On in every build: the checks are outside of inner loops.
#define KILN_ASSERT(condition)                                                                                  \
  do {                                                                                                          \
    if (!(condition)) {                                                                                         \
      std::fprintf(stderr, "kiln: %s:%d: programming error: %s does not hold\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                                             \
    }                                                                                                           \
  } while (0)
