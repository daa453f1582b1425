#include "engine/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>

namespace kiln {
namespace {

std::string temporary_name(const std::filesystem::path& path) {
  static std::atomic<unsigned> counter{0};
  // Long names stay below the 255 bytes that a file system takes.
  return fmt::format(".{}.{}-{}.tmp", path.filename().string().substr(0, 200), getpid(), counter++);
}

/// What temporary_name makes: ".NAME.DIGITS-DIGITS.tmp".
bool is_temporary_name(const std::string& name) {
  if (!name.starts_with('.') || !name.ends_with(".tmp")) return false;
  size_t at = name.size() - 4;
  const auto digits = [&] {
    const size_t end = at;
    while (at > 0 && name[at - 1] >= '0' && name[at - 1] <= '9') --at;
    return at < end;
  };
  if (!digits() || at == 0 || name[--at] != '-') return false;
  return digits() && at > 2 && name[at - 1] == '.';
}

const char* remedy_for(int error) {
  return error == EFBIG    ? "raise the file size limit (ulimit -f)"
         : error == EDQUOT ? "free some of your disk quota or choose another folder"
         : error == ENOSPC ? "free some disk space or choose another folder"
                           : "check the disk or choose another folder";
}

}  // namespace

std::string human_bytes(uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} bytes", bytes);
  const char* units[] = {"KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes) / 1024;
  int unit = 0;
  for (; value >= 1024 && unit < 3; ++unit) value /= 1024;
  return fmt::format("{:.{}f} {}", value, value < 10 ? 2 : value < 100 ? 1 : 0, units[unit]);
}

std::vector<uint8_t> read_file(const std::filesystem::path& path, uint64_t max_bytes) {
  const std::string name = path.string();
  // O_NONBLOCK: a named pipe called x.jpg must not stop the program for ever.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) fail("{}: cannot open: {}", name, std::strerror(errno));
  struct Closer {
    int fd;
    ~Closer() { close(fd); }
  } closer{fd};
  struct stat info;
  if (fstat(fd, &info) != 0) fail("{}: cannot open: {}", name, std::strerror(errno));
  if (S_ISDIR(info.st_mode)) fail("{}: is a folder, not a file", name);
  if (!S_ISREG(info.st_mode)) fail("{}: is a device or a pipe, not a file", name);
  if (static_cast<uint64_t>(info.st_size) > max_bytes) {
    fail("{}: the file is too large: {}, at most {} are read", name, human_bytes(info.st_size), human_bytes(max_bytes));
  }
  std::vector<uint8_t> bytes(info.st_size);
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t got = read(fd, bytes.data() + done, bytes.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("{}: cannot read: {}", name, std::strerror(errno));
    if (got == 0) break;  // it was cut while we read it: the decoder will say so
    done += got;
  }
  bytes.resize(done);
  return bytes;
}

void append_text(const std::filesystem::path& path, const std::string& text) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  int error = fd < 0 ? errno : 0;
  const off_t before = error ? 0 : lseek(fd, 0, SEEK_END);
  for (size_t done = 0; !error && done < text.size();) {
    const ssize_t put = ::write(fd, text.data() + done, text.size() - done);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0)
      error = put < 0 ? errno : ENOSPC;
    else
      done += size_t(put);
  }
  if (error && fd >= 0 && ftruncate(fd, before) != 0) error = errno;
  if (fd >= 0 && close(fd) != 0 && !error) error = errno;  // network file systems report a full disk here
  if (error) throw WriteError(fmt::format("{}: cannot write: {}; {}", path.string(), std::strerror(error), remedy_for(error)));
}

void remove_leftovers(const std::filesystem::path& folder, double min_age_seconds) {
  namespace fs = std::filesystem;
  std::error_code error;
  std::vector<fs::path> found;
  for (fs::directory_iterator it(folder, error); !error && it != fs::directory_iterator(); it.increment(error)) {
    if (!is_temporary_name(it->path().filename().string())) continue;
    std::error_code gone;
    const auto age = fs::file_time_type::clock::now() - fs::last_write_time(it->path(), gone);
    if (!gone && std::chrono::duration<double>(age).count() >= min_age_seconds) found.push_back(it->path());
  }
  for (const fs::path& p : found) fs::remove(p, error);
}

AtomicFile::AtomicFile(std::filesystem::path path, uint64_t expected_bytes)
    : path_(std::move(path)), expected_(expected_bytes) {
  // commit() names the nameless file through /proc, which a bare chroot lacks.
  if (access("/proc/self/fd", X_OK) == 0) fd_ = open(folder().c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
  if (fd_ >= 0) return;
  temporary_ = folder() / temporary_name(path_);  // NFS and some FUSE file systems have no nameless files
  fd_ = open(temporary_.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0666);
  if (fd_ < 0) {
    const int error = errno;
    throw WriteError(fmt::format("{}: cannot write: {}; {}", path_.string(), std::strerror(error),
                                 error == ENOENT                       ? "make its folder first"
                                 : error == ENOSPC || error == EDQUOT ? remedy_for(error)
                                                                      : "choose a folder that you may write to"));
  }
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) close(fd_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

std::filesystem::path AtomicFile::folder() const {
  return path_.has_parent_path() ? path_.parent_path() : std::filesystem::path(".");
}

void AtomicFile::fail_write(int error) {
  std::string space;
  struct statvfs info;
  if (fstatvfs(fd_, &info) == 0) {
    const uint64_t free = static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
    const uint64_t needed = std::max(expected_, written_);
    // What the file took so far is given back.
    space = needed > 0
                ? fmt::format(" (needs {}, {} are free there)", human_bytes(needed), human_bytes(free + written_))
                : fmt::format(" ({} are free there)", human_bytes(free));
  }
  throw WriteError(fmt::format("{}: cannot write: {}{}; {}; what was there before is untouched", path_.string(),
                               std::strerror(error), space, remedy_for(error)));
}

void AtomicFile::write(const void* data, size_t bytes) {
  const auto* p = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t put = ::write(fd_, p, std::min<size_t>(bytes, size_t{1} << 30));  // Linux takes at most 2 GiB
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) fail_write(put < 0 ? errno : ENOSPC);
    p += put, bytes -= put, written_ += put;
  }
}

void AtomicFile::allocate(uint64_t bytes) {
  const int error = posix_fallocate(fd_, 0, static_cast<off_t>(bytes));
  if (error != 0) fail_write(error);
}

void AtomicFile::commit(bool sync) {
  if (sync && fsync(fd_) != 0) fail_write(errno);  // delayed allocation: the disk may turn out to be full only here
  if (temporary_.empty()) {
    // linkat cannot replace a file, so the nameless file gets a temporary name for the moment until the rename.
    const std::filesystem::path name = folder() / temporary_name(path_);
    if (linkat(AT_FDCWD, fmt::format("/proc/self/fd/{}", fd_).c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) !=
        0) {
      fail_write(errno);
    }
    temporary_ = name;
  }
  if (rename(temporary_.c_str(), path_.c_str()) != 0) fail_write(errno);
  temporary_.clear();
  if (!sync) return;
  const int folder_fd = open(folder().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder_fd >= 0) {
    fsync(folder_fd);  // a folder that cannot be synced (some network file systems) is no reason to lose the run
    close(folder_fd);
  }
}

}  // namespace kiln
