#!/usr/bin/env python3
"""Times one whole training iteration of a stage of SSW-GAN in PyTorch: what kiln's sswgan is measured against.

    pip install torch numpy
    python3 bench/sswgan_torch.py --stages 12x32/2,24x64@12 --stage 2 --width 16 --batch 4 --steps 5 --threads 2

The iteration of tests/golden/sswgan_reference.py: one step of the discriminators on real and generated clips in one forward, one step of G
without their weight gradients, Adam, the average of G; random numbers drawn inside the timed part. Prints one JSON object a line for each
layout, each measured in a process of its own.
"""

import argparse
import json
import pathlib
import re
import resource
import statistics
import subprocess
import sys
import time

LAYOUTS = ("contiguous", "channels_last")
NUMBERS = {"stage": 1, "width": 16, "z": 32, "shared_dim": 16, "d_frames": 4, "batch": 8, "steps": 10, "warmup": 2, "threads": 0}
CLASSES = 10


def stages_of(text):
    """As kiln's parse_stages: (frames, side, stride, window) each."""
    out = []
    for word in text.split(","):
        frames, side, stride, window = re.fullmatch(r"(\d+)x(\d+)(?:/(\d+))?(?:@(\d+))?", word).groups()
        out.append((int(frames), int(side), int(stride or 1), int(window or (min(int(frames), 12) if out else frames))))
    return out


def measure(args):
    import torch
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden"))
    import sswgan_reference as sswgan

    if args.threads:
        torch.set_num_threads(args.threads)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = args.tf32
    torch.manual_seed(1)
    stages, k, device = stages_of(args.stages), args.stage, args.device
    _, side, stride, window = stages[k - 1]
    last = args.layout == "channels_last"

    def ready(network):
        network = network.to(device)
        if last:  # 4-D and 5-D weights in the layout of their kind
            for p in network.parameters():
                if p.dim() in (4, 5):
                    p.data = p.data.contiguous(memory_format=torch.channels_last if p.dim() == 4 else torch.channels_last_3d)
        return network

    def clips(t, s):
        x = torch.rand(args.batch, 3, t, s, s, device=device) * 2 - 1
        return x.contiguous(memory_format=torch.channels_last_3d) if last else x

    if k == 1:
        make_g, condition, low = (lambda: sswgan.FirstGenerator(side, args.width, CLASSES, args.z, args.shared_dim)), None, 0
    else:
        low, rho = stages[k - 2][1], stages[k - 2][2] // stride
        make_g, condition = (lambda: sswgan.UpsamplingGenerator(rho, side // low, args.width, CLASSES, args.z, args.shared_dim)), clips(window // rho, low)
    g, average, d = ready(make_g()), ready(make_g()), ready(sswgan.Critics(side, args.width, CLASSES, low))
    opt_g, opt_d = sswgan.adam(g, 2e-4), sswgan.adam(d, 4e-4)
    real, labels = clips(window, side), torch.randint(CLASSES, (args.batch,), device=device)

    def make():
        z, y = torch.randn(args.batch, args.z, device=device), torch.randint(CLASSES, (args.batch,), device=device)
        return g(z, y, window if k == 1 else condition), y

    seconds = []
    for i in range(args.warmup + args.steps):
        start = time.perf_counter()
        loss = sswgan.iteration(g, d, opt_g, opt_d, make, real, labels, min(args.d_frames, window), condition)
        with torch.no_grad():
            for a, b in zip(average.state_dict().values(), g.state_dict().values()):
                if a.is_floating_point():
                    a.lerp_(b, 0.001)
        if device == "cuda":
            torch.cuda.synchronize()
        if i >= args.warmup:
            seconds.append(time.perf_counter() - start)
    assert torch.isfinite(loss)
    peak = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(json.dumps({"name": "sswgan_train_step", "stages": args.stages, "stage": k, "width": args.width, "batch": args.batch, "layout": args.layout,
                      "torch_version": torch.__version__, "threads": torch.get_num_threads(), "device": device, "tf32": args.tf32,
                      "seconds_per_step": round(statistics.median(seconds), 6), "min_seconds": round(min(seconds), 6), "peak_mb": round(peak, 1)}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in NUMBERS.items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=default)
    parser.add_argument("--stages", default="4x16/2,8x32@6")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--tf32", action="store_true", help="cuda: float32 convolutions and products may be rounded to TF32")
    parser.add_argument("--layout", choices=LAYOUTS, help="default: both, one after the other")
    args = parser.parse_args()
    if args.layout:
        measure(args)
        return
    for layout in LAYOUTS:
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--layout", layout], check=True)


if __name__ == "__main__":
    main()
