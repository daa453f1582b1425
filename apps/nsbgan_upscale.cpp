// nsbgan_upscale DECODER PICTURE...: larger pictures of small ones, by a decoder of NSB-GAN.
#include <algorithm>
#include <set>

#include "apps/program.h"
#include "engine/ops_feature.h"
#include "engine/picture_tensor.h"
#include "engine/progress.h"
#include "models/nsbgan_decoder.h"

using namespace kiln;
using namespace kiln::nsbgan;
namespace fs = std::filesystem;

namespace {

struct Flags {
  std::string decoder, out = "upscaled", device = "cpu";
  std::vector<std::string> pictures;
  bool check = false;
  int tile = 128, threads = 0;
  double memory_gb = 0;

  void add(CLI::App& app) {
    app.add_option("DECODER", decoder, "a checkpoint of nsbgan_train's decoder, or its run directory (the newest one there)")->required();
    app.add_option("PICTURE", pictures, "pictures, or folders of them")->required()->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    app.add_option("--out", out, "folder of the enlarged pictures; of a single picture a file: .png, .jpg, .webp")->capture_default_str();
    app.add_flag("--check", check, "make each picture smaller first and compare what comes back: PSNR and SSIM beside bilinear and bicubic interpolation of the same");
    app.add_option("--tile", tile, "pixels of a small picture's tile: less memory, the same result (srresnet)")->check(CLI::Range(16, 4096))->capture_default_str();
    const auto machine = [&](CLI::Option* o) { o->group("Machine"); };
    machine(app.add_option("--device", device, "cpu or gpu")->check(CLI::IsMember({"cpu", "gpu"}))->capture_default_str());
    machine(app.add_option("--threads", threads, "CPU threads (0: all cores)")->check(CLI::Range(0, 4096))->capture_default_str());
    machine(app.add_option("--memory", memory_gb, "limit for tensors in GiB (0: none)")->check(CLI::Range(0.0, 1e5))->capture_default_str());
  }
};

/// Files as they are, and the pictures below folders in order of their names.
std::vector<fs::path> files_of(const std::vector<std::string>& arguments) {
  std::vector<fs::path> out;
  for (const std::string& a : arguments) {
    if (!fs::is_directory(a)) {
      out.emplace_back(a);
      continue;
    }
    std::vector<fs::path> found;
    for (const auto& e : fs::recursive_directory_iterator(a)) {
      std::string end = e.path().extension().string();
      std::transform(end.begin(), end.end(), end.begin(), [](unsigned char c) { return char(std::tolower(c)); });
      for (const char* known : {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tga"})
        if (end == known && e.is_regular_file()) found.push_back(e.path());
    }
    if (found.empty()) fail("{}: no pictures in this folder", a);
    std::sort(found.begin(), found.end());
    out.insert(out.end(), found.begin(), found.end());
  }
  return out;
}

/// The picture's middle with sides that the decoder's levels and sizes divide.
Picture cut(const Picture& p, int multiple, const fs::path& name) {
  const int w = p.width / multiple * multiple, h = p.height / multiple * multiple;
  const int least = (kSsimWindow + multiple - 1) / multiple * multiple;
  if (w < least || h < least) fail("{}: {} x {} pixels; --check needs at least {} on either side with this decoder", name.string(), p.width, p.height, least);
  Picture out{w, h, {}};
  const int top = (p.height - h) / 2, left = (p.width - w) / 2;
  for (int i = 0; i < h; i++) {
    const auto from = p.rgb.begin() + (ptrdiff_t(top + i) * p.width + left) * 3;
    out.rgb.insert(out.rgb.end(), from, from + ptrdiff_t(w) * 3);
  }
  return out;
}

struct Score {
  double psnr = 0, ssim = 0;
};

void run(const Flags& f) {
  if (f.threads > 0) omp_set_num_threads(f.threads);
  Context context(f.device == "gpu" ? Device::gpu : Device::cpu, false, size_t(f.memory_gb * double(1ull << 30)));
  const UseContext use(context);
  Decoder decoder(f.decoder);
  const std::vector<fs::path> files = files_of(f.pictures);
  const fs::path out = f.out;
  const bool one_file = files.size() == 1 && out.has_extension() && !fs::is_directory(out);
  if (!one_file && files.size() > 1 && out.has_extension() && !fs::is_directory(out))
    fail("--out {}: names one picture, and {} were given; name a folder", out.string(), files.size());
  if (one_file) picture_format(out);  // refuses before the work
  fmt::print("{} decoder of step {}, {} domain: {} times as large\n", name_of(decoder.config().kind), decoder.step(), name_of(decoder.band().domain), decoder.factor());
  const PngText text{{"Software", "kiln nsbgan_upscale"}, {"decoder", decoder.path().filename().string()}, {"step", std::to_string(decoder.step())}};
  const char* const ways[] = {"decoder", "bicubic", "bilinear"};
  Score sums[3];
  std::set<fs::path> written;
  ProgressLine line(true);
  for (const fs::path& file : files) {
    const Picture given = read_picture(file);
    Picture large;
    if (f.check) {
      const Picture want = cut(given, decoder.factor() * band_multiple(decoder.config()), file);
      const Tensor small = low_part(to_tensor({&want, 1}), decoder.band());
      const Picture got[] = {to_pictures(decoder.decode(small))[0], to_pictures(plain_upscaling(small, decoder.band(), Interpolation::bicubic))[0],
                             to_pictures(plain_upscaling(small, decoder.band(), Interpolation::bilinear))[0]};
      std::string told;
      for (size_t k = 0; k < 3; k++) {
        const Score s{psnr(got[k], want), ssim(got[k], want)};
        sums[k].psnr += s.psnr;
        sums[k].ssim += s.ssim;
        told += fmt::format("  {} {:.2f} dB {:.4f}", ways[k], s.psnr, s.ssim);
      }
      line.print(fmt::format("{}{}", file.filename().string(), told));
      large = got[0];
    } else {
      try {
        large = decoder.upscale(given, f.tile, [&](int done, int of) {
          if (of > 1) line.show(fmt::format("{}: tile {} of {}", file.filename().string(), done, of));
        });
      } catch (const Error& e) {
        fail("{}: {}", file.string(), e.what());
      }
    }
    fs::path to = out;
    if (!one_file) {
      fs::create_directories(out);
      to = out / (file.stem().string() + ".png");
      for (int k = 2; !written.insert(to).second; k++) to = out / fmt::format("{}_{}.png", file.stem().string(), k);  // two folders, one name
    }
    for (const fs::path& given_file : files) {
      std::error_code none;
      if (fs::equivalent(to, given_file, none)) fail("--out {}: {} would be overwritten; name another folder", out.string(), given_file.string());
    }
    write_picture(to, large, text);
    if (!f.check) line.print(fmt::format("{}: {} x {} -> {} x {}, {}", file.filename().string(), given.width, given.height, large.width, large.height, to.string()));
  }
  if (f.check)
    for (size_t k = 0; k < 3; k++)
      fmt::print("{:8}  {:.2f} dB  SSIM {:.4f}  means of {} pictures\n", ways[k], sums[k].psnr / double(files.size()), sums[k].ssim / double(files.size()), files.size());
}

}  // namespace

int main(int argc, char** argv) {
  Flags f;
  return run_program(argc, argv, "nsbgan_upscale", "Makes larger pictures of small ones with a decoder of NSB-GAN (Han et al. 2020).", [&](CLI::App& app) { f.add(app); }, [&] { run(f); });
}
