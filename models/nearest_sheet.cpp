#include "models/nearest_sheet.h"

#include <algorithm>
#include <numeric>

#include "engine/error.h"

namespace kiln {
namespace {

constexpr int kSide = 32;
constexpr int kSheetSide = 192;  // of a picture on the sheet, at most
constexpr double kNear = 0.5;  // of the real pictures' own distance: below it a picture counts as a near copy

Picture picture_at(MetricPictures& s, int64_t i) {
  Picture p{s.size(), s.size(), std::vector<uint8_t>(s.picture_bytes())};
  s.read(i, 1, p.rgb.data());
  return p;
}

/// Pictures 0 .. n - 1 at kSide; `mirrored`: and their mirror images after them.
FeatureSet pixels_of(MetricPictures& s, int64_t n, bool mirrored) {
  FeatureSet out{mirrored ? 2 * n : n, kSide * kSide * 3, {}};
  out.values.resize(size_t(out.count * out.dimensions));
  for (int64_t i = 0; i < n; i++) {
    const Picture p = fit_picture(picture_at(s, i), kSide, Fit::squash);
    float* plain = out.values.data() + i * out.dimensions;
    std::copy(p.rgb.begin(), p.rgb.end(), plain);
    if (!mirrored) continue;
    float* other = out.values.data() + (n + i) * out.dimensions;
    for (int y = 0; y < kSide; y++)
      for (int x = 0; x < kSide; x++) std::copy_n(plain + (y * kSide + kSide - 1 - x) * 3, 3, other + (y * kSide + x) * 3);
  }
  return out;
}

double median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + ptrdiff_t(v.size() / 2), v.end());
  return v[v.size() / 2];
}

/// One way of looking at pictures.
struct Look {
  Neighbours fakes;          // real pictures next to each fake; index modulo the number of real pictures
  std::vector<double> ratio;  // of each fake's smallest distance to that among real pictures
  double value = 0;          // median of it
  int64_t near = 0;          // fakes below kNear
};

/// `real` may hold mirror images behind the n pictures.
Look look(const FeatureSet& real, int64_t n, const FeatureSet& fake, int columns) {
  Look l;
  // With mirror images a picture may appear twice; one that is its own mirror image comes next to itself.
  const int copies = int(real.count / n);
  const Neighbours among = nearest_neighbours(real.part(0, n), real, std::min(int(real.count), copies + 1));
  std::vector<double> own;
  for (int64_t i = 0; i < n; i++)
    for (int k = 0; k < among.k; k++)
      if (among.index[size_t(i * among.k + k)] % n != i) {
        own.push_back(among.distance[size_t(i * among.k + k)]);
        break;
      }
  const double typical = std::max(median(own), 1e-12);
  l.fakes = nearest_neighbours(fake, real, std::min(int(real.count), columns * copies));
  for (int64_t i = 0; i < fake.count; i++) l.ratio.push_back(l.fakes.distance[size_t(i * l.fakes.k)] / typical);
  l.value = median(l.ratio);
  l.near = std::count_if(l.ratio.begin(), l.ratio.end(), [](double r) { return r < kNear; });
  return l;
}

/// The different real pictures next to a fake, nearest first.
std::vector<int64_t> nearest_real(const Look& l, int64_t fake, int64_t n, int columns) {
  std::vector<int64_t> out;
  for (int k = 0; k < l.fakes.k && int(out.size()) < columns; k++) {
    const int64_t i = l.fakes.index[size_t(fake * l.fakes.k + k)] % n;
    if (std::find(out.begin(), out.end(), i) == out.end()) out.push_back(i);
  }
  return out;
}

}  // namespace

NearestSheet nearest_sheet(MetricPictures& real, MetricPictures& fake, const NearestOptions& o, const FeatureNetwork* network, const FeatureSet* real_features,
                           const FeatureSet* fake_features) {
  const int64_t n = real.count(), fakes = fake.count() < 0 ? o.fakes : std::min(o.fakes, fake.count());
  if (n < 5 || n <= o.columns) fail("{}: a sheet of nearest pictures wants {} at least", real.description(), std::max(5, o.columns + 1));
  std::vector<Look> looks;
  looks.push_back(look(pixels_of(real, n, true), n, pixels_of(fake, fakes, false), o.columns));
  if (network) looks.push_back(look(*real_features, n, fake_features->part(0, fakes), o.columns));
  const Look& main = looks.back();

  // Half of the rows for the nearest of all, half for the first of the rest.
  std::vector<int64_t> order(static_cast<size_t>(fakes));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return main.ratio[size_t(a)] < main.ratio[size_t(b)]; });
  const size_t rows = std::min(size_t(o.rows), order.size()), worst = (rows + 1) / 2;
  std::sort(order.begin() + ptrdiff_t(worst), order.end());
  std::vector<Picture> all;
  const auto shown = [](MetricPictures& s, int64_t i) { return shrink_picture(picture_at(s, i), kSheetSide); };
  const int side = std::min(real.size(), kSheetSide);
  const Picture empty{side, side, std::vector<uint8_t>(size_t(side) * size_t(side) * 3, 255)};
  for (size_t row = 0; row < rows; row++) {
    all.push_back(shown(fake, order[row]));
    for (const Look& l : looks) {
      std::vector<int64_t> near = nearest_real(l, order[row], n, o.columns);
      for (int c = 0; c < o.columns; c++) all.push_back(size_t(c) < near.size() ? shown(real, near[size_t(c)]) : empty);
    }
  }
  NearestSheet out;
  out.sheet = make_grid(all, 1 + o.columns * int(looks.size()), 2);
  Metric& m = out.metric;
  const std::string by = network ? network->name() : "";
  m.key = "nearest" + (network ? "_" + network->key() : std::string("_pixels"));
  m.name = fmt::format("distance to the nearest real picture, by {}", network ? by.substr(0, by.find(',')) : "pixels");
  m.value = main.value;
  m.more = {{m.key + "_copies", double(main.near)}};
  m.reading = fmt::format("1: as far from the real pictures as those are from each other; near 0: copies of them. {} of {} are less than half as far", main.near, fakes);
  m.protocol = fmt::format("{}; median over the first {} generated pictures, over that of {} real ones", network ? fmt::format("{}; {}", by, network->resize()) : fmt::format("pixels at {0} x {0}, real pictures also mirrored", kSide),
                           fakes, n);
  return out;
}

}  // namespace kiln
