// conv_support: cuDNN has a plan, on tensor cores in 16 bits, for every convolution of every model at every training size, on
// cards that need not be there: cuDNN plans from a card's properties (tests/devices, written from public specifications).
// What is proved is that plans exist; their numbers and their speed are not looked at.
#include <fmt/format.h>

#include <map>
#include <set>
#include <sstream>

#include "engine/backend/cudnn.h"
#include "engine/backend/gpu_runtime.h"
#include "models/fastgan_training.h"
#include "tests/program.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::test;

namespace {

constexpr ConvDirection kDirections[] = {ConvDirection::forward, ConvDirection::data, ConvDirection::weights};
const std::string kFolder = std::string(KILN_SOURCE_DIR) + "/tests/devices/";

std::string text(ConvDirection d, const ConvShape& s) {
  const std::string third = s.is_3d() ? fmt::format(", {} to {} frames, {} deep, padded by {}", s.d, s.od, s.kd, s.pad_d) : "";
  return fmt::format("{}, {}x{}x{}x{} to {}x{}x{}, kernel {}x{}, stride {}, pad {}{}{}", name_of(d), s.n, s.h, s.w, s.c, s.oh, s.ow, s.oc, s.kh,
                     s.kw, s.stride, s.pad, s.weights_transposed ? ", transposed" : "", third);
}

/// Every convolution of an iteration of FastGAN at the published widths, batch 8: planned on the CPU, not computed.
std::vector<ConvCall> fastgan_iteration(int size, bool fold) {
  Context context(Device::cpu, true);
  UseContext use(context);
  std::vector<ConvCall> calls;
  context.conv_calls = &calls;
  context.storage = DType::f16;  // in f32 a CPU has other ways than convolutions for some layers
  context.random = std::make_shared<Philox>(1);
  fastgan::Config config;
  config.size = size;
  config.fold_upsample = fold;
  fastgan::Model model(config);
  model.iteration(Tensor(Shape{8, size, size, 3}, context.storage), {});
  CHECK(calls.size() > 100);
  return calls;
}

/// By what they are, with all three directions of each, of all models at all training sizes.
const std::map<std::string, std::pair<ConvDirection, ConvShape>>& convolutions() {
  static const auto all = [] {
    std::map<std::string, std::pair<ConvDirection, ConvShape>> found;
    for (int size : {32, 64, 128, 256, 512, 1024})
      for (bool fold : {true, false})
        for (const ConvCall& c : fastgan_iteration(size, fold))
          for (ConvDirection d : kDirections) found.emplace(text(d, c.shape), std::pair(d, c.shape));
    return found;
  }();
  return all;
}

/// What a card has for all convolutions in one type.
struct Row {
  std::string card, type;
  int planned = 0, tensor_core = 0, fallback = 0, nondeterministic = 0;
  int64_t workspace = 0;                  // bytes, the largest
  std::set<std::string> none, exceptions;  // no plan; the first plan is not one for tensor cores

  int64_t asked() const { return int64_t(convolutions().size()); }
  /// Share of an iteration's operations that are not computed on tensor cores, in percent.
  double off_tensor_cores(const std::vector<ConvCall>& iteration) const {
    double all = 0, off = 0;
    for (const ConvCall& c : iteration) {
      all += c.shape.flops();
      if (exceptions.contains(text(c.direction, c.shape))) off += c.shape.flops();
    }
    return 100 * off / all;
  }
};

Row plan_all(const std::string& name, const cudnn::DeviceModel& card, const cudnn::Request& request) {
  Row row;
  row.card = name;
  row.type = name_of(request.type) + std::string(request.tf32 ? " as TF32" : "") + (request.deterministic ? ", deterministic" : "");
  for (const auto& [what, convolution] : convolutions()) {
    std::string why;
    const std::vector<cudnn::Answer> found = card.plans(convolution.first, convolution.second, request, 1, &why);
    if (found.empty()) {
      row.none.insert(what + ": " + why);
      continue;
    }
    row.planned++;
    row.tensor_core += found[0].tensor_core;
    row.fallback += found[0].fallback;
    row.nondeterministic += !found[0].deterministic;
    row.workspace = std::max(row.workspace, found[0].workspace);
    if (!found[0].tensor_core) row.exceptions.insert(what);
  }
  return row;
}

std::string table_line(const Row& r) {
  static const std::vector<ConvCall> at_256 = fastgan_iteration(256, true), at_1024 = fastgan_iteration(1024, true);
  const bool any = r.planned > 0;
  return fmt::format("| {} | {} | {} of {} | {} | {} | {} | {} | {} |", r.card, r.type, r.planned, r.asked(), r.tensor_core, r.nondeterministic,
                     any ? fmt::format("{} MB", r.workspace >> 20) : "-", any ? fmt::format("{:.1f} %", r.off_tensor_cores(at_256)) : "-",
                     any ? fmt::format("{:.1f} %", r.off_tensor_cores(at_1024)) : "-");
}

std::set<std::string> lines_of(const std::string& file) {
  std::set<std::string> lines;
  std::istringstream s(file_text(file));
  for (std::string line; std::getline(s, line);) lines.insert(line);
  return lines;
}

}  // namespace

TEST_CASE("conv_support: every convolution has plans") {
  if (!cudnn::compiled_in()) {
    MESSAGE("skipped: this build has no cuDNN");
    return;
  }
  // The lists are those of one cuDNN; another may choose other engines, and then only what must always hold is asked of it.
  const std::set<std::string> document = lines_of(std::string(KILN_SOURCE_DIR) + "/docs/gpu.md"), expected = lines_of(kFolder + "exceptions.txt");
  const bool same_version = expected.contains("cuDNN " + cudnn::version());
  if (!same_version) MESSAGE("cuDNN " << cudnn::version() << " is not the one that the lists were made with: they are not compared");
  std::set<std::string> exceptions{"cuDNN " + cudnn::version()};

  const auto check = [&](const std::string& name, const cudnn::DeviceModel& card, cudnn::Request request) {
    const Row row = plan_all(name, card, request);
    const std::string line = table_line(row);
    fmt::print("{}\n", line);
    if (same_version) CHECK_MESSAGE(document.contains(line), "docs/gpu.md has another line than ", line);
    if (name == "sm_75" && request.type == DType::bf16) {  // why Turing trains in f16
      CHECK(row.planned == 0);
      return;
    }
    for (const std::string& what : row.none) FAIL_CHECK(name << " " << row.type << ": no plan for " << what);
    if (request.deterministic) CHECK(row.nondeterministic == 0);
    if (request.type != DType::f32) {
      CHECK(row.tensor_core > 9 * row.asked() / 10);
      for (const std::string& what : row.exceptions) {
        // The heuristics think that another engine is faster; --autotune may find that one for tensor cores is.
        const auto& [direction, shape] = convolutions().at(what);
        bool timed = false;
        for (const cudnn::Answer& a : card.plans(direction, shape, request, cudnn::kTimedPlans)) timed |= a.tensor_core;
        exceptions.insert(fmt::format("{} {}: {}{}", name, row.type, what, timed ? "; among the timed" : ""));
      }
    } else if (!request.tf32) {
      CHECK(row.tensor_core == 0);
    }
  };
  const auto check_card = [&](const std::string& name, const std::string& properties, bool tf32) {
    const cudnn::DeviceModel card(properties);
    check(name, card, {.type = DType::f16});
    check(name, card, {.type = DType::bf16});
    check(name, card, {.type = DType::f32});
    check(name, card, {.type = DType::f32, .deterministic = true});
    if (tf32) check(name, card, {.type = DType::f32, .tf32 = true});
  };
  check_card("sm_75", file_text(kFolder + "sm75.json"), false);
  check_card("sm_90", file_text(kFolder + "sm90.json"), true);

  for (const std::string& line : exceptions) {
    if (!expected.contains(line)) MESSAGE("not in tests/devices/exceptions.txt: " << line);
    if (same_version) CHECK(expected.contains(line));
  }
  for (const std::string& line : expected) {
    if (!same_version) break;
    INFO("in tests/devices/exceptions.txt: " << line);
    CHECK(exceptions.contains(line));
  }
}

TEST_CASE("conv_support: what is planned is what was asked for") {
  if (!cudnn::compiled_in()) {
    MESSAGE("skipped: this build has no cuDNN");
    return;
  }
  CHECK(contains(error_of([] { cudnn::DeviceModel("{\"deviceName\": \"a toaster\"}"); }), "device properties"));
  const cudnn::DeviceModel card(file_text(kFolder + "sm90.json"));
  const ConvShape s{8, 64, 64, 64, 64, 64, 64, 3, 3, 1, 1, false};
  const auto first = [&](const cudnn::Request& r) {
    const std::vector<cudnn::Answer> found = card.plans(ConvDirection::forward, s, r);
    REQUIRE(!found.empty());
    return found[0];
  };
  CHECK(first({.type = DType::bf16}).tensor_core);
  CHECK(!first({.type = DType::f32}).tensor_core);
  CHECK(first({.type = DType::f32, .tf32 = true}).tensor_core);
  // Tensor cores want 16-byte accesses; a plan for less must not be handed out as one for more, nor refused.
  CHECK(!first({.type = DType::bf16, .alignment = 2}).tensor_core);
  // A convolution that cannot be, with its reason.
  ConvShape wrong = s;
  wrong.oh = 63;
  std::string why;
  CHECK(card.plans(ConvDirection::forward, wrong, {.type = DType::bf16}, 1, &why).empty());
  CHECK(!why.empty());
  // With a GPU here: its own properties are accepted like the files'.
  if (!gpu_runtime::available()) return;
  const std::string own = cudnn::properties();
  MESSAGE("this GPU's properties: " << own);
  CHECK(!cudnn::DeviceModel(own).plans(ConvDirection::forward, s, {.type = DType::f16}).empty());
}
