// Back-tracking: the latent vector whose picture is nearest to a given one (Liu et al. 2021, section 4, "Testing mode collapse
// with back-tracking"; Table 5).
#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "models/fastgan_sampler.h"

namespace kiln {
struct Var;
}

namespace kiln::fastgan {

/// A distance of pictures x [n, h, w, 3] on [-1, 1] to targets of the same shape: one number, the sum over pictures of each
/// one's distance, recorded on the tape. What a feature network's distance (LPIPS) is put in by.
using PictureDistance = std::function<Var(const Var& x, const Tensor& target)>;

struct InversionOptions {
  int iterations = 1000;     // the paper's number: more drive z far from where N(0, 1) vectors are
  float lr = 0.1f;           // Adam with betas 0.5 and 0.999, as published
  float pixel_weight = 0.2f;  // of the squared error at full size, beside the distance at half size
  uint64_t seed = 0;         // of the starts, N(0, 1), and of the noise: picture k has seed + k
  int batch = 8;             // pictures at once
  PictureDistance distance;  // at half size; empty: mean squared error over a picture
  /// Now and then: pictures done, of all; iterations done, of all. May throw to stop.
  std::function<void(size_t picture, size_t pictures, int iteration, int iterations)> progress;
};

struct Inversion {
  std::vector<Latent> latents;
  std::vector<Picture> pictures;  // what the generator makes of them
  /// Of each picture: mean squared error on [0, 1] at full size.
  std::vector<double> errors;
};

class Inverter {
 public:
  /// Loads the averaged generator. Throws kiln::Error as Sampler does. Of the options, device and memory_gb count; memory 0 is no
  /// limit.
  explicit Inverter(const std::filesystem::path& checkpoint, const SamplerOptions& options = {});
  ~Inverter();
  Inverter(Inverter&&) noexcept;

  int size() const;  // side of the pictures
  Fit fit() const;   // how the training pictures became square
  Rgb background() const;
  const std::string& name() const;
  const std::string& fingerprint() const;

  /// Minimises, over z, distance(half(G(z)), half(x)) + pixel_weight * mse(G(z), x) for every picture x, size() x size(), by
  /// itself: what a picture is inverted together with changes nothing but rounding. The network is in evaluation mode, and
  /// noise is drawn once a picture and stays, so that the latent's picture is the reconstruction; the published code draws it
  /// anew every iteration and normalises by the batch. Throws kiln::Error: no memory, not a number.
  Inversion invert(std::span<const Picture> pictures, const InversionOptions& o = {});

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

/// Peak signal-to-noise ratio in dB of a mean squared error on [0, 1].
double psnr(double error);

}  // namespace kiln::fastgan
