#include "engine/clip_dataset.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#include "engine/clip_scan.h"
#include "engine/error.h"
#include "engine/hash.h"
#include "engine/video.h"

namespace fs = std::filesystem;

namespace kiln {
namespace {

using clips::Cache;
using clips::Candidate;
using dataset::PixelStore;

[[noreturn]] void fail_strict(const ClipDatasetOptions& options, const Candidate& c) {
  fail("{}: {}; repair or remove it, or let such clips be left out (no --strict)", (options.folder / c.path).string(), c.reason);
}

/// Where decoded clips go, one behind the other: memory, and a file in the cache folder from the moment that they would be too much.
class Store {
 public:
  Store(const ClipDatasetOptions& options, const Cache& cache, size_t clips) : options_(options), cache_(cache), clips_(clips) {}

  void append(const std::vector<uint8_t>& bytes) {
    if (bytes.empty()) return;
    if (!file_ && bytes_ + bytes.size() > options_.max_bytes) move_to_file(bytes_ + bytes.size());
    if (!file_) {
      if (!pixels_) pixels_ = PixelStore::in_memory(bytes.size());
      else if (!pixels_->grow(bytes_ + bytes.size())) fail_memory();
      if (!pixels_) fail_memory();
    }
    pixels_->write(bytes_, bytes.data(), bytes.size());
    bytes_ += bytes.size();
  }

  /// Leaves a cache behind if the candidates' results may be remembered, and gives the frames.
  std::shared_ptr<PixelStore> finish(const std::vector<Candidate>& candidates, bool remember) {
    if (!remember) return pixels_;
    if (!file_) {
      cache_.store(candidates, pixels_->data(), bytes_);
    } else if (lseek(file_->descriptor(), 0, SEEK_END) == static_cast<off_t>(bytes_)) {
      try {
        cache_.finish(*file_, candidates, bytes_);
      } catch (const Error&) {
        // The file stays good without a name; only the next run has to decode again.
      }
    }
    return pixels_;
  }

 private:
  void move_to_file(uint64_t needed) {
    if (options_.cache_folder.empty()) {
      fail("{}: its {} clips need {} and more at {}x{} pixels, more than the {} that they may take in memory; allow the cache, where they are "
           "kept in a file (no --no-cache), choose a smaller size of frames or a higher --picture-memory",
           options_.folder.string(), clips_, human_bytes(needed), options_.size, options_.size, human_bytes(options_.max_bytes));
    }
    std::error_code ignored;
    fs::create_directories(options_.cache_folder, ignored);  // AtomicFile says why if it is not there
    file_ = std::make_unique<AtomicFile>(cache_.path());
    const auto to = PixelStore::in_file(file_->descriptor(), cache_.path().string());
    if (pixels_) to->write(0, pixels_->data(), bytes_);
    pixels_ = to;
  }
  [[noreturn]] void fail_memory() const { fail("not enough memory for {} clips; choose a smaller size", clips_); }

  const ClipDatasetOptions& options_;
  const Cache& cache_;
  const size_t clips_;
  std::unique_ptr<AtomicFile> file_;
  std::shared_ptr<PixelStore> pixels_;
  uint64_t bytes_ = 0;
};

/// Decodes the candidates on several threads; their bytes enter the store in the candidates' order, so that the number of threads
/// shows nowhere. Each thread holds one decoded clip.
class Decoder {
 public:
  Decoder(const ClipDatasetOptions& options, std::vector<Candidate>& candidates, Store& store)
      : options_(options), candidates_(candidates), store_(store) {}

  void run() {
    const size_t total = candidates_.size();
    running_ = std::min(total, options_.threads > 0 ? size_t(options_.threads) : std::max<size_t>(1, std::thread::hardware_concurrency()));
    std::vector<std::jthread> threads;
    struct Stopper {  // if the callback throws, the threads end soon and are joined
      Decoder& d;
      ~Stopper() {
        const std::lock_guard lock(d.mutex_);
        d.stop_ = true;
        d.changed_.notify_all();
      }
    };
    for (size_t i = running_; i > 0; --i) threads.emplace_back([this] { work(); });
    const Stopper stopper{*this};
    std::unique_lock lock(mutex_);
    while (running_ > 0) {
      changed_.wait_for(lock, std::chrono::milliseconds(100));
      const size_t done = turn_;
      if (running_ == 0) break;
      lock.unlock();
      if (options_.progress) options_.progress(done, total);
      lock.lock();
    }
    const std::exception_ptr trouble = trouble_;
    lock.unlock();
    if (trouble) std::rethrow_exception(trouble);
    if (options_.progress) options_.progress(total, total);
  }

 private:
  void work() {
    for (size_t i = next_++; i < candidates_.size(); i = next_++) {
      std::vector<uint8_t> bytes;
      if (candidates_[i].reason.empty()) bytes = clips::decode(options_, candidates_[i]);
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return turn_ == i || stop_; });
      if (stop_) break;
      try {
        if (options_.strict && !candidates_[i].reason.empty()) fail_strict(options_, candidates_[i]);
        store_.append(bytes);  // the others wait for their turn anyhow
      } catch (...) {
        trouble_ = std::current_exception();
        stop_ = true;
      }
      turn_++;
      changed_.notify_all();
      if (stop_) break;
    }
    const std::lock_guard lock(mutex_);
    running_--;
    changed_.notify_all();
  }

  const ClipDatasetOptions& options_;
  std::vector<Candidate>& candidates_;
  Store& store_;
  std::atomic<size_t> next_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t turn_ = 0;  // guarded by mutex_, as are the following
  size_t running_ = 0;
  bool stop_ = false;
  std::exception_ptr trouble_;
};

[[noreturn]] void fail_empty(const ClipDatasetOptions& options, const clips::Scan& scan) {
  std::string found;
  if (!scan.candidates.empty()) {
    const Candidate& first = scan.candidates.front();
    found = fmt::format("none of the {} clips can be used; the first: {}: {}", scan.candidates.size(), first.path, first.reason);
  } else if (scan.others.empty()) {
    found = "it holds no files";
  } else {
    size_t files = 0, shown = 0;
    std::string kinds;
    for (const auto& [extension, n] : scan.others) {
      files += n;
      if (++shown <= 5) kinds += fmt::format("{}{} {}", kinds.empty() ? "" : ", ", n, extension);
    }
    found = fmt::format("found only {} other files ({}{})", files, kinds, shown > 5 ? ", ..." : "");
  }
  fail("{}: no clips here: looked for videos (mp4, m4v, mov, mkv, webm, avi, gif), for folders of frames and for strips (jpg, jpeg, png, bmp, tga, "
       "webp) in it and the folders below; {}",
       options.folder.string(), found);
}

std::string too_short(int64_t have, int frames, int stride, const std::string& flag) {
  const int64_t span = int64_t(frames - 1) * stride + 1;
  const std::string need = stride == 1 ? fmt::format("{} are needed", span) : fmt::format("{} are needed for {}, every {} of them used", span, frames, stride);
  return fmt::format("it has {} frame{}, {} ({}{})", have, have == 1 ? "" : "s", need, flag, stride == 1 ? "" : ", --stride");
}

}  // namespace

ClipPictures clip_pictures_from_name(std::string_view name) {
  for (const ClipPictures p : {ClipPictures::automatic, ClipPictures::frames, ClipPictures::strips})
    if (name == clip_pictures_name(p)) return p;
  fail("'{}' is not known: use auto, frames or strips", name);
}

const char* clip_pictures_name(ClipPictures pictures) {
  return pictures == ClipPictures::automatic ? "auto" : pictures == ClipPictures::frames ? "frames" : "strips";
}

ClipDataset::ClipDataset(const ClipDatasetOptions& options) : size_(options.size), frames_(options.frames), stride_(options.stride) {
  KILN_ASSERT(options.size >= 1 && options.size <= 16384 && options.frames >= 1 && options.stride >= 1);
  clips::Scan scan = clips::scan_folder(options.folder, options.pictures);
  std::vector<Candidate>& found = scan.candidates;
  if (found.empty()) fail_empty(options, scan);
  const Cache cache(options);
  pixels_ = cache.load(found, frame_bytes(), options.max_bytes);
  from_cache_ = pixels_ != nullptr;
  if (from_cache_) {
    if (options.progress) options.progress(found.size(), found.size());
  } else {
    Store store(options, cache, found.size());
    Decoder(options, found, store).run();
    if (std::all_of(found.begin(), found.end(), [](const Candidate& c) { return c.frames == 0; })) fail_empty(options, scan);
    // What failed for want of rights or memory may work the next time.
    pixels_ = store.finish(found, std::none_of(found.begin(), found.end(), [](const Candidate& c) { return c.transient; }));
  }

  Hash64 hash;
  const uint64_t side = uint64_t(size_);
  hash.update(&side, sizeof side);
  std::vector<std::string> uneven;
  for (Candidate& c : found) {
    const int64_t first = stored_frames_;
    stored_frames_ += c.frames;
    if (c.reason.empty() && c.frames < span()) c.reason = too_short(c.frames, frames_, stride_, options.frames_flag);
    if (!c.reason.empty()) {
      if (options.strict) fail_strict(options, c);
      failures_.push_back({std::move(c.path), std::move(c.reason)});
      continue;
    }
    const uint64_t parts[2] = {uint64_t(c.frames), c.hash};
    hash.update(parts, sizeof parts);
    if (c.uneven) uneven.push_back(c.path);
    clips_.push_back({first, c.frames, c.fps});
    names_.push_back(std::move(c.path));
  }
  fingerprint_ = hash.value();
  if (names_.empty())
    fail("{}: none of the {} clips can be used; the first: {}: {}", options.folder.string(), found.size(), failures_[0].path, failures_[0].reason);
  if (options.classes)
    classes_ = index_classes(names_, options.folder, "clip");
  else
    classes_.labels.assign(names_.size(), 0);
  notes_ = classes_.notes;
  if (!uneven.empty())
    notes_.push_back(fmt::format("{} of {} clips have frames at an uneven rate, such as {}: they are taken as they are stored, so motion is uneven too",
                                 uneven.size(), names_.size(), printable(uneven[0])));
}

int64_t ClipDataset::total_frames() const {
  int64_t n = 0;
  for (const Clip& c : clips_) n += c.frames;
  return n;
}

int64_t ClipDataset::windows() const { return total_frames() - int64_t(count()) * (span() - 1); }

void ClipDataset::read(size_t i, int64_t first_frame, int64_t count, int64_t step, uint8_t* to) const {
  KILN_ASSERT(i < clips_.size() && first_frame >= 0 && count >= 1 && step >= 1 && first_frame + (count - 1) * step < clips_[i].frames);
  const uint64_t bytes = frame_bytes(), at = uint64_t(clips_[i].first + first_frame) * bytes;
  if (step == 1) return pixels_->read(at, to, size_t(uint64_t(count) * bytes));
  for (int64_t k = 0; k < count; k++) pixels_->read(at + uint64_t(k * step) * bytes, to + uint64_t(k) * bytes, bytes);
}

std::vector<Picture> ClipDataset::pictures(size_t i, int64_t first_frame, int64_t count, int64_t step) const {
  std::vector<Picture> out;
  for (int64_t k = 0; k < count; k++) {
    Picture p{size_, size_, std::vector<uint8_t>(frame_bytes())};
    read(i, first_frame + k * step, 1, 1, p.rgb.data());
    out.push_back(std::move(p));
  }
  return out;
}

bool ClipDataset::in_memory() const { return pixels_->data() != nullptr; }

std::shared_ptr<void> ClipDataset::memory() const {
  KILN_ASSERT(in_memory());
  return {pixels_, pixels_->data()};
}

std::string ClipDataset::description() const {
  const auto [low, high] = std::minmax_element(clips_.begin(), clips_.end(), [](const Clip& a, const Clip& b) { return a.frames < b.frames; });
  std::string text = fmt::format("{} clip{}, {} frames ({}), {} windows of {}", count(), count() == 1 ? "" : "s", total_frames(),
                                 low->frames == high->frames ? fmt::format("{} a clip", low->frames) : fmt::format("{} to {} a clip", low->frames, high->frames),
                                 windows(), frames_);
  if (stride_ > 1) text += fmt::format(" frames, every {} used", stride_);
  if (!failures_.empty()) text += fmt::format("; left out: {}", failures_.size());
  return text;
}

}  // namespace kiln
