#!/usr/bin/env python3
"""Trains BigGAN in kiln and in PyTorch, side by side, and prints how they compare.

    python3 bench/biggan_bench.py [--quick] [--threads 2]

Needs ./bench_biggan (make builds it) and a Python with PyTorch (pip install torch numpy). For each configuration the two take
turns, kiln first and last, each in a process of its own; PyTorch runs contiguous and channels-last and its better one counts. Ratios
are PyTorch's over kiln's, medians of whole steps; memory is the peak of the process.
"""

import argparse
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
CASES = {  # options, timed steps
    "32 px, width 16": ("--size 32 --width 16 --batch 32", 10),
    "64 px, width 16, attention at 32": ("--size 64 --width 16 --batch 32 --attention 32", 5),
    "32 px, width 64": ("--size 32 --width 64 --batch 50", 3),
    "deep, 64 px, width 16, attention at 32": ("--size 64 --width 16 --batch 32 --attention 32 --deep", 4),
}


def lines(command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", default="0", help="default: all")
    parser.add_argument("--quick", action="store_true", help="the first configuration only")
    a = parser.parse_args()
    for name, (options, steps) in list(CASES.items())[:1 if a.quick else None]:
        common = [*options.split(), "--steps", str(steps), "--threads", a.threads]
        kiln = lines(["./bench_biggan", *common])
        torch = min(lines([sys.executable, "bench/biggan_torch.py", *common]), key=lambda r: r["seconds_per_step"])
        kiln = min(kiln + lines(["./bench_biggan", *common]), key=lambda r: r["seconds_per_step"])
        print(f"{name}: {kiln['seconds_per_step']:.3f} s a step beside {torch['seconds_per_step']:.3f} s ({torch['layout']}, PyTorch "
              f"{torch['torch_version']}): {torch['seconds_per_step'] / kiln['seconds_per_step']:.2f}x; memory {kiln['peak_mb']:.0f} MB beside "
              f"{torch['peak_mb']:.0f} MB: {kiln['peak_mb'] / torch['peak_mb']:.2f}; neither convolution nor matrix product: {kiln['other_share']:.0%}", flush=True)


if __name__ == "__main__":
    main()
