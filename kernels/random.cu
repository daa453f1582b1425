#include "kernels/random.h"

#include "kernels/exec/primitives.h"
#include "kernels/philox.h"

namespace kiln::KILN_EXEC {
namespace {

template <bool Normal>
struct Fill {
  uint64_t seed;
  uint32_t site;
  const uint64_t* step;
  int64_t first_sample, per_sample, blocks;
  float* out;
  KILN_HD void operator()(int64_t i) const {
    const int64_t s = i / blocks, b = i - s * blocks;
    const philox::Words w = philox::block({uint32_t(b), uint32_t(first_sample + s), site, uint32_t(*step)}, uint32_t(seed),
                                          uint32_t(seed >> 32));
    float v[4];
    if constexpr (Normal) {
      philox::normals(w.x, w.y, v, v + 1);
      philox::normals(w.z, w.w, v + 2, v + 3);
    } else {
      v[0] = philox::uniform(w.x);
      v[1] = philox::uniform(w.y);
      v[2] = philox::uniform(w.z);
      v[3] = philox::uniform(w.w);
    }
    float* o = out + s * per_sample;
    for (int k = 0; k < 4; k++)
      if (b * 4 + k < per_sample) o[b * 4 + k] = v[k];
  }
};

template <bool Normal>
void fill(Stream stream, uint64_t seed, uint32_t site, const uint64_t* step, int64_t first_sample, int64_t samples,
          int64_t per_sample, float* out) {
  const int64_t blocks = (per_sample + 3) / 4;
  map_each(stream, samples * blocks, Fill<Normal>{seed, site, step, first_sample, per_sample, blocks, out}, 16);
}

}  // namespace

void random_uniform(Stream stream, uint64_t seed, uint32_t site, const uint64_t* step, int64_t first_sample,
                    int64_t samples, int64_t per_sample, float* out) {
  fill<false>(stream, seed, site, step, first_sample, samples, per_sample, out);
}

void random_normal(Stream stream, uint64_t seed, uint32_t site, const uint64_t* step, int64_t first_sample,
                   int64_t samples, int64_t per_sample, float* out) {
  fill<true>(stream, seed, site, step, first_sample, samples, per_sample, out);
}

}  // namespace kiln::KILN_EXEC
