#include "engine/pth_pickle.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <unordered_map>

#include "engine/error.h"

namespace kiln::pth {
namespace {

struct StorageClass {
  const char *name, *dtype;
  int bytes;
};
constexpr std::array<StorageClass, 10> kStorages{{{"FloatStorage", "F32", 4}, {"DoubleStorage", "F64", 8}, {"HalfStorage", "F16", 2},
                                                  {"BFloat16Storage", "BF16", 2}, {"LongStorage", "I64", 8}, {"IntStorage", "I32", 4},
                                                  {"ShortStorage", "I16", 2}, {"CharStorage", "I8", 1}, {"ByteStorage", "U8", 1},
                                                  {"BoolStorage", "BOOL", 1}}};

/// Text from a file in an error: short and printable.
std::string readable(const std::string& text) {
  std::string out;
  for (char c : text.substr(0, 80)) out += c >= ' ' && c < 127 ? c : '?';
  return out;
}

const std::string kBuildTensor = "torch._utils _rebuild_tensor_v2", kBuildTensorOld = "torch._utils _rebuild_tensor",
                  kBuildParameter = "torch._utils _rebuild_parameter", kOrderedDict = "collections OrderedDict", kSize = "torch Size";

/// What lies on the machine's stack: a value, the name of a class, a storage, or a mark.
struct Slot {
  enum What : uint8_t { value, global, storage, mark } what = value;
  PthValue v;
  std::string name;
  std::shared_ptr<const PthStorage> s;
};

class Machine {
 public:
  Machine(std::span<const std::byte>& bytes, const std::string& name, const FindStorage& find) : in_(bytes), name_(name), find_(find) {}
  PthValue run();

 private:
  using Kind = PthNode::Kind;
  template <class... A>
  [[noreturn]] void broken(fmt::format_string<A...> f, A&&... a) {
    fail("{}: {}", name_, fmt::format(f, std::forward<A>(a)...));
  }
  std::span<const std::byte> take(uint64_t n) {
    if (n > in_.size()) broken("its pickle is cut short; download or copy it again");
    const auto part = in_.first(size_t(n));
    in_ = in_.subspan(size_t(n));
    return part;
  }
  uint64_t number(int bytes) {  // little-endian
    uint64_t x = 0;
    const auto part = take(uint64_t(bytes));
    for (int i = 0; i < bytes; i++) x |= uint64_t(uint8_t(part[size_t(i)])) << (8 * i);
    return x;
  }
  std::string text(uint64_t n) {
    const auto part = take(n);
    return {reinterpret_cast<const char*>(part.data()), part.size()};
  }
  std::string line() {
    std::string s;
    for (;;) {
      const char c = char(take(1)[0]);
      if (c == '\n') return s;
      s += c;
      if (s.size() > 1000) broken("a class's name in its pickle does not end");
    }
  }
  int64_t long_integer(uint64_t n) {  // two's complement of n bytes
    const auto part = take(n);
    if (n == 0) return 0;
    if (n > 8) {
      // The magic number of old files is the only long one met; its value is looked at byte by byte elsewhere.
      if (n > 16) broken("an integer of {} bytes in its pickle: it is no state dict", n);
      return INT64_MAX;
    }
    uint64_t x = uint8_t(part[size_t(n - 1)]) & 0x80 ? ~0ull : 0ull;
    for (size_t i = size_t(n); i-- > 0;) x = x << 8 | uint8_t(part[i]);
    return int64_t(x);
  }

  void push(PthValue v) { stack_.push_back({Slot::value, std::move(v), {}, nullptr}); }
  Slot pop() {
    if (stack_.empty()) broken("its pickle is damaged: the stack is empty");
    Slot s = std::move(stack_.back());
    stack_.pop_back();
    return s;
  }
  PthValue value(Slot s, const char* where) {
    if (s.what == Slot::global) broken("its pickle has {} '{}' as a value: refused; nothing in a file is executed", where, readable(s.name));
    if (s.what != Slot::value) broken("its pickle is damaged: no value {}", where);
    return std::move(s.v);
  }
  Slot& top() {
    if (stack_.empty() || stack_.back().what == Slot::mark) broken("its pickle is damaged: the stack is empty");
    return stack_.back();
  }
  std::vector<Slot> to_mark() {
    size_t at = stack_.size();
    while (at > 0 && stack_[at - 1].what != Slot::mark) at--;
    if (at == 0) broken("its pickle is damaged: a mark is missing");
    std::vector<Slot> items(std::make_move_iterator(stack_.begin() + int64_t(at)), std::make_move_iterator(stack_.end()));
    stack_.resize(at - 1);
    return items;
  }
  /// Puts a child into a container that is being filled.
  void add(PthNode& parent, const PthValue& child) {
    if (parent.sealed) broken("its pickle changes a container after it has been put into another: refused");
    if (child.get() == &parent) broken("its pickle puts a container into itself: refused");
    child->sealed = true;
    parent.depth = std::max(parent.depth, child->depth + 1);
    if (parent.depth > kPthDepth) broken("its containers are nested more than {} deep: it is no state dict", kPthDepth);
    parent.items.push_back(child);
  }
  PthNode& container(Kind kind) {
    Slot& s = top();
    if (s.what != Slot::value || s.v->kind != kind) broken("its pickle is damaged: no {} to add to", kind == Kind::dict ? "dict" : "list");
    return *s.v;
  }
  void set_items(const std::vector<Slot>& pairs) {
    PthNode& dict = container(Kind::dict);
    if (pairs.size() % 2) broken("its pickle is damaged: a key without a value");
    for (size_t i = 0; i < pairs.size(); i += 2) {
      const PthValue key = value(pairs[i], "a key");
      if (key->kind != Kind::text && key->kind != Kind::integer && key->kind != Kind::boolean && key->kind != Kind::real &&
          key->kind != Kind::none && key->kind != Kind::tuple)
        broken("a {} as a key in its pickle: it is no state dict", key->kind_name());
      add(dict, key);
      add(dict, value(pairs[i + 1], "under a key"));
    }
  }
  void push_tuple(std::vector<Slot> items) {
    // A storage or a class may stand in a tuple of arguments: it is kept beside the tuple, under its place.
    const PthValue t = PthNode::list({}, Kind::tuple);
    Slot slot{Slot::value, t, {}, nullptr};
    for (size_t i = 0; i < items.size(); i++) {
      if (items[i].what == Slot::storage) {
        if (i != 0) broken("its pickle has a storage where a value should be");
        slot.s = items[i].s;
        add(*t, PthNode::none());
      } else if (items[i].what == Slot::global && i == 1) {
        slot.name = items[i].name;
        add(*t, PthNode::none());
      } else {
        add(*t, value(items[i], "in a tuple"));
      }
    }
    stack_.push_back(std::move(slot));
  }
  void memoize(uint64_t at) {
    if (at > 100'000'000) broken("its pickle is damaged: place {} in its memory", at);
    memo_[uint32_t(at)] = top();
  }
  void recall(uint64_t at) {
    const auto it = memo_.find(uint32_t(at));
    if (at > UINT32_MAX || it == memo_.end()) broken("its pickle is damaged: place {} of its memory is empty", at);
    stack_.push_back(it->second);
  }

  void persistent_id();
  void reduce();
  void build();
  PthValue tensor(const Slot& arguments, bool v2);
  std::vector<int64_t> sizes(const PthNode& n, const char* what);

  std::span<const std::byte>& in_;
  const std::string& name_;
  const FindStorage& find_;
  std::vector<Slot> stack_;
  std::unordered_map<uint32_t, Slot> memo_;
};

void Machine::persistent_id() {
  const Slot slot = pop();
  const PthValue t = value(slot, "a persistent id");
  const auto text_at = [&](size_t i) { return i < t->items.size() && t->items[i]->kind == Kind::text; };
  if (t->kind != Kind::tuple || t->items.size() < 5 || t->items.size() > 6 || !text_at(0) || t->items[0]->text != "storage" ||
      !(text_at(2) || t->items[2]->kind == Kind::integer) || t->items[4]->kind != Kind::integer)
    broken("its pickle names something outside of itself that is no storage: refused");
  StorageId id;
  for (const StorageClass& c : kStorages)
    if (slot.name == std::string("torch ") + c.name) id.dtype = c.dtype;
  if (id.dtype.empty()) broken("the storage class '{}' is not known: refused", readable(slot.name));
  id.key = text_at(2) ? t->items[2]->text : std::to_string(t->items[2]->integer);
  id.count = t->items[4]->integer;
  if (id.count < 0) broken("a storage of {} elements", id.count);
  if (t->items.size() == 6 && t->items[5]->kind == Kind::tuple) {
    const auto& view = t->items[5]->items;
    if (view.size() != 3 || view[1]->kind != Kind::integer || view[2]->kind != Kind::integer) broken("a view of a storage that cannot be read");
    id.view_key = view[0]->kind == Kind::text ? view[0]->text : std::to_string(view[0]->integer);
    id.view_offset = view[1]->integer;
    id.view_count = view[2]->integer;
    if (id.view_offset < 0 || id.view_count < 0 || id.view_offset > id.count || id.view_count > id.count - id.view_offset)
      broken("a view that is not inside its storage");
  }
  stack_.push_back({Slot::storage, nullptr, {}, find_(id)});
}

std::vector<int64_t> Machine::sizes(const PthNode& n, const char* what) {
  if (n.kind != Kind::tuple && n.kind != Kind::list) broken("a tensor's {} is a {}", what, n.kind_name());
  std::vector<int64_t> out;
  for (const PthValue& v : n.items) {
    if (v->kind != Kind::integer || v->integer < 0 || v->integer > (int64_t{1} << 48)) broken("a tensor's {} cannot be read", what);
    out.push_back(v->integer);
  }
  if (out.size() > 16) broken("a tensor of {} axes", out.size());
  return out;
}

PthValue Machine::tensor(const Slot& a, bool v2) {
  const PthNode& t = *a.v;
  if (!a.s || t.items.size() < (v2 ? 6u : 4u) || t.items[1]->kind != Kind::integer) broken("a tensor that cannot be read");
  PthTensor out;
  out.storage = a.s;
  out.offset = t.items[1]->integer;
  out.shape = sizes(*t.items[2], "shape");
  out.strides = sizes(*t.items[3], "strides");
  if (out.shape.size() != out.strides.size()) broken("a tensor of {} sizes and {} strides", out.shape.size(), out.strides.size());
  uint64_t count = 1, last = uint64_t(out.offset);
  bool over = out.offset < 0, empty = false;
  for (size_t i = 0; i < out.shape.size(); i++) {
    if (out.shape[i] == 0) empty = true;
    over |= __builtin_mul_overflow(count, uint64_t(std::max<int64_t>(out.shape[i], 1)), &count);
    uint64_t reach = 0;
    over |= __builtin_mul_overflow(uint64_t(std::max<int64_t>(out.shape[i], 1) - 1), uint64_t(out.strides[i]), &reach);
    over |= __builtin_add_overflow(last, reach, &last);
  }
  if (over || (!empty && (last >= uint64_t(out.storage->count) || count > uint64_t(out.storage->count))))
    broken("a tensor that reaches beyond its storage of {} elements, or repeats its elements", out.storage->count);
  return PthNode::of(std::move(out));
}

void Machine::reduce() {
  const Slot arguments = pop(), callee = pop();
  if (callee.what != Slot::global) broken("its pickle calls what is no class: refused");
  const PthValue a = value(arguments, "as arguments");
  if (a->kind != Kind::tuple) broken("its pickle is damaged: arguments are no tuple");
  if (callee.name == kOrderedDict) {
    const PthValue dict = PthNode::dict();
    push(dict);
    if (a->items.empty()) return;
    if (a->items.size() != 1 || a->items[0]->kind != Kind::list) broken("an OrderedDict that cannot be read");
    std::vector<Slot> pairs;
    for (const PthValue& p : a->items[0]->items) {
      if ((p->kind != Kind::list && p->kind != Kind::tuple) || p->items.size() != 2) broken("an OrderedDict that cannot be read");
      for (const PthValue& v : p->items) pairs.push_back({Slot::value, v, {}, nullptr});
    }
    set_items(pairs);
  } else if (callee.name == kBuildTensor || callee.name == kBuildTensorOld) {
    push(tensor(arguments, callee.name == kBuildTensor));
  } else if (callee.name == kBuildParameter) {
    if (a->items.size() != 3 || a->items[0]->kind != Kind::tensor) broken("a parameter that cannot be read");
    push(a->items[0]);
  } else if (callee.name == kSize) {
    if (a->items.size() != 1 || a->items[0]->kind != Kind::tuple) broken("a size that cannot be read");
    push(a->items[0]);
  } else {
    broken("its pickle calls '{}': refused; nothing in a file is executed. Save a state dict in place of the object", readable(callee.name));
  }
}

/// A state dict carries its modules' versions as an attribute; nothing here needs them.
void Machine::build() {
  const PthValue state = value(pop(), "as a state");
  const PthNode& target = container(Kind::dict);
  (void)target;
  if (state->kind != Kind::dict) broken("its pickle sets attributes of a dict that are no dict: refused");
  for (size_t i = 0; i < state->items.size(); i += 2)
    if (state->items[i]->kind != Kind::text || state->items[i]->text != "_metadata")
      broken("its pickle sets the attribute '{}': refused; nothing in a file is executed", readable(state->items[i]->text));
}

PthValue Machine::run() {
  for (;;) {
    const uint8_t op = uint8_t(take(1)[0]);
    switch (op) {
      case 0x80: if (const uint64_t p = number(1); p > 5) broken("pickle protocol {} is not known", p); break;
      case 0x95: number(8); break;  // a frame: a hint to readers
      case '(': stack_.push_back({Slot::mark, nullptr, {}, nullptr}); break;
      case '0': pop(); break;
      case '1': to_mark(); break;
      case '2': stack_.push_back(top()); break;
      case 'N': push(PthNode::none()); break;
      case 0x88: push(PthNode::of(true)); break;
      case 0x89: push(PthNode::of(false)); break;
      case 'J': push(PthNode::of(int64_t(int32_t(number(4))))); break;
      case 'K': push(PthNode::of(int64_t(number(1)))); break;
      case 'M': push(PthNode::of(int64_t(number(2)))); break;
      case 0x8a: push(PthNode::of(long_integer(number(1)))); break;
      case 0x8b: push(PthNode::of(long_integer(number(4)))); break;
      case 'G': {
        uint64_t bits = 0;
        for (std::byte b : take(8)) bits = bits << 8 | uint8_t(b);
        double d;
        std::memcpy(&d, &bits, 8);
        push(PthNode::of(d));
        break;
      }
      case 'X': case 'T': push(PthNode::of(text(number(4)))); break;
      case 0x8c: case 'U': push(PthNode::of(text(number(1)))); break;
      case 0x8d: push(PthNode::of(text(number(8)))); break;
      case ']': push(PthNode::list()); break;
      case '}': push(PthNode::dict()); break;
      case ')': push_tuple({}); break;
      case 't': push_tuple(to_mark()); break;
      case 0x85: case 0x86: case 0x87: {
        std::vector<Slot> items(size_t(op) - 0x84);
        for (size_t i = items.size(); i-- > 0;) {
          if (stack_.empty() || stack_.back().what == Slot::mark) broken("its pickle is damaged: the stack is empty");
          items[i] = pop();
        }
        push_tuple(std::move(items));
        break;
      }
      case 'a': { const PthValue v = value(pop(), "in a list"); add(container(Kind::list), v); break; }
      case 'e': { const auto items = to_mark(); PthNode& l = container(Kind::list); for (const Slot& s : items) add(l, value(s, "in a list")); break; }
      case 's': { std::vector<Slot> pair(2); pair[1] = pop(); pair[0] = pop(); set_items(pair); break; }
      case 'u': set_items(to_mark()); break;
      case 'q': memoize(number(1)); break;
      case 'r': memoize(number(4)); break;
      case 0x94: memoize(memo_.size()); break;
      case 'h': recall(number(1)); break;
      case 'j': recall(number(4)); break;
      case 'c': { const std::string module = line(); stack_.push_back({Slot::global, nullptr, module + " " + line(), nullptr}); break; }
      case 0x93: {
        const PthValue n = value(pop(), "a class's name"), m = value(pop(), "a module's name");
        stack_.push_back({Slot::global, nullptr, m->text + " " + n->text, nullptr});
        break;
      }
      case 'Q': persistent_id(); break;
      case 'R': reduce(); break;
      case 0x81: {  // an object without its constructor
        pop();
        const Slot callee = pop();
        broken("its pickle makes an object of '{}': refused; nothing in a file is executed. Save a state dict in place of the object", readable(callee.name));
      }
      case 'b': build(); break;
      case '.': {
        const PthValue v = value(pop(), "the whole");
        if (!stack_.empty()) broken("its pickle is damaged: it ends too early");
        return v;
      }
      default: {
        const std::string shown = op > ' ' && op < 127 ? fmt::format("'{}'", char(op)) : fmt::format("0x{:02x}", op);
        broken("pickle opcode {} is refused: no state dict needs it, and nothing in a file is executed", shown);
      }
    }
  }
}

}  // namespace

int64_t element_bytes(const std::string& dtype) {
  for (const StorageClass& c : kStorages)
    if (dtype == c.dtype) return c.bytes;
  KILN_ASSERT(!"a known dtype");
  return 0;
}

PthValue run_pickle(std::span<const std::byte>& bytes, const std::string& name, const FindStorage& find) {
  return Machine(bytes, name, find).run();
}

std::string write_pickle(const PthNode& root, const std::function<int64_t(const PthTensor&)>& store) {
  std::string out("\x80\x02", 2);
  const auto number = [&](uint64_t x, int bytes) {
    for (int i = 0; i < bytes; i++) out += char(x >> (8 * i) & 0xff);
  };
  const auto integer = [&](int64_t x) {
    if (x == int64_t(int32_t(x))) {
      out += 'J';
      number(uint64_t(uint32_t(int32_t(x))), 4);
    } else {
      out += "\x8a\x08";
      number(uint64_t(x), 8);
    }
  };
  const auto text = [&](const std::string& s) {
    out += 'X';
    number(s.size(), 4);
    out += s;
  };
  const auto tuple = [&](const std::vector<int64_t>& v) {
    out += '(';
    for (int64_t x : v) integer(x);
    out += 't';
  };
  const std::function<void(const PthNode&)> write = [&](const PthNode& n) {
    using Kind = PthNode::Kind;
    switch (n.kind) {
      case Kind::none: out += 'N'; break;
      case Kind::boolean: out += n.integer ? '\x88' : '\x89'; break;
      case Kind::integer: integer(n.integer); break;
      case Kind::real: {
        uint64_t bits;
        std::memcpy(&bits, &n.real, 8);
        out += 'G';
        for (int i = 7; i >= 0; i--) out += char(bits >> (8 * i) & 0xff);
        break;
      }
      case Kind::text: text(n.text); break;
      case Kind::list: case Kind::tuple: case Kind::dict:
        if (n.kind != Kind::tuple) out += n.kind == Kind::list ? ']' : '}';
        out += '(';
        for (const PthValue& v : n.items) write(*v);
        out += n.kind == Kind::list ? 'e' : n.kind == Kind::tuple ? 't' : 'u';
        break;
      case Kind::tensor: {
        const PthTensor& t = n.tensor;
        out += "c" + kBuildTensor.substr(0, kBuildTensor.find(' ')) + "\n" + kBuildTensor.substr(kBuildTensor.find(' ') + 1) + "\n((";
        text("storage");
        const auto c = std::find_if(kStorages.begin(), kStorages.end(), [&](const StorageClass& s) { return t.dtype() == s.dtype; });
        out += std::string("ctorch\n") + c->name + "\n";
        text(std::to_string(store(t)));
        text("cpu");
        integer(t.count());
        out += "tQ";
        integer(0);
        tuple(t.shape);
        std::vector<int64_t> strides(t.shape.size(), 1);
        for (size_t i = strides.size(); i-- > 1;) strides[i - 1] = strides[i] * std::max<int64_t>(t.shape[i], 1);
        tuple(strides);
        out += "\x89" "ccollections\nOrderedDict\n)RtR";
        break;
      }
    }
  };
  write(root);
  return out + '.';
}

}  // namespace kiln::pth
