#include "models/fastgan_inversion.h"

#include <cmath>

#include "engine/error.h"
#include "engine/picture_tensor.h"
#include "models/fastgan_folded.h"

namespace kiln::fastgan {
namespace {

/// The latents of a batch, as a network's parameters are kept: so they have a gradient, Adam's moments and its step.
struct FreeLatents {
  Param z;
  template <class F>
  void visit(F&& f) {
    f("z", z);
  }
};

double squared_error(const Picture& a, const Picture& b) {
  double sum = 0;
  for (size_t i = 0; i < a.rgb.size(); i++) {
    const double d = (double(a.rgb[i]) - double(b.rgb[i])) / 255;
    sum += d * d;
  }
  return sum / double(a.rgb.size());
}

}  // namespace

double psnr(double error) { return -10 * std::log10(std::max(error, 1e-12)); }

struct Inverter::Parts {
  Context context;
  std::unique_ptr<AveragedGenerator> average;

  Parts(const std::filesystem::path& checkpoint, const SamplerOptions& o) : context(o.device, false, size_t(o.memory_gb * (1ull << 30))) {
    const UseContext use(context);
    average = std::make_unique<AveragedGenerator>(SafetensorsFile(checkpoint));
  }

  void invert(std::span<const Picture> pictures, size_t first, size_t all, const InversionOptions& o, Inversion& out) {
    const UseContext use(context);
    const Evaluation evaluation;
    const FrozenWeights frozen;
    const int64_t n = int64_t(pictures.size());
    const int nz = average->info.network.nz;
    std::vector<uint64_t> seeds;
    for (size_t k = 0; k < pictures.size(); k++) seeds.push_back(o.seed + first + k);
    context.random = std::make_shared<PictureSeeds>(seeds);
    FreeLatents latents;
    latents.z.shape = Shape{n, nz};
    ParameterSet set(latents, true);
    latents.z.value.upload(context.random->normal("z", latents.z.shape).to_vector().data());
    const Tensor target = to_tensor(pictures);
    const Tensor half = average_pool2x2(Var(target)).value;
    const PictureDistance distance = o.distance ? o.distance : [](const Var& x, const Tensor& t) { return difference_loss(x, t, 2); };
    const AdamOptions adam{o.lr, 0.5f, 0.999f, 1e-8f};
    for (int i = 0; i < o.iterations; i++) {
      Tape tape;
      const Recording recording(tape);
      Var z(latents.z.value, true);
      z.node->set_slot(latents.z.grad);
      const Var y = average->g(z).big;
      const Var at_half = distance(average_pool2x2(y), half), pixels = difference_loss(y, target, 2);
      const double loss = double(at_half.value.item()) + double(o.pixel_weight) * double(pixels.value.item());
      if (!std::isfinite(loss)) fail("the distance is not a number at iteration {}; use a smaller learning rate", i);
      tape.backward({{at_half, 1.f}, {pixels, o.pixel_weight}});
      const Tensor gradient = z.node->take();
      KILN_ASSERT(gradient.data() == latents.z.grad.data());
      set.adam_step(adam, {}, nullptr);
      if (o.progress) o.progress(first, all, i + 1, o.iterations);
    }
    const NoGrad none;
    const std::vector<Picture> made = to_pictures(average->g(Var(latents.z.value)).big.value);
    const std::vector<float> z = latents.z.value.to_vector();
    for (size_t k = 0; k < made.size(); k++) {
      out.latents.push_back({{z.begin() + std::ptrdiff_t(k) * nz, z.begin() + std::ptrdiff_t(k + 1) * nz}, seeds[k]});
      out.errors.push_back(squared_error(made[k], pictures[k]));
      out.pictures.push_back(made[k]);
    }
  }
};

Inverter::Inverter(const std::filesystem::path& checkpoint, const SamplerOptions& o) {
  check(o);
  parts_ = std::make_unique<Parts>(checkpoint, o);
}
Inverter::~Inverter() = default;
Inverter::Inverter(Inverter&&) noexcept = default;

int Inverter::size() const { return parts_->average->info.network.size; }
Fit Inverter::fit() const { return parts_->average->info.fit; }
Rgb Inverter::background() const { return parts_->average->info.background; }
const std::string& Inverter::name() const { return parts_->average->info.name; }
const std::string& Inverter::fingerprint() const { return parts_->average->info.fingerprint; }

Inversion Inverter::invert(std::span<const Picture> pictures, const InversionOptions& o) {
  if (o.iterations < 0 || o.batch < 1 || !(o.lr > 0) || !(o.pixel_weight >= 0)) fail("inversion: an option is out of range");
  Inversion out;
  for (const Picture& p : pictures)
    if (p.width != size() || p.height != size()) fail("inversion: a picture of {}x{} pixels; {} makes {}x{}", p.width, p.height, name(), size(), size());
  for (size_t first = 0; first < pictures.size(); first += size_t(o.batch))
    parts_->invert(pictures.subspan(first, std::min(size_t(o.batch), pictures.size() - first)), first, pictures.size(), o, out);
  return out;
}

}  // namespace kiln::fastgan
