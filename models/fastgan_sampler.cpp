#include "models/fastgan_sampler.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "engine/backend/gpu_runtime.h"
#include "engine/error.h"
#include "engine/picture_tensor.h"
#include "models/fastgan_folded.h"

namespace kiln::fastgan {
namespace {

/// Bytes that the system can give away now. On Linux the free pages only: caches are left alone.
size_t free_memory() { return size_t(sysconf(_SC_AVPHYS_PAGES)) * size_t(sysconf(_SC_PAGESIZE)); }

/// A CPU gains nothing from maps that do not fit its caches: batches of more than about this many pixels are no faster.
constexpr int64_t kCpuPixels = 1 << 19;

}  // namespace

struct Sampler::Parts {
  Context context;
  CheckpointInfo info;
  std::optional<FoldedGenerator> folded;
  int batch = 1;

  Parts(const std::filesystem::path& checkpoint, const SamplerOptions& o) : context(o.device, false, size_t(o.memory_gb * (1ull << 30))) {
    const UseContext use(context);
    {
      const SafetensorsFile file(checkpoint);
      const AveragedGenerator average(file);
      info = average.info;
      folded.emplace(average.g);
    }
    batch = o.batch > 0 ? o.batch : choose_batch(o);
  }

  /// What a batch's activations take from the system, by a run with no memory behind it.
  size_t activations(int64_t n) const {
    Context plan(context.device, true);
    const UseContext use(plan);
    plan.random = std::make_shared<PictureSeeds>(std::vector<uint64_t>(size_t(n)));
    (*folded)(Tensor(Shape{n, info.network.nz}));
    return plan.arena->stats().reserved;
  }

  int choose_batch(const SamplerOptions& o) const {
    const size_t weights = context.arena->stats().reserved;
    const size_t budget = o.memory_gb > 0 ? size_t(o.memory_gb * (1ull << 30)) : weights + free_memory() / 2;
    const int64_t pixels = int64_t(info.network.size) * info.network.size;
    int64_t n = context.device == Device::cpu ? std::clamp<int64_t>(kCpuPixels / pixels, 1, 64) : 64;
    while (n > 1 && weights + activations(n) > budget) n /= 2;
    return int(n);
  }

  /// Makes the latents' noise the context's random numbers and returns their z.
  Tensor enter(std::span<const Latent> latents) {
    std::vector<float> z;
    std::vector<uint64_t> seeds;
    for (const Latent& l : latents) {
      if (int(l.z.size()) != info.network.nz)
        fail("{}: takes {} latent numbers, a latent has {}; it belongs to another network", info.name, info.network.nz, l.z.size());
      z.insert(z.end(), l.z.begin(), l.z.end());
      seeds.push_back(l.noise);
    }
    context.random = std::make_shared<PictureSeeds>(std::move(seeds));
    return from_vector(Shape{int64_t(latents.size()), info.network.nz}, z);
  }
};

void check(const SamplerOptions& o) {
  if (o.device == Device::gpu) gpu_runtime::require();
  if (!(o.memory_gb >= 0 && o.memory_gb < 1e6) || o.batch < 0 || o.batch > 4096) fail("the sampler's memory or batch is out of range");
}

Sampler::Sampler(const std::filesystem::path& checkpoint, const SamplerOptions& o) {
  check(o);
  parts_ = std::make_unique<Parts>(checkpoint, o);
}
Sampler::~Sampler() = default;
Sampler::Sampler(Sampler&&) noexcept = default;
Sampler& Sampler::operator=(Sampler&&) noexcept = default;

int Sampler::size() const { return parts_->info.network.size; }
int Sampler::latent_size() const { return parts_->info.network.nz; }
int64_t Sampler::step() const { return parts_->info.step; }
const std::string& Sampler::name() const { return parts_->info.name; }
const std::string& Sampler::fingerprint() const { return parts_->info.fingerprint; }
int Sampler::batch() const { return parts_->batch; }
int Sampler::gates() const { return int(parts_->folded->gates()); }

Latent Sampler::latent(uint64_t seed, double truncation) const {
  if (truncation != 0 && !(truncation >= 0.05)) fail("truncation {}: must be 0 (none) or at least 0.05", truncation);
  const UseContext use(parts_->context);
  const Shape shape{1, latent_size()};
  Latent out{PictureSeeds({seed}).normal("z", shape).to_vector(), seed};
  if (truncation == 0) return out;
  const auto beyond = [&](float v) { return std::abs(double(v)) > truncation; };
  for (uint64_t round = 1; std::any_of(out.z.begin(), out.z.end(), beyond); round++) {
    const std::vector<float> again = PictureSeeds({seed}, round).normal("z", shape).to_vector();
    for (size_t i = 0; i < again.size(); i++)
      if (beyond(out.z[i])) out.z[i] = again[i];
  }
  return out;
}

Picture Sampler::render(const Latent& latent) { return std::move(render(std::span(&latent, 1))[0]); }

std::vector<Picture> Sampler::render(std::span<const Latent> latents) {
  std::vector<Picture> out;
  render(latents, [&](size_t, Picture p) { out.push_back(std::move(p)); });
  return out;
}

void Sampler::render(std::span<const Latent> latents, const std::function<void(size_t, Picture)>& each) {
  for (size_t first = 0; first < latents.size();) {
    const size_t n = std::min(size_t(batch()), latents.size() - first);
    std::vector<Picture> pictures;
    {
      const UseContext use(parts_->context);
      const Tensor z = parts_->enter(latents.subspan(first, n));
      pictures = to_pictures((*parts_->folded)(z));
    }
    for (Picture& p : pictures) each(first++, std::move(p));
  }
}

std::vector<Picture> Sampler::mix(std::span<const Latent> content, std::span<const Latent> style) {
  if (content.size() != style.size()) fail("style mixing: {} contents and {} styles; as many of one as of the other are needed", content.size(), style.size());
  if (gates() == 0) fail("{}: its generator has no skip-layer excitation, so it has no style to mix", name());
  const UseContext use(parts_->context);
  std::vector<Picture> out;
  for (size_t first = 0; first < content.size(); first += size_t(batch())) {
    const size_t n = std::min(size_t(batch()), content.size() - first);
    const std::vector<Tensor> gates = parts_->folded->excitations(parts_->enter(style.subspan(first, n)));
    const Tensor z = parts_->enter(content.subspan(first, n));
    for (Picture& p : to_pictures((*parts_->folded)(z, gates))) out.push_back(std::move(p));
  }
  return out;
}

Latent between(const Latent& a, const Latent& b, double t, Path path) {
  if (a.z.size() != b.z.size()) fail("latents of {} and of {} numbers cannot be mixed", a.z.size(), b.z.size());
  double aa = 0, bb = 0, ab = 0;
  for (size_t i = 0; i < a.z.size(); i++) {
    aa += double(a.z[i]) * double(a.z[i]);
    bb += double(b.z[i]) * double(b.z[i]);
    ab += double(a.z[i]) * double(b.z[i]);
  }
  double wa = 1 - t, wb = t;
  const double la = std::sqrt(aa), lb = std::sqrt(bb);
  if (path == Path::spherical && la > 0 && lb > 0) {
    const double angle = std::acos(std::clamp(ab / (la * lb), -1.0, 1.0)), s = std::sin(angle);
    if (s > 1e-6) {  // parallel vectors have one way between them, opposite ones too many: the chord then
      const double length = la + (lb - la) * t;
      wa = std::sin((1 - t) * angle) / s * length / la;
      wb = std::sin(t * angle) / s * length / lb;
    }
  }
  Latent out{std::vector<float>(a.z.size()), a.noise};
  for (size_t i = 0; i < a.z.size(); i++) out.z[i] = float(wa * double(a.z[i]) + wb * double(b.z[i]));
  return out;
}

}  // namespace kiln::fastgan
