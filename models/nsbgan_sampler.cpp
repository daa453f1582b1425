#include "models/nsbgan_sampler.h"

#include "engine/error.h"
#include "engine/ops_feature.h"
#include "engine/picture_tensor.h"
#include "engine/run_directory.h"
#include "models/nsbgan_decoder.h"

namespace kiln::nsbgan {
namespace {

std::filesystem::path newest_checkpoint(const std::filesystem::path& path) {
  if (!std::filesystem::is_directory(path)) return path;
  const RunDirectory run = RunDirectory::open(path);
  const std::vector<int64_t> steps = run.checkpoints();
  if (steps.empty()) fail("{}: this run has no checkpoint yet", path.string());
  return run.checkpoint(steps.back());
}

}  // namespace

Sampler::Sampler(const std::filesystem::path& sampler, const std::filesystem::path& decoder, const biggan::SamplerOptions& options)
    : path_(newest_checkpoint(sampler)) {
  biggan::SamplerOptions o = options;
  o.of_band = true;
  bands_ = std::make_unique<biggan::Sampler>(path_, o);
  if (decoder.empty()) return;
  const UseContext use(bands_->context());
  auto loaded = std::make_unique<Decoder>(decoder);
  const std::string why = mismatch(band(), loaded->band());
  if (!why.empty()) fail("{} and {} do not belong together: {}", path_.string(), loaded->path().string(), why);
  if (const int multiple = band_multiple(loaded->config()); band().size() % multiple)
    fail("{} makes bands of {} px, and {} takes multiples of {}: use a sampler of another --size, or another decoder", path_.string(), band().size(), loaded->path().string(), multiple);
  decoder_ = std::move(loaded);
}

Sampler::~Sampler() {
  const UseContext use(bands_->context());
  decoder_.reset();
}

std::vector<Picture> Sampler::render(const std::vector<biggan::Draw>& draws, const biggan::Truncation& truncation) {
  std::vector<Picture> out;
  bands_->generate(draws, truncation, [&](const Tensor& x) {
    const NoGrad none;
    const Var normalised(converted(x, DType::f32));
    const Tensor pictures = decoder_ ? decoder_->decode(denormalise(normalised, band()).value) : picture_of_band(normalised, band()).value;
    for (Picture& p : to_pictures(pictures)) out.push_back(std::move(p));
  });
  return out;
}

}  // namespace kiln::nsbgan
