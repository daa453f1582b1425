// conv_support: cuDNN has a plan, on tensor cores in 16 bits, for every convolution of every model at every training size, on
// cards that need not be there: cuDNN plans from a card's properties (tests/devices, written from public specifications).
// What is proved is that plans exist; their numbers and their speed are not looked at.
#include <fmt/format.h>

#include <map>
#include <set>
#include <sstream>

#include "engine/backend/cudnn.h"
#include "engine/backend/gpu_runtime.h"
#include "models/biggan_run.h"
#include "models/fastgan_training.h"
#include "models/nsbgan_decoder_run.h"
#include "models/sswgan_run.h"
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

/// What `f` convolves: planned on the CPU, not computed.
template <class F>
std::vector<ConvCall> planned(F f) {
  Context context(Device::cpu, true);
  UseContext use(context);
  std::vector<ConvCall> calls;
  context.conv_calls = &calls;
  context.storage = DType::f16;  // in f32 a CPU has other ways than convolutions for some layers
  context.random = std::make_shared<Philox>(1);
  f();
  return calls;
}

/// Every convolution of an iteration of FastGAN at the published widths, batch 8.
std::vector<ConvCall> fastgan_iteration(int size, bool fold) {
  return planned([&] {
    fastgan::Config config;
    config.size = size;
    config.fold_upsample = fold;
    fastgan::Model model(config);
    model.iteration(Tensor(Shape{8, size, size, 3}, context().storage), {});
  });
}

/// Every convolution of an iteration of BigGAN as a preset has it, with 10 classes: its widths, and its batch in its parts.
std::vector<ConvCall> biggan_iteration(biggan::RunOptions o, bool deep = false, bool fold = true) {
  return planned([&] {
    o.network.deep = deep;
    o.network.fold = fold;
    o.network.classes = 10;
    o.train.d_steps = 1;  // all alike
    biggan::Model model(o.network);
    const int64_t n = o.batch / o.train.parts, side = o.network.size;
    o.train.parts = 1;
    model.iteration([&](int, int) { return biggan::RealPart{Tensor(Shape{n, side, side, 3}, context().storage), Tensor(Shape{n}, DType::i32)}; },
                    o.train);
  });
}

/// Every convolution of an iteration of a decoder of NSB-GAN as a preset has it.
std::vector<ConvCall> decoder_iteration(const std::string& preset, nsbgan::DecoderKind kind, bool gan) {
  return planned([&] {
    nsbgan::decoding::RunOptions o = nsbgan::decoding::preset(preset, kind, nsbgan::Domain::wavelet, gan);
    nsbgan::decoding::Model model(o.network, gan ? o.d_width : 0);
    const int64_t n = o.batch / o.train.parts, side = o.network.band.picture_size;
    o.train.parts = 1;
    model.iteration([&](int) { return Tensor(Shape{n, side, side, 3}, context().storage); }, o.train);
  });
}

/// Every convolution of an iteration of a stage of SSW-GAN as a preset has it, with 10 classes.
std::vector<ConvCall> stage_iteration(const std::string& preset, int stage) {
  return planned([&] {
    sswgan::RunOptions o = sswgan::preset(preset);
    o.network.classes = 10;
    sswgan::Model model(o.network, stage);
    const sswgan::StageConfig& s = o.network.stage(stage);
    const int64_t n = o.batch / o.train.parts;
    o.train.parts = o.train.d_steps = 1;
    const auto clips = [&](int64_t frames, int64_t side) { return Tensor(Shape{n, frames, side, side, 3}, context().storage); };
    const Tensor labels(Shape{n}, DType::i32);
    model.iteration({[&](int, int) { return sswgan::RealPart{clips(s.window, s.size), labels}; },
                     [&](int, int) {
                       if (stage == 1) return sswgan::ConditionPart{};
                       return sswgan::ConditionPart{clips(s.window / o.network.rho(stage), o.network.stage(stage - 1).size), labels};
                     }},
                    o.train);
  });
}

/// A family of networks, at all its training sizes.
struct Family {
  std::string exceptions;  // a file in tests/devices
  std::map<std::string, std::pair<ConvDirection, ConvShape>> convolutions;  // by what they are, with all three directions of each
  std::vector<ConvCall> weighed[2];  // iterations whose operations the table weighs

  void add(const std::vector<ConvCall>& iteration) {
    CHECK(iteration.size() > 20);
    for (const ConvCall& c : iteration)
      for (ConvDirection d : kDirections) convolutions.emplace(text(d, c.shape), std::pair(d, c.shape));
  }
};

Family fastgan_family() {
  Family f;
  f.exceptions = "exceptions.txt";
  for (int size : {32, 64, 128, 256, 512, 1024})
    for (bool fold : {true, false}) f.add(fastgan_iteration(size, fold));
  f.weighed[0] = fastgan_iteration(256, true);
  f.weighed[1] = fastgan_iteration(1024, true);
  return f;
}

Family biggan_family() {
  Family f;
  f.exceptions = "exceptions_biggan.txt";
  for (const char* preset : {"small", "cifar", "64", "128", "256"})
    for (bool deep : {false, true})
      for (bool fold : {true, false})
        if (!deep || preset != std::string("cifar")) f.add(biggan_iteration(biggan::preset(preset), deep, fold));  // BigGAN-deep has no tables by class
  f.weighed[0] = biggan_iteration(biggan::preset("128"));
  f.weighed[1] = biggan_iteration(biggan::preset("256"), true);
  return f;
}

/// Its sampler is a BigGAN, of bands that have as many channels as pictures, at widths and batches of its own.
Family nsbgan_family() {
  Family f;
  f.exceptions = "exceptions_nsbgan.txt";
  for (const char* preset : {"small", "64-256", "128-512"}) {
    f.add(biggan_iteration(biggan::band_preset(preset)));
    f.add(decoder_iteration(preset, nsbgan::DecoderKind::unet, false));
    for (bool gan : {false, true}) f.add(decoder_iteration(preset, nsbgan::DecoderKind::srresnet, gan));
  }
  f.weighed[0] = decoder_iteration("64-256", nsbgan::DecoderKind::unet, false);
  f.weighed[1] = decoder_iteration("64-256", nsbgan::DecoderKind::srresnet, true);
  return f;
}

Family sswgan_family() {
  Family f;
  f.exceptions = "exceptions_sswgan.txt";
  for (const std::string& preset : sswgan::preset_names())
    for (int stage = 1; stage <= sswgan::preset(preset).network.count(); stage++) f.add(stage_iteration(preset, stage));
  f.weighed[0] = stage_iteration("ssw-128", 1);
  f.weighed[1] = stage_iteration("ssw-128", 2);
  return f;
}

/// What a card has for all convolutions in one type.
struct Row {
  std::string card, type;
  int64_t asked = 0;
  int planned = 0, tensor_core = 0, fallback = 0, nondeterministic = 0;
  int64_t workspace = 0;                  // bytes, the largest
  std::set<std::string> none, exceptions;  // no plan; the first plan is not one for tensor cores

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

Row plan_all(const Family& family, const std::string& name, const cudnn::DeviceModel& card, const cudnn::Request& request) {
  Row row;
  row.card = name;
  row.type = name_of(request.type) + std::string(request.tf32 ? " as TF32" : "") + (request.deterministic ? ", deterministic" : "");
  row.asked = int64_t(family.convolutions.size());
  for (const auto& [what, convolution] : family.convolutions) {
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

std::string table_line(const Family& family, const Row& r) {
  const bool any = r.planned > 0;
  const auto off = [&](int i) { return any ? fmt::format("{:.1f} %", r.off_tensor_cores(family.weighed[i])) : "-"; };
  return fmt::format("| {} | {} | {} of {} | {} | {} | {} | {} | {} |", r.card, r.type, r.planned, r.asked, r.tensor_core, r.nondeterministic,
                     any ? fmt::format("{} MB", r.workspace >> 20) : "-", off(0), off(1));
}

std::set<std::string> lines_of(const std::string& file) {
  std::set<std::string> lines;
  std::istringstream s(file_text(file));
  for (std::string line; std::getline(s, line);) lines.insert(line);
  return lines;
}

/// A card and what is asked of it.
struct Question {
  std::string card, properties;  // its file
  cudnn::Request request;
};

/// Plans all of a family for each card and type, and holds the answers to what must be so, to docs/gpu.md, and to the list of exceptions.
void check_plans(const Family& family, const std::vector<Question>& questions) {
  // The lists are those of one cuDNN; another may choose other engines, and then only what must always hold is asked of it.
  const std::set<std::string> document = lines_of(std::string(KILN_SOURCE_DIR) + "/docs/gpu.md"), expected = lines_of(kFolder + family.exceptions);
  const bool same_version = expected.contains("cuDNN " + cudnn::version());
  if (!same_version) MESSAGE("cuDNN " << cudnn::version() << " is not the one that the lists were made with: they are not compared");
  std::set<std::string> exceptions{"cuDNN " + cudnn::version()};
  for (const auto& [name, properties, request] : questions) {
    const cudnn::DeviceModel card(file_text(kFolder + properties));
    const Row row = plan_all(family, name, card, request);
    const std::string line = table_line(family, row);
    fmt::print("{}\n", line);
    if (same_version) CHECK_MESSAGE(document.contains(line), "docs/gpu.md has another line than ", line);
    if (name == "sm_75" && request.type == DType::bf16) {  // why Turing trains in f16
      CHECK(row.planned == 0);
      continue;
    }
    for (const std::string& what : row.none) FAIL_CHECK(name << " " << row.type << ": no plan for " << what);
    if (request.deterministic) CHECK(row.nondeterministic == 0);
    if (request.type != DType::f32) {
      CHECK(row.tensor_core > 9 * row.asked / 10);
      for (const std::string& what : row.exceptions) {
        // The heuristics think that another engine is faster; --autotune may find that one for tensor cores is.
        const auto& [direction, shape] = family.convolutions.at(what);
        bool timed = false;
        for (const cudnn::Answer& a : card.plans(direction, shape, request, cudnn::kTimedPlans)) timed |= a.tensor_core;
        exceptions.insert(fmt::format("{} {}: {}{}", name, row.type, what, timed ? "; among the timed" : ""));
      }
    } else if (!request.tf32) {
      CHECK(row.tensor_core == 0);
    }
  }
  for (const std::string& line : exceptions) {
    if (!expected.contains(line)) MESSAGE("not in tests/devices/" << family.exceptions << ": " << line);
    if (same_version) CHECK(expected.contains(line));
  }
  for (const std::string& line : expected) {
    if (!same_version) break;
    INFO("in tests/devices/", family.exceptions, ": ", line);
    CHECK(exceptions.contains(line));
  }
}

}  // namespace

TEST_CASE("conv_support: every convolution of FastGAN has plans") {
  if (!cudnn::compiled_in()) {
    MESSAGE("skipped: this build has no cuDNN");
    return;
  }
  std::vector<Question> questions;
  for (const auto& [name, file] : {std::pair{"sm_75", "sm75.json"}, {"sm_90", "sm90.json"}}) {
    questions.push_back({name, file, {.type = DType::f16}});
    questions.push_back({name, file, {.type = DType::bf16}});
    questions.push_back({name, file, {.type = DType::f32}});
    questions.push_back({name, file, {.type = DType::f32, .deterministic = true}});
  }
  questions.push_back({"sm_90", "sm90.json", {.type = DType::f32, .tf32 = true}});
  check_plans(fastgan_family(), questions);
}

TEST_CASE("conv_support: every convolution of BigGAN, NSB-GAN and SSW-GAN has plans for tensor cores in 16 bits") {
  if (!cudnn::compiled_in()) {
    MESSAGE("skipped: this build has no cuDNN");
    return;
  }
  for (const auto& family : {biggan_family, nsbgan_family, sswgan_family})
    check_plans(family(), {{"sm_75", "sm75.json", {.type = DType::f16}}, {"sm_90", "sm90.json", {.type = DType::bf16}}});
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
