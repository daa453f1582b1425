// Classes from folders: DIR/cat/1.jpg is of class "cat". What a class-conditional model knows of a data set beside its pictures.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace kiln {

struct ClassIndex {
  /// Names of the classes in the order of their folders' bytes; none where all pictures lie in DIR itself. Bytes that are not UTF-8
  /// are written as \xNN.
  std::vector<std::string> names;
  std::vector<int32_t> labels;  // of every picture, in the order given
  std::vector<int64_t> counts;  // pictures of every class
  std::vector<std::string> notes;  // what the user should know, a line each
  std::string thing = "picture";   // what is counted: "picture" or "clip"

  /// "dress 41, hat 12, ...": names and counts, and the largest class over the smallest.
  std::string balance() const;
};

/// The class of a picture is the first folder of its path below `folder`; folders below that do not matter. A lone folder with folders of
/// its own is stepped into. paths: relative to `folder`, as Dataset::names(). Throws kiln::Error where some pictures lie in folders and
/// some do not. thing: what the paths are, for texts.
ClassIndex index_classes(const std::vector<std::string>& paths, const std::filesystem::path& folder, const std::string& thing = "picture");

/// Text with bytes that are not UTF-8 written as \xNN.
std::string printable(const std::string& bytes);

}  // namespace kiln
