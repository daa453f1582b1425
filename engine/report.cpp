#include "engine/report.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <vector>

#include "engine/error.h"
#include "engine/file.h"
#include "engine/picture.h"

namespace kiln {
namespace fs = std::filesystem;
extern const char* const kReportPage;  // engine/report.html
namespace {

using nlohmann::ordered_json;
constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();  // in a curve: a value that was not a number

struct Curve {
  std::vector<double> step, value;
};

struct Log {
  std::vector<std::string> keys;  // in order of appearance
  std::map<std::string, Curve> curves;
  ordered_json last = ordered_json::object();  // the last value of every key
  ordered_json warnings = ordered_json::array();
  int64_t lines = 0, broken = 0;
};

Log read_log(const fs::path& path) {
  Log log;
  std::ifstream f(path);
  for (std::string line; std::getline(f, line);) {
    const auto j = ordered_json::parse(line, nullptr, false);
    log.lines++;
    if (!j.is_object()) {
      log.broken++;
      continue;
    }
    const auto step = j.find("step");
    const bool placed = step != j.end() && step->is_number();
    if (j.contains("warning")) {
      log.warnings.push_back({{"step", placed ? *step : ordered_json(nullptr)}, {"text", j["warning"]}});
      continue;
    }
    if (!placed) continue;
    const double x = step->get<double>();
    for (const auto& [key, value] : j.items()) {
      if (!value.is_number() && !value.is_null()) continue;  // the log writes null for what is not a number
      log.last[key] = value;
      if (key == "step" || key == "images" || key == "seconds") continue;
      if (!log.curves.contains(key)) log.keys.push_back(key);
      Curve& c = log.curves[key];
      while (!c.step.empty() && c.step.back() >= x) {  // lines of a run that went back
        c.step.pop_back();
        c.value.pop_back();
      }
      c.step.push_back(x);
      c.value.push_back(value.is_number() ? value.get<double>() : kMissing);
    }
  }
  return log;
}

/// Six significant digits are more than a chart shows.
ordered_json number(double v) {
  if (!std::isfinite(v)) return nullptr;
  if (v == std::floor(v) && std::abs(v) < 1e15) return int64_t(v);
  return std::stod(fmt::format("{:.6g}", v));
}

/// {x, y}, and for a long curve the range {lo, hi} of the values behind each mean.
ordered_json thinned(const Curve& c, int points) {
  ordered_json x = ordered_json::array(), y = x, lo = x, hi = x;
  const size_t n = c.step.size(), groups = std::min(n, size_t(std::max(points, 1)));
  for (size_t g = 0; g < groups; g++) {
    const size_t first = g * n / groups, end = (g + 1) * n / groups;
    double sum = 0, low = INFINITY, high = -INFINITY;
    size_t count = 0;
    for (size_t i = first; i < end; i++) {
      if (!std::isfinite(c.value[i])) continue;
      sum += c.value[i];
      low = std::min(low, c.value[i]);
      high = std::max(high, c.value[i]);
      count++;
    }
    x.push_back(number(c.step[end - 1]));
    y.push_back(count ? number(sum / double(count)) : ordered_json(nullptr));
    lo.push_back(count ? number(low) : ordered_json(nullptr));
    hi.push_back(count ? number(high) : ordered_json(nullptr));
  }
  ordered_json out{{"x", x}, {"y", y}};
  if (n > groups) out.update({{"lo", lo}, {"hi", hi}});
  return out;
}

struct Title {
  const char *group, *title, *note;
};
/// Titles of the groups that a training logs, in the order of the page. Any other group has its name as its title.
constexpr Title kTitles[] = {
    {"swd", "Distance to the real pictures", "sliced Wasserstein distance × 1000, lower is better; dashed: real against real"},
    {"class_swd", "Distance of each class to its own pictures", "sliced Wasserstein distance × 1000, lower is better; dashed: real against real, mean of the classes"},
    {"fid", "Fréchet distance", "lower is better; dashed: real against real"},
    {"kid", "Kernel distance", "lower is better; dashed: real against real"},
    {"loss", "Losses", "the discriminator's for real and fake pictures, and the generator's"},
    {"logit", "The discriminator's mean answers", "real above fake; near each other it cannot tell them apart"},
    {"recon", "Reconstruction losses", "before the weight"},
    {"diversity", "Diversity of the samples", "mean distance between generated pictures, relative to the real ones: 1 is as varied"},
    {"sigma", "Largest singular values", "of any layer's weights, before they are divided by them"},
    {"sv_g", "Singular values of the generator's layers", "the largest of each; one that suddenly grows announces collapse"},
    {"sv_d", "Singular values of the discriminator's layers", "the largest of each; spikes recover"},
    {"gradient", "Gradient norms", "of all parameters of a network"},
    {"metric_seconds", "Time of a measurement", "of the distances on a network's features, seconds"},
    {"images_per_second", "Throughput", "pictures a second in training steps"},
    {"memory_mb", "Memory", "of tensors at the peak, MiB"},
};

std::string group_of(const std::string& key) {
  for (const Title& t : kTitles)
    if (key == t.group || key.starts_with(std::string(t.group) + ".") || key == std::string(t.group) + "_baseline") return t.group;
  return key.substr(0, key.find('_'));
}

ordered_json charts(const Log& log) {
  std::vector<std::pair<std::string, ordered_json>> groups;
  const auto group = [&](const std::string& name) -> ordered_json& {
    for (auto& g : groups)
      if (g.first == name) return g.second;
    groups.push_back({name, ordered_json{{"id", name}, {"title", name}, {"note", ""}, {"keys", ordered_json::array()}}});
    return groups.back().second;
  };
  for (const Title& t : kTitles) group(t.group).update({{"title", t.title}, {"note", t.note}});
  for (const std::string& key : log.keys) {
    ordered_json& keys = group(group_of(key))["keys"];
    // The group's own number before its parts, and its reference right after it.
    if (key == group_of(key))
      keys.insert(keys.begin(), key);
    else
      keys.push_back(key);
  }
  ordered_json out = ordered_json::array();
  for (auto& g : groups)
    if (!g.second["keys"].empty()) out.push_back(g.second);
  return out;
}

std::string base64(const std::vector<uint8_t>& bytes) {
  static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t rest = bytes.size() - i;
    const uint32_t v = uint32_t(bytes[i] << 16) | uint32_t(rest > 1 ? bytes[i + 1] << 8 : 0) | uint32_t(rest > 2 ? bytes[i + 2] : 0);
    for (size_t k = 0; k < 4; k++) out += k <= rest ? kDigits[v >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

/// A text as it may stand between tags.
std::string html_text(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == '<') out += "&lt;";
    else if (c == '>') out += "&gt;";
    else if (c == '&') out += "&amp;";
    else if (c == '"') out += "&quot;";
    else out += c;
  }
  return out;
}

/// JSON as it may stand inside a script element: nothing in it can end the element. What is not UTF-8 is replaced.
std::string script_text(const ordered_json& j) {
  std::string out;
  for (char c : j.dump(-1, ' ', false, ordered_json::error_handler_t::replace)) {
    if (c == '<') out += "\\u003c";
    else if (c == '>') out += "\\u003e";
    else if (c == '&') out += "\\u0026";
    else out += c;
  }
  return out;
}

void replace(std::string& page, const std::string& mark, const std::string& by) {
  const size_t at = page.find(mark);
  KILN_ASSERT(at != std::string::npos);
  page.replace(at, mark.size(), by);
}

std::string now_text() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm t{};
  gmtime_r(&now, &t);
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02} UTC", t.tm_year + 1900, t.tm_mon + 1, t.tm_mday, t.tm_hour, t.tm_min);
}

/// The step and the suffix of a sheet's name: 000400_recon.png.
std::optional<std::pair<int64_t, std::string>> sheet_name(const fs::path& file) {
  const std::string stem = file.stem().string();
  const size_t digits = std::min(stem.find_first_not_of("0123456789"), stem.size());
  if (digits < 6 || digits > 15) return std::nullopt;
  return std::pair(int64_t(std::stoll(stem.substr(0, digits))), stem.substr(digits));
}

/// Every stride-th of the steps and the last one: a sheet that is shown once stays until the stride grows.
std::vector<size_t> every(size_t count, size_t stride) {
  std::vector<size_t> out;
  for (size_t i = 0; i < count; i += stride) out.push_back(i);
  if (count > 0 && (count - 1) % stride != 0) out.push_back(count - 1);
  return out;
}

}  // namespace

Report::Report(fs::path run, ReportOptions options) : run_(std::move(run)), options_(options) {}

const std::string& Report::sheet(const fs::path& file) {
  std::error_code e;
  const std::string state = fmt::format("{} {}", fs::file_size(file, e), fs::last_write_time(file, e).time_since_epoch().count());
  Sheet& s = sheets_[file.filename().string()];
  if (s.state == state) return s.uri;
  s = {state, ""};
  try {
    const Picture p = shrink_picture(read_picture(file), options_.longest_side);
    s.uri = "data:image/webp;base64," + base64(encode_webp(p, options_.quality));
  } catch (const Error&) {
    // html() counts it
  }
  return s.uri;
}

std::string Report::html() {
  std::error_code e;
  if (!fs::exists(run_ / "log.jsonl", e) && !fs::exists(run_ / "config.json", e))
    fail("{}: is not a run directory: it has neither a log.jsonl nor a config.json; name the folder that --out named", run_.string());
  ordered_json config = ordered_json::object(), commands = ordered_json::array(), notes = ordered_json::array();
  if (fs::exists(run_ / "config.json", e)) {
    const std::vector<uint8_t> text = read_file(run_ / "config.json", 1 << 26);
    config = ordered_json::parse(text, nullptr, false);
    if (!config.is_object()) {
      notes.push_back("config.json cannot be read");
      config = ordered_json::object();
    }
  }
  if (config.contains("commands") && config["commands"].is_array()) {
    commands = config["commands"];
    config.erase("commands");
  }

  const Log log = read_log(run_ / "log.jsonl");
  if (log.broken > 0) notes.push_back(fmt::format("{} of {} lines of log.jsonl could not be read", log.broken, log.lines));
  ordered_json series = ordered_json::object();
  bool thinner = false;
  for (const std::string& key : log.keys) {
    series[key] = thinned(log.curves.at(key), options_.points);
    thinner = thinner || series[key].contains("lo");
  }
  if (thinner) notes.push_back(fmt::format("Curves are thinned to {} points: means, with the range in a paler tone", options_.points));

  // The sheets by suffix. If they are too many bytes, every second one goes, and so on.
  std::map<std::string, std::map<int64_t, fs::path>> found;
  ordered_json references = ordered_json::array();
  uint64_t reference_bytes = 0;
  int unreadable = 0;
  std::set<fs::path> files;
  for (const auto& entry : fs::directory_iterator(run_ / "samples", e))
    if (entry.path().extension() == ".png") files.insert(entry.path());
  for (const fs::path& file : files) {
    if (const auto name = sheet_name(file)) {
      found[name->second][name->first] = file;
    } else if (const std::string& uri = sheet(file); uri.empty()) {
      unreadable++;
    } else if (reference_bytes + uri.size() <= options_.picture_bytes / 4) {
      reference_bytes += uri.size();
      references.push_back({{"name", file.stem().string()}, {"src", uri}});
    }
  }
  ordered_json reels = ordered_json::array();
  for (const auto& [suffix, steps] : found) {
    const std::vector<std::pair<int64_t, fs::path>> all(steps.begin(), steps.end());
    const uint64_t budget = (options_.picture_bytes - reference_bytes) / found.size();
    size_t stride = 1;
    while (all.size() > stride * size_t(std::max(options_.sheets, 2))) stride *= 2;
    for (bool fits = false; !fits; stride *= 2) {
      uint64_t bytes = 0;
      for (size_t i : every(all.size(), stride)) bytes += sheet(all[i].second).size();
      fits = bytes <= budget || stride >= all.size();
      if (fits) break;
    }
    ordered_json frames = ordered_json::array();
    for (size_t i : every(all.size(), stride)) {
      const std::string& uri = sheet(all[i].second);
      if (uri.empty()) unreadable++;
      else frames.push_back({{"step", all[i].first}, {"src", uri}});
    }
    if (frames.empty()) continue;
    std::string name = suffix.empty() ? "samples" : suffix.substr(suffix.front() == '_' ? 1 : 0);
    reels.push_back({{"name", name == "recon" ? "reconstructions" : name}, {"frames", frames}, {"of", all.size()}});
  }
  if (unreadable > 0) notes.push_back(fmt::format("{} pictures in samples/ could not be read", unreadable));

  const std::string name = fs::absolute(run_, e).lexically_normal().filename().string();
  const fs::path whole = fs::absolute(run_, e).lexically_normal();
  const std::string title = name.empty() ? whole.parent_path().filename().string() : name;
  const ordered_json data{{"run", title},         {"written", now_text()},      {"last", log.last},
                          {"config", config},     {"commands", commands},       {"charts", charts(log)},
                          {"series", series},     {"warnings", log.warnings},   {"reels", reels},
                          {"references", references}, {"notes", notes}};
  std::string page = kReportPage;
  replace(page, "{{DATA}}", script_text(data));  // first: a title may look like a mark, and stands before the data
  replace(page, "{{TITLE}}", html_text(title));
  return page;
}

void Report::write() {
  const std::string page = html();
  AtomicFile f(run_ / "report.html", page.size());
  f.write(page.data(), page.size());
  f.commit(false);  // it can be made again
}

}  // namespace kiln
