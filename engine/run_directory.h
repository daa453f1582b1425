// A run's directory: config.json, log.jsonl (one flat object a line), samples/000400.png, checkpoints/000400.safetensors.
#pragma once
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace kiln {

class RunDirectory {
 public:
  /// Starts a new run: the folder must not exist, be empty, or not hold a run. Throws kiln::Error with the remedy.
  static RunDirectory create(const std::filesystem::path& path);
  /// Takes back what create() made and the run wrote before it had anything to keep: config.json, the sheet of real pictures, and
  /// the folders that were not there and are empty. So a mistake can be corrected and the same command given again.
  void withdraw() const;
  /// Opens an existing run. Throws kiln::Error if there is none.
  static RunDirectory open(const std::filesystem::path& path);
  /// None: for a rank that leaves all files to another.
  RunDirectory() = default;
  /// For who will write: makes this process the run's only writer until it ends, however it ends, and removes the temporary
  /// files that a killed one left. Throws kiln::Error if another process trains here.
  void claim();

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path sample(int64_t step, const std::string& suffix = "") const;  // samples/000400suffix.png
  std::filesystem::path checkpoint(int64_t step) const;                              // checkpoints/000400.safetensors
  /// Steps of the checkpoints that are there, ascending.
  std::vector<int64_t> checkpoints() const;
  /// Keeps the newest `keep` checkpoints (0: all) and the one of step `best` (if any); deletes the others.
  void prune(int keep, std::optional<int64_t> best) const;

  /// Appends one line to log.jsonl: a flat JSON object. Throws WriteError if it cannot be written.
  void log(const std::string& json_object);
  /// Drops the lines of steps after `step` (a run that was killed after its last checkpoint) and those with "at_stop", so that
  /// the log of a resumed run is the log of an unbroken one.
  void trim_log(int64_t step);
  /// Replaces a small text file in one go.
  void write_text(const std::string& name, const std::string& text) const;
  std::string read_text(const std::string& name) const;

 private:
  explicit RunDirectory(std::filesystem::path path) : path_(std::move(path)) {}
  std::filesystem::path path_;
  std::vector<std::filesystem::path> made_;  // folders that create() made, outer ones first
  std::shared_ptr<void> lock_;  // held while any copy of this object lives
};

}  // namespace kiln
