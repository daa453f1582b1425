// Latents in and out of safetensors files.
#include <cstring>
#include <nlohmann/json.hpp>

#include "engine/error.h"
#include "engine/safetensors.h"
#include "models/fastgan_sampler.h"

namespace kiln::fastgan {

using nlohmann::json;

LatentFile read_latents(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  const TensorView *z = file.find("z"), *noise = file.find("noise");
  if (!z || z->dtype != "F32" || z->shape.size() != 2 || z->shape[0] < 1)
    fail("{}: not a file of latents (it has no tensor z of F32 [n, nz]); fastgan_invert writes such files", file.path());
  const size_t n = size_t(z->shape[0]), nz = size_t(z->shape[1]);
  if (noise && (noise->dtype != "I64" || noise->shape != std::vector<int64_t>{z->shape[0]}))
    fail("{}: its tensor 'noise' must be I64 [{}], a seed for each latent", file.path(), n);
  LatentFile out;
  for (size_t i = 0; i < n; i++) {
    Latent l{std::vector<float>(nz), 0};
    std::memcpy(l.z.data(), z->data + i * nz * sizeof(float), nz * sizeof(float));
    if (noise) std::memcpy(&l.noise, noise->data + i * sizeof(int64_t), sizeof(int64_t));
    for (const float v : l.z)
      if (!(v - v == 0.f)) fail("{}: latent {} has a number that is not finite", file.path(), i);
    out.latents.push_back(std::move(l));
  }
  const auto& meta = file.metadata();
  if (const auto it = meta.find("generator"); it != meta.end()) out.fingerprint = it->second;
  if (const auto it = meta.find("names"); it != meta.end()) {
    try {
      out.names = json::parse(it->second).get<std::vector<std::string>>();
    } catch (const json::exception&) {
      fail("{}: its metadata 'names' is not a list of texts", file.path());
    }
  }
  out.names.resize(n);
  return out;
}

void write_latents(const std::filesystem::path& path, const LatentFile& f) {
  KILN_ASSERT(!f.latents.empty() && f.names.size() == f.latents.size());
  std::vector<float> z;
  std::vector<uint64_t> noise;
  const size_t nz = f.latents[0].z.size();
  for (const Latent& l : f.latents) {
    KILN_ASSERT(l.z.size() == nz);
    z.insert(z.end(), l.z.begin(), l.z.end());
    noise.push_back(l.noise);
  }
  const int64_t n = int64_t(f.latents.size());
  write_safetensors(path, {{"z", "F32", {n, int64_t(nz)}, z.data(), z.size() * sizeof(float)}, {"noise", "I64", {n}, noise.data(), noise.size() * sizeof(uint64_t)}},
                    {{"generator", f.fingerprint}, {"names", json(f.names).dump(-1, ' ', false, json::error_handler_t::replace)}});
}

}  // namespace kiln::fastgan
