#include "engine/watch.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "engine/error.h"

namespace kiln {
namespace {

constexpr double kSigmaGrowth = 5, kSigmaMost = 100;
constexpr size_t kSigmaPast = 25, kSigmaLeast = 5;
constexpr double kGapMost = 10, kWon = 0.02, kDead = 1e-4, kPinnedGap = 0.02, kPinnedLoss = 0.01, kStuckLoss = 1e-3;
constexpr int kStuckLooks = 20;
constexpr double kDiversityFall = 0.2, kDiversityLow = 0.3, kDiversityNone = 0.02;

double median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + std::ptrdiff_t(v.size() / 2), v.end());
  return v[v.size() / 2];
}

bool watched(const std::string& key) {
  for (const char* start : {"loss", "recon", "logit", "sigma", "sv", "gradient", "diversity", "hinge", "score"})
    if (key.starts_with(start)) return true;
  return false;
}

const char* network(const std::string& key) { return key.ends_with("_g") ? "the generator" : key.ends_with("_d") ? "the discriminator" : "a network"; }

}  // namespace

bool Watch::holds(const std::string& rule, bool condition, int looks, int64_t step) {
  Rule& r = rules_[rule];
  if (!condition) {
    r.in_a_row = 0;
    if (r.told && ++r.quiet >= looks) r.told = false;
    return false;
  }
  if (r.in_a_row == 0) r.since = step;
  r.in_a_row++;
  r.quiet = 0;
  if (r.told || r.in_a_row < looks) return false;
  r.told = true;
  return true;
}

std::vector<Warning> Watch::look(const std::string& line) {
  std::vector<Warning> out;
  const auto j = nlohmann::json::parse(line, nullptr, false);
  if (!j.is_object() || j.contains("warning") || j.contains("at_stop") || !j.contains("step") || !j["step"].is_number()) return out;
  const int64_t step = j["step"].get<int64_t>();
  const auto speak = [&](const std::string& rule, const std::string& text) { out.push_back({rule, step, rules_[rule].since, text}); };
  std::map<std::string, double> now;
  std::string missing;
  bool any = false;
  for (const auto& [key, value] : j.items()) {
    if (!watched(key)) continue;
    any = true;
    if (value.is_number() && std::isfinite(value.get<double>())) now[key] = value.get<double>();
    else if (missing.empty()) missing = key;
  }
  if (any && holds("not_finite", !missing.empty(), 1, step))
    speak("not_finite", fmt::format("{} is not a finite number: training has diverged; try a smaller --lr", missing));
  const auto value = [&](const char* key) -> std::optional<double> {
    const auto it = now.find(key);
    return it == now.end() ? std::nullopt : std::optional(it->second);
  };
  const auto change = [&](const char* key) {  // since the look before; infinite at the first
    const auto it = before_.find(key);
    return it == before_.end() ? INFINITY : std::abs(now.at(key) - it->second);
  };

  for (const auto& [key, sigma] : now) {
    if (!key.starts_with("sigma")) continue;
    std::vector<double>& past = past_[key];
    const double usual = past.size() >= kSigmaLeast ? median(past) : sigma;
    if (holds(key, sigma > kSigmaMost || sigma > kSigmaGrowth * usual, 2, step))
      speak(key, fmt::format("the weights of {} run away: their largest singular value is {:.3g}{}; its pictures usually fall "
                             "apart next. Go back to an earlier checkpoint, or try a smaller --lr", network(key), sigma,
                             usual < sigma ? fmt::format(" (it was {:.3g})", usual) : ""));
    past.push_back(sigma);
    if (past.size() > kSigmaPast) past.erase(past.begin());
  }

  for (const auto& [key, sigma] : now) {
    if (!key.starts_with("sv_g.")) continue;
    const std::string layer = key.substr(5);
    if (const auto growth = growth_.look("G." + layer, step, sigma)) out.push_back({"growth." + layer, step, growth->since, growth->text});
  }

  const auto real = value("logit_real"), fake = value("logit_fake"), loss_real = value("loss_d_real"), loss_fake = value("loss_d_fake");
  if (real && fake) {
    const double gap = *real - *fake;
    if (holds("gap", std::abs(gap) > kGapMost, 5, step))
      speak("gap", fmt::format("the discriminator's answers run apart: {:+.3g} for real pictures, {:+.3g} for generated ones; the generator "
                               "no longer learns from it. More --augment, or a smaller --lr, holds it back", *real, *fake));
    const auto gradient = value("gradient_d");
    const bool same = std::abs(gap) < kDead && change("logit_real") < kDead && change("logit_fake") < kDead;
    const bool still = gradient && *gradient == 0 && loss_real && loss_fake && *loss_real + *loss_fake > kWon;
    if (holds("dead", same || still, 5, step))
      speak("dead", fmt::format("the discriminator is dead: it {}; nothing is learned from it. Go back to an earlier checkpoint",
                                still ? "has no gradient" : fmt::format("answers {:+.3g} to every picture, real or generated", *real)));
    if (loss_real && loss_fake) {
      const double loss = *loss_real + *loss_fake;
      if (holds("won", loss < kWon, 25, step))
        speak("won", fmt::format("the discriminator tells all pictures apart: its loss has been below {} for {} lines; it has learned the "
                                 "training pictures by heart. More --augment, or more pictures, helps", kWon, 25));
      const bool unmoved = before_.contains("loss_d_real") && before_.contains("loss_d_fake") &&
                           std::abs(loss - before_["loss_d_real"] - before_["loss_d_fake"]) < kPinnedLoss * loss;
      if (holds("pinned", std::abs(gap) < kPinnedGap && unmoved, 50, step))
        speak("pinned", fmt::format("the discriminator learns nothing: its loss stays at {:.3g} and it cannot tell real pictures from generated "
                                    "ones. A larger --lr, or less --augment, may help", loss));
    }
  }

  for (const auto& [key, hinge] : now) {
    if (!key.starts_with("hinge.")) continue;
    const std::string name = key.substr(6);
    const auto of_real = now.find("score_real." + name), of_fake = now.find("score_fake." + name);
    const bool same = of_real != now.end() && of_fake != now.end() && std::abs(of_real->second - of_fake->second) < kDead;
    if (holds("critic." + name, same || std::abs(hinge - 2) < kStuckLoss, kStuckLooks, step))
      speak("critic." + name, fmt::format("the {} discriminator is dead: {} for {} lines; nothing is learned from it. Go back to an earlier checkpoint, or "
                                          "try other learning rates", name, same ? "its scores of real and generated data are equal" : "its hinge loss stays at 2", kStuckLooks));
  }

  if (const auto diversity = value("diversity")) {
    const bool fell = *diversity < kDiversityFall * most_diverse_ && *diversity < kDiversityLow;
    if (holds("diversity", fell || *diversity < kDiversityNone, 2, step))
      speak("diversity", fmt::format("the generated pictures are nearly the same: their distance from each other is {:.2g} of the real "
                                     "ones'{}: the generator has collapsed. Go back to an earlier checkpoint", *diversity,
                                     fell ? fmt::format(" (it was {:.2g})", most_diverse_) : ""));
    most_diverse_ = std::max(most_diverse_, *diversity);
  }
  for (const auto& [key, v] : now) before_[key] = v;
  return out;
}

void Watch::replay(const std::filesystem::path& log) {
  std::ifstream f(log);
  for (std::string line; std::getline(f, line);) look(line);
}

double mean_pairwise_distance(const std::vector<Picture>& pictures) {
  std::vector<Picture> small;
  for (const Picture& p : pictures) small.push_back(fit_picture(p, kDiversitySide, Fit::squash));
  double sum = 0;
  int64_t pairs = 0;
  for (size_t a = 0; a < small.size(); a++)
    for (size_t b = a + 1; b < small.size(); b++) {
      int64_t squares = 0;
      for (size_t i = 0; i < small[a].rgb.size(); i++) {
        const int d = int(small[a].rgb[i]) - int(small[b].rgb[i]);
        squares += d * d;
      }
      sum += std::sqrt(double(squares) / (kDiversitySide * kDiversitySide * 3));
      pairs++;
    }
  return pairs ? sum / double(pairs) : 0;
}

OnCollapse on_collapse_from_name(const std::string& name) {
  for (const OnCollapse what : {OnCollapse::warn, OnCollapse::stop, OnCollapse::rewind})
    if (name == name_of(what)) return what;
  fail("--on-collapse {}: is not known; use warn, stop or rewind", name);
}

const char* name_of(OnCollapse what) { return what == OnCollapse::warn ? "warn" : what == OnCollapse::stop ? "stop" : "rewind"; }

}  // namespace kiln
