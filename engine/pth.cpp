#include "engine/pth.h"

#include <zip.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>

#include "engine/error.h"
#include "engine/file.h"
#include "engine/pth_pickle.h"
#include "kernels/exec/half.h"

namespace kiln {
namespace {

using pth::element_bytes;
using pth::StorageId;

constexpr uint64_t kMaxFileBytes = uint64_t{64} << 30;

struct ZipCloser {
  void operator()(zip_t* z) const { zip_discard(z); }
};
struct EntryCloser {
  void operator()(zip_file_t* f) const { zip_fclose(f); }
};

struct SourceFree {
  void operator()(zip_source_t* s) const { zip_source_free(s); }
};

/// A zip in memory.
class Zip {
 public:
  Zip(std::span<const std::byte> bytes, const std::string& name) : name_(name) {
    zip_error_t error;
    zip_error_init(&error);
    zip_source_t* source = zip_source_buffer_create(bytes.data(), bytes.size(), 0, &error);
    if (source) archive_.reset(zip_open_from_source(source, ZIP_RDONLY, &error));
    const std::string why = archive_ ? "" : zip_error_strerror(&error);
    if (source && !archive_) zip_source_free(source);
    zip_error_fini(&error);
    if (!archive_) fail("{}: its zip cannot be read ({}); download or copy it again", name_, why);
    for (zip_int64_t i = 0; i < zip_get_num_entries(archive_.get(), 0); i++) {
      const char* text = zip_get_name(archive_.get(), zip_uint64_t(i), ZIP_FL_ENC_RAW);
      const std::string entry = text ? text : "";
      if (entry == "data.pkl" || entry.ends_with("/data.pkl")) root_ = entry.substr(0, entry.size() - 8);
      index_[entry] = zip_uint64_t(i);
    }
    if (!index_.count(root_ + "data.pkl")) fail("{}: a zip, but not one of PyTorch's: it has no data.pkl", name_);
  }
  bool has(const std::string& entry) const { return index_.count(root_ + entry) > 0; }
  /// A whole entry. PyTorch does not compress: what does is refused, so that nothing is larger than the file.
  std::vector<std::byte> read(const std::string& entry) const {
    const auto at = index_.find(root_ + entry);
    if (at == index_.end()) fail("{}: its zip has no entry '{}'", name_, entry);
    zip_stat_t stat;
    zip_stat_init(&stat);
    if (zip_stat_index(archive_.get(), at->second, 0, &stat) != 0 || !(stat.valid & ZIP_STAT_SIZE) || !(stat.valid & ZIP_STAT_COMP_METHOD) ||
        !(stat.valid & ZIP_STAT_COMP_SIZE))
      fail("{}: entry '{}' of its zip cannot be read", name_, entry);
    if (stat.comp_method != ZIP_CM_STORE || stat.size != stat.comp_size)
      fail("{}: entry '{}' of its zip is compressed, which PyTorch's files never are: refused", name_, entry);
    const std::unique_ptr<zip_file_t, EntryCloser> file(zip_fopen_index(archive_.get(), at->second, 0));
    if (!file) fail("{}: entry '{}' of its zip cannot be opened ({})", name_, entry, zip_strerror(archive_.get()));
    std::vector<std::byte> out;
    // In pieces: a false size costs no memory that the file does not back.
    for (uint64_t done = 0; done < stat.size;) {
      const uint64_t piece = std::min<uint64_t>(stat.size - done, 1 << 24);
      out.resize(size_t(done + piece));
      const zip_int64_t got = zip_fread(file.get(), out.data() + done, piece);
      if (got <= 0) fail("{}: entry '{}' of its zip is cut short or damaged ({}); download or copy it again", name_, entry, zip_file_strerror(file.get()));
      done += uint64_t(got);
      out.resize(size_t(done));
    }
    // One byte more: the end is where the checksum is compared.
    std::byte rest;
    if (zip_fread(file.get(), &rest, 1) != 0) fail("{}: entry '{}' of its zip is damaged ({}); download or copy it again", name_, entry, zip_file_strerror(file.get()));
    return out;
  }

 private:
  std::string name_, root_;
  std::unique_ptr<zip_t, ZipCloser> archive_;
  std::map<std::string, zip_uint64_t> index_;
};

PthValue read_zip(std::span<const std::byte> bytes, const std::string& name) {
  const Zip zip(bytes, name);
  if (zip.has("byteorder")) {
    const auto order = zip.read("byteorder");
    if (std::string(reinterpret_cast<const char*>(order.data()), order.size()) != "little")
      fail("{}: written on a big-endian machine; load and save it again on a little-endian one", name);
  }
  if (zip.has("constants.pkl")) fail("{}: a TorchScript program, not a state dict; save the module's state_dict()", name);
  std::map<std::string, std::shared_ptr<const PthStorage>> found;
  const auto find = [&](const StorageId& id) {
    auto& storage = found[id.key];
    if (!storage) {
      const auto data = std::make_shared<const std::vector<std::byte>>(zip.read("data/" + id.key));
      if (uint64_t(id.count) > data->size() || data->size() != uint64_t(id.count) * uint64_t(element_bytes(id.dtype)))
        fail("{}: storage '{}' has {} bytes where {} elements of {} should be", name, id.key, data->size(), id.count, id.dtype);
      storage = std::make_shared<const PthStorage>(PthStorage{id.dtype, id.count, data, data->data()});
    }
    if (storage->dtype != id.dtype || storage->count != id.count) fail("{}: storage '{}' is used as two different types", name, id.key);
    return storage;
  };
  const std::vector<std::byte> pickle = zip.read("data.pkl");
  std::span<const std::byte> rest(pickle);
  return pth::run_pickle(rest, name, find);
}

// ---- the form of PyTorch before 1.6: magic number, version, machine, the object, keys of its storages, their bytes ---------

constexpr uint8_t kMagic[] = {0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.'};

PthValue read_legacy(std::span<const std::byte> bytes, const std::string& name) {
  const auto none = [&](const StorageId&) -> std::shared_ptr<const PthStorage> { fail("{}: a storage where none should be", name); };
  std::span<const std::byte> rest = bytes.subspan(sizeof kMagic);
  const PthValue version = pth::run_pickle(rest, name, none);
  if (version->kind != PthNode::Kind::integer || version->integer != 1001) fail("{}: a version of PyTorch's file format that is not known", name);
  const PthValue machine = pth::run_pickle(rest, name, none);
  const PthValue little = machine->find("little_endian");
  if (little && little->integer == 0) fail("{}: written on a big-endian machine; load and save it again on a little-endian one", name);

  // The bytes come last: what the tensors point at is filled in when they are found.
  struct Root {
    std::string dtype;
    int64_t count;
    std::shared_ptr<PthStorage> whole;
    std::vector<std::pair<std::shared_ptr<PthStorage>, int64_t>> views;
  };
  std::map<std::string, Root> roots;
  std::map<std::string, std::shared_ptr<PthStorage>> named;
  const auto find = [&](const StorageId& id) -> std::shared_ptr<const PthStorage> {
    auto [at, added] = roots.try_emplace(id.key, Root{id.dtype, id.count, std::make_shared<PthStorage>(PthStorage{id.dtype, id.count, nullptr, nullptr}), {}});
    Root& root = at->second;
    if (root.dtype != id.dtype || root.count != id.count) fail("{}: storage '{}' is used as two different types", name, id.key);
    if (id.view_key.empty()) return root.whole;
    auto& view = named[id.key + "/" + id.view_key];
    if (!view) {
      view = std::make_shared<PthStorage>(PthStorage{id.dtype, id.view_count, nullptr, nullptr});
      root.views.emplace_back(view, id.view_offset);
    }
    if (view->count != id.view_count) fail("{}: storage '{}' is used as two different types", name, id.key);
    return view;
  };
  const PthValue object = pth::run_pickle(rest, name, find);
  const PthValue keys = pth::run_pickle(rest, name, none);
  if (keys->kind != PthNode::Kind::list) fail("{}: the list of its storages is missing", name);
  size_t filled = 0;
  for (const PthValue& key : keys->items) {
    const auto at = roots.find(key->kind == PthNode::Kind::text ? key->text : std::to_string(key->integer));
    if (at == roots.end() || at->second.whole->data) fail("{}: a storage that no tensor uses, or one that is there twice", name);
    Root& root = at->second;
    int64_t count = 0;
    if (rest.size() < 8) fail("{}: cut short among its storages; download or copy it again", name);
    std::memcpy(&count, rest.data(), 8);
    rest = rest.subspan(8);
    const uint64_t element = uint64_t(element_bytes(root.dtype));
    if (count != root.count) fail("{}: storage '{}' has {} elements where {} should be", name, at->first, count, root.count);
    if (uint64_t(count) > rest.size() / element) fail("{}: cut short among its storages; download or copy it again", name);
    const size_t size = size_t(count) * size_t(element);
    const auto data = std::make_shared<const std::vector<std::byte>>(rest.begin(), rest.begin() + int64_t(size));
    rest = rest.subspan(size);
    root.whole->owner = data;
    root.whole->data = data->data();
    for (auto& [view, offset] : root.views) {
      view->owner = data;
      view->data = data->data() + size_t(offset) * element;
    }
    filled++;
  }
  if (filled != roots.size()) fail("{}: {} storages where its tensors use {}", name, filled, roots.size());
  return object;
}

template <class T>
T element(const std::byte* p) {
  T x;
  std::memcpy(&x, p, sizeof x);
  return x;
}

double number_at(const PthStorage& s, int64_t i) {
  const std::byte* p = s.data + i * element_bytes(s.dtype);
  if (s.dtype == "F32") return double(element<float>(p));
  if (s.dtype == "F64") return element<double>(p);
  if (s.dtype == "F16") return double(to_float(element<half_t>(p)));
  if (s.dtype == "BF16") return double(to_float(element<bf16_t>(p)));
  if (s.dtype == "I64") return double(element<int64_t>(p));
  if (s.dtype == "I32") return element<int32_t>(p);
  if (s.dtype == "I16") return element<int16_t>(p);
  if (s.dtype == "I8") return element<int8_t>(p);
  return element<uint8_t>(p);
}

/// Calls f(place in the storage) for each element in row-major order.
template <class F>
void each_element(const PthTensor& t, F f) {
  std::vector<int64_t> at(t.shape.size(), 0);
  const int64_t n = t.count();
  int64_t place = t.offset;
  for (int64_t i = 0; i < n; i++) {
    f(place);
    for (size_t axis = at.size(); axis-- > 0;) {
      place += t.strides[axis];
      if (++at[axis] < t.shape[axis]) break;
      place -= t.strides[axis] * t.shape[axis];
      at[axis] = 0;
    }
  }
}

template <class T>
PthTensor owned(const std::string& dtype, const std::vector<int64_t>& shape, const std::vector<T>& values) {
  const auto data = std::make_shared<std::vector<T>>(values);
  PthTensor t;
  t.shape = shape;
  t.strides.assign(shape.size(), 1);
  for (size_t i = shape.size(); i-- > 1;) t.strides[i - 1] = t.strides[i] * shape[i];
  t.storage = std::make_shared<const PthStorage>(PthStorage{dtype, int64_t(values.size()), data, reinterpret_cast<const std::byte*>(data->data())});
  KILN_ASSERT(t.count() == int64_t(values.size()));
  return t;
}

}  // namespace

int64_t PthTensor::count() const {
  int64_t n = 1;
  for (int64_t s : shape) n *= s;
  return n;
}

std::vector<float> PthTensor::floats() const {
  std::vector<float> out;
  out.reserve(size_t(count()));
  each_element(*this, [&](int64_t i) { out.push_back(float(number_at(*storage, i))); });
  return out;
}

std::vector<int64_t> PthTensor::integers() const {
  std::vector<int64_t> out;
  each_element(*this, [&](int64_t i) { out.push_back(dtype() == "I64" ? element<int64_t>(storage->data + 8 * i) : int64_t(number_at(*storage, i))); });
  return out;
}

PthTensor PthTensor::of(const std::vector<int64_t>& shape, const std::vector<float>& floats) { return owned("F32", shape, floats); }
PthTensor PthTensor::of_integer(int64_t value) { return owned("I64", {}, std::vector<int64_t>{value}); }

PthValue PthNode::find(std::string_view key) const {
  if (kind == Kind::dict)
    for (size_t i = 0; i < items.size(); i += 2)
      if (items[i]->kind == Kind::text && items[i]->text == key) return items[i + 1];
  return nullptr;
}

PthValue PthNode::find(int64_t key) const {
  if (kind == Kind::dict)
    for (size_t i = 0; i < items.size(); i += 2)
      if (items[i]->kind == Kind::integer && items[i]->integer == key) return items[i + 1];
  return nullptr;
}

const char* PthNode::kind_name() const {
  constexpr const char* names[] = {"none", "boolean", "integer", "real number", "text", "list", "tuple", "dict", "tensor"};
  return names[size_t(kind)];
}

PthValue PthNode::none() { return std::make_shared<PthNode>(); }
PthValue PthNode::of(bool value) {
  PthValue v = none();
  v->kind = Kind::boolean;
  v->integer = value;
  return v;
}
PthValue PthNode::of(int64_t value) {
  PthValue v = none();
  v->kind = Kind::integer;
  v->integer = value;
  return v;
}
PthValue PthNode::of(double value) {
  PthValue v = none();
  v->kind = Kind::real;
  v->real = value;
  return v;
}
PthValue PthNode::of(std::string value) {
  PthValue v = none();
  v->kind = Kind::text;
  v->text = std::move(value);
  return v;
}
PthValue PthNode::of(PthTensor value) {
  PthValue v = none();
  v->kind = Kind::tensor;
  v->tensor = std::move(value);
  return v;
}
PthValue PthNode::list(std::vector<PthValue> items, Kind kind) {
  PthValue v = none();
  v->kind = kind;
  v->items = std::move(items);
  return v;
}
void PthNode::set(PthValue key, PthValue value) {
  items.push_back(std::move(key));
  items.push_back(std::move(value));
}

PthValue read_pth(std::span<const std::byte> bytes, const std::string& name) {
  if (bytes.empty()) fail("{}: an empty file; download or copy it again", name);
  if (bytes.size() >= 4 && std::memcmp(bytes.data(), "PK\3\4", 4) == 0) return read_zip(bytes, name);
  if (bytes.size() >= sizeof kMagic && std::memcmp(bytes.data(), kMagic, sizeof kMagic) == 0) return read_legacy(bytes, name);
  fail("{}: not a .pth file of PyTorch (neither its zip form nor the older pickle form)", name);
}

PthValue read_pth(const std::filesystem::path& path) {
  const std::vector<uint8_t> bytes = read_file(path, kMaxFileBytes);
  return read_pth(std::as_bytes(std::span(bytes)), path.string());
}

void write_pth(const std::filesystem::path& path, const PthNode& root) {
  std::vector<const PthTensor*> tensors;
  const std::string pickle = pth::write_pickle(root, [&](const PthTensor& t) {
    tensors.push_back(&t);
    return int64_t(tensors.size()) - 1;
  });
  zip_error_t error;
  zip_error_init(&error);
  // Made in memory, then written whole: libzip's own way to a file would not sync it.
  zip_source_t* memory = zip_source_buffer_create(nullptr, 0, 0, &error);
  KILN_ASSERT(memory != nullptr);
  zip_source_keep(memory);
  const std::unique_ptr<zip_source_t, SourceFree> keep(memory);
  zip_t* zip = zip_open_from_source(memory, ZIP_TRUNCATE, &error);
  KILN_ASSERT(zip != nullptr);
  const auto add = [&](const std::string& name, const void* data, size_t bytes) {
    zip_source_t* source = zip_source_buffer(zip, data, bytes, 0);
    const zip_int64_t i = source ? zip_file_add(zip, ("archive/" + name).c_str(), source, ZIP_FL_ENC_UTF_8) : -1;
    if (i < 0) fail("{}: cannot be written ({})", path.string(), zip_strerror(zip));
    zip_set_file_compression(zip, zip_uint64_t(i), ZIP_CM_STORE, 0);
    zip_file_set_mtime(zip, zip_uint64_t(i), 315619200, 0);  // 1980-01-02: equal values give equal bytes
  };
  add("data.pkl", pickle.data(), pickle.size());
  add("byteorder", "little", 6);
  for (size_t i = 0; i < tensors.size(); i++) {
    const PthTensor& t = *tensors[i];
    const size_t bytes = size_t(t.count()) * size_t(element_bytes(t.dtype()));
    KILN_ASSERT(t.offset == 0 && t.count() == t.storage->count);  // PthTensor::of
    add("data/" + std::to_string(i), t.storage->data, bytes);
  }
  add("version", "3\n", 2);
  if (zip_close(zip) != 0) {
    const std::string why = zip_strerror(zip);
    zip_discard(zip);
    fail("{}: cannot be written ({})", path.string(), why);
  }
  zip_error_fini(&error);
  zip_stat_t stat;
  zip_stat_init(&stat);
  KILN_ASSERT(zip_source_stat(memory, &stat) == 0 && zip_source_open(memory) == 0);
  std::vector<char> bytes(size_t(stat.size));
  const zip_int64_t got = zip_source_read(memory, bytes.data(), bytes.size());
  zip_source_close(memory);
  KILN_ASSERT(got == zip_int64_t(bytes.size()));
  AtomicFile file(path, bytes.size());
  file.write(bytes.data(), bytes.size());
  file.commit();
}

}  // namespace kiln
