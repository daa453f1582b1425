// The rules of the house, checked over the source tree: apps -> models -> engine -> kernels, and each library behind
// one door.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "tests/picture_fixtures.h"

namespace fs = std::filesystem;

namespace {

constexpr size_t kMostLines = 600;

bool starts_with_any(const std::string& s, std::initializer_list<const char*> prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(), [&](const char* p) { return s.starts_with(p); });
}

/// What a line includes, without the brackets; empty if it is no #include.
std::string included(const std::string& line) {
  size_t at = line.find_first_not_of(' ');
  if (at == std::string::npos || line[at] != '#') return "";
  at = line.find_first_not_of(' ', at + 1);
  if (at == std::string::npos || line.compare(at, 7, "include") != 0) return "";
  const size_t open = line.find_first_of("<\"", at + 7);
  if (open == std::string::npos) return "";
  const size_t close = line.find_first_of(">\"", open + 1);
  return close == std::string::npos ? "" : line.substr(open + 1, close - open - 1);
}

/// Why a file at this place may not include that; empty if it may.
std::string objection(const std::string& file, const std::string& header) {
  if (header.starts_with("../") || header.find("/../") != std::string::npos)
    return "includes start at the repository's root";
  if (!starts_with_any(file, {"apps/", "models/", "engine/", "kernels/"})) return "";
  if (header.starts_with("bench/") && file.starts_with("apps/bench_")) return "";
  if (header.starts_with("tests/") || header.starts_with("bench/")) return "the product does not need its tests";
  if (header.starts_with("apps/") && !file.starts_with("apps/")) return "nothing is built on a program";
  if (file.starts_with("kernels/") && header != "engine/error.h" && starts_with_any(header, {"engine/", "models/"}))
    return "a kernel knows no engine";
  if (file.starts_with("engine/") && header.starts_with("models/")) return "the engine knows no model";
  if (file.starts_with("models/") && header.starts_with("kernels/")) return "a model names no kernel";
  if (starts_with_any(header, {"dnnl", "oneapi/dnnl", "cuda", "cudnn", "cublas", "nccl", "mpi.h", "mpi/"}) &&
      !starts_with_any(file, {"engine/backend/", "kernels/exec/"}))
    return "vendors' headers belong in engine/backend/ and kernels/exec/";
  if (starts_with_any(header, {"stb/", "stb_", "jpeglib.h", "jerror.h", "turbojpeg.h", "png.h", "webp/", "libexif/"}) &&
      !file.starts_with("engine/picture"))
    return "picture formats belong in engine/picture*";
  if (starts_with_any(header, {"libav", "libsw"}) && !file.starts_with("engine/video")) return "FFmpeg belongs in engine/video*";
  return "";
}

/// A home folder's path in a line.
bool names_a_home(const std::string& line) {
  for (const char* base : {"home", "Users", "root"}) {
    const std::string pattern = std::string("/") + base + "/";
    for (size_t at = line.find(pattern); at != std::string::npos; at = line.find(pattern, at + 1)) {
      const char before = at ? line[at - 1] : ' ';
      const char after = at + pattern.size() < line.size() ? line[at + pattern.size()] : ' ';
      if (!std::isalnum(uint8_t(before)) && std::isalnum(uint8_t(after))) return true;
    }
  }
  return false;
}

/// Checks one file; `name` is its path from the root, with slashes.
void check_file(const fs::path& path, const std::string& name, std::vector<std::string>& found) {
  std::ifstream f(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(f), {}};
  if (text.find('\0') != std::string::npos || !f) return;  // pictures, tensors, programs
  const std::string extension = path.extension().string();
  const bool header = extension == ".h" || extension == ".cuh" || extension == ".hpp";
  const bool source = header || extension == ".cpp" || extension == ".cu" || extension == ".c";
  const bool tabs = path.filename() == "Makefile" || extension == ".mk";  // make wants them
  size_t number = 0;
  bool once = false;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    number++;
    const auto note = [&](const std::string& what) {
      found.push_back(name + ":" + std::to_string(number) + ": " + what);
    };
    if (!tabs && line.find('\t') != std::string::npos) note("a tab");
    if (names_a_home(line)) note("somebody's home folder");
    if (line.starts_with("#pragma once")) once = true;
    if (!source) continue;
    const std::string target = included(line);
    if (const std::string why = target.empty() ? "" : objection(name, target); !why.empty()) note(target + ": " + why);
  }
  if (source && number > kMostLines)
    found.push_back(name + ": " + std::to_string(number) + " lines; " + std::to_string(kMostLines) + " are the most");
  if (header && !once) found.push_back(name + ": no #pragma once");
}

/// All violations below a root, each with file and line.
std::vector<std::string> violations(const fs::path& root, size_t* files = nullptr) {
  std::vector<fs::path> paths;
  for (const char* folder :
       {"apps", "models", "engine", "kernels", "tests", "bench", "examples", "docs", "scripts", "cmake", ".ci"}) {
    if (!fs::is_directory(root / folder)) continue;
    for (auto it = fs::recursive_directory_iterator(root / folder); it != fs::recursive_directory_iterator(); ++it) {
      if (it->path().filename() == "__pycache__") it.disable_recursion_pending();
      if (it->is_regular_file() && it->path().extension() != ".pyc") paths.push_back(it->path());
    }
  }
  for (const auto& entry :
       fs::directory_iterator(root)) {  // of the root only what is text by its name: builds land there
    const std::string name = entry.path().filename().string(), extension = entry.path().extension().string();
    const bool text = extension == ".md" || extension == ".txt" || extension == ".mk" || name == "Makefile" ||
                      name == "LICENSE" || name.starts_with(".clang-") || name == ".gitignore";
    if (entry.is_regular_file() && text) paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<std::string> found;
  for (const fs::path& p : paths) check_file(p, p.lexically_relative(root).generic_string(), found);
  if (files) *files = paths.size();
  return found;
}

void plant(const fs::path& root, const std::string& name, const std::string& text) {
  fs::create_directories((root / name).parent_path());
  std::ofstream(root / name, std::ios::binary) << text;
}

}  // namespace

TEST_CASE("house: the source tree keeps its rules") {
  size_t files = 0;
  const std::vector<std::string> found = violations(KILN_SOURCE_DIR, &files);
  CHECK(files > 100);  // the tree was really there
  for (const std::string& v : found) FAIL_CHECK(v);
}

TEST_CASE("house: what is allowed is not found") {
  const fixtures::TempFolder folder;
  std::string long_file;
  for (size_t i = 0; i < kMostLines; i++) long_file += "\n";
  for (const auto& [name, text] : std::initializer_list<std::pair<std::string, std::string>>{
           {"kernels/a.cu",
            "#include \"engine/error.h\"\n#include \"kernels/a.h\"\n// #include \"engine/ops.h\" would be wrong\n"},
           {"kernels/exec/exec.h", "#pragma once\n#include <cuda_runtime.h>\n"},
           {"engine/backend/onednn.cpp", "#include <dnnl.hpp>\n#include \"kernels/a.h\"\n"},
           {"engine/backend/mpi.cpp", "#include <mpi.h>\n"},
           {"engine/video.cpp", "#include <libavcodec/avcodec.h>\n"},
           {"engine/picture_png.cpp", "#include <png.h>\n#  include \"stb/stb_image.h\"\n"},
           {"models/a.cpp", "#include \"engine/ops.h\"\n#include \"models/a.h\"\n#include <cstdint>\n"},
           {"apps/a.cpp", "#include \"models/a.h\"\n#include \"engine/error.h\"\n"},
           {"apps/bench_a.cpp", "#include \"bench/a.h\"\n"},
           {"tests/a_test.cpp", "#include <png.h>\n#include \"kernels/a.h\"\n"},
           {"engine/long.cpp", long_file},
           {"docs/a.md", "data/home/x, chrome/root/, the home/end keys, /root/ itself\n"},
           {"tests/a.bin", std::string("\t\0", 2)},
           {"Makefile", "all:\n\tmake\n"},
           {"program", "\t#include\n"},
       })
    plant(folder.path, name, text);
  for (const std::string& v : violations(folder.path)) FAIL_CHECK(v);
}

TEST_CASE("house: planted violations are found, with file and line") {
  const fixtures::TempFolder folder;
  std::string long_file;
  for (size_t i = 0; i <= kMostLines; i++) long_file += "\n";
  const auto include = [](const std::string& what) { return "// first line\n#include " + what + "\n"; };
  const std::string a_home = std::string("see /ho") + "me/somebody/pictures\n";
  struct Planted {
    std::string name, text, expected;
  };
  for (const Planted& p : std::initializer_list<Planted>{
           {"kernels/a.cu", include("\"engine/ops.h\""), "kernels/a.cu:2: engine/ops.h: a kernel knows no engine"},
           {"kernels/exec/a.h", "#pragma once\n" + include("\"models/a.h\""),
            "kernels/exec/a.h:3: models/a.h: a kernel"},
           {"kernels/b.h", "#pragma once\n" + include("\"apps/a.h\""), "kernels/b.h:3: apps/a.h: nothing"},
           {"engine/a.h", "#pragma once\n" + include("\"models/fastgan.h\""),
            "engine/a.h:3: models/fastgan.h: the engine"},
           {"engine/b.cpp", include("\"apps/a.h\""), "engine/b.cpp:2: apps/a.h: nothing"},
           {"models/a.cpp", include("\"kernels/norm.h\""), "models/a.cpp:2: kernels/norm.h: a model names no kernel"},
           {"models/b.cpp", include("\"apps/a.h\""), "models/b.cpp:2: apps/a.h: nothing"},
           {"models/c.cpp", include("\"tests/support.h\""), "models/c.cpp:2: tests/support.h: the product"},
           {"apps/c.cpp", include("\"bench/a.h\""), "apps/c.cpp:2: bench/a.h: the product"},
           {"models/d.cpp", include("\"../kernels/norm.h\""), "models/d.cpp:2: ../kernels/norm.h: includes start"},
           {"engine/c.cpp", include("<dnnl.hpp>"), "engine/c.cpp:2: dnnl.hpp: vendors'"},
           {"engine/d.cpp", "#  include <oneapi/dnnl/dnnl.hpp>  // spaced\n",
            "engine/d.cpp:1: oneapi/dnnl/dnnl.hpp: vendors'"},
           {"kernels/c.cu", include("<cuda_runtime.h>"), "kernels/c.cu:2: cuda_runtime.h: vendors'"},
           {"engine/e.cpp", include("<cudnn.h>"), "engine/e.cpp:2: cudnn.h: vendors'"},
           {"apps/a.cpp", include("<cublasLt.h>"), "apps/a.cpp:2: cublasLt.h: vendors'"},
           {"models/e.cpp", include("<nccl.h>"), "models/e.cpp:2: nccl.h: vendors'"},
           {"engine/f.cpp", include("<mpi.h>"), "engine/f.cpp:2: mpi.h: vendors'"},
           {"apps/b.cpp", include("<png.h>"), "apps/b.cpp:2: png.h: picture"},
           {"engine/dataset.cpp", include("<stb/stb_image.h>"), "engine/dataset.cpp:2: stb/stb_image.h: picture"},
           {"engine/g.cpp", include("<jpeglib.h>"), "engine/g.cpp:2: jpeglib.h: picture"},
           {"models/f.cpp", include("<webp/decode.h>"), "models/f.cpp:2: webp/decode.h: picture"},
           {"engine/backend/picture.cpp", include("<libexif/exif-data.h>"),
            "engine/backend/picture.cpp:2: libexif/exif-data.h: picture"},
           {"models/g.cpp", include("<libavcodec/avcodec.h>"), "models/g.cpp:2: libavcodec/avcodec.h: FFmpeg"},
           {"tests/long.cpp", long_file, "tests/long.cpp: 601 lines; 600"},
           {"engine/h.h", "// a header\n", "engine/h.h: no #pragma once"},
           {"engine/i.cpp", "int a;\n\tint b;\n", "engine/i.cpp:2: a tab"},
           {"docs/a.md", "one\n two\tthree\n", "docs/a.md:2: a tab"},
           {"scripts/a.sh", a_home, "scripts/a.sh:1: somebody's home"},
           {"README.md", "\n\n" + a_home, "README.md:3: somebody's home"},
       }) {
    CAPTURE(p.expected);
    plant(folder.path, p.name, p.text);
    const std::vector<std::string> found = violations(folder.path);
    REQUIRE(found.size() == 1);
    CHECK(found[0].starts_with(p.expected));
    fs::remove(folder.path / p.name);
  }
  CHECK(violations(folder.path).empty());
}
