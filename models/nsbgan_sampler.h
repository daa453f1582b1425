// Pictures from NSB-GAN's two networks: a sampler that makes low bands, and a decoder that makes pictures of them (Han et al. 2020).
//
//   kiln::nsbgan::Sampler sampler("runs/clothing-nsbgan-sampler-128", "runs/clothing-decoder");
//   kiln::write_png("hat.png", sampler.render({{sampler.latent(7), sampler.class_number("hat")}})[0]);
//
// It needs the two checkpoints and nothing else. One object is used by one thread at a time. All errors are kiln::Error.
#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "engine/picture.h"
#include "models/biggan_sampler.h"
#include "models/nsbgan_band.h"

namespace kiln::nsbgan {

class Decoder;

class Sampler {
 public:
  /// Checkpoints, or run directories: the newest one there. decoder may be empty: then pictures are what follows from the band alone.
  /// Throws kiln::Error: no such file, damaged, of another model, the two do not belong together (and the remedy), no memory.
  Sampler(const std::filesystem::path& sampler, const std::filesystem::path& decoder, const biggan::SamplerOptions& options = {});
  ~Sampler();

  const Band& band() const { return *bands_->band(); }
  int size() const { return band().picture_size; }
  int64_t step() const { return bands_->step(); }
  const std::filesystem::path& path() const { return path_; }
  const Decoder* decoder() const { return decoder_.get(); }  // null without one
  const std::vector<std::string>& classes() const { return bands_->classes(); }
  /// A class by name or number. Throws kiln::Error that lists what there is.
  int class_number(const std::string& name) const { return bands_->class_number(name); }
  /// The latent of a seed; the same everywhere to 1e-6.
  std::vector<float> latent(uint64_t seed, const biggan::Truncation& truncation = {}) const { return bands_->latent(seed, truncation); }
  /// Pictures, in order: biggan::Sampler::render's bands on their own scale, decoded.
  std::vector<Picture> render(const std::vector<biggan::Draw>& draws, const biggan::Truncation& truncation = {});

 private:
  std::filesystem::path path_;
  std::unique_ptr<biggan::Sampler> bands_;
  std::unique_ptr<Decoder> decoder_;  // in the context of bands_
};

}  // namespace kiln::nsbgan
