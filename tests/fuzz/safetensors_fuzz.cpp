// libFuzzer harness: no bytes may crash the safetensors reader; every tensor that it hands out lies inside the file.
// Build with clang -fsanitize=fuzzer,address,undefined; see corpus/README.md.
#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/error.h"
#include "engine/hash.h"
#include "engine/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
    const kiln::SafetensorsFile file = kiln::SafetensorsFile::from_memory(bytes, "fuzz");
    for (const kiln::TensorView& t : file.tensors()) {
      kiln::hash_bytes(t.data, t.bytes);  // reads all of it: the sanitizer sees what lies outside
      KILN_ASSERT(file.find(t.name) == &t);
    }
  } catch (const kiln::Error&) {
  }
  return 0;
}
