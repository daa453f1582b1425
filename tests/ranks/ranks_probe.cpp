// A program for tests under mpirun: ranks_probe CASE. It ends with 0 where all is as it should be, and says what is not.
#include <unistd.h>

#include <cmath>
#include <cstring>

#include "engine/ranks.h"
#include "engine/step_memory.h"
#include "models/fastgan_training.h"

using namespace kiln;

namespace {

int failures = 0;

void expect(bool good, const std::string& what) {
  if (good) return;
  failures++;
  std::fprintf(stderr, "ranks_probe: %s\n", what.c_str());
}

double worst(const std::vector<float>& a, const std::vector<float>& b) {
  double most = 0, scale = 1e-30;
  for (size_t i = 0; i < a.size(); i++) {
    most = std::max(most, std::abs(double(a[i]) - double(b[i])));
    scale = std::max(scale, std::abs(double(b[i])));
  }
  return a.size() == b.size() ? most / scale : 1e30;
}

/// Sums arrive, in any number and size, and are the same bits everywhere.
void sums(Ranks& ranks) {
  const int64_t n = 100'003;
  std::vector<float> x(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; i++) x[size_t(i)] = float(i % 97) * 0.25f + float(ranks.rank());
  const Tensor a = from_vector(Shape{n}, x), b = from_vector(Shape{n}, x);
  ranks.sum(a);
  for (int64_t first = 0; first < n; first += 7001) ranks.start_sum(b.f32() + first, std::min<int64_t>(7001, n - first));
  ranks.finish_sums();
  const std::vector<float> va = a.to_vector(), vb = b.to_vector();
  const float extra = float(ranks.size() * (ranks.size() - 1) / 2);
  for (int64_t i = 0; i < n; i++)
    if (va[size_t(i)] != float(i % 97) * 0.25f * float(ranks.size()) + extra || vb[size_t(i)] != va[size_t(i)]) return expect(false, "a sum is wrong");
  // Numbers whose sum depends on its order: equal bits all the same.
  for (int64_t i = 0; i < n; i++) x[size_t(i)] = std::sin(float(i * (ranks.rank() + 1)));
  const Tensor c = from_vector(Shape{n}, x);
  ranks.start_sum(c.f32(), n);
  ranks.finish_sums();
  ranks.require_equal({c}, "its sum");
  expect(ranks.any_bits(int64_t(1) << ranks.rank()) == (int64_t(1) << ranks.size()) - 1, "bits of a rank are missing");
  expect(ranks.from_root(ranks.root() ? "text" : "") == "text", "the root's text did not come");
}

struct Layer {
  BatchNorm norm{12};
  NoiseInjection injection;
  template <class F>
  void visit(F&& f) {
    f("norm", norm);
    f("noise", injection);
  }
};

/// Batch norm of a shard, with noise and GLU, against that of all rows in one process: values, gradients, running statistics, and
/// evaluation afterwards.
void norm(Ranks& ranks) {
  const int64_t n = 8, side = 5, c = 12, own = n / ranks.size();
  Philox random(3);
  const auto uniform = [&](const char* site, const Shape& s) { return random.uniform(site, s).to_vector(); };
  // Far from zero, so that a mean of squares minus the square of the mean would be noise in single precision.
  std::vector<float> x = uniform("x", Shape{n, side, side, c}), noise = uniform("noise", Shape{n, side, side, 1});
  for (float& v : x) v = 30 + v;
  const std::vector<float> dy = uniform("dy", Shape{n, side, side, c / 2}), gamma = uniform("gamma", Shape{c}), beta = uniform("beta", Shape{c});
  struct Result {
    std::vector<float> y, dx, gradients, statistics, evaluated;
  };
  const auto run = [&](int64_t first, int64_t count, bool glu) {
    Layer layer;
    ParameterSet set(layer, true);
    layer.norm.weight.value.upload(gamma.data());
    layer.norm.bias.value.upload(beta.data());
    layer.norm.running_mean.value.upload(beta.data());
    layer.norm.running_var.value.upload(gamma.data());
    const float weight = 0.3f;
    layer.injection.weight.value.upload(&weight);
    const auto part = [&](const std::vector<float>& v, const Shape& s) {
      const int64_t per = int64_t(v.size()) / n;
      return from_vector(s, std::vector<float>(v.begin() + first * per, v.begin() + (first + count) * per));
    };
    const Tensor noise_part = part(noise, Shape{count, side, side, 1});
    const auto forward = [&](const Var& in) { return glu ? norm_glu(in, layer.norm, &layer.injection, &noise_part) : norm_act(in, layer.norm, Activation::leaky_relu); };
    Tape tape;
    Var in(part(x, Shape{count, side, side, c}), true);
    Result r;
    {
      Recording recording(tape);
      const Var y = forward(in);
      r.y = y.value.to_vector();
      std::vector<float> whole = dy;
      if (!glu) whole.insert(whole.end(), dy.rbegin(), dy.rend());
      tape.backward_from({{y, part(whole, y.shape())}});
    }
    r.dx = in.node->gradient().to_vector();
    set.sum().finish(set.grads);
    r.gradients = set.grads.to_vector();
    r.statistics = set.statistics.to_vector();
    {
      NoGrad none;
      Evaluation evaluation;
      r.evaluated = forward(Var(in.value)).value.to_vector();
    }
    return r;
  };
  for (const bool glu : {true, false}) {
    const Result shard = run(ranks.rank() * own, own, glu);
    Result whole;
    {
      Scoped<Ranks*> alone(&Context::ranks, static_cast<Ranks*>(nullptr));
      whole = run(0, n, glu);
    }
    const auto mine = [&](const std::vector<float>& v) {
      const size_t per = v.size() / size_t(n);
      return std::vector<float>(v.begin() + long(per) * ranks.rank() * own, v.begin() + long(per) * (ranks.rank() + 1) * own);
    };
    const auto close = [&](const char* what, const std::vector<float>& a, const std::vector<float>& b, double limit) {
      const double d = worst(a, b);
      expect(d < limit, fmt::format("{} with{} GLU: {:.2e} apart", what, glu ? "" : "out", d));
    };
    close("values", shard.y, mine(whole.y), 2e-5);
    close("gradients of the input", shard.dx, mine(whole.dx), 2e-5);
    close("gradients of the parameters", shard.gradients, whole.gradients, 2e-5);
    close("running statistics", shard.statistics, whole.statistics, 1e-6);
    close("values in evaluation", shard.evaluated, mine(whole.evaluated), 2e-6);
    // The shard alone is something else: the test can fail.
    context().sync_norm = false;
    const Result apart = run(ranks.rank() * own, own, glu);
    context().sync_norm = true;
    expect(worst(apart.y, mine(whole.y)) > 1e-3, "batch norm of a shard is that of the whole");
  }
}

struct Training {
  std::shared_ptr<Philox> random = std::make_shared<Philox>(5);
  std::unique_ptr<fastgan::Model> model;
  explicit Training(int width) {
    context().random = random;
    fastgan::Config c;
    c.size = 32;
    c.ngf = c.ndf = width;
    model = std::make_unique<fastgan::Model>(c);
    model->initialise(*random);
    random->keep_step_in(model->memory.step());
  }
  fastgan::Losses step(int64_t all) {
    const int64_t n = all / (context().ranks ? context().ranks->size() : 1);
    random->set_first_sample(context().ranks ? context().ranks->rank() * n : 0);
    const Tensor real = random->uniform("real", Shape{n, 32, 32, 3});
    random->set_first_sample(0);
    if (context().storage == DType::f32) return model->iteration(real, {});
    std::vector<uint8_t> bytes(size_t(n) * 32 * 32 * 3, uint8_t(100 + (context().ranks ? context().ranks->rank() : 0)));
    const PictureSet set(bytes.data(), n, 32, 32);
    const Tensor index = zeros(Shape{n}, DType::i32);
    return model->iteration(gather(set, index, zeros(Shape{n, 1}), 0.f), {});
  }
};

/// Many small buckets give the bits of one: the gradients of a step, and what is sent is each gradient once.
void buckets(Ranks& ranks) {
  std::vector<std::vector<float>> weights;
  std::vector<int64_t> counts;
  for (const int64_t bytes : {int64_t(1) << 30, int64_t(1) << 16, int64_t(1)}) {
    ranks.bucket_bytes = bytes;
    Training t(4);
    const Ranks::Traffic before = ranks.traffic();
    t.step(8);
    counts.push_back(ranks.traffic().gradient_sums - before.gradient_sums);
    expect(ranks.traffic().gradient_bytes - before.gradient_bytes == 4 * (t.model->g_params.grads.count() + t.model->d_params.grads.count()),
           "a gradient was sent twice, or not");
    std::vector<float> all = t.model->g_params.grads.to_vector();
    const std::vector<float> d = t.model->d_params.grads.to_vector();
    all.insert(all.end(), d.begin(), d.end());
    weights.push_back(all);
  }
  expect(counts[0] < counts[1] && counts[1] < counts[2], fmt::format("the buckets are {}, {} and {}", counts[0], counts[1], counts[2]));
  // The order in which two ranks' numbers are added is the same in any bucket; of more it may not be.
  for (size_t i = 1; i < weights.size(); i++)
    expect(ranks.size() == 2 ? weights[i] == weights[0] : worst(weights[i], weights[0]) < 1e-5, "the gradients depend on the buckets");
  {
    Scoped<Ranks*> alone(&Context::ranks, static_cast<Ranks*>(nullptr));
    Training t(4);
    t.step(8);
    std::vector<float> all = t.model->g_params.grads.to_vector();
    expect(worst(std::vector<float>(weights[0].begin(), weights[0].begin() + long(all.size())), all) < 1e-4, "G's gradients are not one process's");
    const std::vector<float> d = t.model->d_params.grads.to_vector();
    expect(worst(std::vector<float>(weights[0].begin() + long(all.size()), weights[0].end()), d) < 1e-4, "D's gradients are not one process's");
  }
}

/// Gradients of one rank overflow in f16: no rank makes the update, all halve their scale.
void overflow(Ranks& ranks) {
  context().storage = DType::f16;
  Training t(4);
  t.step(8);
  const StepState good = t.model->memory.read();
  const std::vector<float> before = t.model->d_params.values.to_vector();
  t.model->d_params.zero_grad();
  if (ranks.rank() == ranks.size() - 1) {
    const float infinity = INFINITY;
    t.model->d_params.grads.slice(7, Shape{1}).upload(&infinity);
  }
  t.model->d_params.adam_step({}, {}, nullptr, t.model->memory.loss_scale());
  t.model->g_params.zero_grad();
  t.model->g_params.adam_step({}, {}, nullptr, t.model->memory.loss_scale());
  t.model->memory.end_step(2);
  const StepState after = t.model->memory.read();
  expect(t.model->d_params.values.to_vector() == before, "a network with an overflow on one rank was updated");
  expect(after.overflows == good.overflows + 1 && after.loss_scale == good.loss_scale / 2, "the loss scale did not follow an overflow of one rank");
  t.step(8);
  ranks.require_equal(t.model->state(), "its copy of the state");
}

/// Rank 1's training thread stops working after a few sums; its process lives.
void hang(Ranks& ranks) {
  ranks.set_training(true);
  ranks.set_patience(1);
  const Tensor x = zeros(Shape{10});
  for (int i = 0; i < 5; i++) ranks.sum(x);
  if (ranks.rank() == 1)
    for (;;) pause();
  ranks.sum(x);
}

/// Rank 1 meets an error in the middle of a step.
void error(Ranks& ranks) {
  const Tensor x = zeros(Shape{10});
  ranks.sum(x);
  if (ranks.rank() == 1) fail("the disk of this rank is on fire; put it out");
  ranks.sum(x);
}

/// Rank 1's weights are no longer those of the others.
void drift(Ranks& ranks) {
  const Tensor x = zeros(Shape{10});
  const float one = 1;
  if (ranks.rank() == 1) x.slice(3, Shape{1}).upload(&one);
  ranks.require_equal({x}, "its copy of the weights");
}

}  // namespace

int main(int argc, char** argv) {
  const std::string which = argc > 1 ? argv[1] : "";
  std::shared_ptr<Ranks> ranks = Ranks::join();
  if (!ranks) return 1;
  ranks->set_program("ranks_probe");
  Context context;
  UseContext use(context);
  context.ranks = ranks.get();
  try {
    for (const auto& [name, f] : std::initializer_list<std::pair<const char*, void (*)(Ranks&)>>{
             {"sums", sums}, {"norm", norm}, {"buckets", buckets}, {"overflow", overflow}, {"hang", hang}, {"error", error}, {"drift", drift}})
      if (which == name) {
        f(*ranks);
        return failures ? 1 : 0;
      }
  } catch (const SharedError& e) {
    if (Ranks::speaks()) std::fprintf(stderr, "ranks_probe: %s\n", e.what());
    return 2;
  } catch (const std::exception& e) {
    ranks->end_all(e.what());
  }
  return 1;
}
