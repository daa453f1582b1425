#include "engine/picture_tensor.h"

#include <cmath>

#include "engine/error.h"

namespace kiln {

std::vector<Picture> to_pictures(const Tensor& x) {
  const std::vector<float> v = x.to_vector();
  const int h = int(x.shape()[1]), w = int(x.shape()[2]);
  std::vector<Picture> out;
  size_t at = 0;
  for (int64_t n = 0; n < x.shape()[0]; n++) {
    Picture p{w, h, std::vector<uint8_t>(size_t(h) * size_t(w) * 3)};
    for (uint8_t& b : p.rgb) {
      const float f = (v[at++] + 1.0f) * 127.5f;
      b = uint8_t((f < 0.f || f != f ? 0.f : f > 255.f ? 255.f : f) + 0.5f);
    }
    out.push_back(std::move(p));
  }
  return out;
}

Tensor to_tensor(std::span<const Picture> pictures) {
  KILN_ASSERT(!pictures.empty());
  const int w = pictures[0].width, h = pictures[0].height;
  std::vector<float> v;
  v.reserve(pictures.size() * pictures[0].rgb.size());
  for (const Picture& p : pictures) {
    KILN_ASSERT(p.width == w && p.height == h && p.rgb.size() == size_t(w) * size_t(h) * 3);
    for (const uint8_t b : p.rgb) v.push_back(float(b) / 127.5f - 1.0f);
  }
  return from_vector(Shape{int64_t(pictures.size()), h, w, 3}, v);
}

}  // namespace kiln
