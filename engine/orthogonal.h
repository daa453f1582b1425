// Orthogonal matrices as starting weights, and the pull towards them while training.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "engine/parameters.h"

namespace kiln {

/// Makes `normals` (independent N(0, 1), rows * cols of them, row-major) a matrix whose rows are orthonormal if rows <= cols,
/// whose columns are otherwise: Q of a QR decomposition with the signs of R's diagonal, so that it is uniform over such matrices
/// (Saxe et al. 2014).
std::vector<float> orthogonal_matrix(const std::vector<float>& normals, int64_t rows);

/// What orthogonal regularisation adds to the gradient of a weight W [rows, cols], rows = outputs:
///   off_diagonal   2 beta ((W W') o (1 - I)) W    BigGAN's (Brock et al. 2019, section 3.1) as its public code computes it: half of
///                                                 the gradient of beta |W W' o (1 - I)|^2, so its beta counts half
///   full           4 beta (W W' - I) W            the gradient of beta |W W' - I|^2 (Brock et al. 2017)
enum class OrthogonalForm { off_diagonal, full };

/// Adds it to the gradients of every parameter with two axes or more for which `applies` is true of its name. On the raw weights,
/// once before an optimiser step. The Gram matrices are temporary; beta 0 does nothing. loss_scale: what the gradients there are
/// multiplied with, as for ParameterSet::adam_step.
void add_orthogonal_gradient(ParameterSet& set, float beta, OrthogonalForm form, const std::function<bool(const std::string&)>& applies,
                             const float* loss_scale = nullptr);

}  // namespace kiln
