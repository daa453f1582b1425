// Pictures from a trained FastGAN: what a program of your own uses.
//
//   kiln::fastgan::Sampler sampler("runs/photos-64/checkpoints/001000.safetensors");
//   kiln::write_png("seed7.png", sampler.render(sampler.latent(7)));
//
// A sampler needs its checkpoint and nothing else, holds no global state and may be moved to another thread. One object is
// used by one thread at a time; several, on as many threads, do not know of each other. All errors are kiln::Error.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/picture.h"
#include "engine/tensor.h"

namespace kiln::fastgan {

struct SamplerOptions {
  Device device = Device::cpu;
  double memory_gb = 0;  // that tensors may take, weights included, in GiB; 0: half of what the machine has free
  int batch = 0;         // pictures computed at once; 0: as many as are fast and fit
};

/// Throws kiln::Error: an option out of range, a device that is not there.
void check(const SamplerOptions& options);

/// A picture to be: a point of the latent space, and the seed of the noise that the network injects. Points may be mixed,
/// averaged or optimised; along a path the noise stays the same.
struct Latent {
  std::vector<float> z;  // Sampler::latent_size() numbers, nominally N(0, 1)
  uint64_t noise = 0;
};

class Sampler {
 public:
  /// Loads the averaged generator. Throws kiln::Error: no such file, damaged, not a FastGAN checkpoint, no memory, no such
  /// device.
  explicit Sampler(const std::filesystem::path& checkpoint, const SamplerOptions& options = {});
  ~Sampler();
  Sampler(Sampler&&) noexcept;
  Sampler& operator=(Sampler&&) noexcept;

  int size() const;         // side of the pictures in pixels
  int latent_size() const;  // numbers in a z
  int64_t step() const;     // training steps that the checkpoint has seen
  const std::string& name() const;         // of the checkpoint's file
  const std::string& fingerprint() const;  // of its generator: 16 hexadecimal digits
  int batch() const;        // pictures computed at once
  int gates() const;        // skip-layer excitations: what mix() exchanges; 0 at 32 px

  /// The latent of a seed: the same on every machine to 1e-6. truncation > 0: numbers of z beyond it are drawn again (the
  /// truncation trick of Brock, Donahue & Simonyan 2018): fewer kinds of pictures, more typical ones. Throws kiln::Error
  /// below 0.05.
  Latent latent(uint64_t seed, double truncation = 0) const;

  /// The picture of a latent, size() x size(). It does not depend on what it is computed together with, except for the last
  /// bit of a sum, which may round a byte to its neighbour. Throws kiln::Error if z has another length.
  Picture render(const Latent& latent);
  std::vector<Picture> render(std::span<const Latent> latents);
  /// The same, handing every picture on as soon as it is there, in order: for more pictures than memory holds.
  void render(std::span<const Latent> latents, const std::function<void(size_t index, Picture picture)>& each);

  /// Style mixing (Liu et al. 2021, section 4): picture k has the content of content[k], that is its main path from 4x4 up,
  /// and the skip-layer excitations of style[k], all of them. Mixing a latent with itself renders it. Throws kiln::Error if
  /// the network has no skip-layer excitation or the two differ in length.
  std::vector<Picture> mix(std::span<const Latent> content, std::span<const Latent> style);

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

enum class Path { spherical, linear };

/// The point at t in [0, 1] between two latents. Spherical: along the great circle, its length going from one's to the other's
/// (Shoemake 1985; White 2016), so that it stays where N(0, 1) vectors are; linear: on the chord. Noise is a's.
Latent between(const Latent& a, const Latent& b, double t, Path path = Path::spherical);

/// Latents in a file: what fastgan_invert leaves and the other programs take. Tensors "z" [n, nz] and "noise" [n]; names: one
/// a latent, in the metadata as a JSON list.
struct LatentFile {
  std::vector<Latent> latents;
  std::vector<std::string> names;
  std::string fingerprint;  // of the generator that they belong to
};
/// Throws kiln::Error naming the file: unreadable, not a file of latents.
LatentFile read_latents(const std::filesystem::path& path);
void write_latents(const std::filesystem::path& path, const LatentFile& file);

}  // namespace kiln::fastgan
