// Videos in: every container and a few codecs, written here by FFmpeg's encoders or by kiln; then all that can be wrong with a file.
#include "engine/video_read.h"

#include <cmath>

#include "engine/file.h"
#include "engine/video.h"
#include "tests/picture_fixtures.h"
#include "tests/support.h"

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/display.h>
#include <libavutil/opt.h>
#include <libswscale/swscale.h>
}

using namespace kiln;
using kiln::test::contains;
using kiln::test::error_of;
using FileBytes = fixtures::Bytes;
namespace fs = std::filesystem;

namespace {

/// A ground that changes from picture to picture, smooth enough for any codec, and a mark in the upper left corner.
Picture drawn(int w, int h, int k) {
  Picture p{w, h, {}};
  for (int y = 0; y < h; y++)
    for (int x = 0; x < w; x++) {
      const bool mark = x < w / 4 && y < h / 4;
      p.rgb.push_back(mark ? 230 : uint8_t(40 + 12 * k));
      p.rgb.push_back(uint8_t(60 + 100 * y / h));
      p.rgb.push_back(mark ? 30 : uint8_t(80 + 80 * x / w));
    }
  return p;
}

struct Encoding {
  const char* muxer;
  const char* codec;
  AVPixelFormat format = AV_PIX_FMT_YUV420P;
  std::vector<int64_t> times = {};  // of the pictures, in 1/fps; empty: 0, 1, 2, ...
  int fps = 25;
  int turned = 0;  // degrees of the display matrix, clockwise
  AVRational pixel{1, 1};
};

/// Writes pictures with FFmpeg's libraries. False where this FFmpeg has no such encoder.
bool encode(const fs::path& path, const std::vector<Picture>& pictures, const Encoding& e) {
  const AVCodec* codec = avcodec_find_encoder_by_name(e.codec);
  if (!codec) return false;
  const int w = pictures[0].width, h = pictures[0].height;
  av_log_set_level(AV_LOG_QUIET);
  AVCodecContext* c = avcodec_alloc_context3(codec);
  c->width = w;
  c->height = h;
  c->pix_fmt = e.format;
  c->time_base = {1, e.fps};
  c->framerate = {e.fps, 1};
  c->thread_count = 1;
  c->gop_size = 4;
  c->sample_aspect_ratio = e.pixel;
  c->flags |= AV_CODEC_FLAG_QSCALE;
  c->global_quality = FF_QP2LAMBDA * 2;
  c->bit_rate = 2000000;
  av_opt_set(c->priv_data, "crf", "8", 0);
  AVFormatContext* m = nullptr;
  REQUIRE(avformat_alloc_output_context2(&m, nullptr, e.muxer, nullptr) >= 0);
  if (m->oformat->flags & AVFMT_GLOBALHEADER) c->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
  REQUIRE(avcodec_open2(c, codec, nullptr) >= 0);
  AVStream* s = avformat_new_stream(m, nullptr);
  avcodec_parameters_from_context(s->codecpar, c);
  s->time_base = c->time_base;
  s->avg_frame_rate = c->framerate;
  s->sample_aspect_ratio = e.pixel;
  if (e.turned) {
#if LIBAVFORMAT_VERSION_MAJOR >= 61
    AVPacketSideData* d = av_packet_side_data_new(&s->codecpar->coded_side_data, &s->codecpar->nb_coded_side_data, AV_PKT_DATA_DISPLAYMATRIX, 36, 0);
    av_display_rotation_set(reinterpret_cast<int32_t*>(d->data), e.turned);
#else
    av_display_rotation_set(reinterpret_cast<int32_t*>(av_stream_new_side_data(s, AV_PKT_DATA_DISPLAYMATRIX, 36)), e.turned);
#endif
  }
  REQUIRE(avio_open(&m->pb, path.c_str(), AVIO_FLAG_WRITE) >= 0);
  REQUIRE(avformat_write_header(m, nullptr) >= 0);
  AVPacket* packet = av_packet_alloc();
  const auto drain = [&] {
    while (avcodec_receive_packet(c, packet) == 0) {
      packet->stream_index = s->index;
      av_packet_rescale_ts(packet, c->time_base, s->time_base);
      REQUIRE(av_interleaved_write_frame(m, packet) >= 0);
    }
  };
  for (size_t k = 0; k < pictures.size(); k++) {
    AVFrame* f = av_frame_alloc();
    f->format = e.format;
    f->width = w;
    f->height = h;
    f->pts = e.times.empty() ? int64_t(k) : e.times[k];
    f->quality = c->global_quality;
    REQUIRE(av_frame_get_buffer(f, 0) >= 0);
    SwsContext* sws = sws_getContext(w, h, AV_PIX_FMT_RGB24, w, h, e.format, SWS_BICUBIC | SWS_ACCURATE_RND, nullptr, nullptr, nullptr);
    const uint8_t* data[] = {pictures[k].rgb.data()};
    const int stride[] = {w * 3};
    sws_scale(sws, data, stride, 0, h, f->data, f->linesize);
    sws_freeContext(sws);
    REQUIRE(avcodec_send_frame(c, f) >= 0);
    av_frame_free(&f);
    drain();
  }
  avcodec_send_frame(c, nullptr);
  drain();
  REQUIRE(av_write_trailer(m) >= 0);
  av_packet_free(&packet);
  avcodec_free_context(&c);
  avio_closep(&m->pb);
  avformat_free_context(m);
  return true;
}

std::vector<Picture> film(int n, int w = 48, int h = 32) {
  std::vector<Picture> out;
  for (int k = 0; k < n; k++) out.push_back(drawn(w, h, k));
  return out;
}

void write(const fs::path& path, const std::vector<Picture>& pictures) {
  VideoOptions options;
  options.fps = 10;
  options.quality = 4;
  VideoWriter v(path, pictures[0].width, pictures[0].height, options);
  for (const Picture& p : pictures) v.add(p);
  v.finish();
}

std::vector<Picture> read(const fs::path& path, VideoInfo* info = nullptr, Rgb background = {}) {
  std::vector<Picture> out;
  const VideoInfo i = read_video(path, [&](Picture&& p) { out.push_back(std::move(p)); }, background);
  CHECK(i.frames == int64_t(out.size()));
  CHECK(i.width == out[0].width);
  CHECK(i.height == out[0].height);
  if (info) *info = i;
  return out;
}

/// Mean absolute difference, of 255.
double mean_difference(const Picture& a, const Picture& b) {
  REQUIRE(a.width == b.width);
  REQUIRE(a.height == b.height);
  double sum = 0;
  for (size_t i = 0; i < a.rgb.size(); i++) sum += std::abs(int(a.rgb[i]) - int(b.rgb[i]));
  return sum / double(a.rgb.size());
}

std::string why(const fs::path& path) {
  return error_of([&] { read_video(path, [](Picture&&) {}); });
}

const Encoding kEncodings[] = {
    {"mp4", "libx264"}, {"mp4", "mpeg4"},   {"mov", "mjpeg", AV_PIX_FMT_YUVJ420P},    {"matroska", "libx264"}, {"matroska", "ffv1"},
    {"webm", "libvpx"}, {"avi", "mpeg4"},   {"webm", "libvpx-vp9"},                   {"avi", "mjpeg", AV_PIX_FMT_YUVJ420P},
};

}  // namespace

TEST_CASE("video in: all containers give every frame, in order, with its colours and the rate") {
  const fixtures::TempFolder t;
  const std::vector<Picture> pictures = film(11);
  int tried = 0;
  for (const Encoding& e : kEncodings) {
    CAPTURE(std::string(e.muxer));
    CAPTURE(std::string(e.codec));
    if (!encode(t / "a.video", pictures, e)) continue;
    tried++;
    VideoInfo info;
    const std::vector<Picture> back = read(t / "a.video", &info);
    REQUIRE(back.size() == pictures.size());
    for (size_t k = 0; k < back.size(); k++) CHECK(mean_difference(back[k], pictures[k]) < 5);
    CHECK(std::abs(info.fps - 25) < 0.5);
    CHECK(!info.uneven);
  }
  CHECK(tried >= 4);
}

TEST_CASE("video in: what kiln writes it reads, of odd sizes and one picture too") {
  const fixtures::TempFolder t;
  for (const auto& [w, h, n] : {std::array{48, 32, 9}, std::array{33, 21, 5}, std::array{64, 64, 1}})
    for (const char* name : {"a.mp4", "a.gif", "a.mov"}) {
      CAPTURE(std::string(name));
      const std::vector<Picture> pictures = film(n, w, h);
      write(t / name, pictures);
      VideoInfo info;
      const std::vector<Picture> back = read(t / name, &info);
      REQUIRE(back.size() == pictures.size());
      const bool gif = std::string(name) == "a.gif";
      CHECK(back[0].width == (gif ? w : w + w % 2));  // H.264 stores even sizes
      if (n > 1) CHECK(std::abs(info.fps - 10) < 0.01);
      if (gif || (w % 2 == 0 && h % 2 == 0))
        for (size_t k = 0; k < back.size(); k++) CHECK(mean_difference(back[k], pictures[k]) < (gif ? 8 : 5));  // a GIF is dithered
    }
}

TEST_CASE("video in: a rate that varies moves no frame and is told") {
  const fixtures::TempFolder t;
  const std::vector<Picture> pictures = film(6);
  REQUIRE(encode(t / "a.mkv", pictures, {"matroska", "mpeg4", AV_PIX_FMT_YUV420P, {0, 1, 2, 9, 10, 11}}));
  VideoInfo info;
  const std::vector<Picture> back = read(t / "a.mkv", &info);
  REQUIRE(back.size() == 6);
  for (size_t k = 0; k < back.size(); k++) CHECK(mean_difference(back[k], pictures[k]) < 5);
  CHECK(info.uneven);
  CHECK(info.fps == doctest::Approx(25.0 * 5 / 11).epsilon(0.01));
}

TEST_CASE("video in: a phone's rotation and pixels that are not square are applied") {
  const fixtures::TempFolder t;
  const std::vector<Picture> pictures = film(3);
  REQUIRE(encode(t / "a.mp4", pictures, {"mp4", "mpeg4", AV_PIX_FMT_YUV420P, {}, 25, 90}));
  std::vector<Picture> back = read(t / "a.mp4");
  REQUIRE(back[0].width == 32);
  REQUIRE(back[0].height == 48);
  Picture turned{32, 48, FileBytes(32 * 48 * 3)};
  for (int y = 0; y < 48; y++)
    for (int x = 0; x < 32; x++)
      for (int c = 0; c < 3; c++) turned.rgb[size_t((y * 32 + x) * 3 + c)] = pictures[2].rgb[size_t(((31 - x) * 48 + y) * 3 + c)];
  CHECK(mean_difference(back[2], turned) < 5);
  REQUIRE(encode(t / "b.mkv", pictures, {"matroska", "mpeg4", AV_PIX_FMT_YUV420P, {}, 25, 0, {4, 3}}));
  back = read(t / "b.mkv");
  CHECK(back[0].width == 64);
  CHECK(back[0].height == 32);
}

TEST_CASE("video in: a GIF's transparent pixels show the background") {
  // 2x2 pixels, two pictures, colours: 0 black (transparent), 1 red, 2 green, 3 blue. LZW, code size 2, by hand: clear, four pixels, end.
  const fixtures::TempFolder t;
  const auto lzw = [](std::array<int, 4> pixels) {
    FileBytes out{2};
    uint32_t bits = 0;
    int n = 0;
    FileBytes data;
    const auto put = [&](uint32_t code, int width) {
      bits |= code << n;
      for (n += width; n >= 8; n -= 8, bits >>= 8) data.push_back(uint8_t(bits));
    };
    put(4, 3);
    for (int i = 0; i < 4; i++) put(uint32_t(pixels[size_t(i)]), i < 3 ? 3 : 4);  // the table reaches 8 entries after the third
    put(5, 4);
    if (n > 0) data.push_back(uint8_t(bits));
    out.push_back(uint8_t(data.size()));
    out.insert(out.end(), data.begin(), data.end());
    out.push_back(0);
    return out;
  };
  FileBytes gif{'G', 'I', 'F', '8', '9', 'a', 2, 0, 2, 0, 0x91, 0, 0, 0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255};
  for (const std::array<int, 4> pixels : {std::array{1, 0, 2, 3}, std::array{0, 3, 0, 0}}) {
    const FileBytes head{0x21, 0xF9, 4, 0x09, 10, 0, 0, 0, 0x2C, 0, 0, 0, 0, 2, 0, 2, 0, 0}, data = lzw(pixels);  // dispose: to background
    gif.insert(gif.end(), head.begin(), head.end());
    gif.insert(gif.end(), data.begin(), data.end());
  }
  gif.push_back(0x3B);
  fixtures::write_file(t / "a.gif", gif);
  const std::vector<Picture> back = read(t / "a.gif", nullptr, {10, 20, 30});
  REQUIRE(back.size() == 2);
  CHECK(back[0].rgb == FileBytes{255, 0, 0, 10, 20, 30, 0, 255, 0, 0, 0, 255});
  CHECK(back[1].rgb == FileBytes{10, 20, 30, 0, 0, 255, 10, 20, 30, 10, 20, 30});
}

TEST_CASE("video in: what cannot be read is named with the reason") {
  const fixtures::TempFolder t;
  CHECK(contains(why(t / "none.mp4"), "none.mp4: cannot open: No such file"));
  fixtures::write_file(t / "empty.mp4", "");
  CHECK(contains(why(t / "empty.mp4"), "the file is empty"));
  fixtures::write_file(t / "text.mkv", "a text with the name of a video, which is long enough to be looked at");
  CHECK(contains(why(t / "text.mkv"), "not a video"));
  fixtures::write_file(t / "picture.mp4", encode_png(fixtures::sample(20, 20)));
  CHECK(contains(why(t / "picture.mp4"), "not a video"));
  // A playlist would open what it names.
  fixtures::write_file(t / "list.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n");
  CHECK(contains(why(t / "list.mp4"), "not a video"));
  fs::create_directories(t / "folder.mp4");
  CHECK(contains(why(t / "folder.mp4"), "is not a file"));
}

TEST_CASE("video in: a file cut anywhere is refused, or was whole; damage never ends the program") {
  const fixtures::TempFolder t;
  const std::vector<Picture> pictures = film(11);
  uint64_t random = 1;
  const auto next = [&](uint64_t below) {
    random = random * 6364136223846793005ull + 1442695040888963407ull;
    return (random >> 33) % below;
  };
  std::vector<std::pair<std::string, FileBytes>> files;
  for (const Encoding& e : kEncodings)
    if (encode(t / "a.video", pictures, e)) files.push_back({fmt::format("{} {}", e.muxer, e.codec), fixtures::read_all(t / "a.video")});
  write(t / "a.gif", pictures);
  files.push_back({"gif", fixtures::read_all(t / "a.gif")});
  for (const auto& [name, whole] : files) {
    CAPTURE(name);
    int short_ones = 0;
    for (int k = 0; k < 25; k++) {
      const size_t length = k == 0 ? whole.size() - 1 : size_t(next(whole.size()));
      fixtures::write_file(t / "cut", FileBytes(whole.begin(), whole.begin() + std::ptrdiff_t(length)));
      int64_t frames = 0;
      const std::string error = error_of([&] { read_video(t / "cut", [&](Picture&&) { frames++; }); });
      if (error.empty() && frames != 11) {
        short_ones++;
        MESSAGE(name << ": cut to " << length << " of " << whole.size() << " bytes: " << frames << " frames and no word");
      }
    }
    CHECK(short_ones == 0);
    for (int k = 0; k < 25; k++) {  // some bytes changed: any answer is fine
      FileBytes damaged = whole;
      for (int j = 0; j < 6; j++) damaged[next(whole.size())] = uint8_t(next(256));
      fixtures::write_file(t / "cut", damaged);
      error_of([&] { read_video(t / "cut", [&](Picture&&) {}); });
    }
  }
}
