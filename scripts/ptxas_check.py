#!/usr/bin/env python3
"""Checks that no GPU kernel spills registers or uses local memory, from what ptxas said in the build.

    python3 scripts/ptxas_check.py BUILD KERNEL...   # the build folder; the .cu files that must be there, without extension
    python3 scripts/ptxas_check.py --table BUILD     # the table of docs/gpu.md
    python3 scripts/ptxas_check.py --wide NVCC       # 16-byte accesses in the PTX of the pointwise kernels

Exit code 1: a kernel spills, uses a stack, or accesses memory in narrower pieces than it should; 2: nothing to check.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
ENTRY = re.compile(r"Compiling entry function '(\S+)' for '(sm_\d+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")
# Those with kernels over packs; pictures of three channels (augment) have none.
WIDE_FILES = ("activation", "adam", "feature", "fold", "gate", "inference", "loss", "norm", "pointwise", "resize")
SCALAR_INPUT = ("Broadcast",)  # reads one number
FINISHES = ("ColumnFinish", "SegmentFinish")  # a few numbers, written one by one


def demangled(names):
    done = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    return dict(zip(names, done.stdout.splitlines()))


def kernels(build):
    """One dict for each kernel, file and architecture."""
    found = []
    for log in sorted(pathlib.Path(build).glob("kernels/gpu/**/*.ptxas")):
        current = None
        for line in log.read_text().splitlines():
            if m := ENTRY.search(line):
                current = {"file": log.name.split(".")[0], "name": m[1], "arch": m[2], "stack": None, "registers": None, "shared": 0}
                found.append(current)
            elif current and (m := STACK.search(line)):
                current["stack"], current["stores"], current["loads"] = (int(x) for x in m.groups())
            elif current and (m := USED.search(line)):
                current["registers"] = int(m[1])
                if m := SHARED.search(line):
                    current["shared"] = int(m[1])
    names = demangled(sorted({k["name"] for k in found})) if found else {}
    for k in found:
        k["text"] = names[k["name"]]
    return found


def check(build, files):
    found = kernels(build)
    bad = [k for k in found if k["stack"] is None or k["registers"] is None or k["stack"] or k["stores"] or k["loads"]]
    for k in bad:
        print(f"{k['file']}.cu, {k['arch']}: {k['text'][:200]}: stack {k['stack']} bytes, spill stores {k.get('stores')}, loads {k.get('loads')}")
    seen = {(k["file"], k["arch"]) for k in found}
    missing = [f for f in files if not {arch for file, arch in seen if file == f}]
    if missing or not found:
        print(f"no report of {', '.join(missing) or 'any kernel'} under {build}: build kiln_kernels_gpu first")
        return 2
    arches = sorted({k["arch"] for k in found})
    print(f"{len(found)} kernels for {', '.join(arches)}: {len(bad)} that spill or use local memory; most registers "
          f"{max(k['registers'] or 0 for k in found)}")
    return 1 if bad else 0


def short(text):
    """`map_kernel: Update` from a kernel's full name."""
    text = text.replace("(anonymous namespace)::", "").replace("kiln::gpu::", "").replace("kiln::", "")
    kernel = re.match(r"(?:void )?(\w+)", text)[1]
    functors = [f for f in re.findall(r"\b([A-Z]\w+)", text.split("(")[0]) if f not in ("Activation",)]
    return f"{kernel.removesuffix('_kernel')}: {functors[0]}" if functors else kernel.removesuffix("_kernel")


def table(build):
    found = kernels(build)
    if not found:
        sys.exit(f"no ptxas report under {build}: build kiln_kernels_gpu first")
    nvcc = re.search(r"CMAKE_CUDA_COMPILER:\w+=(.*)", (pathlib.Path(build) / "CMakeCache.txt").read_text())[1]
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()
    arches = sorted({k["arch"] for k in found})
    print(f"{next(v for v in version if 'release' in v).strip()}.\n")
    print("| file | kernel | instances | " + " | ".join(f"registers, {a}" for a in arches) + " | shared bytes | stack and spills |")
    print("|---|---|---:|" + "---:|" * len(arches) + "---:|---:|")
    groups = {}
    for k in found:
        groups.setdefault((k["file"], short(k["text"])), []).append(k)
    for (file, name), rows in sorted(groups.items()):
        registers = []
        for a in arches:
            r = [k["registers"] for k in rows if k["arch"] == a]
            registers.append(f"{min(r)}" if min(r) == max(r) else f"{min(r)} to {max(r)}")
        spilled = sum(k["stack"] + k["stores"] + k["loads"] for k in rows)
        print(f"| {file} | {name} | {len(rows) // len(arches)} | " + " | ".join(registers) + f" | {max(k['shared'] for k in rows)} | {spilled} |")


def wide(nvcc):
    """Every kernel over packs of 16 bytes must load and store 16 bytes at a time somewhere, a sum load them; the tail may do less."""
    checked, bad = 0, []
    for file in WIDE_FILES:
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "out.ptx"
            subprocess.run([nvcc, "-std=c++20", "-I", str(ROOT), "-O3", "--expt-relaxed-constexpr", "-ptx", "-arch=compute_75",
                            str(ROOT / "kernels" / f"{file}.cu"), "-o", str(out)], check=True)
            ptx = out.read_text()
        bodies = re.split(r"\.entry ", ptx)[1:]
        names = demangled([b.split("(")[0].strip() for b in bodies])
        for body in bodies:
            text = names[body.split("(")[0].strip()]
            m = re.match(r"void kiln::gpu::(?:map(?:_rows)?|(?P<sums>column|segment)_partial)_kernel<(?(sums)\d+, )(?P<pack>\d+),", text)
            if not m or any(f in text for f in FINISHES):
                continue
            sixteen = "half_t" in text or "bf16_t" in text
            if int(m["pack"]) != (8 if sixteen else 4):
                continue
            checked += 1
            for what in ("ld",) if m["sums"] else ("st",) if any(f in text for f in SCALAR_INPUT) else ("ld", "st"):
                accesses = re.findall(rf"\b{what}(?!\.param|\.shared|\.local)(?:\.global)?((?:\.\w+)+)", body)
                if accesses and not any(re.search(r"v4\.[ubf]32|v2\.[ubf]64", a) for a in accesses):
                    bad.append(f"{file}.cu: {text[:160]}: no 16-byte {what} among {sorted(set(accesses))}")
    print("\n".join([*bad, f"{checked} kernels over 16-byte packs, {len(bad)} without 16-byte accesses"]))
    return 2 if not checked else 1 if bad else 0


def main():
    arguments = sys.argv[1:]
    if len(arguments) == 2 and arguments[0] == "--table":
        table(arguments[1])
    elif len(arguments) == 2 and arguments[0] == "--wide":
        sys.exit(wide(arguments[1]))
    elif arguments and not arguments[0].startswith("-"):
        sys.exit(check(arguments[0], arguments[1:]))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
