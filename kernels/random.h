// Philox4x32-10 random numbers (Salmon et al. 2011), keyed and counted so that they do not depend on device, batch split
// or rank: key = seed; counter = (element / 4, sample, site, step). `sample` is the picture's global index in the batch.
// The step is read from device memory, so that a captured graph draws new numbers at every replay.
#pragma once
#include "kernels/exec/api.h"

KILN_KERNEL_API(
    /// out[s][i], s in [0, samples), i in [0, per_sample): uniform on [0, 1), 24 bits. Equal bits on every device.
    void random_uniform(Stream stream, uint64_t seed, uint32_t site, const uint64_t* step, int64_t first_sample,
                        int64_t samples, int64_t per_sample, float* out);
    /// The same, standard normal (Box-Muller with our own log and sincos): equal to 1e-6 on every device.
    void random_normal(Stream stream, uint64_t seed, uint32_t site, const uint64_t* step, int64_t first_sample,
                       int64_t samples, int64_t per_sample, float* out);)
