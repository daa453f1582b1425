// embed_train PICTURES RUN STEPS: trains inside a program of your own, which hears of every step and may end it.
#include <kiln/engine/error.h>
#include <kiln/models/fastgan_run.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

int main(int argc, char** argv) {
  if (argc == 2 && std::string(argv[1]) == "--help") return std::puts("usage: embed_train PICTURES RUN STEPS") < 0;
  kiln::fastgan::RunOptions o;
  if (argc == 4) o.steps = std::atoll(argv[3]);
  if (argc != 4 || o.steps < 1) {
    std::fputs("usage: embed_train PICTURES RUN STEPS\n", stderr);
    return 2;
  }
  o.data = argv[1];
  o.out = argv[2];
  o.network.size = 32;
  o.network.ngf = o.network.ndf = 4;  // as small as networks get: it is an example
  o.batch = 4;
  o.console = false;  // neither text nor signal handlers: both are this program's own
  o.on_step = [](const kiln::fastgan::StepReport& s) {
    std::printf("step %lld: D %.3f + %.3f, G %+.3f\n", (long long)s.step, s.loss_d_real, s.loss_d_fake, s.loss_g);
    return s.loss_d_real + s.loss_d_fake > 0.01f;  // false would save and end
  };
  try {
    const kiln::RunResult r = kiln::fastgan::train(o);
    std::printf("%s\n", r.checkpoint.c_str());
    return r.collapse.empty() ? 0 : 3;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "embed_train: %s\n", e.what());
    return 2;
  }
}
