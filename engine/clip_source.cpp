#include "engine/clip_source.h"

#include <algorithm>
#include <numeric>

#include "engine/context.h"
#include "engine/error.h"
#include "engine/random.h"
#include "engine/read_ahead.h"
#include "kernels/augment.h"
#include "kernels/philox.h"

namespace kiln {

ClipOrder::ClipOrder(const ClipDataset& data, uint64_t seed, int batch, int64_t span, BatchShare share)
    : data_(data), order_(seed, int64_t(data.count()), batch, share), seed_(seed), batch_(batch), span_(span), share_(share) {}

std::vector<ClipOrder::Window> ClipOrder::windows(int64_t step) {
  const std::vector<int32_t> clips = order_.indices(step);
  const uint32_t site = site_id("clip.first");
  std::vector<Window> out;
  for (size_t i = 0; i < clips.size(); i++) {
    const uint64_t global = uint64_t(step) * uint64_t(batch_) + uint64_t(share_.place(int64_t(i), batch_));
    const philox::Words w = philox::block({uint32_t(global), uint32_t(global >> 32), site, 0}, uint32_t(seed_), uint32_t(seed_ >> 32));
    const int64_t choices = data_.frames_of(size_t(clips[i])) - span_ + 1;
    KILN_ASSERT(choices >= 1);
    out.push_back({clips[i], int64_t((uint64_t(w.x) << 32 | w.y) % uint64_t(choices))});  // the bias is below choices / 2^64
  }
  return out;
}

ClipSource::ClipSource(std::shared_ptr<const ClipDataset> data, uint64_t seed, int batch, int frames, BatchShare share)
    : data_(std::move(data)), frames_(frames), order_(*data_, seed, batch, int64_t(frames - 1) * data_->stride() + 1, share) {
  KILN_ASSERT(frames >= 1 && frames <= data_->frames());
  const int64_t side = data_->size(), shown = order_.count() * frames;
  index_ = Tensor(Shape{shown}, DType::i32);
  labels_ = Tensor(Shape{order_.count()}, DType::i32);
  if (data_->in_memory()) {
    const Shape all{data_->stored_frames(), side, side, 3};
    if (context().device == Device::cpu) {
      pixels_ = Tensor(all, DType::u8, data_->memory());
    } else {
      pixels_ = Tensor(all, DType::u8);
      pixels_.upload(data_->memory().get());
    }
    return;
  }
  pixels_ = Tensor(Shape{shown, side, side, 3}, DType::u8);
  std::vector<int32_t> counting(static_cast<size_t>(shown));
  std::iota(counting.begin(), counting.end(), 0);
  index_.upload(counting.data());
}

ClipSource::~ClipSource() = default;

std::vector<uint8_t> ClipSource::read(const std::vector<ClipOrder::Window>& windows) const {
  const size_t bytes = size_t(frames_) * data_->frame_bytes();
  std::vector<uint8_t> out(windows.size() * bytes);
  for (size_t i = 0; i < windows.size(); i++) data_->read(size_t(windows[i].clip), windows[i].first, frames_, data_->stride(), out.data() + i * bytes);
  return out;
}

void ClipSource::start(int64_t step) {
  const std::vector<ClipOrder::Window> windows = order_.windows(step);
  std::vector<int32_t> labels;
  for (const ClipOrder::Window& w : windows) labels.push_back(data_->labels()[size_t(w.clip)]);
  labels_.upload(labels.data());
  if (data_->in_memory()) {
    std::vector<int32_t> index;
    for (const ClipOrder::Window& w : windows)
      for (int t = 0; t < frames_; t++) index.push_back(int32_t(data_->first_stored(size_t(w.clip)) + w.first + int64_t(t) * data_->stride()));
    index_.upload(index.data());
    return;
  }
  if (!reader_ || reader_->next_step() != step) {
    reader_.reset();
    reader_ = std::make_unique<BatchReader>([this, order = order_](int64_t s) mutable { return read(order.windows(s)); }, step, size_t(kBatchesAhead));
  }
  pixels_.upload(reader_->take().data());
}

Tensor ClipSource::gather(int64_t first, int64_t n, const Tensor& flips, float flip_below) const {
  KILN_ASSERT(first >= 0 && n >= 1 && first + n <= order_.count() && flips.count() == n);
  const int side = data_->size();
  const AugmentShape s{n * frames_, side, side};
  const Tensor index = index_.slice(first * frames_, Shape{s.n}), out(Shape{n, frames_, side, side, 3}, context().storage);
  KILN_RUN(Work::data, gather_clips(stream, out.dtype(), s, frames_, pixels_.as<uint8_t>(), index.as<int32_t>(), flips.f32(), flip_below, out.data()));
  return out;
}

Tensor ClipSource::labels(int64_t first, int64_t n) const {
  KILN_ASSERT(first >= 0 && n >= 1 && first + n <= order_.count());
  return labels_.slice(first, Shape{n});
}

Tensor ClipSource::clips(const std::vector<ClipOrder::Window>& windows) const {
  KILN_ASSERT(!windows.empty());
  const int64_t n = int64_t(windows.size()), side = data_->size(), shown = n * frames_;
  const Tensor some(Shape{shown, side, side, 3}, DType::u8), index(Shape{shown}, DType::i32);
  some.upload(read(windows).data());
  std::vector<int32_t> counting(static_cast<size_t>(shown));
  std::iota(counting.begin(), counting.end(), 0);
  index.upload(counting.data());
  const Tensor out(Shape{n, frames_, side, side, 3}, context().storage), flips = zeros(Shape{n, 1});
  KILN_RUN(Work::data, gather_clips(stream, out.dtype(), AugmentShape{shown, int(side), int(side)}, frames_, some.as<uint8_t>(), index.as<int32_t>(),
                                    flips.f32(), 0.f, out.data()));
  return out;
}

}  // namespace kiln
