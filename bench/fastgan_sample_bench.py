#!/usr/bin/env python3
"""Samples from FastGAN's generator in kiln and in PyTorch, side by side: pictures a second. `make bench` runs it.

    python3 bench/fastgan_sample_bench.py [--out sample_bench.json] [--quick]

256 and 1024 px at width 64, one and eight pictures at once. Needs ./bench_fastgan (make bench builds it) and a Python with PyTorch
(pip install torch numpy). PyTorch's generator (tests/golden/fastgan_reference.py) is in evaluation mode with its spectral norm
taken out (remove_spectral_norm: the weights are W / sigma), under inference_mode, contiguous and channels-last; its better layout
counts. Both draw z and the noise anew for each batch. Each run is a process of its own, and they take turns: PyTorch contiguous,
kiln, PyTorch channels-last, kiln, PyTorch's better layout again, kiln. Every run of that layout and the run of kiln after it are a
pair: the ratio is the mean of the two pairs' ratios, and both are printed. Writes a list of {name, size, width, batch,
kiln_per_second, torch_per_second (means of the pairs' runs), ratio, ratios, torch_version, torch_layout}.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
CASES = [(256, 64, 1, 12), (256, 64, 8, 4), (1024, 64, 1, 6), (1024, 64, 8, 2)]  # size, width, batch, timed batches
LAYOUTS = ("contiguous", "channels_last")


def measure_torch(a):
    import torch
    from torch.nn.utils import remove_spectral_norm
    sys.path.insert(0, str(ROOT / "tests" / "golden"))
    import fastgan_reference as fastgan

    if a.threads:
        torch.set_num_threads(a.threads)
    torch.manual_seed(1)
    memory_format = torch.channels_last if a.layout == "channels_last" else torch.contiguous_format
    g = fastgan.initialise(fastgan.Generator(a.size, a.width)).eval()
    for module in g.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
            remove_spectral_norm(module)
    g = g.to(memory_format=memory_format)
    seconds = []
    with torch.inference_mode():
        for i in range(a.warmup + a.steps):
            start = time.perf_counter()
            g(torch.randn(a.batch, 256))
            if i >= a.warmup:
                seconds.append(time.perf_counter() - start)
    print(json.dumps({"layout": a.layout, "torch_version": torch.__version__, "seconds_per_batch": statistics.median(seconds)}))


def run(command):
    done = subprocess.run([str(c) for c in command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr}")
    return json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="sample_bench.json")
    parser.add_argument("--threads", type=int, default=0, help="default: all")
    parser.add_argument("--quick", action="store_true", help="the first configuration only")
    for name in ("size", "width", "batch", "steps", "warmup"):
        parser.add_argument(f"--{name}", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--layout", choices=LAYOUTS, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.layout:
        return measure_torch(a)
    results = []
    for size, width, batch, steps in CASES[:1] if a.quick else CASES:
        common = ["--size", size, "--width", width, "--batch", batch, "--steps", steps, "--warmup", 1, "--threads", a.threads]
        kiln = ["./bench_fastgan", "--sample", *common]
        torch = {layout: [sys.executable, __file__, "--layout", layout, *common] for layout in LAYOUTS}
        pairs = [(run(torch[layout]), run(kiln)) for layout in LAYOUTS]  # the tuple's parts run in this order
        layout = min((theirs for theirs, _ in pairs), key=lambda r: r["seconds_per_batch"])["layout"]
        pairs.append((run(torch[layout]), run(kiln)))
        pairs = [(theirs, ours) for theirs, ours in pairs if theirs["layout"] == layout]
        ratios = [theirs["seconds_per_batch"] / ours["seconds_per_batch"] for theirs, ours in pairs]
        theirs, ours = (statistics.mean(batch / pair[side]["seconds_per_batch"] for pair in pairs) for side in (0, 1))
        row = {
            "name": f"sample-{size}-w{width}-b{batch}", "size": size, "width": width, "batch": batch,
            "kiln_per_second": ours, "torch_per_second": theirs, "ratio": statistics.mean(ratios), "ratios": ratios,
            "torch_version": pairs[0][0]["torch_version"], "torch_layout": layout,
        }
        results.append(row)
        print(f"{row['name']:20} kiln {ours:.2f} pictures/s, PyTorch {row['torch_version']} {theirs:.2f} ({layout}): "
              f"{row['ratio']:.2f}x (pairs {', '.join(f'{r:.2f}' for r in ratios)})", flush=True)
        parts = ", ".join(f"{name} {s * 1e3:.1f}" for name, s in sorted(pairs[-1][1]["parts"].items(), key=lambda p: -p[1]) if s > 0)
        print(f"{'':20} kiln's batch in ms: {parts}", flush=True)
    (ROOT / a.out).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
