// ./kiln_convert and models/fastgan_convert.h against PyTorch (tests/golden/make_fastgan_pth.py).
#include <fstream>

#include "engine/checkpoint.h"
#include "models/fastgan_convert.h"
#include "models/fastgan_run.h"
#include "tests/program.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::test;
using namespace kiln::fastgan;
namespace fs = std::filesystem;

namespace {

std::string golden(const std::string& name) { return std::string(KILN_SOURCE_DIR) + "/tests/golden/pth/" + name; }

/// Hashed z; no noise.
class QuietSource : public ReplaySource {
 public:
  Tensor normal(std::string_view site, const Shape& shape) override {
    return site == "z" ? ReplaySource::normal(site, shape) : zeros(shape);
  }
};

void refuses(const std::vector<std::string>& arguments, const std::vector<std::string>& words) {
  const Finished f = run_program("kiln_convert", arguments);
  CAPTURE(f.err);
  CHECK(f.code == 2);
  CHECK(std::count(f.err.begin(), f.err.end(), '\n') == 1);
  for (const std::string& w : words) {
    CAPTURE(w);
    CHECK(f.err.find(w) != std::string::npos);
  }
}

/// Both dicts hold the same tensors with the same numbers; returns how many.
int same_tensors(const PthNode& a, const PthNode& b, const std::string& where) {
  int n = 0;
  REQUIRE(a.kind == PthNode::Kind::dict);
  for (size_t i = 0; i < a.items.size(); i += 2) {
    std::string name = a.items[i]->text;
    if (name.starts_with("module.")) name = name.substr(7);
    if (name.ends_with("num_batches_tracked")) continue;
    CAPTURE(where + "." + name);
    const PthValue other = b.find(name);
    REQUIRE(other);
    CHECK(a.items[i + 1]->tensor.shape == other->tensor.shape);
    CHECK(a.items[i + 1]->tensor.floats() == other->tensor.floats());
    n++;
  }
  return n;
}

}  // namespace

TEST_CASE("kiln_convert: pictures from PyTorch's checkpoints are PyTorch's, at 256, 512 and 1024") {
  const TempFolder t;
  const SafetensorsFile expected(golden("pictures.safetensors"));
  const std::pair<int, const char*> cases[] = {{256, "all_2.pth"}, {512, "plain_512.pth"}, {1024, "plain_1024.pth"}};
  for (const auto& [size, name] : cases) {
    CAPTURE(size);
    const std::string checkpoint = t / (std::to_string(size) + ".safetensors");
    const ConvertResult r = convert_from_pth(golden(name), checkpoint);
    CHECK(r.network.size == size);
    CHECK(r.network.nz == 8);
    CHECK(r.network.ngf == (size == 1024 ? 8 : 4));
    CHECK(r.network.ndf == r.network.ngf);
    CHECK(r.optimisers == (size == 256));
    CHECK(r.step == (size == 256 ? 2 : size));  // of the optimiser; of the file's name
    CHECK(r.note.empty() == (size == 256));

    Fixture fixture;
    context().random = std::make_shared<QuietSource>();
    Generator g(r.network);
    ParameterSet average(g, false);
    load_parameters(SafetensorsFile(checkpoint), "ema.", average);
    SpectralGroup spectral(g);
    const NoGrad none;
    const Evaluation evaluation;
    spectral.prepare(average.values, Tensor(), average.vectors);
    const Pictures p = g(Var(from_vector(Shape{2, 8}, hashed_normal("z", 16))));
    CHECK(golden_error(expected, std::to_string(size) + ".big", p.big.value.to_vector()) < 1e-4);
    CHECK(golden_error(expected, std::to_string(size) + ".small", p.small.value.to_vector()) < 1e-4);
  }
}

TEST_CASE("kiln_convert: from PyTorch to kiln and back nothing changes, optimisers and average included") {
  const TempFolder t;
  CHECK(run_program("kiln_convert", {golden("all_2.pth"), t / "x.safetensors"}).code == 0);
  const Finished back = run_program("kiln_convert", {t / "x.safetensors", t / "back.pth"});
  CAPTURE(back.err);
  REQUIRE(back.code == 0);
  CHECK(contains(back.out, "256 px, ngf 4, ndf 4, nz 8, step 2, with optimiser"));
  CHECK(contains(back.out, "note: "));  // ndf 4 has narrower decoders than the public code
  const PthValue a = read_pth(golden("all_2.pth")), b = read_pth(t / "back.pth");
  CHECK(same_tensors(*a->find("g"), *b->find("g"), "g") > 80);
  CHECK(same_tensors(*a->find("d"), *b->find("d"), "d") > 150);
  const auto &ema_a = a->find("g_ema")->items, &ema_b = b->find("g_ema")->items;
  REQUIRE(ema_a.size() == ema_b.size());
  for (size_t i = 0; i < ema_a.size(); i++) CHECK(ema_a[i]->tensor.floats() == ema_b[i]->tensor.floats());
  for (const char* o : {"opt_g", "opt_d"}) {
    const PthValue state_a = a->find(o)->find("state"), state_b = b->find(o)->find("state");
    REQUIRE(state_a->items.size() == state_b->items.size());
    for (size_t i = 0; i < state_a->items.size() / 2; i++) {
      const PthValue x = state_a->find(int64_t(i)), y = state_b->find(int64_t(i));
      for (const char* m : {"step", "exp_avg", "exp_avg_sq"}) CHECK(x->find(m)->tensor.floats() == y->find(m)->tensor.floats());
    }
  }
  // And from kiln to PyTorch and back: the very same file.
  REQUIRE(run_program("kiln_convert", {t / "back.pth", t / "y.safetensors"}).code == 0);
  CHECK(file_text(t / "x.safetensors") == file_text(t / "y.safetensors"));
  REQUIRE(run_program("kiln_convert", {t / "x.safetensors", t / "plain.pth", "--plain"}).code == 0);
  const PthValue plain = read_pth(t / "plain.pth");
  CHECK(plain->find("opt_g") == nullptr);
  CHECK(plain->find("g")->find("init.init.0.weight_orig")->tensor.floats() == ema_a[0]->tensor.floats());
}

TEST_CASE("kiln_convert: training goes on from a converted checkpoint") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 6, 64);
  REQUIRE(run_program("kiln_convert", {golden("all_2.pth"), t / "x.safetensors", "--step", "40"}).code == 0);
  const Finished f = run_program("fastgan_train", {faces, "--resume", t / "x.safetensors", "--out", t / "run", "--size", "256", "--ngf", "4", "--ndf", "4",
                                                   "--nz", "8", "--batch", "2", "--grid", "1", "--steps", "41", "--no-cache", "--metric-every", "0"});
  CAPTURE(f.err);
  CHECK(f.code == 0);
  CHECK(contains(f.out, "going on from step 40"));
  CHECK(fs::exists(t / "run/checkpoints/000041.safetensors"));
}

TEST_CASE("kiln_convert: help and mistakes") {
  const TempFolder t;
  const Finished help = run_program("kiln_convert", {"--help"});
  CHECK(help.code == 0);
  for (const char* word : {"IN", "OUT", "--step", "--plain", "--force"}) CHECK(contains(help.out, word));
  std::ofstream(t / "text.pth") << "no file of PyTorch's";
  std::ofstream(t / "text.safetensors") << "no checkpoint";
  refuses({}, {"IN"});
  refuses({t / "a.bin", t / "b.pth"}, {"a.bin", "neither"});
  refuses({t / "a.pth", t / "b.pth"}, {"one kind"});
  refuses({t / "nowhere.pth", t / "b.safetensors"}, {"nowhere.pth"});
  refuses({t / "text.pth", t / "b.safetensors"}, {"text.pth", "not a .pth"});
  refuses({t / "text.safetensors", t / "b.pth"}, {"text.safetensors"});
  refuses({golden("evil_zip.pth"), t / "b.safetensors"}, {"evil_zip.pth", "posix system"});
  refuses({golden("zip.pth"), t / "b.safetensors"}, {"zip.pth", "'d'"});
  refuses({golden("all_2.pth"), t / "b.safetensors", "--plain"}, {"--plain"});
  refuses({golden("all_2.pth"), t / "text.safetensors"}, {"text.safetensors", "--force"});
  refuses({golden("all_2.pth"), t / "no/folder.safetensors"}, {"no/folder.safetensors"});
  CHECK(file_text(t / "text.safetensors") == "no checkpoint");
  CHECK(!fs::exists(t / "b.safetensors"));
  // A tensor of another shape, one that is missing, one too many: each is named.
  const auto changed = [&](auto change) {
    const PthValue root = read_pth(golden("plain_512.pth"));
    PthValue copy = PthNode::dict();
    for (const char* key : {"g", "d"}) {
      PthValue dict = PthNode::dict();
      const PthValue from = root->find(key);
      for (size_t i = 0; i < from->items.size(); i += 2) {
        const PthTensor& x = from->items[i + 1]->tensor;
        dict->set(from->items[i]->text, PthNode::of(PthTensor::of(x.shape, x.floats())));
      }
      copy->set(key, dict);
    }
    change(*copy->find("g"));
    write_pth(t / "changed.pth", *copy);
  };
  changed([](PthNode& g) { g.items[0] = PthNode::of("init.init.0.other"); });
  refuses({t / "changed.pth", t / "b.safetensors"}, {"changed.pth", "init.init"});
  changed([](PthNode& g) { g.set("feat_8.9.weight", PthNode::of(PthTensor::of({1}, {1}))); });
  refuses({t / "changed.pth", t / "b.safetensors"}, {"changed.pth", "feat_8.9.weight", "no place"});
  changed([](PthNode& g) { g.find("feat_8.2.weight")->tensor = PthTensor::of({2}, {1, 2}); });
  refuses({t / "changed.pth", t / "b.safetensors"}, {"feat_8.2.weight", "is 2, where 1"});
}
