#!/usr/bin/env python3
"""Trains FastGAN in kiln and in PyTorch, side by side, and prints how they compare: what `make bench` runs.

    python3 bench/fastgan_bench.py [--out bench.json] [--quick]

Needs ./bench_fastgan (make bench builds it) and a Python with PyTorch (pip install torch numpy). For each configuration the two
take turns, kiln first and last, each in a process of its own; PyTorch runs contiguous and channels-last and its better one
counts. Writes a list of {name, size, width, batch, device, precision, kiln_s, torch_s, ratio, other_share, kiln_peak_mb,
torch_peak_mb, torch_version, torch_layout}: seconds a step (medians), ratio = torch_s / kiln_s, other_share = the part of kiln's
step that is neither convolution nor matrix product, peaks of the whole process.

Where the CPU has bf16 there is a second row for kiln's --precision bf16, beside PyTorch in f32 (ratio) and beside PyTorch under
torch.autocast to bf16 (torch_amp_s, amp_ratio).
"""

import argparse
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
CASES = [(64, 16, 20), (64, 64, 6), (256, 64, 3)]  # size, width, timed steps


def lines(command, optional=False):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        if optional and "--precision bf16" in done.stderr:  # a CPU without bf16: kiln says so in one line
            print(done.stderr.strip())
            return []
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="bench.json")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=0, help="default: all")
    parser.add_argument("--quick", action="store_true", help="the smallest configuration only")
    a = parser.parse_args()
    results = []
    for size, width, steps in CASES[:1] if a.quick else CASES:
        common = ["--size", str(size), "--width", str(width), "--batch", str(a.batch), "--threads", str(a.threads)]
        kiln = ["./bench_fastgan", *common, "--steps", str(steps)]
        torch = [sys.executable, "bench/fastgan_torch.py", *common, "--steps", str(steps)]
        k = lines(kiln)
        t = lines(torch)
        k += lines(kiln)
        theirs = min(t, key=lambda r: r["seconds_per_step"])
        results.append(compare(f"fastgan-{size}-w{width}", a.batch, k, theirs))
        kiln += ["--precision", "bf16"]
        k = lines(kiln, optional=True)
        if k:
            amp = min(lines([*torch, "--amp", "bf16"]), key=lambda r: r["seconds_per_step"])
            k += lines(kiln)
            results.append(compare(f"fastgan-{size}-w{width}-bf16", a.batch, k, theirs, amp))
    (ROOT / a.out).write_text(json.dumps(results, indent=1) + "\n")


def compare(name, batch, k, theirs, amp=None):
    """One row of the results, printed: kiln's better run beside PyTorch's better layout."""
    ours = min(k, key=lambda r: r["seconds_per_step"])
    row = {
        "name": name, "size": ours["size"], "width": ours["width"], "batch": batch, "device": "cpu", "precision": ours["precision"],
        "kiln_s": ours["seconds_per_step"], "torch_s": theirs["seconds_per_step"],
        "ratio": theirs["seconds_per_step"] / ours["seconds_per_step"], "other_share": ours["other_share"],
        "kiln_peak_mb": ours["peak_mb"], "torch_peak_mb": theirs["peak_mb"],
        "torch_version": theirs["torch_version"], "torch_layout": theirs["layout"],
    }
    if amp:
        row |= {"torch_amp_s": amp["seconds_per_step"], "amp_ratio": amp["seconds_per_step"] / ours["seconds_per_step"],
                "torch_amp_peak_mb": amp["peak_mb"]}
    print(f"{row['name']:16} kiln {row['kiln_s']:.3f} s, PyTorch {row['torch_version']} {row['torch_s']:.3f} s ({row['torch_layout']}): "
          f"{row['ratio']:.2f}x; peak {row['kiln_peak_mb']:.0f} MB against {row['torch_peak_mb']:.0f} MB "
          f"({row['kiln_peak_mb'] / row['torch_peak_mb']:.2f}x)")
    parts = ", ".join(f"{name} {s * 1e3:.1f}" for name, s in sorted(ours["parts"].items(), key=lambda p: -p[1]))
    print(f"{'':16} kiln's step in ms: {parts}; not convolution or matrix product: {100 * row['other_share']:.0f} %", flush=True)
    if amp:
        print(f"{'':16} PyTorch under autocast to bf16 {row['torch_amp_s']:.3f} s: {row['amp_ratio']:.2f}x", flush=True)
    return row


if __name__ == "__main__":
    main()
