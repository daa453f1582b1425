#include "engine/spectral.h"

#include <algorithm>

#include "engine/error.h"
#include "engine/layer_table.h"
#include "engine/ranks.h"
#include "kernels/pointwise.h"

namespace kiln {
namespace {

int64_t aligned(int64_t n) { return (n + 15) / 16 * 16; }

template <class T>
Tensor to_device(const std::vector<T>& items) {
  static_assert(sizeof(T) % 4 == 0);
  Tensor t(Shape{int64_t(items.size() * sizeof(T) / 4)}, DType::i32);
  t.upload(items.data());
  return t;
}

}  // namespace

SpectralWeight::SpectralWeight(int64_t out, int64_t kh, int64_t kw, int64_t in, float init_std)
    : SpectralWeight(Shape{out, kh, kw, in}, init_std) {}

SpectralWeight::SpectralWeight(const Shape& shape, float init_std) {
  weight.shape = shape;
  weight.init = {0, init_std, false};
  u.shape = Shape{shape[0]};
  v.shape = Shape{shape.count() / shape[0]};
  weight.early = true;
  u.averaged = v.averaged = false;
  u.init = v.init = {0, 0, true};
}

void SpectralGroup::build() {
  std::vector<SpectralLayer> layers;
  std::vector<SpectralTile> columns, rows;
  int64_t packed = 0, scratch = 0;
  for (size_t i = 0; i < weights_.size(); i++) {
    const SpectralWeight& w = *weights_[i];
    KILN_ASSERT(w.weight.value);
    SpectralLayer l{};
    l.w = w.weight.offset;
    l.rows = int32_t(w.weight.shape[0]);
    l.cols = int32_t(w.weight.shape.count() / l.rows);
    l.packed = packed;
    l.u = w.u.offset;
    l.v = w.v.offset;
    l.partial = scratch;
    l.row_chunks = (l.rows + kSpectralRows - 1) / kSpectralRows;
    packed_offsets_.push_back(packed);
    packed += aligned(w.weight.shape.count());
    element_count_ += w.weight.shape.count();
    const int64_t need = int64_t(l.row_chunks) * l.cols;
    scratch += aligned(need > l.rows ? need : l.rows);
    const int32_t column_blocks = (l.cols + kSpectralCols - 1) / kSpectralCols;
    for (int32_t r = 0; r < l.rows; r += kSpectralRows)
      for (int32_t c = 0; c < l.cols; c += kSpectralCols)
        columns.push_back({int32_t(i), r, c, l.row_chunks * column_blocks});
    first_row_tile_.push_back(int(rows.size()));
    const int32_t row_blocks = (l.rows + kSpectralDotRows - 1) / kSpectralDotRows;
    for (int32_t r = 0; r < l.rows; r += kSpectralDotRows) rows.push_back({int32_t(i), r, 0, row_blocks});
    layers.push_back(l);
  }
  first_row_tile_.push_back(int(rows.size()));
  packed_count_ = packed;
  n_column_tiles_ = int(columns.size());
  n_row_tiles_ = int(rows.size());
  layers_ = to_device(layers);
  column_tiles_ = to_device(columns);
  row_tiles_ = to_device(rows);
  scratch_ = Tensor(Shape{scratch > 0 ? scratch : 1});
  sigma_ = zeros(Shape{std::max<int64_t>(1, int64_t(layers.size()))});
  counters_ = zeros(Shape{int64_t(layers.size()) + 1}, DType::i32);
}

SpectralTables SpectralGroup::tables() const {
  return {layers_.as<SpectralLayer>(), column_tiles_.as<SpectralTile>(), row_tiles_.as<SpectralTile>(), int32_t(weights_.size()),
          n_column_tiles_,             n_row_tiles_,                     scratch_.f32(),                counters_.as<int32_t>(),
          element_count_};
}

void SpectralGroup::release() {
  for (SpectralWeight* w : weights_) w->normalised = Var();
}

float SpectralGroup::largest_sigma() const {
  if (weights_.empty()) return 0;
  float most = 0;
  for (const float s : sigma_.to_vector())
    if (!(s <= most)) most = s;  // keeps what is not a number
  return most;
}

/// Gradients of the normalised weights of layers [first, end) -> added to the gradients of the weights.
void SpectralGroup::turn(Step& step, size_t first, size_t end) const {
  for (size_t i = first; i < end; i++) {
    const Tensor part = step.gradients.slice(packed_offsets_[i], weights_[i]->weight.shape);
    const Tensor& gradient = step.nodes[i]->gradient();
    if (!gradient)  // a layer that took no part in the loss
      KILN_RUN(Work::pointwise, fill(stream, DType::f32, part.count(), 0.f, part.data()));
    else if (gradient.data() != part.data())  // from an op that has no use for Node::target
      KILN_RUN(Work::pointwise, scale(stream, DType::f32, part.count(), 1.f, gradient.data(), part.data()));
  }
  SpectralTables t = tables();
  t.row_tiles += first_row_tile_[first];
  t.n_row_tiles = first_row_tile_[end] - first_row_tile_[first];
  t.elements = 0;
  for (size_t i = first; i < end; i++) t.elements += weights_[i]->weight.shape.count();
  KILN_RUN(Work::reduction, spectral_backward(stream, t, step.values.f32(), step.gradients.f32(), step.vectors.f32(), step.vectors.f32(),
                                              step.sigma.f32(), step.grads.f32()));
  for (size_t i = first; i < end; i++) {
    step.nodes[i]->take();
    step.nodes[i]->set_slot(Tensor());
  }
}

/// From the last layer down: layers whose gradient no record will add to any more, in buckets that are large enough for a sum,
/// or reach the first layer. Layers of a bucket lie one behind the other.
void SpectralGroup::turn_finished(Step& step) const {
  context().ranks->progress();
  while (step.left > 0) {
    size_t first = step.left;
    int64_t bytes = 0;
    const auto end_of = [&](size_t i) { return weights_[i]->weight.offset + aligned(weights_[i]->weight.shape.count()); };
    bool follows = true;
    while (first > 0 && follows && bytes < context().ranks->bucket_bytes && step.nodes[first - 1].use_count() == 1) {
      first--;
      bytes += 4 * weights_[first]->weight.shape.count();
      follows = first > 0 && end_of(first - 1) == weights_[first]->weight.offset;
    }
    if (first == step.left || (bytes < context().ranks->bucket_bytes && follows)) return;
    turn(step, first, step.left);
    const int64_t offset = weights_[first]->weight.offset;
    step.sum->start(step.grads, offset, end_of(step.left - 1) - offset);
    step.left = first;
  }
}

void SpectralGroup::prepare(const Tensor& values, const Tensor& grads, const Tensor& vectors, GradientSum* sum) {
  if (weights_.empty()) return;
  release();
  const bool record = context().tape && !context().weights_frozen;
  const bool iterate = context().training || step_in_evaluation_;
  Tensor used = vectors;
  if (iterate && !context().training) {
    used = Tensor(vectors.shape());
    KILN_RUN(Work::pointwise, scale(stream, DType::f32, vectors.count(), 1.f, vectors.data(), used.data()));
  }
  const Tensor packed(Shape{packed_count_}, context().storage), sigma(Shape{int64_t(weights_.size())});
  // u and v lie in one flat buffer, each at its own offset of it.
  KILN_RUN(Work::reduction, spectral_normalise(stream, tables(), values.f32(), used.f32(), used.f32(), iterate, sigma.f32(),
                                               packed.dtype(), packed.data()));
  // For sigmas(). A copy: a step's own memory must go back, so that the next one gets the same addresses.
  KILN_RUN(Work::reduction, scale(stream, DType::f32, sigma.count(), 1.f, sigma.f32(), sigma_.f32()));
  for (size_t i = 0; i < weights_.size(); i++) {
    weights_[i]->normalised = Var(packed.slice(packed_offsets_[i], weights_[i]->weight.shape), record);
    note_derived(weights_[i]->normalised.value, weights_[i]->weight.value);
  }
  if (!record) return;

  // The gradient belongs to the vectors of this forward: a later one will move them before our backward runs.
  const Tensor saved(vectors.shape());
  KILN_RUN(Work::pointwise, scale(stream, DType::f32, vectors.count(), 1.f, used.data(), saved.data()));
  auto step = std::make_shared<Step>();
  step->values = values;
  step->grads = grads;
  step->vectors = saved;
  step->sigma = sigma;
  step->sum = context().ranks ? sum : nullptr;
  step->left = weights_.size();
  for (SpectralWeight* w : weights_) step->nodes.push_back(w->normalised.node);
  context().tape->before_backward([this, step] {
    step->gradients = Tensor(Shape{packed_count_});
    for (size_t i = 0; i < weights_.size(); i++) {
      step->nodes[i]->set_slot(step->gradients.slice(packed_offsets_[i], weights_[i]->weight.shape));
      if (step->sum && weights_[i]->normalised.node == step->nodes[i]) weights_[i]->normalised = Var();  // its records have it
    }
  });
  if (step->sum) context().tape->after_each_record([this, step] { turn_finished(*step); });
  context().tape->push([this, step] {
    if (!step->sum) return turn(*step, 0, weights_.size());
    turn_finished(*step);
    KILN_ASSERT(step->left == 0);
  });
}

}  // namespace kiln
