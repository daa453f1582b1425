// The programs for a trained network, as a user meets them.
#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/picture.h"
#include "engine/safetensors.h"
#include "engine/video.h"
#include "tests/program.h"
#include "tests/random_checkpoint.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::test;
namespace fs = std::filesystem;

namespace {

/// The program must end with code 2 and one line on standard error that holds all the words.
void refuses(const std::string& program, const std::vector<std::string>& arguments, const std::vector<std::string>& words) {
  const Finished f = run_program(program, arguments);
  CAPTURE(program);
  CAPTURE(f.err);
  CHECK(f.code == 2);
  CHECK(std::count(f.err.begin(), f.err.end(), '\n') == 1);
  CHECK(f.err.starts_with(program + ": "));
  for (const std::string& w : words) {
    CAPTURE(w);
    CHECK(f.err.find(w) != std::string::npos);
  }
}

std::string succeeds(const std::string& program, const std::vector<std::string>& arguments) {
  const Finished f = run_program(program, arguments);
  CAPTURE(program);
  CAPTURE(f.err);
  REQUIRE(f.code == 0);
  return f.out;
}

/// A folder with pictures and the checkpoint of a generator of `size` px.
struct Workshop {
  TempFolder t;
  std::string faces, checkpoint;
  explicit Workshop(int size) : faces(draw_faces(t, 12, size)), checkpoint(t / "c.safetensors") {
    fastgan::Config c;
    c.size = size;
    c.ngf = c.ndf = 4;
    c.nz = 16;
    write_random_checkpoint(checkpoint, c, 1);
  }
  std::string operator/(const std::string& name) const { return t / name; }
};

std::string text_of(const std::string& png, const std::string& key) {
  for (const auto& [k, v] : read_png_text(png))
    if (k == key) return v;
  return "";
}

int count_files(const std::string& folder) { return int(std::distance(fs::directory_iterator(folder), fs::directory_iterator())); }

constexpr const char* kPrograms[] = {"fastgan_sample", "fastgan_interpolate", "fastgan_stylemix", "fastgan_invert"};

}  // namespace

TEST_CASE("fastgan_tools: help needs nothing; mistakes that all share") {
  const Workshop w(32);
  std::ofstream(w / "text.safetensors") << "not a checkpoint, and long enough for a header";
  write_safetensors(w / "other.safetensors", {}, {{"format", "pt"}});
  const std::string whole = file_text(w.checkpoint);
  std::ofstream(w / "cut.safetensors", std::ios::binary) << whole.substr(0, whole.size() / 2);
  for (const std::string program : kPrograms) {
    const std::string help = succeeds(program, {"--help"});
    for (const char* word : {"CHECKPOINT", "--out", "--device", "--threads", "--memory", "--batch"}) {
      CAPTURE(word);
      CHECK(help.find(word) != std::string::npos);
    }
    std::vector<std::string> rest;
    if (program == "fastgan_invert") rest.push_back(w.faces);
    const auto with = [&](std::vector<std::string> a, std::vector<std::string> more = {}) {
      a.insert(a.end(), rest.begin(), rest.end());
      a.insert(a.end(), more.begin(), more.end());
      return a;
    };
    refuses(program, {}, {program == "fastgan_invert" ? "checkpoint" : "CHECKPOINT"});
    refuses(program, with({w / "nothing.safetensors"}), {"nothing.safetensors"});
    refuses(program, with({w / "text.safetensors"}), {"text.safetensors"});
    refuses(program, with({w / "other.safetensors"}), {"other.safetensors", "not a checkpoint of kiln"});
    refuses(program, with({w / "cut.safetensors"}), {"cut.safetensors", "cut short"});
    refuses(program, with({w.checkpoint}, {"--colour"}), {"--colour"});
    refuses(program, with({w.checkpoint}, {"--batch", "-1"}), {"--batch"});
    refuses(program, with({w.checkpoint}, {"--memory", "0.001"}), {"out of memory"});
    refuses(program, with({w.checkpoint}, {"--device", "gpu"}), {"--device"});
    refuses(program, with({w.checkpoint}, {"--threads", "x"}), {"--threads"});
  }
}

TEST_CASE("fastgan_tools: fastgan_sample: a seed's picture is its own, and says where it is from") {
  const Workshop w(32);
  const std::string out = succeeds("fastgan_sample", {w.checkpoint, "-n", "5", "--seed", "3", "--batch", "2", "--out", w / "a"});
  CHECK(contains(out, "5 pictures of 32 px"));
  CHECK(contains(out, "2 at once"));
  CHECK(count_files(w / "a") == 5);
  succeeds("fastgan_sample", {w.checkpoint, "--seeds", "7,5-6,18446744073709551615", "--out", w / "b"});
  for (const char* name : {"000005", "000006", "000007"}) {
    const Picture p = read_picture(w / (std::string("a/seed") + name + ".png")), q = read_picture(w / (std::string("b/seed") + name + ".png"));
    CHECK(p.width == 32);
    int most = 0;
    for (size_t i = 0; i < p.rgb.size(); i++) most = std::max(most, std::abs(int(p.rgb[i]) - int(q.rgb[i])));
    CHECK(most <= 1);
  }
  const std::string png = w / "b/seed18446744073709551615.png";
  CHECK(text_of(png, "seed") == "18446744073709551615");
  CHECK(text_of(png, "checkpoint") == "c.safetensors");
  CHECK(text_of(png, "generator").size() == 16);
  CHECK(text_of(png, "step") == "17");

  succeeds("fastgan_sample", {w.checkpoint, "-n", "7", "--grid", "--out", w / "g.png"});
  CHECK(read_picture(w / "g.png").width == 3 * 34 + 2);  // about square
  CHECK(contains(text_of(w / "g.png", "pictures"), "seed 6"));
  succeeds("fastgan_sample", {w.checkpoint, "-n", "7", "--grid", "7", "--truncation", "0.5", "--out", w / "g.webp"});
  CHECK(read_picture(w / "g.webp").width == 7 * 34 + 2);
  succeeds("fastgan_sample", {w.checkpoint, "-n", "2", "--format", "jpg", "--out", w / "j"});
  CHECK(read_picture(w / "j/seed000001.jpg").height == 32);
  succeeds("fastgan_sample", {w.checkpoint, "-n", "2", "--truncation", "0.5", "--out", w / "t"});
  CHECK(file_text(w / "t/seed000001.png") != file_text(w / "a/seed000004.png"));
  CHECK(text_of(w / "t/seed000001.png", "truncation") == "0.5");

  const auto wrong = [&](std::vector<std::string> more, const std::vector<std::string>& words) {
    more.insert(more.begin(), w.checkpoint);
    refuses("fastgan_sample", more, words);
  };
  wrong({"-n", "0"}, {"0"});
  wrong({"--seeds", "5-3"}, {"5-3", "backwards"});
  wrong({"--seeds", "a"}, {"'a'"});
  wrong({"--seeds", "1,,2"}, {"''"});
  wrong({"--seeds", "0-99999999999"}, {"more than"});
  wrong({"--seeds", "1", "-n", "3"}, {"--seeds"});
  wrong({"--seeds", "1", "--latents", w / "x.safetensors"}, {"--latents"});
  wrong({"--latents", w / "x.safetensors"}, {"x.safetensors"});
  wrong({"--latents", w.checkpoint}, {"not a file of latents"});
  wrong({"--truncation", "0.01"}, {"0.05"});
  wrong({"--grid", "--out", w / "g.bmp"}, {"g.bmp", ".png"});
  wrong({"--grid", "--out", w / "no/folder/g.png"}, {"no/folder"});
  wrong({"--out", w / "g.png"}, {"g.png"});
  wrong({"--format", "gif"}, {"gif"});
  wrong({"--quality", "0"}, {"--quality"});
}

TEST_CASE("fastgan_tools: fastgan_interpolate writes MP4, GIF and frames") {
  const Workshop w(32);
  const auto run = [&](std::vector<std::string> more) {
    more.insert(more.begin(), w.checkpoint);
    return succeeds("fastgan_interpolate", more);
  };
  if (video_compiled_in()) {
    CHECK(contains(run({"--seeds", "1-3", "--seconds", "0.5", "--fps", "10", "--out", w / "a.mp4"}), "11 pictures of 32 px"));
    CHECK(file_text(w / "a.mp4").substr(4, 4) == "ftyp");
    CHECK(contains(run({"--seeds", "1-3", "--seconds", "0.5", "--fps", "10", "--loop", "--out", w / "a.gif"}), "15 pictures"));
    CHECK(file_text(w / "a.gif").starts_with("GIF89a"));
  } else {
    for (const char* name : {"a.mp4", "a.gif"}) refuses("fastgan_interpolate", {w.checkpoint, "--out", w / name}, {name, "libavcodec-dev", "frames"});
    MESSAGE("built without FFmpeg's libraries: MP4 and GIF are skipped");
  }
  CHECK(contains(run({"--seeds", "1-3", "--seconds", "0.5", "--fps", "10", "--loop", "--out", w / "loop"}), "15 pictures"));
  run({"--seeds", "1,2", "--seconds", "0.4", "--fps", "10", "--path", "linear", "--easing", "linear", "--out", w / "linear"});
  run({"--seeds", "1,2", "--seconds", "0.4", "--fps", "10", "--easing", "cubic", "--out", w / "cubic"});
  CHECK(count_files(w / "linear") == 5);
  const auto frame = [&](const std::string& name) { return read_picture(w / name).rgb; };
  CHECK(frame("linear/000000.png") == frame("cubic/000000.png"));
  CHECK(frame("linear/000004.png") == frame("cubic/000004.png"));
  CHECK(frame("linear/000001.png") != frame("cubic/000001.png"));
  succeeds("fastgan_sample", {w.checkpoint, "--seeds", "1", "--out", w / "s"});
  CHECK(frame("linear/000000.png") == frame("s/seed000001.png"));

  const auto wrong = [&](std::vector<std::string> more, const std::vector<std::string>& words) {
    more.insert(more.begin(), w.checkpoint);
    refuses("fastgan_interpolate", more, words);
  };
  wrong({"--seeds", "1"}, {"two or more"});
  wrong({"--out", w / "a.avi"}, {"a.avi", ".mp4"});
  if (video_compiled_in()) {
    wrong({"--out", w / "no/folder/a.mp4"}, {"no/folder"});
    wrong({"--fps", "60", "--out", w / "b.gif"}, {"b.gif", "50"});
  }
  wrong({"--easing", "bounce"}, {"--easing"});
  wrong({"--path", "curved"}, {"--path"});
  wrong({"--seconds", "0"}, {"--seconds"});
  CHECK(!fs::exists(w / "b.gif"));
}

TEST_CASE("fastgan_tools: fastgan_stylemix: contents down, styles across") {
  const Workshop w(64);
  CHECK(contains(succeeds("fastgan_stylemix", {w.checkpoint, "--content", "1-2", "--style", "5-7", "--out", w / "m.png"}), "2 x 3 pictures of 64 px, 1 skip-layer"));
  const Picture m = read_picture(w / "m.png");
  CHECK(m.width == 4 * 66 + 2);
  CHECK(m.height == 3 * 66 + 2);
  succeeds("fastgan_sample", {w.checkpoint, "--seeds", "2,7", "--out", w / "s"});
  const auto cell = [&](int row, int column) {
    std::vector<uint8_t> v;
    for (int y = 0; y < 64; y++)
      for (int x = 0; x < 64 * 3; x++) v.push_back(m.rgb[size_t((2 + row * 66 + y) * m.width * 3 + (2 + column * 66) * 3 + x)]);
    return v;
  };
  const auto near = [](const std::vector<uint8_t>& a, const std::vector<uint8_t>& b) {
    int most = 0;
    for (size_t i = 0; i < a.size(); i++) most = std::max(most, std::abs(int(a[i]) - int(b[i])));
    return most <= 1;
  };
  CHECK(near(cell(2, 0), read_picture(w / "s/seed000002.png").rgb));
  CHECK(near(cell(0, 3), read_picture(w / "s/seed000007.png").rgb));
  CHECK(cell(0, 0) == std::vector<uint8_t>(64 * 64 * 3, 255));
  CHECK(!near(cell(2, 3), cell(0, 3)));
  CHECK(text_of(w / "m.png", "content") == "1-2");
  const Workshop none(32);
  refuses("fastgan_stylemix", {none.checkpoint}, {"no skip-layer excitation"});
  refuses("fastgan_stylemix", {w.checkpoint, "--content", "1-100"}, {"--content", "100"});
  refuses("fastgan_stylemix", {w.checkpoint, "--style", "x"}, {"--style", "'x'"});
  refuses("fastgan_stylemix", {w.checkpoint, "--out", w / "m.gif"}, {"m.gif"});
}

TEST_CASE("fastgan_tools: fastgan_invert leaves latents that the others take, sheets and distances") {
  const Workshop w(32);
  CHECK(contains(succeeds("fastgan_invert", {"--split", w.faces, "--out", w / "split"}), "11 pictures linked"));
  CHECK(count_files(w / "split/train") == 11);
  CHECK(count_files(w / "split/test") == 1);
  refuses("fastgan_invert", {"--split", w.faces, "--out", w / "split"}, {"a split already"});
  refuses("fastgan_invert", {w.checkpoint, "--split", w.faces, "--out", w / "split2"}, {"--split"});

  const std::string out = succeeds("fastgan_invert", {w.checkpoint, w.faces, "--iterations", "3", "--batch", "5", "--trained-on", w / "split/train", "--interpolate", "4", "--out", w / "inv"});
  CHECK(contains(out, "12 pictures, 3 iterations"));
  CHECK(contains(out, "face100.png  mse 0."));
  CHECK(contains(out, "Table 5"));
  CHECK(read_picture(w / "inv/reconstructions.png").width == 8 * 34 + 2);
  CHECK(read_picture(w / "inv/interpolations.png").width == 6 * 34 + 2);
  const nlohmann::json j = nlohmann::json::parse(file_text(w / "inv/distances.json"));
  CHECK(j["pictures"].size() == 12);
  CHECK(j["mean_mse"] > 0);
  CHECK(j["trained_on_pictures"] == 11);
  succeeds("fastgan_sample", {w.checkpoint, "--latents", w / "inv/latents.safetensors", "--out", w / "s"});
  CHECK(count_files(w / "s") == 12);
  CHECK(text_of(w / "s/000000.png", "latent") == "face100.png");
  succeeds("fastgan_interpolate", {w.checkpoint, "--latents", w / "inv/latents.safetensors", "--seconds", "0.1", "--out", w / "walk"});
  // One picture of another shape.
  CHECK(contains(succeeds("fastgan_invert", {w.checkpoint, w.faces + "/face100.png", "--iterations", "2", "--out", w / "one"}), "1 pictures"));
  CHECK(!fs::exists(w / "one/interpolations.png"));

  std::ofstream(w / "broken.png") << "no picture";
  fs::create_directories(w / "empty");
  const auto wrong = [&](std::vector<std::string> more, const std::vector<std::string>& words) {
    more.insert(more.begin(), w.checkpoint);
    refuses("fastgan_invert", more, words);
  };
  wrong({}, {"PICTURES"});
  wrong({w / "nowhere"}, {"nowhere"});
  wrong({w / "broken.png"}, {"broken.png"});
  wrong({w / "empty"}, {"empty"});
  wrong({w.faces, "--iterations", "0"}, {"--iterations"});
  wrong({w.faces, "--lr", "0"}, {"--lr"});
  wrong({w.faces, "--iterations", "1", "--out", w / "broken.png"}, {"broken.png"});
}
