// Classes from folders.
#include "engine/classes.h"

#include <fstream>

#include "tests/program.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::test;
namespace fs = std::filesystem;

TEST_CASE("classes: the first folder is the class, in the order of its bytes") {
  const ClassIndex c = index_classes({"a/1.jpg", "a/deep/er/2.jpg", "b/3.jpg", "Zoo/4.jpg"}, "nowhere");
  CHECK(c.names == std::vector<std::string>{"Zoo", "a", "b"});
  CHECK(c.labels == std::vector<int32_t>{1, 1, 2, 0});
  CHECK(c.counts == std::vector<int64_t>{1, 2, 1});
  CHECK(contains(c.balance(), "3 classes: Zoo 1, a 2, b 1; the largest has 2.0 times"));
}

TEST_CASE("classes: pictures without folders have none; some with and some without are refused") {
  const ClassIndex c = index_classes({"1.jpg", "2.jpg"}, "nowhere");
  CHECK(c.names.empty());
  CHECK(c.labels == std::vector<int32_t>{0, 0});
  CHECK(contains(c.balance(), "unconditional"));
  const std::string text = error_of([] { index_classes({"1.jpg", "a/2.jpg", "b/3.jpg"}, "pictures"); });
  for (const char* word : {"pictures", "2 pictures lie in 2 class folders", "1 in none", "1.jpg", "--unconditional"}) CHECK(contains(text, word));
}

TEST_CASE("classes: a lone folder is stepped into, and said") {
  const ClassIndex c = index_classes({"train/a/1.jpg", "train/b/2.jpg"}, "data");
  CHECK(c.names == std::vector<std::string>{"a", "b"});
  REQUIRE(c.notes.size() == 3);
  CHECK(contains(c.notes[0], "data/train"));
  // A lone folder with pictures in it is one class.
  CHECK(index_classes({"cat/1.jpg", "cat/2.jpg"}, "data").names == std::vector<std::string>{"cat"});
  CHECK(index_classes({"cat/1.jpg", "cat/more/2.jpg"}, "data").names == std::vector<std::string>{"cat"});
}

TEST_CASE("classes: train and test are suspected to be no classes") {
  const ClassIndex c = index_classes({"test/a/1.jpg", "test/b/2.jpg", "train/a/1.jpg", "train/b/2.jpg"}, "data");
  CHECK(c.names == std::vector<std::string>{"test", "train"});
  REQUIRE(!c.notes.empty());
  CHECK(contains(c.notes.back(), "data/test"));
  CHECK(contains(c.notes.back(), "(a, b, ...)"));
}

TEST_CASE("classes: one picture, none, and names that are not UTF-8") {
  const TempFolder t;
  fs::create_directories(t / "a");
  fs::create_directories(t / "empty");
  fs::create_directories(t / "\xff\xfe");
  const ClassIndex c = index_classes({"a/1.jpg", "a/2.jpg", "\xff\xfe/3.jpg", "gr\xc3\xbcn/4.jpg", "gr\xc3\xbcn/5.jpg"}, t.path());
  CHECK(c.names == std::vector<std::string>{"a", "gr\xc3\xbcn", "\\xff\\xfe"});
  REQUIRE(c.notes.size() == 2);
  CHECK(contains(c.notes[0], "empty"));
  CHECK(contains(c.notes[1], "\\xff\\xfe has one picture"));
}

TEST_CASE("classes: printable leaves UTF-8 as it is and nothing else") {
  CHECK(printable("gr\xc3\xbcn \xe2\x82\xac \xf0\x9f\x98\x80") == "gr\xc3\xbcn \xe2\x82\xac \xf0\x9f\x98\x80");
  CHECK(printable("\xc3(") == "\\xc3(");
  CHECK(printable("\xc0\xaf") == "\\xc0\\xaf");          // overlong
  CHECK(printable("\xed\xa0\x80") == "\\xed\\xa0\\x80");  // a surrogate
  CHECK(printable("\xf4\x90\x80\x80") == "\\xf4\\x90\\x80\\x80");
  CHECK(printable("\xe2\x82") == "\\xe2\\x82");  // cut short
}
