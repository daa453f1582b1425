// bench_nsbgan: times whole training iterations of NSB-GAN's decoders on random pictures, or their upscaling, and prints one JSON
// object: what bench/nsbgan_bench.py sets beside PyTorch.
#include <omp.h>

#include "apps/bench_training.h"
#include "apps/start.h"
#include "engine/ops_feature.h"
#include "models/nsbgan_decoder_run.h"

using namespace kiln;
using namespace kiln::nsbgan;

namespace {

nlohmann::json measure(const decoding::RunOptions& o, int warm_up, bool upscale) {
  if (o.threads > 0) omp_set_num_threads(o.threads);
  Context context(o.device);
  UseContext use(context);
  configure(context, o);
  auto random = std::make_shared<Philox>(o.seed);
  context.random = random;
  decoding::Model model(o.network, o.train.gan ? o.d_width : 0);
  model.initialise(*random);
  random->keep_step_in(model.memory.step());
  const int64_t n = o.batch;
  const int size = o.network.band.picture_size;
  const PictureSet set = random_pictures(n, size);
  const Tensor index = first_indices(n);
  nlohmann::json j;
  if (upscale) {
    const NoGrad none;
    const Tensor band = raw_band(Var(converted(gather(set, index, zeros(Shape{n, 1}), 0.f), DType::f32)), o.network.band).value;
    Tensor pictures;
    j = time_iterations(context, o, warm_up, true, [&] { pictures = {}, pictures = model.decode(band); },
                        [&] { return converted(pictures.slice(0, Shape{1}), DType::f32).item(); });
  } else {
    decoding::Losses losses;
    j = time_iterations(context, o, warm_up, true,
                        [&] {
                          losses = {};
                          losses = model.iteration([&](int) { return gather(set, index, random->uniform("flip", Shape{n, 1}), 0.5f); }, o.train);
                        },
                        [&] { return losses.levels.empty() ? losses.pixel.item() : losses.levels.back().item(); });
  }
  j["size"] = size;
  j["width"] = o.network.width;
  j["kind"] = name_of(o.network.kind);
  j["gan"] = o.train.gan;
  j["upscale"] = upscale;
  return j;
}

}  // namespace

int main(int argc, char** argv) {
  start(argv);
  CLI::App app("Times whole training iterations of NSB-GAN's decoders, or their upscaling; prints one JSON object.", "bench_nsbgan");
  decoding::RunOptions o = decoding::preset("small");
  o.steps = 10;
  std::string kind = "srresnet", domain = "wavelet", wavelet = "haar";
  bool upscale = false;
  BenchFlags flags;
  app.add_option("--kind", kind, "srresnet or unet")->capture_default_str();
  app.add_option("--domain", domain, "wavelet or pixels")->capture_default_str();
  app.add_option("--wavelet", wavelet, "haar, bior2.2, bior2.2-reflect")->capture_default_str();
  app.add_option("--size", o.network.band.picture_size, "side of the pictures")->capture_default_str();
  app.add_option("--levels", o.network.band.levels, "of the band")->capture_default_str();
  app.add_option("--width", o.network.width, "channels of the decoder")->capture_default_str();
  app.add_option("--blocks", o.network.blocks, "of the srresnet")->capture_default_str();
  app.add_flag("--gan", o.train.gan, "the second stage, without the perceptual loss");
  app.add_option("--d-width", o.d_width, "of the discriminator")->capture_default_str();
  app.add_flag("--upscale", upscale, "pictures from bands, in place of training");
  flags.add(app, o);
  return bench_program(app, [&] {
    app.parse(argc, argv);
    o.network.kind = decoder_kind(kind);
    o.network.band.domain = domain_from_name(domain);
    o.network.band.wavelet = wavelet_from_name(wavelet);
    o.network.band.shift = 0;
    o.network.band.scale = o.network.band.domain == Domain::wavelet ? double(1 << o.network.band.levels) : 1;
    flags.finish(o);
    check(o);
    fmt::print("{}\n", measure(o, flags.warm_up, upscale).dump());
  });
}
