#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "engine/clip_scan.h"
#include "engine/error.h"
#include "engine/hash.h"
#include "engine/video.h"

namespace fs = std::filesystem;

namespace kiln::clips {
namespace {

using dataset::PixelStore;

// Raise this when decoding or fitting changes a byte: caches of older versions are then made again.
constexpr uint64_t kVersion = 1;
constexpr uint64_t kMagic = 0x3170696c636b6b31;  // "1kkclip1"

struct Footer {
  uint64_t magic, index_bytes, index_hash, pixel_bytes, footer_hash;
};

void put(std::string& out, uint64_t value) { out.append(reinterpret_cast<const char*>(&value), sizeof value); }

void put(std::string& out, std::string_view text) {
  put(out, uint64_t{text.size()});
  out += text;
}

/// Everything that was known of the candidates before they were decoded: a load builds the same text from the folder as it is.
std::string index_text(const std::string& key, const std::vector<Candidate>& candidates) {
  std::string out;
  put(out, key);
  put(out, candidates.size());
  for (const Candidate& c : candidates) {
    put(out, c.path);
    put(out, uint64_t(c.kind));
    put(out, c.parts.size());
    for (const Part& p : c.parts) {
      put(out, p.name);
      put(out, p.bytes);
      put(out, uint64_t(p.mtime_ns));
    }
  }
  return out;
}

std::string results_text(const std::vector<Candidate>& candidates) {
  std::string out;
  for (const Candidate& c : candidates) {
    uint64_t fps;
    std::memcpy(&fps, &c.fps, sizeof fps);
    put(out, c.reason);
    put(out, uint64_t(c.frames));
    put(out, fps);
    put(out, uint64_t{c.uneven});
    put(out, c.hash);
  }
  return out;
}

/// Reads what results_text wrote; false where it does not fit.
bool take_results(const uint8_t* p, const uint8_t* end, std::vector<Candidate>& candidates) {
  const auto take = [&](uint64_t& v) {
    if (end - p < 8) return false;
    std::memcpy(&v, p, 8);
    p += 8;
    return true;
  };
  for (Candidate& c : candidates) {
    uint64_t length, frames, fps, uneven;
    if (!take(length) || uint64_t(end - p) < length) return false;
    c.reason.assign(reinterpret_cast<const char*>(p), length);
    p += length;
    if (!take(frames) || !take(fps) || !take(uneven) || !take(c.hash)) return false;
    c.frames = int64_t(frames);
    std::memcpy(&c.fps, &fps, sizeof fps);
    c.uneven = uneven != 0;
  }
  return p == end;
}

std::shared_ptr<PixelStore> load_file(const std::shared_ptr<PixelStore>& file, uint64_t bytes, const std::string& key,
                                      std::vector<Candidate>& candidates, size_t frame_bytes, uint64_t max_bytes) {
  Footer footer;
  file->read(bytes - sizeof footer, &footer, sizeof footer);
  if (footer.magic != kMagic || footer.footer_hash != hash_bytes(&footer, offsetof(Footer, footer_hash))) return nullptr;
  if (footer.pixel_bytes > bytes || footer.index_bytes > bytes || footer.pixel_bytes + footer.index_bytes + sizeof footer != bytes) return nullptr;
  const std::string expected = index_text(key, candidates);
  if (footer.index_bytes < expected.size()) return nullptr;
  std::vector<uint8_t> text(footer.index_bytes);
  file->read(footer.pixel_bytes, text.data(), text.size());
  if (std::memcmp(text.data(), expected.data(), expected.size()) != 0 || footer.index_hash != hash_bytes(text.data(), text.size())) return nullptr;
  std::vector<Candidate> known = candidates;
  if (!take_results(text.data() + expected.size(), text.data() + text.size(), known)) return nullptr;
  uint64_t frames = 0;
  for (const Candidate& c : known) frames += uint64_t(c.frames);
  if (frames == 0 || frames * frame_bytes != footer.pixel_bytes) return nullptr;
  std::shared_ptr<PixelStore> pixels;
  if (footer.pixel_bytes <= max_bytes && (pixels = PixelStore::in_memory(footer.pixel_bytes))) file->read(0, pixels->data(), footer.pixel_bytes);
  const PixelStore& store = pixels ? *pixels : *file;
  uint64_t at = 0;
  std::vector<uint8_t> piece(pixels ? 0 : 1 << 20);
  for (const Candidate& c : known) {  // every byte is checked
    Hash64 check;
    const uint64_t end = at + uint64_t(c.frames) * frame_bytes;
    if (pixels) {
      check.update(store.data() + at, end - at);
    } else {
      for (uint64_t b = at; b < end; b += piece.size()) {
        const size_t n = size_t(std::min<uint64_t>(piece.size(), end - b));
        store.read(b, piece.data(), n);
        check.update(piece.data(), n);
      }
    }
    if (c.frames > 0 && check.value() != c.hash) return nullptr;
    at = end;
  }
  candidates = std::move(known);
  return pixels ? pixels : file;
}

}  // namespace

Cache::Cache(const ClipDatasetOptions& o) {
  if (o.cache_folder.empty()) return;
  std::error_code ignored;
  put(key_, kVersion);
  put(key_, fs::canonical(o.folder, ignored).string());
  put(key_, uint64_t(o.size));
  put(key_, fit_name(o.fit));
  put(key_, uint64_t{o.background.r} << 16 | uint64_t{o.background.g} << 8 | o.background.b);
  put(key_, clip_pictures_name(o.pictures));
  put(key_, uint64_t{video_compiled_in()});
  path_ = o.cache_folder / fmt::format("clips-{:016x}.cache", hash_bytes(key_.data(), key_.size()));
}

std::shared_ptr<PixelStore> Cache::load(std::vector<Candidate>& candidates, size_t frame_bytes, uint64_t max_bytes) const {
  if (path_.empty()) return nullptr;
  const int fd = open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return nullptr;
  struct Closer {
    int fd;
    ~Closer() { close(fd); }
  } closer{fd};
  struct stat info;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size <= off_t(sizeof(Footer))) return nullptr;
  try {
    return load_file(PixelStore::in_file(fd, path_.string()), uint64_t(info.st_size), key_, candidates, frame_bytes, max_bytes);
  } catch (const Error&) {
    return nullptr;  // it was cut while it was read, or the disk is failing: the clips themselves are still there
  }
}

void Cache::finish(AtomicFile& file, const std::vector<Candidate>& candidates, uint64_t pixel_bytes) const {
  std::string tail = index_text(key_, candidates) + results_text(candidates);
  Footer footer{kMagic, tail.size(), hash_bytes(tail.data(), tail.size()), pixel_bytes, 0};
  footer.footer_hash = hash_bytes(&footer, offsetof(Footer, footer_hash));
  tail.append(reinterpret_cast<const char*>(&footer), sizeof footer);
  file.write(tail.data(), tail.size());
  file.commit(false);  // a load checks every byte: no need to wait for the disk
}

bool Cache::store(const std::vector<Candidate>& candidates, const uint8_t* pixels, uint64_t pixel_bytes) const {
  if (path_.empty()) return false;
  try {
    std::error_code ignored;
    fs::create_directories(path_.parent_path(), ignored);
    remove_leftovers(path_.parent_path(), 24 * 3600);
    AtomicFile file(path_, pixel_bytes);
    file.write(pixels, pixel_bytes);
    finish(file, candidates, pixel_bytes);
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace kiln::clips
