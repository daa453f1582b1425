// Files that survive a kill, a power cut and a full disk.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "engine/error.h"

namespace kiln {

/// A file could not be written (no space, no rights, ...): its text names the file and the remedy.
class WriteError : public Error {
 public:
  using Error::Error;
};

/// The bytes of a regular file. Throws Error ("PATH: cannot open: ...", "is a folder", "larger than ...").
std::vector<uint8_t> read_file(const std::filesystem::path& path, uint64_t max_bytes);

/// "1.50 GiB", "12.0 KiB", "7 bytes".
std::string human_bytes(uint64_t bytes);

/// Appends text to a file, which is made if it is not there. Whole or not at all: what a full disk cut short is taken back.
/// Throws WriteError.
void append_text(const std::filesystem::path& path, const std::string& text);

/// Removes temporary files that an AtomicFile of a killed process left in a folder (a kill in the moment between naming and
/// renaming, or a file system without nameless files). Only those untouched for `min_age_seconds`, since a process may be
/// writing: 0 where the caller is known to be the only writer. What cannot be removed stays.
void remove_leftovers(const std::filesystem::path& folder, double min_age_seconds);

/// A file that appears under its name only when it is whole. The bytes go to a nameless file in the same folder (or,
/// where the file system has none, to a hidden temporary name); commit() syncs it and renames it over `path`. Without
/// commit() nothing is left behind, not even by a kill. Two writers of one path do not harm each other: the last commit
/// wins. Every failure throws WriteError that names `path`, what it needed, what is free, and the remedy.
class AtomicFile {
 public:
  /// `expected_bytes`: the size that it will have, for the text of an error; 0: not known.
  explicit AtomicFile(std::filesystem::path path, uint64_t expected_bytes = 0);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t bytes);
  /// Takes disk space for the whole file now, so that a later write through a mapping cannot fail.
  void allocate(uint64_t bytes);
  /// Gives the file its name, for good: file and folder are synced. sync = false: for a file that is checked when it is
  /// read and can be made again.
  void commit(bool sync = true);
  int descriptor() const { return fd_; }

 private:
  [[noreturn]] void fail_write(int error);
  std::filesystem::path folder() const;

  std::filesystem::path path_, temporary_;  // temporary_ is empty while the file has no name
  uint64_t expected_, written_ = 0;
  int fd_ = -1;
};

}  // namespace kiln
