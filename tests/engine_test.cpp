// Shapes, tensors and the memory they live in.
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <thread>

#include "engine/error.h"
#include "engine/ops.h"
#include "models/fastgan_training.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::test;

namespace {

/// Does f stop the process as a programming error must (KILN_ASSERT)?
template <class F>
bool stops(F f) {
  std::fflush(stdout);  // or the child would print it again
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGABRT, SIG_DFL);  // doctest's own handler would report
    if (!freopen("/dev/null", "w", stderr) || !freopen("/dev/null", "w", stdout)) _exit(1);
    f();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

}  // namespace

TEST_CASE("shape: sizes, counts, text") {
  const Shape s{8, 64, 32, 3};
  CHECK(s.rank() == 4);
  CHECK(s.count() == 8 * 64 * 32 * 3);
  CHECK(s.rows() == 8 * 64 * 32);
  CHECK(s[1] == 64);
  CHECK(s[-1] == 3);
  CHECK(s[-4] == 8);
  CHECK(s.text() == "8x64x32x3");
  CHECK(s.sizes() == std::vector<int64_t>{8, 64, 32, 3});
  CHECK(s.with(-1, 6) == Shape{8, 64, 32, 6});
  CHECK(s.with(0, 1) == Shape{1, 64, 32, 3});
  CHECK(s == Shape{8, 64, 32, 3});
  CHECK(s != Shape{8, 64, 32});
  CHECK(s != Shape{8, 64, 3, 32});
  CHECK(Shape().count() == 0);
  CHECK(Shape().rows() == 0);
  CHECK(Shape{}.text().empty());
  CHECK(Shape{4, 0}.count() == 0);
  CHECK(Shape{1, 2, 3, 4, 5}.count() == 120);
  CHECK(stops([] { (void)Shape{1, 2, 3, 4, 5, 6}; }));
}

TEST_CASE("tensor: types, copies, views") {
  Fixture fixture;
  CHECK(!Tensor());
  const std::vector<float> v = {1, -2, 3.5f, 4, 5, 6};
  const Tensor t = from_vector(Shape{2, 3}, v);
  CHECK(bool(t));
  CHECK(t.to_vector() == v);
  CHECK(t.bytes() == 24);
  CHECK(t.rows() == 2);
  CHECK(t.channels() == 3);
  CHECK(t.unique());
  CHECK(reinterpret_cast<uintptr_t>(t.data()) % 512 == 0);

  const Tensor view = t.reshape(Shape{3, 2, 1});
  CHECK(view.data() == t.data());
  CHECK(view.shape() == Shape{3, 2, 1});
  CHECK(!t.unique());
  const Tensor part = t.slice(2, Shape{1, 3});
  CHECK(part.to_vector() == std::vector<float>{3.5f, 4, 5});
  part.f32()[0] = 9;
  CHECK(t.to_vector()[2] == 9);
  CHECK(from_vector(Shape{1, 1}, {7}).item() == 7);

  CHECK(stops([&] { (void)t.reshape(Shape{7}); }));
  CHECK(stops([&] { (void)t.slice(4, Shape{3}); }));
  CHECK(stops([&] { (void)t.slice(-1, Shape{3}); }));
  CHECK(stops([&] { (void)t.item(); }));
  CHECK(stops([&] { (void)Tensor(Shape{2}, DType::i32).f32(); }));
  CHECK(stops([&] { (void)from_vector(Shape{2}, {1}); }));
  CHECK(stops([&] { (void)combine(1, Var(t), 1, Var(view)); }));
  CHECK(!stops([&] { (void)t.reshape(Shape{6}); }));
}

TEST_CASE("tensor: every storage type goes up and down") {
  Fixture fixture;
  const std::pair<DType, const char*> types[] = {
      {DType::f32, "f32"}, {DType::f16, "f16"}, {DType::bf16, "bf16"}, {DType::u8, "u8"}, {DType::i32, "i32"}};
  const size_t sizes[] = {4, 2, 2, 1, 4};
  for (size_t k = 0; k < 5; k++) {
    const auto [type, name] = types[k];
    CHECK(name_of(type) == std::string(name));
    CHECK(size_of(type) == sizes[k]);
    const Tensor t(Shape{37}, type);
    CHECK(t.dtype() == type);
    REQUIRE(t.bytes() == 37 * sizes[k]);
    std::vector<uint8_t> up(t.bytes()), down(t.bytes());
    for (size_t i = 0; i < up.size(); i++) up[i] = uint8_t(i * 37 + 11);
    t.upload(up.data());
    t.download(down.data());
    CHECK(up == down);
    zeros(Shape{37}, type).download(down.data());
    CHECK(std::all_of(down.begin(), down.end(), [](uint8_t b) { return b == 0; }));
  }
  const uint16_t half[] = {0x3E00, 0xC000, 0x0001},
                 brain[] = {0x3FC0, 0xC000, 0x7F80};  // 1.5, -2, least; 1.5, -2, infinity
  const Tensor h(Shape{3}, DType::f16), b(Shape{3}, DType::bf16);
  h.upload(half);
  b.upload(brain);
  CHECK(h.to_vector() == std::vector<float>{1.5f, -2.f, 5.9604645e-8f});
  CHECK(b.to_vector() == std::vector<float>{1.5f, -2.f, INFINITY});
  CHECK(h.slice(1, Shape{1}).item() == -2.f);
}

TEST_CASE("tensor: outlives its context") {
  Tensor t;
  {
    Fixture fixture;
    t = from_vector(Shape{3}, {1, 2, 3});
  }
  CHECK(t.f32()[2] == 3);
}

// ---- the arena
// --------------------------------------------------------------------------------------------------------

namespace {

std::shared_ptr<Arena> new_arena(bool planning = false, size_t limit = 0) {
  return std::make_shared<Arena>(Device::cpu, planning, limit);
}

constexpr size_t KB = 1024, MB = 1024 * KB;

}  // namespace

TEST_CASE("arena: the smallest free block that is large enough is taken") {
  const auto arena = new_arena();
  auto large = arena->allocate(16 * KB), w1 = arena->allocate(KB), small = arena->allocate(4 * KB),
       w2 = arena->allocate(KB), middle = arena->allocate(8 * KB), w3 = arena->allocate(KB);
  const void *at_large = large.get(), *at_small = small.get(), *at_middle = middle.get();
  large.reset();
  small.reset();
  middle.reset();
  const auto a = arena->allocate(3 * KB), b = arena->allocate(5 * KB), c = arena->allocate(9 * KB);
  CHECK(a.get() == at_small);
  CHECK(b.get() == at_middle);
  CHECK(c.get() == at_large);
  const auto rest = arena->allocate(7 * KB);  // what is left of the large one
  CHECK(rest.get() == static_cast<const char*>(at_large) + 9 * KB);
}

TEST_CASE("arena: freed neighbours merge, in every order") {
  for (const std::vector<int>& order : {std::vector{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}}) {
    const auto arena = new_arena();
    std::shared_ptr<void> block[3];
    for (auto& b : block) b = arena->allocate(4 * KB);
    const auto wall = arena->allocate(KB);
    const void* first = block[0].get();
    for (int k : order) block[k].reset();
    CHECK(arena->allocate(12 * KB).get() == first);
    CHECK(arena->stats().in_use == KB);
  }
}

TEST_CASE("arena: segments never merge with each other") {
  for (bool planning : {false, true}) {
    const auto arena = new_arena(planning);
    auto a = arena->allocate(64 * MB), b = arena->allocate(64 * MB);
    CHECK(arena->stats().reserved == 128 * MB);
    a.reset();
    b.reset();
    const auto both = arena->allocate(128 * MB);
    CHECK(arena->stats().reserved == 256 * MB);
  }
}

TEST_CASE("arena: figures") {
  const auto arena = new_arena();
  CHECK(arena->stats().reserved == 0);
  auto a = arena->allocate(1), zero = arena->allocate(0);
  CHECK(arena->stats().in_use == 1024);  // two blocks of 512
  CHECK(a.get() != zero.get());
  auto b = arena->allocate(10 * KB);
  CHECK(arena->stats().peak == 11 * KB);
  b.reset();
  CHECK(arena->stats().in_use == KB);
  CHECK(arena->stats().peak == 11 * KB);
  arena->reset_peak();
  CHECK(arena->stats().peak == KB);
  CHECK(arena->stats().reserved == 64 * MB);
  const auto large = arena->allocate(100 * MB + 1);
  CHECK(arena->stats().reserved == 64 * MB + 102 * MB);
}

TEST_CASE("arena: the limit's error says what was wanted, what is in use and what to do") {
  const auto arena = new_arena(false, 100 * MB);
  const auto a = arena->allocate(50 * MB);
  const std::string e = error_of([&] { arena->allocate(80 * MB); });
  CHECK(contains(e, "out of memory on the cpu"));
  CHECK(contains(e, "80 MB more are needed"));
  CHECK(contains(e, "64 MB are in use"));
  CHECK(contains(e, "the run's own limit"));
  CHECK(contains(e, "--batch"));
  CHECK(arena->stats().in_use == 50 * MB);
  CHECK(bool(arena->allocate(10 * MB)));  // what was reserved before still serves
  CHECK(contains(error_of([] { new_arena()->allocate(size_t(1) << 60); }), "are available"));
}

TEST_CASE("arena: threads may share it") {
  const auto arena = new_arena();
  const auto work = [&](int salt) {
    for (int k = 0; k < 300; k++) {
      const size_t bytes = size_t((k * 37 + salt * 101) % 50 + 1) * KB;
      const auto a = arena->allocate(bytes);
      std::memset(a.get(), salt, bytes);
      const auto b = arena->allocate(2 * bytes);
      for (size_t i = 0; i < bytes; i += 512)
        if (static_cast<char*>(a.get())[i] != salt) std::abort();
    }
  };
  std::thread one(work, 1), two(work, 2);
  one.join();
  two.join();
  CHECK(arena->stats().in_use == 0);
  CHECK(arena->allocate(64 * MB).get() != nullptr);
  CHECK(arena->stats().reserved == 64 * MB);  // all of it is one block again
}

TEST_CASE("arena: planning computes nothing and reads as zero") {
  Context context(Device::cpu, true);
  UseContext use(context);
  const Tensor t = from_vector(Shape{3}, {1, 2, 3});
  CHECK(t.to_vector() == std::vector<float>{0, 0, 0});
  const Tensor huge(Shape{1 << 20, 1 << 20});  // 4 TB
  CHECK(context.arena->stats().peak > size_t(1) << 42);
  CHECK(swish(Var(huge)).shape() == huge.shape());
}

namespace {

struct Measured {
  std::vector<Arena::Stats> after;  // of each iteration
  std::vector<const void*> losses;  // where an iteration's results lay
};

Measured iterate(bool planning, const fastgan::Config& c, int64_t batch, int iterations) {
  Context context(Device::cpu, planning);
  UseContext use(context);
  const auto random = std::make_shared<Philox>(1);
  context.random = random;
  fastgan::Model model(c);
  if (!planning) model.initialise(*random);
  Measured m;
  for (int k = 0; k < iterations; k++) {
    random->set_step(uint64_t(k));
    const Tensor real = random->uniform("real", Shape{batch, c.size, c.size, 3});
    const fastgan::Losses l = model.iteration(real, {});
    m.losses.insert(m.losses.end(), {real.data(), l.d_real.data(), l.g.data(), l.logit_fake.data()});
    m.after.push_back(context.arena->stats());
  }
  return m;
}

fastgan::Config narrow(int size) {
  fastgan::Config c;
  c.size = size;
  c.ngf = c.ndf = 4;
  return c;
}

}  // namespace

TEST_CASE("arena: planning gives the figures of the real run, step for step") {
  for (int size : {32, 64}) {
    const Measured planned = iterate(true, narrow(size), 2, 2), real = iterate(false, narrow(size), 2, 2);
    for (size_t k = 0; k < 2; k++) {
      CAPTURE(k);
      CHECK(planned.after[k].peak == real.after[k].peak);
      CHECK(planned.after[k].reserved == real.after[k].reserved);
      CHECK(planned.after[k].in_use == real.after[k].in_use);
    }
  }
}

namespace {

/// Peaks of convolutions forward and backward, one at a time: their scratch memory and reordered weights are the
/// arena's. Small pictures with large weights, where those are most of the memory.
std::vector<size_t> convolution_peaks(bool planning) {
  std::vector<size_t> peaks;
  for (const auto& [channels, stride] : {std::pair{64, 1}, std::pair{64, 2}, std::pair{5, 1}})
    for (bool input_wanted : {false, true})
      for (bool weight_wanted : {false, true}) {
        Context context(Device::cpu, planning);
        UseContext use(context);
        const Var x(zeros(Shape{2, 8, 8, channels}), input_wanted), w(zeros(Shape{128, 4, 4, channels}), weight_wanted);
        Tape tape;
        Recording recording(tape);
        const Var loss = generator_loss(conv2d(x, w, stride, 1));
        peaks.push_back(context.arena->stats().peak);
        context.arena->reset_peak();
        tape.backward({{loss, 1.f}});
        peaks.push_back(context.arena->stats().peak);
      }
  return peaks;
}

}  // namespace

TEST_CASE("arena: planning counts what the convolutions need besides their operands") {
  const std::vector<size_t> real = convolution_peaks(false);
  CHECK(convolution_peaks(true) == real);
  // Operands of the first case: x, w and y; more than those is scratch.
  CHECK(real[0] > 4 * (2 * 64 * 64 + 128 * 16 * 64 + 2 * 49 * 128));
}

TEST_CASE("arena: every iteration gets the same addresses, and no more memory than the first") {
  for (bool planning : {false, true}) {
    const Measured m = iterate(planning, narrow(32), 2, 4);
    for (size_t k = 1; k < 4; k++) {
      CHECK(m.after[k].reserved == m.after[0].reserved);
      CHECK(m.after[k].peak == m.after[0].peak);
      for (size_t i = 0; i < 4; i++) CHECK(m.losses[4 * k + i] == m.losses[i]);
    }
  }
}

TEST_CASE("context: time is booked by kind of work, when it is asked for") {
  Fixture fixture;
  const Var x(zeros(Shape{1, 8, 8, 16})), w(zeros(Shape{16, 3, 3, 16}));
  conv2d(x, w, 1, 1);
  CHECK(context().profile.launches[size_t(Work::convolution)] == 0);
  context().profile.on = true;
  conv2d(x, w, 1, 1);
  swish(x);
  swish(x);
  CHECK(context().profile.launches[size_t(Work::convolution)] == 1);
  CHECK(context().profile.launches[size_t(Work::pointwise)] == 2);
  CHECK(context().profile.seconds[size_t(Work::convolution)] > 0);
  for (int k = 0; k < int(Work::count); k++) CHECK(name_of(Work(k)) != std::string("?"));
}
