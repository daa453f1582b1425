// kernels/inference.h beside plain loops.
#include "kernels/inference.h"

#include "tests/kernel_test.h"

using namespace kiln;
using namespace kiln::test;

TEST_CASE("kernel: GLU of a biased, noisy map, gated") {
  Random random(1);
  for (const DType t : kFloatTypes)
    for (const auto& [rows, h] : {std::pair<int64_t, int>{1, 1}, {7, 3}, {33, 8}, {10, 32}, {1001, 20}})
      for (const auto& [noisy, pixels] : {std::pair<bool, int64_t>{false, 0}, {true, 0}, {false, 1}, {true, rows}, {true, 7}}) {
        if (pixels > 0 && rows % pixels) continue;  // rows of a picture; 0: no gate
        const bool gated = pixels > 0;
        CAPTURE(pixels);
        CAPTURE(name_of_type(t));
        CAPTURE(rows);
        CAPTURE(h);
        CAPTURE(noisy);
        const Doubles x = random.normals(t, rows * 2 * h, 2), bias = random.normals(DType::f32, 2 * h);
        const Doubles noise = random.normals(DType::f32, rows), strength = random.normals(DType::f32, 2 * h);
        const Doubles gate = random.normals(DType::f32, gated ? rows / pixels * h : 1);
        Sums y;
        for (int64_t r = 0; r < rows; r++)
          for (int c = 0; c < h; c++) {
            const auto z = [&](int j) {
              Sum s(x[size_t(r * 2 * h + j)]);
              s += bias[size_t(j)];
              if (noisy) s += strength[size_t(j)] * noise[size_t(r)];
              return s;
            };
            const Sum u = z(c), g = z(h + c);
            const double factor = (gated ? gate[size_t(r / pixels * h + c)] : 1) / (1 + std::exp(-g.value));
            y.push_back({u.value * factor, u.size * std::abs(factor) * (1 + g.size)});
          }
        for_each_executor([&](Run& run) {
          Buffer &bx = run.in(t, x), &bb = run.in(DType::f32, bias), &bn = run.in(DType::f32, noise), &bs = run.in(DType::f32, strength);
          Buffer& bg = run.in(DType::f32, gate);
          Buffer& by = run.out(t, rows * h);
          KILN_ON(run, biased_glu(run.stream(), t, rows, h, bx.data(), bb.f32(), noisy ? bn.f32() : nullptr, noisy ? bs.f32() : nullptr, gated ? pixels : 1,
                              gated ? bg.f32() : nullptr, by.data()));
          run.expect("y", by, y);
        });
      }
}
