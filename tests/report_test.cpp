// report.html: what is in it, what it survives, and that a real browser draws it without complaint.
#include "engine/report.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/picture.h"
#include "tests/program.h"
#include "tests/support.h"

using namespace kiln;
using namespace kiln::test;
namespace fs = std::filesystem;
using nlohmann::json;

namespace {

Picture plain(int width, int height, uint8_t value) {
  Picture p{width, height, std::vector<uint8_t>(size_t(width) * size_t(height) * 3, value)};
  for (size_t i = 0; i < p.rgb.size(); i++) p.rgb[i] = uint8_t(value + i % 31);
  return p;
}

/// A picture that no codec makes small.
Picture noise(int side, uint64_t seed) {
  Picture p{side, side, std::vector<uint8_t>(size_t(side) * size_t(side) * 3)};
  for (size_t i = 0; i < p.rgb.size(); i++) p.rgb[i] = uint8_t(255 * hash_uniform("noise", seed * 1000003 + i));
  return p;
}

fs::path make_run(const TempFolder& t, const std::string& name, int lines, int every = 20) {
  const fs::path run = t.path() / name;
  fs::create_directories(run / "samples");
  std::ofstream(run / "config.json") << R"({"model": "fastgan", "size": 64, "steps": 5000, "commands": ["./train 'a b' --x </script>"], "data": "a<b>&\"c\""})";
  std::ofstream log(run / "log.jsonl");
  for (int i = 1; i <= lines; i++) {
    log << json{{"step", i * every}, {"images", i * every * 8}, {"loss_g", 1.0 + i}, {"logit_real", -0.5}, {"images_per_second", 50.0}}.dump() << '\n';
    if (i % 5 == 0) log << json{{"step", i * every}, {"swd", 50.0 / i}, {"swd_64", 2.0}, {"swd_baseline", 5.0}}.dump() << '\n';
  }
  write_png(run / "samples" / "real.png", plain(64, 64, 10));
  write_png(run / "samples" / "000020.png", plain(64, 64, 20));
  write_png(run / "samples" / "000040.png", plain(64, 64, 30));
  write_png(run / "samples" / "000040_recon.png", plain(64, 32, 40));
  return run;
}

/// The data inside a page.
json data_of(const std::string& page) {
  const std::string open = "<script type=\"application/json\" id=\"data\">";
  const size_t at = page.find(open);
  REQUIRE(at != std::string::npos);
  const size_t end = page.find("</script>", at);
  REQUIRE(end != std::string::npos);
  return json::parse(page.substr(at + open.size(), end - at - open.size()));
}

/// Every element that is opened is closed, in order; what the page is made of holds nothing that a browser would fetch.
void check_markup(const std::string& page) {
  std::vector<std::string> open;
  for (size_t at = page.find('<'); at != std::string::npos; at = page.find('<', at)) {
    if (page.compare(at, 4, "<!--") == 0) {
      at = page.find("-->", at);
      continue;
    }
    if (page.compare(at, 2, "<!") == 0) {
      at++;
      continue;
    }
    const size_t end = page.find('>', at);
    REQUIRE(end != std::string::npos);
    const bool closing = page[at + 1] == '/';
    const size_t from = at + (closing ? 2 : 1);
    const std::string name = page.substr(from, std::min(page.find_first_of(" >", from), end) - from);
    at = end;
    if (closing) {
      REQUIRE(!open.empty());
      CHECK(open.back() == name);
      open.pop_back();
    } else if (name != "meta" && name != "link") {
      open.push_back(name);
      if (name == "script" || name == "style") at = page.find("</" + name, at);
    }
  }
  CHECK(open.empty());
  for (const char* outside : {"src=\"http", "href=\"http", "url(http", "@import", "fetch(", "XMLHttpRequest", "import("}) {
    CAPTURE(outside);
    CHECK(page.find(outside) == std::string::npos);
  }
}

std::string browser() {
  for (const char* name : {"/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"})
    if (fs::exists(name)) return name;
  return "";
}

/// What a browser makes of the page; empty where there is none. Complaints of the page's scripts are failures.
std::string drawn(const TempFolder& t, const fs::path& page) {
  const std::string program = browser();
  if (program.empty()) {
    MESSAGE("no chromium here: the page is only parsed");
    return "";
  }
  // Under a plain name, and with a user who presses every button, moves every slider and points at every chart.
  std::string text = file_text(page);
  text.insert(text.rfind("</body>"), R"js(<script>
    for (const b of document.querySelectorAll("button")) b.click();
    for (const b of document.querySelectorAll("button")) b.click();
    for (const i of document.querySelectorAll("input")) { i.value = i.max; i.dispatchEvent(new Event("input")); }
    setTimeout(() => {  // after the page has been laid out
     for (const s of document.querySelectorAll("svg")) {
      const r = s.getBoundingClientRect();
      s.dispatchEvent(new PointerEvent("pointermove", { clientX: r.left + r.width * 0.9, clientY: r.top + 20 }));
     }
     document.body.dataset.tips = document.querySelectorAll(".tip:not([hidden])").length;
    }, 500);
  </script>)js");
  std::ofstream(t / "page.html", std::ios::binary) << text;
  const std::string command = program + " --headless --no-sandbox --disable-gpu --virtual-time-budget=3000 --enable-logging=stderr --user-data-dir='" +
                              t / "profile" + "' --dump-dom 'file://" + t / "page.html" + "' >'" + t / "dom" + "' 2>'" + t / "complaints" + "'";
  REQUIRE(std::system(command.c_str()) == 0);
  std::istringstream complaints(file_text(t / "complaints"));
  for (std::string line; std::getline(complaints, line);)
    if (contains(line, "CONSOLE")) FAIL_CHECK(line);
  return file_text(t / "dom");
}

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) n++;
  return n;
}

}  // namespace

TEST_CASE("report: curves, sheets, configuration and command of a run") {
  const TempFolder t;
  const fs::path run = make_run(t, "run", 10);
  std::ofstream(run / "log.jsonl", std::ios::app) << R"({"step": 200, "warning": "it went <b>wrong</b>"})" << '\n';
  Report report(run);
  report.write();
  const std::string page = file_text(run / "report.html");
  check_markup(page);
  CHECK(contains(page, "<title>run · kiln</title>"));
  const json d = data_of(page);
  CHECK(d["run"] == "run");
  CHECK(d["last"]["step"] == 200);
  CHECK(d["config"]["size"] == 64);
  CHECK(!d["config"].contains("commands"));
  CHECK(d["commands"][0] == "./train 'a b' --x </script>");
  CHECK(d["warnings"] == json::parse(R"([{"step": 200, "text": "it went <b>wrong</b>"}])"));
  CHECK(d["series"]["loss_g"]["x"].size() == 10);
  CHECK(d["series"]["loss_g"]["y"][9] == 11);
  CHECK(!d["series"]["loss_g"].contains("lo"));
  CHECK(!d["series"].contains("step"));
  CHECK(!d["series"].contains("images"));
  std::vector<std::string> titles;
  for (const json& c : d["charts"]) titles.push_back(c["id"]);
  CHECK(titles == std::vector<std::string>{"swd", "loss", "logit", "images_per_second"});
  CHECK(d["charts"][0]["keys"] == json::parse(R"(["swd", "swd_64", "swd_baseline"])"));
  REQUIRE(d["reels"].size() == 2);
  CHECK(d["reels"][0]["name"] == "samples");
  CHECK(d["reels"][0]["frames"].size() == 2);
  CHECK(d["reels"][0]["frames"][1]["step"] == 40);
  CHECK(d["reels"][0]["frames"][1]["src"].get<std::string>().starts_with("data:image/webp;base64,UklGR"));  // "RIFF"
  CHECK(d["reels"][1]["name"] == "reconstructions");
  CHECK(d["references"][0]["name"] == "real");

  const std::string dom = drawn(t, run / "report.html");
  if (!dom.empty()) {
    CHECK(contains(dom, "data-ready=\"yes\""));
    CHECK(count(dom, "<svg") == 4);
    CHECK(contains(dom, "data-tips=\"4\""));
    CHECK(contains(dom, "class=\"soft\">step 180<"));  // what the pointer is nearest to
    CHECK(contains(dom, "step 200: it went &lt;b&gt;wrong&lt;/b&gt;"));
    CHECK(contains(dom, "200 / 5,000"));
    CHECK(contains(dom, "--x &lt;/script&gt;"));
  }
}

TEST_CASE("report: odd names, two steps, no samples, lines and pictures that cannot be read") {
  const TempFolder t;
  const std::string odd = "<img src=x onerror=alert(1)> & \"q\" {{DATA}} {{TITLE}} \xff";
  const fs::path run = make_run(t, odd, 2, 1);
  std::ofstream(run / "log.jsonl", std::ios::app) << "{\"step\": 2, \"lo\nnot json\n[1]\n{\"step\": 3, \"loss_g\": null, \"text_key\": \"x\"}\n{\"loss_g\": 1}\n";
  std::ofstream(run / "samples" / "000050.png") << "no picture";
  std::ofstream(run / "samples" / "other.png") << "no picture";
  Report(run / "").write();  // with a slash at the end
  const std::string page = file_text(run / "report.html");
  check_markup(page);
  CHECK(contains(page, "<title>&lt;img src=x onerror=alert(1)&gt; &amp; &quot;q&quot; {{DATA}} {{TITLE}}"));
  const json d = data_of(page);
  CHECK(d["run"].get<std::string>().starts_with("<img src=x onerror=alert(1)> & \"q\" {{DATA}}"));
  CHECK(d["notes"][0] == "3 of 7 lines of log.jsonl could not be read");
  CHECK(d["notes"][1] == "2 pictures in samples/ could not be read");
  CHECK(d["series"]["loss_g"]["y"] == json::parse("[2, 3, null]"));
  CHECK(!d["series"].contains("text_key"));
  CHECK(d["reels"][0]["frames"].size() == 2);
  const std::string dom = drawn(t, run / "report.html");
  if (!dom.empty()) {
    CHECK(contains(dom, "data-ready=\"yes\""));
    CHECK(!contains(dom, "<img src=\"x\""));
  }
  // A run that has only begun.
  fs::create_directories(t / "young");
  std::ofstream(t / "young/config.json") << "{ damaged";
  CHECK(data_of(Report(t / "young").html())["notes"][0] == "config.json cannot be read");
  const std::string e = error_of([&] { Report(t / "nowhere").html(); });
  CHECK(contains(e, t / "nowhere"));
  CHECK(contains(e, "--out"));
}

TEST_CASE("report: a hundred thousand lines are thinned to means with their range, and lines of a run that went back are dropped") {
  const TempFolder t;
  const fs::path run = make_run(t, "long", 0);
  {
    std::ofstream log(run / "log.jsonl");
    for (int i = 1; i <= 100000; i++) log << "{\"step\":" << i << ",\"loss_g\":" << (i == 77777 ? 500 : i % 2) << ",\"loss_d\":0.25}\n";
  }
  Report report(run);
  const std::string page = report.html();
  CHECK(page.size() < 300'000);
  const json s = data_of(page)["series"]["loss_g"];
  REQUIRE(s["x"].size() == 800);
  CHECK(s["x"][799] == 100000);
  CHECK(s["y"][0].get<double>() == doctest::Approx(0.5).epsilon(0.01));
  CHECK(s["lo"][0] == 0);
  CHECK(*std::max_element(s["hi"].begin(), s["hi"].end()) == 500);  // the one peak is not lost
  std::ofstream(t / "long.html") << page;
  const std::string dom = drawn(t, t / "long.html");
  if (!dom.empty()) CHECK(contains(dom, "<polygon"));

  std::ofstream(run / "log.jsonl") << "{\"step\":1,\"loss\":1}\n{\"step\":2,\"loss\":2}\n{\"step\":3,\"loss\":3}\n{\"step\":2,\"loss\":9}\n";
  CHECK(data_of(report.html())["series"]["loss"] == json::parse(R"({"x": [1, 2], "y": [1, 9]})"));
}

TEST_CASE("report: sheets are scaled down, thinned to the budget, and encoded once") {
  const TempFolder t;
  const fs::path run = make_run(t, "big", 2);
  for (int step = 100; step <= 1200; step += 100) write_png(run / "samples" / fmt::format("{:06}.png", step), noise(200, uint64_t(step)));
  ReportOptions o;
  o.longest_side = 100;
  Report small(run, o);
  const json first = data_of(small.html());
  CHECK(first["reels"][0]["frames"].size() == 14);
  CHECK(first["reels"][0]["of"] == 14);
  CHECK(data_of(small.html()) == first);

  o.longest_side = 1280;
  o.picture_bytes = 600'000;
  const std::string page = Report(run, o).html();
  const json d = data_of(page);
  CHECK(page.size() < 700'000);
  const json& frames = d["reels"][0]["frames"];
  CHECK(frames.size() >= 3);
  CHECK(frames.size() < 14);
  CHECK(frames.front()["step"] == 20);
  CHECK(frames.back()["step"] == 1200);

  o.picture_bytes = 100'000'000;
  o.sheets = 4;
  CHECK(data_of(Report(run, o).html())["reels"][0]["frames"].size() <= 5);
  // A file that changed is read again.
  write_png(run / "samples" / "000020.png", plain(64, 64, 200));
  CHECK(data_of(small.html())["reels"][0]["frames"][0] != first["reels"][0]["frames"][0]);
}

TEST_CASE("pictures: shrinking keeps the proportions, and WebP reads back") {
  CHECK(shrink_picture(plain(40, 20, 9), 40).rgb == plain(40, 20, 9).rgb);
  const Picture s = shrink_picture(plain(400, 100, 9), 50);
  CHECK(s.width == 50);
  CHECK(s.height == 13);
  CHECK(shrink_picture(plain(1000, 1, 9), 10).height == 1);
  Picture p{64, 48, std::vector<uint8_t>(64 * 48 * 3)};
  for (int i = 0; i < 64 * 48; i++) p.rgb[size_t(i) * 3] = uint8_t(i / 64 * 4), p.rgb[size_t(i) * 3 + 1] = 90, p.rgb[size_t(i) * 3 + 2] = uint8_t(i % 64 * 3);
  const Picture back = decode_picture(encode_webp(p, 90), "back");
  REQUIRE(back.width == 64);
  REQUIRE(back.height == 48);
  double error = 0;
  for (size_t i = 0; i < p.rgb.size(); i++) error += std::abs(double(p.rgb[i]) - double(back.rgb[i]));
  CHECK(error / double(p.rgb.size()) < 6);
  CHECK(contains(error_of([&] { (void)encode_webp(plain(20000, 1, 0), 80); }), "16383"));
}

TEST_CASE("kiln_report: writes the page anew; mistakes end with code 2 and one line") {
  const TempFolder t;
  const fs::path run = make_run(t, "run", 3);
  const Finished help = run_program("kiln_report", {"--help"});
  CHECK(help.code == 0);
  CHECK(contains(help.out, "report.html"));
  CHECK(contains(help.out, "--points"));
  const Finished done = run_program("kiln_report", {run.string()});
  CHECK(done.code == 0);
  CHECK(contains(done.out, (run / "report.html").string()));
  check_markup(file_text(run / "report.html"));
  const auto refuses = [&](const std::vector<std::string>& arguments, const std::string& word) {
    const Finished f = run_program("kiln_report", arguments);
    CAPTURE(f.err);
    CHECK(f.code == 2);
    CHECK(count(f.err, "\n") == 1);
    CHECK(contains(f.err, word));
  };
  refuses({}, "RUN");
  refuses({t / "nowhere"}, t / "nowhere");
  refuses({run.string(), "--points", "1"}, "--points");
  refuses({run.string(), "--picture-mb", "many"}, "--picture-mb");
  refuses({run.string(), "--colour"}, "--colour");
  fs::remove(run / "report.html");
  fs::create_directories(run / "report.html" / "folder");
  refuses({run.string()}, "report.html");
}
