// Videos are read back with FFmpeg's libraries: number of pictures, size, rate, colours.
#include "engine/video.h"

#include <sys/resource.h>

#include <csignal>

#include "tests/program.h"
#include "tests/support.h"

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>
}

using namespace kiln;
using namespace kiln::test;
namespace fs = std::filesystem;

namespace {

struct Decoded {
  std::vector<Picture> pictures;
  double fps = 0, seconds = 0;
  std::string codec, format, comment;
};

Decoded decode(const std::string& path) {
  Decoded out;
  AVFormatContext* in = nullptr;
  REQUIRE(avformat_open_input(&in, path.c_str(), nullptr, nullptr) == 0);
  REQUIRE(avformat_find_stream_info(in, nullptr) >= 0);
  REQUIRE(in->nb_streams == 1);
  const AVStream* s = in->streams[0];
  const AVCodec* codec = avcodec_find_decoder(s->codecpar->codec_id);
  AVCodecContext* c = avcodec_alloc_context3(codec);
  avcodec_parameters_to_context(c, s->codecpar);
  REQUIRE(avcodec_open2(c, codec, nullptr) == 0);
  out.codec = avcodec_get_name(codec->id);
  out.fps = av_q2d(s->avg_frame_rate);
  out.seconds = double(in->duration) / AV_TIME_BASE;
  if (const auto* e = av_dict_get(in->metadata, "comment", nullptr, 0)) out.comment = e->value;
  AVPacket* p = av_packet_alloc();
  AVFrame* f = av_frame_alloc();
  const auto take = [&] {
    while (avcodec_receive_frame(c, f) == 0) {
      out.format = av_get_pix_fmt_name(AVPixelFormat(f->format));
      SwsContext* sws = sws_getContext(f->width, f->height, AVPixelFormat(f->format), f->width, f->height, AV_PIX_FMT_RGB24, SWS_BICUBIC | SWS_ACCURATE_RND, nullptr, nullptr, nullptr);
      if (f->colorspace == AVCOL_SPC_BT709) sws_setColorspaceDetails(sws, sws_getCoefficients(SWS_CS_ITU709), 0, sws_getCoefficients(SWS_CS_ITU709), 1, 0, 1 << 16, 1 << 16);
      Picture picture{f->width, f->height, std::vector<uint8_t>(size_t(f->width) * size_t(f->height) * 3)};
      uint8_t* data[] = {picture.rgb.data()};
      const int stride[] = {f->width * 3};
      sws_scale(sws, f->data, f->linesize, 0, f->height, data, stride);
      sws_freeContext(sws);
      out.pictures.push_back(std::move(picture));
    }
  };
  while (av_read_frame(in, p) == 0) {
    avcodec_send_packet(c, p);
    take();
    av_packet_unref(p);
  }
  avcodec_send_packet(c, nullptr);
  take();
  av_frame_free(&f);
  av_packet_free(&p);
  avcodec_free_context(&c);
  avformat_close_input(&in);
  return out;
}

/// A disc that moves over a coloured ground.
Picture drawn(int w, int h, int k) {
  Picture p{w, h, {}};
  for (int y = 0; y < h; y++)
    for (int x = 0; x < w; x++) {
      const double dx = x - (10.0 + 3 * k), dy = y - h / 2.0;
      const bool in = dx * dx + dy * dy < h * h / 16.0;
      p.rgb.push_back(in ? 220 : 40);
      p.rgb.push_back(in ? 60 : uint8_t(100 + 2 * k));
      p.rgb.push_back(in ? 30 : 160);
    }
  return p;
}

double mean_difference(const Picture& a, const Picture& b) {
  double sum = 0;
  int n = 0;
  for (int y = 0; y < std::min(a.height, b.height); y++)
    for (int i = 0; i < 3 * std::min(a.width, b.width); i++, n++)
      sum += std::abs(int(a.rgb[size_t(y * a.width * 3 + i)]) - int(b.rgb[size_t(y * b.width * 3 + i)]));
  return sum / n;
}

void write(const std::string& path, int w, int h, int count, const VideoOptions& o = {}) {
  VideoWriter v(path, w, h, o);
  for (int k = 0; k < count; k++) v.add(drawn(w, h, k));
  CHECK(!fs::is_regular_file(path));  // not before it is whole
  v.finish();
}

}  // namespace

TEST_CASE("video: MP4 and GIF hold the pictures, in order, at their rate") {
  const TempFolder t;
  for (const auto& [name, w, h] : {std::tuple{"a.mp4", 64, 48}, {"odd.mp4", 65, 47}, {"a.gif", 64, 48}, {"odd.gif", 65, 47}}) {
    CAPTURE(std::string(name));
    const bool mp4 = std::string(name).ends_with("mp4");
    VideoOptions o;
    o.fps = 25;
    o.quality = 8;  // near enough to tell BT.709 from BT.601
    o.comment = "made by a test";
    write(t / name, w, h, 12, o);
    const Decoded d = decode(t / name);
    REQUIRE(d.pictures.size() == 12);
    CHECK(d.fps == doctest::Approx(25));
    CHECK(d.seconds == doctest::Approx(12 / 25.0).epsilon(0.05));
    CHECK(d.pictures[0].width == (mp4 ? w + w % 2 : w));
    CHECK(d.pictures[0].height == (mp4 ? h + h % 2 : h));
    for (int k = 0; k < 12; k++) {
      const double same = mean_difference(d.pictures[size_t(k)], drawn(w, h, k));
      CHECK(same < (mp4 ? 6 : 0.01));  // a GIF has room for all these colours; an MP4 halves them at edges
      for (int c = 0; c < 3; c++) {  // and where nothing moves, no shade is off
        const Picture want = drawn(w, h, k), &got = d.pictures[size_t(k)];
        CHECK(std::abs(int(got.rgb[size_t((w - 2) * 3 + c)]) - int(want.rgb[size_t((w - 2) * 3 + c)])) <= 3);
      }
      CHECK(same < mean_difference(d.pictures[size_t(k)], drawn(w, h, k == 0 ? 2 : k - 1)));
    }
    if (!mp4) continue;
    CHECK(d.format == "yuv420p");
    CHECK((d.codec == "h264" || d.codec == "mpeg4"));
    CHECK(d.comment == "made by a test");
    const Picture& p = d.pictures[3];
    if (w % 2)  // the doubled column is like its neighbour, not black
      for (int c = 0; c < 3; c++) CHECK(std::abs(int(p.rgb[size_t(w * 3 + c)]) - int(p.rgb[size_t((w - 1) * 3 + c)])) < 30);
  }
}

TEST_CASE("video: quality changes an MP4's size; equal pictures give equal files") {
  const TempFolder t;
  VideoOptions fine, coarse;
  fine.quality = 5;
  coarse.quality = 45;
  write(t / "fine.mp4", 64, 64, 10, fine);
  write(t / "again.mp4", 64, 64, 10, fine);
  write(t / "coarse.mp4", 64, 64, 10, coarse);
  CHECK(fs::file_size(t / "fine.mp4") > 2 * fs::file_size(t / "coarse.mp4"));
  CHECK(file_text(t / "fine.mp4") == file_text(t / "again.mp4"));
  write(t / "a.gif", 40, 40, 3);
  write(t / "b.gif", 40, 40, 3);
  CHECK(file_text(t / "a.gif") == file_text(t / "b.gif"));
}

TEST_CASE("video: mistakes are kiln::Errors, and an unfinished video leaves nothing") {
  const TempFolder t;
  CHECK(contains(error_of([&] { VideoWriter(t / "no/folder/a.mp4", 10, 10); }), "no/folder"));
  VideoOptions o;
  o.fps = 60;
  CHECK(contains(error_of([&] { VideoWriter(t / "a.gif", 10, 10, o); }), "50"));
  o.fps = 0;
  CHECK(contains(error_of([&] { VideoWriter(t / "a.mp4", 10, 10, o); }), "pictures a second"));
  o.fps = 30;
  o.quality = 99;
  CHECK(contains(error_of([&] { VideoWriter(t / "a.mp4", 10, 10, o); }), "quality 99"));
  {
    VideoWriter v(t / "left.mp4", 32, 32);
    v.add(drawn(32, 32, 0));
  }
  CHECK(fs::is_empty(t.path()));
}

TEST_CASE("video: a full disk is told with the path, and the last good file stays") {
  const TempFolder t;
  write(t / "a.mp4", 32, 32, 2);
  const std::string before = file_text(t / "a.mp4");
  rlimit old{};
  getrlimit(RLIMIT_FSIZE, &old);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit tight{200, old.rlim_max};
  setrlimit(RLIMIT_FSIZE, &tight);
  const std::string error = error_of([&] {
    VideoWriter v(t / "a.mp4", 64, 64);
    for (int k = 0; k < 60; k++) v.add(drawn(64, 64, k));
    v.finish();
  });
  setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  CHECK(contains(error, "a.mp4"));
  CHECK(contains(error, "cannot write"));
  CHECK(file_text(t / "a.mp4") == before);
}
