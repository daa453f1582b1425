// ./nsbgan_upscale as a user meets it.
#include "models/nsbgan_decoder_run.h"
#include "engine/picture.h"
#include "tests/program.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::test;
namespace fs = std::filesystem;

namespace {

/// A decoder of a few steps; returns its run directory.
std::string small_decoder(const TempFolder& t, const std::string& name, nsbgan::DecoderKind kind, nsbgan::Domain domain) {
  namespace decoding = nsbgan::decoding;
  decoding::RunOptions o = decoding::preset("small", kind, domain);
  o.network.band.picture_size = 32;
  o.network.band.levels = 1;
  o.network.width = 4, o.network.blocks = 1;
  o.batch = 4, o.steps = 2, o.grid = 2, o.metric_every = 0;
  const std::string data = t / "faces";
  o.data = fs::exists(data) ? data : draw_faces(t, 8, 40);
  o.out = t / name;
  o.cache = o.console = false;
  o.threads = 1;
  decoding::train(o);
  return o.out.string();
}

void refuses(const std::vector<std::string>& arguments, const std::vector<std::string>& words) {
  const Finished f = run_program("nsbgan_upscale", arguments);
  CAPTURE(f.err);
  CHECK(f.code == 2);
  CHECK(std::count(f.err.begin(), f.err.end(), '\n') == 1);
  for (const std::string& w : words) CHECK_MESSAGE(contains(f.err, w), w);
}

void write_plain(const std::string& path, int w, int h) { write_png(path, {w, h, std::vector<uint8_t>(size_t(w) * size_t(h) * 3, 90)}); }

}  // namespace

TEST_CASE("nsbgan_upscale: pictures and folders of any size become larger") {
  const TempFolder t;
  const std::string run = small_decoder(t, "run", nsbgan::DecoderKind::srresnet, nsbgan::Domain::pixels);
  write_plain(t / "a.png", 21, 13);
  fs::create_directories(t / "more");
  write_plain(t / "more/b.png", 300, 9);
  write_plain(t / "more/c.png", 5, 5);
  Finished f = run_program("nsbgan_upscale", {run, t / "a.png", "--out", t / "large.png"});
  CAPTURE(f.err);
  REQUIRE(f.code == 0);
  CHECK(contains(f.out, "21 x 13 -> 42 x 26"));
  const Picture large = read_picture(t / "large.png");
  CHECK(large.width == 42);
  CHECK(large.height == 26);
  f = run_program("nsbgan_upscale", {run, t / "a.png", t / "more", "--out", t / "all", "--tile", "64"});
  REQUIRE(f.code == 0);
  CHECK(read_picture(t / "all/b.png").width == 600);
  CHECK(read_picture(t / "all/c.png").height == 10);
  CHECK(read_picture(t / "all/a.png").rgb == large.rgb);
  // U-Nets take sides of a multiple inside, and give what was asked for.
  const std::string unet = small_decoder(t, "unet", nsbgan::DecoderKind::unet, nsbgan::Domain::wavelet);
  REQUIRE(run_program("nsbgan_upscale", {unet, t / "a.png", "--out", t / "unet.png"}).code == 0);
  CHECK(read_picture(t / "unet.png").height == 26);
}

TEST_CASE("nsbgan_upscale: --check tells how near it comes beside interpolation") {
  const TempFolder t;
  const std::string run = small_decoder(t, "run", nsbgan::DecoderKind::srresnet, nsbgan::Domain::wavelet);
  const Finished f = run_program("nsbgan_upscale", {run, t / "faces", "--check", "--out", t / "out"});
  CAPTURE(f.err);
  REQUIRE(f.code == 0);
  for (const char* word : {"decoder ", "bicubic ", "bilinear", "means of 8 pictures", "SSIM"}) CHECK_MESSAGE(contains(f.out, word), word);
}

TEST_CASE("nsbgan_upscale: mistakes end with code 2 and one line that names them") {
  const TempFolder t;
  const std::string run = small_decoder(t, "run", nsbgan::DecoderKind::srresnet, nsbgan::Domain::wavelet);
  write_plain(t / "a.png", 20, 20);
  write_plain(t / "tiny.png", 3, 20);
  write_plain(t / "huge.png", 5200, 5200);
  fs::create_directories(t / "empty");
  refuses({t / "nothing", t / "a.png"}, {"nothing"});
  refuses({run, t / "b.png"}, {"b.png"});
  refuses({run, t / "empty"}, {"empty", "no pictures"});
  refuses({run, t / "tiny.png"}, {"tiny.png", "3 x 20", "4 x 4"});
  refuses({run, t / "huge.png"}, {"huge.png", "10400 x 10400", "pieces"});
  refuses({run, t / "a.png", "--out", t / "a.gif"}, {"a.gif"});
  refuses({t / "a.png", t / "a.png"}, {"a.png"});
  refuses({run}, {"PICTURE"});
}
