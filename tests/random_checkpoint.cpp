#include "tests/random_checkpoint.h"

#include "engine/checkpoint.h"
#include "models/fastgan_run.h"
#include "models/fastgan_training.h"

namespace kiln::test {

using namespace fastgan;

namespace {

void write_average(const std::string& path, const Model& m, const Config& c) {
  CheckpointWriter w;
  w.add("ema.", m.average_params);
  RunOptions o;
  o.network = c;
  w.set("config", to_json(o, false));
  w.set("step", "17");
  w.write(path);
}

}  // namespace

Tensor write_random_checkpoint(const std::string& path, const Config& c, uint64_t seed, const Tensor& z, const std::vector<uint64_t>& noise) {
  std::optional<Context> own;
  std::optional<UseContext> use;
  if (!z) use.emplace(own.emplace());
  const auto random = std::make_shared<Philox>(seed);
  context().random = random;
  Model m(c);
  m.initialise(*random);
  // Singular vectors that are none would make sigma small and the network chaotic: three power iterations.
  SpectralGroup group(m.g);
  for (int i = 0; i < 3; i++) group.prepare(m.g_params.values, Tensor(), m.g_params.vectors);
  group.release();
  for (const auto& e : m.average_params.entries()) {
    std::vector<float> v = m.average_params.tensor(e).to_vector();
    const std::vector<float> u = random->uniform("test." + e.name, Shape{1, e.count()}).to_vector();
    for (size_t i = 0; i < v.size(); i++) {
      if (e.name.ends_with("running_var")) v[i] = 0.2f + 2 * u[i];
      if (e.name.ends_with("running_mean")) v[i] = u[i] - 0.5f;
      if (e.name.find("noise") != std::string::npos) v[i] = 0.3f + u[i];
      if (e.name.ends_with("bn1.weight") || e.name.ends_with("bn2.weight") || e.name == "init.bn.weight") v[i] = 0.5f + 2 * u[i];
      if (e.name.ends_with("bias")) v[i] = u[i] - 0.3f;
    }
    m.average_params.tensor(e).upload(v.data());
  }
  Tensor pictures;
  if (z) {
    context().random = std::make_shared<PictureSeeds>(noise);
    pictures = m.sample(z);
  }
  m.average_params.copy_vectors_from(m.g_params);
  write_average(path, m, c);
  return pictures;
}

void write_responsive_checkpoint(const std::string& path, const Config& c, uint64_t seed) {
  Context own;
  const UseContext use(own);
  const auto random = std::make_shared<Philox>(seed);
  context().random = random;
  Model m(c);
  m.initialise(*random);
  SpectralGroup group(m.g);
  const NoGrad none;
  for (int i = 0; i < 40; i++) {
    random->set_step(uint64_t(i));
    group.prepare(m.g_params.values, Tensor(), m.g_params.vectors);
    m.g(Var(random->normal("z", Shape{16, c.nz})));
    group.release();
  }
  m.average_params.copy_from(m.g_params);
  write_average(path, m, c);
}

}  // namespace kiln::test
