#include "engine/dataset_cache.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <string_view>

#include "engine/error.h"
#include "engine/hash.h"

namespace fs = std::filesystem;

namespace kiln::dataset {
namespace {

// Raise this when decoding or fitting changes a byte: caches of older versions are then made again.
constexpr uint64_t kVersion = 1;
constexpr uint64_t kMagic = 0x3165686361636b6b;  // "kkcache1"

struct Footer {
  uint64_t magic, index_bytes, index_hash, pixel_bytes, pixel_hash, footer_hash;
};

void put(std::string& out, uint64_t value) { out.append(reinterpret_cast<const char*>(&value), sizeof value); }

void put(std::string& out, std::string_view text) {
  put(out, uint64_t{text.size()});
  out += text;
}

// Everything that was known of the candidates when they were decoded. A load builds the same text from the folder as it
// is now and compares: nothing in the file needs to be believed but the reasons.
std::string index_text(const std::string& key, const std::vector<Candidate>& candidates) {
  std::string out;
  put(out, key);
  put(out, candidates.size());
  for (const Candidate& c : candidates) {
    put(out, c.path);
    put(out, c.bytes);
    put(out, static_cast<uint64_t>(c.mtime_ns));
  }
  return out;
}

bool is_picture_name(std::string_view name, std::string& extension) {
  const size_t dot = name.rfind('.');
  extension = dot == std::string_view::npos ? "no extension" : std::string(name.substr(dot));
  for (char& c : extension) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  for (const char* known : {".jpg", ".jpeg", ".png", ".bmp", ".tga", ".webp"}) {
    if (extension == known) return true;
  }
  return false;
}

struct Scanner {
  Scan result;
  std::set<std::pair<uint64_t, uint64_t>> visited;  // folders, by device and inode: a loop of links ends here

  void folder(const fs::path& path, const std::string& prefix) {
    std::vector<std::string> names;
    std::error_code error;
    fs::directory_iterator it(path, error);
    for (; !error && it != fs::directory_iterator(); it.increment(error))
      names.push_back(it->path().filename().string());
    if (error) {
      result.candidates.push_back({prefix, 0, 0, fmt::format("cannot read the folder: {}", error.message()), true});
    }
    std::sort(names.begin(), names.end());
    for (const std::string& name : names) {
      if (name.front() != '.') entry(path / name, prefix + name, name);
    }
  }

  void entry(const fs::path& path, const std::string& relative, const std::string& name) {
    std::string extension;
    struct stat info;
    const bool there = stat(path.c_str(), &info) == 0;
    const int error = errno;
    if (there && S_ISDIR(info.st_mode)) {
      if (visited.insert({info.st_dev, info.st_ino}).second) folder(path, relative + "/");
      return;
    }
    if (!is_picture_name(name, extension)) {
      ++result.others[extension];
      return;
    }
    Candidate c;
    c.path = relative;
    if (!there) {
      c.reason = error == ENOENT ? "is a link to nothing" : fmt::format("cannot open: {}", std::strerror(error));
      c.transient = true;
    } else if (!S_ISREG(info.st_mode)) {
      c.reason = "is a device or a pipe, not a file";
      c.transient = true;
    } else {
      c.bytes = static_cast<uint64_t>(info.st_size);
      c.mtime_ns = int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec;
    }
    result.candidates.push_back(std::move(c));
  }
};

}  // namespace

Hash64 fingerprint_of_shape(uint64_t count, int size) {
  const uint64_t shape[2] = {count, static_cast<uint64_t>(size)};
  Hash64 hash;
  hash.update(shape, sizeof shape);
  return hash;
}

Scan scan_folder(const fs::path& folder) {
  struct stat info;
  if (stat(folder.c_str(), &info) != 0)
    fail("{}: cannot open: {}; name a folder of pictures", folder.string(), std::strerror(errno));
  if (!S_ISDIR(info.st_mode)) fail("{}: is not a folder; name the folder that holds the pictures", folder.string());
  Scanner scanner;
  scanner.visited.insert({info.st_dev, info.st_ino});
  scanner.folder(folder, "");
  auto& found = scanner.result.candidates;
  std::sort(found.begin(), found.end(), [](const Candidate& a, const Candidate& b) { return a.path < b.path; });
  return std::move(scanner.result);
}

Cache::Cache(const DatasetOptions& options) {
  if (options.cache_folder.empty()) return;
  std::error_code ignored;
  put(key_, kVersion);
  put(key_, fs::canonical(options.folder, ignored).string());
  put(key_, static_cast<uint64_t>(options.size));
  put(key_, fit_name(options.fit));
  put(key_, uint64_t{options.background.r} << 16 | uint64_t{options.background.g} << 8 | options.background.b);
  path_ = options.cache_folder / fmt::format("pictures-{:016x}.cache", hash_bytes(key_.data(), key_.size()));
}

Cache::Found Cache::load(const std::vector<Candidate>& candidates, int size, uint64_t max_bytes) const {
  if (path_.empty()) return {};
  const int fd = open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return {};
  struct Closer {
    int fd;
    ~Closer() { close(fd); }
  } closer{fd};
  struct stat info;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size <= off_t(sizeof(Footer))) return {};
  try {
    return load(PixelStore::in_file(fd, path_.string()), static_cast<uint64_t>(info.st_size), candidates, size, max_bytes);
  } catch (const Error&) {
    return {};  // it was cut while it was read, or the disk is failing: the pictures themselves are still there
  }
}

Cache::Found Cache::load(const std::shared_ptr<PixelStore>& file, uint64_t bytes, const std::vector<Candidate>& candidates,
                         int size, uint64_t max_bytes) const {
  Footer footer;
  file->read(bytes - sizeof footer, &footer, sizeof footer);
  if (footer.magic != kMagic || footer.footer_hash != hash_bytes(&footer, offsetof(Footer, footer_hash))) return {};
  if (footer.pixel_bytes > bytes || footer.index_bytes > bytes ||
      footer.pixel_bytes + footer.index_bytes + sizeof footer != bytes) {
    return {};
  }
  const std::string expected = index_text(key_, candidates);
  if (footer.index_bytes < expected.size()) return {};
  std::vector<uint8_t> text(footer.index_bytes);
  file->read(footer.pixel_bytes, text.data(), text.size());
  const uint8_t* index = text.data();
  if (std::memcmp(index, expected.data(), expected.size()) != 0) return {};
  if (footer.index_hash != hash_bytes(index, footer.index_bytes)) return {};

  Found found;
  const uint8_t *p = index + expected.size(), *end = index + footer.index_bytes;
  uint64_t usable = 0;
  for (size_t i = 0; i < candidates.size(); ++i) {
    uint64_t length = 0;
    if (end - p < 8) return {};
    std::memcpy(&length, p, 8);
    if (static_cast<uint64_t>(end - p) - 8 < length) return {};
    found.reasons.emplace_back(reinterpret_cast<const char*>(p) + 8, length);
    usable += length == 0;
    p += 8 + length;
  }
  if (p != end || usable * (uint64_t(size) * uint64_t(size) * 3) != footer.pixel_bytes || usable == 0) return {};
  std::shared_ptr<PixelStore> pixels;
  if (footer.pixel_bytes <= max_bytes) {
    pixels = PixelStore::in_memory(footer.pixel_bytes);
    if (pixels) file->read(0, pixels->data(), footer.pixel_bytes);
  }
  Hash64 check, fingerprint = fingerprint_of_shape(usable, size);
  (pixels ? pixels : file)->hash(footer.pixel_bytes, {&check, &fingerprint});
  if (footer.pixel_hash != check.value()) return {};
  found.fingerprint = fingerprint.value();
  found.pixels = pixels ? pixels : file;
  return found;
}

void Cache::finish(AtomicFile& file, const std::vector<Candidate>& candidates, uint64_t pixel_bytes,
                   uint64_t pixel_hash) const {
  std::string tail = index_text(key_, candidates);
  for (const Candidate& c : candidates) put(tail, c.reason);
  Footer footer{kMagic, tail.size(), hash_bytes(tail.data(), tail.size()), pixel_bytes, pixel_hash, 0};
  footer.footer_hash = hash_bytes(&footer, offsetof(Footer, footer_hash));
  tail.append(reinterpret_cast<const char*>(&footer), sizeof footer);
  file.write(tail.data(), tail.size());
  file.commit(false);  // a load checks every byte: no need to wait for the disk
}

bool Cache::store(const std::vector<Candidate>& candidates, const uint8_t* pixels, uint64_t pixel_bytes,
                  uint64_t pixel_hash) const {
  if (path_.empty()) return false;
  try {
    std::error_code ignored;
    fs::create_directories(path_.parent_path(), ignored);
    remove_leftovers(path_.parent_path(), 24 * 3600);
    AtomicFile file(path_, pixel_bytes);
    file.write(pixels, pixel_bytes);
    finish(file, candidates, pixel_bytes, pixel_hash);
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace kiln::dataset
