#include "engine/orthogonal.h"

// Equal results for any number of threads: Eigen would split its products by it.
#define EIGEN_DONT_PARALLELIZE
#include <Eigen/Dense>

#include "engine/error.h"
#include "engine/matrix.h"
#include "kernels/gram.h"
#include "kernels/pointwise.h"

namespace kiln {

std::vector<float> orthogonal_matrix(const std::vector<float>& normals, int64_t rows) {
  using Matrix = Eigen::MatrixXf;
  const int64_t cols = int64_t(normals.size()) / rows;
  KILN_ASSERT(rows > 0 && rows * cols == int64_t(normals.size()));
  using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::Map<const RowMajor> a(normals.data(), rows, cols);
  const bool wide = rows < cols;
  const Matrix tall = wide ? Matrix(a.transpose()) : Matrix(a);
  const Eigen::HouseholderQR<Matrix> qr(tall);
  Matrix q = qr.householderQ() * Matrix::Identity(tall.rows(), tall.cols());
  for (int64_t j = 0; j < q.cols(); j++)
    if (qr.matrixQR()(j, j) < 0) q.col(j) *= -1.f;
  std::vector<float> out(normals.size());
  Eigen::Map<RowMajor> target(out.data(), rows, cols);
  if (wide)
    target = q.transpose();
  else
    target = q;
  return out;
}

void add_orthogonal_gradient(ParameterSet& set, float beta, OrthogonalForm form, const std::function<bool(const std::string&)>& applies,
                             const float* loss_scale) {
  if (beta == 0.f) return;
  const bool off_diagonal = form == OrthogonalForm::off_diagonal;
  const float factor = (off_diagonal ? 2.f : 4.f) * beta;
  for (const ParameterSet::Entry& e : set.entries()) {
    if (e.kind != ParameterSet::Entry::parameter || e.shape.rank() < 2 || !applies(e.name)) continue;
    const int64_t rows = e.shape[0], cols = e.count() / rows;
    const Tensor w = set.tensor(e), gram(Shape{rows, rows}), pull(e.shape);
    matrix_product(false, true, rows, rows, cols, w, w, gram);
    KILN_RUN(Work::optimiser, gram_residual(stream, int(rows), off_diagonal, factor, loss_scale, gram.f32()));
    matrix_product(false, false, rows, cols, rows, gram, w, pull);
    KILN_RUN(Work::optimiser, accumulate(stream, DType::f32, e.count(), 1.f, pull.data(), set.gradient(e).f32()));
  }
}

}  // namespace kiln
