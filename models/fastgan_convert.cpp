#include "models/fastgan_convert.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include "engine/checkpoint.h"
#include "engine/error.h"
#include "models/fastgan_run.h"

namespace kiln::fastgan {
namespace {

using Entry = ParameterSet::Entry;
using Name = std::string (*)(const std::string&);

std::vector<std::string> split(const std::string& name) {
  std::vector<std::string> parts;
  for (size_t at = 0; at <= name.size();) {
    const size_t dot = std::min(name.find('.', at), name.size());
    parts.push_back(name.substr(at, dot - at));
    at = dot + 1;
  }
  return parts;
}

/// weight, u, v of a convolution; a norm's and a noise's leaves keep their names.
std::string leaf(const std::string& part, const std::string& name) {
  const bool convolution = !part.starts_with("bn") && !part.starts_with("noise");
  return !convolution ? name : name == "weight" ? "weight_orig" : "weight_" + name;
}

/// Places of a block's parts in the public code's sequences.
std::string place(const std::string& part, std::initializer_list<std::pair<const char*, const char*>> places) {
  for (const auto& [ours, theirs] : places)
    if (part == ours) return theirs;
  KILN_ASSERT(!"a part of a known block");
  return "";
}

bool is_convolution(const Entry& e) { return e.shape.rank() == 4; }
bool is_transposed(const Entry& e) { return e.name == "init.conv.weight"; }
bool is_right_vector(const Entry& e) { return e.name.ends_with(".v"); }

/// The shape of a tensor in the public code.
std::vector<int64_t> public_shape(const Entry& e) {
  const Shape& s = e.shape;  // [out, kh, kw, in]
  if (is_transposed(e)) return {s[3], s[0], s[1], s[2]};
  if (is_convolution(e)) return {s[0], s[3], s[1], s[2]};
  return s.sizes();
}

/// For each of our elements its place in the public code's tensor. v runs over (in, kh, kw) there, over (kh, kw, in) here;
/// `weight` is the convolution that it belongs to.
std::vector<size_t> places(const Entry& e, const Entry* weight) {
  std::vector<size_t> at(size_t(e.count()));
  const Shape s = is_right_vector(e) ? weight->shape.with(0, 1) : e.shape;
  if (!is_convolution(e) && !is_right_vector(e)) {
    for (size_t i = 0; i < at.size(); i++) at[i] = i;
    return at;
  }
  const size_t out = size_t(s[0]), kh = size_t(s[1]), kw = size_t(s[2]), in = size_t(s[3]);
  size_t i = 0;
  for (size_t o = 0; o < out; o++)
    for (size_t y = 0; y < kh; y++)
      for (size_t x = 0; x < kw; x++)
        for (size_t c = 0; c < in; c++) {
          const size_t first = is_transposed(e) ? c * out + o : o * in + c;
          at[i++] = (first * kh + y) * kw + x;
        }
  return at;
}

std::vector<float> to_ours(const std::vector<float>& theirs, const Entry& e, const Entry* weight) {
  const std::vector<size_t> at = places(e, weight);
  std::vector<float> out(at.size());
  for (size_t i = 0; i < at.size(); i++) out[i] = theirs[at[i]];
  return out;
}

std::vector<float> to_theirs(const std::vector<float>& ours, const Entry& e, const Entry* weight) {
  const std::vector<size_t> at = places(e, weight);
  std::vector<float> out(at.size());
  for (size_t i = 0; i < at.size(); i++) out[at[i]] = ours[i];
  return out;
}

/// The convolution that a v belongs to; null for everything else.
const Entry* weight_of(const ParameterSet& set, const Entry& e) {
  if (!is_right_vector(e)) return nullptr;
  const std::string name = e.name.substr(0, e.name.size() - 1) + "weight";
  for (const Entry& w : set.entries())
    if (w.name == name) return &w;
  KILN_ASSERT(!"a weight for each v");
  return nullptr;
}

// ---- reading ---------------------------------------------------------------------------------------------------------------

std::string shape_text(const std::vector<int64_t>& s) {
  std::string text;
  for (int64_t n : s) text += (text.empty() ? "" : "x") + std::to_string(n);
  return text.empty() ? "a scalar" : text;
}

/// One network's state dict, with DataParallel's prefix taken off.
class StateDict {
 public:
  StateDict(const std::string& file, const PthNode& root, const char* key) : file_(file), key_(key) {
    dict_ = root.find(key);
    if (!dict_ || dict_->kind != PthNode::Kind::dict)
      fail("{}: no state dict '{}' in it; a FastGAN checkpoint holds g and d", file, key);
    for (size_t i = 0; i < dict_->items.size(); i += 2) {
      const PthNode& name = *dict_->items[i];
      if (name.kind != PthNode::Kind::text) fail("{}: '{}' is no state dict", file, key);
      tensors_[name.text.starts_with("module.") ? name.text.substr(7) : name.text] = dict_->items[i + 1];
    }
  }
  const PthTensor* find(const std::string& name) const {
    const auto it = tensors_.find(name);
    return it == tensors_.end() || it->second->kind != PthNode::Kind::tensor ? nullptr : &it->second->tensor;
  }
  /// Size of an axis.
  int64_t size(const std::string& name, size_t axis) const {
    const PthTensor* t = find(name);
    if (!t || t->shape.size() <= axis) fail("{}: {}.{} is missing; is it a checkpoint of the public FastGAN code?", file_, key_, name);
    return t->shape[axis];
  }
  void load(ParameterSet& set, Name name) const {
    std::set<std::string> used;
    for (const Entry& e : set.entries()) {
      const std::string theirs = name(e.name);
      const PthTensor* t = find(theirs);
      if (!t) fail("{}: {}.{} is missing; is it a checkpoint of the public FastGAN code?", file_, key_, theirs);
      if (t->shape != public_shape(e))
        fail("{}: {}.{} is {}, where {} is expected; was the network's code changed?", file_, key_, theirs, shape_text(t->shape), shape_text(public_shape(e)));
      set.tensor(e).upload(to_ours(t->floats(), e, weight_of(set, e)).data());
      used.insert(theirs);
    }
    for (const auto& [theirs, value] : tensors_)
      if (!used.count(theirs) && !theirs.ends_with(".num_batches_tracked"))
        fail("{}: {}.{} has no place in FastGAN's network; was its code changed?", file_, key_, theirs);
  }

 private:
  const std::string& file_;
  std::string key_;
  PthValue dict_;
  std::map<std::string, PthValue> tensors_;
};

/// Calls f(k-th parameter's entry, k): the order of the public code's lists.
template <class F>
void each_parameter(const ParameterSet& set, F f) {
  int64_t k = 0;
  for (const Entry& e : set.entries())
    if (e.kind == Entry::parameter) f(e, k++);
}

void load_average(const std::string& file, const PthNode& list, ParameterSet& average) {
  const auto count = size_t(std::count_if(average.entries().begin(), average.entries().end(), [](const Entry& e) { return e.kind == Entry::parameter; }));
  if (list.kind != PthNode::Kind::list && list.kind != PthNode::Kind::tuple) fail("{}: g_ema is a {}, where a list is expected", file, list.kind_name());
  if (list.items.size() != count) fail("{}: g_ema has {} tensors, where {} are expected", file, list.items.size(), count);
  each_parameter(average, [&](const Entry& e, int64_t k) {
    const PthNode& t = *list.items[size_t(k)];
    if (t.kind != PthNode::Kind::tensor || t.tensor.shape != public_shape(e)) fail("{}: g_ema[{}] has not the shape of {}", file, k, public_generator_name(e.name));
    average.tensor(e).upload(to_ours(t.tensor.floats(), e, nullptr).data());
  });
}

/// Adam's state; returns its number of updates.
int64_t load_adam(const std::string& file, const char* key, const PthNode& optimiser, ParameterSet& set) {
  const PthValue state = optimiser.find("state");
  if (!state) fail("{}: {} has no state; is it an optimiser's?", file, key);
  int64_t steps = 0;
  each_parameter(set, [&](const Entry& e, int64_t k) {
    const PthValue s = state->find(k);
    if (!s) return;  // a parameter that never had a gradient: its moments are zero
    const PthValue step = s->find("step");
    if (step) steps = std::max(steps, step->kind == PthNode::Kind::tensor && step->tensor.count() == 1 ? int64_t(std::llround(step->tensor.floats()[0])) : step->integer);
    for (int which : {0, 1}) {
      const PthValue m = s->find(which == 0 ? "exp_avg" : "exp_avg_sq");
      if (!m || m->kind != PthNode::Kind::tensor || m->tensor.shape != public_shape(e))
        fail("{}: {}.state[{}] has no moments of the shape of {}", file, key, k, e.name);
      set.moment(e, which).upload(to_ours(m->tensor.floats(), e, nullptr).data());
    }
  });
  set.set_steps(steps);
  return steps;
}

Config read_config(const std::string& file, const StateDict& g, const StateDict& d) {
  Config c;
  c.size = 0;
  for (int r : {32, 64, 128, 256, 512, 1024})
    if (g.find(fmt::format("feat_{}.1.weight_orig", r))) c.size = r;
  if (c.size == 0) fail("{}: no feat_256.1.weight_orig in g; is it a checkpoint of the public FastGAN code?", file);
  c.nz = int(g.size("init.init.0.weight_orig", 0));
  c.ngf = int(g.size("init.init.1.weight", 0) / 32);
  c.ndf = int(d.size("rf_big.1.weight", 0) / 16);
  c.sle_64 = c.size < 64 || g.find("se_64.main.1.weight_orig");
  c.d_gates = c.size < 64 || d.find("se_8_64.main.1.weight_orig");
  check(c);
  return c;
}

int64_t last_number(const std::string& stem) {
  const size_t end = stem.find_last_of("0123456789");
  if (end == std::string::npos) return 0;
  size_t first = end;
  while (first > 0 && stem[first - 1] >= '0' && stem[first - 1] <= '9') first--;
  int64_t n = 0;
  std::from_chars(stem.data() + first, stem.data() + end + 1, n);
  return n;
}

// ---- writing ---------------------------------------------------------------------------------------------------------------

PthValue state_dict(const ParameterSet& set, Name name, int64_t batches) {
  PthValue dict = PthNode::dict();
  for (const Entry& e : set.entries()) {
    const std::string theirs = name(e.name);
    dict->set(theirs, PthNode::of(PthTensor::of(public_shape(e), to_theirs(set.tensor(e).to_vector(), e, weight_of(set, e)))));
    if (theirs.ends_with(".running_var"))
      dict->set(theirs.substr(0, theirs.size() - 11) + "num_batches_tracked", PthNode::of(PthTensor::of_integer(batches)));
  }
  return dict;
}

PthValue adam_state(const ParameterSet& set, const AdamOptions& o) {
  PthValue state = PthNode::dict(), parameters = PthNode::list();
  each_parameter(set, [&](const Entry& e, int64_t k) {
    parameters->items.push_back(PthNode::of(k));
    if (set.steps() == 0) return;
    const PthValue s = PthNode::dict();
    s->set("step", PthNode::of(PthTensor::of({}, {float(set.steps())})));
    for (int which : {0, 1})
      s->set(which == 0 ? "exp_avg" : "exp_avg_sq", PthNode::of(PthTensor::of(public_shape(e), to_theirs(set.moment(e, which).to_vector(), e, nullptr))));
    state->set(PthNode::of(k), s);
  });
  const PthValue group = PthNode::dict();
  group->set("lr", PthNode::of(double(o.lr)));
  group->set("betas", PthNode::list({PthNode::of(double(o.beta1)), PthNode::of(double(o.beta2))}, PthNode::Kind::tuple));
  group->set("eps", PthNode::of(double(o.eps)));
  group->set("weight_decay", PthNode::of(int64_t{0}));
  for (const char* flag : {"amsgrad", "maximize", "capturable", "differentiable"}) group->set(flag, PthNode::of(false));
  for (const char* choice : {"foreach", "fused"}) group->set(choice, PthNode::none());
  group->set("params", parameters);
  PthValue optimiser = PthNode::dict();
  optimiser->set("state", state);
  optimiser->set("param_groups", PthNode::list({group}));
  return optimiser;
}

}  // namespace

std::string public_generator_name(const std::string& name) {
  std::vector<std::string> p = split(name);
  KILN_ASSERT(p.size() >= 2);
  const std::string last = p.back();
  if (p[0] == "to_small") return "to_128." + leaf("conv", last);
  if (p[0] == "to_big") return "to_big." + leaf("conv", last);
  const std::string part = p[1], end = "." + leaf(part, last);
  if (p[0] == "init") return "init.init." + place(part, {{"conv", "0"}, {"bn", "1"}}) + end;
  if (p[0].starts_with("se_")) return p[0] + ".main." + place(part, {{"conv1", "1"}, {"conv2", "3"}}) + end;
  const bool two = p[0] == "feat_8" || p[0] == "feat_32" || p[0] == "feat_128" || p[0] == "feat_512";
  return p[0] + "." +
         (two ? place(part, {{"conv1", "1"}, {"noise1", "2"}, {"bn1", "3"}, {"conv2", "5"}, {"noise2", "6"}, {"bn2", "7"}})
              : place(part, {{"conv1", "1"}, {"bn1", "2"}})) +
         end;
}

std::string public_discriminator_name(const std::string& name) {
  std::vector<std::string> p = split(name);
  KILN_ASSERT(p.size() >= 2);
  const std::string last = p.back();
  if (p[0] == "rf_small") return "rf_small." + leaf("conv", last);
  const std::string part = p[1], end = "." + leaf(p[p.size() - 2], last);
  if (p[0] == "stem") return "down_from_big." + place(part, {{"conv1", "0"}, {"conv2", "2"}, {"bn2", "3"}}) + end;
  if (p[0] == "rf_big") return "rf_big." + place(part, {{"conv1", "0"}, {"bn1", "1"}, {"conv2", "3"}}) + end;
  if (p[0].starts_with("se_")) return p[0] + ".main." + place(part, {{"conv1", "1"}, {"conv2", "3"}}) + end;
  if (p[0] == "down_small") {
    if (part == "conv1") return "down_from_small.0" + end;
    const std::string step = place(part, {{"down1", "2"}, {"down2", "3"}, {"down3", "4"}});
    return "down_from_small." + step + ".main." + place(p[2], {{"conv1", "0"}, {"bn1", "1"}}) + end;
  }
  if (p[0].starts_with("down_"))
    return p[0] + "." + place(part, {{"conv1", "main.0"}, {"bn1", "main.1"}, {"conv2", "main.3"}, {"bn2", "main.4"}, {"conv3", "direct.1"}, {"bn3", "direct.2"}}) + end;
  KILN_ASSERT(p[0].starts_with("decoder_"));
  if (part == "conv") return p[0] + ".main.5" + end;
  return p[0] + ".main." + part.substr(2) + "." + place(p[2], {{"conv1", "1"}, {"bn1", "2"}}) + end;
}

ConvertResult convert_from_pth(const std::filesystem::path& pth, const std::filesystem::path& checkpoint, int64_t step) {
  const std::string file = pth.string();
  const PthValue root = read_pth(pth);
  const StateDict g(file, *root, "g"), d(file, *root, "d");
  RunOptions run;
  run.network = read_config(file, g, d);
  run.train.ema.warm_up = false;  // what the public code does
  run.fit = Fit::squash;

  Context context;
  const UseContext use(context);
  Model model(run.network);
  g.load(model.g_params, public_generator_name);
  d.load(model.d_params, public_discriminator_name);
  for (ParameterSet* set : {&model.g_params, &model.d_params}) {
    const std::vector<float> zero(size_t(set->m.count()), 0.f);
    set->m.upload(zero.data());
    set->v.upload(zero.data());
    set->set_steps(0);
  }
  // The public average holds parameters only; it is sampled with the live network's statistics.
  model.average_params.copy_from(model.g_params);
  ConvertResult result;
  if (const PthValue ema = root->find("g_ema"))
    load_average(file, *ema, model.average_params);
  else
    result.note = "no g_ema in it: g is taken for the averaged generator, and training goes on from it";
  const PthValue opt_g = root->find("opt_g"), opt_d = root->find("opt_d");
  if (opt_g && opt_d) {
    result.step = load_adam(file, "opt_g", *opt_g, model.g_params);
    load_adam(file, "opt_d", *opt_d, model.d_params);
    result.optimisers = true;
  } else {
    result.note += (result.note.empty() ? "" : "; ") + std::string("no opt_g and opt_d in it: Adam starts anew");
  }
  if (!result.optimisers) result.step = last_number(pth.stem().string());
  if (step >= 0) result.step = step;
  result.network = run.network;

  CheckpointWriter w;
  w.add("G.", model.g_params);
  w.add("D.", model.d_params);
  w.add("ema.", model.average_params);
  w.add_optimiser("opt_g.", model.g_params);
  w.add_optimiser("opt_d.", model.d_params);
  w.set("config", to_json(run, false));
  w.set("step", std::to_string(result.step));
  w.set("rng.seed", std::to_string(run.seed));
  w.set("best_step", "-1");
  w.set("best_distance", "-1");
  w.set("data", fmt::format("{:016x}", 0));  // its pictures are not known
  w.write(checkpoint);
  return result;
}

ConvertResult convert_to_pth(const std::filesystem::path& checkpoint, const std::filesystem::path& pth, bool plain) {
  const SafetensorsFile file(checkpoint);
  const auto it = file.metadata().find("config");
  if (it == file.metadata().end()) fail("{}: not a checkpoint of kiln (it has no configuration)", file.path());
  const RunOptions run = from_json(it->second, file.path());
  check(run.network);
  if (!run.network.noise) fail("{}: was trained with --no-noise: the public code's network always has its noise, whose weight would be missing", file.path());
  Context context;
  const UseContext use(context);
  Model model(run.network);
  load_parameters(file, "G.", model.g_params);
  load_parameters(file, "D.", model.d_params);
  load_parameters(file, "ema.", model.average_params);
  load_optimiser(file, "opt_g.", model.g_params);
  load_optimiser(file, "opt_d.", model.d_params);
  ConvertResult result;
  result.network = run.network;
  result.step = metadata_integer(file, "step");
  result.optimisers = !plain;
  const PthValue root = PthNode::dict();
  root->set("g", state_dict(plain ? model.average_params : model.g_params, public_generator_name, result.step));
  root->set("d", state_dict(model.d_params, public_discriminator_name, 3 * result.step));
  if (!plain) {
    const PthValue ema = PthNode::list();
    each_parameter(model.average_params, [&](const Entry& e, int64_t) {
      ema->items.push_back(PthNode::of(PthTensor::of(public_shape(e), to_theirs(model.average_params.tensor(e).to_vector(), e, nullptr))));
    });
    root->set("g_ema", ema);
    root->set("opt_g", adam_state(model.g_params, run.train.adam));
    root->set("opt_d", adam_state(model.d_params, run.train.adam));
  }
  std::string differences;
  if (run.network.tanh && run.network.size < 1024) differences += " --tanh";
  if (!run.network.sle_64) differences += " --no-sle-64";
  if (!run.network.d_gates) differences += " --no-d-gates";
  if (run.network.sle_leaky) differences += " --sle-leaky";
  if (run.network.size < 256) differences += fmt::format(" --size {}", run.network.size);
  if (run.network.ndf != 64) differences += fmt::format(" --ndf {} (its decoders)", run.network.ndf);
  if (!differences.empty()) result.note = "the public code as it is has no network for" + differences + ": its code must be changed to load this";
  write_pth(pth, *root);
  return result;
}

}  // namespace kiln::fastgan
