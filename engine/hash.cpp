#include "engine/hash.h"

#include <bit>
#include <cstring>

namespace kiln {
namespace {

constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87, kPrime2 = 0xC2B2AE3D27D4EB4F, kPrime3 = 0x165667B19E3779F9,
                   kPrime4 = 0x85EBCA77C2B2AE63, kPrime5 = 0x27D4EB2F165667C5;

template <class T>
T load(const unsigned char* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

uint64_t round(uint64_t lane, uint64_t input) { return std::rotl(lane + input * kPrime2, 31) * kPrime1; }

uint64_t merge(uint64_t hash, uint64_t lane) { return (hash ^ round(0, lane)) * kPrime1 + kPrime4; }

void stripe(uint64_t lane[4], const unsigned char* p) {
  for (int i = 0; i < 4; ++i) lane[i] = round(lane[i], load<uint64_t>(p + 8 * i));
}

}  // namespace

Hash64::Hash64(uint64_t seed)
    : lane_{seed + kPrime1 + kPrime2, seed + kPrime2, seed, seed - kPrime1}, seed_(seed), buffer_{} {}

void Hash64::update(const void* data, size_t bytes) {
  if (bytes == 0) return;  // data may be null then
  const auto* p = static_cast<const unsigned char*>(data);
  total_ += bytes;
  if (buffered_ > 0) {
    size_t take = sizeof buffer_ - buffered_ < bytes ? sizeof buffer_ - buffered_ : bytes;
    std::memcpy(buffer_ + buffered_, p, take);
    buffered_ += take, p += take, bytes -= take;
    if (buffered_ < sizeof buffer_) return;
    stripe(lane_, buffer_);
    buffered_ = 0;
  }
  uint64_t lane[4] = {lane_[0], lane_[1], lane_[2], lane_[3]};  // in registers for the long loop
  for (; bytes >= 32; bytes -= 32, p += 32) stripe(lane, p);
  std::memcpy(lane_, lane, sizeof lane);
  std::memcpy(buffer_, p, bytes);
  buffered_ = bytes;
}

uint64_t Hash64::value() const {
  uint64_t hash = seed_ + kPrime5;
  if (total_ >= 32) {
    hash = std::rotl(lane_[0], 1) + std::rotl(lane_[1], 7) + std::rotl(lane_[2], 12) + std::rotl(lane_[3], 18);
    for (uint64_t lane : lane_) hash = merge(hash, lane);
  }
  hash += total_;
  const unsigned char *p = buffer_, *end = buffer_ + buffered_;
  for (; end - p >= 8; p += 8) hash = std::rotl(hash ^ round(0, load<uint64_t>(p)), 27) * kPrime1 + kPrime4;
  if (end - p >= 4) {
    hash = std::rotl(hash ^ (load<uint32_t>(p) * kPrime1), 23) * kPrime2 + kPrime3;
    p += 4;
  }
  for (; p < end; ++p) hash = std::rotl(hash ^ (*p * kPrime5), 11) * kPrime1;
  hash = (hash ^ (hash >> 33)) * kPrime2;
  hash = (hash ^ (hash >> 29)) * kPrime3;
  return hash ^ (hash >> 32);
}

uint64_t hash_bytes(const void* data, size_t bytes, uint64_t seed) {
  Hash64 hash(seed);
  hash.update(data, bytes);
  return hash.value();
}

}  // namespace kiln
