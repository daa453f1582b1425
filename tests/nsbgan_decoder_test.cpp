// NSB-GAN's decoders: parameters, shapes, what they begin as, their losses against plain formulas, and training.
#include <fstream>

#include "engine/ops_feature.h"
#include "engine/picture_tensor.h"
#include "models/nsbgan_decoder.h"
#include "models/nsbgan_decoder_run.h"
#include "tests/op_reference.h"
#include "tests/program.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::nsbgan;
using namespace kiln::test;
namespace fs = std::filesystem;

namespace {

DecoderConfig config_of(DecoderKind kind, Domain domain, int size = 64, int width = 8, Wavelet wavelet = Wavelet::haar) {
  DecoderConfig c;
  c.kind = kind;
  c.width = width;
  c.blocks = 2;
  c.band = Band{domain, wavelet, 2, size, domain == Domain::wavelet ? 1.0 : 0.0, domain == Domain::wavelet ? 6.0 : 1.0};
  return c;
}

template <class Network>
int64_t count(Network network) {
  Context plan(Device::cpu, true);
  UseContext use(plan);
  return ParameterSet(network, true).parameter_count();
}

/// Smooth pictures [n, side, side, 3] on [-1, 1].
Tensor some_pictures(int64_t n, int side, int shift = 0) {
  std::vector<float> v;
  for (int64_t k = 0; k < n; k++)
    for (int i = 0; i < side; i++)
      for (int j = 0; j < side; j++)
        for (int c = 0; c < 3; c++) v.push_back(float(0.8 * std::sin(0.2 * (i + int(k) + shift) + 0.13 * j * (c + 1)) * std::cos(0.9 * j / (1 + double(k)))));
  return from_vector(Shape{n, side, side, 3}, v);
}

double largest_difference(const Tensor& a, const Tensor& b) {
  const std::vector<float> x = a.to_vector(), y = b.to_vector();
  REQUIRE(x.size() == y.size());
  double d = 0;
  for (size_t i = 0; i < x.size(); i++) d = std::max(d, std::abs(double(x[i]) - double(y[i])));
  return d;
}

/// Sets the convolution that a decoder's result comes from to nothing.
void silence(ParameterSet& set) {
  for (const auto& e : set.entries())
    if (e.name.find("conv_last") != std::string::npos || e.name.find("tails.1") != std::string::npos || e.name.find("outc") != std::string::npos)
      set.tensor(e).upload(std::vector<float>(size_t(e.count()), 0.f).data());
}

struct Ready {
  DecoderNetwork g;
  ParameterSet set;
  explicit Ready(const DecoderConfig& c) : g(c), set(g, true) {
    Philox random(3);
    set.initialise(random, "G.");
  }
};

Tensor decoded(DecoderNetwork& g, const Tensor& band) {
  const NoGrad none;
  const Evaluation evaluation;
  return g(band).value;
}

}  // namespace

TEST_CASE("nsbgan decoder: parameters of the published networks") {
  CHECK(count(TailUNet(12, 12, 512)) == 52'073'508);
  CHECK(count(TailUNet(48, 48, 512)) == 94'983'312);
  CHECK(std::abs(double(count(TailUNet(48, 48, 1024))) - 378.7e6) < 0.05e6);
  CHECK(count(SrResNet(64, 16, 2)) == 1'517'571);
  CHECK(count(Discriminator(256, 64)) == 21'055'049);
  DecoderConfig c = config_of(DecoderKind::unet, Domain::wavelet, 256, 512, Wavelet::bior22);
  CHECK(count(DecoderNetwork(c)) == 52'073'508 + 94'983'312);
  c.kind = DecoderKind::srresnet, c.width = 64, c.blocks = 16;
  CHECK(count(DecoderNetwork(c)) == 1'517'571);
}

TEST_CASE("nsbgan decoder: every kind decodes to the picture's size") {
  Fixture f;
  for (const DecoderKind kind : {DecoderKind::unet, DecoderKind::srresnet})
    for (const Domain domain : {Domain::wavelet, Domain::pixels})
      for (const int levels : {1, 2, 3}) {
        DecoderConfig c = config_of(kind, domain, 16 << levels, 4, Wavelet::bior22_reflect);
        c.band.levels = levels;
        c.band.picture_size = 16 << levels;
        CAPTURE(std::string(name_of(kind)));
        CAPTURE(levels);
        check(c);
        Ready r(c);
        const Tensor y = decoded(r.g, raw_band(Var(some_pictures(2, 16 << levels)), c.band).value);
        CHECK(y.shape() == Shape{2, 16 << levels, 16 << levels, 3});
        for (const float v : y.to_vector()) CHECK_MESSAGE(std::isfinite(v), "not finite");
      }
}

TEST_CASE("nsbgan decoder: with nothing to add, a decoder is its base") {
  Fixture f;
  const Tensor pictures = some_pictures(2, 64);
  for (const DecoderKind kind : {DecoderKind::unet, DecoderKind::srresnet})
    for (const Domain domain : {Domain::wavelet, Domain::pixels}) {
      const DecoderConfig c = config_of(kind, domain);
      CAPTURE(std::string(name_of(kind)));
      CAPTURE(std::string(nsbgan::name_of(domain)));
      Ready r(c);
      silence(r.set);
      const Tensor raw = raw_band(Var(pictures), c.band).value, y = affine(Var(decoded(r.g, raw)), 2, -1).value;
      const Tensor base = picture_of_band(normalise(Var(raw), c.band), c.band).value;
      // The pixel U-Nets double twice, which is not quite one bilinear resizing by four.
      CHECK(largest_difference(y, base) < (kind == DecoderKind::unet && domain == Domain::pixels ? 0.35 : 1e-5));
    }
  // As published: a tenth of the band's picture and 0.075.
  DecoderConfig c = config_of(DecoderKind::srresnet, Domain::wavelet, 64, 8, Wavelet::bior22);
  c.band.shift = 3, c.band.scale = 10;
  c.published_base = true;
  Ready r(c);
  const Tensor raw = raw_band(Var(pictures), c.band).value;
  const std::vector<float> base = r.g.base(raw).value.to_vector(), low = from_low_band(Var(raw), c.band.wavelet, 2).value.to_vector();
  double inside = 0;
  std::vector<double> last_column;
  for (int i = 0; i < 64; i++)
    for (int j = 0; j < 64; j++) {
      const double d = double(base[size_t(i * 64 + j) * 3]) - 0.1 * double(low[size_t(i * 64 + j) * 3]);
      if (i < 61 && j < 61) inside = std::max(inside, std::abs(d - 0.075));
      if (i == 0) last_column.push_back(d);
    }
  CHECK(inside < 1e-6);
  // It fades over the last three: 3/4, 1/2, 1/4 of it, since nothing lies behind.
  CHECK(last_column[61] == doctest::Approx(0.05625));
  CHECK(last_column[62] == doctest::Approx(0.0375));
  CHECK(last_column[63] == doctest::Approx(0.01875));
}

TEST_CASE("nsbgan decoder: lessons are a picture's packet, and the true answers give the picture back") {
  Fixture f;
  const Tensor pictures = affine(Var(some_pictures(2, 64)), 0.5, 0.5).value;
  for (const Wavelet w : {Wavelet::haar, Wavelet::bior22_reflect}) {
    const DecoderConfig c = config_of(DecoderKind::unet, Domain::wavelet, 64, 8, w);
    const DecoderNetwork g(c);
    const auto one = g.lesson(pictures, 1), two = g.lesson(pictures, 2);
    CHECK(one.input.shape() == Shape{2, 8, 8, 12});
    CHECK(one.target.shape() == Shape{2, 8, 8, 36});
    CHECK(two.input.shape() == Shape{2, 8, 8, 48});
    CHECK(two.target.shape() == Shape{2, 8, 8, 144});
    CHECK(one.scale == 12);
    CHECK(two.scale == 48);
    // What decoding does, with the answers in place of the networks'.
    Var packet = wavelet_split(Var(raw_band(Var(affine(Var(pictures), 2, -1)), c.band).value), w, 3);
    CHECK(largest_difference(packet.value, one.input) < 1e-5);
    packet = concat_channels(packet, Var(one.target));
    CHECK(largest_difference(packet.value, two.input) < 1e-5);
    packet = concat_channels(packet, Var(two.target));
    CHECK(largest_difference(wavelet_unpacket(packet, w, 3).value, pictures) < 1e-5);
  }
  const DecoderConfig c = config_of(DecoderKind::unet, Domain::pixels);
  const DecoderNetwork g(c);
  const auto one = g.lesson(pictures, 1);
  CHECK(one.input.shape() == Shape{2, 32, 32, 3});
  CHECK(largest_difference(combine(1.f, Var(one.input), 1.f, Var(one.target)).value, area_resize(Var(pictures), 32, 32).value) < 1e-6);
}

TEST_CASE("nsbgan decoder: a level's loss is the sum over tiles of mean squared errors") {
  Fixture f;
  const DecoderConfig c = config_of(DecoderKind::unet, Domain::wavelet);
  context().random = std::make_shared<Philox>(1);
  decoding::Model m(c, 0);
  m.initialise(*context().random);
  const Tensor pictures = some_pictures(2, 64);
  std::vector<double> want;
  for (int level = 1; level <= 2; level++) {
    const auto lesson = m.g.lesson(affine(Var(pictures), 0.5, 0.5).value, level);
    std::vector<float> y, t = lesson.target.to_vector();
    {
      const NoGrad none;
      y = m.g.predict(level, Var(lesson.input)).value.to_vector();
    }
    const size_t tiles = level == 1 ? 12 : 48, rows = y.size() / (3 * tiles);
    double sum = 0;
    for (size_t tile = 0; tile < tiles; tile++) {
      double mse = 0;
      for (size_t r = 0; r < rows; r++)
        for (size_t k = 0; k < 3; k++) mse += std::pow(double(y[(r * tiles + tile) * 3 + k]) - double(t[(r * tiles + tile) * 3 + k]), 2);
      sum += mse / double(rows * 3);
    }
    want.push_back(sum);
  }
  const decoding::Losses l = m.iteration([&](int) { return pictures; }, {});
  REQUIRE(l.levels.size() == 2);
  for (size_t i = 0; i < 2; i++) CHECK(double(l.levels[i].item()) == doctest::Approx(want[i]).epsilon(1e-4));
}

TEST_CASE("nsbgan decoder: forty steps learn, whatever the kind") {
  Fixture f;
  for (const DecoderKind kind : {DecoderKind::unet, DecoderKind::srresnet})
    for (const Domain domain : {Domain::wavelet, Domain::pixels}) {
      CAPTURE(std::string(name_of(kind)));
      CAPTURE(std::string(nsbgan::name_of(domain)));
      context().random = std::make_shared<Philox>(1);
      decoding::Model m(config_of(kind, domain, 64, 8), 0);
      m.initialise(*context().random);
      decoding::TrainOptions o;
      o.adam_g.lr = 3e-3f;
      double first = 0, last = 0;
      for (int step = 0; step <= 40; step++) {  // the first one's pictures again at the end
        const decoding::Losses l = m.iteration([&](int) { return some_pictures(4, 64, step % 4); }, o);
        last = l.levels.empty() ? double(l.pixel.item()) : double(l.levels[0].item() + l.levels[1].item());
        if (step == 0) first = last;
      }
      CAPTURE(first);
      // An SRResNet begins at its base, with a tenth of the usual weights: it has less to win, and moves slowly at first.
      CHECK(last < (kind == DecoderKind::unet ? 0.6 : 0.95) * first);
    }
}

TEST_CASE("nsbgan decoder: parts of a batch are the whole, where no batch norm is between") {
  Fixture f;
  std::vector<std::vector<float>> weights;
  for (const int parts : {1, 2}) {
    context().random = std::make_shared<Philox>(1);
    decoding::Model m(config_of(DecoderKind::srresnet, Domain::wavelet), 0);
    m.initialise(*context().random);
    decoding::TrainOptions o;
    o.parts = parts;
    const Tensor all = some_pictures(4, 64);
    m.iteration([&](int p) { return all.slice(p * all.count() / parts, Shape{4 / parts, 64, 64, 3}); }, o);
    weights.push_back(m.g_params.grads.to_vector());
  }
  CHECK(test::relative_error(weights[1], weights[0]) < 1e-5);
}

TEST_CASE("nsbgan decoder: learning rates fall along cosines and are halved") {
  decoding::RunOptions o = decoding::preset("64-256");
  CHECK(decoding::rate_at(o, 0) == doctest::Approx(1));
  CHECK(decoding::rate_at(o, 125000) == doctest::Approx(0.5).epsilon(0.02));
  CHECK(decoding::rate_at(o, 249999) < 0.01);
  CHECK(decoding::rate_at(o, 250000) == doctest::Approx(1));
  o = decoding::preset("64-256", DecoderKind::srresnet, Domain::wavelet, true);
  CHECK(decoding::rate_at(o, 49999) == 1);
  CHECK(decoding::rate_at(o, 50000) == 0.5);
  CHECK(decoding::rate_at(o, 250000) == 0.125);
  o.first_step = 150000;  // behind a first stage
  CHECK(decoding::rate_at(o, 199999) == 1);
  CHECK(decoding::rate_at(o, 200000) == 0.5);
}

TEST_CASE("nsbgan decoder: pictures are held out by name, whatever comes or goes") {
  std::vector<std::string> names;
  for (int i = 0; i < 1000; i++) names.push_back(fmt::format("a/{}.jpg", i));
  const decoding::Split all = decoding::split_by_name(names, 0.1);
  CHECK(all.held_out.size() > 70);
  CHECK(all.held_out.size() < 130);
  CHECK(all.held_out.size() + all.train.size() == 1000);
  const std::vector<std::string> some(names.begin() + 500, names.end());
  std::vector<int32_t> same;
  for (const int32_t i : all.held_out)
    if (i >= 500) same.push_back(i - 500);
  CHECK(decoding::split_by_name(some, 0.1).held_out == same);
  CHECK(decoding::split_by_name({"a", "b"}, 0.01).held_out.size() == 1);
  CHECK(decoding::split_by_name({"a", "b"}, 0.9).train.size() == 1);
  CHECK(decoding::split_by_name({"a"}, 0.5).train.size() == 1);
  CHECK(decoding::split_by_name(names, 0).train.size() == 1000);
}

namespace {

decoding::RunOptions tiny_run(const std::string& data, const std::string& out, bool gan) {
  decoding::RunOptions o = decoding::preset("small", DecoderKind::srresnet, Domain::wavelet, gan);
  o.network.band.picture_size = 32;
  o.network.band.levels = 1;
  o.network.width = 4, o.network.blocks = 1, o.d_width = 4;
  o.batch = 4, o.steps = 6, o.grid = 2, o.log_every = 1, o.checkpoint_every = 3, o.metric_every = o.sample_every = 3;
  o.hold_out = 0.3;
  o.data = data, o.out = out, o.cache = false, o.console = false;
  o.threads = 1;
  return o;
}

std::string bytes_of(const fs::path& p) {
  std::ifstream in(p, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

TEST_CASE("nsbgan decoder: a run resumed is the run that never stopped, bit for bit") {
  for (const int which : {0, 1, 2}) {
    const bool gan = which == 1;
    const TempFolder t;
    const std::string data = draw_faces(t, 12, 40);
    decoding::RunOptions o = tiny_run(data, t / "whole", gan);
    if (which == 2) {
      o.network.kind = DecoderKind::unet;
      o.network.band.domain = Domain::pixels;
    }
    decoding::train(o);
    o.out = t / "halves";
    o.steps = 3;
    decoding::train(o);
    o = decoding::from_json(file_text(fs::path(t / "halves") / "config.json"), "config.json");
    o.out = t / "halves";
    o.resume = true, o.cache = false, o.console = false;
    o.steps = 6;
    decoding::train(o);
    const std::string whole = bytes_of(fs::path(t / "whole") / "checkpoints/000006.safetensors");
    CHECK(!whole.empty());
    CHECK(whole == bytes_of(fs::path(t / "halves") / "checkpoints/000006.safetensors"));
    CHECK(fs::exists(fs::path(t / "whole") / "samples/000006_held_out.png"));
  }
}

TEST_CASE("nsbgan decoder: a second stage begins with the first one's decoder; a checkpoint decodes what its run did") {
  const TempFolder t;
  const std::string data = draw_faces(t, 12, 40);
  decoding::RunOptions o = tiny_run(data, t / "first", false);
  decoding::train(o);
  decoding::RunOptions second = tiny_run(data, t / "second", true);
  second.resume = true;
  second.resume_file = fs::path(t / "first") / "checkpoints/000006.safetensors";
  second.steps = 9;
  decoding::train(second);
  CHECK(fs::exists(fs::path(t / "second") / "checkpoints/000009.safetensors"));
  Context context;
  UseContext use(context);
  Decoder decoder(t / "second");
  CHECK(decoder.step() == 9);
  CHECK(decoder.factor() == 2);
  const Tensor pictures = some_pictures(1, 32);
  CHECK(decoder.decode(raw_band(Var(pictures), decoder.band()).value).shape() == pictures.shape());
  CHECK(contains(error_of([&] { Decoder(t / "nothing.safetensors"); }), "nothing.safetensors"));
  second.resume_file.clear(), second.resume = false, second.out = t / "third";
  second.resume = true, second.resume_file = fs::path(t / "first") / "checkpoints/000006.safetensors", second.network.width = 8;
  CHECK(contains(error_of([&] { decoding::train(second); }), "--width 4"));
}

TEST_CASE("nsbgan decoder: tiles give the picture that the whole gives") {
  Fixture f;
  const TempFolder t;
  decoding::RunOptions o = tiny_run(draw_faces(t, 8, 40), t / "run", false);
  o.steps = 3;
  for (const Domain domain : {Domain::wavelet, Domain::pixels})
    for (const Wavelet w : {Wavelet::haar, Wavelet::bior22}) {
      o.network.band.domain = domain;
      o.network.band.wavelet = w;
      o.out = t / fmt::format("run-{}-{}", nsbgan::name_of(domain), name_of(w));
      decoding::train(o);
      Decoder decoder(o.out);
      Picture small{50, 37, {}};
      for (size_t i = 0; i < 50 * 37 * 3; i++) small.rgb.push_back(uint8_t(i * 2654435761u >> 21));
      const Picture whole = decoder.upscale(small, 4096), tiled = decoder.upscale(small, 16);
      REQUIRE(whole.width == 100);
      REQUIRE(whole.height == 74);
      int most = 0;
      for (size_t i = 0; i < whole.rgb.size(); i++) most = std::max(most, std::abs(int(whole.rgb[i]) - int(tiled.rgb[i])));
      CHECK(most <= 1);  // a rounding apart
    }
}
