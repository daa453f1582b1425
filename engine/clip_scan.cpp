#include "engine/clip_scan.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <set>

#include "engine/error.h"
#include "engine/picture_codec.h"
#include "engine/video_read.h"

namespace fs = std::filesystem;

namespace kiln::clips {
namespace {

// A folder's first picture is taken for a strip from this many squares on: pictures of 2:1 and 3:1 are as likely frames.
constexpr int kStripSquares = 4;
constexpr std::streamsize kHeaderBytes = 1 << 20;

std::string extension_of(std::string_view name) {
  const size_t dot = name.rfind('.');
  std::string e = dot == std::string_view::npos ? "no extension" : std::string(name.substr(dot));
  for (char& c : e)
    if (c >= 'A' && c <= 'Z') c = char(c - 'A' + 'a');
  return e;
}

bool is_picture_extension(const std::string& e) {
  for (const char* known : {".jpg", ".jpeg", ".png", ".bmp", ".tga", ".webp"})
    if (e == known) return true;
  return false;
}

bool looks_like_strip(const fs::path& path) {
  std::vector<uint8_t> start(size_t{kHeaderBytes});
  std::ifstream f(path, std::ios::binary);
  f.read(reinterpret_cast<char*>(start.data()), kHeaderBytes);
  start.resize(size_t(f.gcount()));
  try {
    const PictureSize s = codec::size_or_broken(start);
    return s.width % s.height == 0 && s.width / s.height >= kStripSquares;
  } catch (const codec::Broken&) {
    return false;
  }
}

struct Scanner {
  ClipPictures pictures;
  Scan result;
  std::set<std::pair<uint64_t, uint64_t>> visited;  // folders, by device and inode: a loop of links ends here

  void fail_candidate(const std::string& path, std::string reason) {
    Candidate c;
    c.path = path.empty() ? "." : path;
    c.reason = std::move(reason);
    c.transient = true;
    result.candidates.push_back(std::move(c));
  }

  /// What stat says of a file as a part; otherwise the reason.
  std::string stat_part(const fs::path& path, Part& part) {
    struct stat info;
    if (stat(path.c_str(), &info) != 0) return errno == ENOENT ? "is a link to nothing" : fmt::format("cannot open: {}", std::strerror(errno));
    if (!S_ISREG(info.st_mode)) return "is a device or a pipe, not a file";
    part.bytes = uint64_t(info.st_size);
    part.mtime_ns = int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec;
    return "";
  }

  /// prefix: of the folder's entries, "" or with a slash at its end.
  void folder(const fs::path& path, const std::string& prefix) {
    std::vector<std::string> names, still;  // still: pictures
    std::error_code error;
    fs::directory_iterator it(path, error);
    for (; !error && it != fs::directory_iterator(); it.increment(error)) names.push_back(it->path().filename().string());
    if (error) fail_candidate(prefix.substr(0, prefix.size() - !prefix.empty()), fmt::format("cannot read the folder: {}", error.message()));
    std::sort(names.begin(), names.end());
    for (const std::string& name : names) {
      if (name.front() == '.') continue;
      struct stat info;
      if (stat((path / name).c_str(), &info) == 0 && S_ISDIR(info.st_mode)) {
        if (visited.insert({info.st_dev, info.st_ino}).second) folder(path / name, prefix + name + "/");
        continue;
      }
      const std::string e = extension_of(name);
      if (is_picture_extension(e))
        still.push_back(name);
      else if (is_video_name(name))
        single(path / name, prefix + name, Kind::video);
      else
        result.others[e]++;
    }
    if (still.empty()) return;
    std::sort(still.begin(), still.end(), natural_less);
    const bool strips = pictures == ClipPictures::strips || (pictures == ClipPictures::automatic && looks_like_strip(path / still.front()));
    if (strips) {
      for (const std::string& name : still) single(path / name, prefix + name, Kind::strip);
      return;
    }
    Candidate c;
    c.path = prefix.empty() ? "." : prefix.substr(0, prefix.size() - 1);
    c.kind = Kind::frames;
    for (const std::string& name : still) {
      Part part{prefix + name, 0, 0};
      if (const std::string reason = stat_part(path / name, part); !reason.empty() && c.reason.empty()) {
        c.reason = fmt::format("its frame {} {}", name, reason);
        c.transient = true;
      }
      c.parts.push_back(std::move(part));
    }
    result.candidates.push_back(std::move(c));
  }

  void single(const fs::path& path, const std::string& relative, Kind kind) {
    Candidate c;
    c.path = relative;
    c.kind = kind;
    Part part{relative, 0, 0};
    c.reason = stat_part(path, part);
    c.transient = !c.reason.empty();
    c.parts.push_back(std::move(part));
    result.candidates.push_back(std::move(c));
  }
};

}  // namespace

bool natural_less(const std::string& a, const std::string& b) {
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (!digit(a[i]) || !digit(b[j])) {
      if (a[i] != b[j]) return uint8_t(a[i]) < uint8_t(b[j]);
      i++, j++;
      continue;
    }
    const auto run = [&](const std::string& s, size_t& at) {  // without leading zeros
      while (at + 1 < s.size() && s[at] == '0' && digit(s[at + 1])) at++;
      const size_t from = at;
      while (at < s.size() && digit(s[at])) at++;
      return std::string_view(s).substr(from, at - from);
    };
    const std::string_view x = run(a, i), y = run(b, j);
    if (x.size() != y.size()) return x.size() < y.size();
    if (x != y) return x < y;
  }
  if (i < a.size() || j < b.size()) return j < b.size();
  return a < b;  // they differ in leading zeros only
}

Scan scan_folder(const fs::path& folder, ClipPictures pictures) {
  struct stat info;
  if (stat(folder.c_str(), &info) != 0) fail("{}: cannot open: {}; name a folder of clips", folder.string(), std::strerror(errno));
  if (!S_ISDIR(info.st_mode)) fail("{}: is not a folder; name the folder that holds the clips", folder.string());
  Scanner scanner{pictures, {}, {}};
  scanner.visited.insert({info.st_dev, info.st_ino});
  scanner.folder(folder, "");
  auto& found = scanner.result.candidates;
  std::sort(found.begin(), found.end(), [](const Candidate& a, const Candidate& b) { return a.path < b.path; });
  return std::move(scanner.result);
}

}  // namespace kiln::clips
