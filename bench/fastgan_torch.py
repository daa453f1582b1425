#!/usr/bin/env python3
"""Times one whole FastGAN training iteration in PyTorch: what kiln's fastgan is measured against.

    pip install torch numpy safetensors
    python3 bench/fastgan_torch.py --size 256 --width 64 --batch 8 --steps 10 --threads 2
    python3 bench/fastgan_torch.py --size 256 --device cuda --no-tf32
    python3 bench/fastgan_torch.py --size 64 --amp bf16
    python3 bench/fastgan_torch.py --size 256 --device cuda --amp f16 --layout channels_last --cudnn-benchmark --fused --compile

--amp runs both networks and the losses under autocast, float16 without loss scaling: a measure of speed and memory, not a way to
train. --fused takes Adam's fused kernel, and averages all parameters in a few launches. --compile compiles both networks with
mode="reduce-overhead", which on a GPU captures CUDA graphs.

The iteration is the published one with squared error as its reconstruction loss (tests/golden/fastgan_reference.py: train_step):
float32 (or --amp), PyTorch's own spectral norm, batch norm, Adam; G's parameters averaged; all random numbers drawn inside the timed part.
Pictures are already in memory.  Prints one JSON object a line for each layout, each measured in a process of its own.

The published loop lets the generator's step compute gradients of the discriminator's weights and throws them away; a line says
"skip_d_grads": true where --skip-d-grads has saved that work.
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


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="32 to 1024 (default 256)")
    parser.add_argument("--width", type=int, default=64, help="ngf and ndf (default 64)")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10, help="timed iterations, of which the median is reported")
    parser.add_argument("--warmup", type=int, default=2, help="iterations before them")
    parser.add_argument("--threads", type=int, default=0, help="default: PyTorch's choice")
    parser.add_argument("--layout", choices=LAYOUTS, action="append", help="default: both")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--amp", choices=("bf16", "f16"), help="torch.autocast to that type (f16: without loss scaling, for timing only)")
    parser.add_argument("--skip-d-grads", action="store_true", help="no gradients of D's weights in G's step")
    parser.add_argument("--no-tf32", action="store_true", help="cuda: convolutions in true float32 (PyTorch's default is TF32)")
    parser.add_argument("--cudnn-benchmark", action="store_true", help="cuda: let cuDNN try its algorithms first")
    parser.add_argument("--fused", action="store_true", help="Adam fused, the average by foreach")
    parser.add_argument("--compile", action="store_true", help='torch.compile, mode="reduce-overhead"')
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(args, layout):
    import torch
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden"))
    import fastgan_reference as fastgan

    on_gpu = args.device == "cuda"
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.backends.cudnn.allow_tf32 = not args.no_tf32
    torch.backends.cudnn.benchmark = args.cudnn_benchmark
    torch.manual_seed(1)

    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    g = fastgan.initialise(fastgan.Generator(args.size, args.width)).to(args.device, memory_format=memory_format)
    d = fastgan.initialise(fastgan.Discriminator(args.size, args.width)).to(args.device, memory_format=memory_format)
    opt_g, opt_d = fastgan.adam(g), fastgan.adam(d)
    if args.fused:
        for optimiser in (opt_g, opt_d):
            optimiser.param_groups[0]["fused"] = True

        @torch.no_grad()
        def average(averages, tensors, decay=0.999):
            torch._foreach_lerp_(averages, list(tensors), 1 - decay)

        fastgan.average = average
    averages = [p.detach().clone() for p in g.parameters()]
    reals = (torch.rand(args.batch, 3, args.size, args.size, device=args.device) * 2 - 1).to(memory_format=memory_format)

    if args.compile:
        g.compile(mode="reduce-overhead")
        d.compile(mode="reduce-overhead")

    def step():
        if args.compile and on_gpu:
            torch.compiler.cudagraph_mark_step_begin()
        draws = fastgan.random_draws(g, args.batch, device=args.device)
        kind = {"bf16": torch.bfloat16, "f16": torch.float16}.get(args.amp)
        with torch.autocast(args.device, dtype=kind, enabled=kind is not None):
            return fastgan.train_step(g, d, opt_g, opt_d, averages, reals, draws, args.skip_d_grads)

    seconds = []
    for i in range(args.warmup + args.steps):
        start = time.perf_counter()
        losses = step()
        if on_gpu:
            torch.cuda.synchronize()
        if i >= args.warmup:
            seconds.append(time.perf_counter() - start)
    assert all(torch.isfinite(v) for v in losses.values())

    if on_gpu:
        peak = torch.cuda.max_memory_allocated() / 2**20
        reserved = torch.cuda.max_memory_reserved() / 2**20
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    line = {"name": "fastgan_train_step", "size": args.size, "width": args.width, "batch": args.batch, "layout": layout,
            "torch_version": torch.__version__, "seconds_per_step": round(statistics.median(seconds), 6),
            "peak_mb": round(peak, 1), "min_seconds": round(min(seconds), 6), "max_seconds": round(max(seconds), 6),
            "steps": args.steps, "amp": args.amp, "skip_d_grads": args.skip_d_grads, "device": args.device, "compile": args.compile,
            "fused": args.fused}
    if on_gpu:
        line |= {"reserved_mb": round(reserved, 1), "gpu": torch.cuda.get_device_name(), "tf32": not args.no_tf32,
                 "cudnn_benchmark": args.cudnn_benchmark}
    else:
        line["threads"] = torch.get_num_threads()
    print(json.dumps(line), flush=True)


def main():
    args = arguments()
    layouts = args.layout or LAYOUTS
    if args.in_this_process:
        measure(args, layouts[0])
        return
    for layout in layouts:
        options = ["--in-this-process", "--layout", layout]
        for name in ("size", "width", "batch", "steps", "warmup", "threads", "device"):
            options += [f"--{name}", str(getattr(args, name))]
        if args.amp:
            options += ["--amp", args.amp]
        for name in ("skip_d_grads", "no_tf32", "cudnn_benchmark", "compile", "fused"):
            if getattr(args, name):
                options.append("--" + name.replace("_", "-"))
        subprocess.run([sys.executable, __file__, *options], check=True)


if __name__ == "__main__":
    main()
