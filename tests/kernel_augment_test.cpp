// kernels/augment.h beside plain loops.
#include "kernels/augment.h"

#include <algorithm>

#include "tests/kernel_test.h"

using namespace kiln;
using namespace kiln::test;

namespace {

const AugmentShape kShapes[] = {{1, 1, 1},  {3, 1, 3},   {2, 3, 5},   {4, 8, 8},
                                {3, 9, 16}, {2, 33, 31}, {3, 20, 64}, {2, 100, 64}};

std::vector<AugmentPolicy> policies() {
  std::vector<AugmentPolicy> all;
  for (int k = 0; k < 8; k++) all.push_back({(k & 1) != 0, (k & 2) != 0, (k & 4) != 0});
  return all;
}

std::string describe(DType t, const AugmentShape& s, const AugmentPolicy& p) {
  return fmt::format("{}, {} pictures {} x {}, color {}, translation {}, cutout {}", name_of_type(t), s.n, s.h, s.w,
                     p.color, p.translation, p.cutout);
}

/// Seven uniforms a picture. Some are the largest and the smallest there are; none is so near to where floor jumps that
/// float32 may be on the other side.
Doubles draw_uniforms(Random& random, const AugmentShape& s) {
  const auto near_jump = [](double u, double n) {
    const double x = u * n, d = std::fabs(x - std::round(x));
    return u != 0 && u != 1 - 0x1p-24 && d < 1e-4;
  };
  Doubles u;
  for (int64_t n = 0; n < s.n; n++)
    for (int k = 0; k < kAugmentUniforms; k++) {
      const int size = k == 3 || k == 5 ? s.h : s.w;
      const double shifts = 2 * std::floor(size / 8.0 + 0.5) + 1, cuts = size + (int(size / 2.0 + 0.5) % 2 == 0);
      double x = random.uniforms(1)[0];
      while (near_jump(x, k < 5 ? shifts : cuts)) x = random.uniforms(1)[0];
      if (random.integer(0, 5) == 0) x = random.integer(0, 1) ? 0 : 1 - 0x1p-24;
      u.push_back(x);
    }
  return u;
}

size_t at(const AugmentShape& s, int64_t n, int i, int j, int c) { return size_t(((n * s.h + i) * s.w + j) * 3 + c); }

/// Where output pixel (i, j) of picture n comes from: the source pixel, or nothing.
bool source_of(const AugmentShape& s, const AugmentPolicy& p, const double* u, int i, int j, int* si, int* sj) {
  if (p.cutout) {
    const auto inside = [](double uniform, int size, int k) {
      const int c = int(size / 2.0 + 0.5), q = int(std::floor(uniform * (size + (c % 2 == 0))));
      return k >= q - c / 2 && k < q - c / 2 + c;
    };
    if (inside(u[5], s.h, i) && inside(u[6], s.w, j)) return false;
  }
  const auto shift = [](double uniform, int size) {
    const int most = int(size / 8.0 + 0.5);
    return int(std::floor(uniform * (2 * most + 1))) - most;
  };
  *si = i + (p.translation ? shift(u[3], s.h) : 0);
  *sj = j + (p.translation ? shift(u[4], s.w) : 0);
  return *si >= 0 && *si < s.h && *sj >= 0 && *sj < s.w;
}

Sums means_of(const AugmentShape& s, const Doubles& x) {
  const size_t per = size_t(s.h) * size_t(s.w) * 3;
  Sums m(static_cast<size_t>(s.n));
  for (size_t i = 0; i < x.size(); i++) m[i / per] += x[i] / double(per);
  return m;
}

/// `means`: what the kernel is given.
Sums forward(const AugmentShape& s, const AugmentPolicy& p, const Doubles& uniforms, const Doubles& means,
             const Doubles& x) {
  Sums y(x.size(), Sum(0, 0));
  for (int64_t n = 0; n < s.n; n++) {
    const double* u = &uniforms[size_t(n * kAugmentUniforms)];
    for (int i = 0; i < s.h; i++)
      for (int j = 0; j < s.w; j++) {
        int si, sj;
        if (!source_of(s, p, u, i, j, &si, &sj)) continue;
        double t[3], grey = 0;
        for (int c = 0; c < 3; c++) t[c] = x[at(s, n, si, sj, c)];
        if (p.color) {
          const double m = means[size_t(n)] + (u[0] - 0.5);
          for (double& v : t) grey += (v += u[0] - 0.5) / 3;
          for (double& v : t) v = (v - grey) * 2 * u[1] + grey;
          for (double& v : t) v = (v - m) * (u[2] + 0.5) + m;
        }
        for (int c = 0; c < 3; c++) y[at(s, n, i, j, c)] = {t[c], p.color ? std::fabs(t[c]) + 6 : 0};
      }
  }
  return y;
}

/// The adjoint of the forward, whose derivative does not depend on x: what each output pixel sends back.
Sums backward(const AugmentShape& s, const AugmentPolicy& p, const Doubles& uniforms, const Doubles& dy) {
  Sums dx(dy.size(), Sum(0, 0));
  const double count = double(s.h) * s.w * 3;
  for (int64_t n = 0; n < s.n; n++) {
    const double* u = &uniforms[size_t(n * kAugmentUniforms)];
    const double saturation = p.color ? 2 * u[1] : 1, contrast = p.color ? u[2] + 0.5 : 1;
    for (int i = 0; i < s.h; i++)
      for (int j = 0; j < s.w; j++) {
        int si, sj;
        if (!source_of(s, p, u, i, j, &si, &sj)) continue;
        for (int c = 0; c < 3; c++)
          for (int from = 0; from < 3; from++)
            dx[at(s, n, si, sj, from)] +=
                dy[at(s, n, i, j, c)] * contrast * ((c == from) * saturation + (1 - saturation) / 3);
      }
    if (!p.color) continue;
    Sum total;  // through the mean, which every pixel takes part in
    for (int i = 0; i < s.h; i++)
      for (int j = 0; j < s.w; j++) {
        int si, sj;
        if (source_of(s, p, u, i, j, &si, &sj))
          for (int c = 0; c < 3; c++) total += dy[at(s, n, i, j, c)] * (1 - contrast) / count;
      }
    for (int i = 0; i < s.h; i++)
      for (int j = 0; j < s.w; j++)
        for (int c = 0; c < 3; c++) dx[at(s, n, i, j, c)] += total;
  }
  for (Sum& d : dx)
    if (p.color) d.size += 3;
  return dx;
}

Doubles floats(const Sums& s) {
  Doubles v;
  for (const Sum& x : s) v.push_back(rounded(DType::f32, x.value));
  return v;
}

}  // namespace

TEST_CASE("kernel: means of pictures") {
  Random random(60);
  for (const DType t : kFloatTypes)
    for (const AugmentShape& s : kShapes) {
      CAPTURE(describe(t, s, {}));
      const Doubles x = random.normals(t, s.n * s.h * s.w * 3, 1, 0.2);
      const Sums means = means_of(s, x);
      for_each_executor([&](Run& run) {
        Buffer &bx = run.in(t, x), &bm = run.out(DType::f32, s.n), &scratch = run.scratch(32 * s.n);
        KILN_ON(run, picture_means(run.stream(), t, s, bx.data(), bm.f32(), scratch.f32()));
        run.expect("means", bm, means, 1e-5);  // a CPU thread adds thousands of numbers in a row
      });
    }
}

TEST_CASE("kernel: the augmentation reference's backward is the adjoint of its forward") {
  Random random(61);
  for (const AugmentPolicy& p : policies()) {
    const AugmentShape s{2, 9, 16};
    CAPTURE(describe(DType::f32, s, p));
    const Doubles u = draw_uniforms(random, s), x = random.normals(DType::f32, s.n * s.h * s.w * 3);
    const Doubles step = random.normals(DType::f32, int64_t(x.size())),
                  dy = random.normals(DType::f32, int64_t(x.size()));
    Doubles moved = x;
    for (size_t i = 0; i < x.size(); i++) moved[i] += step[i];
    const auto at_own_mean = [&](const Doubles& z) {
      Doubles means;
      for (const Sum& m : means_of(s, z)) means.push_back(m.value);
      return forward(s, p, u, means, z);
    };
    const Sums y0 = at_own_mean(x), y1 = at_own_mean(moved), dx = backward(s, p, u, dy);
    double outer = 0, inner = 0;
    for (size_t i = 0; i < x.size(); i++) {
      outer += dy[i] * (y1[i].value - y0[i].value);
      inner += dx[i].value * step[i];
    }
    CHECK(inner == doctest::Approx(outer).epsilon(1e-9));
  }
}

TEST_CASE("kernel: augmentation forward and backward") {
  Random random(62);
  for (const DType t : kFloatTypes)
    for (const AugmentShape& s : kShapes)
      for (const AugmentPolicy& p : policies()) {
        CAPTURE(describe(t, s, p));
        const int64_t n = s.n * s.h * s.w * 3;
        const Doubles u = draw_uniforms(random, s), x = random.normals(t, n), dy = random.normals(t, n);
        const Doubles means = floats(means_of(s, x));
        const Sums y = forward(s, p, u, means, x), dx = backward(s, p, u, dy);
        for_each_executor([&](Run& run) {
          Buffer &bu = run.in(DType::f32, u), &bm = run.in(DType::f32, means), &bx = run.in(t, x), &by = run.out(t, n);
          KILN_ON(run,
                  augment_forward(run.stream(), t, s, p, bu.f32(), p.color ? bm.f32() : nullptr, bx.data(), by.data()));
          run.expect("y", by, y, 3e-7);
          Buffer &bdy = run.in(t, dy), &bdx = run.out(t, n), &gsum = run.scratch(s.n + 32 * s.n);
          KILN_ON(run, augment_backward(run.stream(), t, s, p, bu.f32(), bdy.data(), bdx.data(), gsum.f32()));
          run.expect("dx", bdx, dx, 3e-7);
        });
      }
}

TEST_CASE("kernel: pictures are gathered, mirrored and augmented from bytes") {
  Random random(63);
  for (const DType t : kFloatTypes)
    for (const AugmentShape& s : kShapes) {
      const int set_size = 5;
      const size_t per = size_t(s.h) * size_t(s.w) * 3;
      std::vector<uint8_t> set(per * set_size);
      for (uint8_t& b : set) b = uint8_t(random.integer(0, 255));
      const auto scaled = [](uint8_t b) { return b * 2.0 / 255 - 1; };
      Doubles all;
      for (const uint8_t b : set) all.push_back(scaled(b));
      const Doubles byte_means = floats(means_of({set_size, s.h, s.w}, all));

      // Mirrored where flip_u < 0.5: 0.5 itself is not.
      std::vector<int32_t> index;
      Doubles flip = random.uniforms(s.n), plain, means;
      flip[0] = 0.5;
      if (s.n > 1) flip[1] = 0.5 - 0x1p-24;
      for (int64_t n = 0; n < s.n; n++) {
        index.push_back(n == 0 ? set_size - 1 : random.integer(0, set_size - 1));
        means.push_back(byte_means[size_t(index.back())]);
        for (int i = 0; i < s.h; i++)
          for (int j = 0; j < s.w; j++)
            for (int c = 0; c < 3; c++)
              plain.push_back(all[at(s, index.back(), i, flip[size_t(n)] < 0.5 ? s.w - 1 - j : j, c)]);
      }
      Sums want;
      for (const double v : plain) want.push_back({v, 1});
      const AugmentPolicy none{false, false, false};
      CAPTURE(describe(t, s, none));
      for_each_executor([&](Run& run) {
        Buffer &bytes = run.in(set), &which = run.in(index), &bf = run.in(DType::f32, flip);
        Buffer& y = run.out(t, s.n * int64_t(per));
        KILN_ON(run, gather_pictures(run.stream(), t, s, bytes.as<uint8_t>(), which.as<int32_t>(), bf.f32(), 0.5f,
                                     y.data()));
        run.expect("plain", y, want, 2e-7);
      });
      // The same pictures as clips of `frames`: a clip's frames follow the flip of the clip.
      for (const int frames : {2, 3}) {
        if (s.n % frames != 0) continue;
        Sums clips;
        for (int64_t n = 0; n < s.n; n++)
          for (int i = 0; i < s.h; i++)
            for (int j = 0; j < s.w; j++)
              for (int c = 0; c < 3; c++) clips.push_back({all[at(s, index[size_t(n)], i, flip[size_t(n / frames)] < 0.5 ? s.w - 1 - j : j, c)], 1});
        const Doubles of_clips(flip.begin(), flip.begin() + s.n / frames);
        for_each_executor([&](Run& run) {
          Buffer &bytes = run.in(set), &which = run.in(index), &bf = run.in(DType::f32, of_clips);
          Buffer& y = run.out(t, s.n * int64_t(per));
          KILN_ON(run, gather_clips(run.stream(), t, s, frames, bytes.as<uint8_t>(), which.as<int32_t>(), bf.f32(), 0.5f, y.data()));
          run.expect("clips", y, clips, 2e-7);
        });
      }
      for (const AugmentPolicy& p : policies()) {
        CAPTURE(describe(t, s, p));
        const Doubles u = draw_uniforms(random, s);
        Sums augmented = forward(s, p, u, means, plain);
        for (Sum& v : augmented) v.size += 1;
        for_each_executor([&](Run& run) {
          Buffer &bytes = run.in(set), &which = run.in(index), &bf = run.in(DType::f32, flip),
                 &bu = run.in(DType::f32, u);
          Buffer &bm = run.in(DType::f32, byte_means), &y = run.out(t, s.n * int64_t(per));
          KILN_ON(run, gather_augmented(run.stream(), t, s, p, bytes.as<uint8_t>(), bm.f32(), which.as<int32_t>(),
                                        bf.f32(), 0.5f, bu.f32(), y.data()));
          run.expect("y", y, augmented, 3e-7);
        });
      }
    }
}
