// SSW-GAN's sizes, views, networks and training iteration. The numbers against PyTorch are in sswgan_golden_test.cpp.
#include "models/sswgan_run.h"
#include "models/sswgan_sampler.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::sswgan;
using namespace kiln::test;

namespace {

Config tiny(int classes = 0, int scale = 2) {
  Config c;
  c.stages = {{4, 16, 2, 4, 4, 4}, {8, 16 * scale, 1, 4, 4, 4}};
  c.classes = classes;
  c.z = 6;
  c.shared_dim = 5;
  c.d_frames = 3;
  return c;
}

std::shared_ptr<Philox> use_random(uint64_t seed) {
  auto r = std::make_shared<Philox>(seed);
  context().random = r;
  return r;
}

Tensor labels_tensor(const std::vector<int32_t>& v) {
  Tensor t(Shape{int64_t(v.size())}, DType::i32);
  t.upload(v.data());
  return t;
}

Tensor hashed(const std::string& name, const Shape& s) { return from_vector(s, hashed_signed(name, s.count())); }

double largest_difference(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  const std::vector<float> x = a.to_vector(), y = b.to_vector();
  double d = 0;
  for (size_t i = 0; i < x.size(); i++) d = std::max(d, double(std::abs(x[i] - y[i])));
  return d;
}

/// A generator that is used only, with weights that do something everywhere.
std::unique_ptr<FixedStage> fixed(const Config& c, int stage) {
  use_random(11);
  Model m(c, stage);
  m.initialise(*context().random);
  auto f = std::make_unique<FixedStage>(c, stage);
  f->take(m.average_params);
  // Statistics that are not those of the beginning.
  f->stand(2, [&](int k, Generator& g) {
    Labels labels;
    if (c.conditional()) labels.a = labels_tensor({0, 1, 2});
    const Tensor condition = stage > 1 ? hashed("standing" + std::to_string(k), Shape{3, 4, c.stage(1).size, c.stage(1).size, 3}) : Tensor();
    g(hashed("z" + std::to_string(k), Shape{3, c.z}), labels, condition);
  });
  return f;
}

/// Clips of smooth colours that move, [n, t, side, side, 3].
Tensor moving(int64_t n, int64_t t, int64_t side, int step) {
  std::vector<float> v;
  for (int64_t b = 0; b < n; b++)
    for (int64_t i = 0; i < t; i++)
      for (int64_t y = 0; y < side; y++)
        for (int64_t x = 0; x < side; x++)
          for (int64_t ch = 0; ch < 3; ch++)
            v.push_back(std::sin(float(b * 2 + step % 5 + ch) + 6.28f * float(x + 2 * i) / float(side)) * 0.6f + 0.2f * std::cos(float(b * 3 + step % 7) + 3.f * float(y) / float(side)));
  return from_vector(Shape{n, t, side, side, 3}, v);
}

}  // namespace

TEST_CASE("sswgan: presets are sound, and sizes are what their text says") {
  for (const std::string& name : preset_names()) {
    CAPTURE(name);
    const Config c = preset_network(name);
    check(c);
    const std::vector<StageConfig> again = parse_stages(stages_text(c.stages), c.stages);
    CHECK(again == c.stages);
    CHECK(c.final_frames() == c.stages.back().frames);
  }
  const Config p = preset_network("ssw-100f");
  CHECK(p.count() == 3);
  CHECK(p.final_frames() == 100);
  CHECK(p.final_size() == 128);
  CHECK(p.rho(2) == 2);
  CHECK(p.scale(3) == 2);
  CHECK(p.data_frames(2) == 24);
  const auto refused = [](const std::string& stages, const std::string& word) {
    Config c = preset_network("ssw-tiny");
    const std::string error = error_of([&] {
      c.stages = parse_stages(stages, c.stages);
      check(c);
    });
    CAPTURE(error);
    CHECK(contains(error, "--stages"));
    CHECK(contains(error, word));
  };
  refused("12y32", "FRAMESxSIDE");
  refused("12x24", "16, 32");
  refused("12x32/2,24x48@12", "48");
  refused("12x32/2,20x64@10", "one length");
  refused("12x32/2,24x64@7", "7");
  refused("12x32/2", "must be 1");
  refused("12x16/2,24x128@12", "double or quadruple");
}

TEST_CASE("sswgan: a view of a view is the view of both, from the first frame on") {
  Fixture fixture;
  const Tensor x = hashed("clips", Shape{2, 9, 16, 16, 3});
  CHECK(largest_difference(view(Var(view(Var(x), 2, 2).value), 2, 2).value, view(Var(x), 4, 4).value) < 1e-6);
  const std::vector<float> v = view(Var(x), 4, 8).value.to_vector(), all = x.to_vector();
  CHECK(v.size() == 2 * 3 * 2 * 2 * 3);
  double sum = 0;  // clip 1, view's frame 2, lower left box, channel 1
  for (int y = 8; y < 16; y++)
    for (int xx = 0; xx < 8; xx++) sum += double(all[size_t((((1 * 9 + 8) * 16 + y) * 16 + xx) * 3 + 1)]);
  CHECK(v[size_t((((1 * 3 + 2) * 2 + 1) * 2 + 0) * 3 + 1)] == doctest::Approx(sum / 64).epsilon(1e-5));
}

TEST_CASE("sswgan: the enlarged condition keeps a condition's frames in their places") {
  Fixture fixture;
  for (const int rho : {1, 2, 3}) {
    const Tensor c = hashed("condition", Shape{2, 4, 16, 16, 3}), e = enlarge(c, rho, 1);
    CHECK(e.shape() == (Shape{2, 4 * rho, 16, 16, 3}));
    CHECK(largest_difference(view(Var(e), rho, 1).value, c) < 1e-6);
  }
  CHECK(enlarge(hashed("condition", Shape{1, 3, 16, 16, 3}), 2, 4).shape() == (Shape{1, 6, 64, 64, 3}));
}

TEST_CASE("sswgan: parameter counts are those of the layers") {
  Context context(Device::cpu, true);
  UseContext use(context);
  const Config c = tiny(3);
  Generator g1(c, 1), g2(c, 2);
  Critics d1(c, 1), d2(c, 2);
  const int64_t ch = 4, y = 6 + 5;
  const auto conv = [](int64_t in, int64_t out, int64_t area) { return in * out * area + out; };
  const auto norm = [&](int64_t channels) { return 2 * y * channels; };
  const auto gru = [&](int64_t w) { return 9 * (3 * w * w + 2 * w * w + w * w) + 3 * w; };
  const auto frame_block = [&](int64_t in, int64_t out, bool up) {
    return norm(in) + conv(in, out, 9) + norm(out) + conv(out, out, 9) + (up || in != out ? conv(in, out, 1) : 0);
  };
  const auto group = [&](int64_t in, int64_t out) { return gru(in) + frame_block(in, in, false) + frame_block(in, out, true); };
  const int64_t first = 3 * 5 + conv(y, 16 * 8 * ch, 1) + group(8 * ch, 4 * ch) + group(4 * ch, 2 * ch) + 2 * 2 * ch + conv(2 * ch, 3, 9);
  CHECK(ParameterSet(g1, false).parameter_count() == first);
  const auto clip_block = [&](int64_t in, int64_t out, bool skip) {
    return norm(in) + conv(in, out, 27) + norm(out) + conv(out, out, 9) + (skip ? conv(in, out, 1) : 0);
  };
  const int64_t second = 3 * 5 + conv(3, 4 * ch, 27) + clip_block(4 * ch, 4 * ch, false) + clip_block(4 * ch, 2 * ch, true) + 2 * (2 * ch + 3) + conv(2 * ch + 3, 3, 27);
  CHECK(ParameterSet(g2, false).parameter_count() == second);
  const auto down = [&](int64_t in, int64_t out, int64_t kernel, bool skip) { return conv(in, out, kernel) + conv(out, out, kernel) + (skip ? conv(in, out, 1) : 0); };
  const auto head = [](int64_t features, bool classes) { return features + 1 + (classes ? 3 * features : 0); };
  const int64_t spatial = down(3, ch, 9, true) + down(ch, 2 * ch, 9, true) + down(2 * ch, 4 * ch, 9, true) + head(4 * ch, true);
  const int64_t temporal = down(3, ch, 27, true) + down(ch, 2 * ch, 27, true) + head(2 * ch, true);
  CHECK(ParameterSet(d1, false).parameter_count() == spatial + temporal);
  const int64_t spatial2 = spatial - head(4 * ch, true) + down(4 * ch, 8 * ch, 9, true) + head(8 * ch, true);
  const int64_t temporal2 = down(3, ch, 27, true) + down(ch, 2 * ch, 27, true) + down(2 * ch, 4 * ch, 9, true) + head(4 * ch, true);
  const int64_t matching = down(6, ch, 27, true) + down(ch, 2 * ch, 27, true) + down(2 * ch, 4 * ch, 9, true) + head(4 * ch, false);
  CHECK(ParameterSet(d2, false).parameter_count() == spatial2 + temporal2 + matching);
}

TEST_CASE("sswgan: a clip's condition reaches all its frames and no other clip's") {
  Fixture fixture;
  const Config c = tiny(3);
  for (const int stage : {1, 2}) {
    const auto g = fixed(c, stage);
    const Tensor z = hashed("z", Shape{2, c.z}), condition = stage == 1 ? Tensor() : hashed("condition", Shape{2, 3, 16, 16, 3});
    Labels both;
    both.a = labels_tensor({2, 0});
    const Tensor clips = g->clips(z, both, condition, 3);
    CHECK(clips.shape() == (stage == 1 ? Shape{2, 3, 16, 16, 3} : Shape{2, 6, 32, 32, 3}));
    for (int i = 0; i < 2; i++) {
      Labels one;
      one.a = labels_tensor({i == 0 ? 2 : 0});
      const auto row = [&](const Tensor& x) { return x ? take_rows(Var(x), i, 1).value : Tensor(); };
      CHECK(largest_difference(g->clips(row(z), one, row(condition), 3), row(clips)) < 1e-5);
    }
    Labels other;
    other.a = labels_tensor({2, 1});
    const Tensor changed = g->clips(z, other, condition, 3);
    CHECK(largest_difference(take_rows(Var(changed), 0, 1).value, take_rows(Var(clips), 0, 1).value) < 1e-6);
    for (int t = 0; t < 3; t++)  // every frame of the second clip is of another class now
      CHECK(largest_difference(take_frames(Var(take_rows(Var(changed), 1, 1).value), t, 1, 1).value, take_frames(Var(take_rows(Var(clips), 1, 1).value), t, 1, 1).value) > 1e-4);
  }
}

TEST_CASE("sswgan: chunks of a whole clip are what one piece gives") {
  Fixture fixture;
  for (const int scale : {2, 4})
    for (const bool residual : {true, false}) {
      Config c = tiny(0, scale);
      c.residual = residual;
      const auto g = fixed(c, 2);
      // stem and first block at the condition's rate, the later ones at twice that
      CHECK(g->generator().radius() == (scale == 2 ? 3 : 4));
      const Tensor z = hashed("z", Shape{2, c.z}), condition = hashed("long", Shape{2, 13, 16, 16, 3});
      const Tensor whole = enlarge_clips(*g, z, {}, condition, 2, 0);
      CHECK(whole.shape() == (Shape{2, 26, 16 * scale, 16 * scale, 3}));
      for (const int64_t chunk : {1, 3, 8}) {
        CAPTURE(scale);
        CAPTURE(chunk);
        CHECK(largest_difference(enlarge_clips(*g, z, {}, condition, 2, chunk), whole) < 1e-5);
      }
      // The radius is needed: a piece that ends earlier differs at its last frame.
      const int64_t r = g->generator().radius();
      const Tensor cut = g->clips(z, {}, take_frames(Var(condition), 0, 1, 13 - r).value), same = take_frames(Var(whole), 0, 1, 2 * (13 - r)).value;
      CHECK(largest_difference(take_frames(Var(cut), 0, 1, 2 * (13 - 2 * r)).value, take_frames(Var(same), 0, 1, 2 * (13 - 2 * r)).value) < 1e-5);
      CHECK(largest_difference(cut, same) > 1e-4);
    }
}

TEST_CASE("sswgan: stage 1 makes clips longer than trained, and their beginning is the short clip") {
  Fixture fixture;
  const Config c = tiny();
  const auto g = fixed(c, 1);
  const Tensor z = hashed("z", Shape{2, c.z});
  const Tensor shorter = g->clips(z, {}, Tensor(), 4), longer = g->clips(z, {}, Tensor(), 9);
  CHECK(longer.shape() == (Shape{2, 9, 16, 16, 3}));
  CHECK(largest_difference(take_frames(Var(longer), 0, 1, 4).value, shorter) < 1e-5);
}

TEST_CASE("sswgan: a later stage's training memory does not depend on how long the clips are") {
  const auto options = [](int frames) {
    RunOptions o = preset("ssw-tiny");
    o.network.stages = {{frames / 2, 16, 2, frames / 2, 8, 8}, {frames, 32, 1, 6, 8, 8}};
    o.batch = 2;
    return o;
  };
  const size_t at24 = planned_peak(options(24), 2), at96 = planned_peak(options(96), 2);
  CHECK(at24 == at96);
  CHECK(at24 > 0);
  CHECK(planned_peak(options(96), 1) > planned_peak(options(24), 1) * 3 / 2);  // the first stage's does
}

TEST_CASE("sswgan training: iterations repeat bit for bit, and every discriminator learns") {
  Fixture fixture;
  const auto run = [](int parts, float mismatch) {
    Config c = tiny(3);
    use_random(5);
    auto random = std::make_shared<Philox>(5);
    Model m(c, 2);
    m.initialise(*random);
    random->keep_step_in(m.memory.step());
    context().random = random;
    TrainOptions o;
    o.parts = parts;
    o.d_steps = 2;
    o.matching.mismatch = mismatch;
    o.matching.drop = 0.3f;
    o.matching.blur = true;
    o.matching.label = 0.9f;
    o.condition_noise = 0.5f;
    o.augment = augment_policy("color,translation");
    const Sources s{[&](int k, int) { return RealPart{hashed("real" + std::to_string(k), Shape{2, 4, 32, 32, 3}), labels_tensor({0, 2})}; },
                    [&](int k, int) { return ConditionPart{hashed("condition" + std::to_string(k), Shape{2, 2, 16, 16, 3}), labels_tensor({1, 2})}; }};
    Losses l;
    const std::vector<float> before = m.d_params.values.to_vector();
    for (int i = 0; i < 3; i++) l = m.iteration(s, o);
    const std::vector<float> after = m.d_params.values.to_vector();
    for (const char* critic : {"spatial.", "temporal.", "matching."}) {
      double moved = 0;
      for (const auto& e : m.d_params.entries())
        if (e.kind == ParameterSet::Entry::parameter && e.name.starts_with(critic))
          for (int64_t i = 0; i < e.count(); i++) moved += double(std::abs(after[size_t(e.offset + i)] - before[size_t(e.offset + i)]));
      CAPTURE(critic);
      CHECK(moved > 0);
    }
    for (int i = 0; i < 3; i++) CHECK(l.critic[i].d_real.item() + l.critic[i].d_fake.item() > 0.f);
    CHECK(l.motion.item() > 0.f);
    CHECK(l.grounding.item() > 0.f);
    if (mismatch > 0) CHECK(l.mismatch.item() != 0.f);
    return m.g_params.values.to_vector();
  };
  CHECK(run(1, 0.f) == run(1, 0.f));
  CHECK(run(2, 0.5f) == run(2, 0.5f));
}

TEST_CASE("sswgan training: the matching discriminator learns whose condition a clip has") {
  Fixture fixture;
  Config c = tiny();
  auto random = std::make_shared<Philox>(3);
  Model m(c, 2);
  m.initialise(*random);
  random->keep_step_in(m.memory.step());
  context().random = random;
  TrainOptions o;
  o.adam_d.lr = 1e-3f;
  o.matching.mismatch = 0.5f;
  int step = 0;
  const Sources s{[&](int, int) { return RealPart{moving(4, 4, 32, step), Tensor()}; },
                  [&](int, int) { return ConditionPart{view(Var(moving(4, 4, 32, step + 3)), 2, 2).value, Tensor()}; }};
  for (; step < 60; step++) m.iteration(s, o);
  const Tensor real = moving(4, 4, 32, 2), seen = view(Var(real), 2, 2).value;
  const Tensor wrong = concat_rows(take_rows(Var(seen), 1, 3).value, take_rows(Var(seen), 0, 1).value);
  const std::vector<float> right = m.match(seen, seen).to_vector(), mixed = m.match(wrong, seen).to_vector();
  double a = 0, b = 0;
  for (int i = 0; i < 4; i++) a += double(right[size_t(i)]) / 4, b += double(mixed[size_t(i)]) / 4;
  MESSAGE("its own condition " << a << ", another clip's " << b);
  CHECK(a > b + 0.5);
}
