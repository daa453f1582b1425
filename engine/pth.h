// PyTorch's .pth files: state dicts and the containers around them, read with no Python and without executing anything.
//
// A .pth is a pickle (a program for a small stack machine) beside the raw numbers of its tensors. Both forms are read: a zip
// with one entry per storage (PyTorch 1.6 on), and the older run of pickles with the storages behind it. The machine here knows
// the opcodes and the few classes that state dicts are made of; any other is refused by its name. Nothing is called.
//
// What comes out is a tree of PthValue. A node that has been put into another is never changed again, so that the tree has no
// cycles; it is at most kPthDepth deep.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kiln {

constexpr int kPthDepth = 64;

/// The numbers that tensors are views of. dtype as in safetensors: "F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8",
/// "BOOL".
struct PthStorage {
  std::string dtype;
  int64_t count = 0;
  std::shared_ptr<const void> owner;  ///< keeps data alive
  const std::byte* data = nullptr;    ///< count elements, not aligned
};

/// A view of a storage, checked to lie inside it. Strides and offset in elements.
struct PthTensor {
  std::vector<int64_t> shape, strides;
  int64_t offset = 0;
  std::shared_ptr<const PthStorage> storage;

  int64_t count() const;
  const std::string& dtype() const { return storage->dtype; }
  /// The elements in row-major order, whatever the strides; any type is converted (F64 and I64 are rounded).
  std::vector<float> floats() const;
  std::vector<int64_t> integers() const;  ///< of an integer or BOOL tensor
  /// A tensor that owns its numbers. floats.size() must be the shape's product.
  static PthTensor of(const std::vector<int64_t>& shape, const std::vector<float>& floats);
  static PthTensor of_integer(int64_t value);  ///< a scalar I64
};

struct PthNode;
using PthValue = std::shared_ptr<PthNode>;

struct PthNode {
  enum class Kind : uint8_t { none, boolean, integer, real, text, list, tuple, dict, tensor };
  Kind kind = Kind::none;
  int64_t integer = 0;  ///< also of a boolean
  double real = 0;
  std::string text;
  std::vector<PthValue> items;  ///< of a list or tuple; of a dict key, value, key, value, ... in order
  PthTensor tensor;
  int depth = 0;        ///< of the containers below; for the reader
  bool sealed = false;  ///< inside another one; for the reader

  /// A dict's value under a text or an integer key; null if there is none, or if this is no dict.
  PthValue find(std::string_view key) const;
  PthValue find(int64_t key) const;
  /// "dict", "tensor", ...
  const char* kind_name() const;

  static PthValue none();
  static PthValue of(bool value);
  static PthValue of(int64_t value);
  static PthValue of(double value);
  static PthValue of(std::string value);
  static PthValue of(const char* value) { return of(std::string(value)); }
  static PthValue of(PthTensor value);
  static PthValue list(std::vector<PthValue> items = {}, Kind kind = Kind::list);
  static PthValue dict() { return list({}, Kind::dict); }
  /// Appends to a dict that is being made.
  void set(PthValue key, PthValue value);
  void set(const std::string& key, PthValue value) { set(of(key), std::move(value)); }
};

/// Reads a file. Every Error begins with the path: not a .pth, cut short, a refused opcode or class (by name), a tensor outside
/// of its storage, ...
PthValue read_pth(const std::filesystem::path& path);
/// From memory; `name` stands for the path in errors.
PthValue read_pth(std::span<const std::byte> bytes, const std::string& name);

/// Writes the zip form, which torch.load reads with weights_only=True too. Dicts are plain dicts; equal values give equal bytes;
/// whole or not there (engine/file.h). Throws Error.
void write_pth(const std::filesystem::path& path, const PthNode& root);

}  // namespace kiln
