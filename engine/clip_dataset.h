// A folder of clips as arrays of bytes, ready for training: video files, folders of frames, strips of frames.
//
// Decoding happens once, as for pictures (engine/dataset.h): every frame of every clip is kept in a cache file and read from it
// the next time, as long as nothing was added, removed or changed. How long a clip must be, and which of its frames are used, is
// decided after that, so that another length decodes nothing. A set larger than the memory it may take stays in its file.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/classes.h"
#include "engine/dataset.h"
#include "engine/picture.h"

namespace kiln {

/// What the pictures of one folder are.
enum class ClipPictures {
  automatic,  ///< strips if the folder's first picture is at least 4 times as wide as high, by a whole number; frames otherwise
  frames,     ///< together one clip, a frame each
  strips,     ///< each a clip: square frames side by side, two or more
};
/// "auto", "frames", "strips"; throws Error for any other word.
ClipPictures clip_pictures_from_name(std::string_view name);
const char* clip_pictures_name(ClipPictures pictures);

struct ClipDatasetOptions {
  std::filesystem::path folder;
  int size = 64;        ///< pixels, width and height of every frame
  int frames = 16;      ///< of a window used for training, at the final rate; >= 1
  int stride = 1;       ///< every n-th source frame is used; a window spans (frames - 1) * stride + 1 source frames
  std::string frames_flag = "--frames";  ///< what sets `frames`, for messages
  Fit fit = Fit::crop;  ///< how other shapes become square
  Rgb background;       ///< under transparent frames and around padded ones
  ClipPictures pictures = ClipPictures::automatic;
  bool classes = false;  ///< DIR/CLASS/clip: classes from folders
  bool strict = false;   ///< a clip that is broken or too short is an Error; otherwise it is listed and left out
  int threads = 0;       ///< that decode, a clip each; 0: all cores
  /// Clips. Called on the constructing thread, now and then and at the end; may throw to stop.
  std::function<void(size_t done, size_t total)> progress;
  std::filesystem::path cache_folder;             ///< empty: no cache. default_cache_folder() is the usual place.
  uint64_t max_bytes = default_picture_memory();  ///< of decoded frames in memory; more needs a cache folder
};

class ClipDataset {
 public:
  /// Looks through the folder and all folders below. A clip is
  ///   - a video file: mp4, m4v, mov, mkv, webm, avi, gif (any case), where this build has FFmpeg's libraries;
  ///   - a folder that holds pictures (jpg, jpeg, png, bmp, tga, webp), its frames in the order of their names, numbers in
  ///     them compared as numbers (9 before 10); all of one size;
  ///   - each picture of a folder of strips (ClipPictures).
  /// Hidden files and folders are left out; links are followed, each folder is visited once. The order is that of the clips'
  /// relative paths as bytes; neither threads nor the cache change a byte of the result. Frames are taken as they are stored:
  /// time stamps do not move, repeat or drop any (notes() names clips of uneven rate).
  /// Throws Error: no such folder, nothing usable in it (and what was found instead), a clip broken or too short when strict
  /// (the first in order), too large for memory without a cache folder, classes that do not fit (index_classes).
  explicit ClipDataset(const ClipDatasetOptions& options);

  size_t count() const { return names_.size(); }       // clips long enough for a window
  int size() const { return size_; }                   // side of a frame, pixels
  int frames() const { return frames_; }               // of a window
  int stride() const { return stride_; }               // source frames from one of them to the next
  int span() const { return (frames_ - 1) * stride_ + 1; }  // source frames of a window
  int64_t frames_of(size_t i) const { return clips_[i].frames; }   // source frames of clip i, at least span()
  int64_t total_frames() const;                        // source frames of all clips
  int64_t windows() const;                             // different windows: the sum of frames_of(i) - span() + 1
  size_t frame_bytes() const { return size_t(size_) * size_t(size_) * 3; }
  /// Of a video file by its header, frames a second; 0 for frames and strips, which have none.
  double fps_of(size_t i) const { return clips_[i].fps; }

  /// Copies frames first_frame, first_frame + step, ... of clip i: [count, size, size, 3] bytes. All must lie within the clip. For
  /// any thread. Throws Error if the file of a set on disk cannot be read.
  void read(size_t i, int64_t first_frame, int64_t count, int64_t step, uint8_t* to) const;
  /// The same as pictures.
  std::vector<Picture> pictures(size_t i, int64_t first_frame, int64_t count, int64_t step) const;

  /// False where the set is larger than max_bytes: it is in a file then.
  bool in_memory() const;
  /// Of a set in memory: all decoded frames [stored_frames(), size, size, 3], among them those of clips too short to be used.
  std::shared_ptr<void> memory() const;
  int64_t stored_frames() const { return stored_frames_; }
  /// Number of clip i's first frame among them.
  int64_t first_stored(size_t i) const { return clips_[i].first; }

  /// Relative paths of the clips; a folder of frames that is the data folder itself is ".".
  const std::vector<std::string>& names() const { return names_; }
  /// Classes of the clips; no names where options.classes is false or all clips lie in the folder itself. Labels are 0 then.
  const ClassIndex& classes() const { return classes_; }
  const std::vector<int32_t>& labels() const { return classes_.labels; }
  /// Clips left out: broken ones and ones too short, in order.
  const std::vector<PictureFailure>& failures() const { return failures_; }
  /// What the user should know: clips whose frames do not come at one rate, what the classes' folders hold. A line each.
  const std::vector<std::string>& notes() const { return notes_; }
  /// Of the clips' lengths, size and all bytes: equal for equal training sets, whatever their names.
  uint64_t fingerprint() const { return fingerprint_; }
  bool from_cache() const { return from_cache_; }
  /// "20 clips, 1323 frames (47 to 109 a clip), 1043 windows of 15; left out: 2". For people.
  std::string description() const;

 private:
  struct Clip {
    int64_t first = 0, frames = 0;  // in the store
    double fps = 0;
  };
  int size_, frames_, stride_;
  std::shared_ptr<dataset::PixelStore> pixels_;
  int64_t stored_frames_ = 0;
  std::vector<Clip> clips_;
  std::vector<std::string> names_, notes_;
  ClassIndex classes_;
  std::vector<PictureFailure> failures_;
  uint64_t fingerprint_ = 0;
  bool from_cache_ = false;
};

}  // namespace kiln
