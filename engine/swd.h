// Sliced Wasserstein distance between two sets of pictures (SWD), for the training log: no network, no weights.
//
// Karras, Aila, Laine, Lehtinen, "Progressive Growing of GANs for Improved Quality, Stability, and Variation" (ICLR
// 2018, arXiv 1710.10196), section 5. A set of pictures becomes, per level of a Laplacian pyramid, a cloud of 7x7x3
// patches; two clouds are compared by their one-dimensional Wasserstein-1 distances along random directions.
//
// Definition, as it is computed here
//   pictures     uint8 RGB in H,W,3 order, values 0..255; float pictures in [-1,1] are rounded to uint8 first, because
//                that is what a user will look at (and what the paper measures)
//   pyramid      level 0 is the full size, each next one half of it (odd sides round up), while the shorter side is at
//                least min_level = 16. down: 5x5 binomial filter (1,4,6,4,1)/16 in x and y, then every second pixel;
//                up: zeros between the pixels, then 4 x the same filter. Borders mirror without repeating the edge.
//                level[i] = gauss[i] - up(gauss[i+1]); the last level is gauss itself, the low-pass
//   descriptors  patches of patch x patch x 3 at uniformly random corners, inside the picture
//   moments      each set's descriptors get, per level and channel, mean 0 and standard deviation 1 by the set's own
//                moments. A set whose deviation is below 1e-3 grey levels is constant: its descriptors are all zero
//   directions   Gaussian vectors of length 1; the same ones for every comparison
//   distance     both sides projected and sorted, mean absolute difference, mean over the directions, times 1e3.
//                The paper's four repeats of 128 directions averaged are the same number as 512 directions averaged
//   mean         the plain mean of the levels
//
// What it cannot see: a brightness, tint or contrast that *all* pictures of the set share is taken out by the moments.
// That some pictures are darker than others is seen, in the low-pass.
//
// Protocol: why a value and the baseline may be compared
//   The distance of two finite samples of one distribution is not 0: it falls with the number of pictures, and of
//   patches. A value means something only beside the distance of equally large samples of the truth. So every distance
//   of a SwdReference is one between k pictures and k pictures with p patches each, k and p fixed when it is built:
//     k = pictures option, at most half of the real pictures
//     p = patches_per_image, less where k x p would pass max_descriptors
//   Two disjoint random sets of k real pictures, A and B, are kept as sorted projections.
//     value     = mean of SWD(A, F) and SWD(B, F), F the first k fakes; of 2k fakes or more, each full group of k is
//                 compared so and the results averaged (a rest below k is left out)
//     baseline  = SWD(A, B), averaged over `splits` random pairs of disjoint sets
//   A generator that draws from the very distribution that the real pictures were drawn from has, in the mean, the
//   baseline as its value: A, B and F are then three independent samples of k. A value well below the baseline says
//   that the fakes are nearer to the training pictures than other real pictures are: copies of them.
//   The numbers are not the paper's: with 2^21 descriptors from 16384 pictures its sampling floor is far lower.
//
// Random numbers are splitmix64 of (seed, purpose, index), patch corners by a picture's place in its set: equal sets in
// equal order have distance 0. Results do not depend on the number of threads, bit for bit; between builds they agree
// to rounding.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace kiln {

struct SwdOptions {
  int patch = 7;                ///< side of a descriptor, pixels
  int patches_per_image = 128;  ///< at most, per picture and level
  int directions = 512;         ///< random projections per level
  uint64_t seed = 1;            ///< of patch corners, directions and splits
  int min_level = 16;           ///< shorter side of the smallest level at least, pixels; not below patch
  int max_descriptors = 16384;  ///< at most, per set and level; bounds time and memory
  int pictures = 256;           ///< pictures a side of a SwdReference, at most half of the real ones
  int splits = 4;               ///< random halvings behind a SwdReference's baseline
};

struct SwdResult {
  std::vector<double> per_level;  ///< SWD x 1e3, from the full size down to the low-pass
  double mean = 0;                ///< mean of per_level
};

/// Copies picture i, uint8 [height, width, 3]. Called on the thread that asked for a distance, so it may throw; of a set, in
/// ascending order of the places in it.
using PictureReader = std::function<void(int64_t i, uint8_t* to)>;

/// The real pictures' side of the distance: built once, then a comparison costs only the fakes' half.
class SwdReference {
 public:
  /// reals: uint8 [count, height, width, 3], read here and not kept.
  /// Throws kiln::Error: fewer than 2 pictures, sides below min_level, options out of range.
  SwdReference(const uint8_t* reals, int64_t count, int height, int width, const SwdOptions& options = {});
  /// The same for pictures that do not all lie in memory: 64 of them do at a time.
  SwdReference(const PictureReader& reals, int64_t count, int height, int width, const SwdOptions& options = {});

  /// fakes: uint8 [count, height, width, 3]. Throws kiln::Error where count < pictures().
  SwdResult compare(const uint8_t* fakes, int64_t count) const;
  /// The same for fakes that are made while they are compared, 64 in memory at a time: reader(0), reader(1), ...
  SwdResult compare(const PictureReader& fakes, int64_t count) const;
  /// fakes: float [count, height, width, 3] in [-1,1], clamped to it. Throws kiln::Error also at a NaN.
  SwdResult compare(const float* fakes, int64_t count) const;

  /// Real against real under the same protocol: what a perfect generator may be expected to reach.
  const SwdResult& baseline() const { return baseline_; }
  /// Standard deviation of the baseline's mean over the splits, x 1e3; 0 with one split.
  double baseline_spread() const { return baseline_spread_; }

  /// Pictures a side: give compare() this many fakes, or a multiple.
  int64_t pictures() const { return pictures_; }
  /// Shorter side of each level, pixels, in the order of SwdResult::per_level.
  std::vector<int> levels() const;
  /// Memory held between comparisons: at most about 8 x directions x max_descriptors a level (67 MB as the options
  /// stand). Building and comparing take some 20 MB a level more while they run.
  int64_t bytes() const;
  /// What a reference of so many pictures will hold, and what building it and comparing with it take at most, on that many
  /// threads: bytes. Zeros where there are fewer than two pictures.
  struct Memory {
    int64_t held = 0, building = 0, comparing = 0;  // the latter two include what is held
  };
  static Memory plan(int64_t count, int height, int width, int threads, const SwdOptions& options = {});
  /// Protocol, counts and memory in one line, for the log.
  std::string description() const;

 private:
  int64_t count_ = 0, pictures_ = 0;
  int height_ = 0, width_ = 0, patches_ = 0;
  SwdOptions options_;
  std::vector<std::vector<float>> directions_;  // per level [directions, patch*patch*3]
  std::vector<std::vector<float>> half_[2];     // A and B: per level [directions, pictures*patches], rows sorted
  SwdResult baseline_;
  double baseline_spread_ = 0;
};

/// SWD of two sets, uint8 [na, height, width, 3] and [nb, height, width, 3], with no baseline. Distances of samples of
/// unequal size would hold unequal biases, so only the first min(na, nb) pictures of each are compared.
/// options.pictures and options.splits play no part. Throws kiln::Error as SwdReference does.
SwdResult swd(const uint8_t* a, int64_t na, const uint8_t* b, int64_t nb, int height, int width,
              const SwdOptions& options = {});

/// Exact Wasserstein-1 distance of two equally large samples on the line, in their unit: the mean absolute difference
/// of the sorted values. Throws kiln::Error where the sizes differ or are 0.
double wasserstein1(std::vector<float> a, std::vector<float> b);

/// The pieces, open so that tests can set them beside plain loops.
namespace swd_detail {

struct Plane {  // [height, width, 3]
  int height = 0, width = 0;
  std::vector<float> pixels;
};

struct LevelShape {
  int height, width;
};
/// Sizes of the levels, full size first.
std::vector<LevelShape> level_shapes(int height, int width, int min_level);

/// Laplacian pyramid of one picture [height, width, 3], full size first. `out` may be reused: no new memory then.
void laplacian_pyramid(const uint8_t* picture, int height, int width, int min_level, std::vector<Plane>& out);
/// The picture that the pyramid was made of, within rounding (its first level's size).
Plane collapse(const std::vector<Plane>& pyramid);

struct Corner {
  int y, x;
};
/// Upper left corner of patch number `patch_index` of the `slot`-th picture of a set, on a level of height x width.
Corner patch_corner(const SwdOptions& options, int level, int64_t slot, int patch_index, int height, int width);
/// Unit vectors of a level: [options.directions, patch*patch*3], a patch in y,x,channel order.
std::vector<float> unit_directions(const SwdOptions& options, int level);
/// Sorts n < 2^32 finite values upwards. scratch: 2n words.
void sort_floats(float* values, int64_t n, uint32_t* scratch);

}  // namespace swd_detail
}  // namespace kiln
