#!/usr/bin/env python3
"""FastGAN checkpoints under the public PyTorch code's names, for the tests of kiln_convert.

    python3 tests/golden/make_fastgan_pth.py                       writes pth/all_2.pth, pth/plain_512.pth, pth/plain_1024.pth
                                                                   and pth/pictures.safetensors beside this file
    python3 tests/golden/make_fastgan_pth.py --check KILN_CONVERT  through kiln and back at 256, 512 and 1024 px: every tensor equal,
                                                                   loadable with weights_only=True, optimisers too

Networks are fastgan_reference.py's, narrow, trained for two steps on noise; public_name() gives their tensors the public names
and nothing else. all_2.pth: g, d, g_ema, opt_g, opt_d with DataParallel's prefix, 256 px. plain_*.pth: {g, d} in half precision,
512 in the old file format. pictures.safetensors: what the averaged generator draws in evaluation mode with the noise at zero, in
float64, from z = normal("z", ...) of make_golden.py.
"""

import pathlib
import subprocess
import sys
import tempfile

import torch

import fastgan_reference as fastgan
import make_golden

HERE = pathlib.Path(__file__).parent / "pth"
NZ = 8
WIDTH = {256: 4, 512: 4, 1024: 8}


def public_name(name):
    part = name.split(".")
    block, leaf = part[0], part[-1]
    if block == "to_small":
        return "to_128." + leaf
    if block in ("to_big", "rf_small"):
        return name
    if block == "init":
        return f"init.init.{dict(conv=0, bn=1)[part[1]]}.{leaf}"
    if block.startswith("feat_"):
        two = int(block[5:]) in (8, 32, 128, 512)
        index = dict(conv1=1, noise1=2, bn1=3, conv2=5, noise2=6, bn2=7) if two else dict(conv1=1, bn1=2)
        return f"{block}.{index[part[1]]}.{leaf}"
    if block.startswith("se_"):
        return f"{block}.main.{dict(conv1=1, conv2=3)[part[1]]}.{leaf}"
    if block == "stem":
        return f"down_from_big.{dict(conv1=0, conv2=2, bn2=3)[part[1]]}.{leaf}"
    if block == "down_small":
        if part[1] == "conv1":
            return f"down_from_small.0.{leaf}"
        return f"down_from_small.{int(part[1][4:]) + 1}.main.{dict(conv1=0, bn1=1)[part[2]]}.{leaf}"
    if block == "rf_big":
        return f"rf_big.{dict(conv1=0, bn1=1, conv2=3)[part[1]]}.{leaf}"
    if block.startswith("down_"):
        place = dict(conv1="main.0", bn1="main.1", conv2="main.3", bn2="main.4", conv3="direct.1", bn3="direct.2")[part[1]]
        return f"{block}.{place}.{leaf}"
    if part[1] == "conv":
        return f"{block}.main.5.{leaf}"
    return f"{block}.main.{part[1][2:]}.{dict(conv1=1, bn1=2)[part[2]]}.{leaf}"


def public_state(network, prefix=""):
    return {prefix + public_name(k): v.clone() for k, v in network.state_dict().items()}


def train(size, steps=2):
    torch.manual_seed(size)
    g = fastgan.initialise(fastgan.Generator(size, WIDTH[size], NZ))
    d = fastgan.initialise(fastgan.Discriminator(size, WIDTH[size]))
    for m in g.modules():
        if isinstance(m, fastgan.Noise):
            torch.nn.init.normal_(m.weight)
    opt_g, opt_d = fastgan.adam(g, 2e-3), fastgan.adam(d, 2e-3)
    average = [p.detach().clone() for p in g.parameters()]
    for _ in range(steps):
        fastgan.train_step(g, d, opt_g, opt_d, average, torch.rand(2, 3, size, size) * 2 - 1, fastgan.random_draws(g, 2, NZ))
    return g, d, opt_g, opt_d, average


def pictures(g, average):
    """The averaged generator in evaluation mode, in float64, noise at zero."""
    g = g.double().eval()
    if average is not None:
        for p, a in zip(g.parameters(), average):
            p.data.copy_(a)
    z = torch.tensor(make_golden.normal("z", (2, NZ))).double()
    noise = [torch.zeros(2, 1, side, side, dtype=torch.float64) for side in g.noise_sides()]
    with torch.no_grad():
        big, small = g(z, noise)
    return {f"{g.size}.big": make_golden.nhwc(big), f"{g.size}.small": make_golden.nhwc(small)}


def whole(g, d, opt_g, opt_d, average, prefix):
    return {"g": public_state(g, prefix), "d": public_state(d, prefix), "g_ema": average,
            "opt_g": opt_g.state_dict(), "opt_d": opt_d.state_dict()}


def write():
    HERE.mkdir(exist_ok=True)
    out = {}
    g, d, opt_g, opt_d, average = train(256)
    torch.save(whole(g, d, opt_g, opt_d, average, "module."), HERE / "all_2.pth")
    out |= pictures(g, average)
    for size in (512, 1024):
        g, d, *_ = train(size)
        for network in (g, d):
            network.half()
        torch.save({"g": public_state(g), "d": public_state(d)}, HERE / f"plain_{size}.pth", _use_new_zipfile_serialization=size != 512)
        out |= pictures(g, None)
    make_golden.save_file(make_golden.stored(out), HERE / "pictures.safetensors")


def same(a, b, where):
    if torch.is_tensor(a):
        assert a.shape == b.shape and torch.equal(a, b), where
        return 1
    if isinstance(a, dict):
        assert a.keys() <= b.keys(), (where, a.keys() - b.keys())
        return sum(same(a[k], b[k], f"{where}.{k}") for k in a)
    if isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        return sum(same(x, y, f"{where}[{i}]") for i, (x, y) in enumerate(zip(a, b)))
    return 0


def check(program):
    with tempfile.TemporaryDirectory() as folder:
        for size in (256, 512, 1024):
            g, d, opt_g, opt_d, average = train(size)
            source, middle, back = (f"{folder}/{name}" for name in ("all_2.pth", "x.safetensors", "back.pth"))
            saved = whole(g, d, opt_g, opt_d, average, "module.")
            torch.save(saved, source)
            for a, b in ((source, middle), (middle, back)):
                subprocess.run([program, a, b, "--force"], check=True)
            loaded = torch.load(back, weights_only=True)
            saved["g"], saved["d"] = public_state(g), public_state(d)
            for network in ("g", "d"):
                for k in saved[network]:
                    if k.endswith("num_batches_tracked"):
                        loaded[network][k] = saved[network][k]  # nothing reads it; kiln writes the step
            for k in ("opt_g", "opt_d"):
                del saved[k]["param_groups"]
            print(size, same(saved, loaded, ""), "tensors equal")
            fresh = fastgan.Generator(size, WIDTH[size], NZ)
            fresh.load_state_dict({k: loaded["g"][public_name(k)] for k in fresh.state_dict()})
            optimiser = fastgan.adam(fresh, 1.0)
            optimiser.load_state_dict(loaded["opt_g"])
            assert optimiser.param_groups[0]["lr"] == torch.tensor(2e-4).item()
            sum(p.square().sum() for p in fresh.parameters()).backward()
            optimiser.step()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--check"]:
        check(sys.argv[2])
    else:
        write()
