#include "models/biggan_sampler.h"

#include <algorithm>
#include <cmath>

#include "engine/error.h"
#include "engine/picture_tensor.h"
#include "models/biggan_run.h"

namespace kiln::biggan {

Truncation truncation_from_name(const std::string& kind, double threshold) {
  Truncation t{TruncationKind::none, threshold};
  if (kind == "none") return t;
  if (kind == "resample")
    t.kind = TruncationKind::resample;
  else if (kind == "scaled")
    t.kind = TruncationKind::scaled;
  else if (kind == "spread")
    t.kind = TruncationKind::spread;
  else
    fail("--truncation-kind {}: not known; use none, resample, scaled or spread", kind);
  const double least = t.kind == TruncationKind::resample ? 0.05 : 1e-6;
  if (!(threshold >= least && threshold <= 100)) fail("--truncation {}: {} takes thresholds from {} to 100", threshold, kind, least);
  return t;
}

Sampler::Sampler(const std::filesystem::path& checkpoint, const SamplerOptions& options) : options_(options) {
  const SafetensorsFile file(checkpoint);
  const auto it = file.metadata().find("config");
  if (it == file.metadata().end()) fail("{}: not a checkpoint of kiln (it has no configuration)", checkpoint.string());
  const RunOptions run = from_json(it->second, checkpoint.string(), options.of_band);
  check(run.network);
  classes_ = run.class_names;
  band_ = run.band;
  step_ = metadata_integer(file, "step");
  context_ = std::make_unique<Context>(Device::cpu, false, size_t(options.memory_gb * double(1ull << 30)));
  const UseContext use(*context_);
  model_ = std::make_unique<Model>(run.network);
  load_parameters(file, "ema.", model_->average_params);
  running_ = copy_of(model_->average_params.statistics);
}

Sampler::~Sampler() {
  const UseContext use(*context_);
  standing_.clear();
  running_ = {};
  model_.reset();
}

int Sampler::size() const { return model_->config.size; }
int Sampler::latent_size() const { return model_->config.latent(); }

int Sampler::class_number(const std::string& name) const {
  for (size_t i = 0; i < classes_.size(); i++)
    if (classes_[i] == name) return int(i);
  if (!name.empty() && name.size() < 7 && name.find_first_not_of("0123456789") == std::string::npos && size_t(std::stoi(name)) < classes_.size())
    return std::stoi(name);
  std::string all;
  for (const std::string& c : classes_) all += (all.empty() ? "" : ", ") + c;
  fail("the class '{}' is not known: {}", name, classes_.empty() ? "this generator is unconditional" : "there are " + all);
}

std::vector<float> Sampler::latent(uint64_t seed, const Truncation& truncation) const {
  const UseContext use(*context_);
  const Shape shape{1, latent_size()};
  // A seed is the sample's number in one endless row, a round of drawing again its step.
  Philox random(0x4C4154454E54ull);
  random.set_first_sample(int64_t(seed & 0x7fffffffffffffffull));
  std::vector<float> z = random.normal("z", shape).to_vector();
  const double limit = truncation.kind == TruncationKind::resample ? truncation.threshold : truncation.kind == TruncationKind::scaled ? 2.0 : 0;
  const auto beyond = [&](float v) { return limit > 0 && std::abs(double(v)) > limit; };
  for (uint64_t round = 1; std::any_of(z.begin(), z.end(), beyond); round++) {
    random.set_step(round);
    const std::vector<float> again = random.normal("z", shape).to_vector();
    for (size_t i = 0; i < z.size(); i++)
      if (beyond(z[i])) z[i] = again[i];
  }
  if (truncation.kind == TruncationKind::scaled || truncation.kind == TruncationKind::spread)
    for (float& v : z) v *= float(truncation.threshold);
  return z;
}

void Sampler::use_statistics(const Truncation& truncation) {
  ParameterSet& set = model_->average_params;
  if (options_.standing == 0) return copy(running_, set.statistics);
  const auto key = std::pair(truncation.kind, truncation.kind == TruncationKind::none ? 1.0 : truncation.threshold);
  if (!standing_.contains(key)) {
    const auto batch = [&](int k) {
      StandingStatistics::Batch b{Tensor(), {}};
      std::vector<float> z;
      std::vector<int32_t> labels;
      for (int i = 0; i < options_.batch; i++) {
        const uint64_t number = uint64_t(k) * uint64_t(options_.batch) + uint64_t(i);
        const std::vector<float> one = latent((1ull << 40) + number, truncation);  // seeds that nobody asks for
        z.insert(z.end(), one.begin(), one.end());
        labels.push_back(int32_t(number % std::max<size_t>(classes_.size(), 1)));
      }
      b.z = from_vector(Shape{options_.batch, latent_size()}, z);
      b.labels.a = Tensor(Shape{options_.batch}, DType::i32);
      b.labels.a.upload(labels.data());
      return b;
    };
    const StandingStatistics standing(*model_, options_.standing, batch);
    standing_[key] = copy_of(set.statistics);
  }
  copy(standing_[key], set.statistics);
}

std::vector<Picture> Sampler::render(const std::vector<Draw>& draws, const Truncation& truncation) {
  std::vector<Picture> out;
  generate(draws, truncation, [&](const Tensor& x) {
    for (Picture& p : to_pictures(x)) out.push_back(std::move(p));
  });
  return out;
}

void Sampler::generate(const std::vector<Draw>& draws, const Truncation& truncation, const std::function<void(const Tensor&)>& each) {
  const UseContext use(*context_);
  use_statistics(truncation);
  for (size_t first = 0; first < draws.size();) {
    size_t n = 1;  // of one t
    while (first + n < draws.size() && n < size_t(options_.batch) && draws[first + n].t == draws[first].t) n++;
    std::vector<float> z;
    std::vector<int32_t> a, b;
    for (size_t i = first; i < first + n; i++) {
      if (int(draws[i].z.size()) != latent_size()) fail("a latent has {} numbers; this generator takes {}", draws[i].z.size(), latent_size());
      z.insert(z.end(), draws[i].z.begin(), draws[i].z.end());
      a.push_back(draws[i].label);
      b.push_back(draws[i].other);
    }
    Labels labels;
    labels.a = labels.b = Tensor(Shape{int64_t(n)}, DType::i32);
    labels.a.upload(a.data());
    labels.t = draws[first].t;
    if (labels.t != 0.f) {
      labels.b = Tensor(Shape{int64_t(n)}, DType::i32);
      labels.b.upload(b.data());
    }
    each(model_->sample(from_vector(Shape{int64_t(n), latent_size()}, z), labels));
    first += n;
  }
}

// ---- the truncation curve -------------------------------------------------------------------------------------------

namespace {

constexpr int kSide = 16;

std::vector<std::vector<uint8_t>> small(const std::vector<Picture>& pictures) {
  std::vector<std::vector<uint8_t>> out;
  for (const Picture& p : pictures) out.push_back(fit_picture(p, kSide, Fit::squash).rgb);
  return out;
}

double distance(const std::vector<uint8_t>& a, const std::vector<uint8_t>& b) {
  int64_t s = 0;
  for (size_t i = 0; i < a.size(); i++) s += (int(a[i]) - int(b[i])) * (int(a[i]) - int(b[i]));
  return std::sqrt(double(s) / double(a.size()));
}

/// Mean distance between different pictures of one class.
double spread(const std::vector<std::vector<uint8_t>>& x, const std::vector<int>& labels) {
  double sum = 0;
  int64_t pairs = 0;
  for (size_t i = 0; i < x.size(); i++)
    for (size_t j = i + 1; j < x.size(); j++)
      if (labels[i] == labels[j]) {
        sum += distance(x[i], x[j]);
        pairs++;
      }
  return pairs ? sum / double(pairs) : 0;
}

/// Mean distance of x to the nearest of y; self: y is x, and a picture is not its own neighbour.
double nearest(const std::vector<std::vector<uint8_t>>& x, const std::vector<std::vector<uint8_t>>& y, bool self) {
  double sum = 0;
  for (size_t i = 0; i < x.size(); i++) {
    double best = 1e300;
    for (size_t j = 0; j < y.size(); j++)
      if (!self || i != j) best = std::min(best, distance(x[i], y[j]));
    sum += best;
  }
  return x.empty() ? 0 : sum / double(x.size());
}

}  // namespace

CurvePoint compare_sets(const std::vector<Picture>& samples, const std::vector<int>& sample_labels, const std::vector<Picture>& reals,
                        const std::vector<int>& real_labels) {
  KILN_ASSERT(samples.size() == sample_labels.size() && reals.size() == real_labels.size() && reals.size() >= 2);
  const auto s = small(samples), r = small(reals);
  CurvePoint p;
  const double near = nearest(r, r, true), wide = spread(r, real_labels);
  p.fidelity = near > 0 ? nearest(s, r, false) / near : 0;
  p.variety = wide > 0 ? spread(s, sample_labels) / wide : 0;
  return p;
}

std::string curve_svg(const std::vector<CurvePoint>& points, const std::string& title) {
  const double w = 560, h = 400, left = 70, bottom = 340, right = 530, top = 50;
  double x_max = 1, y_max = 1;
  for (const CurvePoint& p : points) x_max = std::max(x_max, p.variety), y_max = std::max(y_max, p.fidelity);
  x_max *= 1.1, y_max *= 1.1;
  const auto x = [&](double v) { return left + v / x_max * (right - left); };
  const auto y = [&](double v) { return bottom - v / y_max * (bottom - top); };
  std::string s = fmt::format("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" font-family=\"sans-serif\" font-size=\"12\">\n"
                              "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{}\" y=\"25\" font-size=\"14\">{}</text>\n", w, h, left, title);
  s += fmt::format("<path d=\"M{0} {1}V{2}H{3}\" fill=\"none\" stroke=\"black\"/>\n", left, top, bottom, right);
  for (double v = 0; v <= x_max; v += 0.25) s += fmt::format("<text x=\"{:.0f}\" y=\"{:.0f}\" text-anchor=\"middle\">{}</text>\n", x(v), bottom + 16, v);
  for (double v = 0; v <= y_max; v += 0.25) s += fmt::format("<text x=\"{:.0f}\" y=\"{:.0f}\" text-anchor=\"end\">{}</text>\n", left - 6, y(v) + 4, v);
  s += fmt::format("<text x=\"{:.0f}\" y=\"{:.0f}\" text-anchor=\"middle\">variety (1: as real pictures of a class)</text>\n", (left + right) / 2, bottom + 40);
  s += fmt::format("<text transform=\"translate(22 {:.0f}) rotate(-90)\" text-anchor=\"middle\">distance to the nearest real picture (1: as real ones)</text>\n", (top + bottom) / 2);
  std::string path;
  for (const CurvePoint& p : points) path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", x(p.variety), y(p.fidelity));
  s += fmt::format("<path d=\"{}\" fill=\"none\" stroke=\"steelblue\"/>\n", path);
  for (const CurvePoint& p : points)
    s += fmt::format("<circle cx=\"{0:.1f}\" cy=\"{1:.1f}\" r=\"4\" fill=\"steelblue\"/><text x=\"{2:.1f}\" y=\"{3:.1f}\">{4}</text>\n", x(p.variety), y(p.fidelity),
                     x(p.variety) + 7, y(p.fidelity) - 5, p.threshold);
  return s + "</svg>\n";
}

}  // namespace kiln::biggan
