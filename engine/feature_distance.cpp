#include "engine/feature_distance.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>

#include "engine/error.h"

namespace kiln {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Vector = Eigen::VectorXd;

constexpr int64_t kBlock = 512;  // rows that are widened to double at a time

Matrix rows_of(const FeatureSet& f, int64_t first, int64_t n) {
  using Floats = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  return Eigen::Map<const Floats>(f.row(first), n, f.dimensions).cast<double>();
}

/// Calls body(first row, rows) for blocks of rows of a set.
template <class Body>
void each_block(const FeatureSet& f, Body body) {
  for (int64_t i = 0; i < f.count; i += kBlock) body(i, rows_of(f, i, std::min(kBlock, f.count - i)));
}

struct Gaussian {
  Vector mean;
  Matrix root;       // covariance = root' root
  double trace = 0;  // of the covariance
};

Gaussian gaussian(const FeatureSet& f) {
  KILN_ASSERT(f.count >= 2 && f.dimensions >= 1);
  Gaussian g;
  g.mean = Vector::Zero(f.dimensions);
  each_block(f, [&](int64_t, const Matrix& x) { g.mean += x.colwise().sum().transpose(); });
  g.mean /= double(f.count);
  const double share = 1.0 / double(f.count - 1);
  if (f.count <= f.dimensions) {  // the centred pictures themselves are a root
    g.root.resize(f.count, f.dimensions);
    each_block(f, [&](int64_t i, const Matrix& x) { g.root.middleRows(i, x.rows()) = (x.rowwise() - g.mean.transpose()) * std::sqrt(share); });
    g.trace = g.root.squaredNorm();
    return g;
  }
  Eigen::MatrixXd c = Eigen::MatrixXd::Zero(f.dimensions, f.dimensions);
  each_block(f, [&](int64_t, const Matrix& x) {
    const Eigen::MatrixXd centred = (x.rowwise() - g.mean.transpose()).transpose();
    c.selfadjointView<Eigen::Lower>().rankUpdate(centred, share);
  });
  g.trace = c.trace();
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen(c);
  g.root = eigen.eigenvalues().cwiseMax(0.0).cwiseSqrt().asDiagonal() * eigen.eigenvectors().transpose();
  return g;
}

/// Calls body(i, j, d2): d2[k][l] = squared distance of row i + k of a and row j + l of b.
template <class Body>
void each_distance(const FeatureSet& a, const FeatureSet& b, Body body) {
  KILN_ASSERT(a.dimensions == b.dimensions);
  each_block(a, [&](int64_t i, const Matrix& x) {
    const Vector xx = x.rowwise().squaredNorm();
    each_block(b, [&](int64_t j, const Matrix& y) {
      Matrix d2 = -2.0 * (x * y.transpose());
      d2.colwise() += xx;
      d2.rowwise() += y.rowwise().squaredNorm().transpose();
      body(i, j, d2.cwiseMax(0.0).eval());
    });
  });
}

/// Sum of the kernel over all pairs; and over the pairs of a row with itself.
double kernel_sum(const FeatureSet& a, const FeatureSet& b) {
  const double d = double(a.dimensions);
  double sum = 0;
  each_block(a, [&](int64_t, const Matrix& x) {
    each_block(b, [&](int64_t, const Matrix& y) { sum += ((x * y.transpose()).array() / d + 1.0).cube().sum(); });
  });
  return sum;
}
double kernel_diagonal(const FeatureSet& a) {
  double sum = 0;
  each_block(a, [&](int64_t, const Matrix& x) { sum += (x.rowwise().squaredNorm().array() / double(a.dimensions) + 1.0).cube().sum(); });
  return sum;
}

/// Share of points within reach of a centre.
double covered(const FeatureSet& points, const FeatureSet& centres, int k) {
  const Neighbours n = nearest_neighbours(centres, centres, k, true);
  std::vector<char> inside(size_t(points.count), 0);
  each_distance(points, centres, [&](int64_t i, int64_t j, const Matrix& d2) {
    for (int64_t p = 0; p < d2.rows(); p++)
      for (int64_t c = 0; c < d2.cols(); c++) {
        const double radius = n.distance[size_t((j + c) * k + k - 1)];
        if (std::sqrt(d2(p, c)) <= radius) inside[size_t(i + p)] = 1;
      }
  });
  return double(std::count(inside.begin(), inside.end(), 1)) / double(points.count);
}

}  // namespace

FeatureSet FeatureSet::part(int64_t first, int64_t n) const {
  KILN_ASSERT(first >= 0 && n >= 0 && first + n <= count);
  return {n, dimensions, {values.begin() + first * dimensions, values.begin() + (first + n) * dimensions}};
}

double frechet_distance(const FeatureSet& a, const FeatureSet& b) {
  KILN_ASSERT(a.dimensions == b.dimensions);
  const Gaussian p = gaussian(a), q = gaussian(b);
  // (C1 C2) has the eigenvalues of (R2 R1') (R1 R2'), the squares of the singular values of R1 R2'.
  const Eigen::MatrixXd cross = p.root * q.root.transpose();
  const double root_trace = Eigen::BDCSVD<Eigen::MatrixXd>(cross).singularValues().sum();
  return (p.mean - q.mean).squaredNorm() + p.trace + q.trace - 2 * root_trace;
}

double kernel_distance(const FeatureSet& a, const FeatureSet& b) {
  KILN_ASSERT(a.dimensions == b.dimensions && a.count >= 2 && b.count >= 2);
  const double m = double(a.count), n = double(b.count);
  return (kernel_sum(a, a) - kernel_diagonal(a)) / (m * (m - 1)) + (kernel_sum(b, b) - kernel_diagonal(b)) / (n * (n - 1)) -
         2 * kernel_sum(a, b) / (m * n);
}

PrecisionRecall precision_recall(const FeatureSet& real, const FeatureSet& fake, int k) { return {covered(fake, real, k), covered(real, fake, k)}; }

Neighbours nearest_neighbours(const FeatureSet& points, const FeatureSet& set, int k, bool same) {
  KILN_ASSERT(k >= 1 && k <= set.count - (same ? 1 : 0));
  struct Candidate {
    double d2;
    int64_t index;
    bool operator<(const Candidate& o) const { return d2 != o.d2 ? d2 < o.d2 : index < o.index; }
  };
  std::vector<std::vector<Candidate>> best(size_t(points.count));
  each_distance(points, set, [&](int64_t i, int64_t j, const Matrix& d2) {
    for (int64_t p = 0; p < d2.rows(); p++) {
      std::vector<Candidate>& mine = best[size_t(i + p)];
      for (int64_t c = 0; c < d2.cols(); c++)
        if (!same || i + p != j + c) mine.push_back({d2(p, c), j + c});
      const size_t keep = std::min(mine.size(), size_t(k));
      std::partial_sort(mine.begin(), mine.begin() + ptrdiff_t(keep), mine.end());
      mine.resize(keep);
    }
  });
  Neighbours out{k, {}, {}};
  for (const auto& mine : best)
    for (const Candidate& c : mine) {
      out.index.push_back(c.index);
      out.distance.push_back(std::sqrt(c.d2));
    }
  return out;
}

}  // namespace kiln
