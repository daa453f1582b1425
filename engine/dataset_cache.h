// Inside of dataset.cpp: the folder's scan, and the cache file that remembers what a scan decoded to.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/dataset.h"
#include "engine/dataset_store.h"
#include "engine/file.h"
#include "engine/hash.h"

namespace kiln::dataset {

/// A file that should be a picture, as it was when the folder was scanned.
struct Candidate {
  std::string path;  ///< relative to the folder
  uint64_t bytes = 0;
  int64_t mtime_ns = 0;
  std::string reason;      ///< why it cannot be used; empty while it can
  bool transient = false;  ///< the reason lies in the machine (rights, memory), not in the file: do not remember it
};

struct Scan {
  std::vector<Candidate> candidates;     ///< sorted by path
  std::map<std::string, size_t> others;  ///< extension -> number of files that are no candidates
};

/// The beginning of Dataset::fingerprint(): the pixels follow.
Hash64 fingerprint_of_shape(uint64_t count, int size);

Scan scan_folder(const std::filesystem::path& folder);

/// File: pixels of the usable candidates | index | footer. The pixels come first, so that they are aligned to pages.
class Cache {
 public:
  explicit Cache(const DatasetOptions& options);  // options.cache_folder may be empty: then nothing is found or kept
  const std::filesystem::path& path() const { return path_; }

  struct Found {
    std::shared_ptr<PixelStore> pixels;
    std::vector<std::string> reasons;  ///< one per candidate, empty for the usable
    uint64_t fingerprint = 0;          ///< Dataset::fingerprint()
  };
  /// The pixels, if a whole and undamaged cache fits exactly these candidates; otherwise null pixels. They are read into
  /// memory, or stay in the file where they are more than max_bytes. Never throws for what is in the file.
  Found load(const std::vector<Candidate>& candidates, int size, uint64_t max_bytes) const;
  /// Adds index and footer to `file`, whose first pixel_bytes bytes are the pixels, and gives it its name. Throws
  /// Error.
  void finish(AtomicFile& file, const std::vector<Candidate>& candidates, uint64_t pixel_bytes, uint64_t pixel_hash) const;
  /// Writes everything, pixels of hash_bytes pixel_hash. false if it could not.
  bool store(const std::vector<Candidate>& candidates, const uint8_t* pixels, uint64_t pixel_bytes, uint64_t pixel_hash) const;

 private:
  Found load(const std::shared_ptr<PixelStore>& file, uint64_t bytes, const std::vector<Candidate>& candidates,
             int size, uint64_t max_bytes) const;

  std::string key_;  ///< folder and options: everything but the files that decides what the pixels are
  std::filesystem::path path_;
};

}  // namespace kiln::dataset
