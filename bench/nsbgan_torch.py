#!/usr/bin/env python3
"""Times a training iteration of NSB-GAN's decoders, or their upscaling, in PyTorch: what kiln's are measured against.

    pip install torch numpy
    python3 bench/nsbgan_torch.py --size 128 --width 32 --blocks 4 --batch 8 --steps 10 --threads 2
    python3 bench/nsbgan_torch.py --kind unet --size 256 --width 512 --batch 64 --device cuda --amp bf16 --layout channels_last

The networks of tests/golden/nsbgan_reference.py: the SRResNet's L1 step, its adversarial one (--gan; no perceptual loss), or a step of
every level of the U-Nets; haar; Adam. Bands come from the pictures inside the timed part, by strided sums. Prints one JSON object a
line for each layout, each measured in a process of its own.
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
NUMBERS = {"size": 128, "levels": 2, "width": 32, "blocks": 4, "d_width": 64, "batch": 8, "steps": 10, "warmup": 2, "threads": 0}


def measure(args):
    import torch
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden"))
    import nsbgan_reference as nsbgan

    def split(x):
        a, b, c, d = x[:, :, 0::2, 0::2], x[:, :, 0::2, 1::2], x[:, :, 1::2, 0::2], x[:, :, 1::2, 1::2]
        return [(a + b + c + d) / 2, (a + b - c - d) / 2, (a - b + c - d) / 2, (a - b - c + d) / 2]

    def low(x, levels):
        return torch.nn.functional.avg_pool2d(x, 2 ** levels) * 2 ** levels

    def packet(x, levels):
        if levels == 0:
            return [x]
        return [t for band in split(x) for t in packet(band, levels - 1)]

    def join(bands):
        a, b, c, d = bands
        n, k, h, w = a.shape
        rows = [torch.stack([(a + b + c + d) / 2, (a + b - c - d) / 2], -1), torch.stack([(a - b + c - d) / 2, (a - b - c + d) / 2], -1)]
        return torch.stack([r for r in rows], -1).permute(0, 1, 2, 5, 3, 4).reshape(n, k, 2 * h, 2 * w)

    def from_packet(tiles):
        if len(tiles) == 1:
            return tiles[0]
        q = len(tiles) // 4
        return join([from_packet(tiles[k * q:(k + 1) * q]) for k in range(4)])

    class Decoder(nsbgan.Decoder):  # haar's base is nearest upsampling
        def forward(self, band):
            base = torch.nn.functional.interpolate(band, scale_factor=2 ** self.levels) / 2 ** self.levels
            return self.net((band + self.shift) / self.scale) + base

    if args.threads:
        torch.set_num_threads(args.threads)
    on_gpu = args.device == "cuda"
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = args.tf32
    torch.backends.cudnn.benchmark = args.cudnn_benchmark
    torch.manual_seed(1)
    layout = torch.channels_last if args.layout == "channels_last" else torch.contiguous_format
    kind = {"bf16": torch.bfloat16, "f16": torch.float16}.get(args.amp)
    real = torch.rand(args.batch, 3, args.size, args.size, device=args.device).to(memory_format=layout)
    L = args.levels
    unets, g, d, opt_d = [], None, None, None
    if args.kind == "unet":
        unets = [nsbgan.TailUNet(3 * 4 ** k, 3 * 4 ** k, args.width).to(args.device, memory_format=layout) for k in range(1, L + 1)]
        parameters = [p for u in unets for p in u.parameters()]
    else:
        g = Decoder(args.width, args.blocks, L, "haar", 0, 2 ** L, False).to(args.device, memory_format=layout)
        parameters = list(g.parameters())
    opt_g = torch.optim.Adam(parameters, 1e-4, (0.9, 0.99), fused=on_gpu)
    if args.gan:
        d = nsbgan.Discriminator(args.size, args.d_width).to(args.device, memory_format=layout)
        opt_d = torch.optim.Adam(d.parameters(), 1e-4, (0.9, 0.99), fused=on_gpu)

    def step():
        if args.upscale:
            with torch.no_grad():
                band = low(real, L)
                if g:
                    return g(band).mean()
                x = torch.cat(split(band), 1)
                for u in unets:
                    x = torch.cat([x, u(x)], 1)
                return from_packet(list(x.split(3, 1))).mean()
        if args.gan:
            return nsbgan.gan_step(g, d, opt_g, opt_d, low(real, L), real)[0]
        opt_g.zero_grad(set_to_none=True)
        total = 0
        if g:
            total = (g(low(real, L)) - real).abs().mean()
            total.backward()
        for k, u in enumerate(unets, 1):
            tiles = torch.cat(packet(low(real, L - k) if L > k else real, k + 1), 1)
            known = 3 * 4 ** k
            loss = torch.nn.functional.mse_loss(u(tiles[:, :known]), tiles[:, known:]) * known
            loss.backward()
            total = loss
        opt_g.step()
        return total.detach()

    if args.upscale:
        for u in unets:
            u.eval()
    seconds = []
    for i in range(args.warmup + args.steps):
        start = time.perf_counter()
        with torch.autocast(args.device, dtype=kind, enabled=kind is not None):
            loss = step()
        loss = float(loss)
        if i >= args.warmup:
            seconds.append(time.perf_counter() - start)
    assert loss == loss
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(json.dumps({"name": "nsbgan_decoder", "kind": args.kind, "gan": args.gan, "upscale": args.upscale, "size": args.size, "width": args.width,
                      "batch": args.batch, "layout": args.layout, "torch_version": torch.__version__, "threads": torch.get_num_threads(),
                      "device": args.device, "amp": args.amp, "seconds_per_step": round(statistics.median(seconds), 6),
                      "min_seconds": round(min(seconds), 6), "peak_mb": round(peak, 1)}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in NUMBERS.items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=default)
    parser.add_argument("--kind", choices=("srresnet", "unet"), default="srresnet")
    parser.add_argument("--gan", action="store_true")
    parser.add_argument("--upscale", action="store_true")
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
