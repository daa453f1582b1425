// CUDA graphs: what a stream was given between two points, kept, and given to it again at once. Plain functions, so that no engine
// file includes a CUDA header; in a build without CUDA none may be called.
#pragma once
#include "kernels/exec/api.h"

namespace kiln::gpu_graph {

using Graph = void*;

/// From here on, what this thread gives the stream is recorded and does not run. The stream may not be the default one. Throws
/// kiln::Error if CUDA refuses.
void begin_capture(Stream stream);
/// Ends the recording and makes it ready to run. Throws kiln::Error if something in between cannot be part of a graph.
Graph end_capture(Stream stream);
/// Ends a recording that went wrong, without a graph and without an error.
void abandon_capture(Stream stream) noexcept;
/// Gives the stream all of it.
void launch(Graph graph, Stream stream);
void release(Graph graph) noexcept;

}  // namespace kiln::gpu_graph
