// Watch: reads a training's log as it is written and tells, in words, when the training runs away.
//
// It knows no model, only keys of the log; a key that a model does not log is not watched. A "look" is a line that has the
// key. Every rule holds for a number of looks in a row before it speaks, speaks once, and can speak again only after it has
// been false for as many looks. What was measured on healthy runs, and the room that the limits leave: docs/fastgan.md.
//
//   rule        keys                      it speaks when
//   not_finite  all below                 one is null (what a number that is infinite or none becomes in JSON)         1 look
//   sigma       sigma_*                   a network's largest singular value is above 5 times the median of the
//                                         25 looks before (5 at least), or above 100                                  2 looks
//   growth.*    sv_g.LAYER                the largest singular value of a layer of the generator suddenly grows at many times its
//                                         usual pace: engine/growth_alarm.h                                            1 look
//   gap         logit_real, logit_fake    they are more than 10 apart                                                 5 looks
//   won         loss_d_real, loss_d_fake  their sum is below 0.02: D tells all pictures apart, and a hinge loss of
//                                         zero has no gradient                                                       25 looks
//   dead        logit_real, logit_fake,   the two are within 1e-4 of each other and of the look before, or D's
//               gradient_d                gradient is exactly zero though its loss is not                             5 looks
//   pinned      logit_*, loss_d_*         the two are within 0.02 of each other, and the sum of the losses is within
//                                         1% of the look before: D learns nothing                                    50 looks
//   critic.*    hinge.NAME, score_*.NAME  of one of several discriminators: its two hinge losses stay at 2 together, within 1e-3, or its
//                                         scores of real and generated data within 1e-4 of each other: it is dead   20 looks
//   diversity   diversity                 below 0.2 of the most that it was, and below 0.3, or below 0.02             2 looks
//
// The state is a function of the log, so that a resumed run that replays its log goes on as an unbroken one would.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "engine/growth_alarm.h"
#include "engine/picture.h"

namespace kiln {

struct Warning {
  std::string rule;   // as in the table; sigma with its key: "sigma_g", growth with the layer
  int64_t step = 0;   // at which it speaks
  int64_t since = 0;  // the first look in a row at which its condition held
  std::string text;   // what happened, what it means, what helps
};

class Watch {
 public:
  /// Looks at a line of the log, a flat JSON object; lines without "step", warnings, and measurements that a
  /// run only made because it stopped ("at_stop") are passed over.
  std::vector<Warning> look(const std::string& line);
  /// Looks at all lines of a file and says nothing: what they told has been told. A file that is not there has no lines.
  void replay(const std::filesystem::path& log);

 private:
  struct Rule {
    int in_a_row = 0, quiet = 0;
    int64_t since = 0;
    bool told = false;
  };
  /// One look of a rule: true if it speaks now.
  bool holds(const std::string& rule, bool condition, int looks, int64_t step);

  std::map<std::string, Rule> rules_;
  std::map<std::string, std::vector<double>> past_;  // the last looks at a sigma key
  std::map<std::string, double> before_;             // the look before
  double most_diverse_ = 0;
  GrowthAlarm growth_;
};

constexpr int kDiversitySide = 16;
/// Mean distance between the pictures of a set, over all pairs: root mean square of the differences, of 255, of the pictures
/// scaled to kDiversitySide squared. All of one size. 0 for fewer than two. For a diversity: that of generated pictures over that of as many
/// real ones.
double mean_pairwise_distance(const std::vector<Picture>& pictures);

/// What to do when a training runs away: only say so; end it; or go back to a checkpoint from before and try other random
/// numbers.
enum class OnCollapse { warn, stop, rewind };
/// "warn", "stop", "rewind"; throws Error for any other word.
OnCollapse on_collapse_from_name(const std::string& name);
const char* name_of(OnCollapse what);

}  // namespace kiln
