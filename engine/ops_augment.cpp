#include <vector>

#include "engine/error.h"
#include "engine/ops.h"

namespace kiln {

AugmentPolicy augment_policy(const std::string& text) {
  AugmentPolicy p{false, false, false};
  if (text == "none") return p;
  size_t at = 0;
  while (at <= text.size()) {
    const size_t comma = std::min(text.find(',', at), text.size());
    const std::string word = text.substr(at, comma - at);
    if (word == "color")
      p.color = true;
    else if (word == "translation")
      p.translation = true;
    else if (word == "cutout")
      p.cutout = true;
    else
      fail("--augment {}: '{}' is not known; use none, or some of color,translation,cutout", text, word);
    at = comma + 1;
  }
  return p;
}
namespace {

AugmentShape picture_shape(const Tensor& x) { return {x.shape()[0], int(x.shape()[1]), int(x.shape()[2])}; }

}  // namespace

Var augment(const Var& x, const AugmentPolicy& policy, const Tensor& uniforms) {
  KILN_ASSERT(x.shape().rank() == 4 && x.shape()[3] == 3 && uniforms.count() == x.shape()[0] * kAugmentUniforms);
  if (!policy.color && !policy.translation && !policy.cutout) return x;
  const AugmentShape s = picture_shape(x.value);
  const DType t = x.value.dtype();
  const bool record = recording({&x});
  Var y(Tensor(x.shape(), t), record);
  {
    const Tensor means(Shape{s.n}), scratch(Shape{32 * s.n});
    if (policy.color) KILN_RUN(Work::reduction, picture_means(stream, t, s, x.value.data(), means.f32(), scratch.f32()));
    KILN_RUN(Work::pointwise, augment_forward(stream, t, s, policy, uniforms.f32(), means.f32(), x.value.data(), y.value.data()));
  }
  if (record)
    context().tape->push([=, shape = x.shape(), xn = x.node, yn = y.node] {
      const Tensor dy = yn->take();
      if (!dy) return;
      const Tensor dx(shape, t), sums(Shape{33 * s.n});
      KILN_RUN(Work::pointwise, augment_backward(stream, t, s, policy, uniforms.f32(), dy.data(), dx.data(), sums.f32()));
      xn->add(dx);
    });
  return y;
}

PictureSet::PictureSet(int64_t n, int h, int w)
    : pixels(Shape{n, h, w, 3}, DType::u8), means(Shape{n}), count(n), height(h), width(w) {}

PictureSet::PictureSet(const uint8_t* data, int64_t n, int h, int w) : PictureSet(n, h, w) { upload(data); }

PictureSet::PictureSet(std::shared_ptr<void> memory, int64_t n, int h, int w) : means(Shape{n}), count(n), height(h), width(w) {
  const auto* data = static_cast<const uint8_t*>(memory.get());
  if (context().device == Device::cpu) {
    pixels = Tensor(Shape{n, h, w, 3}, DType::u8, std::move(memory));
    measure(data);
  } else {
    pixels = Tensor(Shape{n, h, w, 3}, DType::u8);
    upload(data);
  }
}

void PictureSet::upload(const uint8_t* data) {
  pixels.upload(data);
  measure(data);
}

void PictureSet::measure(const uint8_t* data) {
  const int64_t per = int64_t(height) * width * 3;
  std::vector<float> m(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; i++) {
    uint64_t sum = 0;
    for (int64_t k = 0; k < per; k++) sum += data[i * per + k];
    m[size_t(i)] = float(double(sum) / double(per) * (2.0 / 255.0) - 1.0);
  }
  means.upload(m.data());
}

Tensor gather(const PictureSet& set, const Tensor& index, const Tensor& flips, float flip_below) {
  const AugmentShape s{index.count(), set.height, set.width};
  const Tensor out(Shape{s.n, s.h, s.w, 3}, context().storage);
  KILN_RUN(Work::data, gather_pictures(stream, out.dtype(), s, set.pixels.as<uint8_t>(), index.as<int32_t>(), flips.f32(),
                                       flip_below, out.data()));
  return out;
}

Tensor gather_augmented(const PictureSet& set, const Tensor& index, const Tensor& flips, float flip_below,
                        const AugmentPolicy& policy, const Tensor& uniforms) {
  const AugmentShape s{index.count(), set.height, set.width};
  const Tensor out(Shape{s.n, s.h, s.w, 3}, context().storage);
  KILN_RUN(Work::data, gather_augmented(stream, out.dtype(), s, policy, set.pixels.as<uint8_t>(), set.means.f32(),
                                        index.as<int32_t>(), flips.f32(), flip_below, uniforms.f32(), out.data()));
  return out;
}

}  // namespace kiln
