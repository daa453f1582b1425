// What the process takes and what the system has left: the numbers that keep a run from being ended by the kernel.
#include "engine/process_memory.h"

#include <doctest/doctest.h>

#include <limits>

#include "engine/arena.h"
#include "tests/picture_fixtures.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::test;
using fixtures::TempFolder;
using fixtures::write_file;

TEST_CASE("process memory: resident and peak grow with what is touched, and the system has some left") {
  const ProcessMemory before = process_memory();
  CHECK(before.resident > 0);
  CHECK(before.peak >= before.resident);
  std::vector<char> block(64 << 20, 1);
  CHECK(process_memory().peak >= before.resident + block.size() * 9 / 10);
  CHECK(block.back() == 1);
  CHECK(available_memory() > 0);
  CHECK(available_memory() < uint64_t{1} << 50);
}

TEST_CASE("process memory: what is available is the system's, or the least that a control group leaves") {
  const TempFolder root;
  const auto available = [&] { return available_memory(root.path); };
  CHECK(available() == std::numeric_limits<uint64_t>::max());  // nothing is known
  write_file(root / "proc/meminfo", "MemTotal:       16000 kB\nMemFree:         100 kB\nMemAvailable:    5000 kB\nSwapFree: 7 kB\n");
  CHECK(available() == 5000 << 10);
  write_file(root / "proc/self/cgroup", "12:cpu:/x\n0::/a/b\n");
  CHECK(available() == 5000 << 10);  // no such group
  write_file(root / "sys/fs/cgroup/a/b/memory.max", "max\n");
  write_file(root / "sys/fs/cgroup/a/b/memory.current", "1000000\n");
  CHECK(available() == 5000 << 10);  // no limit
  write_file(root / "sys/fs/cgroup/a/memory.max", "3000000\n");
  write_file(root / "sys/fs/cgroup/a/memory.current", "1200000\n");
  CHECK(available() == 1'800'000);
  write_file(root / "sys/fs/cgroup/a/memory.stat", "anon 5\ninactive_file 200000\nactive_file 9\n");
  CHECK(available() == 2'000'000);  // the cache of files is given up first
  write_file(root / "sys/fs/cgroup/a/b/memory.max", "900000\n");
  CHECK(available() == 0);  // beyond its limit already
  write_file(root / "proc/self/cgroup", "0::/\n");  // in a container
  CHECK(available() == 5000 << 10);
  write_file(root / "sys/fs/cgroup/memory.max", "4000000\n");
  write_file(root / "sys/fs/cgroup/memory.current", "1\n");
  CHECK(available() == 3'999'999);
  write_file(root / "proc/self/cgroup", "8:pids:/x\n7:memory:/docker/123\n");  // the older interface, in a container
  write_file(root / "sys/fs/cgroup/memory/memory.limit_in_bytes", "2500000\n");
  write_file(root / "sys/fs/cgroup/memory/memory.usage_in_bytes", "600000\n");
  write_file(root / "sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 100000\n");
  CHECK(available() == 2'000'000);
}

TEST_CASE("arena: more than the machine has available is refused, before the system ends the process for it") {
  const auto arena = std::make_shared<Arena>(Device::cpu, false);
  const auto small = arena->allocate(1000);
  const std::string e = error_of([&] { (void)arena->allocate(available_memory() + (256 << 20)); });
  CAPTURE(e);
  CHECK(contains(e, "out of memory on the cpu"));
  CHECK((contains(e, "are available") || contains(e, "the system refused")));
  CHECK(contains(e, "--batch"));
  CHECK(arena->allocate(1000) != nullptr);  // and goes on
}
