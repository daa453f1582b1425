// Convolutions, resizing and the convolutional GRU of clips against PyTorch: tests/golden/make_clip_golden.py has the shapes and names.
#include "engine/ops_clip.h"
#include "engine/parameters.h"
#include "engine/safetensors.h"
#include "tests/op_test.h"

using namespace kiln;
using namespace kiln::test;

namespace {

constexpr double kTolerance = 2e-5;
const Shape kClip{2, 5, 6, 7, 4};
constexpr int64_t kStates = 6;

std::vector<float> hashed(const std::string& name, const Shape& s, float scale = 1) {
  std::vector<float> v = hashed_signed("clip." + name, s.count());
  for (float& x : v) x *= scale;
  return v;
}
Var leaf(const std::string& name, const Shape& s, float scale = 1) { return Var(from_vector(s, hashed(name, s, scale)), true); }

struct Golden {
  Fixture fixture;
  SafetensorsFile file{std::string(KILN_SOURCE_DIR) + "/tests/golden/clips.safetensors"};

  /// f's value and the gradients of its leaves, by their names in the file.
  void check(const std::string& prefix, const std::vector<std::pair<std::string, Var>>& leaves, const std::function<Var()>& f) {
    CAPTURE(prefix);
    Tape tape;
    Recording recording(tape);
    const Var y = f();
    CHECK(golden_error(file, prefix + ".y", y.value.to_vector()) < kTolerance);
    tape.backward_from({{y, from_vector(y.shape(), hashed("d", y.shape()))}});
    for (const auto& [name, x] : leaves) CHECK(golden_error(file, prefix + "." + name, x.node->gradient().to_vector()) < kTolerance);
  }
};

struct Bias {
  Param p;
  ParameterSet set;
  Bias() {
    p.shape = Shape{3 * kStates};
    set = ParameterSet(*this, true);
    p.value.upload(hashed("b", p.shape).data());
    set.zero_grad();
  }
  Bias(const Bias&) = delete;
  template <class F>
  void visit(F&& f) {
    f("b", p);
  }
};

}  // namespace

TEST_CASE("golden: clips: 3-d convolutions and trilinear resizing against PyTorch") {
  Golden g;
  for (const bool replicate : {false, true}) {
    const Var x = leaf("x", kClip), w = leaf("w", Shape{6, 3, 3, 3, 4}, 0.2f);
    g.check(replicate ? "conv3d.replicate" : "conv3d.zero", {{"dx", x}, {"dw", w}},
            [&] { return conv3d(x, w, replicate ? TimePadding::replicate : TimePadding::zero); });
  }
  const Var x = leaf("x", kClip);
  g.check("resize", {{"dx", x}}, [&] { return resize_clip(x, 9, 12, 10, TimeScaling::linear); });
}

TEST_CASE("golden: clips: the GRU and back-propagation through its frames against PyTorch") {
  Golden g;
  for (const Activation act : {Activation::relu, Activation::tanh}) {
    const std::string name = act == Activation::relu ? "gru.relu" : "gru.tanh";
    const Var x = leaf("x", kClip), wx = leaf("wx", Shape{3 * kStates, 3, 3, 4}, 0.2f);
    const Var wh = leaf("wh", Shape{2 * kStates, 3, 3, kStates}, 0.2f), wc = leaf("wc", Shape{kStates, 3, 3, kStates}, 0.2f);
    Bias b;
    g.check(name, {{"dx", x}, {"dwx", wx}, {"dwh", wh}, {"dwc", wc}},
            [&] { return gru_recurrence(conv2d(frames_of(x), wx, 1, 1), 2, 5, wh, wc, b.p, act); });
    CHECK(golden_error(g.file, name + ".db", b.p.grad.to_vector()) < kTolerance);
  }
}
