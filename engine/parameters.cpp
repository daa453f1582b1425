#include "engine/parameters.h"

#include <cmath>

#include "engine/error.h"
#include "engine/orthogonal.h"
#include "engine/ranks.h"
#include "kernels/loss.h"
#include "kernels/pointwise.h"
#include "kernels/step.h"

namespace kiln {
namespace {
constexpr int64_t kAlignFloats = 16;  // every tensor starts at a cache line, so that packs are aligned
}

void ParameterSet::add(const std::string& name, const Param& p) {
  entries_.push_back({name, p.shape, 0, Entry::parameter, p.init, p.early});
}

void ParameterSet::add(const std::string& name, const Buffer& b) {
  entries_.push_back({name, b.shape, 0, b.averaged ? Entry::statistic : Entry::vector, b.init});
}

/// Gives every entry its place in the flat buffer of its kind: in order, the early ones first.
void ParameterSet::place() {
  for (const bool early : {true, false})
    for (Entry& e : entries_) {
      if (e.early != early) continue;
      int64_t& size = sizes_[e.kind == Entry::parameter ? 0 : e.kind == Entry::statistic ? 1 : 2];
      e.offset = size;
      size += (e.count() + kAlignFloats - 1) / kAlignFloats * kAlignFloats;
    }
}

void ParameterSet::allocate(bool trainable) {
  const auto flat = [](int64_t n) { return zeros(Shape{n > 0 ? n : 1}); };
  values = flat(sizes_[0]);
  if (trainable) {
    grads = flat(sizes_[0]);
    m = flat(sizes_[0]);
    v = flat(sizes_[0]);
  }
  statistics = flat(sizes_[1]);
  vectors = flat(sizes_[2]);
  state_ = zeros(Shape{sizeof(OptimiserState) / 4}, DType::i32);
}

void ParameterSet::bind(const Entry& e, Param& p) const {
  p.offset = e.offset;
  p.value = values.slice(e.offset, e.shape);
  if (grads) p.grad = grads.slice(e.offset, e.shape);
}

void ParameterSet::bind(const Entry& e, Buffer& b) const {
  b.offset = e.offset;
  b.value = tensor(e);
}

Tensor ParameterSet::tensor(const Entry& e) const {
  return (e.kind == Entry::parameter ? values : e.kind == Entry::statistic ? statistics : vectors).slice(e.offset, e.shape);
}
Tensor ParameterSet::gradient(const Entry& e) const { return grads.slice(e.offset, e.shape); }
Tensor ParameterSet::moment(const Entry& e, int which) const { return (which == 0 ? m : v).slice(e.offset, e.shape); }

void ParameterSet::initialise(RandomSource& random, const std::string& prefix) {
  for (const Entry& e : entries_) {
    std::vector<float> x(size_t(e.count()), e.init.mean);
    if (e.init.orthogonal) {
      x = orthogonal_matrix(random.normal("init." + prefix + e.name, Shape{1, e.count()}).to_vector(), e.shape[0]);
    } else if (e.init.uniform != 0) {
      x = random.uniform("init." + prefix + e.name, Shape{1, e.count()}).to_vector();
      for (float& a : x) a = e.init.uniform * (2 * a - 1);
    } else if (e.init.std != 0 || e.init.unit_vector) {
      const std::vector<float> n = random.normal("init." + prefix + e.name, Shape{1, e.count()}).to_vector();
      if (e.init.unit_vector) {
        double squares = 0;
        for (float a : n) squares += double(a) * double(a);
        for (size_t i = 0; i < x.size(); i++) x[i] = float(double(n[i]) / std::sqrt(squares));
      } else {
        for (size_t i = 0; i < x.size(); i++) x[i] += e.init.std * n[i];
      }
    }
    tensor(e).upload(x.data());
  }
}

void ParameterSet::zero_grad() { KILN_RUN(Work::optimiser, fill(stream, DType::f32, grads.count(), 0.f, grads.data())); }

void ParameterSet::adam_step(const AdamOptions& o, const EmaOptions& e, ParameterSet* average, const float* loss_scale) {
  sum_.finish(grads);
  OptimiserState* state = state_.as<OptimiserState>();
  if (loss_scale) {
    const Tensor scratch(Shape{32});
    KILN_RUN(Work::optimiser, check_finite(stream, grads.count(), grads.f32(), &state->check, scratch.f32()));
  }
  KILN_RUN(Work::optimiser, adam_update(stream, values.count(), o, e, loss_scale, state, values.f32(), grads.f32(), m.f32(), v.f32(),
                                        average ? average->values.f32() : nullptr));
  if (average)
    KILN_RUN(Work::optimiser,
             ema_update(stream, statistics.count(), state, statistics.f32(), average->statistics.f32()));
}

void ParameterSet::average_vectors(ParameterSet& average) {
  KILN_RUN(Work::optimiser,
           ema_update(stream, vectors.count(), state_.as<OptimiserState>(), vectors.f32(), average.vectors.f32()));
}

void ParameterSet::average_statistics() {
  Ranks& ranks = *context().ranks;
  ranks.sum(statistics);
  KILN_RUN(Work::optimiser, scale(stream, DType::f32, statistics.count(), 1.f / float(ranks.size()), statistics.data(), statistics.data()));
}

void ParameterSet::copy_from(const ParameterSet& other) {
  KILN_ASSERT(values.count() == other.values.count() && statistics.count() == other.statistics.count());
  KILN_RUN(Work::optimiser, scale(stream, DType::f32, values.count(), 1.f, other.values.data(), values.data()));
  KILN_RUN(Work::optimiser, scale(stream, DType::f32, statistics.count(), 1.f, other.statistics.data(), statistics.data()));
  copy_vectors_from(other);
}

void ParameterSet::copy_vectors_from(const ParameterSet& other) {
  KILN_ASSERT(vectors.count() == other.vectors.count());
  KILN_RUN(Work::optimiser, scale(stream, DType::f32, vectors.count(), 1.f, other.vectors.data(), vectors.data()));
}

namespace {
double norm(const Tensor& x) {
  const Tensor value(Shape{1}), scratch(Shape{32});
  KILN_RUN(Work::reduction, square_sum(stream, x.count(), x.f32(), value.f32(), scratch.f32()));
  return std::sqrt(double(value.item()));
}
}  // namespace

double ParameterSet::gradient_norm() const { return norm(grads); }
double ParameterSet::value_norm() const { return norm(values); }

int64_t ParameterSet::parameter_count() const {
  int64_t n = 0;
  for (const Entry& e : entries_)
    if (e.kind == Entry::parameter) n += e.count();
  return n;
}

int64_t ParameterSet::steps() const {
  OptimiserState s{};
  state_.download(&s);
  return s.updates;
}

void ParameterSet::set_steps(int64_t steps) {
  OptimiserState s{};
  s.updates = steps;
  state_.upload(&s);
}

}  // namespace kiln
