#include "engine/memory_plan.h"

#include <algorithm>

#include "engine/convolution.h"
#include "engine/file.h"
#include "engine/picture_source.h"
#include "engine/process_memory.h"

namespace kiln {

// What a run has beside all that can be counted: small blocks of the heap and pages of the libraries that a plan does not touch;
// and for each thread its stack and the buffers of oneDNN's matrix products. Measured.
constexpr size_t kHeap = 6 << 20, kThread = 1 << 20;

MemoryPlan plan_memory(const Context& planned, const RunPlan& run, const DatasetSurvey& pictures, int side, uint64_t max_picture_bytes, int threads,
                       size_t at_start, const MemoryExtras& extras) {
  const int64_t count = int64_t(pictures.pictures);
  const Arena::Stats s = planned.arena->stats();
  const uint64_t picture = uint64_t(side) * uint64_t(side) * 3;
  MemoryPlan m;
  m.tensors = s.peak;
  m.arena = s.touched;
  m.program = process_memory().resident + kHeap + size_t(threads) * kThread + convolution_plans() * kConvolutionPlanBytes;
  const uint64_t set = uint64_t(count) * picture;
  m.pictures = set <= max_picture_bytes ? set : uint64_t(PictureSource::kBatchesAhead + 2) * uint64_t(run.batch) * picture;
  if (pictures.decoding_bytes > 0) m.decoding = at_start + m.pictures + pictures.decoding_bytes;
  int64_t held = 0, building = 0, comparing = 0;  // of all references: together, and the most while one is built or compared
  const auto add_reference = [&](int64_t of, int pixels) {
    const SwdReference::Memory d = SwdReference::plan(of, pixels, pixels, threads);
    building = std::max(building, held + d.building);
    comparing = std::max(comparing, d.comparing - d.held);
    held += d.held;
  };
  if (run.metric_every > 0) add_reference(count, side);
  for (const MemoryExtras::Distance& d : extras.distances) add_reference(d.pictures, d.side);
  m.distance = size_t(held);
  // The samples, the sheet that they are laid on, and the sheet's PNG, which for noise is no smaller.
  const size_t sheet = std::max(size_t(run.grid) * size_t(run.grid), size_t(extras.sheet_pictures));
  const size_t sheets = sheet * picture * 3 + size_t(run.batch) * picture * 4;
  // The references are built before the tensors are there.
  const int64_t before = building - held - int64_t(m.arena);
  m.passing = std::max({sheets, size_t(comparing), size_t(std::max<int64_t>(before, 0))});
  return m;
}

std::string MemoryPlan::text() const {
  std::string out = fmt::format(
      "memory: {} in all at the peak\n"
      "  program            {:>10}\n"
      "  pictures           {:>10}\n"
      "  tensors            {:>10}  ({} live)\n"
      "  distance           {:>10}\n"
      "  sheets, measuring  {:>10}\n",
      human_bytes(total()), human_bytes(program), human_bytes(pictures), human_bytes(arena), human_bytes(tensors),
      human_bytes(distance), human_bytes(passing));
  if (decoding >= total()) out += fmt::format("{} while the pictures are decoded, before that and unless they are cached\n", human_bytes(decoding));
  return out;
}

}  // namespace kiln
