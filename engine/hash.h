// A 64-bit hash of bytes: finds damage and change, not attackers. The algorithm is XXH64 (Yann Collet's xxHash), so
// that any language has a reader for what kiln writes with it; about 10 GB/s on one core, so that no thread is needed.
#pragma once
#include <cstddef>
#include <cstdint>

namespace kiln {

/// Hashes bytes that arrive in pieces; how they are cut does not matter. Little-endian machines only, as all of kiln.
class Hash64 {
 public:
  explicit Hash64(uint64_t seed = 0);
  void update(const void* data, size_t bytes);
  uint64_t value() const;  ///< of all bytes so far; more may follow

 private:
  uint64_t lane_[4];
  uint64_t seed_;
  uint64_t total_ = 0;
  unsigned char buffer_[32];
  size_t buffered_ = 0;
};

/// The same in one call.
uint64_t hash_bytes(const void* data, size_t bytes, uint64_t seed = 0);

}  // namespace kiln
