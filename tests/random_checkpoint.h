// Checkpoints of generators that were not trained: for tests of what uses one.
#pragma once
#include <string>
#include <vector>

#include "engine/tensor.h"
#include "models/fastgan.h"

namespace kiln::test {

/// Writes the averaged generator of a random network: random weights, statistics and noise strengths, step 17. Its pictures differ
/// much, by their noise; of z little reaches them. Where z [n, nz] is given (a context must be current then), returns the pictures
/// that the model itself makes of it, with the noise of these seeds.
Tensor write_random_checkpoint(const std::string& path, const fastgan::Config& c, uint64_t seed, const Tensor& z = {},
                               const std::vector<uint64_t>& noise = {});

/// Writes one whose batch norms know the statistics of its own maps, and whose noise is off: its pictures follow z.
void write_responsive_checkpoint(const std::string& path, const fastgan::Config& c, uint64_t seed);

}  // namespace kiln::test
