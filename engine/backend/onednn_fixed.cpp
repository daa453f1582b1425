// Convolutions with a weight that stays the same, on the CPU: oneDNN's inference primitives, in its 2.x and its 3.x interface.
//
// The weight is kept in the layout that the primitive prefers. Every object has an engine and a stream of its own, so that it
// may be made by one thread and used by another.
#include <dnnl.hpp>
#include <map>

#include "engine/context.h"
#include "engine/error.h"
#include "engine/inference.h"

namespace kiln {

using dnnl::memory;
using Dims = memory::dims;

namespace {

struct Plan {
  memory::desc x, y, weight, scratch;
  dnnl::primitive run;
};

/// A primitive's description from its arguments, which 2.x wants in a struct of their own.
template <class Primitive, class... A>
typename Primitive::primitive_desc describe(const dnnl::engine& engine, const dnnl::primitive_attr& attr, A&&... a) {
#if DNNL_VERSION_MAJOR >= 3
  return typename Primitive::primitive_desc(engine, dnnl::prop_kind::forward_inference, std::forward<A>(a)..., attr);
#else
  return typename Primitive::primitive_desc(typename Primitive::desc(dnnl::prop_kind::forward_inference, std::forward<A>(a)...), attr, engine);
#endif
}

template <class Primitive>
Plan make_plan(const dnnl::engine& engine, dnnl::algorithm algorithm, const Shape& x, const Shape& w, const Shape& y, int stride, int pad) {
  using Type = memory::data_type;
  Plan p;
  p.x = memory::desc(Dims{x[0], x[3], x[1], x[2]}, Type::f32, memory::format_tag::nhwc);
  p.y = memory::desc(Dims{y[0], y[3], y[1], y[2]}, Type::f32, memory::format_tag::nhwc);
  const memory::desc any(Dims{w[0], w[3], w[1], w[2]}, Type::f32, memory::format_tag::any);
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const auto pd = describe<Primitive>(engine, attr, algorithm, p.x, any, p.y, Dims{stride, stride}, Dims{pad, pad}, Dims{pad, pad});
  p.weight = pd.weights_desc();
  p.scratch = pd.scratchpad_desc();
  p.run = Primitive(pd);
  return p;
}

}  // namespace

struct FixedConvolution::Plans {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  memory::desc layout;  // of `weight`, now
  Tensor weight;
  std::map<std::vector<int64_t>, Plan> by_shape;

  /// Brings the weight into another layout. Its memory is the arena's, which counts it.
  void bring_into(const memory::desc& wanted) {
    if (layout == wanted) return;
    const Tensor packed(Shape{int64_t(wanted.get_size())}, DType::u8);
    memory from(layout, engine, weight.data()), to(wanted, engine, packed.data());
    dnnl::reorder(from, to).execute(stream, from, to);
    stream.wait();
    weight = packed;
    layout = wanted;
  }
};

std::shared_ptr<FixedConvolution::Plans> FixedConvolution::make_plans(const Tensor& weight) {
  auto plans = std::make_shared<Plans>();
  const Shape& s = weight.shape();
  plans->layout = memory::desc(Dims{s[0], s[3], s[1], s[2]}, memory::data_type::f32, memory::format_tag::acdb);
  plans->weight = weight;
  return plans;
}

Tensor FixedConvolution::run_on_cpu(const Tensor& x, const Tensor& y) const {
  Booking booking(Work::convolution);
  const std::vector<int64_t> key = x.shape().sizes();
  auto it = plans_->by_shape.find(key);
  if (it == plans_->by_shape.end()) {
    try {
      const Plan p = transposed_ ? make_plan<dnnl::deconvolution_forward>(plans_->engine, dnnl::algorithm::deconvolution_direct,
                                                                          x.shape(), shape_, y.shape(), stride_, pad_)
                                 : make_plan<dnnl::convolution_forward>(plans_->engine, dnnl::algorithm::convolution_direct, x.shape(),
                                                                        shape_, y.shape(), stride_, pad_);
      it = plans_->by_shape.emplace(key, p).first;
    } catch (const dnnl::error& e) {
      fail("oneDNN has no convolution {} -> {}, kernel {}x{}, stride {}: {}", x.shape().text(), y.shape().text(), shape_[1], shape_[2],
           stride_, e.what());
    }
  }
  const Plan& p = it->second;
  const int64_t bytes = int64_t(p.scratch.get_size());
  const Tensor scratch = bytes ? Tensor(Shape{bytes}, DType::u8) : Tensor();
  if (context().planning) return y;
  plans_->bring_into(p.weight);
  const auto wrap = [&](const memory::desc& d, const Tensor& t) { return memory(d, plans_->engine, t.data()); };
  p.run.execute(plans_->stream, {{DNNL_ARG_SRC, wrap(p.x, x)},
                                 {DNNL_ARG_WEIGHTS, wrap(p.weight, plans_->weight)},
                                 {DNNL_ARG_DST, wrap(p.y, y)},
                                 {DNNL_ARG_SCRATCHPAD, wrap(p.scratch, scratch)}});
  plans_->stream.wait();
  return y;
}

}  // namespace kiln
