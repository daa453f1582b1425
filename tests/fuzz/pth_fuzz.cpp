// libFuzzer harness: no bytes may crash the .pth reader, leak, or take memory out of proportion; every tensor that it hands out
// lies inside its storage. Build with clang -fsanitize=fuzzer,address,undefined; see corpus/README.md.
#include <cstddef>
#include <cstdint>
#include <set>
#include <span>

#include "engine/error.h"
#include "engine/pth.h"

namespace {

/// Reads every number: the sanitizer sees what lies outside. A node may be in many places; it is visited once.
void visit(const kiln::PthNode& node, int depth, std::set<const kiln::PthNode*>& seen) {
  KILN_ASSERT(depth <= kiln::kPthDepth);
  if (!seen.insert(&node).second) return;
  if (node.kind == kiln::PthNode::Kind::tensor) {
    const kiln::PthTensor& t = node.tensor;
    if (t.count() > 1 << 20) return;  // a stride of 0 repeats few numbers often: larger only makes it slow
    KILN_ASSERT(int64_t(t.floats().size()) == t.count());
    if (t.dtype()[0] == 'I') KILN_ASSERT(int64_t(t.integers().size()) == t.count());
  }
  for (const kiln::PthValue& item : node.items) visit(*item, depth + 1, seen);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const kiln::PthValue root = kiln::read_pth(std::span(reinterpret_cast<const std::byte*>(data), size), "fuzz");
    std::set<const kiln::PthNode*> seen;
    visit(*root, 0, seen);
    root->find("state");
  } catch (const kiln::Error&) {
  }
  return 0;
}
