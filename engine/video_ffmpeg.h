// Inside of video_ffmpeg.cpp and video_read_ffmpeg.cpp: FFmpeg's objects with owners.
#pragma once
#include <memory>
#include <new>
#include <string>

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavfilter/avfilter.h>
#include <libavfilter/buffersink.h>
#include <libavfilter/buffersrc.h>
#include <libavformat/avformat.h>
#include <libavutil/opt.h>
}

namespace kiln::ffmpeg {

inline std::string reason(int error) {
  char text[AV_ERROR_MAX_STRING_SIZE] = "";
  av_strerror(error, text, sizeof text);
  return text;
}

struct Free {
  void operator()(AVCodecContext* p) const { avcodec_free_context(&p); }
  void operator()(AVFrame* p) const { av_frame_free(&p); }
  void operator()(AVPacket* p) const { av_packet_free(&p); }
  void operator()(AVFilterGraph* p) const { avfilter_graph_free(&p); }
  void operator()(AVFormatContext* p) const { avformat_free_context(p); }
  void operator()(AVIOContext* p) const {
    av_freep(&p->buffer);
    avio_context_free(&p);
  }
};
template <class T>
using Owned = std::unique_ptr<T, Free>;

template <class T>
T* there(T* p) {
  if (!p) throw std::bad_alloc();
  return p;
}

/// Makes `graph` of the description between a source with those arguments and a sink. Returns the code of what failed, or 0.
inline int make_graph(AVFilterGraph* graph, const std::string& arguments, const std::string& description, AVFilterContext** source,
                      AVFilterContext** sink) {
  graph->nb_threads = 1;
  int code = avfilter_graph_create_filter(source, avfilter_get_by_name("buffer"), "in", arguments.c_str(), nullptr, graph);
  if (code >= 0) code = avfilter_graph_create_filter(sink, avfilter_get_by_name("buffersink"), "out", nullptr, nullptr, graph);
  if (code < 0) return code;
  AVFilterInOut* outputs = there(avfilter_inout_alloc());
  AVFilterInOut* inputs = there(avfilter_inout_alloc());
  *outputs = {av_strdup("in"), *source, 0, nullptr};
  *inputs = {av_strdup("out"), *sink, 0, nullptr};
  code = avfilter_graph_parse_ptr(graph, description.c_str(), &inputs, &outputs, nullptr);
  avfilter_inout_free(&inputs);
  avfilter_inout_free(&outputs);
  return code < 0 ? code : std::min(0, avfilter_graph_config(graph, nullptr));
}

}  // namespace kiln::ffmpeg
