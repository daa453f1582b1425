// A training step under the rules of a captured one: the same launches, library calls, arguments and addresses every time, and the
// same bits as without them.
#include "engine/step_graph.h"

#include "engine/convolution.h"
#include "engine/picture_source.h"
#include "engine/step_memory.h"
#include "kernels/exec/log.h"
#include "kernels/pointwise.h"
#include "models/biggan_training.h"
#include "models/fastgan_training.h"
#include "tests/feature_fixtures.h"

using namespace kiln;
using namespace kiln::fastgan;
using namespace kiln::test;

namespace {

constexpr int kPictures = 6, kBatch = 4, kSide = 32;  // an epoch ends inside of a batch

/// What a training in miniature has beside its networks: pictures and their order.
struct Miniature {
  Fixture fixture;
  std::shared_ptr<Philox> random = std::make_shared<Philox>(5);
  std::unique_ptr<PictureSet> set;
  BatchOrder order{5, kPictures, kBatch};
  Tensor index{Shape{kBatch}, DType::i32};
  int64_t parts;
  int64_t step = 0;

  Miniature(DType t, int64_t accumulate) : parts(accumulate) {
    context().storage = t;
    context().random = random;
    std::vector<uint8_t> bytes;
    for (const float x : hashed_uniform("pictures", kPictures * kSide * kSide * 3)) bytes.push_back(uint8_t(x * 256));
    set = std::make_unique<PictureSet>(bytes.data(), kPictures, kSide, kSide);
  }

  /// What the host does before a step, outside of what is captured.
  void before() { index.upload(order.indices(step++).data()); }

  Tensor real(int64_t first, int64_t n) {
    return gather_augmented(*set, index.slice(first, Shape{n}), random->uniform("flip", Shape{n, 1}), 0.5f, {},
                            random->uniform("augment.real", Shape{n, kAugmentUniforms}));
  }
};

/// A whole training of FastGAN.
struct Training : Miniature {
  std::unique_ptr<Model> model;
  TrainOptions options;
  Losses losses;

  explicit Training(DType t, int64_t accumulate = 1) : Miniature(t, accumulate) {
    Config c;
    c.size = kSide;
    c.ngf = c.ndf = 8;
    model = std::make_unique<Model>(c);
    model->initialise(*random);
    random->keep_step_in(model->memory.step());
  }

  void iteration() {
    losses = {};
    std::vector<Tensor> parts_of_it;
    const int64_t n = kBatch / parts;
    for (int64_t first = 0; first < kBatch; first += n) {
      random->set_first_sample(first);
      parts_of_it.push_back(real(first, n));
    }
    random->set_first_sample(0);
    losses = model->iteration(parts_of_it, options);
  }

  std::vector<float> everything() {
    model->average_params.copy_vectors_from(model->g_params);  // as a sample does
    std::vector<float> all{losses.d_real.item(), losses.d_fake.item(), losses.g.item(), losses.recon_all.item()};
    for (const ParameterSet* p : {&model->g_params, &model->d_params, &model->average_params})
      for (const Tensor* t : {&p->values, &p->statistics, &p->vectors, &p->m, &p->v})
        if (*t) {
          const std::vector<float> v = t->to_vector();
          all.insert(all.end(), v.begin(), v.end());
        }
    return all;
  }
};

/// A whole training of BigGAN: two steps of D, orthogonal regularisation, attention, and an average that starts in its third step.
struct BigganTraining : Miniature {
  std::unique_ptr<biggan::Model> model;
  biggan::Losses losses;
  biggan::TrainOptions options;

  BigganTraining(DType t, int64_t accumulate, int classes, bool tables) : Miniature(t, accumulate) {
    biggan::Config c;
    c.size = kSide;
    c.g_width = c.d_width = 4;
    c.z = 8;
    c.shared_dim = 4;
    c.classes = classes;
    c.shared = c.hierarchical = !tables;
    c.g_attention = c.d_attention = 16;
    model = std::make_unique<biggan::Model>(c);
    model->initialise(*random);
    random->keep_step_in(model->memory.step());
    options.d_steps = 2;
    options.parts = int(parts);
    options.ortho_g = options.ortho_d = 1e-3f;
    options.ema = {0.9f, false, 3};
    options.augment = {true, true, true};
  }

  void iteration() {
    losses = {};
    losses = model->iteration(
        [&](int, int part) {
          const int64_t n = kBatch / parts;
          return biggan::RealPart{real(part * n, n), draw_labels(random->uniform("labels", Shape{n, 1}), std::max(model->config.classes, 1))};
        },
        options);
  }

  std::vector<float> everything() {
    std::vector<float> all{losses.d_real.item(), losses.d_fake.item(), losses.g.item()};
    for (const ParameterSet* p : {&model->g_params, &model->d_params, &model->average_params})
      for (const Tensor* t : {&p->values, &p->statistics, &p->vectors, &p->m, &p->v})
        if (*t) {
          const std::vector<float> v = t->to_vector();
          all.insert(all.end(), v.begin(), v.end());
        }
    return all;
  }
};

std::vector<LaunchLog::Entry> log_of(const std::function<void()>& f) {
  LaunchLog log;
  launch_log = &log;
  f();
  launch_log = nullptr;
  return log.entries;
}

std::vector<DType> types() {
  std::vector<DType> t{DType::f32, DType::f16};
  if (cpu_has_bf16()) t.push_back(DType::bf16);
  return t;
}

int64_t count(const std::vector<LaunchLog::Entry>& log, const std::string& part) {
  return std::count_if(log.begin(), log.end(), [&](const LaunchLog::Entry& e) { return contains(e.name, part); });
}

}  // namespace

TEST_CASE("step graph: two steps are the same launches and library calls, with the same arguments and addresses") {
  for (const DType t : types())
    for (const int64_t parts : {1, 2}) {
      CAPTURE(std::string(name_of(t)));
      CAPTURE(parts);
      Training training(t, parts);
      StepGraph graph(true);
      std::vector<std::vector<LaunchLog::Entry>> logs;
      for (int i = 0; i < 5; i++) {
        training.before();
        logs.push_back(log_of([&] { graph.run([&] { training.iteration(); }); }));
        CHECK(graph.warm() == (i >= 1));
      }
      MESSAGE(std::string(name_of(t)) << ", " << parts << " parts: " << logs[2].size() << " launches and library calls a step");
      REQUIRE(logs[2].size() == logs[3].size());
      for (size_t i = 0; i < logs[2].size(); i++) {
        CAPTURE(i);
        CAPTURE(logs[2][i].name);
        CHECK(logs[2][i] == logs[3][i]);
      }
      CHECK(logs[3] == logs[4]);
      for (const char* name : {"conv_forward", "conv_backward_data", "conv_backward_weights", "map_rows", "SpectralTables", "Fill"}) {
        CAPTURE(std::string(name));
        CHECK(count(logs[2], name) > 0);
      }
      CHECK(count(logs[2], "NotFinite") == (t == DType::f16 ? 2 : 0));
      // Every step drew from the step's own numbers all the same.
      CHECK(training.model->memory.read().step == 5);
    }
}

TEST_CASE("step graph: a step with LPIPS is the same launches, too") {
  const TempFolder folder;
  const std::string weights = write_weights(folder, "vgg"), heads = write_heads(folder, "vgg", head_channels("vgg"));
  for (const DType t : {DType::f32, DType::f16}) {
    CAPTURE(std::string(name_of(t)));
    Training training(t);
    training.options.perceptual = std::make_shared<const Lpips>("vgg", weights, heads, t);
    StepGraph graph(true);
    std::vector<std::vector<LaunchLog::Entry>> logs;
    for (int i = 0; i < 4; i++) {
      training.before();
      logs.push_back(log_of([&] { graph.run([&] { training.iteration(); }); }));
    }
    CHECK(graph.warm());
    CHECK(count(logs[2], "MaxPoolBackward") == 3 * 4);
    CHECK(logs[2] == logs[3]);
  }
}

TEST_CASE("step graph: two steps of BigGAN are the same launches, before the average starts and after, and give the bits of steps outside") {
  struct Case {
    int64_t parts;
    int classes;
    bool tables;
  };
  for (const DType t : types())
    for (const auto& [parts, classes, tables] : {Case{1, 3, false}, {2, 3, false}, {1, 3, true}, {1, 0, true}}) {
      CAPTURE(std::string(name_of(t)));
      CAPTURE(parts);
      CAPTURE(classes);
      CAPTURE(tables);
      std::vector<float> plain;
      {
        BigganTraining training(t, parts, classes, tables);
        for (int i = 0; i < 6; i++) {
          training.before();
          training.iteration();
        }
        plain = training.everything();
      }
      BigganTraining training(t, parts, classes, tables);
      StepGraph graph(true);
      std::vector<std::vector<LaunchLog::Entry>> logs;
      for (int i = 0; i < 6; i++) {
        training.before();
        logs.push_back(log_of([&] { graph.run([&] { training.iteration(); }); }));
      }
      REQUIRE(logs[3].size() == logs[4].size());
      for (size_t i = 0; i < logs[3].size(); i++) {
        CAPTURE(i);
        CAPTURE(logs[3][i].name);
        CHECK(logs[3][i] == logs[4][i]);
      }
      CHECK(logs[4] == logs[5]);
      CHECK(count(logs[4], "NotFinite") == (t == DType::f16 ? 3 : 0));
      CHECK(training.model->memory.read().step == 6);
      CHECK(training.everything() == plain);
    }
}

TEST_CASE("step graph: the list of launches shows what a step takes from the host, and another address") {
  Fixture fixture;
  const Tensor x(Shape{100}), y(Shape{100});
  const auto step = [&](float value, const Tensor& to) {
    return log_of([&] { KILN_RUN(Work::pointwise, fill(stream, DType::f32, 100, value, to.data())); });
  };
  const auto first = step(1, x);
  REQUIRE(first.size() == 1);
  CHECK(step(1, x) == first);
  CHECK(step(2, x) != first);
  CHECK(step(1, y) != first);
  CHECK(log_of([] {}).empty());
}

TEST_CASE("step graph: under the rules of a capture, with evaluation in between, training gives the bits that it gives without") {
  for (const DType t : {DType::f32, DType::f16}) {
    CAPTURE(std::string(name_of(t)));
    std::vector<float> plain, captured;
    {
      Training training(t);
      for (int i = 0; i < 7; i++) {
        training.before();
        training.iteration();
      }
      plain = training.everything();
    }
    {
      Training training(t);
      StepGraph graph(true);
      for (int i = 0; i < 7; i++) {
        training.before();
        graph.run([&] { training.iteration(); });
        if (i % 2) {  // what a run does between two steps
          Scoped<std::shared_ptr<RandomSource>> scope(&Context::random, std::make_shared<Philox>(9));
          training.model->sample(context().random->normal("z", Shape{kBatch, 256})).to_vector();
        }
      }
      captured = training.everything();
    }
    CHECK(plain == captured);
  }
}

TEST_CASE("step graph: a captured step gets no memory from the system") {
  Fixture fixture;
  StepGraph graph(true);
  size_t numbers = 1000;
  const auto step = [&] { const Tensor t(Shape{int64_t(numbers)}); };
  for (int i = 0; i < 3; i++) graph.run(step);
  numbers = 100 << 20;
  const std::string error = error_of([&] { graph.run(step); });
  CHECK(contains(error, "more memory than the steps before it"));
  CHECK(contains(error, "--batch"));
  CHECK_NOTHROW(step());  // outside it may
  CHECK_NOTHROW(graph.run(step));
}

TEST_CASE("step graph: steps are warm-up until the arena has stopped growing") {
  Fixture fixture;
  StepGraph graph(true);
  for (const int64_t megabytes : {1, 100, 300, 300}) {
    CHECK(!graph.warm());
    graph.run([&] { const Tensor t(Shape{megabytes << 20}, DType::u8); });
  }
  CHECK(graph.warm());
  graph.reset();
  CHECK(!graph.warm());
}
