#include "engine/dataset.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <mutex>
#include <thread>

#include "engine/dataset_cache.h"
#include "engine/error.h"
#include "engine/file.h"
#include "engine/hash.h"
#include "engine/picture_codec.h"

namespace fs = std::filesystem;

namespace kiln {
namespace {

using dataset::Cache;
using dataset::Candidate;
using dataset::PixelStore;

// Pixels being decoded at one time, over all threads; each takes up to about 12 bytes (a progressive JPEG's
// coefficients, the picture, its turned copy). A picture with more is decoded alone.
constexpr uint64_t kPixelsInFlight = 128'000'000;

// Where a picture's header ends at the latest, but for odd ones: EXIF with its preview and a colour profile come before it.
constexpr uint64_t kHeaderBytes = 1 << 20;

size_t decoding_threads(const DatasetOptions& options) {
  return options.threads > 0 ? static_cast<size_t>(options.threads) : std::max(1u, std::thread::hardware_concurrency());
}

/// Decodes candidate i into slot i of `pixels`, or sets its reason. Threads take candidates in order, so that when a
/// strict run stops at a broken one, all before it have been looked at.
class Decoder {
 public:
  Decoder(const DatasetOptions& options, std::vector<Candidate>& candidates, PixelStore& pixels)
      : options_(options), candidates_(candidates), pixels_(pixels), stop_(candidates.size()) {}

  void run() {
    const size_t total = candidates_.size();
    running_ = std::min(total, decoding_threads(options_));
    std::vector<std::jthread> threads;
    struct Stopper {  // if the callback throws, the threads end soon and are joined
      std::atomic<size_t>& stop;
      ~Stopper() { stop = 0; }
    };
    for (size_t i = running_; i > 0; --i) threads.emplace_back([this] { work(); });
    const Stopper stopper{stop_};
    std::unique_lock lock(mutex_);
    while (running_ > 0) {
      changed_.wait_for(lock, std::chrono::milliseconds(100));
      if (running_ == 0) break;
      lock.unlock();
      if (options_.progress) options_.progress(done_, total);
      lock.lock();
    }
    lock.unlock();
    if (trouble_) std::rethrow_exception(trouble_);
    if (options_.progress) options_.progress(done_, total);
  }

 private:
  void work() {
    for (size_t i = next_++; i < stop_; i = next_++) {
      if (candidates_[i].reason.empty())
        decode(candidates_[i], i);
      ++done_;
      if (options_.strict && !candidates_[i].reason.empty()) {
        size_t stop = stop_;
        while (i + 1 < stop && !stop_.compare_exchange_weak(stop, i + 1)) {
        }
      }
    }
    const std::lock_guard lock(mutex_);
    if (--running_ == 0) changed_.notify_all();
  }

  void decode(Candidate& c, size_t slot) {
    const fs::path path = options_.folder / c.path;
    try {
      const std::vector<uint8_t> file = read_file(path, codec::kMaxFileBytes);
      const Gate gate(*this, codec::size_or_broken(file).pixels());
      const Picture picture = codec::decode_or_broken(file, options_.background);
      const Picture fitted = fit_picture(picture, options_.size, options_.fit, options_.background);
      pixels_.write(slot * fitted.rgb.size(), fitted.rgb.data(), fitted.rgb.size());
    } catch (const WriteError&) {  // not the picture's fault: it ends the whole
      const std::lock_guard lock(mutex_);
      trouble_ = std::current_exception();
      stop_ = 0;
    } catch (const codec::Broken& broken) {
      c.reason = broken.reason;
    } catch (const std::bad_alloc&) {
      c.reason = "not enough memory to decode it";
      c.transient = true;
    } catch (const std::exception& e) {  // read_file
      const std::string prefix = path.string() + ": ", text = e.what();
      c.reason = text.starts_with(prefix) ? text.substr(prefix.size()) : text;
      c.transient = true;
    }
  }

  /// Waits until there is room for that many pixels.
  struct Gate {
    Decoder& decoder;
    uint64_t pixels;
    Gate(Decoder& d, uint64_t n) : decoder(d), pixels(n) {
      std::unique_lock lock(d.mutex_);
      d.room_.wait(lock, [&] { return d.in_flight_ == 0 || d.in_flight_ + n <= kPixelsInFlight; });
      d.in_flight_ += n;
    }
    ~Gate() {
      const std::lock_guard lock(decoder.mutex_);
      decoder.in_flight_ -= pixels;
      decoder.room_.notify_all();
    }
  };

  const DatasetOptions& options_;
  std::vector<Candidate>& candidates_;
  PixelStore& pixels_;
  std::atomic<size_t> next_{0}, done_{0}, stop_;
  std::mutex mutex_;
  std::condition_variable changed_, room_;
  std::exception_ptr trouble_;
  uint64_t in_flight_ = 0;  // guarded by mutex_, as are running_ and trouble_
  size_t running_ = 0;
};

[[noreturn]] void fail_strict(const DatasetOptions& options, const Candidate& c) {
  fail("{}: {}; repair or remove it, or let broken pictures be left out (no --strict)",
       (options.folder / c.path).string(), c.reason);
}

[[noreturn]] void fail_empty(const DatasetOptions& options, const dataset::Scan& scan) {
  std::string found;
  if (!scan.candidates.empty()) {
    const Candidate& first = scan.candidates.front();
    found = fmt::format("none of the {} picture files can be used; the first: {}: {}", scan.candidates.size(),
                        first.path, first.reason);
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
  fail("{}: no pictures here: looked for jpg, jpeg, png, bmp, tga and webp files in it and the folders below; {}",
       options.folder.string(), found);
}

/// Moves the slots of usable candidates together. Returns how many there are.
size_t compact(const std::vector<Candidate>& candidates, PixelStore& pixels, size_t picture_bytes) {
  size_t kept = 0;
  std::vector<uint8_t> picture(picture_bytes);
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (!candidates[i].reason.empty()) continue;
    if (kept != i) {
      pixels.read(i * picture_bytes, picture.data(), picture_bytes);
      pixels.write(kept * picture_bytes, picture.data(), picture_bytes);
    }
    ++kept;
  }
  return kept;
}

/// Decodes everything, into memory or, if that would be too much, into a file in the cache folder.
Cache::Found decode_all(const DatasetOptions& options, const Cache& cache, dataset::Scan& scan, size_t picture_bytes) {
  const size_t bytes = scan.candidates.size() * picture_bytes;
  std::unique_ptr<AtomicFile> file;
  if (bytes > options.max_bytes) {
    if (options.cache_folder.empty()) {
      fail(
          "{}: its {} pictures need {} at {}x{} pixels, more than the {} that they may take in memory; allow the cache, "
          "where they are kept in a file (no --no-cache), choose a smaller --size or a higher --picture-memory",
          options.folder.string(), scan.candidates.size(), human_bytes(bytes), options.size, options.size,
          human_bytes(options.max_bytes));
    }
    std::error_code ignored;
    fs::create_directories(options.cache_folder, ignored);  // AtomicFile says why if it is not there
    file = std::make_unique<AtomicFile>(cache.path(), bytes);
    file->allocate(bytes);  // a full disk is an Error now, not in the middle
  }
  const std::shared_ptr<PixelStore> pixels =
      file ? PixelStore::in_file(file->descriptor(), cache.path().string()) : PixelStore::in_memory(bytes);
  if (!pixels)
    fail("not enough memory for {} pictures ({}); choose a smaller size", scan.candidates.size(), human_bytes(bytes));

  Decoder(options, scan.candidates, *pixels).run();
  bool transient = false;
  for (const Candidate& c : scan.candidates) {
    if (options.strict && !c.reason.empty()) fail_strict(options, c);
    transient = transient || c.transient;
  }
  const uint64_t kept_bytes = compact(scan.candidates, *pixels, picture_bytes) * picture_bytes;
  if (kept_bytes == 0) fail_empty(options, scan);
  Hash64 pixel_hash, fingerprint = dataset::fingerprint_of_shape(kept_bytes / picture_bytes, options.size);
  pixels->hash(kept_bytes, {&pixel_hash, &fingerprint});
  const Cache::Found found{pixels, {}, fingerprint.value()};
  if (transient) return found;  // what failed for want of rights or memory may work the next time
  if (!file) {
    cache.store(scan.candidates, pixels->data(), kept_bytes, pixel_hash.value());
  } else if (ftruncate(file->descriptor(), static_cast<off_t>(kept_bytes)) == 0 &&
             lseek(file->descriptor(), 0, SEEK_END) == static_cast<off_t>(kept_bytes)) {
    try {
      cache.finish(*file, scan.candidates, kept_bytes, pixel_hash.value());
    } catch (const Error&) {
      // The file stays good without a name; only the next run has to decode again.
    }
  }
  return found;
}

}  // namespace

uint64_t default_picture_memory() {
  const uint64_t all = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  return std::min(all / 4, uint64_t{4} << 30);
}

DatasetSurvey survey_pictures(const DatasetOptions& options) {
  const dataset::Scan scan = dataset::scan_folder(options.folder);
  std::vector<std::pair<uint64_t, uint64_t>> needs;  // bytes and pixels of each
  for (const Candidate& c : scan.candidates) try {
      std::vector<uint8_t> start(std::min(c.bytes, kHeaderBytes));
      std::ifstream f(options.folder / c.path, std::ios::binary);
      if (!f.read(reinterpret_cast<char*>(start.data()), static_cast<std::streamsize>(start.size()))) continue;
      needs.emplace_back(c.bytes + codec::decoding_bytes(start), codec::size_or_broken(start).pixels());
    } catch (const codec::Broken&) {  // it will be left out, or is uncompressed and longer than what was read
      if (c.bytes > kHeaderBytes) needs.emplace_back(c.bytes * 10 / 3, c.bytes / 3);
    }
  // The largest ones at once, as far as the decoder lets them.
  std::sort(needs.rbegin(), needs.rend());
  DatasetSurvey s{scan.candidates.size(), 0, {}};
  for (const Candidate& c : scan.candidates) s.names.push_back(c.path);
  uint64_t pixels = 0;
  for (size_t i = 0, most = decoding_threads(options); i < std::min(needs.size(), most); i++) {
    pixels += needs[i].second;
    if (i > 0 && pixels > kPixelsInFlight) break;
    s.decoding_bytes += needs[i].first;
  }
  return s;
}

fs::path default_cache_folder() {
  const char* xdg = std::getenv("XDG_CACHE_HOME");
  if (xdg != nullptr && *xdg == '/') return fs::path(xdg) / "kiln";  // the specification: a relative path is ignored
  const char* home = std::getenv("HOME");
  return home != nullptr && *home == '/' ? fs::path(home) / ".cache" / "kiln" : fs::path();
}

Dataset::Dataset(const DatasetOptions& options) : size_(options.size) {
  KILN_ASSERT(options.size >= 1 && options.size <= 16384);
  dataset::Scan scan = dataset::scan_folder(options.folder);
  if (scan.candidates.empty()) fail_empty(options, scan);
  const Cache cache(options);
  Cache::Found found = cache.load(scan.candidates, size_, options.max_bytes);
  from_cache_ = found.pixels != nullptr;
  if (from_cache_) {
    for (size_t i = 0; i < scan.candidates.size(); ++i) scan.candidates[i].reason = std::move(found.reasons[i]);
    if (options.progress) options.progress(scan.candidates.size(), scan.candidates.size());
  } else {
    found = decode_all(options, cache, scan, picture_bytes());
  }
  pixels_ = std::move(found.pixels);
  fingerprint_ = found.fingerprint;
  for (Candidate& c : scan.candidates) {
    if (c.reason.empty()) {
      names_.push_back(std::move(c.path));
    } else if (options.strict) {
      fail_strict(options, c);
    } else {
      failures_.push_back({std::move(c.path), std::move(c.reason)});
    }
  }
}

bool Dataset::in_memory() const { return pixels_->data() != nullptr; }

void Dataset::read(size_t i, uint8_t* to) const {
  KILN_ASSERT(i < count());
  pixels_->read(i * picture_bytes(), to, picture_bytes());
}

const uint8_t* Dataset::pixels(size_t i) const {
  KILN_ASSERT(in_memory());
  return pixels_->data() + i * picture_bytes();
}

std::shared_ptr<void> Dataset::memory() const {
  KILN_ASSERT(in_memory());
  return {pixels_, pixels_->data()};
}

}  // namespace kiln
