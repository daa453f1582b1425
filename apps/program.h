// What kiln's smaller programs share: how one starts, shows its help and ends on a mistake; how lists of seeds read; the flags
// of everything that loads a generator.
#pragma once
#include <omp.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdio>
#include <string>
#include <vector>

#include "apps/start.h"
#include "engine/error.h"
#include "engine/ranks.h"
#include "models/fastgan_sampler.h"

namespace kiln {

/// Declares flags by `add(app)`, then runs `body()`. Help goes to standard output with code 0; whatever is wrong goes to
/// standard error in one line that begins with the program's name, with code 2.
template <class Add, class Body>
int run_program(int argc, char** argv, const char* name, const char* description, Add add, Body body) {
  if (Ranks::launched()) {  // as many copies would write the same files
    if (Ranks::speaks()) fmt::print(stderr, "{}: works in one process: start it without mpirun\n", name);
    return 2;
  }
  spin_briefly(argv);
  CLI::App app(description, name);
  app.get_formatter()->column_width(34);
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);  // a flag given twice: the last one counts
  try {
    add(app);
    app.parse(argc, argv);
    body();
    return 0;
  } catch (const CLI::CallForHelp&) {
    std::fputs(app.help().c_str(), stdout);
    return 0;
  } catch (const CLI::Error& e) {
    fmt::print(stderr, "{}: {}; see --help\n", name, e.what());
    return 2;
  } catch (const std::exception& e) {
    fmt::print(stderr, "{}: {}\n", name, e.what());
    return 2;
  }
}

/// "3", "1,5,8-12": seeds in the order given. Throws kiln::Error naming the flag.
inline std::vector<uint64_t> parse_seeds(const char* flag, const std::string& text) {
  constexpr uint64_t kMost = 10'000'000;
  std::vector<uint64_t> out;
  const auto number = [&](std::string_view part) {
    uint64_t v = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), v);
    if (error != std::errc() || end != part.data() + part.size())
      fail("{} {}: '{}' is not a seed; give numbers and ranges like 1,5,8-12", flag, text, part);
    return v;
  };
  for (size_t at = 0; at <= text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    const std::string_view part = std::string_view(text).substr(at, comma - at);
    const size_t dash = part.find('-');
    const uint64_t first = number(part.substr(0, dash)), last = dash == std::string_view::npos ? first : number(part.substr(dash + 1));
    if (last < first) fail("{} {}: the range {} runs backwards", flag, text, part);
    if (last - first >= kMost || out.size() + (last - first) >= kMost) fail("{} {}: more than {} seeds", flag, text, kMost);
    for (uint64_t s = first; s < last; s++) out.push_back(s);
    out.push_back(last);
    at = comma + 1;
  }
  return out;
}

/// The checkpoint, and the machine that it runs on.
struct GeneratorFlags {
  std::string checkpoint, device = "cpu";
  fastgan::SamplerOptions options;
  int threads = 0;

  void add(CLI::App& app, bool required = true) {
    CLI::Option* file = app.add_option("CHECKPOINT", checkpoint, "a kiln checkpoint (.safetensors) of FastGAN");
    if (required) file->required();
    const auto machine = [&](CLI::Option* o) { o->group("Machine"); };
    machine(app.add_option("--device", device, "cpu or gpu")->check(CLI::IsMember({"cpu", "gpu"}))->capture_default_str());
    machine(app.add_option("--threads", threads, "CPU threads (0: all cores)")->check(CLI::Range(0, 4096))->capture_default_str());
    machine(app.add_option("--memory", options.memory_gb, "limit for tensors in GiB (0: half of what is free)")->check(CLI::Range(0.0, 1e5))->capture_default_str());
    machine(app.add_option("--batch", options.batch, "pictures computed at once (0: by memory)")->check(CLI::Range(0, 4096))->capture_default_str());
  }
  /// After parsing.
  const fastgan::SamplerOptions& settled() {
    if (threads > 0) omp_set_num_threads(threads);
    options.device = device == "gpu" ? Device::gpu : Device::cpu;
    return options;
  }
  fastgan::Sampler open() { return fastgan::Sampler(checkpoint, settled()); }
};

/// Which latents a program works on: seeds, or a file that fastgan_invert wrote.
struct LatentFlags {
  std::string seeds, file;
  double truncation = 0;

  void add(CLI::App& app, const char* seeds_help) {
    app.add_option("--seeds", seeds, seeds_help);
    app.add_option("--latents", file, "latents of a file that fastgan_invert wrote, in place of seeds");
    app.add_option("--truncation", truncation, "draw numbers of z beyond this again: fewer kinds of pictures, more typical ones (0: do not)")->capture_default_str();
  }
  struct Chosen {
    std::vector<fastgan::Latent> latents;
    std::vector<std::string> names;  // "seed 7", or the name of the inverted picture
    std::vector<uint64_t> seeds;     // empty where they come from a file
  };
  /// The latents; `otherwise` are the seeds where the user named none. Throws kiln::Error.
  Chosen choose(const fastgan::Sampler& sampler, std::vector<uint64_t> otherwise) const {
    Chosen out;
    if (!file.empty()) {
      if (!seeds.empty()) fail("--seeds and --latents: give one of them");
      if (truncation != 0) fail("--truncation: belongs to seeds; the latents of a file are used as they are");
      fastgan::LatentFile f = fastgan::read_latents(file);
      if (!f.latents.empty() && int(f.latents[0].z.size()) != sampler.latent_size())
        fail("{}: its latents have {} numbers, {} takes {}; they belong to another network", file, f.latents[0].z.size(), sampler.name(), sampler.latent_size());
      if (!f.fingerprint.empty() && f.fingerprint != sampler.fingerprint())
        fmt::print(stderr, "{}: its latents were found for another checkpoint; the pictures will differ\n", file);
      out.latents = std::move(f.latents);
      for (size_t i = 0; i < out.latents.size(); i++) out.names.push_back(f.names[i].empty() ? fmt::format("latent {}", i) : f.names[i]);
      return out;
    }
    for (const uint64_t s : seeds.empty() ? otherwise : parse_seeds("--seeds", seeds)) {
      out.latents.push_back(sampler.latent(s, truncation));
      out.names.push_back(fmt::format("seed {}", s));
      out.seeds.push_back(s);
    }
    return out;
  }
};

/// What a PNG tells about the generator that made it.
inline PngText origin(const char* program, const fastgan::Sampler& s) {
  return {{"Software", fmt::format("kiln {}", program)}, {"checkpoint", s.name()}, {"generator", s.fingerprint()}, {"step", std::to_string(s.step())}};
}

}  // namespace kiln
