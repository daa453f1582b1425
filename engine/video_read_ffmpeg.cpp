// Video files in by FFmpeg's libraries; without them (KILN_VIDEO=OFF), the answer that they are missing.
#include "engine/error.h"
#include "engine/picture_codec.h"
#include "engine/video_read_codec.h"

#if KILN_WITH_VIDEO

#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "engine/video_ffmpeg.h"

extern "C" {
#include <libavutil/display.h>
#include <libavutil/pixdesc.h>
}

namespace kiln::codec {
namespace {

using namespace ffmpeg;

void check(int code, const char* what) {
  if (code == AVERROR(ENOMEM)) throw std::bad_alloc();
  if (code < 0) throw Broken{fmt::format("{}: {}", what, reason(code))};
}

/// Degrees to turn the frames by, clockwise: 0, 90, 180 or 270.
int rotation(const AVStream& stream) {
  const int32_t* matrix = nullptr;
#if LIBAVFORMAT_VERSION_MAJOR >= 61
  if (const AVPacketSideData* d = av_packet_side_data_get(stream.codecpar->coded_side_data, stream.codecpar->nb_coded_side_data, AV_PKT_DATA_DISPLAYMATRIX);
      d && d->size >= 9 * sizeof(int32_t))
    matrix = reinterpret_cast<const int32_t*>(d->data);
#else
  size_t size = 0;
  const uint8_t* d = av_stream_get_side_data(&stream, AV_PKT_DATA_DISPLAYMATRIX, &size);
  if (d && size >= 9 * sizeof(int32_t)) matrix = reinterpret_cast<const int32_t*>(d);
#endif
  const double angle = matrix ? av_display_rotation_get(matrix) : 0;  // counterclockwise; not a number for a singular matrix
  if (!std::isfinite(angle)) return 0;
  return (int(std::lround(-angle / 90)) % 4 + 4) % 4 * 90;
}

class Reader {
 public:
  Reader(const std::filesystem::path& path, const std::function<void(Picture&&)>& frame, Rgb background)
      : path_(path), frame_(frame), background_(background) {}

  VideoInfo run() {
    open();
    const Owned<AVPacket> packet(there(av_packet_alloc()));
    while (true) {
      const int code = av_read_frame(container_.get(), packet.get());
      if (code == AVERROR_EOF) break;
      check(code, position("is cut short or damaged").c_str());
      if (packet->stream_index == stream_->index) {
        if (packet->flags & AV_PKT_FLAG_CORRUPT) throw Broken{position("is cut short or damaged")};
        packets_++;
        const int sent = avcodec_send_packet(decoder_.get(), packet.get());
        if (sent != AVERROR_EOF) check(sent, position("is damaged").c_str());
        receive();
      }
      av_packet_unref(packet.get());
    }
    if (container_->pb && container_->pb->error < 0) check(container_->pb->error, "cannot read");
    check(avcodec_send_packet(decoder_.get(), nullptr), "is damaged at its end");
    receive();
    end();
    return info_;
  }

 private:
  struct Close {
    void operator()(AVFormatContext* p) const { avformat_close_input(&p); }
  };

  std::string position(const char* what) const { return fmt::format("it {} after frame {}", what, info_.frames); }

  void open() {
    av_log_set_level(AV_LOG_QUIET);  // what is wrong is told once, by the reason
    struct stat s;
    if (stat(path_.c_str(), &s) != 0) throw Broken{fmt::format("cannot open: {}", std::strerror(errno))};
    if (!S_ISREG(s.st_mode)) throw Broken{"is not a file"};
    if (s.st_size == 0) throw Broken{"the file is empty"};
    bytes_ = size_t(s.st_size);
    AVFormatContext* c = there(avformat_alloc_context());
    AVDictionary* options = nullptr;
    // A playlist of addresses named like a video is opened by nobody here: only that file, only as what it may be.
    av_dict_set(&options, "protocol_whitelist", "file", 0);
    av_dict_set(&options, "format_whitelist", "mov,matroska,avi,gif", 0);
    const int code = avformat_open_input(&c, ("file:" + path_.string()).c_str(), nullptr, &options);  // frees c where it fails
    av_dict_free(&options);
    if (code == AVERROR(EACCES) || code == AVERROR(EMFILE)) check(code, "cannot open");
    check(code, "it is not a video that can be read (MP4, MOV, MKV, WEBM, AVI, GIF), or it is damaged or cut short");
    container_.reset(c);
    check(avformat_find_stream_info(container_.get(), nullptr), "its streams cannot be read");
    const AVCodec* codec = nullptr;
    const int best = av_find_best_stream(container_.get(), AVMEDIA_TYPE_VIDEO, -1, -1, &codec, 0);
    if (best == AVERROR_DECODER_NOT_FOUND) throw Broken{"this FFmpeg cannot decode its kind of video"};
    if (best < 0) throw Broken{"it holds no video"};
    stream_ = container_->streams[best];
    if (stream_->disposition & AV_DISPOSITION_ATTACHED_PIC) throw Broken{"it holds a cover picture, but no video"};
    if (std::strstr(container_->iformat->name, "gif")) check_gif_end();
    if (std::strstr(container_->iformat->name, "matroska")) check_matroska_end();
    decoder_.reset(there(avcodec_alloc_context3(codec)));
    check(avcodec_parameters_to_context(decoder_.get(), stream_->codecpar), "its head is damaged");
    decoder_->thread_count = 1;  // clips are decoded side by side
    decoder_->err_recognition = AV_EF_EXPLODE;
    decoder_->error_concealment = 0;
    decoder_->pkt_timebase = stream_->time_base;
    check(avcodec_open2(decoder_.get(), codec, nullptr), "its decoder refused it");
    rotation_ = rotation(*stream_);
  }

  /// A GIF ends with a semicolon. The demuxer does not mind where it is missing, and what was cut off with it.
  void check_gif_end() {
    if (FILE* f = std::fopen(path_.c_str(), "rb")) {
      int last = 0;
      for (long back = 1; back <= 16 && last == 0 && std::fseek(f, -back, SEEK_END) == 0; back++) last = std::fgetc(f);
      std::fclose(f);
      if (last != 0x3B) throw Broken{"it is cut short: its end mark is missing"};
    }
  }

  /// A Matroska file is a head and a segment, which says how long it is unless it was written to a pipe. The demuxer takes what is there.
  void check_matroska_end() {
    FILE* f = std::fopen(path_.c_str(), "rb");
    if (!f) return;
    uint8_t start[4096];
    const size_t n = std::fread(start, 1, sizeof start, f);
    std::fclose(f);
    size_t at = 4;  // after the head's name
    /// A size of 1 to 8 bytes; the number of leading zeros says how many. -1: not known, or damaged.
    const auto size = [&]() -> int64_t {
      const int bytes = at < n && start[at] ? std::countl_zero(start[at]) + 1 : 9;
      if (bytes > 8 || at + size_t(bytes) > n) return -1;
      uint64_t v = start[at] & (0xFFu >> bytes);
      for (int i = 1; i < bytes; i++) v = v << 8 | start[at + size_t(i)];
      at += size_t(bytes);
      return v == (uint64_t{1} << 7 * bytes) - 1 ? -1 : int64_t(v);
    };
    const int64_t head = size();
    if (head < 0 || size_t(head) > n) return;
    at += size_t(head);
    if (at + 4 > n || std::memcmp(start + at, "\x18\x53\x80\x67", 4) != 0) return;
    at += 4;
    const int64_t segment = size();
    if (segment > int64_t(bytes_) - int64_t(at))
      throw Broken{fmt::format("it is cut short: {} of {} bytes are there", bytes_, int64_t(at) + segment)};
  }

  void receive() {
    const Owned<AVFrame> f(there(av_frame_alloc()));
    while (true) {
      const int code = avcodec_receive_frame(decoder_.get(), f.get());
      if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) return;
      check(code, position("is damaged").c_str());
      if (f->decode_error_flags != 0 || (f->flags & AV_FRAME_FLAG_CORRUPT)) throw Broken{position("is damaged")};
      convert(*f);
      av_frame_unref(f.get());
    }
  }

  void open_filters(const AVFrame& f) {
    check_size(f.width, f.height, bytes_);
    const AVPixFmtDescriptor* d = av_pix_fmt_desc_get(AVPixelFormat(f.format));
    if (!d) throw Broken{"its pixels are of an unknown kind"};
    alpha_ = (d->flags & (AV_PIX_FMT_FLAG_ALPHA | AV_PIX_FMT_FLAG_PAL)) != 0;
    const AVRational sar = f.sample_aspect_ratio.num > 0 && f.sample_aspect_ratio.den > 0 ? f.sample_aspect_ratio : AVRational{1, 1};
    const double wide = std::round(double(f.width) * sar.num / sar.den);
    if (!(wide >= 1 && wide <= 65535)) throw Broken{fmt::format("its pixels are {}:{}, which is damage", sar.num, sar.den)};
    check_size(int64_t(wide), f.height, bytes_);
    std::string in = fmt::format("video_size={}x{}:pix_fmt={}:time_base=1/1000:pixel_aspect=1/1", f.width, f.height, f.format);
#if LIBAVFILTER_VERSION_MAJOR >= 10
    in += fmt::format(":colorspace={}:range={}", int(f.colorspace), int(f.color_range));
#endif
    std::string chain = fmt::format("scale={}:{}:flags=accurate_rnd+full_chroma_int+full_chroma_inp+bicubic", int(wide), f.height);
    if (f.colorspace == AVCOL_SPC_UNSPECIFIED && !(d->flags & (AV_PIX_FMT_FLAG_RGB | AV_PIX_FMT_FLAG_PAL)))
      chain += f.height >= 720 ? ":in_color_matrix=bt709" : ":in_color_matrix=bt601";
    chain += alpha_ ? ",format=rgba" : ",format=rgb24";
    if (rotation_ == 90) chain += ",transpose=clock";
    if (rotation_ == 180) chain += ",hflip,vflip";
    if (rotation_ == 270) chain += ",transpose=cclock";
    graph_.reset(there(avfilter_graph_alloc()));
    check(make_graph(graph_.get(), in, chain, &source_, &sink_), "FFmpeg's filters failed, or it lacks one that kiln uses");
    width_ = f.width;
    height_ = f.height;
    format_ = f.format;
  }

  void convert(AVFrame& f) {
    if (graph_ && (f.width != width_ || f.height != height_))
      throw Broken{fmt::format("its frames change from {}x{} to {}x{} after frame {}", width_, height_, f.width, f.height, info_.frames)};
    if (!graph_ || f.format != format_) open_filters(f);
    note_time(f.best_effort_timestamp);
    f.pts = info_.frames;
    f.sample_aspect_ratio = {1, 1};
    check(av_buffersrc_add_frame(source_, &f), "a frame was refused");
    const Owned<AVFrame> rgb(there(av_frame_alloc()));
    check(av_buffersink_get_frame(sink_, rgb.get()), "FFmpeg's filters failed");
    Picture p{rgb->width, rgb->height, std::vector<uint8_t>(size_t(rgb->width) * size_t(rgb->height) * 3)};
    for (int y = 0; y < p.height; y++) {
      const uint8_t* from = rgb->data[0] + std::ptrdiff_t(y) * rgb->linesize[0];
      uint8_t* to = &p.rgb[size_t(y) * size_t(p.width) * 3];
      if (alpha_)
        for (int x = 0; x < p.width; x++) blend(from + 4 * x, background_, to + 3 * x);
      else
        std::memcpy(to, from, size_t(p.width) * 3);
    }
    info_.width = p.width;
    info_.height = p.height;
    info_.frames++;
    frame_(std::move(p));
  }

  void note_time(int64_t pts) {
    if (pts == AV_NOPTS_VALUE) return;
    if (times_++ == 0) first_ = pts;
    else if (pts > last_) {
      shortest_ = std::min(shortest_, pts - last_);
      longest_ = std::max(longest_, pts - last_);
    }
    last_ = pts;
  }

  void end() {
    if (info_.frames == 0) throw Broken{"it holds no frame"};
    // Files that say how much they hold must hold about that much: edit lists may leave out some.
    if (stream_->nb_frames > 0 && packets_ * 10 < stream_->nb_frames * 9)
      throw Broken{fmt::format("it is cut short: {} of {} frames are there", packets_, stream_->nb_frames)};
    const double unit = av_q2d(stream_->time_base);
    if (times_ > 1 && last_ > first_) info_.fps = double(times_ - 1) / (double(last_ - first_) * unit);
    else if (stream_->avg_frame_rate.num > 0 && stream_->avg_frame_rate.den > 0) info_.fps = av_q2d(stream_->avg_frame_rate);
    info_.uneven = longest_ > 0 && double(longest_) > 1.6 * double(shortest_);
    if (container_->nb_streams == 1 && container_->duration > 0 && container_->duration_estimation_method != AVFMT_DURATION_FROM_BITRATE && times_ > 1) {
      const double told = double(container_->duration) / AV_TIME_BASE, there = double(last_ - first_ + longest_) * unit;
      if (there < 0.9 * told - double(longest_) * unit) throw Broken{fmt::format("it is cut short: {:.2f} of {:.2f} seconds are there", there, told)};
    }
  }

  const std::filesystem::path& path_;
  const std::function<void(Picture&&)>& frame_;
  const Rgb background_;
  size_t bytes_ = 0;
  std::unique_ptr<AVFormatContext, Close> container_;
  AVStream* stream_ = nullptr;  // the container's
  Owned<AVCodecContext> decoder_;
  int rotation_ = 0;
  Owned<AVFilterGraph> graph_;  // of frames of this size and format:
  int width_ = 0, height_ = 0, format_ = -1;
  AVFilterContext *source_ = nullptr, *sink_ = nullptr;
  bool alpha_ = false;
  VideoInfo info_;
  int64_t packets_ = 0, times_ = 0, first_ = 0, last_ = 0, shortest_ = INT64_MAX, longest_ = 0;
};

}  // namespace

VideoInfo read_video_or_broken(const std::filesystem::path& path, const std::function<void(Picture&&)>& frame, Rgb background) {
  return Reader(path, frame, background).run();
}

}  // namespace kiln::codec

#else

namespace kiln::codec {

VideoInfo read_video_or_broken(const std::filesystem::path&, const std::function<void(Picture&&)>&, Rgb) {
  throw Broken{"this kiln was built without FFmpeg's libraries, which read videos; install libavcodec-dev libavfilter-dev libavformat-dev "
               "libavutil-dev and build it again, or give folders of frames"};
}

}  // namespace kiln::codec

#endif
