// MP4 and GIF by FFmpeg's libraries; without them (KILN_VIDEO=OFF), the answer that they are missing.
#include "engine/error.h"
#include "engine/video_sink.h"

#if KILN_WITH_VIDEO

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <vector>

#include "engine/file.h"
#include "engine/video_ffmpeg.h"

namespace kiln {
using namespace ffmpeg;

/// MP4 and GIF: pictures -> a filter graph, which changes their colours -> an encoder -> a muxer -> the file.
struct VideoWriter::Encoded : Sink {
  Encoded(const std::filesystem::path& p, int w, int h, VideoFormat format, const VideoOptions& o) : Sink(p, w, h), file(p) {
    check_rate(format, o);
    open_filters(format);
    open_encoder(format, o);
    open_muxer(format, o);
  }
  ~Encoded() override {
    if (muxer) muxer->pb = nullptr;
  }

  void add(const Picture& picture) override {
    const Owned<AVFrame> f(there(av_frame_alloc()));
    f->format = AV_PIX_FMT_RGB24;
    f->width = width;
    f->height = height;
    f->pts = count;
    check(av_frame_get_buffer(f.get(), 0), "no memory for a picture");
    for (int y = 0; y < height; y++)
      std::copy_n(&picture.rgb[size_t(y) * size_t(width) * 3], size_t(width) * 3, f->data[0] + std::ptrdiff_t(y) * f->linesize[0]);
    check(av_buffersrc_add_frame(source, f.get()), "the picture was refused");
    drain_filters();
  }

  void finish() override {
    check(av_buffersrc_add_frame(source, nullptr), "the end was refused");
    drain_filters();
    encode(nullptr);
    check(av_write_trailer(muxer.get()), "cannot write its end");
    avio_flush(io.get());
    check(io->error, "cannot write");
    file.commit();
  }

 private:
  /// Throws for an error code of FFmpeg's; one of the disk is told as such.
  void check(int code, const char* what) {
    if (disk_error) fail("{}: cannot write: {}; free some space, or write elsewhere", path.string(), reason(AVERROR(disk_error)));
    if (code < 0) fail("{}: {}: {}", path.string(), what, reason(code));
  }

  void check_rate(VideoFormat format, const VideoOptions& o) {
    const double most = format == VideoFormat::gif ? 50 : 240;
    if (!(o.fps >= 1 && o.fps <= most)) fail("{}: {} pictures a second; from 1 to {} are possible", path.string(), o.fps, most);
    if (o.quality < 0 || o.quality > 51) fail("{}: quality {}; from 0 to 51 are possible", path.string(), o.quality);
    rate = av_d2q(o.fps, 1001000);
  }

  void open_filters(VideoFormat format) {
    av_log_set_level(AV_LOG_ERROR);
    graph.reset(there(avfilter_graph_alloc()));
    const std::string in = fmt::format("video_size={}x{}:pix_fmt={}:time_base={}/{}:frame_rate={}/{}:sar=1/1", width, height,
                                       int(AV_PIX_FMT_RGB24), rate.den, rate.num, rate.num, rate.den);
    // BT.709 of limited range, and the file says so: players that are told nothing guess, and guess differently by size.
    const std::string mp4 = fmt::format("pad={}:{}:0:0,{}scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int+bicubic,format=yuv420p",
                                        width + width % 2, height + height % 2, doubled_edges());
    const std::string gif = "split[a][b];[a]palettegen=stats_mode=full[p];[b][p]paletteuse=dither=sierra2_4a:diff_mode=rectangle";
    check(make_graph(graph.get(), in, format == VideoFormat::gif ? gif : mp4, &source, &sink), "FFmpeg's filters failed, or it lacks one that kiln uses");
  }

  /// Fills the column and row that an odd size was padded by with their neighbours.
  std::string doubled_edges() const {
    if (width % 2 == 0 && height % 2 == 0) return "";
    return fmt::format("fillborders=right={}:bottom={}:mode=smear,", width % 2, height % 2);
  }

  void open_encoder(VideoFormat format, const VideoOptions& o) {
    const AVCodec* codec = format == VideoFormat::gif ? avcodec_find_encoder(AV_CODEC_ID_GIF) : avcodec_find_encoder_by_name("libx264");
    const bool x264 = format == VideoFormat::mp4 && codec;
    if (!codec && format == VideoFormat::mp4) codec = avcodec_find_encoder(AV_CODEC_ID_MPEG4);
    if (!codec) fail("{}: this FFmpeg has no encoder for it; write frames (a name without an ending) and convert them", path.string());
    encoder.reset(there(avcodec_alloc_context3(codec)));
    encoder->width = av_buffersink_get_w(sink);
    encoder->height = av_buffersink_get_h(sink);
    encoder->pix_fmt = AVPixelFormat(av_buffersink_get_format(sink));
    encoder->time_base = format == VideoFormat::gif ? AVRational{1, 100} : av_inv_q(rate);
    encoder->framerate = rate;
    if (format == VideoFormat::mp4) {
      encoder->colorspace = AVCOL_SPC_BT709;
      encoder->color_primaries = AVCOL_PRI_BT709;
      encoder->color_trc = AVCOL_TRC_BT709;
      encoder->color_range = AVCOL_RANGE_MPEG;
      encoder->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    }
    if (x264) {
      av_opt_set_int(encoder->priv_data, "crf", o.quality, 0);
      av_opt_set(encoder->priv_data, "preset", "medium", 0);
    } else if (format == VideoFormat::mp4) {
      encoder->flags |= AV_CODEC_FLAG_QSCALE;
      encoder->global_quality = FF_QP2LAMBDA * std::clamp(1 + o.quality / 6, 1, 31);
    }
    check(avcodec_open2(encoder.get(), codec, nullptr), "the encoder refused");
  }

  void open_muxer(VideoFormat format, const VideoOptions& o) {
    AVFormatContext* m = nullptr;
    check(avformat_alloc_output_context2(&m, nullptr, format == VideoFormat::gif ? "gif" : "mp4", nullptr), "this FFmpeg cannot write such files");
    muxer.reset(m);
    muxer->flags |= AVFMT_FLAG_BITEXACT;  // no version, no time
    constexpr int kBuffer = 1 << 16;
    io.reset(there(avio_alloc_context(static_cast<unsigned char*>(there(av_malloc(kBuffer))), kBuffer, 1, this, nullptr, write_bytes, seek)));
    muxer->pb = io.get();
    stream = there(avformat_new_stream(muxer.get(), nullptr));
    check(avcodec_parameters_from_context(stream->codecpar, encoder.get()), "the muxer refused");
    stream->time_base = encoder->time_base;
    stream->avg_frame_rate = rate;
    if (!o.comment.empty()) av_dict_set(&muxer->metadata, "comment", o.comment.c_str(), 0);
    // The index stays at the end: to move it to the front, the muxer would open the file by its name, which it has not got yet.
    check(avformat_write_header(muxer.get(), nullptr), "cannot write its head");
  }

  void drain_filters() {
    const Owned<AVFrame> f(there(av_frame_alloc()));
    while (true) {
      const int code = av_buffersink_get_frame(sink, f.get());
      if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) return;
      check(code, "FFmpeg's filters failed");
      f->pts = av_rescale_q(f->pts, av_buffersink_get_time_base(sink), encoder->time_base);
      f->pict_type = AV_PICTURE_TYPE_NONE;
      encode(f.get());
      av_frame_unref(f.get());
    }
  }

  void encode(const AVFrame* f) {
    check(avcodec_send_frame(encoder.get(), f), "the encoder refused a picture");
    const Owned<AVPacket> packet(there(av_packet_alloc()));
    while (true) {
      const int code = avcodec_receive_packet(encoder.get(), packet.get());
      if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) return;
      check(code, "the encoder failed");
      packet->stream_index = stream->index;
      if (packet->duration == 0) packet->duration = av_rescale_q(1, av_inv_q(rate), encoder->time_base);
      av_packet_rescale_ts(packet.get(), encoder->time_base, stream->time_base);
      check(av_interleaved_write_frame(muxer.get(), packet.get()), "cannot write");
    }
  }

  static int write_bytes(void* self, uint8_t* data, int size) {
    auto& me = *static_cast<Encoded*>(self);
    for (int done = 0; done < size;) {
      const ssize_t n = ::write(me.file.descriptor(), data + done, size_t(size - done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return me.disk_error = errno, AVERROR(errno);
      done += int(n);
    }
    return size;
  }
  static int64_t seek(void* self, int64_t offset, int whence) {
    auto& me = *static_cast<Encoded*>(self);
    if (whence == AVSEEK_SIZE) return AVERROR(ENOSYS);
    const off_t at = ::lseek(me.file.descriptor(), off_t(offset), whence & ~AVSEEK_FORCE);
    return at < 0 ? AVERROR(errno) : int64_t(at);
  }

  AtomicFile file;
  int disk_error = 0;
  AVRational rate{};
  Owned<AVFilterGraph> graph;
  AVFilterContext *source = nullptr, *sink = nullptr;  // the graph's
  Owned<AVCodecContext> encoder;
  Owned<AVIOContext> io;
  Owned<AVFormatContext> muxer;
  AVStream* stream = nullptr;  // the muxer's
};

std::unique_ptr<VideoWriter::Sink> VideoWriter::Sink::encoded(const std::filesystem::path& path, int width, int height, VideoFormat format,
                                                              const VideoOptions& options) {
  return std::make_unique<Encoded>(path, width, height, format, options);
}

bool video_compiled_in() { return true; }

}  // namespace kiln

#else

namespace kiln {

std::unique_ptr<VideoWriter::Sink> VideoWriter::Sink::encoded(const std::filesystem::path&, int, int, VideoFormat, const VideoOptions&) {
  KILN_ASSERT(false);  // video_format() has refused it
  return nullptr;
}

bool video_compiled_in() { return false; }

}  // namespace kiln

#endif
