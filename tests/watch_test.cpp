// The watch over a training: every rule on made-up logs, no alarm on healthy ones, and its state after a replay.
#include "engine/watch.h"

#include <cmath>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "tests/program.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::test;
using nlohmann::json;

namespace {

using Line = std::function<json(int)>;  // of a look, counted from 1

/// What a watch tells over `looks` lines, 20 steps apart.
std::vector<Warning> told(int looks, const Line& line, Watch watch = {}) {
  std::vector<Warning> all;
  for (int i = 1; i <= looks; i++) {
    json j = line(i);
    j["step"] = i * 20;
    for (Warning& w : watch.look(j.dump())) all.push_back(w);
  }
  return all;
}

double jitter(int i, const char* name) { return double(hash_uniform(name, uint64_t(i))) - 0.5; }

json healthy(int i) {
  return {{"loss_d_real", 0.8 + 0.4 * jitter(i, "a")}, {"loss_d_fake", 0.8 + 0.4 * jitter(i, "b")}, {"loss_g", jitter(i, "c")},
          {"logit_real", 0.2 + jitter(i, "d")},        {"logit_fake", -0.1 + jitter(i, "e")},      {"sigma_g", 2 + 0.004 * i},
          {"sigma_d", 1.5 + 0.001 * i},                {"gradient_g", 0.3},                          {"gradient_d", 0.5 + 0.3 * jitter(i, "f")}};
}

/// The one warning that there must be.
Warning only(const std::vector<Warning>& w, const std::string& rule) {
  for (const Warning& x : w) INFO(x.rule << " at " << x.step);
  REQUIRE(w.size() == 1);
  CHECK(w[0].rule == rule);
  return w[0];
}

}  // namespace

TEST_CASE("watch: a healthy log of 50,000 steps raises no alarm, nor do its first lines") {
  CHECK(told(2500, healthy).empty());
  // Diversity as it grows from grey pictures.
  CHECK(told(40, [](int i) { return json{{"diversity", std::min(0.9, 0.03 + 0.05 * i)}}; }).empty());
  // Jumps of the logits, one at a time.
  CHECK(told(200, [](int i) {
          json j = healthy(i);
          if (i % 7 == 0) j["logit_real"] = 14.0;
          return j;
        }).empty());
}

TEST_CASE("watch: a value that is not finite, at once") {
  const Warning w = only(told(50, [](int i) {
    json j = healthy(i);
    if (i >= 30) j["loss_g"] = nullptr;
    return j;
  }), "not_finite");
  CHECK(w.step == 600);
  CHECK(w.since == 600);
  CHECK(contains(w.text, "loss_g"));
  CHECK(contains(w.text, "--lr"));
  CHECK(contains(only(told(3, [](int) { return json{{"sigma_g", NAN}}; }), "not_finite").text, "sigma_g"));
}

TEST_CASE("watch: singular values that run away, beside their past or beyond any") {
  Warning w = only(told(60, [](int i) {
    json j = healthy(i);
    if (i > 40) j["sigma_g"] = 2 * std::pow(1.6, i - 40);
    return j;
  }), "sigma_g");
  CHECK(w.since == 44 * 20);  // 1.6^4 = 6.6 times
  CHECK(w.step == 45 * 20);
  CHECK(contains(w.text, "the generator"));
  w = only(told(3, [](int i) { return json{{"sigma_d", 2000.0 * i}}; }), "sigma_d");
  CHECK(w.step == 40);
  CHECK(contains(w.text, "the discriminator"));
  CHECK(told(60, [](int i) { return json{{"sigma_d", i == 30 ? 50.0 : 2.0}}; }).empty());  // one look is none
  CHECK(told(2500, [](int i) { return json{{"sigma_g", 2 * std::exp(i * 0.0015)}}; }).empty());  // to 85: slow
}

TEST_CASE("watch: a layer of the generator that suddenly grows, since the step that its window begins with, also after a replay") {
  const Line grows = [](int i) {  // slowly, then by half again and again
    json j = healthy(i);
    for (const char* layer : {"sv_g.linear", "sv_d.linear"}) j[layer] = i <= 400 ? 2 + 0.001 * i : 2.4 * std::pow(1.02, i - 400);
    j["sv_g.blocks.0.conv1"] = 3;
    return j;
  };
  const Warning w = only(told(440, grows), "growth.linear");
  CHECK(w.step > 400 * 20);
  CHECK(w.step < 420 * 20);
  CHECK(w.since == w.step - 500);
  CHECK(contains(w.text, "G.linear"));
  const TempFolder t;
  for (const int cut : {300, 405, 430}) {
    std::ofstream log(t / "log.jsonl");
    for (int i = 1; i <= cut; i++) {
      json j = grows(i);
      j["step"] = i * 20;
      log << j.dump() << '\n';
    }
    log.close();
    Watch watch;
    watch.replay(t / "log.jsonl");
    size_t after = 0;
    for (int i = cut + 1; i <= 440; i++) {
      json j = grows(i);
      j["step"] = i * 20;
      after += watch.look(j.dump()).size();
    }
    CHECK(after == (w.step > cut * 20 ? 1 : 0));
  }
}

TEST_CASE("watch: answers that run apart") {
  const Line line = [](int i) {
    json j = healthy(i);
    if (i > 10) j["logit_real"] = 15.0;
    return j;
  };
  const Warning w = only(told(100, line), "gap");
  CHECK(w.since == 11 * 20);
  CHECK(w.step == 15 * 20);
  CHECK(contains(w.text, "+15"));
}

TEST_CASE("watch: a dead discriminator, by its answers and by its gradient") {
  Warning w = only(told(30, [](int i) {
    json j = healthy(i);
    if (i > 10) j["logit_real"] = j["logit_fake"] = 0.25, j["loss_d_real"] = 0.7 + 0.2 * jitter(i, "g");
    return j;
  }), "dead");
  CHECK(w.since == 12 * 20);  // the first look that is as the one before
  CHECK(contains(w.text, "+0.25 to every picture"));
  w = only(told(30, [](int i) {
    json j = healthy(i);
    if (i > 10) j["gradient_d"] = 0;
    return j;
  }), "dead");
  CHECK(w.since == 11 * 20);
  CHECK(contains(w.text, "no gradient"));
}

TEST_CASE("watch: a discriminator that has won, and one that learns nothing") {
  only(told(200, [](int i) {
    json j = healthy(i);
    j["logit_real"] = 2 + jitter(i, "d"), j["logit_fake"] = -2 + jitter(i, "e");
    j["loss_d_real"] = 0.004, j["loss_d_fake"] = 0.003;
    return j;
  }), "won");
  CHECK(told(24, [](int) { return json{{"logit_real", 2}, {"logit_fake", -2}, {"loss_d_real", 0}, {"loss_d_fake", 0}}; }).empty());
  const Line pinned = [](int i) {
    json j = healthy(i);
    j["logit_real"] = 0.003 * jitter(i, "d"), j["logit_fake"] = 0.003 * jitter(i, "e");
    j["loss_d_real"] = j["loss_d_fake"] = 0.9 + 0.001 * jitter(i, "h");
    return j;
  };
  CHECK(only(told(200, pinned), "pinned").step == 51 * 20);
  CHECK(told(50, pinned).empty());
}

TEST_CASE("watch: diversity that falls, or never comes") {
  Warning w = only(told(30, [](int i) { return json{{"diversity", i < 20 ? 0.8 : 0.1}}; }), "diversity");
  CHECK(w.since == 20 * 20);
  CHECK(w.step == 21 * 20);
  CHECK(contains(w.text, "it was 0.8"));
  only(told(5, [](int) { return json{{"diversity", 0.001}}; }), "diversity");
  CHECK(told(30, [](int i) { return json{{"diversity", i < 20 ? 0.8 : 0.4}}; }).empty());
}

TEST_CASE("watch: it speaks once for an event, again for the next one, and a replay knows what was told") {
  const Line twice = [](int i) {
    json j = healthy(i);
    if ((i > 10 && i <= 30) || i > 60) j["logit_real"] = 20.0;
    return j;
  };
  const std::vector<Warning> w = told(100, twice);
  REQUIRE(w.size() == 2);
  CHECK(w[0].since == 220);
  CHECK(w[1].since == 1220);

  const TempFolder t;
  for (const int cut : {5, 13, 14, 25, 33, 34, 64, 70}) {
    CAPTURE(cut);
    std::ofstream log(t / "log.jsonl");
    size_t before = 0;
    for (int i = 1; i <= cut; i++) {
      json j = twice(i);
      j["step"] = i * 20;
      log << j.dump() << '\n';
    }
    for (const Warning& x : w) before += x.step <= cut * 20;
    log << "{\"step\": 1, \"warning\": \"of old\"}\n{\"step\": 2, \"lo";
    log.close();
    Watch watch;
    watch.replay(t / "log.jsonl");
    watch.replay(t / "none.jsonl");
    size_t after = 0;
    for (int i = cut + 1; i <= 100; i++) {
      json j = twice(i);
      j["step"] = i * 20;
      after += watch.look(j.dump()).size();
    }
    CHECK(before + after == 2);
  }
}

TEST_CASE("watch: pairwise distance of pictures") {
  const auto plain = [](uint8_t v) { return Picture{32, 32, std::vector<uint8_t>(32 * 32 * 3, v)}; };
  CHECK(mean_pairwise_distance({}) == 0);
  CHECK(mean_pairwise_distance({plain(7)}) == 0);
  CHECK(mean_pairwise_distance({plain(7), plain(7), plain(7)}) == 0);
  CHECK(mean_pairwise_distance({plain(0), plain(30)}) == doctest::Approx(30));
  CHECK(mean_pairwise_distance({plain(0), plain(30), plain(90)}) == doctest::Approx((30 + 90 + 60) / 3.0));
  CHECK(contains(error_of([] { on_collapse_from_name("panic"); }), "rewind"));
}

TEST_CASE("watch: one of several discriminators that is dead is named") {
  const auto line = [](double hinge, double gap) {
    return [=](int i) {
      json j = healthy(i);
      j["hinge.spatial"] = 1.7 + 0.2 * jitter(i, "s");
      j["score_real.spatial"] = 0.4 + jitter(i, "t");
      j["score_fake.spatial"] = -0.3 + jitter(i, "u");
      j["hinge.matching"] = hinge + (hinge == 2 ? 0 : 0.2 * jitter(i, "v"));
      j["score_real.matching"] = 0.1 * jitter(i, "w") + gap;
      j["score_fake.matching"] = 0.1 * jitter(i, "w");
      return j;
    };
  };
  CHECK(told(60, line(1.6, 0.5)).empty());
  const Warning stuck = only(told(60, line(2, 0.5)), "critic.matching");
  CHECK(stuck.step == 20 * 20);
  CHECK(contains(stuck.text, "matching discriminator"));
  CHECK(contains(stuck.text, "stays at 2"));
  CHECK(contains(only(told(60, line(1.6, 0)), "critic.matching").text, "equal"));
  CHECK(told(19, line(2, 0.5)).empty());
}
