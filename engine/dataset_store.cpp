#include "engine/dataset_store.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "engine/error.h"
#include "engine/file.h"

namespace kiln::dataset {

std::shared_ptr<PixelStore> PixelStore::in_memory(size_t bytes) {
  void* map = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) return nullptr;
  std::shared_ptr<PixelStore> store(new PixelStore);
  store->data_ = static_cast<uint8_t*>(map);
  store->bytes_ = bytes;
  return store;
}

std::shared_ptr<PixelStore> PixelStore::in_file(int descriptor, std::string name) {
  std::shared_ptr<PixelStore> store(new PixelStore);
  store->descriptor_ = fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
  if (store->descriptor_ < 0) fail("{}: cannot open: {}; close some programs", name, std::strerror(errno));
  // Batches come from anywhere in it: reading ahead would only fill memory.
  posix_fadvise(store->descriptor_, 0, 0, POSIX_FADV_RANDOM);
  store->name_ = std::move(name);
  return store;
}

PixelStore::~PixelStore() {
  if (data_) munmap(data_, bytes_);
  if (descriptor_ >= 0) close(descriptor_);
}

bool PixelStore::grow(size_t bytes) {
  KILN_ASSERT(data_ && bytes >= bytes_);
  void* map = mremap(data_, bytes_, bytes, MREMAP_MAYMOVE);
  if (map == MAP_FAILED) return false;
  data_ = static_cast<uint8_t*>(map);
  bytes_ = bytes;
  return true;
}

void PixelStore::read(uint64_t at, void* to, size_t bytes) const {
  if (data_) {
    std::memcpy(to, data_ + at, bytes);
    return;
  }
  for (size_t done = 0; done < bytes;) {
    const ssize_t got = pread(descriptor_, static_cast<char*>(to) + done, bytes - done, static_cast<off_t>(at + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0)
      fail("{}: cannot read the decoded pictures: {}; check the disk, remove the file and start again", name_,
           got < 0 ? std::strerror(errno) : "the file was cut short");
    done += size_t(got);
  }
}

void PixelStore::write(uint64_t at, const void* from, size_t bytes) {
  if (data_) {
    std::memcpy(data_ + at, from, bytes);
    return;
  }
  for (size_t done = 0; done < bytes;) {
    const ssize_t put = pwrite(descriptor_, static_cast<const char*>(from) + done, bytes - done, static_cast<off_t>(at + done));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0)
      throw WriteError(fmt::format("{}: cannot write: {}; free some disk space or check the disk", name_,
                                   std::strerror(put < 0 ? errno : ENOSPC)));
    done += size_t(put);
  }
}

void PixelStore::hash(uint64_t bytes, std::initializer_list<Hash64*> hashes) const {
  constexpr uint64_t kPiece = 1 << 20;
  std::vector<uint8_t> buffer(data_ ? 0 : std::min(bytes, kPiece));
  for (uint64_t at = 0; at < bytes; at += kPiece) {
    const size_t n = std::min(bytes - at, kPiece);
    if (!data_) read(at, buffer.data(), n);
    for (Hash64* h : hashes) h->update(data_ ? data_ + at : buffer.data(), n);
  }
}

}  // namespace kiln::dataset
