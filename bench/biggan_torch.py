#!/usr/bin/env python3
"""Times one whole BigGAN training iteration in PyTorch: what kiln's biggan is measured against.

    pip install torch numpy
    python3 bench/biggan_torch.py --size 64 --width 16 --batch 32 --attention 32 --steps 10 --threads 2
    python3 bench/biggan_torch.py --size 128 --width 64 --batch 32 --attention 64 --device cuda --amp bf16 --layout channels_last

The iteration of tests/golden/biggan_reference.py: one D step on reals and fakes in one forward, one G step without D's weight
gradients, Adam, the average of G's whole state; no augmentation, random numbers drawn inside the timed part; float32, or --amp: both
networks and the losses under autocast, float16 without loss scaling, a measure of speed and memory and not a way to train. Prints one
JSON object a line for each layout, each measured in a process of its own.
"""

import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import time

LAYOUTS = ("contiguous", "channels_last")
NUMBERS = {"size": 32, "width": 16, "z": 80, "shared_dim": 32, "attention": 0, "batch": 32, "steps": 10, "warmup": 2, "threads": 0}
CLASSES = 10


def measure(args):
    import torch
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden"))
    import biggan_reference as biggan

    if args.threads:
        torch.set_num_threads(args.threads)
    on_gpu = args.device == "cuda"
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = args.tf32
    torch.backends.cudnn.benchmark = args.cudnn_benchmark
    torch.manual_seed(1)
    memory_format = torch.channels_last if args.layout == "channels_last" else torch.contiguous_format
    options = dict(shared_dim=args.shared_dim, attention=args.attention, deep=args.deep)
    g = biggan.Generator(args.size, args.width, CLASSES, args.z, **options).to(args.device, memory_format=memory_format)
    average = biggan.Generator(args.size, args.width, CLASSES, args.z, **options).to(args.device, memory_format=memory_format)
    d = biggan.Discriminator(args.size, args.width, CLASSES, attention=args.attention, deep=args.deep).to(args.device, memory_format=memory_format)
    opt_g, opt_d = biggan.adam(g, 2e-4, 1e-6), biggan.adam(d, 4e-4, 1e-6)
    real = (torch.rand(args.batch, 3, args.size, args.size, device=args.device) * 2 - 1).to(memory_format=memory_format)
    real_y = torch.randint(CLASSES, (args.batch,), device=args.device)
    kind = {"bf16": torch.bfloat16, "f16": torch.float16}.get(args.amp)

    def drawn():
        return torch.randn(args.batch, g.z, device=args.device), torch.randint(CLASSES, (args.batch,), device=args.device)

    seconds = []
    for i in range(args.warmup + args.steps):
        start = time.perf_counter()
        with torch.autocast(args.device, dtype=kind, enabled=kind is not None):
            biggan.d_step(g, d, opt_d, [(real, real_y, *drawn())], 0)
            loss = biggan.g_step(g, d, opt_g, [drawn()], 0)
        biggan.average(average, g, 0.999)
        if on_gpu:
            torch.cuda.synchronize()
        if i >= args.warmup:
            seconds.append(time.perf_counter() - start)
    assert torch.isfinite(loss)
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    reserved = torch.cuda.max_memory_reserved() / 2**20 if on_gpu else peak
    print(json.dumps({"name": "biggan_train_step", "size": args.size, "width": args.width, "batch": args.batch, "deep": args.deep,
                      "layout": args.layout, "torch_version": torch.__version__, "threads": torch.get_num_threads(), "device": args.device,
                      "amp": args.amp, "tf32": args.tf32,
                      "seconds_per_step": round(statistics.median(seconds), 6), "min_seconds": round(min(seconds), 6),
                      "peak_mb": round(peak, 1), "reserved_mb": round(reserved, 1)}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in NUMBERS.items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=default)
    parser.add_argument("--deep", action="store_true")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--amp", choices=("bf16", "f16"), help="torch.autocast to that type")
    parser.add_argument("--tf32", action="store_true", help="cuda: float32 convolutions and products may be rounded to TF32")
    parser.add_argument("--cudnn-benchmark", action="store_true", help="cuda: let cuDNN try its algorithms first")
    parser.add_argument("--layout", choices=LAYOUTS, help="default: both, one after the other")
    args = parser.parse_args()
    if args.layout:
        measure(args)
        return
    for layout in LAYOUTS:
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--layout", layout], check=True)


if __name__ == "__main__":
    main()
