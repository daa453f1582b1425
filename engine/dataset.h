// A folder of pictures as one array of bytes, ready for training.
//
// Decoding happens once: the result is kept in a cache file and read from it the next time, as long as no picture was added,
// removed or changed. A set that is larger than the memory it may take stays in that file while it is used, and is read
// picture by picture.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/picture.h"

namespace kiln {

/// A quarter of this machine's memory, 4 GiB at most, in bytes.
uint64_t default_picture_memory();

struct DatasetOptions {
  std::filesystem::path folder;
  int size = 256;       ///< pixels, width and height of every picture
  Fit fit = Fit::crop;  ///< how other shapes become square
  Rgb background;       ///< under transparent pictures and around padded ones
  bool strict = false;  ///< a broken picture is an Error; otherwise it is listed and left out
  int threads = 0;      ///< 0: all cores
  /// Called on the constructing thread, now and then and at the end; may throw to stop.
  std::function<void(size_t done, size_t total)> progress;
  std::filesystem::path cache_folder;      ///< empty: no cache. default_cache_folder() is the usual place.
  uint64_t max_bytes = default_picture_memory();  ///< of decoded pictures in memory; more needs a cache folder
};

/// $XDG_CACHE_HOME/kiln, or ~/.cache/kiln; empty if neither variable is set. It holds one file per picture folder and
/// options, replaced when a picture changes; whoever needs the room deletes any of them.
std::filesystem::path default_cache_folder();

/// A picture that could not be used. path: relative to the folder.
struct PictureFailure {
  std::string path;
  std::string reason;
};

namespace dataset {
class PixelStore;
}

/// What a Dataset will find and take, told before it decodes anything.
struct DatasetSurvey {
  size_t pictures = 0;          ///< files that are pictures by their names: the most that it can have
  uint64_t decoding_bytes = 0;  ///< about the most that decoding takes at one time, beside the result; a cached set takes none
  std::vector<std::string> names;  ///< relative paths of the pictures
};
/// Reads the beginning of every picture in the folder. Throws Error where there is no such folder.
DatasetSurvey survey_pictures(const DatasetOptions& options);

class Dataset {
 public:
  /// Finds jpg, jpeg, png, bmp, tga and webp files (any case) in the folder and all folders below. Hidden files and
  /// folders are left out; links are followed, each folder is visited once. The order is that of the relative paths as
  /// bytes; neither threads nor the cache change a byte of the result. Throws Error: no such folder, nothing usable in
  /// it (and what was found instead), a broken picture when strict (the first in order), too large for memory without a
  /// cache folder, no disk space for a set that must live on disk.
  explicit Dataset(const DatasetOptions& options);

  size_t count() const { return names_.size(); }
  int size() const { return size_; }
  size_t picture_bytes() const { return size_t(size_) * size_ * 3; }
  /// False where the set is larger than max_bytes: it is in a file then.
  bool in_memory() const;
  /// Copies picture i, [size, size, 3] bytes. For any thread. Throws Error if the file of a set on disk cannot be read.
  void read(size_t i, uint8_t* to) const;
  /// Of a set in memory: picture i where it lies; pixels(0) is [count, size, size, 3]. They live as long as memory() does.
  const uint8_t* pixels(size_t i = 0) const;
  std::shared_ptr<void> memory() const;
  /// Relative paths of the pictures.
  const std::vector<std::string>& names() const { return names_; }
  const std::vector<PictureFailure>& failures() const { return failures_; }
  /// Of count, size and all bytes: equal for equal training sets, whatever their names. To check that a resumed run
  /// goes on with the pictures that it began with.
  uint64_t fingerprint() const { return fingerprint_; }
  bool from_cache() const { return from_cache_; }

 private:
  int size_ = 0;
  std::shared_ptr<dataset::PixelStore> pixels_;
  std::vector<std::string> names_;
  std::vector<PictureFailure> failures_;
  uint64_t fingerprint_ = 0;
  bool from_cache_ = false;
};

}  // namespace kiln
