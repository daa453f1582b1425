#include "models/metric_pictures.h"

#include <cmath>
#include <cstring>

#include "engine/checkpoint.h"
#include "engine/dataset_cache.h"
#include "engine/error.h"
#include "engine/file.h"
#include "models/fastgan_run.h"

namespace kiln {
namespace {

class FolderSource : public MetricPictures {
 public:
  explicit FolderSource(const DatasetOptions& o) : data_(o), folder_(o.folder.string()), fit_(fit_name(o.fit)) { size_ = data_.size(); }
  int64_t count() const override { return int64_t(data_.count()); }
  void read(int64_t first, int64_t n, uint8_t* out) override {
    KILN_ASSERT(first >= 0 && first + n <= count());
    for (int64_t i = 0; i < n; i++) data_.read(size_t(first + i), out + size_t(i) * picture_bytes());
  }
  uint64_t fingerprint() const override { return data_.fingerprint(); }
  std::string description() const override {
    const size_t bad = data_.failures().size();
    return fmt::format("{}: {} pictures, {} to {} px{}", folder_, data_.count(), fit_, size_, bad ? fmt::format(" ({} could not be read)", bad) : "");
  }

 private:
  Dataset data_;
  std::string folder_, fit_;
};

std::string configuration(const SafetensorsFile& file) {
  const auto it = file.metadata().find("config");
  if (it == file.metadata().end()) fail("{}: not a checkpoint of kiln (it has no configuration)", file.path());
  return it->second;
}

/// The random numbers of a training run's sample grids and of its distance are those of its seed and this one.
constexpr uint64_t kSampleSeed = 0x5A4D504C45ull;

class GeneratorSource : public MetricPictures {
 public:
  explicit GeneratorSource(const GeneratorOptions& o) : o_(o), context_(o.device) {
    const UseContext use(context_);
    const SafetensorsFile file(o.checkpoint);
    const fastgan::RunOptions run = fastgan::from_json(configuration(file), file.path());
    fastgan::check(run.network);
    generator_ = std::make_unique<fastgan::Generator>(run.network);
    average_ = ParameterSet(*generator_, false);
    load_parameters(file, "ema.", average_);
    spectral_ = SpectralGroup(*generator_);
    step_ = metadata_integer(file, "step");
    size_ = run.network.size;
    seed_ = o.seed < 0 ? run.seed : uint64_t(o.seed);
    random_ = std::make_shared<Philox>(seed_ ^ kSampleSeed);
    context_.random = random_;
  }
  int64_t count() const override { return -1; }
  void read(int64_t first, int64_t n, uint8_t* out) override {
    const UseContext use(context_);
    const NoGrad none;
    const Evaluation evaluation;
    spectral_.prepare(average_.values, Tensor(), average_.vectors);
    for (int64_t done = 0; done < n;) {
      const int64_t now = std::min<int64_t>(o_.batch, n - done);
      random_->set_first_sample(first + done);
      const Tensor z = random_->normal("z", Shape{now, generator_->config().nz});
      for (const float v : (*generator_)(Var(z)).big.value.to_vector()) {
        const float f = (v + 1.0f) * 127.5f;
        *out++ = uint8_t(std::lround(f < 0.f || f != f ? 0.f : f > 255.f ? 255.f : f));
      }
      done += now;
    }
    spectral_.release();
  }
  std::string description() const override {
    return fmt::format("{}: averaged generator of step {}, {} px, seed {}", o_.checkpoint.string(), step_, size_, seed_);
  }

 private:
  GeneratorOptions o_;
  Context context_;
  std::unique_ptr<fastgan::Generator> generator_;
  ParameterSet average_;
  SpectralGroup spectral_;
  std::shared_ptr<Philox> random_;
  int64_t step_ = 0;
  uint64_t seed_ = 0;
};

class KeptSource : public MetricPictures {
 public:
  KeptSource(std::unique_ptr<MetricPictures> source, size_t bytes) : source_(std::move(source)), most_(int64_t(bytes / source_->picture_bytes())) {
    size_ = source_->size();
  }
  int64_t count() const override { return source_->count(); }
  uint64_t fingerprint() const override { return source_->fingerprint(); }
  std::string description() const override { return source_->description(); }
  void read(int64_t first, int64_t n, uint8_t* out) override {
    const int64_t end = std::min(first + n, most_), from_memory = std::max<int64_t>(0, end - first);
    if (end > kept_) {
      pixels_.resize(size_t(end) * picture_bytes());
      source_->read(kept_, end - kept_, pixels_.data() + size_t(kept_) * picture_bytes());
      kept_ = end;
    }
    if (from_memory > 0) std::memcpy(out, pixels_.data() + size_t(first) * picture_bytes(), size_t(from_memory) * picture_bytes());
    if (from_memory < n) source_->read(first + from_memory, n - from_memory, out + size_t(from_memory) * picture_bytes());
  }

 private:
  std::unique_ptr<MetricPictures> source_;
  std::vector<uint8_t> pixels_;
  int64_t most_, kept_ = 0;
};

}  // namespace

CheckpointPictures checkpoint_pictures(const std::filesystem::path& checkpoint) {
  const SafetensorsFile file(checkpoint);
  const fastgan::RunOptions run = fastgan::from_json(configuration(file), file.path());
  fastgan::check(run.network);
  return {run.network.size, run.fit, run.background};
}

int first_picture_side(const std::filesystem::path& folder) {
  for (const auto& c : dataset::scan_folder(folder).candidates) {
    try {
      const PictureSize s = picture_size(read_file(folder / c.path, uint64_t{1} << 30), c.path);
      return std::min(s.width, s.height);
    } catch (const Error&) {  // the folder's reader will tell
    }
  }
  fail("{}: no picture in it can be read (jpg, png, webp, bmp, tga)", folder.string());
}

std::unique_ptr<MetricPictures> folder_source(const DatasetOptions& options) { return std::make_unique<FolderSource>(options); }
std::unique_ptr<MetricPictures> generator_source(const GeneratorOptions& options) { return std::make_unique<GeneratorSource>(options); }
std::unique_ptr<MetricPictures> keep_pictures(std::unique_ptr<MetricPictures> source, size_t bytes) {
  return std::make_unique<KeptSource>(std::move(source), bytes);
}

}  // namespace kiln
