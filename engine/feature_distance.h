// Distances between two sets of feature vectors: what FID, KID and precision/recall compute once a network has looked at the
// pictures. All in double precision. Results do not depend on the order of pictures, but for rounding.
#pragma once
#include <cstdint>
#include <vector>

namespace kiln {

/// One row a picture: values is [count, dimensions].
struct FeatureSet {
  int64_t count = 0, dimensions = 0;
  std::vector<float> values;

  const float* row(int64_t i) const { return values.data() + i * dimensions; }
  /// Rows [first, first + n).
  FeatureSet part(int64_t first, int64_t n) const;
};

/// Frechet distance of the Gaussians with the sets' means and covariances (divided by n - 1) (Heusel, Ramsauer, Unterthiner,
/// Nessler, Hochreiter 2017, section 3): |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). The root's trace is the sum of the
/// singular values of R1 R2', C = R'R, which is exact where a set has fewer pictures than dimensions and its covariance is
/// singular. Sets of at least 2 and of equal dimensions. Time: about min(n, d)^3.
double frechet_distance(const FeatureSet& a, const FeatureSet& b);

/// Squared maximum mean discrepancy with the kernel (x.y / d + 1)^3 (Binkowski, Sutherland, Arbel, Gretton 2018, section 4), the
/// unbiased estimate over all pairs: 0 in the mean where both sets are drawn from one distribution, and negative by chance
/// then. Sets of at least 2. Time: (na + nb)^2 d.
double kernel_distance(const FeatureSet& a, const FeatureSet& b);

/// Improved precision and recall (Kynkaanniemi, Karras, Laine, Lehtinen, Aila 2019, section 2): the share of fakes within the
/// ball of a real picture that reaches its k-th nearest other real one, and the share of real pictures within the balls of fakes.
/// Sets of more than k.
struct PrecisionRecall {
  double precision = 0, recall = 0;
};
PrecisionRecall precision_recall(const FeatureSet& real, const FeatureSet& fake, int k = 3);

/// The k members of a set nearest to each point, nearest first: [points.count, k]. `same`: points is that set, and nobody is
/// his own neighbour. k must be less than what there is to choose from.
struct Neighbours {
  int k = 0;
  std::vector<int64_t> index;
  std::vector<double> distance;  ///< Euclidean
};
Neighbours nearest_neighbours(const FeatureSet& points, const FeatureSet& set, int k, bool same = false);

}  // namespace kiln
