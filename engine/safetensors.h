// The safetensors format, both ways: named arrays and a map of strings in one file, readable by every framework.
//
// The file: 8 bytes little-endian header length, a JSON header, the arrays' bytes one after the other. kiln pads the
// header with spaces so that the data begins at a multiple of 64, and keeps two hashes in the metadata, so that damage
// is found when the file is loaded: "kiln.data_hash" over the data, "kiln.header_hash" over the header with its own
// digits as zeros (XXH64, 16 hexadecimal digits). Files of other programs have neither and are read all the same.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kiln {

/// What to write. dtype: "F64", "F32", "F16", "BF16", "I64", "I32" or "U8"; data: row-major, `bytes` of them, owned by
/// the caller until write_safetensors returns; null only when bytes is 0.
struct TensorEntry {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;  ///< empty: a scalar
  const void* data = nullptr;
  size_t bytes = 0;
};

/// Bytes of one element; 0 for a type that kiln does not know.
size_t safetensors_dtype_bytes(std::string_view dtype);

/// Writes a file that is whole or not there (engine/file.h), synced to disk. Equal arguments give equal bytes: tensors
/// in the order given, metadata sorted. Throws Error naming the path, what is needed, what is free, and the remedy.
void write_safetensors(const std::filesystem::path& path, const std::vector<TensorEntry>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

/// A tensor in a file that is open. data points into the file: it need not be aligned, copy it out by memcpy.
struct TensorView {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;
  size_t bytes = 0;
};

/// An open file, mapped into memory, checked whole when it is opened. Copies share the mapping. Every Error begins with
/// the path and says what is wrong (empty, cut short, not a safetensors file, damaged header, altered or damaged data).
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);
  /// From memory, which must outlive the object; `name` stands for the path in errors.
  static SafetensorsFile from_memory(std::span<const std::byte> bytes, std::string name);

  /// Null if there is none.
  const TensorView* find(std::string_view name) const;
  /// Throws Error that names the file and the tensor.
  const TensorView& at(std::string_view name) const;
  /// In the order of the data.
  const std::vector<TensorView>& tensors() const { return tensors_; }
  std::vector<std::string> names() const;
  /// Without the two hashes.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::string& path() const { return path_; }

 private:
  SafetensorsFile() = default;
  void parse(std::span<const std::byte> bytes);

  std::string path_;
  std::shared_ptr<const void> mapping_;  // null when from memory
  std::vector<TensorView> tensors_;
  std::map<std::string, size_t, std::less<>> index_;  // name -> position in tensors_
  std::map<std::string, std::string> metadata_;
};

}  // namespace kiln
