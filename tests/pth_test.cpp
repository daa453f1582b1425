// .pth files: PyTorch's own (tests/golden/make_pth.py), ours, damaged ones and hostile ones.
#include "engine/pth.h"

#include <fstream>

#include "engine/file.h"
#include "tests/program.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::test;
using Kind = PthNode::Kind;
namespace fs = std::filesystem;

namespace {

fs::path golden(const std::string& name) { return fs::path(KILN_SOURCE_DIR) / "tests/golden/pth" / name; }

std::vector<std::byte> bytes_of(const fs::path& path) {
  const auto b = read_file(path, 1 << 20);
  const auto s = std::as_bytes(std::span(b));
  return {s.begin(), s.end()};
}

PthValue parse(const std::string& text) { return read_pth(std::as_bytes(std::span(text)), "it"); }

/// A legacy file whose object is the given pickle, with no storages.
std::string legacy(const std::string& object) {
  const auto magic = bytes_of(golden("legacy.pth"));
  const std::string head(reinterpret_cast<const char*>(magic.data()), 15);
  return head + std::string("\x80\x02M\xe9\x03.", 6) + std::string("\x80\x02}.", 4) + std::string("\x80\x02", 2) + object + std::string("\x80\x02].", 4);
}

void check_values(const PthNode& root) {
  CHECK(root.find("iteration")->integer == 12345);
  CHECK(root.find("large")->integer == -(int64_t{1} << 40));
  CHECK(root.find("rate")->real == 2e-4);
  CHECK(root.find("betas")->kind == Kind::tuple);
  CHECK(root.find("betas")->items[1]->real == 0.999);
  CHECK(root.find("name")->text == "k\xc3\xa4se");
  CHECK(root.find("flag")->kind == Kind::boolean);
  CHECK(root.find("flag")->integer == 1);
  CHECK(root.find("nothing")->kind == Kind::none);
  CHECK(root.find("list")->items[1]->items[1]->find("x")->integer == 3);
  CHECK(root.find("state")->find(int64_t{0})->find("step")->tensor.floats() == std::vector<float>{3});
  CHECK(root.find("state")->find(int64_t{1})->find("step")->integer == 4);
  CHECK(root.find("not there") == nullptr);

  const PthValue g = root.find("g");
  REQUIRE(g);
  const auto tensor = [&](const char* name) {
    const PthValue v = g->find(name);
    REQUIRE(v);
    REQUIRE(v->kind == Kind::tensor);
    return v->tensor;
  };
  const PthTensor w = tensor("module.a.weight");
  CHECK(w.shape == std::vector<int64_t>{2, 3, 2, 2});
  CHECK(w.dtype() == "F32");
  CHECK(w.floats()[0] == -5);
  CHECK(w.floats()[23] == 18);
  const PthTensor t = tensor("transposed");
  CHECK(t.shape == std::vector<int64_t>{6, 4});
  CHECK(t.floats()[1] == 1.5f);  // row 1 of the matrix that it is the transpose of, column 0: 6 / 4
  CHECK(t.floats()[4] == 0.25f);
  CHECK(tensor("window").floats() == std::vector<float>{2, 2.25, 2.5, 3.5, 3.75, 4});
  CHECK(tensor("parameter").floats() == std::vector<float>{1.5, -2.5});
  CHECK(tensor("scalar").shape.empty());
  CHECK(tensor("scalar").integers() == std::vector<int64_t>{7});
  CHECK(tensor("empty").count() == 0);
  CHECK(tensor("empty").floats().empty());
  for (const char* type : {"float64", "float16", "bfloat16", "int64", "int32", "uint8"}) {
    CAPTURE(type);
    CHECK(tensor(type).floats() == std::vector<float>{0, 1, 2});
  }
  CHECK(tensor("float16").dtype() == "F16");
  CHECK(tensor("bool").integers() == std::vector<int64_t>{0, 1, 1});
}

}  // namespace

TEST_CASE("pth: both forms of PyTorch's files give the values that were saved") {
  check_values(*read_pth(golden("zip.pth")));
  check_values(*read_pth(golden("legacy.pth")));
}

TEST_CASE("pth: what would execute something is refused by name") {
  for (const char* file : {"evil_zip.pth", "evil_legacy.pth"}) {
    const std::string e = error_of([&] { read_pth(golden(file)); });
    CAPTURE(e);
    CHECK(contains(e, file));
    CHECK(contains(e, "posix system"));
    CHECK(contains(e, "refused"));
  }
  const std::string e = error_of([] { read_pth(golden("module.pth")); });
  CAPTURE(e);
  CHECK(contains(e, "torch.nn.modules.linear Linear"));
  CHECK(contains(error_of([] { parse(legacy("ios\nsystem\n.")); }), "opcode 'i'"));          // INST
  CHECK(contains(error_of([] { parse(legacy("}\x82.")); }), "opcode 0x82"));                // EXT1
  CHECK(contains(error_of([] { parse(legacy("cos\nsystem\n.")); }), "'os system' as a value"));
  CHECK(contains(error_of([] { parse(legacy("cos\nsystem\n)R.")); }), "calls 'os system'"));
  CHECK(contains(error_of([] { parse(legacy("}}U\x08__call__Nsb.")); }), "attribute '__call__'"));
}

TEST_CASE("pth: damaged files end with an error that names them") {
  for (const char* file : {"zip.pth", "legacy.pth"}) {
    const std::vector<std::byte> whole = bytes_of(golden(file));
    size_t read = 0;
    for (size_t n = 0; n < whole.size(); n++) {
      const std::string e = error_of([&] { read_pth(std::span(whole).first(n), "short.pth"); });
      if (e.empty()) read++;
      else CHECK(e.starts_with("short.pth: "));
    }
    CHECK(read == 0);
    // A flipped byte may be harmless (a name, a number); it must not crash.
    for (size_t i = 0; i < whole.size(); i++) {
      std::vector<std::byte> flipped = whole;
      flipped[i] ^= std::byte{0x41};
      error_of([&] { read_pth(flipped, "flipped.pth"); });
    }
  }
  CHECK(contains(error_of([] { parse(""); }), "empty"));
  CHECK(contains(error_of([] { parse("hello"); }), "not a .pth file"));
  CHECK(contains(error_of([] { read_pth("/nowhere/a.pth"); }), "/nowhere/a.pth"));
}

TEST_CASE("pth: hostile pickles are refused") {
  CHECK(contains(error_of([] { parse(legacy("]q\x01h\x01" "a.")); }), "into itself"));
  CHECK(contains(error_of([] { parse(legacy("]q\x01]q\x02" "a0h\x02h\x01" "a.")); }), "after it has been put"));  // a in b, then b in a
  std::string deep;
  for (int i = 0; i < 100; i++) deep += ']';
  for (int i = 0; i < 99; i++) deep += 'a';
  CHECK(contains(error_of([&] { parse(legacy(deep + ".")); }), "nested"));
  CHECK(parse(legacy("].")) != nullptr);
  CHECK(contains(error_of([] { parse(legacy("X\xff\xff\xff\x7f.")); }), "cut short"));
  CHECK(contains(error_of([] { parse(legacy("h\x07.")); }), "empty"));
  CHECK(contains(error_of([] { parse(legacy("R.")); }), "stack is empty"));
  CHECK(contains(error_of([] { parse(legacy("(U\x07storagectorch\nFloatStorage\nU\x01" "0U\x03" "cpuK\x04tQ.")); }), "no value"));
  // A tensor larger than its storage of 4, one with stride 0, one that begins behind the end.
  const std::string head = "ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x01" "0U\x03" "cpuK\x04tQ";
  const std::string tail = "\x89N" "tR.";
  for (const std::string& view : {std::string("K\x00(K\x05t(K\x01t", 10), std::string("K\x00(K\x08t(K\x00t", 10), std::string("K\x04(K\x01t(K\x01t", 10)}) {
    CHECK(contains(error_of([&] { parse(legacy(head + view + tail)); }), "beyond its storage"));
  }
  // The view is sound, but the storage never comes.
  CHECK(contains(error_of([&] { parse(legacy(head + std::string("K\x00(K\x04t(K\x01t", 10) + tail)); }), "0 storages where its tensors use 1"));
}

TEST_CASE("pth: what is written is read again, equal calls give equal bytes") {
  const TempFolder t;
  const PthValue root = PthNode::dict();
  const PthValue g = PthNode::dict();
  g->set("w", PthNode::of(PthTensor::of({2, 3}, {1, 2, 3, 4, 5, 6})));
  g->set("steps", PthNode::of(PthTensor::of_integer(1 << 20)));
  g->set("empty", PthNode::of(PthTensor::of({0}, {})));
  root->set("g", g);
  root->set("list", PthNode::list({PthNode::of(int64_t{-1}), PthNode::of(int64_t{1} << 40), PthNode::of(2.5), PthNode::of(true), PthNode::none(), PthNode::of("text")}));
  root->set("betas", PthNode::list({PthNode::of(0.5), PthNode::of(0.999)}, Kind::tuple));
  root->set(PthNode::of(int64_t{7}), PthNode::of("under an integer"));
  write_pth(t / "a.pth", *root);
  write_pth(t / "b.pth", *root);
  CHECK(bytes_of(t / "a.pth") == bytes_of(t / "b.pth"));
  const PthValue back = read_pth(t / "a.pth");
  CHECK(back->find("g")->find("w")->tensor.floats() == std::vector<float>{1, 2, 3, 4, 5, 6});
  CHECK(back->find("g")->find("w")->tensor.shape == std::vector<int64_t>{2, 3});
  CHECK(back->find("g")->find("steps")->tensor.integers() == std::vector<int64_t>{1 << 20});
  CHECK(back->find("g")->find("empty")->tensor.count() == 0);
  const auto& items = back->find("list")->items;
  REQUIRE(items.size() == 6);
  CHECK(items[0]->integer == -1);
  CHECK(items[1]->integer == int64_t{1} << 40);
  CHECK(items[2]->real == 2.5);
  CHECK(items[3]->kind == Kind::boolean);
  CHECK(items[4]->kind == Kind::none);
  CHECK(items[5]->text == "text");
  CHECK(back->find("betas")->items[1]->real == 0.999);
  CHECK(back->find(int64_t{7})->text == "under an integer");
  CHECK(contains(error_of([&] { write_pth(t / "no/such/folder.pth", *root); }), "no/such"));
}
