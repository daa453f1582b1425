#include "engine/picture_source.h"

#include <numeric>

#include "engine/error.h"
#include "engine/random.h"
#include "engine/read_ahead.h"

namespace kiln {

std::vector<int32_t> BatchOrder::indices(int64_t step) {
  std::vector<int32_t> index(static_cast<size_t>(count()));
  for (int64_t i = 0; i < count(); i++) {
    const uint64_t global = uint64_t(step) * uint64_t(batch_) + uint64_t(share_.place(i, batch_));
    const uint64_t epoch = global / uint64_t(pictures_);
    if (epoch != epoch_) {
      epoch_ = epoch;
      order_ = permutation(seed_, "order", epoch, pictures_);
    }
    const int32_t k = order_[global % uint64_t(pictures_)];
    index[size_t(i)] = only_.empty() ? k : only_[size_t(k)];
  }
  return index;
}

PictureSource::PictureSource(std::shared_ptr<const Dataset> data, uint64_t seed, int batch, BatchShare share)
    : PictureSource(data, BatchOrder(seed, int64_t(data->count()), batch, share)) {}

PictureSource::PictureSource(std::shared_ptr<const Dataset> data, std::vector<int32_t> only, uint64_t seed, int batch, BatchShare share)
    : PictureSource(std::move(data), BatchOrder(seed, std::move(only), batch, share)) {}

PictureSource::PictureSource(std::shared_ptr<const Dataset> data, BatchOrder order)
    : data_(std::move(data)), order_(std::move(order)), batch_(order_.count()), index_(Shape{batch_}, DType::i32) {
  const int side = data_->size();
  if (data_->in_memory()) {
    set_ = std::make_unique<PictureSet>(data_->memory(), int64_t(data_->count()), side, side);
    return;
  }
  set_ = std::make_unique<PictureSet>(batch_, side, side);
  std::vector<int32_t> all(static_cast<size_t>(batch_));
  std::iota(all.begin(), all.end(), 0);
  index_.upload(all.data());
}

PictureSource::~PictureSource() = default;

void PictureSource::start(int64_t step) {
  if (data_->in_memory()) {
    index_.upload(order_.indices(step).data());
    return;
  }
  if (!reader_ || reader_->next_step() != step) {
    reader_.reset();
    reader_ = std::make_unique<BatchReader>(
        [&data = *data_, order = order_](int64_t s) mutable {
          const std::vector<int32_t> index = order.indices(s);
          std::vector<uint8_t> batch(index.size() * data.picture_bytes());
          for (size_t i = 0; i < index.size(); i++) data.read(size_t(index[i]), batch.data() + i * data.picture_bytes());
          return batch;
        },
        step, size_t(kBatchesAhead));
  }
  set_->upload(reader_->take().data());
}

Tensor PictureSource::gather(int64_t first, int64_t n, const Tensor& flips, float flip_below, const AugmentPolicy& policy,
                             const Tensor& uniforms) const {
  KILN_ASSERT(first >= 0 && first + n <= batch_);
  const Tensor index = index_.slice(first, Shape{n});
  if (policy.color || policy.translation || policy.cutout)
    return gather_augmented(*set_, index, flips, flip_below, policy, uniforms);
  return kiln::gather(*set_, index, flips, flip_below);
}

Tensor PictureSource::pictures(const std::vector<int32_t>& index) const {
  const int64_t n = int64_t(index.size());
  std::vector<uint8_t> bytes(index.size() * data_->picture_bytes());
  std::vector<int32_t> all(index.size());
  for (size_t i = 0; i < index.size(); i++) {
    data_->read(size_t(index[i]), bytes.data() + i * data_->picture_bytes());
    all[i] = int32_t(i);
  }
  const PictureSet some(bytes.data(), n, data_->size(), data_->size());
  const Tensor device_index(Shape{n}, DType::i32);
  device_index.upload(all.data());
  return kiln::gather(some, device_index, zeros(Shape{n, 1}), 0.f);
}

}  // namespace kiln
