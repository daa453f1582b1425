// Where the pictures come from that gan_metrics measures: a folder, or the averaged generator of a FastGAN checkpoint.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "engine/dataset.h"
#include "engine/picture.h"
#include "engine/tensor.h"

namespace kiln {

/// Square pictures of one size as bytes, read in pieces: a set need not fit in memory.
class MetricPictures {
 public:
  virtual ~MetricPictures() = default;
  /// Pictures there are; a generator has as many as are asked for: -1.
  virtual int64_t count() const = 0;
  /// Pictures [first, first + n) as [n, size, size, 3]; equal calls give equal bytes.
  virtual void read(int64_t first, int64_t n, uint8_t* out) = 0;
  /// Equal for equal pictures, whatever their names; 0 where it is not known (a generator).
  virtual uint64_t fingerprint() const { return 0; }
  virtual std::string description() const = 0;
  int size() const { return size_; }
  size_t picture_bytes() const { return size_t(size_) * size_t(size_) * 3; }

 protected:
  int size_ = 0;
};

/// What a checkpoint says about its pictures.
struct CheckpointPictures {
  int size = 0;
  Fit fit = Fit::crop;
  Rgb background;
};
/// Throws kiln::Error if the file is not a FastGAN checkpoint.
CheckpointPictures checkpoint_pictures(const std::filesystem::path& checkpoint);

/// The shorter side in pixels of a folder's first readable picture, in the order of paths. Throws kiln::Error where there is none.
int first_picture_side(const std::filesystem::path& folder);

/// A folder of pictures (engine/dataset.h). Throws kiln::Error as Dataset does.
std::unique_ptr<MetricPictures> folder_source(const DatasetOptions& options);

/// Pictures of the averaged generator in evaluation mode, at its own size. Picture k depends on the seed and on k alone.
/// Without a seed it is the training run's own, so that the first pictures are those of its sample grids and of the
/// distance in its log. Needs no current context. Throws kiln::Error naming the file and what is wrong with it.
struct GeneratorOptions {
  std::filesystem::path checkpoint;
  int64_t seed = -1;  ///< -1: the training run's
  int batch = 8;      ///< pictures computed at once
  Device device = Device::cpu;
};
std::unique_ptr<MetricPictures> generator_source(const GeneratorOptions& options);

/// The same pictures, of which the first, as many as `bytes` hold, are made once and kept.
std::unique_ptr<MetricPictures> keep_pictures(std::unique_ptr<MetricPictures> source, size_t bytes);

}  // namespace kiln
