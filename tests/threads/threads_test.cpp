// kiln keeps no global state: two trainings and two generators on two threads give what each gives alone. Built with
// -DKILN_SANITIZE=thread (make sanitize-threads) ThreadSanitizer watches; OMP_NUM_THREADS=1, since it does not know libgomp.
#include <doctest/doctest.h>

#include <exception>
#include <filesystem>
#include <thread>

#include "engine/error.h"
#include "models/fastgan_run.h"
#include "models/fastgan_sampler.h"
#include "tests/program.h"

using namespace kiln;
using namespace kiln::test;

namespace {

/// Runs both at the same time; what one throws is thrown.
template <class A, class B>
void both(A a, B b) {
  std::exception_ptr failed[2];
  const auto guarded = [&](auto f, int which) {
    return [f, which, &failed] {
      try {
        f();
      } catch (...) {
        failed[which] = std::current_exception();
      }
    };
  };
  std::thread one(guarded(a, 0)), two(guarded(b, 1));
  one.join();
  two.join();
  for (const std::exception_ptr& f : failed)
    if (f) std::rethrow_exception(f);
}

std::filesystem::path train_tiny(const std::string& pictures, const std::string& out, uint64_t seed) {
  fastgan::RunOptions o;
  o.data = pictures;
  o.out = out;
  o.network.size = 32;
  o.network.ngf = o.network.ndf = 4;
  o.batch = 4;
  o.steps = 3;
  o.seed = seed;
  o.cache = false;
  o.grid = 2;
  o.console = false;
  o.threads = 1;
  int64_t heard = 0;
  o.on_step = [&](const fastgan::StepReport& s) { return s.step == ++heard; };
  const RunResult r = fastgan::train(o);
  if (heard != 3) fail("the callback was called {} times", heard);
  return r.checkpoint;
}

std::vector<Picture> pictures_of(const std::filesystem::path& checkpoint, uint64_t first) {
  fastgan::Sampler sampler(checkpoint);
  std::vector<Picture> out;
  for (uint64_t seed = first; seed < first + 4; seed++) out.push_back(sampler.render(sampler.latent(seed)));
  return out;
}

}  // namespace

TEST_CASE("threads: two trainings at once equal each alone") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 8, 32);
  const auto alone_a = train_tiny(faces, t / "a", 1), alone_b = train_tiny(faces, t / "b", 2);
  std::filesystem::path a, b;
  both([&] { a = train_tiny(faces, t / "a2", 1); }, [&] { b = train_tiny(faces, t / "b2", 2); });
  CHECK(file_text(a) == file_text(alone_a));
  CHECK(file_text(b) == file_text(alone_b));
  CHECK(file_text(a) != file_text(b));
}

TEST_CASE("threads: two generators at once equal each alone, and one may move to another thread") {
  const TempFolder t;
  const std::string faces = draw_faces(t, 8, 32);
  const auto a = train_tiny(faces, t / "a", 1), b = train_tiny(faces, t / "b", 2);
  const auto alone_a = pictures_of(a, 0), alone_b = pictures_of(b, 10);
  std::vector<Picture> together_a, together_b;
  both([&] { together_a = pictures_of(a, 0); }, [&] { together_b = pictures_of(b, 10); });
  for (size_t i = 0; i < 4; i++) {
    CHECK(together_a[i].rgb == alone_a[i].rgb);
    CHECK(together_b[i].rgb == alone_b[i].rgb);
  }
  fastgan::Sampler sampler(a);
  Picture moved;
  std::thread([&moved, s = std::move(sampler)]() mutable { moved = s.render(s.latent(1)); }).join();
  CHECK(moved.rgb == alone_a[1].rgb);
}

TEST_CASE("threads: a callback ends a training, which is saved") {
  const TempFolder t;
  fastgan::RunOptions o;
  o.data = draw_faces(t, 8, 32);
  o.out = t / "run";
  o.network.size = 32;
  o.network.ngf = o.network.ndf = 4;
  o.batch = 4;
  o.cache = false;
  o.console = false;
  o.on_step = [](const fastgan::StepReport& s) { return s.step < 5; };
  const RunResult r = fastgan::train(o);
  CHECK(r.step == 5);
  CHECK(r.checkpoint.filename() == "000005.safetensors");
  CHECK(std::filesystem::exists(r.checkpoint));
  CHECK(r.collapse.empty());
}
