// Inside of clip_dataset.cpp: which clips a folder holds, how one is decoded, and the cache file of what they decoded to.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/clip_dataset.h"
#include "engine/dataset_store.h"
#include "engine/file.h"

namespace kiln::clips {

enum class Kind : uint8_t { video, frames, strip };

/// A file that a clip is made of, as it was when the folder was scanned.
struct Part {
  std::string name;  ///< relative to the data folder
  uint64_t bytes = 0;
  int64_t mtime_ns = 0;
};

/// Something that should be a clip, and what is known of it once it is decoded.
struct Candidate {
  std::string path;  ///< relative to the data folder
  Kind kind = Kind::video;
  std::vector<Part> parts;  ///< frames in their order; one file for the other kinds
  std::string reason;       ///< why it cannot be used; empty while it can
  bool transient = false;   ///< the reason lies in the machine (rights, memory), not in the files: do not remember it
  int64_t frames = 0;       ///< decoded ones
  double fps = 0;
  bool uneven = false;
  uint64_t hash = 0;        ///< of its bytes
};

struct Scan {
  std::vector<Candidate> candidates;     ///< sorted by path
  std::map<std::string, size_t> others;  ///< extension -> number of files that are in no clip
};
/// Throws Error where there is no such folder.
Scan scan_folder(const std::filesystem::path& folder, ClipPictures pictures);

/// Names as people count: runs of digits by their value, everything else by bytes.
bool natural_less(const std::string& a, const std::string& b);

/// Decodes a candidate: all frames [frames, size, size, 3] one behind the other, and the candidate's frames, fps, uneven and
/// hash; or its reason is set and the result is empty.
std::vector<uint8_t> decode(const ClipDatasetOptions& options, Candidate& candidate);

/// File: frames of the usable candidates | index | footer.
class Cache {
 public:
  explicit Cache(const ClipDatasetOptions& options);  // options.cache_folder may be empty: then nothing is found or kept
  const std::filesystem::path& path() const { return path_; }

  /// The frames, if a whole and undamaged cache fits exactly these candidates, whose results are filled in; otherwise null and
  /// the candidates as they were. Frames are read into memory, or stay in the file where they are more than max_bytes. Never throws
  /// for what is in the file.
  std::shared_ptr<dataset::PixelStore> load(std::vector<Candidate>& candidates, size_t frame_bytes, uint64_t max_bytes) const;
  /// Adds index and footer to `file`, whose first pixel_bytes bytes are the frames, and gives it its name. Throws Error.
  void finish(AtomicFile& file, const std::vector<Candidate>& candidates, uint64_t pixel_bytes) const;
  /// Writes everything. false if it could not.
  bool store(const std::vector<Candidate>& candidates, const uint8_t* pixels, uint64_t pixel_bytes) const;

 private:
  std::string key_;  ///< folder and options: everything but the files that decides what the frames are
  std::filesystem::path path_;
};

}  // namespace kiln::clips
