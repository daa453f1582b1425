// FastGAN against PyTorch: tests/golden/*.safetensors, written by tests/golden/make_golden.py.
#include <cstring>

#include "kernels/augment.h"
#include "models/fastgan_training.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::fastgan;
using namespace kiln::test;

namespace {

SafetensorsFile golden(const std::string& name) {
  return SafetensorsFile(std::string(KILN_SOURCE_DIR) + "/tests/golden/" + name + ".safetensors");
}

Config small_config(int size) {
  Config c;
  c.size = size;
  c.ngf = c.ndf = 8;
  return c;
}

void set_initial(ParameterSet& set, const std::string& prefix) {
  for (const auto& e : set.entries()) set.tensor(e).upload(hashed_initial(prefix + e.name, e.count()).data());
}

/// Largest golden_error over a set's tensors whose names pass the filter.
template <class Filter>
double worst_of(const SafetensorsFile& file, const ParameterSet& set, const std::string& prefix, bool gradients, Filter filter) {
  double worst = 0;
  for (const auto& e : set.entries()) {
    if (!filter(e)) continue;
    double error = golden_error(file, prefix + e.name, (gradients ? set.gradient(e) : set.tensor(e)).to_vector());
    // A noise weight's gradient is one number, the small difference of sums over all pixels: a digit less is left of it.
    if (gradients && e.count() == 1) error *= 0.1;
    if (error > worst || error > 1e-4 || error != error) {
      worst = error;
      MESSAGE(prefix << e.name << " " << error);
    }
  }
  return worst;
}

const auto is_parameter = [](const ParameterSet::Entry& e) { return e.kind == ParameterSet::Entry::parameter; };
const auto is_buffer = [](const ParameterSet::Entry& e) { return e.kind != ParameterSet::Entry::parameter; };

void check_forward(int size, int64_t batch, int part, bool fold) {
  Fixture fixture;
  // A gradient is a sum over all pixels that partly cancels; from 256 px on a little more of float32 is lost in it.
  const double limit = size < 256 ? 1e-4 : 2e-4;
  const SafetensorsFile file = golden("forward_" + std::to_string(size));
  auto random = std::make_shared<ReplaySource>();
  random->part = part;
  context().random = random;
  Config config = small_config(size);
  config.fold_upsample = fold;
  const int s = config.small();

  Generator g(config);
  ParameterSet gp(g, true);
  SpectralGroup gs(g);
  set_initial(gp, "G.");
  {
    Tape tape;
    Recording recording(tape);
    gs.prepare(gp.values, gp.grads, gp.vectors);
    const Var z(from_vector(Shape{batch, 256}, hashed_normal("z", batch * 256)), true);
    const Pictures p = g(z);
    CHECK(golden_error(file, "G.big", p.big.value.to_vector()) < 1e-5);
    CHECK(golden_error(file, "G.small", p.small.value.to_vector()) < 1e-5);
    CHECK(worst_of(file, gp, "after.G.", false, is_buffer) < 1e-5);
    tape.backward_from({{p.big, from_vector(p.big.shape(), hashed_signed("cot.big", p.big.value.count()))},
                        {p.small, from_vector(p.small.shape(), hashed_signed("cot.small", p.small.value.count()))}});
    CHECK(golden_error(file, "grad.z", z.node->gradient().to_vector()) < 1e-4);
    CHECK(worst_of(file, gp, "grad.G.", true, is_parameter) < limit);
  }
  {
    NoGrad none;
    Evaluation evaluation;
    gs.prepare(gp.values, gp.grads, gp.vectors);
    const Pictures p = g(Var(from_vector(Shape{batch, 256}, hashed_normal("z", batch * 256))));
    CHECK(golden_error(file, "G.eval.big", p.big.value.to_vector()) < 1e-5);
    CHECK(golden_error(file, "G.eval.small", p.small.value.to_vector()) < 1e-5);
  }

  Discriminator d(config);
  ParameterSet dp(d, true);
  auto core = d.core();
  auto decoders = d.decoders();
  SpectralGroup ds(core), es(decoders);
  set_initial(dp, "D.");
  const auto picture = [&](const char* name, int side) {
    return from_vector(Shape{batch, side, side, 3}, hashed_signed(name, batch * side * side * 3));
  };
  {
    Tape tape;
    Recording recording(tape);
    ds.prepare(dp.values, dp.grads, dp.vectors);
    es.prepare(dp.values, dp.grads, dp.vectors);
    const Var x(picture(size >= 512 ? "real.b" : "real", size)), near = nearest_resize(x, s, s);
    const Features f = d({x, near});
    const Tensor corner = draw_corner(random->uniform("part", Shape{1, 1}));
    const Reconstructions r = d.reconstruct(f, corner);
    CHECK(golden_error(file, "D.real.logits", f.logits.value.to_vector()) < 1e-5);
    CHECK(golden_error(file, "D.real.rec_all", r.all.value.to_vector()) < 1e-5);
    CHECK(golden_error(file, "D.real.rec_small", r.small.value.to_vector()) < 1e-5);
    CHECK(golden_error(file, "D.real.rec_part", r.part.value.to_vector()) < 1e-5);
    const std::vector<float> u = hashed_uniform("margin.real", 50 * batch);
    const Tensor margins = from_vector(Shape{50 * batch}, u);
    const HingeLoss h = hinge_loss(f.logits, 1.f, 0.8f, &margins);
    const Var quadrant = nearest_resize(corner_crop(x, size / 2, size / 2, corner), s, s);
    const Var a = difference_loss(r.all, near.value, 2), b = difference_loss(r.small, near.value, 2),
              c = difference_loss(r.part, quadrant.value, 2);
    CHECK(golden_error(file, "loss.D_real", h.value.value.to_vector()) < 1e-5);
    CHECK(golden_error(file, "loss.rec", {a.value.item() + b.value.item() + c.value.item()}) < 1e-5);
    tape.backward({{h.value, 1.f}, {a, 1.f}, {b, 1.f}, {c, 1.f}});
    CHECK(worst_of(file, dp, "grad.D.", true, is_parameter) < limit);
  }
  {
    Tape tape;
    Recording recording(tape);
    FrozenWeights frozen;
    ds.prepare(dp.values, dp.grads, dp.vectors);
    const Pictures fake{Var(picture("fake.big", size), true), Var(picture("fake.small", s), true)};
    const Features f = d(fake);
    CHECK(golden_error(file, "D.fake.logits", f.logits.value.to_vector()) < 1e-5);
    const Var loss = generator_loss(f.logits);
    CHECK(golden_error(file, "loss.G", loss.value.to_vector()) < 1e-4);
    tape.backward({{loss, 1.f}});
    CHECK(golden_error(file, "grad.fake.big", fake.big.node->gradient().to_vector()) < 1e-4);
    CHECK(golden_error(file, "grad.fake.small", fake.small.node->gradient().to_vector()) < 1e-4);
  }
  // Twice the limit of the rest: a running mean is a mean over pixels that partly cancel, set against the largest such mean.
  CHECK(worst_of(file, dp, "after.D.", false, is_buffer) < 2e-5);
}

}  // namespace

TEST_CASE("golden: the hash agrees with the script's") {
  const SafetensorsFile file = golden("hash");
  CHECK(golden_error(file, "z", hashed_normal("z", 4 * 256)) < 1e-12);
  CHECK(golden_error(file, "margin.real", hashed_uniform("margin.real", 200)) < 1e-12);
  CHECK(golden_error(file, "real", hashed_signed("real", 4 * 64 * 64 * 3)) < 1e-12);
}

TEST_CASE("golden: FastGAN 64, forward and gradients") { check_forward(64, 4, 0, true); }
TEST_CASE("golden: FastGAN 64, forward and gradients, upsampling not folded") { check_forward(64, 4, 0, false); }
TEST_CASE("golden: FastGAN 128, forward and gradients") { check_forward(128, 3, 1, true); }
TEST_CASE("golden: FastGAN 256, forward and gradients") { check_forward(256, 2, 2, true); }
TEST_CASE("golden: FastGAN 512, forward and gradients") { check_forward(512, 2, 3, true); }
TEST_CASE("golden: FastGAN 1024, forward and gradients") { check_forward(1024, 2, 0, true); }

TEST_CASE("golden: DiffAugment and its gradient") {
  Fixture fixture;
  const SafetensorsFile file = golden("augment");
  for (const std::string odd : {"", "odd."}) {
    const Shape shape = odd.empty() ? Shape{3, 20, 12, 3} : Shape{2, 18, 14, 3};
    std::vector<float> u(size_t(shape[0]) * kAugmentUniforms);
    const char* names[] = {"brightness", "saturation", "contrast", "shift_h", "shift_w", "cutout_h", "cutout_w"};
    for (size_t k = 0; k < 7; k++) {
      const std::vector<float> v = hashed_uniform(odd + "aug." + names[k], shape[0]);
      for (size_t i = 0; i < v.size(); i++) u[i * 7 + k] = v[i];
    }
    const Tensor uniforms = from_vector(Shape{shape[0], 7}, u);
    const std::vector<std::pair<std::string, AugmentPolicy>> policies = {{"color", {true, false, false}},
                                                                         {"translation", {false, true, false}},
                                                                         {"cutout", {false, false, true}},
                                                                         {"color_translation", {true, true, false}},
                                                                         {"all", {true, true, true}}};
    for (const auto& [name, policy] : policies) {
      CAPTURE(odd + name);
      Tape tape;
      Recording recording(tape);
      const Var x(from_vector(shape, hashed_signed(odd + "x", shape.count())), true);
      const Var y = augment(x, policy, uniforms);
      CHECK(golden_error(file, odd + name + ".out", y.value.to_vector()) < 1e-6);
      tape.backward_from({{y, from_vector(shape, hashed_signed(odd + "cot", shape.count()))}});
      CHECK(golden_error(file, odd + name + ".grad", x.node->gradient().to_vector()) < 1e-6);
    }
  }
}

namespace {

void check_training(int size, int64_t batch, const std::string& salt) {
  Fixture fixture;
  const SafetensorsFile file = golden("train_" + std::to_string(size));
  auto random = std::make_shared<ReplaySource>();
  context().random = random;
  Model m(small_config(size));
  set_initial(m.g_params, "G.");
  set_initial(m.d_params, "D.");
  m.average_params.copy_from(m.g_params);
  TrainOptions o;
  o.ema.warm_up = false;
  for (int k = 0; k < 3; k++) {
    random->suffix = "#" + std::to_string(k) + salt;
    random->part = (k + 1) % 4;
    const Shape shape{batch, size, size, 3};
    const Var real(from_vector(shape, hashed_signed("real" + random->suffix, shape.count())));
    const Losses l = m.iteration(augment(real, o.augment, random->uniform("augment.real", Shape{batch, 7})).value, o);
    const std::string at = "#" + std::to_string(k);
    CHECK(golden_error(file, "loss.D_real" + at, l.d_real.to_vector()) < 1e-3);
    CHECK(golden_error(file, "loss.D_fake" + at, l.d_fake.to_vector()) < 1e-3);
    CHECK(golden_error(file, "loss.rec" + at, {l.recon_all.item() + l.recon_small.item() + l.recon_part.item()}) < 1e-3);
    // A mean of logits may be near zero: compare it on the scale of the hinge loss.
    const auto value = [&](const std::string& name) {
      float v;
      std::memcpy(&v, file.at(name).data, 4);
      return v;
    };
    CHECK(std::abs(l.g.item() - value("loss.G" + at)) < 1e-3);
    CHECK(std::abs(l.logit_real.item() - value("mean.logit_real" + at)) < 1e-3);
    CHECK(std::abs(l.logit_fake.item() - value("mean.logit_fake" + at)) < 1e-3);
  }
  // Weights: 99.9 % within a tenth of the distance that three Adam steps can go; Adam starts like a sign.
  int64_t all = 0, near = 0;
  double worst_buffer = 0;
  const auto compare = [&](const ParameterSet& set, const std::string& prefix, bool vectors) {
    for (const auto& e : set.entries()) {
      if (e.kind == ParameterSet::Entry::vector && !vectors) continue;
      const std::vector<float> whole = set.tensor(e).to_vector();
      if (e.kind != ParameterSet::Entry::parameter) {
        worst_buffer = std::max(worst_buffer, golden_error(file, prefix + e.name, whole));
        continue;
      }
      const TensorView& view = file.at(prefix + e.name);
      std::vector<float> expected(view.bytes / 4);
      std::memcpy(expected.data(), view.data, view.bytes);
      size_t stride = whole.size() > 2048 ? (whole.size() + 2047) / 2048 : 1;
      if (whole.size() > 2048 && stride % 2 == 0) stride++;
      for (size_t i = 0, j = 0; i < whole.size(); i += stride, j++) {
        all++;
        near += std::abs(double(whole[i]) - double(expected[j])) <= 0.1 * 2e-4 * 3 + 4e-7 * std::abs(double(expected[j]));
      }
    }
  };
  compare(m.g_params, "final.G.", true);
  compare(m.d_params, "final.D.", true);
  compare(m.average_params, "ema.G.", false);
  MESSAGE("weights within a tenth of three steps: " << double(near) / double(all) << " of " << all << "; buffers within " << worst_buffer);
  CHECK(double(near) / double(all) >= 0.999);
  CHECK(worst_buffer < 1e-3);
}

}  // namespace

TEST_CASE("golden: three whole training iterations at 64 px") { check_training(64, 4, ""); }
TEST_CASE("golden: three whole training iterations at 256 px") { check_training(256, 2, ""); }
