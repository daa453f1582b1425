#include "engine/safetensors.h"

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <cstring>
#include <fstream>
#include <random>

#include "engine/error.h"
#include "tests/picture_fixtures.h"

using namespace kiln;
using fixtures::Bytes;
using fixtures::read_all;
using fixtures::TempFolder;
namespace fs = std::filesystem;

namespace {

std::string error_of(const Bytes& file) {
  try {
    SafetensorsFile::from_memory(std::as_bytes(std::span(file)), "some.safetensors");
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

/// The Error text for a file of this header and data, without the name in front.
std::string error_of(const std::string& header, size_t data_bytes) {
  Bytes file(8 + header.size() + data_bytes);
  const uint64_t length = header.size();
  std::memcpy(file.data(), &length, 8);
  std::memcpy(file.data() + 8, header.data(), header.size());
  const std::string text = error_of(file), prefix = "some.safetensors: ";
  CHECK((text.empty() || text.starts_with(prefix)));
  CHECK(text.find('\n') == std::string::npos);
  return text.empty() ? text : text.substr(prefix.size());
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

struct Weights {
  std::vector<float> w = std::vector<float>(35);
  std::vector<uint8_t> odd = {1, 2, 3};
  std::vector<int64_t> step = {-5};
  Weights() {
    for (size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>(i) * 0.37f - 3;
  }
  std::vector<TensorEntry> entries() const {
    return {{"G.z.weight", "F32", {5, 7}, w.data(), w.size() * 4},
            {"odd", "U8", {3}, odd.data(), 3},
            {"empty", "F16", {4, 0}, nullptr, 0},
            {"a.step", "I64", {}, step.data(), 8}};
  }
};

const std::map<std::string, std::string> kMetadata = {
    {"config", "{\"size\": 64, \"name\": \"\\\"kiln.header_hash\\\":\\\"\"}"}, {"Größe", "窯\n"}, {"a", ""}};

size_t files_in(const fs::path& folder) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

}  // namespace

TEST_CASE("safetensors: what was written comes back") {
  const TempFolder folder;
  const Weights weights;
  const fs::path path = folder / "a.safetensors";
  write_safetensors(path, weights.entries(), kMetadata);
  CHECK(files_in(folder.path) == 1);
  const SafetensorsFile file(path);
  CHECK(file.metadata() == kMetadata);
  CHECK(file.path() == path.string());
  CHECK(file.names() == std::vector<std::string>{"G.z.weight", "odd", "empty", "a.step"});
  for (const TensorEntry& e : weights.entries()) {
    const TensorView& t = file.at(e.name);
    CHECK(&t == file.find(e.name));
    CHECK(t.dtype == e.dtype);
    CHECK(t.shape == e.shape);
    REQUIRE(t.bytes == e.bytes);
    CHECK((e.bytes == 0 || std::memcmp(t.data, e.data, e.bytes) == 0));
  }
  CHECK(file.find("nothing") == nullptr);
  CHECK_THROWS_WITH_AS(
      file.at("D.w"),
      (path.string() + ": has no tensor \"D.w\"; is it a checkpoint of this model and program?").c_str(), Error);
  const SafetensorsFile copy = file;  // shares the mapping, finds its own tensors
  CHECK(copy.find("odd") != file.find("odd"));
  CHECK(copy.at("odd").data == file.at("odd").data);

  write_safetensors(path, {});
  CHECK(SafetensorsFile(path).tensors().empty());
  CHECK(file.at("odd").data[2] == std::byte{3});  // the old file lives as long as its mapping
}

TEST_CASE("safetensors: the bytes follow the format, and depend on nothing but the arguments") {
  const TempFolder folder;
  const Weights weights;
  write_safetensors(folder / "a", weights.entries(), kMetadata);
  write_safetensors(folder / "b", weights.entries(), kMetadata);
  const Bytes file = read_all(folder / "a");
  CHECK(file == read_all(folder / "b"));
  uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  CHECK((8 + length) % 64 == 0);
  CHECK(file.size() == 8 + length + 35 * 4 + 3 + 8);
  CHECK(file[8] == '{');
  const std::string header(file.begin() + 8, file.begin() + 8 + static_cast<std::ptrdiff_t>(length));
  CHECK(contains(header, "\"odd\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[140,143]}"));
  CHECK(contains(header, "\"a.step\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[143,151]}"));
  CHECK(std::memcmp(&file[8 + length], weights.w.data(), 140) == 0);
}

TEST_CASE("safetensors: a file cut short at any place is refused and named") {
  const TempFolder folder;
  const Weights weights;
  write_safetensors(folder / "a", weights.entries(), kMetadata);
  const Bytes file = read_all(folder / "a");
  const fs::path cut = folder / "cut.safetensors";
  std::mt19937 random(1);
  for (int i = 0; i < 60; ++i) {
    const size_t n = i < 10   ? static_cast<size_t>(i)
                     : i < 20 ? file.size() - static_cast<size_t>(i - 9)
                              : random() % file.size();
    CAPTURE(n);
    fixtures::write_file(cut, Bytes(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(n)));
    std::string text;
    try {
      const SafetensorsFile opened(cut);
    } catch (const Error& e) {
      text = e.what();
    }
    CHECK(text.starts_with(cut.string() + (n == 0 ? ": the file is empty" : ": the file is cut short: only ")));
  }
}

TEST_CASE("safetensors: a changed byte at any place is noticed") {
  const TempFolder folder;
  const Weights weights;
  write_safetensors(folder / "a", weights.entries(), kMetadata);
  const Bytes file = read_all(folder / "a");
  REQUIRE(error_of(file).empty());
  int missed = 0;
  for (size_t at = 0; at < file.size(); ++at) {
    for (uint8_t flip : {1, 4, 128}) {
      Bytes bad = file;
      bad[at] ^= flip;
      missed += error_of(bad).empty();
    }
  }
  CHECK(missed == 0);
  Bytes bad = file;
  bad[bad.size() - 9] ^= 1;
  CHECK(contains(error_of(bad), "altered or damaged: its data does not match"));
  bad = file;
  const std::string text(file.begin(), file.end());
  bad[text.find("G.z.weight")] = 'H';
  CHECK(contains(error_of(bad), "altered or damaged: its header does not match"));
  bad = file;
  bad.push_back(0);
  CHECK(contains(error_of(bad), "1 bytes follow the last tensor"));
}

TEST_CASE("safetensors: every lie in a header has its own words") {
  const auto tensor = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return "\"t\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
  };
  const auto one = [&](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return error_of("{" + tensor(dtype, shape, offsets) + "}", 8);
  };
  // Sound files of other programs: without hashes, padded or not, keys in any order.
  CHECK(one("F32", "[2]", "[0,8]") == "");
  CHECK(error_of("{\"b\":{\"data_offsets\":[4,8],\"shape\":[1],\"dtype\":\"F32\"},\"a\":{\"dtype\":\"I32\",\"shape\":["
                 "1],\"data_offsets\":[0,4]}}   ",
                 8) == "");
  CHECK(error_of("{}", 0) == "");
  CHECK(error_of("{\"__metadata__\":{}}", 0) == "");

  CHECK(contains(one("F32", "[3]", "[0,8]"), "tensor \"t\": its shape does not fit its data_offsets"));
  CHECK(contains(one("F33", "[2]", "[0,8]"), "its dtype \"F33\" is not one that kiln reads"));
  CHECK(contains(one("F32", "[-2]", "[0,8]"), "not of whole numbers"));
  CHECK(contains(one("F32", "[2.0]", "[0,8]"), "not of whole numbers"));
  CHECK(contains(one("F32", "2", "[0,8]"), "shape is not a list"));
  CHECK(contains(one("F32", "[4611686018427387904,2]", "[0,8]"), "does not fit"));
  CHECK(contains(one("F32", "[4611686018427387904,4]", "[0,0]"), "does not fit"));  // the product wraps to 0
  CHECK(contains(one("F32", "[18446744073709551615]", "[0,8]"), "not of whole numbers"));
  CHECK(contains(one("F32", "[2]", "[8,0]"), "ends before it begins"));
  CHECK(contains(one("F32", "[2]", "[0]"), "not two whole numbers"));
  CHECK(contains(one("F32", "[2]", "[0,-8]"), "not two whole numbers"));
  CHECK(contains(one("U8", "[4]", "[4,8]"), "begins after a gap"));
  CHECK(contains(one("F32", "[100]", "[0,400]"), "the file is cut short"));
  CHECK(contains(one("U8", "[9223372036854775807]", "[0,9223372036854775807]"), "the file is cut short"));
  CHECK(contains(one("U8", "[7]", "[0,7]"), "1 bytes follow the last tensor"));
  CHECK(contains(
      error_of("{" + tensor("U8", "[4]", "[0,4]") + ",\"u\":{\"dtype\":\"U8\",\"shape\":[5],\"data_offsets\":[3,8]}}",
               8),
      "tensor \"u\" overlaps another"));
  CHECK(contains(error_of("{" + tensor("U8", "[4]", "[0,4]") + "," + tensor("U8", "[4]", "[4,8]") + "}", 8),
                 "\"t\" is there twice"));
  CHECK(contains(error_of("{\"t\":{\"dtype\":\"U8\",\"shape\":[8]}}", 8), "it has no data_offsets"));
  CHECK(contains(error_of("{\"t\":[1]}", 0), "tensor \"t\": it is not a JSON object"));
  CHECK(contains(error_of("{\"__metadata__\":{\"a\":1}}", 0), "metadata \"a\" is not a string"));
  CHECK(contains(error_of("{\"__metadata__\":3}", 0), "__metadata__ is not a JSON object"));
  CHECK(contains(error_of("{\"t\":", 0), "it is not JSON"));
  CHECK(contains(error_of("{\"\xFF\":1}", 0), "it is not JSON"));
  CHECK(contains(error_of("{" + std::string(100000, '['), 0), "it is not JSON"));
  CHECK(contains(error_of("[\"a\"]", 0), "not a safetensors file"));
  CHECK(contains(error_of(Bytes(100, 'x')), "not a safetensors file"));
  CHECK(contains(error_of(Bytes(100, 0)), "not a safetensors file"));
  CHECK(contains(error_of(Bytes{'P', 'K', 3, 4, 0, 0, 0, 0, 0, 0}), "not a safetensors file"));
}

TEST_CASE("safetensors: files that cannot be opened or written are named; what was there stays") {
  const TempFolder folder;
  const auto write_error = [](const fs::path& path, const std::vector<TensorEntry>& t,
                              std::map<std::string, std::string> m = {}) {
    try {
      write_safetensors(path, t, m);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK_THROWS_WITH_AS(SafetensorsFile(folder / "none"),
                       ((folder / "none").string() + ": cannot open: No such file or directory").c_str(), Error);
  CHECK_THROWS_AS(SafetensorsFile{folder.path}, Error);
  REQUIRE(mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK_THROWS_AS(SafetensorsFile{folder / "pipe"}, Error);
  fs::remove(folder / "pipe");
  const Weights weights;
  CHECK(contains(write_error(folder / "no/such/x", weights.entries()),
                 "no/such/x: cannot write: No such file or directory; make its folder first"));
  CHECK(contains(write_error(folder / "x", {}, {{"a", "\xFF"}}), "not UTF-8"));
  fs::create_directory(folder / "taken");
  CHECK(contains(write_error(folder / "taken", weights.entries()), "taken: cannot write: "));
  fs::remove(folder / "taken");
  CHECK(files_in(folder.path) == 0);

  const fs::path path = folder / "a.safetensors";
  write_safetensors(path, weights.entries(), kMetadata);
  const Bytes before = read_all(path);
  const std::vector<float> large(100000, 1.5f);
  rlimit old_limit;
  getrlimit(RLIMIT_FSIZE, &old_limit);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  for (rlim_t bytes : {0, 100, 100000}) {
    rlimit limit = old_limit;
    limit.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &limit);
    const std::string text = write_error(path, {{"w", "F32", {100000}, large.data(), 400000}});
    setrlimit(RLIMIT_FSIZE, &old_limit);
    CHECK(text.starts_with(path.string() + ": cannot write: File too large (needs 391 KiB, "));
    CHECK(contains(text, "what was there before is untouched"));
    CHECK(read_all(path) == before);
    CHECK(files_in(folder.path) == 1);
  }
  std::signal(SIGXFSZ, old_handler);
}
