// What fuzzers found worth keeping (tests/fuzz/corpus): read, or refused by a kiln::Error, and nothing else.
#include "engine/file.h"
#include "engine/pth.h"
#include "engine/safetensors.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::test;
namespace fs = std::filesystem;

namespace {

struct Counts {
  int read = 0, refused = 0;
};

template <class Reader>
Counts each_file(const std::string& folder, Reader read) {
  Counts c;
  for (const auto& e : fs::directory_iterator(std::string(KILN_SOURCE_DIR) + "/tests/fuzz/corpus/" + folder)) {
    CAPTURE(e.path().string());
    const auto bytes = read_file(e.path(), 1 << 20);
    try {
      read(std::as_bytes(std::span(bytes)));
      c.read++;
    } catch (const Error& error) {
      CHECK(std::string(error.what()).starts_with("it"));  // names the file
      c.refused++;
    }
  }
  return c;
}

}  // namespace

TEST_CASE("fuzz: the corpora of .pth and safetensors files are read or refused") {
  const Counts pth = each_file("pth", [](auto bytes) { (void)read_pth(bytes, "it"); });
  const Counts safetensors = each_file("safetensors", [](auto bytes) { SafetensorsFile::from_memory(bytes, "it"); });
  MESSAGE(".pth: " << pth.read << " read, " << pth.refused << " refused; safetensors: " << safetensors.read << " and " << safetensors.refused);
  CHECK(pth.read >= 2);  // one of each form
  CHECK(pth.refused >= 20);
  CHECK(safetensors.read >= 3);
  CHECK(safetensors.refused >= 10);
}
