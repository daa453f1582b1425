#include "engine/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "engine/error.h"
#include "engine/file.h"
#include "engine/hash.h"

namespace kiln {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the bound of the reference implementation
constexpr size_t kDataAlignment = 64;
constexpr const char *kMetadata = "__metadata__", *kDataHash = "kiln.data_hash", *kHeaderHash = "kiln.header_hash";
constexpr const char* kNoHash = "0000000000000000";

// As it stands in a header that kiln wrote.
constexpr std::string_view kHeaderHashText = "\"kiln.header_hash\":\"";

// Names and parser messages come from the file: quoted and short, so that an error stays one readable line.
std::string readable(std::string_view text) {
  return json(text.substr(0, 100)).dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string hex(uint64_t value) { return fmt::format("{:016x}", value); }

// Elements * size of one; false if it overflows or a dimension is negative.
bool count_bytes(const std::vector<int64_t>& shape, size_t element, uint64_t& bytes) {
  bytes = element;
  bool empty = false;
  for (int64_t n : shape) {
    if (n < 0) return false;
    if (n == 0) empty = true;
    // A zero later makes the product small again, but no honest file has such a shape.
    if (n != 0 && __builtin_mul_overflow(bytes, static_cast<uint64_t>(n), &bytes)) return false;
  }
  if (empty) bytes = 0;
  return true;
}

std::string header_text(const std::vector<TensorEntry>& tensors, const std::map<std::string, std::string>& metadata) {
  std::string text = fmt::format("{{\"{}\":{}", kMetadata, json(metadata).dump());
  uint64_t offset = 0;
  for (const TensorEntry& t : tensors) {
    text += fmt::format(",{}:{{\"dtype\":\"{}\",\"shape\":{},\"data_offsets\":[{},{}]}}", json(t.name).dump(), t.dtype,
                        json(t.shape).dump(), offset, offset + t.bytes);
    offset += t.bytes;
  }
  text += '}';
  while ((8 + text.size()) % kDataAlignment != 0) text += ' ';
  return text;
}

}  // namespace

size_t safetensors_dtype_bytes(std::string_view dtype) {
  if (dtype == "F64" || dtype == "I64") return 8;
  if (dtype == "F32" || dtype == "I32") return 4;
  if (dtype == "F16" || dtype == "BF16") return 2;
  return dtype == "U8" ? 1 : 0;
}

void write_safetensors(const std::filesystem::path& path, const std::vector<TensorEntry>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::set<std::string_view> names;
  Hash64 data_hash;
  uint64_t data_bytes = 0;
  for (const TensorEntry& t : tensors) {
    uint64_t bytes = 0;
    KILN_ASSERT(t.name != kMetadata && names.insert(t.name).second);
    KILN_ASSERT(safetensors_dtype_bytes(t.dtype) != 0);
    KILN_ASSERT(count_bytes(t.shape, safetensors_dtype_bytes(t.dtype), bytes) && bytes == t.bytes);
    data_hash.update(t.data, t.bytes);
    data_bytes += t.bytes;
  }
  std::map<std::string, std::string> all = metadata;
  all[kDataHash] = hex(data_hash.value());
  all[kHeaderHash] = kNoHash;
  std::string header;
  try {
    header = header_text(tensors, all);
  } catch (const json::type_error&) {
    fail("{}: cannot write: a name or metadata text is not UTF-8; rename it", path.string());
  }
  // Sorted keys: text before this place is metadata whose quotes are escaped, so that the first match is the real one.
  const size_t digits = header.find(kHeaderHashText) + kHeaderHashText.size();
  header.replace(digits, 16, hex(hash_bytes(header.data(), header.size())));

  const uint64_t header_bytes = header.size();
  AtomicFile file(path, sizeof header_bytes + header_bytes + data_bytes);
  file.write(&header_bytes, sizeof header_bytes);
  file.write(header.data(), header.size());
  for (const TensorEntry& t : tensors) file.write(t.data, t.bytes);
  file.commit();
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : path_(path.string()) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a named pipe must not block for ever
  if (fd < 0) fail("{}: cannot open: {}", path_, std::strerror(errno));
  struct stat info;
  const bool regular = fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
  const size_t size = regular ? static_cast<size_t>(info.st_size) : 0;
  void* map = size > 0 ? mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0) : nullptr;
  const int error = errno;
  close(fd);
  if (!regular) fail("{}: is not a file; name a .safetensors file", path_);
  if (map == MAP_FAILED) fail("{}: cannot read: {}", path_, std::strerror(error));
  if (map != nullptr) mapping_.reset(map, [size](const void* p) { munmap(const_cast<void*>(p), size); });
  parse({static_cast<const std::byte*>(map), size});
}

SafetensorsFile SafetensorsFile::from_memory(std::span<const std::byte> bytes, std::string name) {
  SafetensorsFile file;
  file.path_ = std::move(name);
  file.parse(bytes);
  return file;
}

namespace {

// What parse() goes through, each step with its own checks. All Errors begin with the path.
struct Parser {
  const std::string& path;

  [[noreturn]] void bad_header(const std::string& what) const {
    fail("{}: damaged safetensors header: {}; use another copy of the file", path, what);
  }

  std::string_view split(std::span<const std::byte> bytes) const {
    if (bytes.empty()) fail("{}: the file is empty; use another copy of it", path);
    const auto* text = reinterpret_cast<const char*>(bytes.data());
    uint64_t length = 0;
    std::memcpy(&length, text, std::min<size_t>(bytes.size(), 8));
    const bool plausible = length >= 2 && length <= kMaxHeaderBytes && (bytes.size() < 9 || text[8] == '{');
    if (bytes.size() >= 8 && !plausible) {
      fail("{}: not a safetensors file; name a checkpoint that kiln or a safetensors program wrote", path);
    }
    if (bytes.size() < 8 || length > bytes.size() - 8) cut_short(bytes.size());
    return {text + 8, static_cast<size_t>(length)};
  }

  [[noreturn]] void cut_short(uint64_t has, uint64_t wants = 0) const {
    const std::string rest = wants > 0 ? fmt::format(" of {}", wants) : "";
    fail("{}: the file is cut short: only {}{} bytes are there; use another copy of it", path, has, rest);
  }

  json parse_header(std::string_view text) const {
    std::vector<std::set<std::string>> keys;  // of the objects that are open
    std::string twice;
    const auto watch = [&](int, json::parse_event_t event, json& value) {
      if (event == json::parse_event_t::object_start) keys.emplace_back();
      if (event == json::parse_event_t::object_end) keys.pop_back();
      if (event == json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second)
        twice = value.get<std::string>();
      return true;
    };
    json header;
    try {
      header = json::parse(text, watch);
    } catch (const json::exception& e) {
      bad_header(fmt::format("it is not JSON: {}", readable(e.what())));
    }
    if (!header.is_object()) bad_header("it is not a JSON object");
    if (!twice.empty()) bad_header(fmt::format("{} is there twice", readable(twice)));
    return header;
  }

  TensorView tensor(const std::string& name, const json& value, uint64_t& begin) const {
    const auto bad = [&](const std::string& what) { bad_header(fmt::format("tensor {}: {}", readable(name), what)); };
    if (!value.is_object()) bad("it is not a JSON object");
    for (const char* key : {"dtype", "shape", "data_offsets"}) {
      if (!value.contains(key)) bad(fmt::format("it has no {}", key));
    }
    TensorView view;
    view.name = name;
    if (!value["dtype"].is_string()) bad("its dtype is not a string");
    view.dtype = value["dtype"];
    const size_t element = safetensors_dtype_bytes(view.dtype);
    if (element == 0) bad(fmt::format("its dtype {} is not one that kiln reads", readable(view.dtype)));
    if (!value["shape"].is_array()) bad("its shape is not a list");
    for (const json& n : value["shape"]) {
      if (!n.is_number_unsigned() || n.get<uint64_t>() > uint64_t(INT64_MAX)) bad("its shape is not of whole numbers");
      view.shape.push_back(n);
    }
    const json& offsets = value["data_offsets"];
    if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
        !offsets[1].is_number_unsigned()) {
      bad("its data_offsets are not two whole numbers");
    }
    begin = offsets[0];
    const uint64_t end = offsets[1];
    uint64_t bytes = 0;
    if (end < begin) bad("its data ends before it begins");
    if (!count_bytes(view.shape, element, bytes) || bytes != end - begin)
      bad("its shape does not fit its data_offsets");
    view.bytes = bytes;
    return view;
  }
};

}  // namespace

void SafetensorsFile::parse(std::span<const std::byte> bytes) {
  const Parser parser{path_};
  const std::string_view text = parser.split(bytes);
  const json header = parser.parse_header(text);
  const std::span<const std::byte> data = bytes.subspan(8 + text.size());

  std::vector<std::pair<uint64_t, TensorView>> placed;
  for (const auto& [name, value] : header.items()) {
    if (name == kMetadata) {
      if (!value.is_object()) parser.bad_header("__metadata__ is not a JSON object");
      for (const auto& [key, entry] : value.items()) {
        if (!entry.is_string()) parser.bad_header(fmt::format("metadata {} is not a string", readable(key)));
        metadata_[key] = entry;
      }
      continue;
    }
    uint64_t begin = 0;
    TensorView view = parser.tensor(name, value, begin);
    placed.emplace_back(begin, std::move(view));
  }
  std::sort(placed.begin(), placed.end(), [](const auto& a, const auto& b) {
    return a.first != b.first                 ? a.first < b.first
           : a.second.bytes != b.second.bytes ? a.second.bytes < b.second.bytes
                                              : a.second.name < b.second.name;
  });
  uint64_t end = 0;
  for (auto& [begin, view] : placed) {
    if (begin != end) {
      parser.bad_header(
          fmt::format("tensor {} {}", readable(view.name), begin < end ? "overlaps another" : "begins after a gap"));
    }
    // end + bytes does not overflow: tensor() checked begin <= begin + bytes as 64-bit offsets.
    end += view.bytes;
    if (end > data.size()) parser.cut_short(bytes.size(), end < INT64_MAX ? 8 + text.size() + end : 0);
    view.data = data.data() + begin;
    index_[view.name] = tensors_.size();
    tensors_.push_back(std::move(view));
  }
  if (end != data.size()) {
    fail("{}: {} bytes follow the last tensor: the file is damaged or two files in one; use another copy of it", path_,
         data.size() - end);
  }

  const auto header_hash = metadata_.find(kHeaderHash), data_hash = metadata_.find(kDataHash);
  constexpr const char* kAltered =
      "{}: altered or damaged: {} does not match the hash in it; use another copy of the file (if you changed it on "
      "purpose, remove kiln.data_hash and kiln.header_hash from its metadata)";
  // One alone: the name of the other is what was altered.
  if ((header_hash == metadata_.end()) != (data_hash == metadata_.end())) fail(kAltered, path_, "its header");
  if (header_hash != metadata_.end()) {
    std::string zeroed(text);
    const size_t at = zeroed.find(kHeaderHashText);
    if (at != std::string::npos) zeroed.replace(at + kHeaderHashText.size(), 16, kNoHash);
    if (hex(hash_bytes(zeroed.data(), zeroed.size())) != header_hash->second) fail(kAltered, path_, "its header");
  }
  if (data_hash != metadata_.end() && hex(hash_bytes(data.data(), data.size())) != data_hash->second) {
    fail(kAltered, path_, "its data");
  }
  metadata_.erase(kHeaderHash);
  metadata_.erase(kDataHash);
}

const TensorView* SafetensorsFile::find(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

const TensorView& SafetensorsFile::at(std::string_view name) const {
  const TensorView* view = find(name);
  if (view == nullptr) fail("{}: has no tensor \"{}\"; is it a checkpoint of this model and program?", path_, name);
  return *view;
}

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> names;
  for (const TensorView& t : tensors_) names.push_back(t.name);
  return names;
}

}  // namespace kiln
