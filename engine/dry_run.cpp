#include "engine/dry_run.h"

#include <omp.h>

#include "engine/file.h"
#include "engine/parameters.h"
#include "engine/process_memory.h"
#include "engine/ranks.h"

namespace kiln {
namespace {

constexpr double kSteps = 2;  // that DryRun::steps takes

}  // namespace

DryRun::DryRun(const TrainingOptions& o, int side)
    : o_(o), at_start_(process_memory().resident), survey(o.data.empty() ? DatasetSurvey{} : survey_pictures(dataset_options(o, side))),
      context(o.device, true, tensor_limit(o)), side_(side), picture_memory_(dataset_options(o, side).max_bytes),
      streams_(uint64_t(survey.pictures) * uint64_t(side) * uint64_t(side) * 3 > picture_memory_), use_(context) {
  configure(context, o);
  context.random = std::make_shared<Philox>(o.seed);
}

void DryRun::add(const std::string& network, const ParameterSet& set) {
  layers_.add(network, set);
  networks_.push_back(network);
}

void DryRun::print(const RunPlan& plan, const MemoryExtras& extras) const {
  for (const std::string& network : networks_) fmt::print("{}", layers_.text(network));
  if (o_.ranks) fmt::print("{}; the memory below is each rank's\n", o_.ranks->traffic().text(o_.rank_count(), kSteps));
  const int threads = o_.threads > 0 ? o_.threads : omp_get_max_threads();
  const MemoryPlan m = plan_memory(context, plan, survey, side_, picture_memory_, threads, at_start_, extras);
  if (o_.data.empty())
    fmt::print("pictures: {} each in memory; name their folder to have them counted\n", human_bytes(uint64_t(side_) * uint64_t(side_) * 3));
  else
    fmt::print("pictures: {} files in {}{}\n", survey.pictures, o_.data.string(), streams_ ? ", which stream from the disk" : "");
  fmt::print("{}", m.text());
  if (const uint64_t available = available_memory(); o_.device == Device::cpu && m.total() > available)
    fmt::print("more than this machine has available now ({}): --accumulate, or a smaller --batch, --size or width, need less\n",
               human_bytes(available));
}

}  // namespace kiln
