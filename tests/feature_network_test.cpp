// Feature networks and LPIPS against PyTorch's own, on hashed weights (tests/golden/make_features.py).
#include "models/feature_network.h"

#include "engine/ops_feature.h"
#include "models/lpips.h"
#include "tests/feature_fixtures.h"

using namespace kiln;
using namespace kiln::test;

TEST_CASE("golden: the Inception graph of FID") {
  Fixture fixture;
  const TempFolder t;
  const auto network = open_feature_network("inception", write_weights(t, "inception"));
  CHECK(network->dimensions() == 2048);
  std::vector<float> picture = hashed_uniform("picture", 2 * 75 * 60 * 3);
  for (float& x : picture) x = std::floor(x * 256.f);
  const Tensor f = network->features(from_vector(Shape{2, 75, 60, 3}, picture));
  CHECK(f.shape() == Shape{2, 2048});
  CHECK(golden_error(features_golden(), "inception", f.to_vector()) < 1e-5);
}

TEST_CASE("golden: LPIPS on VGG16, AlexNet and SqueezeNet, and its gradient") {
  Fixture fixture;
  const TempFolder t;
  for (const std::string n : {"vgg", "alex", "squeeze"}) {
    CAPTURE(n);
    const Lpips lpips(n, write_weights(t, n), write_heads(t, n, head_channels(n)));
    const Shape shape{2, 48, 64, 3};
    const Tensor a = from_vector(shape, hashed_signed(n + ".a", shape.count())), b = from_vector(shape, hashed_signed(n + ".b", shape.count()));
    CHECK(golden_error(features_golden(), n + ".distance", lpips.distance(Var(a), lpips.encode(b)).value.to_vector()) < 1e-5);
    for (float d : lpips.distance(Var(a), lpips.encode(a)).value.to_vector()) CHECK(std::fabs(d) < 1e-12f);
    if (n == "squeeze") continue;  // no gradients through its joined channels
    Tape tape;
    Recording recording(tape);
    const Var x(a, true);
    const Var sum = sum_all(lpips.distance(x, lpips.encode(b)));
    tape.backward({{sum, 1.f}});
    CHECK(golden_error(features_golden(), n + ".grad", x.node->gradient().to_vector()) < 1e-4);
    // As a training loss: the same gradient, times weight and scale, whatever tape is open around it.
    const Tensor scale = from_vector(Shape{1}, {4.f});
    const Lpips::Loss loss = lpips.loss(a, lpips.encode(b), 0.5f, scale.f32());
    CHECK(loss.value.item() == doctest::Approx(double(sum.value.item())).epsilon(1e-6));
    std::vector<float> halved = loss.gradient.to_vector();
    for (float& v : halved) v /= 2;
    CHECK(golden_error(features_golden(), n + ".grad", halved) < 1e-4);
    CHECK(tape.size() == 0);
  }
}

TEST_CASE("golden: SqueezeNet and Tiny Darknet under Keras' names") {
  Fixture fixture;
  const TempFolder t;
  std::vector<float> picture = hashed_uniform("picture", 2 * 75 * 60 * 3);
  for (float& x : picture) x = std::floor(x * 256.f);
  for (const std::string n : {"squeezenet", "darknet"}) {
    CAPTURE(n);
    const auto network = open_feature_network(n, write_keras_weights(t, n));
    const Tensor f = network->features(from_vector(Shape{2, 75, 60, 3}, picture));
    CHECK(f.shape() == Shape{2, 512});
    CHECK(golden_error(features_golden(), n, f.to_vector()) < 1e-5);
  }
}

TEST_CASE("lpips: a pixel without features has no gradient, not a NaN") {
  Fixture fixture;
  const Shape shape{1, 2, 2, 3};
  // Pixel 0: nothing on either side. Pixel 1: nothing here, something there. Pixel 2: the same vector. Pixel 3: two vectors.
  const std::vector<float> f{0, 0, 0, 0, 0, 0, 1, 2, 2, 3, 0, 4}, g{0, 0, 0, 1, 0, 0, 1, 2, 2, 0, 5, 0};
  Tape tape;
  Recording recording(tape);
  const Var x(from_vector(shape, f), true);
  const Var d = perceptual_distance(x, from_vector(shape, g), from_vector(Shape{3}, {1, 2, 3}));
  // (1 + (9 * 1 + 16 * 3) / 25 + 2) / 4
  CHECK(d.value.to_vector()[0] == doctest::Approx((1 + 57.0 / 25 + 2) / 4).epsilon(1e-6));
  tape.backward({{sum_all(d), 1.f}});
  const std::vector<float> gradient = x.node->gradient().to_vector();
  for (size_t i = 0; i < gradient.size(); i++) {
    CAPTURE(i);
    CHECK(std::isfinite(gradient[i]));
    if (i < 9) CHECK(gradient[i] == 0.f);
  }
  CHECK(gradient[9] != 0.f);
}

TEST_CASE("feature networks: a missing or wrong file is named, with what it should be and where it is") {
  Fixture fixture;
  const TempFolder t;
  const auto error = [&](const std::string& name, const std::string& file) { return error_of([&] { open_feature_network(name, file); }); };
  for (const char* word : {"nowhere.pth", "pt_inception-2015-12-05-6726825d.pth", "pytorch-fid"}) CHECK(contains(error("inception", t / "nowhere.pth"), word));
  CHECK(contains(error("inception", ""), "pt_inception"));
  CHECK(contains(error("resnet", t / "x"), "'resnet' is not known"));
  const std::string heads = write_heads(t, "vgg", {64});
  CHECK(contains(error("inception", heads), "Conv2d_1a_3x3.conv.weight"));
  CHECK(contains(error("squeezenet", heads), "conv1/kernel:0"));
  CHECK(contains(error("darknet", heads), "conv2d_1/kernel"));
  for (const char* word : {"vgg16-397923af.pth", "torchvision"}) CHECK(contains(error_of([&] { Lpips("vgg", t / "nowhere.pth", heads); }), word));
  const std::string alex = write_weights(t, "alex");
  CHECK(contains(error_of([&] { Lpips("alex", alex, t / "nowhere.pth"); }), "alex.pth"));
  CHECK(contains(error_of([&] { Lpips("alex", alex, heads); }), "lin1.model.1.weight"));
  CHECK(contains(error_of([&] { Lpips("alex", alex, write_heads(t, "vgg", {64, 128, 256, 512, 512})); }), "another trunk"));
  CHECK(contains(error_of([&] { Lpips("vgg", alex, heads); }), "features.2.weight"));
  CHECK(contains(error_of([&] { Lpips("resnet", alex, heads); }), "'resnet'"));
}
