#include "engine/classes.h"

#include <algorithm>
#include <map>
#include <set>

#include "engine/error.h"

namespace fs = std::filesystem;

namespace kiln {
namespace {

/// Length of the UTF-8 sequence that starts at s[i]; 0 if there is none.
size_t sequence_length(const std::string& s, size_t i) {
  const auto byte = [&](size_t k) { return k < s.size() ? uint8_t(s[k]) : uint8_t(0); };
  const uint8_t first = byte(i);
  if (first < 0x80) return 1;
  const size_t n = first >= 0xF0 && first < 0xF5 ? 4 : first >= 0xE0 ? 3 : first >= 0xC2 ? 2 : 0;
  if (n == 0 || first >= 0xF5) return 0;
  for (size_t k = 1; k < n; k++)
    if ((byte(i + k) & 0xC0) != 0x80) return 0;
  // Overlong forms, surrogates, beyond the last code point.
  const uint8_t second = byte(i + 1);
  if ((first == 0xE0 && second < 0xA0) || (first == 0xED && second >= 0xA0) || (first == 0xF0 && second < 0x90) || (first == 0xF4 && second >= 0x90))
    return 0;
  return n;
}

std::string first_folder(const std::string& path) {
  const size_t slash = path.find('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

}  // namespace

std::string printable(const std::string& bytes) {
  std::string out;
  for (size_t i = 0; i < bytes.size();) {
    const size_t n = sequence_length(bytes, i);
    if (n > 0) {
      out += bytes.substr(i, n);
      i += n;
    } else {
      out += fmt::format("\\x{:02x}", uint8_t(bytes[i++]));
    }
  }
  return out;
}

std::string ClassIndex::balance() const {
  if (names.empty()) return "no class folders: unconditional";
  std::string out;
  for (size_t i = 0; i < names.size() && i < 30; i++) out += fmt::format("{}{} {}", i ? ", " : "", names[i], counts[i]);
  if (names.size() > 30) out += fmt::format(", and {} more", names.size() - 30);
  const auto [low, high] = std::minmax_element(counts.begin(), counts.end());
  return fmt::format("{} classes: {}; the largest has {:.1f} times the {}s of the smallest", names.size(), out, double(*high) / double(*low), thing);
}

ClassIndex index_classes(const std::vector<std::string>& paths, const fs::path& folder, const std::string& thing) {
  ClassIndex index;
  index.thing = thing;
  std::string base;  // below folder, with a slash at its end
  const auto below = [&](const std::string& path) { return path.substr(base.size()); };
  // Step into lone folders, as far as there are further ones.
  while (!paths.empty()) {
    const std::string lone = first_folder(below(paths[0]));
    if (lone.empty() || !std::all_of(paths.begin(), paths.end(), [&](const std::string& p) {
          const std::string rest = below(p);
          return first_folder(rest) == lone && !first_folder(rest.substr(lone.size() + 1)).empty();
        }))
      break;
    base += lone + "/";
  }
  if (!base.empty()) index.notes.push_back(fmt::format("the classes are the folders in {}", printable((folder / base).string())));

  std::map<std::string, int64_t> classes;
  std::map<std::string, std::set<std::string>> inner;
  int64_t loose = 0;
  std::string example;
  for (const std::string& p : paths) {
    const std::string name = first_folder(below(p));
    if (name.empty()) {
      if (loose++ == 0) example = p;
      continue;
    }
    classes[name]++;
    const std::string second = first_folder(below(p).substr(name.size() + 1));
    if (!second.empty()) inner[name].insert(second);
  }
  if (loose > 0 && !classes.empty())
    fail("{}: {} {}s lie in {} class folders and {} in none, such as {}; move those into a folder, or train without classes (--unconditional)",
         printable(folder.string()), int64_t(paths.size()) - loose, thing, classes.size(), loose, printable(example));
  index.labels.assign(paths.size(), 0);
  if (classes.empty()) return index;

  std::map<std::string, int32_t> number;
  for (const auto& [name, count] : classes) {
    number[name] = int32_t(index.names.size());
    index.names.push_back(printable(name));
    index.counts.push_back(count);
  }
  for (size_t i = 0; i < paths.size(); i++) index.labels[i] = number[first_folder(below(paths[i]))];

  std::error_code error;
  for (fs::directory_iterator it(folder / base, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (it->is_directory(error) && !name.starts_with('.') && !classes.contains(name))
      index.notes.push_back(fmt::format("the folder {} has no usable {}: it is no class", printable(name), thing));
  }
  std::sort(index.notes.begin() + (base.empty() ? 0 : 1), index.notes.end());
  for (const auto& [name, count] : classes)
    if (count == 1) index.notes.push_back(fmt::format("class {} has one {}: the generator can only repeat it", printable(name), thing));
  if (inner.size() >= 2) {
    const auto& [a, in_a] = *inner.begin();
    const auto& [b, in_b] = *std::next(inner.begin());
    std::vector<std::string> both;
    std::set_intersection(in_a.begin(), in_a.end(), in_b.begin(), in_b.end(), std::back_inserter(both));
    if (both.size() >= 2)
      index.notes.push_back(fmt::format("the classes {} and {} hold folders of the same names ({}, {}, ...): if those are the classes, give {}",
                                        printable(a), printable(b), printable(both[0]), printable(both[1]),
                                        printable((folder / base / a).string())));
  }
  return index;
}

}  // namespace kiln
