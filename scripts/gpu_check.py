#!/usr/bin/env python3
"""Everything that a GPU must show, into one report: OUT/report.md and OUT/report.json (make gpu-check).

    python3 scripts/gpu_check.py --out OUT [--deps FOLDER] [--part PART ...] [--data FOLDER]
    python3 scripts/gpu_check.py --out OUT --merge A/report.json B/report.json

For a bare machine with no network that has CUDA and PyTorch: --deps names a folder of Debian packages (make gpu-deps), which
are unpacked into the build folder, with no root. Parts, each within ten minutes (build comes first wherever it is not done yet):

    build         configure and compile everything
    tests         every test of ctest, a step each; the kernels' and the networks' on the GPU, too. tests-NAME: that one alone
    sanitizer     compute-sanitizer (memcheck, racecheck) over the kernels' tests
    kernels       bench_kernels at 256 and 1024
    fastgan-256   a training iteration's time, throughput and peak memory: kiln in f32, with TF32, and in 16 bits; PyTorch eager as
    fastgan-512   published (its default has TF32), eager with automatic mixed precision and channels last, torch.compile with CUDA
    fastgan-1024  graphs; what the iteration is counted to move; the share of time in which the GPU computes (with nsys, if it is there)
    biggan-64     the same times of BigGAN, width 64, batch 32, one D step; PyTorch eager in f32, with TF32, and mixed and channels last
    biggan-128
    run           a short training run and its grid

A step that fails, takes too long or finds no GPU is reported in words; the others go on. Exit code: 1 if any step failed, 0 if all
were right or could not run here. --data: a folder of pictures for the run (drawn ones otherwise).
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib

import gpu_targets

ROOT = pathlib.Path(__file__).resolve().parent.parent
PARTS = ("build", "tests", "sanitizer", "kernels", "fastgan-256", "fastgan-512", "fastgan-1024", "biggan-64", "biggan-128", "run")
BUILD = ROOT / "build-gpu-check"


class Report:
    def __init__(self, out):
        self.out = out
        self.steps = []
        self.machine = {}
        out.mkdir(parents=True, exist_ok=True)
        self.log = open(out / "log.txt", "a")

    def add(self, part, name, state, words, seconds=0.0, data=None):
        """state: ok, failed or skipped. The report is written after every step: a machine that goes away leaves what was done."""
        self.steps.append({"part": part, "name": name, "state": state, "words": words, "seconds": round(seconds, 1), "data": data})
        print(f"{part}: {name}: {state}{': ' + words if words else ''} ({seconds:.0f} s)", flush=True)
        self.write()

    def write(self):
        report = {"machine": self.machine, "targets": gpu_targets.targets(self.steps), "steps": self.steps}
        (self.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
        (self.out / "report.md").write_text(markdown(self.machine, self.steps))


def markdown(machine, steps):
    lines = ["# GPU check", ""]
    lines += [f"- {key}: {value}" for key, value in machine.items()]
    lines += ["", "| part | step | result | seconds | |", "|---|---|---|---:|---|"]
    for s in steps:
        words = s["words"].replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {s['part']} | {s['name']} | {s['state']} | {s['seconds']} | {words} |")
    lines += gpu_targets.markdown(steps)
    iterations = [s for s in steps if s["part"].startswith(("fastgan-", "biggan-")) and s["data"] and "seconds" in s["data"]]
    if iterations:
        lines += ["", "## A training iteration", "",
                  "| model, size | program | ms | pictures/s | peak MB | reserved MB | time over | that of |", "|---|---|---:|---:|---:|---:|---:|---|"]
        for s in iterations:
            d = s["data"]
            kiln = next((k["data"]["seconds"] for k in iterations if k["part"] == s["part"] and k["name"] == d["beside"]), None)
            ratio = f"{d['seconds'] / kiln:.2f}" if kiln else "-"
            lines.append(f"| {s['part']} | {s['name']} | {d['seconds'] * 1e3:.2f} | {d['images_per_second']:.0f} | {d['peak_mb']:.0f} "
                         f"| {d['reserved_mb']:.0f} | {ratio} | {d['beside']} |")
    for s in steps:
        if s["name"] == "counted" and s["data"]:
            d = s["data"]
            lines += ["", f"{d['size']} px, counted: {d['launches']} launches, {d['flops'] / 1e9:.0f} GFLOP, {d['bytes_16'] / 1e9:.1f} GB moved in "
                      f"16 bits, {d['least_bytes_16'] / 1e9:.1f} GB at the least; {d['peak_bytes_16'] / 1e9:.2f} GB of tensors at the peak, a "
                      "convolution's workspace besides."]
    for s in steps:
        if s["part"] == "kernels" and s["data"]:
            rows = s["data"]
            lines += ["", f"## {s['name']} ({rows[0]['device']}; a copy moves {rows[0]['copy_gbps']:.0f} GB/s)", "",
                      "| kernel | shape | type | right | ms | GB/s | of the limit | unfused ms |", "|---|---|---|---|---:|---:|---:|---:|"]
            for r in rows:
                if "skipped" in r:
                    lines.append(f"| {r['kernel']} | {r['shape']} | {r['dtype']} | not run: {r['skipped']} | | | | |")
                    continue
                unfused = "" if r["unfused_ms"] is None else f"{r['unfused_ms']:.3f}"
                lines.append(f"| {r['kernel']} | {r['shape']} | {r['dtype']} | {'yes' if r['correct'] else 'NO'} | {r['ms']:.3f} | {r['gbps']:.0f} "
                             f"| {100 * r['share_of_limit']:.0f} % | {unfused} |")
    return "\n".join(lines) + "\n"


def finish(command, timeout, env, log):
    """Runs a command in a process group of its own. Returns (what went wrong or "", its output, seconds)."""
    start = time.monotonic()
    log.write(f"\n$ {' '.join(map(str, command))}\n")
    log.flush()
    try:
        process = subprocess.Popen([str(c) for c in command], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   start_new_session=True, text=True, errors="replace")
    except OSError as e:
        return f"{command[0]}: {e.strerror}", "", 0.0
    try:
        output, _ = process.communicate(timeout=timeout)
        wrong = "" if process.returncode == 0 else f"exit code {process.returncode}"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        wrong = f"not done after {timeout} s"
    log.write(output[-200_000:])
    log.flush()
    if wrong:
        said = [line.strip() for line in output.splitlines() if line.strip()]
        wrong += f": {said[-1][:300]}" if said else ""
    return wrong, output, time.monotonic() - start


def last_line(output):
    """The last JSON object that a program printed."""
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")][-1]


def read_iteration(beside, peak):
    """Reads what bench_* and bench/*_torch.py print last: a step's seconds and peak memory, compared with the step named `beside`."""
    def read(output):
        line = last_line(output)
        return {"seconds": line["seconds_per_step"], "images_per_second": line["batch"] / line["seconds_per_step"], "peak_mb": line[peak],
                "reserved_mb": line["reserved_mb"], "beside": beside, "line": line}

    return read


class Check:
    TEST_LIMIT = 540  # seconds, of one of ctest's tests

    def __init__(self, arguments):
        self.a = arguments
        self.report = Report(arguments.out.resolve())
        self.own_env = dict(os.environ)  # PyTorch's: it brings its libraries
        self.env = dict(os.environ)
        self.bin = BUILD / "bin"
        self.gpu, self.no_gpu = self.find_gpu()
        self.report.machine = {"gpu": self.gpu or f"none: {self.no_gpu}", "python": sys.version.split()[0], "torch": self.torch(),
                               "commit": self.commit()}

    def find_gpu(self):
        wrong, output, _ = finish(["nvidia-smi", "--query-gpu=name,compute_cap,memory.total,driver_version", "--format=csv,noheader"], 60,
                                  self.env, self.report.log)
        return ("", wrong) if wrong else (output.strip().splitlines()[0], "")

    def torch(self):
        wrong, output, _ = finish([sys.executable, "-c", "import torch; print(torch.__version__, torch.cuda.is_available())"], 120, self.env,
                                  self.report.log)
        return f"none: {wrong}" if wrong else output.strip().splitlines()[-1]

    def commit(self):
        wrong, output, _ = finish(["git", "rev-parse", "HEAD"], 20, self.env, self.report.log)
        return "unknown" if wrong else output.strip()

    def step(self, part, name, command, timeout, parse=None, optional_tool=None, env=None, keep=False):
        """keep: what a program that failed or was stopped has left is data, too."""
        if optional_tool and not shutil.which(optional_tool, path=self.env["PATH"]):
            self.report.add(part, name, "skipped", f"{optional_tool} is not on this machine")
            return False
        wrong, output, seconds = finish(command, timeout, env or self.env, self.report.log)
        data = None
        if parse and (keep or not wrong):
            try:
                data = parse(output)
            except (ValueError, KeyError, IndexError, StopIteration, OSError) as e:
                wrong = wrong or f"its output was not understood: {e!r}"
        self.report.add(part, name, "failed" if wrong else "ok", wrong, seconds, data)
        return not wrong

    # ---- parts -------------------------------------------------------------------------------------------------------

    def use_deps(self):
        """Unpacks the packages once, and points CMake, pkg-config, the loader and PATH at them."""
        folder = self.a.deps.resolve()
        packages = sorted(folder.glob("*.deb"))
        if not packages:
            self.report.add("build", "packages", "failed", f"{folder}: no .deb files; make them with make gpu-deps DEPS={folder}")
            return False
        prefix = BUILD / "deps"
        start = time.monotonic()
        if not (prefix / "complete").exists():
            prefix.mkdir(parents=True, exist_ok=True)
            for p in packages:
                done = subprocess.run(["dpkg", "-x", p, prefix], capture_output=True, text=True)
                if done.returncode:
                    self.report.add("build", "packages", "failed", f"{p.name}: {done.stderr.strip()}")
                    return False
            (prefix / "complete").touch()
            self.report.add("build", "packages", "ok", f"{len(packages)} unpacked", time.monotonic() - start)
        libraries = [str(p) for p in sorted((prefix / "usr/lib").glob("*-linux-gnu*"))] + [str(p) for p in sorted((prefix / "lib").glob("*-linux-gnu*"))]
        nested = [str(p) for p in prefix.glob("usr/lib/*-linux-gnu*/*") if p.name in ("blas", "lapack", "openblas-pthread", "pulseaudio")]
        self.env["CMAKE_PREFIX_PATH"] = str(prefix / "usr")
        self.env["PKG_CONFIG_LIBDIR"] = ":".join([f"{p}/pkgconfig" for p in libraries] + [str(prefix / "usr/share/pkgconfig")])
        self.env["PKG_CONFIG_SYSROOT_DIR"] = str(prefix)
        # The machine's own libraries first: the packages may be of another release, and serve where the machine has none.
        own = [f"{base}/{pathlib.Path(p).name}" for base in ("/lib", "/usr/lib") for p in libraries]
        before = [p for p in (self.env.get("LD_LIBRARY_PATH"),) if p]
        self.env["LD_LIBRARY_PATH"] = ":".join(dict.fromkeys(before + own + libraries + nested))
        self.env["LIBRARY_PATH"] = ":".join(libraries)
        self.env["PATH"] = self.env["PATH"] + ":" + str(prefix / "usr/bin")  # behind the machine's own
        return True

    def prepare(self):
        """Makes sure that there is a build. False if there is none to be had."""
        if self.a.deps and not self.use_deps():
            return False
        for tool, path in (("nvcc", "/usr/local/cuda/bin"), ("compute-sanitizer", "/usr/local/cuda/bin"), ("nsys", "/usr/local/cuda/bin")):
            if not shutil.which(tool, path=self.env["PATH"]) and pathlib.Path(path, tool).exists():
                self.env["PATH"] += ":" + path
        if not shutil.which("cmake", path=self.env["PATH"]):
            self.report.add("build", "configure", "failed", "no cmake: install it, or name a folder of packages with DEPS=")
            return False
        nvcc = shutil.which("nvcc", path=self.env["PATH"])
        flags = [f"-DKILN_CUDA={'ON' if nvcc else 'OFF'}", f"-DKILN_BIN={self.bin}"]
        if nvcc and self.gpu:
            flags.append("-DCMAKE_CUDA_ARCHITECTURES=" + self.gpu.split(",")[1].strip().replace(".", ""))
        if shutil.which("ninja", path=self.env["PATH"]) and not (BUILD / "CMakeCache.txt").exists():
            flags.append("-GNinja")
        flags += self.a.cmake_flags.split()
        if not self.step("build", "configure", ["cmake", "-S", ROOT, "-B", BUILD, *flags], 120):
            return False
        if not nvcc:
            self.report.add("build", "CUDA", "skipped", "no nvcc on this machine: built for the CPU only")
        target = ["--target", *self.a.targets.split()] if self.a.targets else []
        return self.step("build", "compile", ["cmake", "--build", BUILD, "-j", str(self.a.jobs), *target], self.a.build_timeout)

    def needs_gpu(self, part, what):
        if self.gpu:
            return True
        self.report.add(part, what, "skipped", f"no GPU: {self.no_gpu}")
        return False

    def tests(self, only=""):
        """One ctest test a step, so that one that fails or takes too long loses no other."""
        wrong, output, seconds = finish(["ctest", "--test-dir", BUILD, "--show-only=json-v1"], 60, self.env, self.report.log)
        names = []
        try:
            names = [t["name"] for t in json.loads(output[output.index("{"):])["tests"]]
        except (ValueError, KeyError) as e:
            wrong = wrong or f"its list of tests was not understood: {e!r}"
        if only and not wrong and only not in names:
            wrong = f"no test {only}; there are {', '.join(names)}"
        if wrong or not names:
            self.report.add("tests", "ctest", "failed", wrong or "there are no tests", seconds)
        for name in [n for n in names if not wrong and only in ("", n)]:
            wrong_here, output, seconds = finish(["ctest", "--test-dir", BUILD, "-R", f"^{re.escape(name)}$", "-V"], self.TEST_LIMIT, self.env,
                                                 self.report.log)
            if not wrong_here and "***Skipped" in output:
                why = re.search(r"skipped: (.*)", output)
                self.report.add("tests", name, "skipped", why.group(1).strip() if why else "by itself", seconds)
                continue
            if wrong_here.startswith("exit code"):  # what failed, not ctest's last line
                said = re.findall(r"^.*(?:ERROR:|FATAL ERROR|\*\*\*).*$", output, re.MULTILINE)
                wrong_here = f"{wrong_here.split(':')[0]}: {said[0].strip()[:300]}" if said else wrong_here
            self.report.add("tests", name, "failed" if wrong_here else "ok", wrong_here, seconds)
        self.needs_gpu("tests", "the kernels' tests and the test gpu, on a GPU")

    def sanitizer(self):
        if not self.needs_gpu("sanitizer", "compute-sanitizer"):
            return
        self.env["KILN_TEST_EXECUTORS"] = "gpu"
        for tool in ("memcheck", "racecheck"):
            self.step("sanitizer", tool, ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", BUILD / "tests/kernel_tests"], 270,
                      optional_tool="compute-sanitizer")
        del self.env["KILN_TEST_EXECUTORS"]

    def kernels(self):
        if not self.needs_gpu("kernels", "bench_kernels"):
            return
        for size, timeout in ((256, 45), (1024, 150)):
            for dtype in ("bf16", "f16", "f32"):
                file = self.report.out / f"kernels-{size}-{dtype}.json"
                file.unlink(missing_ok=True)
                command = [self.bin / "bench_kernels", "--device", "gpu", "--size", size, "--dtype", dtype, "--json", file]
                self.step("kernels", f"bench_kernels {size} {dtype}", command, timeout, lambda _, file=file: json.loads(file.read_text()), keep=True)

    def bits16(self):
        return "bf16" if float(self.gpu.split(",")[1]) >= 8 else "f16"

    def kiln_iterations(self, part, program, common):
        """kiln's training iteration in all its precisions."""
        bits16 = self.bits16()
        for name, more in (("kiln f32", []), ("kiln TF32", ["--tf32"]), (f"kiln {bits16}", ["--precision", bits16]),
                           (f"kiln {bits16} autotuned", ["--precision", bits16, "--autotune"])):
            self.step(part, name, [self.bin / program, *common, "--device", "gpu", *more], 40, read_iteration("kiln f32", "tensor_mb"))

    def biggan(self, size):
        part = f"biggan-{size}"
        if not self.needs_gpu(part, "training iteration"):
            return
        common = ["--size", size, "--batch", 32, "--width", 64, "--z", 120, "--shared-dim", 128, "--attention", 32 if size == 64 else 64,
                  "--steps", 30, "--warmup", 5]
        self.kiln_iterations(part, "bench_biggan", common)
        bits16 = self.bits16()
        torch = [sys.executable, "bench/biggan_torch.py", *common, "--device", "cuda"]
        for name, beside, more in (("PyTorch eager f32", "kiln f32", ["--layout", "contiguous"]),
                                   ("PyTorch eager TF32 channels last", "kiln TF32", ["--layout", "channels_last", "--tf32", "--cudnn-benchmark"]),
                                   (f"PyTorch eager {bits16} channels last", f"kiln {bits16}",
                                    ["--layout", "channels_last", "--amp", bits16, "--cudnn-benchmark"])):
            self.step(part, name, [*torch, *more], 90, read_iteration(beside, "peak_mb"), env=self.own_env)

    def fastgan(self, size):
        part = f"fastgan-{size}"

        shape = ["--size", size, "--batch", 8, "--width", 64]
        self.step(part, "counted", [self.bin / "bench_fastgan", *shape, "--count", "--json"], 60, last_line)
        if not self.needs_gpu(part, "training iteration"):
            return
        common = [*shape, "--steps", 30, "--warmup", 5]
        self.kiln_iterations(part, "bench_fastgan", common)
        bits16 = self.bits16()
        self.busy(part, [self.bin / "bench_fastgan", *common, "--device", "gpu", "--precision", bits16, "--no-parts"])
        torch = [sys.executable, "bench/fastgan_torch.py", *common, "--device", "cuda"]
        mixed = ["--layout", "channels_last", "--amp", bits16, "--cudnn-benchmark", "--fused"]
        for name, beside, more in (("PyTorch eager f32 as published", "kiln TF32", ["--layout", "contiguous"]),
                                   (f"PyTorch eager {bits16} channels last", f"kiln {bits16}", mixed),
                                   (f"PyTorch compiled {bits16} CUDA graphs", f"kiln {bits16}", [*mixed, "--compile"])):
            self.step(part, name, [*torch, *more], 200 if "compiled" in name else 50, read_iteration(beside, "peak_mb"), env=self.own_env)

    def busy(self, part, command):
        """The share of time in which the GPU computed, every kernel of the graph looked at."""
        nsys = shutil.which("nsys", path=self.env["PATH"])
        if not nsys:
            self.report.add(part, "GPU busy", "skipped", "nsys is not on this machine")
            return
        trace = BUILD / f"trace-{part}"
        profile = [nsys, "profile", "-t", "cuda", "--cuda-graph-trace=node", "-s", "none", "--force-overwrite=true", "-o", trace]
        wrong, _, seconds = finish([*profile, *command], 60, self.env, self.report.log)
        if wrong:
            self.report.add(part, "GPU busy", "failed", wrong, seconds)
            return
        stats = [nsys, "stats", "--report", "cuda_gpu_trace", "--format", "csv", "--force-export=true", f"{trace}.nsys-rep"]
        self.step(part, "GPU busy", stats, 40, lambda output: {"busy_share": gpu_targets.busy_share(output)})

    def run(self):
        if not self.needs_gpu("run", "training run"):
            return
        data = self.a.data or drawn_pictures(BUILD / "pictures")
        out = BUILD / "run"
        shutil.rmtree(out, ignore_errors=True)
        command = [self.bin / "fastgan_train", data, "--out", out, "--size", 256, "--ngf", 64, "--ndf", 64, "--device", "gpu", "--steps", 2000,
                   "--minutes", 5, "--sample-every", 500, "--metric-every", 500]

        def grid(_):
            shutil.copy(sorted((out / "samples").glob("[0-9]*.png"))[-1], self.report.out / "grid.png")
            lines = (out / "log.jsonl").read_text().splitlines()
            return {"first": json.loads(lines[0]), "last": json.loads(lines[-1])}

        self.step("run", "fastgan_train", command, 500, grid)

    def all(self):
        parts = self.a.part or PARTS
        built = self.prepare()
        for part in parts:
            if part == "build":
                continue
            if not built:
                self.report.add(part, "all", "skipped", "there is no build")
                continue
            try:
                name, _, of = part.partition("-")
                getattr(self, name)(*([int(of) if of.isdigit() else of] if of else []))
            except Exception as e:  # a mistake in one part must not lose the others
                self.report.add(part, "all", "failed", repr(e))
        self.report.write()
        print(f"report: {self.report.out / 'report.md'}")
        return 1 if any(s["state"] == "failed" for s in self.report.steps) else 0


def drawn_pictures(folder, count=64, side=256):
    """Discs of different colours and places on white, as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        u = [(k * p % 97) / 97 for p in (13, 29, 41, 59, 71, 83)]
        cx, cy, r = side * (0.4 + 0.2 * u[0]), side * (0.4 + 0.2 * u[1]), side * (0.2 + 0.15 * u[2])
        colour = bytes(int(40 + 200 * v) for v in u[3:6])
        rows = b""
        for y in range(side):
            half = max(0.0, r * r - (y - cy) ** 2) ** 0.5
            a, b = max(0, int(cx - half)), min(side, int(cx + half))
            rows += b"\0" + b"\xff" * (3 * a) + colour * (b - a) + b"\xff" * (3 * (side - b))
        png = b"\x89PNG\r\n\x1a\n"
        for kind, body in ((b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
            png += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        (folder / f"disc{k:03}.png").write_bytes(png)
    return folder


def merge(out, files):
    """One report of several, each of some parts."""
    report = Report(out)
    for f in files:
        try:
            j = json.loads(pathlib.Path(f).read_text())
            report.machine |= j["machine"]
            report.steps += j["steps"]
        except (OSError, ValueError, KeyError) as e:
            sys.exit(f"{f}: is no report of gpu_check.py: {e}")
    report.write()
    print(f"report: {out / 'report.md'}")


def part(name):
    if name not in PARTS and not re.fullmatch(r"tests-.+", name):
        raise argparse.ArgumentTypeError(f"invalid choice: {name}; use {', '.join(PARTS)}, or tests-NAME")
    return name


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--deps", type=pathlib.Path)
    parser.add_argument("--part", action="append", type=part)
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--merge", nargs="+", metavar="REPORT")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--build-timeout", type=int, default=560)
    parser.add_argument("--cmake-flags", default="", help="more flags for CMake")
    parser.add_argument("--targets", default="", help="build these targets only")
    a = parser.parse_args()
    if a.merge:
        return merge(a.out.resolve(), a.merge)
    return Check(a).all()


if __name__ == "__main__":
    sys.exit(main())
