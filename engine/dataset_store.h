// Inside of dataset.cpp: where decoded pictures lie, in memory or in a file that takes none.
#pragma once
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>

#include "engine/hash.h"

namespace kiln::dataset {

/// A row of bytes. Several threads may read and write different places at one time.
class PixelStore {
 public:
  /// Zeroed memory; null if there is not enough.
  static std::shared_ptr<PixelStore> in_memory(size_t bytes);
  /// The beginning of an open file, read and written where it lies; `name` is its path, for errors. Keeps a descriptor of its
  /// own: the file may lose its name.
  static std::shared_ptr<PixelStore> in_file(int descriptor, std::string name);
  ~PixelStore();
  PixelStore(const PixelStore&) = delete;
  PixelStore& operator=(const PixelStore&) = delete;

  /// Makes memory larger, what it holds stays, though elsewhere; false, and as it was, if there is not enough. Not while others use it.
  bool grow(size_t bytes);

  /// The memory; null for a file.
  uint8_t* data() const { return data_; }
  /// Throw kiln::Error naming the file: it is shorter than that, or the disk fails.
  void read(uint64_t at, void* to, size_t bytes) const;
  void write(uint64_t at, const void* from, size_t bytes);
  /// Feeds the first `bytes` bytes to several hashes, a megabyte at a time.
  void hash(uint64_t bytes, std::initializer_list<Hash64*> hashes) const;

 private:
  PixelStore() = default;
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
  int descriptor_ = -1;
  std::string name_;
};

}  // namespace kiln::dataset
