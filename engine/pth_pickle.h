// Inside of pth.cpp: the machine that runs the part of the pickle language that state dicts are written in.
#pragma once
#include <functional>
#include <span>
#include <string>

#include "engine/pth.h"

namespace kiln::pth {

/// What a tensor's persistent id says: ('storage', class, key, location, count[, view]).
struct StorageId {
  std::string dtype, key;
  int64_t count = 0;
  std::string view_key;  ///< old files only: a named part of the storage
  int64_t view_offset = 0, view_count = 0;
};

/// Finds or makes the storage of an id; called once for each use.
using FindStorage = std::function<std::shared_ptr<const PthStorage>(const StorageId&)>;

/// Runs one pickle from the front of `bytes`, which then begins behind it. Throws Error beginning with `name`.
PthValue run_pickle(std::span<const std::byte>& bytes, const std::string& name, const FindStorage& find);

/// The reverse, in protocol 2. Each tensor gets the number that store() returns as its storage's key; it must be contiguous.
std::string write_pickle(const PthNode& root, const std::function<int64_t(const PthTensor&)>& store);

int64_t element_bytes(const std::string& dtype);

}  // namespace kiln::pth
