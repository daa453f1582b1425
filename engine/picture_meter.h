// What a training run may do beside training, and how much of the time that may take.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "engine/tensor.h"

namespace kiln {

/// Keeps what is done now and then beside the work to a share of all the time. It knows no clock: who uses it says how late
/// it is.
class TimeShare {
 public:
  explicit TimeShare(double share) : share_(share) {}
  /// Seconds that may still be spent when `elapsed` have passed; negative if too many were. head_start: that many are free.
  double left(double elapsed, double head_start = 0) const { return head_start + share_ * elapsed - spent_; }
  bool allows(double seconds, double elapsed, double head_start = 0) const { return seconds <= left(elapsed, head_start); }
  void spend(double seconds) { spent_ += seconds; }
  double spent() const { return spent_; }
  double share() const { return share_; }

 private:
  double share_, spent_ = 0;
};

/// A distance to the real pictures that a run measures beside its own one, and that may take long: one on the features of a
/// network. The run asks for it only where a few per cent of its time allow it.
class PictureMeter {
 public:
  virtual ~PictureMeter() = default;
  /// What it measures and with what: the protocol, for the console.
  virtual std::string description() const = 0;
  /// For a sentence: "KID on SqueezeNet v1.1".
  virtual std::string name() const = 0;
  /// Looks at more of the real pictures, as many as take about that many seconds; false: not at all of them yet.
  virtual bool prepare(double seconds) = 0;
  /// Seconds that the first measurement will take, at a guess; known when prepared.
  virtual double expected_seconds() const = 0;
  /// Keys of log.jsonl and their values. sample(first, n): samples first .. first + m - 1 as [m, h, w, 3] on [-1, 1], 1 <= m <= n.
  virtual std::vector<std::pair<std::string, double>> measure(const std::function<Tensor(int64_t first, int64_t n)>& sample) = 0;
};

}  // namespace kiln
