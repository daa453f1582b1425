#!/usr/bin/env python3
"""Trains NSB-GAN's decoders and enlarges with them in kiln and in PyTorch, side by side, and prints how they compare.

    python3 bench/nsbgan_bench.py [--quick] [--threads 2]

Needs ./bench_nsbgan (make builds it) and a Python with PyTorch (pip install torch numpy). For each configuration the two take
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
    "srresnet, 32 -> 128 px, width 32, 4 blocks": ("--size 128 --width 32 --blocks 4 --batch 8", 8),
    "the same, enlarging": ("--size 128 --width 32 --blocks 4 --batch 8 --upscale", 16),
    "srresnet against a discriminator, 128 px": ("--size 128 --width 32 --blocks 4 --batch 8 --gan --d-width 16", 5),
    "unet, 32 -> 128 px, width 48": ("--kind unet --size 128 --width 48 --batch 16", 5),
    "srresnet, 64 -> 256 px, width 64, 16 blocks": ("--size 256 --width 64 --blocks 16 --batch 4", 3),
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
        kiln = lines(["./bench_nsbgan", *common])
        torch = min(lines([sys.executable, "bench/nsbgan_torch.py", *common]), key=lambda r: r["seconds_per_step"])
        kiln = min(kiln + lines(["./bench_nsbgan", *common]), key=lambda r: r["seconds_per_step"])
        print(f"{name}: {kiln['seconds_per_step']:.3f} s a step beside {torch['seconds_per_step']:.3f} s ({torch['layout']}, PyTorch "
              f"{torch['torch_version']}): {torch['seconds_per_step'] / kiln['seconds_per_step']:.2f}x; memory {kiln['peak_mb']:.0f} MB beside "
              f"{torch['peak_mb']:.0f} MB: {kiln['peak_mb'] / torch['peak_mb']:.2f}; neither convolution nor matrix product: {kiln['other_share']:.0%}", flush=True)


if __name__ == "__main__":
    main()
