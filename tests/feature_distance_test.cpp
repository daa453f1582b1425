// Distances of feature sets against numpy's (tests/golden/make_features.py) and against plain loops.
#include "engine/feature_distance.h"

#include "tests/feature_fixtures.h"

using namespace kiln;
using namespace kiln::test;

namespace {

FeatureSet hashed(const std::string& name, int64_t count, int64_t dimensions, double scale = 1, double shift = 0) {
  FeatureSet f{count, dimensions, hashed_signed(name, count * dimensions)};
  for (float& x : f.values) x = float(double(x) * scale + shift);
  return f;
}

double error(const std::string& name, double value) { return golden_error(features_golden(), name, {float(value)}); }

double distance(const FeatureSet& a, int64_t i, const FeatureSet& b, int64_t j) {
  double sum = 0;
  for (int64_t k = 0; k < a.dimensions; k++) sum += std::pow(double(a.row(i)[k]) - double(b.row(j)[k]), 2);
  return std::sqrt(sum);
}

}  // namespace

TEST_CASE("golden: Frechet and kernel distance, precision and recall") {
  const FeatureSet a = hashed("real features", 60, 12), b = hashed("fake features", 50, 12, 0.8, 0.2);
  CHECK(error("fid", frechet_distance(a, b)) < 1e-5);
  CHECK(error("fid", frechet_distance(b, a)) < 1e-5);
  CHECK(error("fid.few", frechet_distance(a.part(0, 8), b.part(0, 8))) < 1e-5);  // singular covariances
  CHECK(error("kid", kernel_distance(a, b)) < 1e-5);
  const PrecisionRecall pr = precision_recall(a, b);
  CHECK(error("precision", pr.precision) < 1e-6);
  CHECK(error("recall", pr.recall) < 1e-6);
}

TEST_CASE("feature distance: equal sets, shifted sets, and sets with fewer pictures than dimensions") {
  const FeatureSet a = hashed("a", 40, 9);
  CHECK(std::fabs(frechet_distance(a, a)) < 1e-10);
  FeatureSet shifted = a;
  for (float& x : shifted.values) x += 0.5f;  // equal covariance: the means' distance is all there is
  CHECK(frechet_distance(a, shifted) == doctest::Approx(9 * 0.25).epsilon(1e-5));
  FeatureSet wider = a;
  double trace = 0;
  for (int64_t k = 0; k < 9; k++) {
    double mean = 0, squares = 0;
    for (int64_t i = 0; i < 40; i++) mean += double(a.row(i)[k]) / 40;
    for (int64_t i = 0; i < 40; i++) squares += std::pow(double(a.row(i)[k]) - mean, 2) / 39;
    trace += squares;
    for (int64_t i = 0; i < 40; i++) wider.values[size_t(i * 9 + k)] = float(mean + 3 * (double(a.row(i)[k]) - mean));
  }
  CHECK(frechet_distance(a, wider) == doctest::Approx(4 * trace).epsilon(1e-5));  // C' = 9 C: tr(C + 9 C - 6 C)
  // Each picture twice: the same mean, and the covariance times (2n - 2) / (2n - 1); by way of the covariance's eigenvectors now.
  const FeatureSet few = hashed("few", 6, 9), other = hashed("other", 7, 9);
  FeatureSet twice = few;
  twice.count = 12;
  twice.values.insert(twice.values.end(), few.values.begin(), few.values.end());
  const double s = std::sqrt(10.0 / 11.0);
  FeatureSet scaled = few;
  for (int64_t k = 0; k < 9; k++) {
    double mean = 0;
    for (int64_t i = 0; i < 6; i++) mean += double(few.row(i)[k]) / 6;
    for (int64_t i = 0; i < 6; i++) scaled.values[size_t(i * 9 + k)] = float(mean + s * (double(few.row(i)[k]) - mean));
  }
  CHECK(frechet_distance(twice, other) == doctest::Approx(frechet_distance(scaled, other)).epsilon(1e-5));
}

TEST_CASE("feature distance: the kernel distance is unbiased, and blocks of rows change nothing") {
  double sum = 0;
  for (int i = 0; i < 40; i++) sum += kernel_distance(hashed("x" + std::to_string(i), 30, 4), hashed("y" + std::to_string(i), 25, 4));
  CHECK(std::fabs(sum / 40) < 0.01);
  // More rows than are widened at a time: against plain loops.
  const FeatureSet a = hashed("large", 700, 3), b = hashed("larger", 530, 3, 1, 0.3);
  const auto kernel = [](const FeatureSet& p, int64_t i, const FeatureSet& q, int64_t j) {
    double dot = 0;
    for (int64_t k = 0; k < 3; k++) dot += double(p.row(i)[k]) * double(q.row(j)[k]);
    return std::pow(dot / 3 + 1, 3);
  };
  double aa = 0, bb = 0, ab = 0;
  for (int64_t i = 0; i < 700; i++)
    for (int64_t j = 0; j < 700; j++) aa += i == j ? 0 : kernel(a, i, a, j) / (700.0 * 699);
  for (int64_t i = 0; i < 530; i++)
    for (int64_t j = 0; j < 530; j++) bb += i == j ? 0 : kernel(b, i, b, j) / (530.0 * 529);
  for (int64_t i = 0; i < 700; i++)
    for (int64_t j = 0; j < 530; j++) ab += kernel(a, i, b, j) / (700.0 * 530);
  CHECK(kernel_distance(a, b) == doctest::Approx(aa + bb - 2 * ab).epsilon(1e-9));
}

TEST_CASE("feature distance: nearest neighbours") {
  const FeatureSet set = hashed("set", 600, 5), points = hashed("points", 7, 5);
  const Neighbours n = nearest_neighbours(points, set, 3);
  for (int64_t i = 0; i < 7; i++) {
    std::vector<std::pair<double, int64_t>> all;
    for (int64_t j = 0; j < 600; j++) all.emplace_back(distance(points, i, set, j), j);
    std::sort(all.begin(), all.end());
    for (size_t k = 0; k < 3; k++) {
      CHECK(n.index[size_t(i) * 3 + k] == all[k].second);
      CHECK(n.distance[size_t(i) * 3 + k] == doctest::Approx(all[k].first).epsilon(1e-6));
    }
  }
  const Neighbours own = nearest_neighbours(set, set, 1, true), with_self = nearest_neighbours(set, set, 1);
  for (int64_t i = 0; i < 600; i++) {
    CHECK(own.index[size_t(i)] != i);
    CHECK(own.distance[size_t(i)] > 0);
    CHECK(with_self.index[size_t(i)] == i);
  }
}

TEST_CASE("feature distance: precision sees pictures that are nothing, recall those that are missing") {
  const FeatureSet real = hashed("real", 200, 2);
  FeatureSet corner{0, 2, {}};  // only the real pictures in one quarter of the plane
  for (int64_t i = 0; i < 200; i++)
    if (real.row(i)[0] > 0 && real.row(i)[1] > 0) {
      corner.values.insert(corner.values.end(), real.row(i), real.row(i) + 2);
      corner.count++;
    }
  const PrecisionRecall missing = precision_recall(real, corner), nothing = precision_recall(corner, real);
  CHECK(missing.precision == 1);
  CHECK(missing.recall < 0.5);
  CHECK(nothing.recall == 1);
  CHECK(nothing.precision < 0.5);
}
