// libFuzzer harness: no bytes may crash the picture decoders, leak, or read what is not theirs; they end in a picture
// or in kiln::Error. Build with clang -fsanitize=fuzzer,address,undefined; see corpus/README.md.
#include <cstddef>
#include <cstdint>

#include "engine/error.h"
#include "engine/picture_codec.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr uint64_t kPixels = 250'000;  // larger pictures only make it slow
  const std::span<const uint8_t> file(data, size);
  try {
    kiln::codec::decoding_bytes(file);
  } catch (const kiln::codec::Broken&) {
  }
  try {
    if (kiln::picture_size(file, "fuzz").pixels() > kPixels) return 0;
    const kiln::Picture picture = kiln::decode_picture(file, "fuzz", {10, 20, 30});
    KILN_ASSERT(picture.rgb.size() == size_t(picture.width) * picture.height * 3);
    for (kiln::Fit fit : {kiln::Fit::crop, kiln::Fit::pad}) {
      const kiln::Picture fitted = kiln::fit_picture(picture, 16, fit);
      KILN_ASSERT(fitted.width == 16 && fitted.height == 16);
    }
  } catch (const kiln::Error&) {
  }
  return 0;
}
