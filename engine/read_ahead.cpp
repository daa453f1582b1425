#include "engine/read_ahead.h"

namespace kiln {

std::vector<uint8_t> BatchReader::take() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !ready_.empty() || trouble_; });
  if (ready_.empty()) std::rethrow_exception(trouble_);
  std::vector<uint8_t> batch = std::move(ready_.front());
  ready_.pop_front();
  taken_++;
  changed_.notify_all();
  return batch;
}

void BatchReader::work(const std::stop_token& stop) {
  try {
    for (int64_t step = first_;; step++) {
      std::vector<uint8_t> batch = read_(step);
      std::unique_lock lock(mutex_);
      if (!changed_.wait(lock, stop, [&] { return ready_.size() < ahead_; })) return;
      ready_.push_back(std::move(batch));
      changed_.notify_all();
    }
  } catch (...) {
    const std::lock_guard lock(mutex_);
    trouble_ = std::current_exception();
    changed_.notify_all();
  }
}

}  // namespace kiln
