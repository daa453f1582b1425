// Batches of a set that lies in a file, read by a thread of their own while a training step runs.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace kiln {

/// Reads the batches of consecutive steps, `ahead` of them before they are asked for.
class BatchReader {
 public:
  /// read: the bytes of a step's batch; called on the reader's thread only. May throw.
  BatchReader(std::function<std::vector<uint8_t>(int64_t step)> read, int64_t first_step, size_t ahead)
      : read_(std::move(read)), first_(first_step), ahead_(ahead), thread_([this](const std::stop_token& stop) { work(stop); }) {}
  ~BatchReader() {
    thread_.request_stop();
    thread_.join();
  }
  BatchReader(const BatchReader&) = delete;
  BatchReader& operator=(const BatchReader&) = delete;

  /// The step whose batch take() gives.
  int64_t next_step() const { return first_ + taken_; }
  /// The bytes of the next batch; rethrows what went wrong with it.
  std::vector<uint8_t> take();

 private:
  void work(const std::stop_token& stop);

  const std::function<std::vector<uint8_t>(int64_t)> read_;
  const int64_t first_;
  const size_t ahead_;
  int64_t taken_ = 0;  // batches; the taking thread's
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<std::vector<uint8_t>> ready_;
  std::exception_ptr trouble_;
  std::jthread thread_;  // last: it uses the others
};

}  // namespace kiln
