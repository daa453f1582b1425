#include "engine/backend/gpu_graph.h"

#include "engine/backend/gpu_runtime.h"
#include "engine/error.h"

#if KILN_WITH_CUDA
#include <cuda_runtime.h>
#endif

namespace kiln::gpu_graph {

#if KILN_WITH_CUDA

namespace {

using gpu_runtime::check;

cudaStream_t of(Stream s) { return static_cast<cudaStream_t>(s); }

}  // namespace

void begin_capture(Stream stream) {
  // Thread-local: other threads (reading pictures) may call CUDA meanwhile.
  check(cudaStreamBeginCapture(of(stream), cudaStreamCaptureModeThreadLocal), "beginning to capture a training step as a CUDA graph");
}

Graph end_capture(Stream stream) {
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(of(stream), &graph), "capturing a training step as a CUDA graph");
  cudaGraphExec_t ready = nullptr;
  const cudaError_t e = cudaGraphInstantiate(&ready, graph, 0);
  (void)cudaGraphDestroy(graph);
  check(e, "making a CUDA graph of a training step");
  return ready;
}

void abandon_capture(Stream stream) noexcept {
  cudaGraph_t graph = nullptr;
  if (cudaStreamEndCapture(of(stream), &graph) == cudaSuccess && graph) (void)cudaGraphDestroy(graph);
  (void)cudaGetLastError();
}

void launch(Graph graph, Stream stream) {
  check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), of(stream)), "launching a training step's CUDA graph");
}

void release(Graph graph) noexcept {
  if (graph) (void)cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph));
}

#else

void begin_capture(Stream) { fail("this kiln was built without CUDA; use --device cpu"); }
Graph end_capture(Stream) { fail("this kiln was built without CUDA; use --device cpu"); }
void abandon_capture(Stream) noexcept {}
void launch(Graph, Stream) { fail("this kiln was built without CUDA; use --device cpu"); }
void release(Graph) noexcept {}

#endif

}  // namespace kiln::gpu_graph
