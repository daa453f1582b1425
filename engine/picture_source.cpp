#include "engine/picture_source.h"

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <numeric>
#include <thread>

#include "engine/error.h"
#include "engine/random.h"

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
    index[size_t(i)] = order_[global % uint64_t(pictures_)];
  }
  return index;
}

/// Reads the batches of consecutive steps on a thread of its own, kBatchesAhead of them before they are asked for.
class PictureSource::Reader {
 public:
  Reader(const Dataset& data, BatchOrder order, int64_t first_step)
      : data_(data), order_(std::move(order)), next_(first_step), thread_([this](const std::stop_token& stop) { work(stop); }) {}
  ~Reader() {
    thread_.request_stop();
    thread_.join();
  }

  int64_t next_step() const { return taken_ + next_; }

  /// The bytes of the next batch; rethrows what went wrong with it.
  std::vector<uint8_t> take() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !ready_.empty() || trouble_; });
    if (ready_.empty()) std::rethrow_exception(trouble_);
    std::vector<uint8_t> batch = std::move(ready_.front());
    ready_.pop_front();
    taken_++;
    changed_.notify_all();
    return batch;
  }

 private:
  void work(const std::stop_token& stop) {
    try {
      for (int64_t step = next_;; step++) {
        const std::vector<int32_t> index = order_.indices(step);
        std::vector<uint8_t> batch(index.size() * data_.picture_bytes());
        for (size_t i = 0; i < index.size(); i++) data_.read(size_t(index[i]), batch.data() + i * data_.picture_bytes());
        std::unique_lock lock(mutex_);
        if (!changed_.wait(lock, stop, [&] { return ready_.size() < kBatchesAhead; })) return;
        ready_.push_back(std::move(batch));
        changed_.notify_all();
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      trouble_ = std::current_exception();
      changed_.notify_all();
    }
  }

  const Dataset& data_;
  BatchOrder order_;
  const int64_t next_;  // the first step
  int64_t taken_ = 0;   // batches; the training thread's
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<std::vector<uint8_t>> ready_;
  std::exception_ptr trouble_;
  std::jthread thread_;  // last: it uses the others
};

PictureSource::PictureSource(std::shared_ptr<const Dataset> data, uint64_t seed, int batch, BatchShare share)
    : data_(std::move(data)), order_(seed, int64_t(data_->count()), batch, share), batch_(order_.count()), index_(Shape{batch_}, DType::i32) {
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
    reader_ = std::make_unique<Reader>(*data_, order_, step);
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
