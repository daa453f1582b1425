// Convolutions on a GPU: cuDNN's backend graph API, in C.
//
// A convolution is a graph of one operation. cuDNN's heuristics list engine configurations for it, best first; the first one
// that does what was asked for (no TF32 unless allowed, deterministic if wanted, workspace within a limit) and that becomes an
// execution plan is kept, by shape. Everything stays channels last; a transposed convolution's weights differ in strides only.
// cuDNN has no convolution of 16-bit tensors that gives the weight's gradient in f32: it comes in 16 bits and is widened.
#include "engine/backend/cudnn.h"

#include "engine/error.h"

#if KILN_GPU_LIBRARIES

#include <cuda_runtime.h>
#include <cudnn.h>

#include <algorithm>
#include <map>
#include <optional>
#include <tuple>
#include <vector>

#include "engine/context.h"
#include "kernels/pointwise.h"

namespace kiln::cudnn {
namespace {

constexpr int64_t kWorkspaceLimit = 256ll << 20;  // bytes
constexpr auto kDescriptor = CUDNN_TYPE_BACKEND_DESCRIPTOR;

/// cuDNN's refusal, as the text of an exception that the search for a plan catches.
struct Refusal : Error {
  using Error::Error;
};

void check(cudnnStatus_t status) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  char text[512] = "";
  cudnnGetLastErrorString(text, sizeof text);
  for (char& c : text)
    if (c == '\n') c = ' ';
  throw Refusal(fmt::format("{}{}{}", cudnnGetErrorString(status), text[0] ? ": " : "", text));
}

/// Owns a backend descriptor. What a finalised one was built from is kept by its owner: cuDNN does not say that it copies.
class Descriptor {
 public:
  explicit Descriptor(cudnnBackendDescriptorType_t type) { check(cudnnBackendCreateDescriptor(type, &d_)); }
  ~Descriptor() {
    if (d_) (void)cudnnBackendDestroyDescriptor(d_);
  }
  Descriptor(Descriptor&& other) noexcept : d_(std::exchange(other.d_, nullptr)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(d_, other.d_);
    return *this;
  }

  template <class T>
  void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, const std::vector<T>& values) {
    check(cudnnBackendSetAttribute(d_, name, type, int64_t(values.size()), values.data()));
  }
  void set(cudnnBackendAttributeName_t name, const std::vector<int64_t>& values) { set(name, CUDNN_TYPE_INT64, values); }
  void set(cudnnBackendAttributeName_t name, const Descriptor& part) { set(name, kDescriptor, std::vector{part.d_}); }
  void finalise() { check(cudnnBackendFinalize(d_)); }
  cudnnBackendDescriptor_t get() const { return d_; }

 private:
  cudnnBackendDescriptor_t d_ = nullptr;
};

/// Where plans are for: a GPU that is there, by its handle, or one that is only described.
struct Target {
  cudnnHandle_t handle = nullptr;
  const Descriptor* properties = nullptr;
};

cudnnDataType_t type_of(DType t) {
  KILN_ASSERT(t == DType::f32 || t == DType::f16 || t == DType::bf16);
  return t == DType::f32 ? CUDNN_DATA_FLOAT : t == DType::f16 ? CUDNN_DATA_HALF : CUDNN_DATA_BFLOAT16;
}

enum Operand : int64_t { kX = 1, kW = 2, kY = 3 };  // unique ids

Descriptor tensor(Operand id, DType t, int alignment, const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides) {
  Descriptor d(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  d.set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, std::vector{type_of(t)});
  d.set(CUDNN_ATTR_TENSOR_DIMENSIONS, sizes);
  d.set(CUDNN_ATTR_TENSOR_STRIDES, strides);
  d.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, {id});
  d.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, {alignment});
  d.finalise();
  return d;
}

/// A convolution as cuDNN's graph of one operation, with everything that it was built from.
struct Graph {
  std::vector<Descriptor> parts;
  Descriptor graph{CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR};

  Graph(const Target& target, ConvDirection direction, const ConvShape& s, const Request& r) {
    // Sizes and strides in cuDNN's order: n, c, the axes of space. A picture has two of those, a clip three.
    using Numbers = std::vector<int64_t>;
    const Numbers axes = s.is_3d() ? Numbers{s.d, s.h, s.w} : Numbers{s.h, s.w}, out_axes = s.is_3d() ? Numbers{s.od, s.oh, s.ow} : Numbers{s.oh, s.ow};
    const Numbers kernel = s.is_3d() ? Numbers{s.kd, s.kh, s.kw} : Numbers{s.kh, s.kw};
    const Numbers pad = s.is_3d() ? Numbers{s.pad_d, s.pad, s.pad} : Numbers{s.pad, s.pad}, ones(axes.size(), 1);
    const Numbers stride = s.is_3d() ? Numbers{1, s.stride, s.stride} : Numbers{s.stride, s.stride};
    const auto sizes = [](int64_t first, int64_t second, const Numbers& space) {
      Numbers all{first, second};
      all.insert(all.end(), space.begin(), space.end());
      return all;
    };
    const auto channels_last = [](int64_t channels, const Numbers& space) {
      Numbers strides(space.size() + 2, 1);
      int64_t step = channels;
      for (size_t i = space.size(); i-- > 0; step *= space[i]) strides[i + 2] = step;
      strides[0] = step;
      return strides;
    };
    parts.push_back(tensor(kX, r.type, r.alignment, sizes(s.n, s.c, axes), channels_last(s.c, axes)));
    Numbers w_strides = channels_last(s.weights_transposed ? s.oc : s.c, kernel);
    if (s.weights_transposed) std::swap(w_strides[0], w_strides[1]);
    parts.push_back(tensor(kW, r.type, r.alignment, sizes(s.oc, s.c, kernel), w_strides));
    parts.push_back(tensor(kY, r.type, r.alignment, sizes(s.n, s.oc, out_axes), channels_last(s.oc, out_axes)));
    Descriptor c(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    c.set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, {int64_t(axes.size())});
    c.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, std::vector{CUDNN_DATA_FLOAT});
    c.set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, std::vector{CUDNN_CROSS_CORRELATION});
    c.set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, pad);
    c.set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, pad);
    c.set(CUDNN_ATTR_CONVOLUTION_DILATIONS, ones);
    c.set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, stride);
    c.finalise();
    parts.push_back(std::move(c));

    struct Names {
      cudnnBackendDescriptorType_t operation;
      cudnnBackendAttributeName_t x, w, y, convolution, alpha, beta;
    };
    static constexpr Names kNames[] = {
        {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
        {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
        {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA}};
    const Names& n = kNames[int(direction)];
    Descriptor operation(n.operation);
    operation.set(n.x, parts[0]);
    operation.set(n.w, parts[1]);
    operation.set(n.y, parts[2]);
    operation.set(n.convolution, parts[3]);
    operation.set(n.alpha, CUDNN_TYPE_FLOAT, std::vector{1.f});
    operation.set(n.beta, CUDNN_TYPE_FLOAT, std::vector{0.f});
    operation.finalise();
    parts.push_back(std::move(operation));
    graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, parts[4]);
    if (target.handle) graph.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, std::vector{target.handle});
    graph.finalise();
  }
};

/// A finalised execution plan and the configuration that it was made from.
struct Candidate {
  Descriptor configuration, plan;
  Answer answer;
};

/// What cuDNN notes of a configuration's engine.
struct Notes {
  int64_t engine = -1;
  bool tensor_core = false, nondeterministic = false, reduced = false;

  explicit Notes(const Descriptor& configuration) {
    Descriptor e(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    cudnnBackendDescriptor_t raw = e.get();
    int64_t count = 0;
    check(cudnnBackendGetAttribute(configuration.get(), CUDNN_ATTR_ENGINECFG_ENGINE, kDescriptor, 1, &count, &raw));
    check(cudnnBackendGetAttribute(e.get(), CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &count, &engine));
    cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    check(cudnnBackendGetAttribute(e.get(), CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                   CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count, notes));
    for (int64_t i = 0; i < count; i++) {
      tensor_core |= notes[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
      nondeterministic |= notes[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
      reduced |= notes[i] == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS || notes[i] == CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION;
    }
  }

  /// f32 products are exact only off the tensor cores, which round them to TF32; sums are in f32 always.
  bool fit(const Request& r) const {
    if (reduced || (r.deterministic && nondeterministic)) return false;
    return r.type != DType::f32 || r.tf32 || !tensor_core;
  }
};

std::vector<Descriptor> configurations(const Target& target, const Graph& graph, cudnnBackendHeurMode_t mode) {
  Descriptor h(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  h.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph.graph);
  h.set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, std::vector{mode});
  if (target.properties) h.set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, *target.properties);
  h.finalise();
  int64_t count = 0, got = 0;
  check(cudnnBackendGetAttribute(h.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS, kDescriptor, 0, &count, nullptr));
  std::vector<Descriptor> found;
  std::vector<cudnnBackendDescriptor_t> raw;
  for (int64_t i = 0; i < count; i++) {
    found.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    raw.push_back(found.back().get());
  }
  if (count) check(cudnnBackendGetAttribute(h.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS, kDescriptor, count, &got, raw.data()));
  found.erase(found.begin() + got, found.end());
  return found;
}

/// Up to `wanted` plans that fit the request, best first; `why` gets what cuDNN said of the last one that it refused.
std::vector<Candidate> search(const Target& target, const Graph& graph, const Request& r, size_t wanted, std::string* why) {
  std::vector<Candidate> found;
  *why = "its heuristics list no engine";
  for (const auto mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
    std::vector<Descriptor> list;
    try {
      list = configurations(target, graph, mode);
    } catch (const Refusal& e) {
      *why = e.what();
    }
    for (Descriptor& configuration : list) {
      try {
        const Notes notes(configuration);
        if (!notes.fit(r)) {
          *why = "no engine is as exact or as deterministic as was asked for";
          continue;
        }
        Descriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
        if (target.handle) plan.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, std::vector{target.handle});
        plan.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configuration);
        if (target.properties) plan.set(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, *target.properties);
        plan.finalise();
        int64_t workspace = 0, count = 0;
        check(cudnnBackendGetAttribute(plan.get(), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &count, &workspace));
        if (workspace > kWorkspaceLimit) {
          *why = fmt::format("an engine wants {} MB of workspace", workspace >> 20);
          continue;
        }
        found.push_back({std::move(configuration), std::move(plan),
                         {notes.engine, notes.tensor_core, !notes.nondeterministic, mode == CUDNN_HEUR_MODE_FALLBACK, workspace}});
      } catch (const Refusal& e) {
        *why = e.what();
      }
      if (found.size() == wanted) return found;
    }
    if (!found.empty()) return found;  // the fallback's engines are the slow ones
  }
  return found;
}

}  // namespace

// ---- plans for a GPU that need not be there ----------------------------------------------------------------------------

struct DeviceModel::Impl {
  Descriptor properties{CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR};
};

DeviceModel::DeviceModel(const std::string& json) : impl_(std::make_unique<Impl>()) {
  try {
    impl_->properties.set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, std::vector<char>(json.begin(), json.end()));
    impl_->properties.finalise();
  } catch (const Refusal& e) {
    fail("cuDNN cannot read these device properties: {}", e.what());
  }
}

DeviceModel::~DeviceModel() = default;

std::vector<Answer> DeviceModel::plans(ConvDirection direction, const ConvShape& shape, const Request& request, size_t wanted,
                                       std::string* why) const {
  const Target target{nullptr, &impl_->properties};
  std::vector<Answer> answers;
  std::string reason;
  try {
    const Graph graph(target, direction, shape, request);
    for (const Candidate& c : search(target, graph, request, wanted, &reason)) answers.push_back(c.answer);
  } catch (const Refusal& e) {
    reason = e.what();
  }
  if (why) *why = reason;
  return answers;
}

// ---- the GPU that is there -----------------------------------------------------------------------------------------------

namespace {

/// This thread's handle, on the context's stream.
cudnnHandle_t handle() {
  struct Owner {
    cudnnHandle_t h = nullptr;
    Stream stream = nullptr;
    Owner() { check(cudnnCreate(&h)); }
    ~Owner() { (void)cudnnDestroy(h); }
  };
  static thread_local Owner owner;
  const Stream stream = context().stream;
  if (owner.stream != stream) {
    check(cudnnSetStream(owner.h, static_cast<cudaStream_t>(stream)));
    owner.stream = stream;
  }
  return owner.h;
}

struct Plan {
  Graph graph;
  std::vector<Candidate> candidates;  // one, or those that --autotune is to compare
  int64_t workspace = 0;              // of the largest
};

Plan& plan(ConvDirection d, const ConvShape& s, const Request& r, bool autotune) {
  using Key = std::tuple<int, int, bool, bool, int, bool, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int, int, int, int, bool,
                         int64_t, int64_t, int, int>;
  static thread_local std::map<Key, Plan> plans;
  const Key key{int(d), int(r.type), r.tf32, r.deterministic, r.alignment, autotune, s.n, s.h, s.w, s.c, s.oh, s.ow, s.oc,
                s.kh, s.kw, s.stride, s.pad, s.weights_transposed, s.d, s.od, s.kd, s.pad_d};
  const auto it = plans.find(key);
  if (it != plans.end()) return it->second;
  const Target target{handle(), nullptr};
  Plan p{Graph(target, d, s, r), {}, 0};
  std::string why;
  p.candidates = search(target, p.graph, r, autotune ? kTimedPlans : 1, &why);
  if (p.candidates.empty())
    fail("cuDNN has no plan for the {} of a convolution {}, in {}: {}; use --device cpu", name_of(d), s.text(), name_of(r.type), why);
  for (const Candidate& c : p.candidates) p.workspace = std::max(p.workspace, c.answer.workspace);
  return plans.emplace(key, std::move(p)).first->second;
}

void execute(const Candidate& c, const Tensor& x, const Tensor& w, const Tensor& y, const Tensor& workspace) {
  Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, {kX, kW, kY});
  pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, std::vector<void*>{x.data(), w.data(), y.data()});
  pack.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, std::vector<void*>{workspace.data()});
  pack.finalise();
  check(cudnnBackendExecute(handle(), c.plan.get(), pack.get()));
}

/// Keeps the fastest candidate. They all write the same result (to rounding), so the operands may be the real ones.
void keep_fastest(Plan& p, const Tensor& x, const Tensor& w, const Tensor& y, const Tensor& workspace) {
  const auto stream = static_cast<cudaStream_t>(context().stream);
  cudaEvent_t begin = nullptr, end = nullptr;
  (void)cudaEventCreate(&begin);
  (void)cudaEventCreate(&end);
  size_t best = 0;
  float best_ms = 0;
  for (size_t i = 0; i < p.candidates.size(); i++) {
    float fastest = -1;
    try {
      execute(p.candidates[i], x, w, y, workspace);  // loads its kernels
      for (int k = 0; k < 3; k++) {
        (void)cudaEventRecord(begin, stream);
        execute(p.candidates[i], x, w, y, workspace);
        (void)cudaEventRecord(end, stream);
        float ms = 0;
        if (cudaEventSynchronize(end) == cudaSuccess && cudaEventElapsedTime(&ms, begin, end) == cudaSuccess)
          fastest = fastest < 0 ? ms : std::min(fastest, ms);
      }
    } catch (const Refusal&) {  // one that cannot run is not the fastest
    }
    if (fastest >= 0 && (best_ms == 0 || fastest < best_ms)) {
      best_ms = fastest;
      best = i;
    }
  }
  (void)cudaEventDestroy(begin);
  (void)cudaEventDestroy(end);
  std::swap(p.candidates[0], p.candidates[best]);
  p.candidates.erase(p.candidates.begin() + 1, p.candidates.end());
  p.workspace = p.candidates[0].answer.workspace;
}

/// The largest power of two up to 16 that divides all three addresses.
int alignment_of(const Tensor& a, const Tensor& b, const Tensor& c) {
  const auto bits = reinterpret_cast<uintptr_t>(a.data()) | reinterpret_cast<uintptr_t>(b.data()) | reinterpret_cast<uintptr_t>(c.data()) | 16;
  return int(bits & (~bits + 1));
}

void run(ConvDirection d, const ConvShape& s, const Tensor& x, const Tensor& w, const Tensor& y) {
  KILN_ASSERT(x.dtype() == w.dtype() && x.dtype() == y.dtype());
  Booking booking(Work::convolution);
  const LibraryOptions& o = context().library;
  const Request r{x.dtype(), o.tf32, o.deterministic, alignment_of(x, w, y)};
  try {
    Plan& p = plan(d, s, r, o.autotune);
    const Tensor workspace = p.workspace ? Tensor(Shape{p.workspace}, DType::u8) : Tensor();
    if (context().planning) return;
    if (p.candidates.size() > 1) keep_fastest(p, x, w, y, workspace);
    execute(p.candidates[0], x, w, y, workspace);
  } catch (const Refusal& e) {
    fail("cuDNN failed in the {} of a convolution {}: {}; --device cpu works without it", name_of(d), s.text(), e.what());
  }
}

}  // namespace

bool compiled_in() { return true; }

std::string version() {
  const size_t v = cudnnGetVersion();
  return fmt::format("{}.{}.{}", v / 10000, v / 100 % 100, v % 100);
}

std::string properties() {
  try {
    Descriptor d(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    d.set(CUDNN_ATTR_DEVICEPROP_HANDLE, CUDNN_TYPE_HANDLE, std::vector{handle()});
    d.finalise();
    int64_t count = 0, got = 0;
    check(cudnnBackendGetAttribute(d.get(), CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, 0, &count, nullptr));
    std::string json(size_t(count), '\0');
    check(cudnnBackendGetAttribute(d.get(), CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, count, &got, json.data()));
    json.resize(size_t(got));
    while (!json.empty() && json.back() == '\0') json.pop_back();
    return json;
  } catch (const Refusal& e) {
    fail("cuDNN does not tell the GPU's properties: {}; --device cpu works without it", e.what());
  }
}

void conv_forward(const ConvShape& s, const Tensor& x, const Tensor& w, const Tensor& y) {
  run(ConvDirection::forward, s, x, w, y);
}

void conv_backward_data(const ConvShape& s, const Tensor& dy, const Tensor& w, const Tensor& dx) {
  run(ConvDirection::data, s, dx, w, dy);
}

void conv_backward_weights(const ConvShape& s, const Tensor& x, const Tensor& dy, const Tensor& dw) {
  if (dw.dtype() == x.dtype()) return run(ConvDirection::weights, s, x, dw, dy);
  // A value that does not fit f16 becomes infinite here, which is what loss scaling looks for.
  const Tensor narrow(dw.shape(), x.dtype());
  run(ConvDirection::weights, s, x, narrow, dy);
  KILN_RUN(Work::convolution, cast(stream, narrow.dtype(), dw.dtype(), dw.count(), narrow.data(), dw.data()));
}

}  // namespace kiln::cudnn

#else

namespace kiln::cudnn {
namespace {
[[noreturn]] void absent() { fail("this kiln was built without cuDNN; use --device cpu"); }
}  // namespace

struct DeviceModel::Impl {};
bool compiled_in() { return false; }
std::string version() { return "none"; }
DeviceModel::DeviceModel(const std::string&) { absent(); }
DeviceModel::~DeviceModel() = default;
std::vector<Answer> DeviceModel::plans(ConvDirection, const ConvShape&, const Request&, size_t, std::string*) const { absent(); }
std::string properties() { absent(); }
void conv_forward(const ConvShape&, const Tensor&, const Tensor&, const Tensor&) { absent(); }
void conv_backward_data(const ConvShape&, const Tensor&, const Tensor&, const Tensor&) { absent(); }
void conv_backward_weights(const ConvShape&, const Tensor&, const Tensor&, const Tensor&) { absent(); }

}  // namespace kiln::cudnn

#endif
