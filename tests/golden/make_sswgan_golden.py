#!/usr/bin/env python3
"""Writes the golden files that kiln's SSW-GAN is compared with: sswgan_*.safetensors beside this file.

    python3 make_sswgan_golden.py

Names, hash and what is stored: make_golden.py, sections 1, 2 and 4; rules for the initial values: make_biggan_golden.py (the GRU's bias is a
vector named bias, its weights are "any other"). All arithmetic is float64 on inputs and weights that are exactly float32 numbers. Clips
are [n, t, h, w, c] in kiln.

Cases, width 4, 3 classes, z 6, embedding 5, labels (2 i + 1) % 3, z hashed:
    first    G of 3 frames of 16 px, n = 2: clips, grad.* of sum(clips * cot), after.* u and running statistics, then G.eval
    second   G from 2 frames of 16 px to 4 of 32, n = 2: the same, with the condition hashed under "condition"
    fourfold G from 2 frames of 16 px to 4 of 64 without the residual
    critics  D of stage 2 on [2, 4, 32, 32, 3] hashed "real": spatial sees frames 0, 1, 3, temporal all pooled 2x2, matching ["condition", view of
             real]: scores.*, loss = sum over the three of mean relu(1 - score of clip 0) + mean relu(1 + score of clip 1), grad.* and grad.real of it
"""

import pathlib

import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

import sswgan_reference as sswgan
from make_biggan_golden import initial
from make_golden import normal, signed, stored

HERE = pathlib.Path(__file__).parent


def to_kiln(t):
    t = t.detach()
    return t.permute(0, 2, 3, 4, 1) if t.dim() == 5 else t.permute(0, 2, 3, 1) if t.dim() == 4 else t


def initialise(network, prefix, dtype):
    network = network.to(dtype)
    with torch.no_grad():
        for name, t in network.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            x = torch.tensor(initial(prefix + name, tuple(to_kiln(t).shape)))
            t.copy_(x.permute(0, 4, 1, 2, 3) if t.dim() == 5 else x.permute(0, 3, 1, 2) if t.dim() == 4 else x.reshape(t.shape))
    return network


def clips(name, shape, dtype):
    return torch.tensor(signed(name, shape)).permute(0, 4, 1, 2, 3).to(dtype)


def gradients(network, prefix):
    return {prefix + n: to_kiln(p.grad).clone() for n, p in network.named_parameters()}


def buffers(network, prefix):
    return {prefix + n: to_kiln(t).clone() for n, t in network.state_dict().items() if n.endswith((".u", ".running_mean", ".running_var"))}


LABELS = torch.tensor([1, 0])


def generator_case(case, z_name, dtype):
    if case == "first":
        g = sswgan.FirstGenerator(16, 4, 3, 6, 5)
    else:
        g = sswgan.UpsamplingGenerator(2, 4 if case == "fourfold" else 2, 4, 3, 6, 5, residual=case == "second")
    g = initialise(g, "G.", dtype)
    z = torch.tensor(normal(z_name, (2, 6))).to(dtype)
    extra = 3 if case == "first" else clips("condition", (2, 2, 16, 16, 3), dtype)
    made = g(z, LABELS, extra)
    shape = tuple(to_kiln(made).shape)
    (made * clips("cot", shape, dtype)).sum().backward()
    out = {"G": to_kiln(made).clone()} | gradients(g, "grad.G.") | buffers(g, "after.G.")
    g.eval()
    with torch.no_grad():
        out["G.eval"] = to_kiln(g(z, LABELS, extra))
    return out


def critics_case(real_name, dtype):
    d = initialise(sswgan.Critics(32, 4, 3, 16), "D.", dtype)
    real = clips(real_name, (2, 4, 32, 32, 3), dtype).requires_grad_()
    s = {"spatial": d.spatial(real[:, :, [0, 1, 3]], LABELS), "temporal": d.temporal(F.avg_pool3d(real, (1, 2, 2)), LABELS),
         "matching": d.matching(torch.cat([clips("condition", (2, 2, 16, 16, 3), dtype), sswgan.view(real, 2, 2)], dim=1))}
    loss = sum(F.relu(1 - x[0]) + F.relu(1 + x[1]) for x in s.values())
    loss.backward()
    return {"scores." + k: v.detach() for k, v in s.items()} | {"loss": loss.detach(), "grad.real": to_kiln(real.grad)} | gradients(d, "grad.D.") | buffers(d, "after.D.")


def kink(make, name):
    """How far gradients in float32 are from those in float64: large where an activation lies within rounding of relu's kink."""
    exact, rough = make(name, torch.float64), make(name, torch.float32)
    scale = max(float(t.abs().max()) for k, t in exact.items() if k.startswith("grad"))
    return max(float((t - rough[k].double()).abs().max() / t.abs().max()) for k, t in exact.items()
               if k.startswith("grad") and float(t.abs().max()) > 1e-6 * scale)


def main():
    for case, base in (("first", "z"), ("second", "z"), ("fourfold", "z"), ("critics", "real")):
        def make(name, dtype):
            return critics_case(name, dtype) if case == "critics" else generator_case(case, name, dtype)
        best = min((f"{base}.{i}" for i in range(16)), key=lambda name: kink(make, name))
        tensors = make(best, torch.float64)
        path = HERE / f"sswgan_{case}.safetensors"
        save_file(stored({k: t.contiguous() for k, t in tensors.items()}), path, metadata={"input": best})
        path.chmod(0o644)
        print(f"{path.name:32} {best:8} {kink(make, best):.1e} {len(tensors):5} tensors {path.stat().st_size / 1e6:6.2f} MB")


if __name__ == "__main__":
    main()
