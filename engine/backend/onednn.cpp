// Convolutions and matrix products on the CPU: oneDNN, both its 2.x (Debian 12: 2.6) and its 3.x interface.
//
// Activations stay channels last ("nhwc"), so that nothing is reordered between layers; weights are reordered into the layout
// that each primitive prefers, which is small work. Primitives are built once per shape and kept per thread. Scratch memory
// and reordered weights come from the arena, so that peak figures and --dry-run count them. oneDNN has no f16 on most CPUs:
// f16 tensors are widened to f32 here, computed and narrowed, which is for tests of the f16 path, not for speed.
#include <dnnl.hpp>
#include <map>
#include <tuple>
#include <unordered_map>

#include "engine/backend/onednn.h"
#include "engine/context.h"
#include "engine/error.h"
#include "kernels/exec/log.h"
#include "kernels/pointwise.h"

namespace kiln::onednn {
namespace {

using dnnl::memory;
using Dims = memory::dims;

struct Plan {
  memory::desc x, y, w_plain, w_best, scratch;  // w_best: the primitive's own layout
  dnnl::primitive run, reorder;                 // reorder: plain -> best, or back for weight gradients
  bool needs_reorder = false;
};

dnnl::engine& cpu() {
  static thread_local dnnl::engine e(dnnl::engine::kind::cpu, 0);
  return e;
}
dnnl::stream& cpu_stream() {
  static thread_local dnnl::stream s(cpu());
  return s;
}

/// Runs a primitive. What oneDNN refuses (no memory for its scratch space) becomes kiln's own error.
template <class Primitive>
void execute(const Primitive& primitive, const std::unordered_map<int, dnnl::memory>& arguments) {
  try {
    primitive.execute(cpu_stream(), arguments);
  } catch (const dnnl::error& e) {
    fail("oneDNN could not compute: {}; is there enough memory? A smaller --batch needs less", e.what());
  }
}

memory::data_type type_of(DType t) {
  KILN_ASSERT(t == DType::f32 || t == DType::bf16);
  return t == DType::bf16 ? memory::data_type::bf16 : memory::data_type::f32;
}

/// Logical sizes of a weight.
Dims weight_sizes(const ConvShape& s) { return s.is_3d() ? Dims{s.oc, s.c, s.kd, s.kh, s.kw} : Dims{s.oc, s.c, s.kh, s.kw}; }

/// Weight descriptor with logical dims (oc, c, kh, kw) or (oc, c, kd, kh, kw) over our memory order.
memory::desc plain_weights(const ConvShape& s, memory::data_type type) {
  const Dims dims = weight_sizes(s);
  if (s.is_3d()) {
    const int64_t last = s.weights_transposed ? s.oc : s.c, kernel = int64_t(s.kd) * s.kh * s.kw * last;
    return memory::desc(dims, type, Dims{s.weights_transposed ? 1 : kernel, s.weights_transposed ? kernel : 1, s.kh * s.kw * last, s.kw * last, last});
  }
  if (!s.weights_transposed) return memory::desc(dims, type, Dims{s.kh * s.kw * s.c, 1, s.kw * s.c, s.c});
  return memory::desc(dims, type, Dims{1, s.kh * s.kw * s.oc, s.kw * s.oc, s.oc});
}

#if DNNL_VERSION_MAJOR >= 3
template <class PD, class... A>
PD describe(A&&... a) {
  return PD(cpu(), std::forward<A>(a)...);
}
#endif

Plan make_plan(ConvDirection d, const ConvShape& s, DType t, bool with_primitives) {
  const auto type = type_of(t);
  Plan p;
  if (s.is_3d()) {
    p.x = memory::desc(Dims{s.n, s.c, s.d, s.h, s.w}, type, memory::format_tag::ndhwc);
    p.y = memory::desc(Dims{s.n, s.oc, s.od, s.oh, s.ow}, type, memory::format_tag::ndhwc);
  } else {
    p.x = memory::desc(Dims{s.n, s.c, s.h, s.w}, type, memory::format_tag::nhwc);
    p.y = memory::desc(Dims{s.n, s.oc, s.oh, s.ow}, type, memory::format_tag::nhwc);
  }
  const auto w_type = d == ConvDirection::weights ? memory::data_type::f32 : type;  // gradients of weights are f32 always
  p.w_plain = plain_weights(s, w_type);
  const memory::desc w_any(weight_sizes(s), type, memory::format_tag::any);
  const memory::desc dw_any(weight_sizes(s), w_type, memory::format_tag::any);
  Dims stride{s.stride, s.stride}, pad{s.pad, s.pad};
  // The far side's padding: whatever makes the output size come out.
  Dims far{(s.oh - 1) * s.stride + s.kh - s.h - s.pad, (s.ow - 1) * s.stride + s.kw - s.w - s.pad};
  if (s.is_3d()) {
    stride.insert(stride.begin(), 1);
    pad.insert(pad.begin(), s.pad_d);
    far.insert(far.begin(), s.od - 1 + s.kd - s.d - s.pad_d);
  }
  const auto kind = dnnl::prop_kind::forward_training;
  const auto algorithm = dnnl::algorithm::convolution_direct;
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);

#if DNNL_VERSION_MAJOR >= 3
  const auto fpd = describe<dnnl::convolution_forward::primitive_desc>(kind, algorithm, p.x, w_any, p.y, stride, pad, far, attr);
#else
  const dnnl::convolution_forward::primitive_desc fpd({kind, algorithm, p.x, w_any, p.y, stride, pad, far}, attr, cpu());
#endif
  const auto finish = [&](const auto& pd, const memory::desc& best, auto make) {
    p.w_best = best;
    p.scratch = pd.scratchpad_desc();
    p.needs_reorder = p.w_best != p.w_plain;
    if (!with_primitives) return;
    p.run = make(pd);
    if (p.needs_reorder) {
      const bool back = d == ConvDirection::weights;
      dnnl::primitive_attr reorder_attr;
      const dnnl::reorder::primitive_desc rpd(cpu(), back ? p.w_best : p.w_plain, cpu(), back ? p.w_plain : p.w_best, reorder_attr);
      p.reorder = dnnl::reorder(rpd);
    }
  };
  if (d == ConvDirection::forward) {
    finish(fpd, fpd.weights_desc(), [](const auto& pd) { return dnnl::convolution_forward(pd); });
  } else if (d == ConvDirection::data) {
#if DNNL_VERSION_MAJOR >= 3
    const auto pd = describe<dnnl::convolution_backward_data::primitive_desc>(algorithm, p.x, w_any, p.y, stride, pad, far, fpd, attr);
#else
    const dnnl::convolution_backward_data::primitive_desc pd({algorithm, p.x, w_any, p.y, stride, pad, far}, attr, cpu(), fpd);
#endif
    finish(pd, pd.weights_desc(), [](const auto& q) { return dnnl::convolution_backward_data(q); });
  } else {
#if DNNL_VERSION_MAJOR >= 3
    const auto pd = describe<dnnl::convolution_backward_weights::primitive_desc>(algorithm, p.x, dw_any, p.y, stride, pad, far, fpd, attr);
#else
    const dnnl::convolution_backward_weights::primitive_desc pd({algorithm, p.x, dw_any, p.y, stride, pad, far}, attr, cpu(), fpd);
#endif
    finish(pd, pd.diff_weights_desc(), [](const auto& q) { return dnnl::convolution_backward_weights(q); });
  }
  return p;
}

using Key = std::tuple<int, int, bool, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int, int, int, int, bool, int64_t, int64_t, int, int>;
std::map<Key, Plan>& all_plans() {
  static thread_local std::map<Key, Plan> plans;
  return plans;
}

const Plan& plan(ConvDirection d, const ConvShape& s, DType t) {
  std::map<Key, Plan>& plans = all_plans();
  const bool with_primitives = !context().planning;
  const Key key{int(d), int(t), with_primitives, s.n, s.h, s.w, s.c, s.oh, s.ow, s.oc, s.kh, s.kw, s.stride, s.pad, s.weights_transposed,
                s.d, s.od, s.kd, s.pad_d};
  auto it = plans.find(key);
  if (it != plans.end()) return it->second;
  try {
    return plans.emplace(key, make_plan(d, s, t, with_primitives)).first->second;
  } catch (const dnnl::error& e) {
    fail("oneDNN has no convolution {}, type {}: {}", s.text(), name_of(t), e.what());
  }
}

memory wrap(const memory::desc& d, void* p) { return memory(d, cpu(), p); }

/// Memory of the arena for a descriptor; empty descriptors get none.
Tensor arena_memory(const memory::desc& d) {
  const int64_t bytes = int64_t(d.get_size());
  return bytes ? Tensor(Shape{bytes}, DType::u8) : Tensor();
}

void convert(const Tensor& from, const Tensor& to) {
  KILN_RUN(Work::convolution, cast(stream, from.dtype(), to.dtype(), from.count(), from.data(), to.data()));
}

/// An f16 tensor in f32; any other as it is.
Tensor widened(const Tensor& t) {
  if (t.dtype() != DType::f16) return t;
  const Tensor wide(t.shape());
  convert(t, wide);
  return wide;
}

}  // namespace

bool has_bf16() {
  // The values of instruction sets are sets of bits: a larger one holds all of a smaller one's.
  const unsigned bf16 = unsigned(dnnl::cpu_isa::avx512_core_bf16);
  return (unsigned(dnnl::get_effective_cpu_isa()) & bf16) == bf16;
}

size_t convolution_plans() { return all_plans().size(); }

void conv_forward(const ConvShape& s, const Tensor& x, const Tensor& w, const Tensor& y) {
  KILN_ASSERT(w.dtype() == x.dtype() && y.dtype() == x.dtype());
  if (x.dtype() == DType::f16) {
    const Tensor wide(y.shape());
    onednn::conv_forward(s, widened(x), widened(w), wide);
    return convert(wide, y);
  }
  Booking booking(Work::convolution);
  const Plan& p = plan(ConvDirection::forward, s, x.dtype());
  const Tensor scratch = arena_memory(p.scratch), best = p.needs_reorder ? arena_memory(p.w_best) : w;
  if (context().planning) return;
  note_launch("conv_forward", s, x.dtype(), x.data(), w.data(), y.data(), scratch.data(), best.data());
  memory wm = wrap(p.w_best, best.data());
  if (p.needs_reorder) {
    memory plain = wrap(p.w_plain, w.data());
    execute(p.reorder, {{DNNL_ARG_FROM, plain}, {DNNL_ARG_TO, wm}});
  }
  execute(p.run, {{DNNL_ARG_SRC, wrap(p.x, x.data())},
                  {DNNL_ARG_WEIGHTS, wm},
                  {DNNL_ARG_DST, wrap(p.y, y.data())},
                  {DNNL_ARG_SCRATCHPAD, wrap(p.scratch, scratch.data())}});
  cpu_stream().wait();
}

void conv_backward_data(const ConvShape& s, const Tensor& dy, const Tensor& w, const Tensor& dx) {
  KILN_ASSERT(w.dtype() == dy.dtype() && dx.dtype() == dy.dtype());
  if (dy.dtype() == DType::f16) {
    const Tensor wide(dx.shape());
    onednn::conv_backward_data(s, widened(dy), widened(w), wide);
    return convert(wide, dx);
  }
  Booking booking(Work::convolution);
  const Plan& p = plan(ConvDirection::data, s, dy.dtype());
  const Tensor scratch = arena_memory(p.scratch), best = p.needs_reorder ? arena_memory(p.w_best) : w;
  if (context().planning) return;
  note_launch("conv_backward_data", s, dy.dtype(), dy.data(), w.data(), dx.data(), scratch.data(), best.data());
  memory wm = wrap(p.w_best, best.data());
  if (p.needs_reorder) {
    memory plain = wrap(p.w_plain, w.data());
    execute(p.reorder, {{DNNL_ARG_FROM, plain}, {DNNL_ARG_TO, wm}});
  }
  execute(p.run, {{DNNL_ARG_DIFF_DST, wrap(p.y, dy.data())},
                  {DNNL_ARG_WEIGHTS, wm},
                  {DNNL_ARG_DIFF_SRC, wrap(p.x, dx.data())},
                  {DNNL_ARG_SCRATCHPAD, wrap(p.scratch, scratch.data())}});
  cpu_stream().wait();
}

void conv_backward_weights(const ConvShape& s, const Tensor& x, const Tensor& dy, const Tensor& dw) {
  KILN_ASSERT(dy.dtype() == x.dtype() && dw.dtype() == DType::f32);
  if (x.dtype() == DType::f16) return onednn::conv_backward_weights(s, widened(x), widened(dy), dw);
  Booking booking(Work::convolution);
  const Plan& p = plan(ConvDirection::weights, s, x.dtype());
  const Tensor scratch = arena_memory(p.scratch), best = p.needs_reorder ? arena_memory(p.w_best) : dw;
  if (context().planning) return;
  note_launch("conv_backward_weights", s, x.dtype(), x.data(), dy.data(), dw.data(), scratch.data(), best.data());
  memory wm = wrap(p.w_best, best.data());
  execute(p.run, {{DNNL_ARG_SRC, wrap(p.x, x.data())},
                  {DNNL_ARG_DIFF_DST, wrap(p.y, dy.data())},
                  {DNNL_ARG_DIFF_WEIGHTS, wm},
                  {DNNL_ARG_SCRATCHPAD, wrap(p.scratch, scratch.data())}});
  if (p.needs_reorder) {
    memory plain = wrap(p.w_plain, dw.data());
    execute(p.reorder, {{DNNL_ARG_FROM, wm}, {DNNL_ARG_TO, plain}});
  }
  cpu_stream().wait();
}

namespace {

/// What sgemm does not do: the matrix product of bf16 numbers.
void product_bf16(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const Tensor& a, const Tensor& b, const Tensor& c) {
  const memory::desc am(Dims{m, k}, type_of(a.dtype()), ta ? Dims{1, m} : Dims{k, 1});
  const memory::desc bm(Dims{k, n}, type_of(b.dtype()), tb ? Dims{1, k} : Dims{n, 1});
  const memory::desc cm(Dims{m, n}, type_of(c.dtype()), Dims{n, 1});
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
#if DNNL_VERSION_MAJOR >= 3
  const dnnl::matmul::primitive_desc pd(cpu(), am, bm, cm, attr);
#else
  const dnnl::matmul::primitive_desc pd({am, bm, cm}, attr, cpu());
#endif
  const Tensor scratch = arena_memory(pd.scratchpad_desc());
  if (context().planning) return;
  note_launch("product_bf16", ta, tb, m, n, k, a.data(), b.data(), c.data(), c.dtype(), scratch.data());
  dnnl::matmul(pd).execute(cpu_stream(), {{DNNL_ARG_SRC, wrap(am, a.data())},
                                          {DNNL_ARG_WEIGHTS, wrap(bm, b.data())},
                                          {DNNL_ARG_DST, wrap(cm, c.data())},
                                          {DNNL_ARG_SCRATCHPAD, wrap(pd.scratchpad_desc(), scratch.data())}});
  cpu_stream().wait();
}

}  // namespace

void matrix_product(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const Tensor& a, const Tensor& b, const Tensor& c) {
  if (c.dtype() == DType::f16) {
    const Tensor wide(c.shape());
    onednn::matrix_product(ta, tb, m, n, k, a, b, wide);
    return convert(wide, c);
  }
  if (a.dtype() == DType::f16) return onednn::matrix_product(ta, tb, m, n, k, widened(a), widened(b), c);
  Booking booking(Work::matrix);
  try {
    if (a.dtype() == DType::bf16) return product_bf16(ta, tb, m, n, k, a, b, c);
  } catch (const dnnl::error& e) {
    fail("oneDNN refused the bf16 matrix product {} x {} x {}: {}", m, n, k, e.what());
  }
  if (context().planning) return;
  note_launch("matrix_product", ta, tb, m, n, k, a.data(), b.data(), c.data());
  const dnnl::status status = dnnl::sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', m, n, k, 1.f, a.f32(), ta ? m : k, b.f32(),
                                          tb ? k : n, 0.f, c.f32(), n);
  if (status != dnnl::status::success) fail("oneDNN refused the matrix product {} x {} x {}", m, n, k);
}

}  // namespace kiln::onednn
