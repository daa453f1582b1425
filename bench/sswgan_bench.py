#!/usr/bin/env python3
"""Trains stages of SSW-GAN in kiln and in PyTorch, side by side, and prints how they compare.

    python3 bench/sswgan_bench.py [--quick] [--threads 2]

Needs ./bench_sswgan (make builds it) and a Python with PyTorch (pip install torch numpy). For each configuration the two take turns, kiln
first and last, each in a process of its own; PyTorch runs contiguous and channels-last and its better one counts. Ratios are PyTorch's
over kiln's, medians of whole steps; memory is the peak of the process.
"""

import argparse
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
CASES = {  # options, timed steps
    "stage 1, 4 frames of 16 px": ("--stages 4x16/2,8x32@6 --stage 1 --width 16 --batch 8", 10),
    "stage 2, 3 to 6 frames, 16 to 32 px": ("--stages 4x16/2,8x32@6 --stage 2 --width 16 --batch 8", 5),
    "stage 1, 12 frames of 32 px": ("--stages 12x32/2,24x64@12 --stage 1 --width 16 --batch 4", 4),
    "stage 2, 6 to 12 frames, 32 to 64 px": ("--stages 12x32/2,24x64@12 --stage 2 --width 16 --batch 2", 3),
}


def lines(command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", default="0", help="default: all")
    parser.add_argument("--quick", action="store_true", help="the first two configurations only")
    parser.add_argument("--bench", default="./bench_sswgan", help="the program")
    a = parser.parse_args()
    for name, (options, steps) in list(CASES.items())[:2 if a.quick else None]:
        common = [*options.split(), "--steps", str(steps), "--threads", a.threads]
        kiln = lines([a.bench, *common])
        torch = min(lines([sys.executable, "bench/sswgan_torch.py", *common]), key=lambda r: r["seconds_per_step"])
        kiln = min(kiln + lines([a.bench, *common]), key=lambda r: r["seconds_per_step"])
        print(f"{name}: {kiln['seconds_per_step']:.3f} s a step beside {torch['seconds_per_step']:.3f} s ({torch['layout']}, PyTorch "
              f"{torch['torch_version']}): {torch['seconds_per_step'] / kiln['seconds_per_step']:.2f}x; memory {kiln['peak_mb']:.0f} MB beside "
              f"{torch['peak_mb']:.0f} MB; neither convolution nor matrix product: {kiln['other_share']:.0%}", flush=True)


if __name__ == "__main__":
    main()
